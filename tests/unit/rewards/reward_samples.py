"""Hand-made episodes on an image of 10 x 2 pixels whose upper row is the target, and random ones for properties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ibisagent.actions import Click, ClickAction, DiscardAction, TerminateAction, UndoAction
from ibisagent.episode import Episode, ImageRecord, Invalid, Outcome, Step, encode_mask
from ibisagent.rle import Rle

WIDTH, HEIGHT = 10, 2
TARGET = np.zeros((HEIGHT, WIDTH), bool)
TARGET[0] = True
ABSENT_TARGET = np.zeros_like(TARGET)

OUTCOMES = {"found": Outcome.DONE, "absent": Outcome.ABSENT, "uncertain": Outcome.UNCERTAIN}


def mask(hits: int, excess: int = 0) -> Rle:
    """So many pixels of the target, from the left, and so many of the row below: IoU hits / (10 + excess)."""
    pixels = np.zeros_like(TARGET)
    pixels[0, :hits] = True
    pixels[1, :excess] = True
    return encode_mask(pixels)


def clicks(*at: tuple[int, int, bool]) -> ClickAction:
    """Clicks at (x, y, positive) pixels."""
    return ClickAction(
        clicks=tuple(Click(x=(x + 0.5) / WIDTH, y=(y + 0.5) / HEIGHT, positive=positive) for x, y, positive in at)
    )


def click(x: int, y: int, positive: bool, after: Rle | None) -> Step:
    return Step(index=0, action=clicks((x, y, positive)), mask=after, changed_pixels=1)


def invalid(after: Rle | None = None) -> Step:
    return Step(index=0, invalid=Invalid(code="syntax", reason="no action"), mask=after)


def failed() -> Step:
    return Step(index=0, action=clicks((0, 0, True)))


def stop(verdict: str = "found", after: Rle | None = None) -> Step:
    return Step(index=0, action=TerminateAction(verdict=verdict), mask=after)  # type: ignore[arg-type]


def run(
    *steps: Step,
    initial: Rle | None = None,
    final: Rle | None = None,
    outcome: Outcome | None = None,
    error: str | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> Episode:
    """An ended episode. What is not given follows from the steps, as the environment would have it."""
    current = initial
    for step in steps:
        current = step.mask if step.counts and step.invalid is None else current
    last = steps[-1] if steps else None
    if outcome is None:
        ended = last is not None and not last.counts and isinstance(last.action, TerminateAction)
        outcome = OUTCOMES[last.action.verdict] if ended else Outcome.OUT_OF_STEPS  # type: ignore[union-attr]
    if final is None and outcome is not Outcome.ERROR:
        final = current if outcome is not Outcome.ABSENT else None
        final = final if final is not None else encode_mask(np.zeros(size, bool))
    return Episode(
        instruction="Segment it.",
        image=ImageRecord(sha256="", width=size[1], height=size[0]),
        steps=[step.model_copy(update={"index": i}) for i, step in enumerate(steps)],
        initial_mask=initial,
        final_mask=final,
        outcome=outcome,
        error=error,
    )


def golden() -> Episode:
    """Nonsense; a right click; one that changes nothing; a right one that spills over; two in one; a stop.

    IoU: 0, 0, 4/10, 4/10, 8/12, 9/10.
    """
    return run(
        invalid(),
        click(2, 0, True, mask(4)),
        click(0, 0, True, mask(4)),
        click(8, 0, True, mask(8, 2)),
        Step(index=0, action=clicks((0, 1, False), (1, 1, True)), mask=mask(9), changed_pixels=3),
        stop(),
    )


# -- random ones ------------------------------------------------------------------------------

SMALL = (4, 5)


def _masks() -> st.SearchStrategy[NDArray[np.bool_]]:
    bits = st.lists(st.booleans(), min_size=20, max_size=20)
    return bits.map(lambda values: np.array(values, bool).reshape(SMALL))


@st.composite
def _click_action(draw: st.DrawFn) -> ClickAction:
    at = st.integers(0, 10000).map(lambda value: value / 10000)
    one = st.builds(Click, x=at, y=at, positive=st.booleans())
    return ClickAction(clicks=tuple(draw(st.lists(one, min_size=1, max_size=3))))


@st.composite
def prefixes(draw: st.DrawFn) -> tuple[list[Step], Rle | None]:
    """Steps of a run that has not ended, and the mask that the user gave."""
    initial = draw(st.none() | _masks())
    current = encode_mask(initial) if initial is not None else None
    given, steps = current, []
    for _ in range(draw(st.integers(0, 6))):
        what = draw(st.sampled_from(["click", "click", "click", "undo", "discard", "nonsense", "refused"]))
        if what == "nonsense":
            steps.append(invalid(current))
            continue
        if what == "refused":  # an action that parsed and was not carried out
            steps.append(invalid(current).model_copy(update={"action": draw(_click_action())}))
            continue
        after = draw(_masks() if what == "click" else st.none() | _masks())
        current = encode_mask(after) if after is not None else None
        action = draw(_click_action()) if what == "click" else UndoAction() if what == "undo" else DiscardAction()
        steps.append(Step(index=0, action=action, mask=current, changed_pixels=0))
    return steps, given


@st.composite
def runs(draw: st.DrawFn) -> tuple[Episode, NDArray[np.bool_] | None]:
    """An ended episode of at least one reply, and a target that may be absent."""
    steps, initial = draw(prefixes())
    end: Sequence[Step] = draw(st.sampled_from([[stop("found")], [stop("absent")], [stop("uncertain")], []]))
    all_steps = [*steps, *(end if end or steps else [stop("absent")])]
    final = None
    if not end and steps and draw(st.booleans()):  # out of steps, and an earlier mask was better
        final = encode_mask(draw(_masks()))
    return run(*all_steps, initial=initial, final=final, size=SMALL), draw(st.none() | _masks())

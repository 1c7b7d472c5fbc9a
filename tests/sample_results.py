"""Hand-made results of ten by ten pixels, scored as an evaluation scores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ibisagent.actions import Click, ClickAction, TerminateAction
from ibisagent.episode import Episode, ImageRecord, Invalid, Outcome, Seconds, Step
from ibisagent.evaluate.result import CaseResult
from ibisagent.rle import Rle, decode_mask, encode_mask
from ibisagent.scoring import score_episode

SIDE = 10

TARGET = np.zeros((SIDE, SIDE), bool)
TARGET[:5] = True  # fifty pixels, the first ones in row-major order


def first(size: int, beyond: int = 0) -> np.ndarray:
    """The first `size` pixels of the target, and `beyond` pixels outside it."""
    mask = np.zeros(SIDE * SIDE, bool)
    mask[:size] = True
    mask[50 : 50 + beyond] = True
    return mask.reshape(SIDE, SIDE)


def click_at(*pixels: tuple[int, int, bool]) -> ClickAction:
    """Clicks on pixels (x, y, positive)."""
    return ClickAction(clicks=tuple(Click(x=(x + 0.5) / SIDE, y=(y + 0.5) / SIDE, positive=p) for x, y, p in pixels))


class Run:
    """A run that is told step by step what its masks are."""

    def __init__(self, given: np.ndarray | None = None) -> None:
        self.given = given
        self.mask = given
        self.steps: list[Step] = []

    def _add(self, mask: np.ndarray | None, **fields: Any) -> Run:
        rle = None if mask is None else encode_mask(mask)
        seconds = Seconds(policy=0.5, segmenter=0.25)
        step = Step(index=len(self.steps), mask=rle, seconds=seconds, num_tokens=10, num_prompt_tokens=100, **fields)
        self.steps.append(step)
        self.mask = mask
        return self

    def click(self, mask: np.ndarray, *pixels: tuple[int, int, bool], score: float | None = None) -> Run:
        """A click, by default a positive one on pixel (0, number of the step), and the mask that it gave."""
        action = click_at(*(pixels or ((0, len(self.steps), True),)))
        return self.act(action, mask, score)

    def act(self, action: Any, mask: np.ndarray | None, score: float | None = None) -> Run:
        before = np.zeros_like(TARGET) if self.mask is None else self.mask
        after = np.zeros_like(TARGET) if mask is None else mask
        changed = int(np.count_nonzero(before != after))
        return self._add(mask, action=action, changed_pixels=changed, segmenter_score=score, raw_text=str(action))

    def invalid(self, text: str = "what?") -> Run:
        return self._add(self.mask, invalid=Invalid(code="x", reason="x"), raw_text=text)

    def failing(self) -> Run:
        return self._add(self.mask, action=click_at((9, 9, True)))

    def end(
        self,
        outcome: Outcome = Outcome.DONE,
        *,
        target: np.ndarray | None = TARGET,
        final_step: int | None = None,
        final: np.ndarray | None = None,
        max_steps: int = 8,
        **facts: Any,
    ) -> CaseResult:
        """Scored; a run that ends by itself says so in a reply of its own."""
        if outcome in (Outcome.DONE, Outcome.UNCERTAIN, Outcome.ABSENT):
            verdict = {"done": "found"}.get(str(outcome), str(outcome))
            self._add(self.mask, action=TerminateAction(verdict=verdict))  # type: ignore[arg-type]
        kept = None if outcome is Outcome.ABSENT else self.mask if final is None else final
        mask: Rle | None = encode_mask(np.zeros_like(TARGET) if kept is None else kept)
        if outcome is Outcome.ERROR:
            mask = None
        clicked = [step.index for step in self.steps if step.segmenter_score is not None]
        if final_step is None and clicked and outcome is not Outcome.ABSENT:
            final_step = clicked[-1]
        episode = Episode(
            instruction="Segment it.",
            image=ImageRecord(sha256="0", width=SIDE, height=SIDE),
            initial_mask=None if self.given is None else encode_mask(self.given),
            steps=self.steps,
            outcome=outcome,
            final_mask=mask,
            final_step=final_step,
            max_steps=max_steps,
            seconds_total=9.0,
        )
        known: dict[str, Any] = {"case_id": "a", "group": "g", "target": "t", "modality": "CT", "image": "i.png"}
        absent = target is None or not target.any()
        known |= {"absent": absent, "target_mask": None if absent else encode_mask(target)}  # type: ignore[arg-type]
        if outcome is Outcome.ERROR:
            known["error"] = "the tool broke"
        return scored(CaseResult(**{**known, **facts}, episode=episode))


def scored(result: CaseResult) -> CaseResult:
    """With its scores."""
    from dataclasses import replace

    assert result.episode is not None
    target = None if result.target_mask is None else decode_mask(result.target_mask)
    return replace(result, scores=score_episode(result.episode, target))


def run_of(sizes: Sequence[int], outcome: Outcome = Outcome.DONE, **options: Any) -> CaseResult:
    """A run whose masks are the first pixels of the target, so that its IoU after each click is size / 50."""
    run = Run()
    for size in sizes:
        run.click(first(size))
    return run.end(outcome, **options)

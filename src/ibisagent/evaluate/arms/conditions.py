"""Conditions: what is done to a case before it is played, to see what the agent makes of it.

Each turns a row into another row, which is played like any other; what was done stands in the row's ``condition`` and
so in its result. All are drawn by seed and case alone. The paper shows three of them as pictures (its figure 12): a
deceptive instruction, a mask that shows something else, a damaged mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.damage import damaged_mask, other_mask
from ibisagent.engine.language.hints import Hint, draw_deceptive
from ibisagent.engine.language.instructions import draw_instruction
from ibisagent.engine.scenarios import PLACES, false_place, starting_mask
from ibisagent.engine.walk import Subject
from ibisagent.evaluate.arms.absent import absent_rows
from ibisagent.evaluate.arms.scene import NotPossible, Scene, changed
from ibisagent.evaluate.arms.wording import wording_row
from ibisagent.evaluate.run import instruction_seed
from ibisagent.io import CaseRow
from ibisagent.metrics import iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

__all__ = ["BANDS", "CONDITIONS", "NEUTRAL", "apply_condition"]

BANDS: dict[str, tuple[float, float]] = {"light": (0.6, 0.8), "heavy": (0.2, 0.5)}
"""IoU with the target, from and below, of a damaged mask by strength."""

ELSEWHERE = 0.2
"""A mask of another structure or place has less IoU with the target than this."""

NEUTRAL = ("check_verify", "whats_next")
"""Categories of refining instructions that do not call the given mask wrong."""

_TRIES = 60

RowMaker = Callable[[Scene, CaseRow], CaseRow]


def apply_condition(
    name: str | None, scene: Scene, rows: Sequence[CaseRow], wordings: int = 2
) -> tuple[list[CaseRow], dict[str, int]]:
    """The rows of an arm.

    Parameters
    ----------
    name
        Of the condition (see :class:`~ibisagent.evaluate.arms.arm.Arm`); None leaves the rows as they are.
    scene
        The whole list.
    rows
        Those of its rows that the lab plays.
    wordings
        Categories of each stage that a case is told in; serves the conditions ``wording:…`` alone.

    Returns
    -------
    rows
        As they are played.
    left_out
        How many cases the condition cannot be set for, by reason.
    """
    if name is None:
        return list(rows), {}
    if name in ABSENT:
        return absent_rows(scene, rows, ABSENT[name], name)
    made: list[CaseRow] = []
    left_out: dict[str, int] = {}
    for rank, row in enumerate(sorted(rows, key=lambda r: r.case_id)):
        try:
            if name.startswith("wording:"):
                found = wording_row(scene, row, name, rank, wordings, lambda r: _damaged(scene, r, "light"))
                if found is not None:
                    made.append(found)
            else:
                made.append(CONDITIONS[name](scene, row))
        except NotPossible as reason:
            left_out[str(reason)] = left_out.get(str(reason), 0) + 1
    order = {row.case_id: i for i, row in enumerate(rows)}
    return sorted(made, key=lambda r: order[r.case_id]), left_out


# -- deceptive instructions, and the true one beside them ------------------------------------------


def _wrong_place(scene: Scene, row: CaseRow) -> CaseRow:
    _, target = scene.load(row)
    rng = scene.rng(row, "wrong-place")
    quarter = false_place(target, rng)
    place = quarter if quarter is not None else _false_corner(target, rng)
    if place is None:
        raise NotPossible("the target reaches into every corner")
    return _placed(scene, row, "wrong-place", place)


def _true_place(scene: Scene, row: CaseRow) -> CaseRow:
    """The sentence of the wrong place with another place in it."""
    height, width = scene.load(row)[1].shape
    ys, xs = np.nonzero(scene.load(row)[1])
    upper, left = ys < height // 2, xs < width // 2
    inside = {p: ((upper == ("upper" in p)) & (left == ("left" in p))).mean() for p in PLACES}
    quarter = max(PLACES, key=lambda p: float(inside[p]))
    middle = (ys >= height // 3) & (ys < height - height // 3) & (xs >= width // 3) & (xs < width - width // 3)
    if inside[quarter] < 0.5 and not middle.any():
        raise NotPossible("no word says where the target is")
    return _placed(scene, row, "true-place", quarter if inside[quarter] >= 0.5 else "middle")


def _placed(scene: Scene, row: CaseRow, name: str, place: str) -> CaseRow:
    told = _told(scene, row, "wrong_place", f"{place} of the image")
    return changed(row, {"name": name, "place": place}, instruction=told, category=name.replace("-", "_"))


def _told(scene: Scene, row: CaseRow, hint: Hint, place: str | None = None) -> str:
    """A sentence of the hint's templates, with the plain run's own phrase for the target."""
    rng = np.random.default_rng(instruction_seed(scene.seed, row.case_id))
    rng.random()  # the plain run's draw of a category: what follows are the same draws
    full = scene.library == "full"
    return draw_deceptive(row.target, row.modality, rng, hint, place, split="test", extended=full).text


def _false_corner(target: Mask, rng: np.random.Generator) -> str | None:
    """A corner, a third of the image wide and high, with nothing of the target in it."""
    height, width = target.shape
    rows = {"upper": slice(0, height // 3), "lower": slice(height - height // 3, None)}
    columns = {"left": slice(0, width // 3), "right": slice(width - width // 3, None)}
    free = [p for p in PLACES if not target[rows[p.split()[0]], columns[p.split()[1]]].any()]
    return f"{free[int(rng.integers(len(free)))]} corner" if free else None


def _false_error(scene: Scene, row: CaseRow) -> CaseRow:
    told = _told(scene, row, "false_error")
    return _given(
        scene, row, _fitting(scene, row), {"name": "false-error"}, instruction=told, category="false_error"
    )  # fmt: skip


# -- given masks -----------------------------------------------------------------------------------


def _fitting(scene: Scene, row: CaseRow) -> Mask:
    """The target, its border a little worn; the same mask in every condition that gives one."""
    image, target = scene.load(row)
    mask = starting_mask("right_stop", Subject(image, row.target, target), scene.rng(row, "fitting-mask"))
    assert mask is not None
    return mask


def _good_mask(scene: Scene, row: CaseRow) -> CaseRow:
    """Told in a neutral category: most refining ones say or imply that the mask is wrong."""
    seed = instruction_seed(scene.seed, row.case_id)
    category = NEUTRAL[int(np.random.default_rng(seed).random() * len(NEUTRAL))]
    drawn = draw_instruction(
        row.target, row.modality, seed, stage="refine", category=category, split="test", library=scene.library,
        extended=scene.library == "full",
    )  # fmt: skip
    facts = {"name": "good-mask"}
    return _given(scene, row, _fitting(scene, row), facts, instruction=drawn.text, category=category)


def _mismatched(scene: Scene, row: CaseRow) -> CaseRow:
    _, target = scene.load(row)
    rng = scene.rng(row, "mismatched-mask")
    others = scene.others(row)
    names = [name for name, mask in others.items() if other_mask([mask], target, rng) is not None]
    if names:
        name = names[int(rng.integers(len(names)))]
        return _given(scene, row, others[name], {"name": "mismatched-mask", "shows": name})
    return _given(scene, row, _elsewhere(target, rng), {"name": "mismatched-mask", "shows": "another place"})


def _elsewhere(target: Mask, rng: np.random.Generator) -> Mask:
    """The target's shape where the target is not: mirrored or moved, whatever is farthest from it."""
    height, width = target.shape
    best: tuple[float, Mask] | None = None
    for _ in range(_TRIES):
        mask = target[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
        shift = (int(rng.integers(-height // 2, height // 2 + 1)), int(rng.integers(-width // 2, width // 2 + 1)))
        mask = _shifted(mask, *shift)
        if 4 * mask.sum() < target.sum():
            continue  # most of it left the image
        score = iou(mask, target)
        if best is None or score < best[0]:
            best = (score, mask)
        if score < ELSEWHERE:
            break
    if best is None or best[0] >= ELSEWHERE:
        raise NotPossible("the target leaves no other place")
    return best[1]


def _shifted(mask: Mask, down: int, right: int) -> Mask:
    height, width = mask.shape
    out = np.zeros_like(mask)
    rows, columns = slice(max(0, down), min(height, height + down)), slice(max(0, right), min(width, width + right))
    from_rows = slice(max(0, -down), min(height, height - down))
    from_columns = slice(max(0, -right), min(width, width - right))
    out[rows, columns] = mask[from_rows, from_columns]
    return out


def _corrupted(strength: str) -> RowMaker:
    def make(scene: Scene, row: CaseRow) -> CaseRow:
        return _given(scene, row, _damaged(scene, row, strength), {"name": f"corrupted-{strength}"})

    return make


def _damaged(scene: Scene, row: CaseRow, strength: str) -> Mask:
    """The target, damaged until its IoU lies in the strength's band: one damage upon the other, anew where too much."""
    _, target = scene.load(row)
    rng = scene.rng(row, f"corrupted-{strength}")
    low, high = BANDS[strength]
    mask = target
    for _ in range(_TRIES):
        mask = damaged_mask(mask, rng)
        score = iou(mask, target) if mask.any() else 0.0
        if low <= score < high:
            return mask
        if score < low:
            mask = target
    raise NotPossible("no damage of this strength")


def _given(scene: Scene, row: CaseRow, mask: Mask, facts: dict[str, Any], **fields: str) -> CaseRow:
    about = {**facts, "given_iou": round(float(iou(mask, scene.load(row)[1])), 6)}
    return changed(row, about, initial_mask=scene.give(row, mask), **fields)


CONDITIONS: Mapping[str, RowMaker] = {
    "wrong-place": _wrong_place,
    "true-place": _true_place,
    "false-error": _false_error,
    "good-mask": _good_mask,
    "mismatched-mask": _mismatched,
    **{f"corrupted-{strength}": _corrupted(strength) for strength in BANDS},
}
"""Conditions of present targets, by name."""

ABSENT: Mapping[str, bool] = {"absent-foreign": True, "absent-near": False}
"""Conditions that ask for what is not there: whether the modality rules it out, or only the region of the body."""

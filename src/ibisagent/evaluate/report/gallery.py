"""Which cases went wrong, in two orders: what was lost by stopping with a worse mask, and what was never found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ibisagent.evaluate.report.model import Card, Gallery, Picture
from ibisagent.evaluate.report.numbers import SHARE, number_text
from ibisagent.evaluate.report.pictures import case_picture, result_image
from ibisagent.rle import decode_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.evaluate.records import Run
    from ibisagent.evaluate.result import CaseResult

__all__ = ["LEAST_REGRET", "Failures", "Placed", "best_iou", "choose_failures", "make_galleries", "write_episode_pages"]

LEAST_REGRET = 0.01
"""A run that lost less than a point by its choice of the final mask did not choose badly."""


@dataclass(frozen=True)
class Placed:
    """A case of a run, and its place in it."""

    position: int
    result: CaseResult

    @property
    def regret(self) -> float | None:
        """Best IoU of the run minus the final one; None without a run or a target, and after an error."""
        best, final = best_iou(self.result), self.result.iou
        return None if best is None or final is None or self.result.error else best - final

    @property
    def key(self) -> str:
        """Name that may stand in an address and in a file's name."""
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.result.case_id or "row")
        return f"{self.position:05d}-{plain}"[:90].rstrip(".-")


@dataclass(frozen=True)
class Failures:
    """Cases by what went wrong, worst first; a case may be in both of the first two."""

    by_regret: tuple[Placed, ...]
    by_iou: tuple[Placed, ...]
    marked_absent: tuple[Placed, ...]

    def every(self) -> list[Placed]:
        """Each once, in the order of the list."""
        found = {j.position: j for j in (*self.by_regret, *self.by_iou, *self.marked_absent)}
        return [found[position] for position in sorted(found)]


def best_iou(result: CaseResult) -> float | None:
    """IoU of the best mask of the run, the given one among them; None without a run or a target."""
    scores = result.scores
    if scores is None or scores.iou_by_step is None:
        return None
    return max(*scores.iou_by_step, result.iou or 0.0)


def choose_failures(results: Sequence[CaseResult], number: int) -> Failures:
    """Pick the worst cases.

    Parameters
    ----------
    results
        Scored.
    number
        Most cases of each kind.
    """
    cases = [Placed(position, result) for position, result in enumerate(results)]
    regretted = [j for j in cases if j.regret is not None and j.regret >= LEAST_REGRET]
    present = [j for j in cases if j.result.iou is not None]
    marked = [j for j in cases if j.result.absent and _marks(j.result)]
    return Failures(
        by_regret=tuple(sorted(regretted, key=lambda j: (-(j.regret or 0.0), j.position))[:number]),
        by_iou=tuple(sorted(present, key=lambda j: (j.result.iou or 0.0, j.position))[:number]),
        marked_absent=tuple(sorted(marked, key=lambda j: (-_area(j.result), j.position))[:number]),
    )


def make_galleries(run: Run, failures: Failures, pages: Iterable[str]) -> tuple[list[Gallery], dict[str, Picture]]:
    """Cards and pictures of the cases.

    Parameters
    ----------
    run
        Where the images are.
    failures
        From :func:`choose_failures`.
    pages
        Keys of the cases that have an episode page in ``episodes/``.

    Returns
    -------
    list of Gallery, dict
        Galleries that are not empty, and the pictures of their cards by key.
    """
    linked = set(pages)
    pictures = {}
    for placed in failures.every():
        picture = _picture(run, placed)
        if picture is not None:
            pictures[placed.key] = picture
    told = (
        (
            "regret",
            "Sorted by regret",
            "The run had a better mask and ended with a worse one: it stopped too late, or never took a step back. "
            "Largest loss first.",
            failures.by_regret,
        ),
        ("lowest", "Sorted by IoU", "The final masks that overlap least with the reference.", failures.by_iou),
        (
            "marked-absent",
            "Absent targets that were marked",
            "There is nothing to segment, and the run ended with a mask all the same. Largest mask first.",
            failures.marked_absent,
        ),
    )
    galleries = [
        Gallery(f"gallery-{key}", title, about, tuple(_card(placed, linked, pictures) for placed in cases))
        for key, title, about, cases in told
        if cases
    ]
    return galleries, pictures


def write_episode_pages(run: Run, cases: Iterable[Placed], folder: Path) -> dict[str, str]:
    """Write the pages of runs whose image is to be had.

    Parameters
    ----------
    run
        Where the images are.
    cases
        Whose pages.
    folder
        Must exist.

    Returns
    -------
    dict
        File name by the case's key.
    """
    from ibisagent.web.episode_page import PageNotes, write_episode_page

    written = {}
    for placed in cases:
        result, image = placed.result, result_image(run, placed.result)
        if result.episode is None or image is None:
            continue
        name = f"{placed.key}.html"
        write_episode_page(
            result.episode, image, folder / name, result.scores, PageNotes(reference=_mask(result.target_mask))
        )
        written[placed.key] = name
    return written


def _card(placed: Placed, linked: set[str], pictures: dict[str, Picture]) -> Card:
    result, episode = placed.result, placed.result.episode
    facts = (result.modality, result.view, result.group)
    return Card(
        case_id=result.case_id or f"row {placed.position + 1}",
        target=(result.target or "unknown target") + (" (absent)" if result.absent else ""),
        detail=" · ".join(fact for fact in facts if fact),
        instruction=result.instruction,
        outcome="error" if result.error or episode is None else str(episode.outcome),
        iou=result.iou,
        best_iou=best_iou(result),
        regret=placed.regret,
        steps=None if episode is None else episode.num_steps,
        note=result.error,
        link=f"episodes/{placed.key}.html" if placed.key in linked else "",
        picture=placed.key if placed.key in pictures else "",
    )


def _picture(run: Run, placed: Placed) -> Picture | None:
    result, image = placed.result, result_image(run, placed.result)
    if result.episode is None or image is None:
        return None
    iou = "" if result.iou is None else f", IoU {number_text(result.iou, SHARE)}"
    alt = f"{result.modality or 'image'} with the agent's mask and the reference of {result.target}{iou}"
    return case_picture(
        placed.key, result.episode, image, _mask(result.episode.final_mask), _mask(result.target_mask), alt
    )


def _mask(rle: object) -> NDArray[np.bool_] | None:
    from ibisagent.rle import Rle

    return decode_mask(rle) if isinstance(rle, Rle) else None


def _area(result: CaseResult) -> int:
    mask = _mask(result.episode.final_mask) if result.episode is not None else None
    return 0 if mask is None else int(mask.sum())


def _marks(result: CaseResult) -> bool:
    return not result.error and _area(result) > 0

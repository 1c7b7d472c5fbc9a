"""The interactive track of the CVPR 2025 challenge on foundation models for 3-D biomedical segmentation, in 2-D.

The rules were looked up in the organisers' evaluation script (JunMa11/CVPR-MedSegFMCompetition), of which no code is
used here: a box first where the structure has one, then five clicks, each on the largest connected error; Dice and NSD
at 2 mm after each; the area under each over the five clicks, and the last values. On slices instead of volumes the same
rule has 8 neighbours instead of 26; :mod:`ibisagent.error_clicks` takes either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ibisagent.actions import BoxAction
from ibisagent.evaluate.figures import CaseFigures, Figure
from ibisagent.evaluate.protocols.protocol import Protocol
from ibisagent.metrics import auc_cvpr25, dice, nsd
from ibisagent.policies.clicker import BOXES, wants_box
from ibisagent.rle import decode_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.config import RolloutConfig
    from ibisagent.episode import Episode
    from ibisagent.evaluate.protocols.tables import FigureTable
    from ibisagent.evaluate.result import CaseResult
    from ibisagent.rle import Rle

__all__ = ["NSD_FROM_DICE", "TOLERANCE_MM", "Cvpr25Protocol"]

TOLERANCE_MM = 2.0

NSD_FROM_DICE = 0.2
"""The organisers' script does not measure NSD at or below this Dice, and counts it as 0."""


class Cvpr25Protocol(Protocol):
    """``--protocol cvpr25?box=auto&clicks=5``; box is ``auto``, ``always`` or ``never``."""

    name = "cvpr25"
    title = "CVPR25 interactive"
    about = (
        "The segmenter alone: the target's box first, then five clicks, each on the deepest pixel of the largest "
        "connected piece of error. Dice and NSD at 2 mm after the box and after the last click, and their areas over "
        "the clicks."
    )
    conventions = (
        "Missed and excess pixels are one error; pieces are connected by 8 neighbours (26 in volumes); depth is "
        "measured in pixels; equally deep pixels are drawn with the challenge's fixed seed.",
        "The area is that of trapezoids of width 1 over the values after each click, not divided: the best is 4.0 for "
        "five clicks. The value after the box is no part of it, since not every case has a box.",
        "NSD counts the contour's length (surface elements as in DeepMind's surface-distance) and is 0 where Dice is "
        "0.2 or less, as in the organisers' script. Cases without known spacing have no NSD.",
        "A mask that is perfect gets no further click and keeps its values; an error counts as 0 throughout.",
        "Means are over images of the mean over their targets. Absent targets are left out, as in the challenge.",
        "The box is the exact box of the mask; the challenge widens it by up to 5 pixels in 256, by chance. Its limit "
        "of 90 seconds a structure is not applied.",
        "In the challenge boxes are missing case by case; here auto leaves them out for vessels and airways, by name.",
    )
    option_names = ("box", "clicks")
    sentences = "none"
    with_absent = False
    from_nothing = True

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        super().__init__(values)
        self.num_clicks = self.options.integer("clicks", 5, least=2)
        self.box = self.options.choice("box", BOXES, "auto") or "auto"

    @property
    def figures(self) -> dict[str, Figure]:
        """The challenge's four figures, and the two after the box."""
        n, most = self.num_clicks, self.num_clicks - 1
        after = f"after the last of {n} clicks"
        found = (
            Figure("cvpr25_dice_auc", "Dice AUC", f"Area of Dice over {n} clicks, from 0 to {most}.", True, False),
            Figure("cvpr25_nsd_auc", "NSD AUC", f"Area of NSD at 2 mm over {n} clicks, from 0 to {most}.", True, False),
            Figure("cvpr25_dice_final", "Final Dice", f"Dice {after}."),
            Figure("cvpr25_nsd_final", "Final NSD", f"NSD at 2 mm {after}."),
            Figure("cvpr25_dice_box", "Dice after the box", "Dice before the first click, cases with a box."),
            Figure("cvpr25_nsd_box", "NSD after the box", "NSD at 2 mm before the first click, cases with a box."),
        )
        return {figure.name: figure for figure in found}

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Of the areas; all else are shares."""
        return dict.fromkeys(("cvpr25_dice_auc", "cvpr25_nsd_auc"), (0.0, float(self.num_clicks - 1)))

    def config(self, config: RolloutConfig) -> RolloutConfig:
        """The box, the clicks, and no end of repeated clicks: the rule may ask for one pixel again and again."""
        steps = self.num_clicks + 1
        return config.model_copy(update={"max_steps": steps, "max_repeated_actions": steps + 1})

    @property
    def policy(self) -> str:
        """The clicks."""
        return f"clicks:largest-component?clicks={self.num_clicks}&box={self.box}"

    def weights(self, results: Sequence[CaseResult]) -> Sequence[float]:
        """Every image counts the same, whatever the number of its targets among these cases."""
        images = [result.image or f"\0{place}" for place, result in enumerate(results)]
        held = Counter(images)
        return [1 / held[image] for image in images]

    def table(self, results: Sequence[CaseResult]) -> FigureTable:
        """Without figures after the box where the segmenter takes none, which unreadable rows do not know."""
        table = super().table(results)
        if not any(result.episode is not None and _takes_boxes(result.episode) for result in results):
            table.names = [name for name in table.names if not name.endswith("_box")]
        return table

    def case_figures(self, result: CaseResult) -> CaseFigures:
        """Areas and last values of one case."""
        if result.absent:
            return {}
        after_box, clicks = self._masks(result)
        boxed = wants_box(self.box, result.target or "") and (result.episode is None or _takes_boxes(result.episode))
        target = None if result.target_mask is None else decode_mask(result.target_mask)
        found: dict[str, tuple[float, float]] = {}
        if target is None:
            dices, nsds = [0.0] * self.num_clicks, [0.0] * self.num_clicks
        else:
            dices = [_dice(mask, target) for mask in clicks]
            nsds = [_nsd(m, d, target, result.spacing_mm) for m, d in zip(clicks, dices, strict=True)]
        if boxed:
            value = 0.0 if target is None else _dice(after_box, target)
            found["cvpr25_dice_box"] = (value, 1.0)
            if result.spacing_mm is not None:
                after = 0.0 if target is None else _nsd(after_box, value, target, result.spacing_mm)
                found["cvpr25_nsd_box"] = (after, 1.0)
        found["cvpr25_dice_auc"] = (auc_cvpr25(dices, self.num_clicks), 1.0)
        found["cvpr25_dice_final"] = (dices[-1], 1.0)
        if result.spacing_mm is not None:
            found["cvpr25_nsd_auc"] = (auc_cvpr25(nsds, self.num_clicks), 1.0)
            found["cvpr25_nsd_final"] = (nsds[-1], 1.0)
        return {name: found[name] for name in self.figures if name in found}

    def _masks(self, result: CaseResult) -> tuple[Rle | None, list[Rle | None]]:
        """The mask after the box (None without one) and after every click; None is an empty mask."""
        box: Rle | None = None
        clicks: list[Rle | None] = []
        if result.episode is not None and not result.error:
            for step in result.episode.steps:
                if not step.counts:
                    continue
                if isinstance(step.action, BoxAction):
                    box = step.mask
                else:
                    clicks.append(step.mask)
        clicks = clicks[: self.num_clicks]
        last = clicks[-1] if clicks else box
        return box, clicks + [last] * (self.num_clicks - len(clicks))


def _takes_boxes(episode: Episode) -> bool:
    return "box" in (episode.policy.action_kinds or ())


def _dice(mask: Rle | None, target: NDArray[np.bool_]) -> float:
    return 0.0 if mask is None else dice(decode_mask(mask), target)


def _nsd(mask: Rle | None, overlap: float, target: NDArray[np.bool_], spacing_mm: tuple[float, float] | None) -> float:
    if mask is None or spacing_mm is None or overlap <= NSD_FROM_DICE:
        return 0.0
    return nsd(decode_mask(mask), target, TOLERANCE_MM, spacing_mm)

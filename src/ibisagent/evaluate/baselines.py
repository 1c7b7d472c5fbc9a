"""Baselines without a model: what a policy must beat to have looked at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ibisagent.actions import DIALECTS, Click, ClickAction, TerminateAction, Turn, Verdict
from ibisagent.geometry import pixel_to_norm
from ibisagent.io import CaseRow, load_case, read_cases
from ibisagent.policies.protocol import Reply, View

__all__ = ["NoLookPolicy", "mean_positions"]


def mean_positions(cases: Path, *, split: str = "train") -> dict[str, tuple[float, float]]:
    """Mean centroid (x, y) in [0, 1] of every "group/target" over the cases of a split.

    Parameters
    ----------
    cases
        A ``cases.jsonl``; paths in it are relative to it.
    split
        Cases of other splits are not looked at.
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read_cases(cases):
        if not isinstance(row, CaseRow) or row.split != split or row.mask is None:
            continue
        _, target, _ = load_case(row, cases.parent)
        if target is not None and target.any():
            ys, xs = np.nonzero(target)
            found[f"{row.group}/{row.target}"].append(
                ((xs.mean() + 0.5) / target.shape[1], (ys.mean() + 0.5) / target.shape[0])
            )
    return {k: (float(np.mean([p[0] for p in v])), float(np.mean([p[1] for p in v]))) for k, v in found.items()}


class NoLookPolicy:
    """One positive click at the target's mean training position, then stop. It never looks.

    Parameters
    ----------
    positions
        (x, y) in [0, 1] by "group/target", from :func:`mean_positions`; the image's centre where missing.
    """

    name = "no-look"
    weights_sha256: str | None = None
    dialect = DIALECTS["plain"]

    def __init__(self, positions: Mapping[str, tuple[float, float]]) -> None:
        self.positions = positions

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        """The same for every image of a target; ``seed`` changes nothing."""
        replies = []
        for view in views:
            if view.episode.steps:
                verdict: Verdict = "found" if view.mask is not None and view.mask.any() else "uncertain"
                turn = Turn(
                    thought="I clicked once without looking.", action=TerminateAction(verdict=verdict, answer="")
                )
            else:
                x, y = self.positions.get(f"{view.case.group}/{view.case.target}", (0.5, 0.5))
                px, py = int(x * view.case.image.width), int(y * view.case.image.height)
                click = Click(
                    x=pixel_to_norm(px, view.case.image.width),
                    y=pixel_to_norm(py, view.case.image.height),
                    positive=True,
                )
                turn = Turn(thought="The target is usually here.", action=ClickAction(clicks=(click,)))
            replies.append(Reply(self.dialect.format(turn)))
        return replies

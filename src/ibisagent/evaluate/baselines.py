"""Baselines without a model: what a policy must beat to have looked at all, and what the tool does with one good box.

All of them write ordinary replies and play the ordinary rollout. None ever calls a target absent but the box oracle,
which knows. After the actions that are theirs they stop: "found" if there is a mask, else "uncertain".
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.actions import DIALECTS, Action, BoxAction, Click, ClickAction, TerminateAction, Turn
from ibisagent.errors import PolicyError
from ibisagent.geometry import pixel_to_norm
from ibisagent.io import CaseRow, RowError, load_case, read_cases
from ibisagent.policies.protocol import Reply, View
from ibisagent.types import PixelBox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.evaluate.case_list import CaseList

__all__ = ["BoxOraclePolicy", "CentrePolicy", "NoLookPolicy", "RandomPolicy", "mean_positions"]


def mean_positions(cases: Path | CaseList, *, split: str = "train", most: int = 200) -> dict[str, tuple[float, float]]:
    """Mean centroid (x, y) in [0, 1] of every "group/target" over the cases of a split.

    Parameters
    ----------
    cases
        A ``cases.jsonl`` (paths in it are relative to it), or a list that is open.
    split
        Cases of other splits are not looked at.
    most
        Of each group and target only the first so many cases are read.
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    rows: Sequence[CaseRow | RowError] = read_cases(cases) if isinstance(cases, Path) else cases.rows
    for row in rows:
        if not isinstance(row, CaseRow) or row.split != split or row.mask is None:
            continue
        places = found[f"{row.group}/{row.target}"]
        if len(places) >= most:
            continue
        _, target, _ = load_case(row, cases.parent) if isinstance(cases, Path) else cases.load(row)
        if target is not None and target.any():
            ys, xs = np.nonzero(target)
            places.append(((xs.mean() + 0.5) / target.shape[1], (ys.mean() + 0.5) / target.shape[0]))
    return {k: (float(np.mean([p[0] for p in v])), float(np.mean([p[1] for p in v]))) for k, v in found.items() if v}


class _Blind:
    """Plays the actions of :meth:`action`, then stops."""

    name: str
    thought: str
    farewell: str
    weights_sha256: str | None = None
    dialect = DIALECTS["plain"]

    def action(self, view: View, index: int, seed: int) -> Action | None:
        """The action of a step, None to stop."""
        raise NotImplementedError

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        """The next reply of every view."""
        return [Reply(self.dialect.format(self._turn(view, seed))) for view in views]

    def _turn(self, view: View, seed: int) -> Turn:
        action = self.action(view, len(view.episode.steps), seed)
        if action is not None:
            return Turn(thought=self.thought, action=action)
        found = view.mask is not None and bool(view.mask.any())
        return Turn(thought=self.farewell, action=TerminateAction(verdict="found" if found else "uncertain"))


class NoLookPolicy(_Blind):
    """One positive click at the target's mean training position, then stop. It never looks; no seed changes it.

    Parameters
    ----------
    positions
        (x, y) in [0, 1] by "group/target", from :func:`mean_positions`. A group that is not in it is given the mean of
        the other groups' positions of that target; without any, the image's centre.
    """

    name = "no-look"
    thought = "The target is usually here."
    farewell = "I clicked once without looking."

    def __init__(self, positions: Mapping[str, tuple[float, float]]) -> None:
        self.positions = positions
        by_target: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for key in sorted(positions):
            by_target[key.rpartition("/")[2]].append(positions[key])
        self._anywhere = {
            target: (float(np.mean([p[0] for p in places])), float(np.mean([p[1] for p in places])))
            for target, places in by_target.items()
        }

    def action(self, view: View, index: int, seed: int) -> Action | None:
        """The click, then None."""
        if index:
            return None
        case = view.case
        own = self.positions.get(f"{case.group}/{case.target}")
        x, y = own or self._anywhere.get(case.target or "", (0.5, 0.5))
        return _click(view, int(x * view.case.image.width), int(y * view.case.image.height))


class CentrePolicy(_Blind):
    """One positive click in the middle of the image, then stop."""

    name = "centre-click"
    thought = "Targets are often in the middle."
    farewell = "I clicked in the middle."

    def action(self, view: View, index: int, seed: int) -> Action | None:
        """The click, then None."""
        return None if index else _click(view, view.case.image.width // 2, view.case.image.height // 2)


class RandomPolicy(_Blind):
    """Clicks at random pixels, then stop; drawn by seed, case and step, whatever the other cases are.

    Parameters
    ----------
    num_clicks
        How many: the first is positive, the others are of either sign. None takes as many as the run allows.
    """

    thought = "I click somewhere."
    farewell = "That was all."

    def __init__(self, num_clicks: int | None = 1) -> None:
        self.num_clicks = num_clicks
        self.name = "random-click" if num_clicks == 1 else "random-clicks"

    def action(self, view: View, index: int, seed: int) -> Action | None:
        """A click, None after the last one."""
        if index >= (view.episode.max_steps if self.num_clicks is None else self.num_clicks):
            return None
        digest = hashlib.sha256(f"{seed}\0{view.episode.case_id}\0{index}".encode("utf-8", "surrogatepass")).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        x, y = int(rng.integers(view.case.image.width)), int(rng.integers(view.case.image.height))
        return _click(view, x, y, positive=index == 0 or bool(rng.random() < 0.5))


class BoxOraclePolicy(_Blind):
    """One box, tight around the target, then stop: what the segmenter does when it is told where the target is.

    Parameters
    ----------
    targets
        Target mask, ``bool`` (H, W), by case id, as an oracle has them; None or an empty mask says that it is absent.
    """

    name = "box-oracle"
    thought = "The target lies in this box."
    farewell = "I gave one box."

    def __init__(self, targets: Mapping[str, NDArray[np.bool_] | None]) -> None:
        self.targets = targets

    def action(self, view: View, index: int, seed: int) -> Action | None:
        """The box, then None; a Terminate at once where the target is absent.

        Raises
        ------
        PolicyError
            If the case has no entry in `targets`.
        """
        if index:
            return None
        case = view.case
        if case.case_id not in self.targets:
            raise PolicyError(f"the box oracle was given no target for the case '{case.case_id}'")
        target = self.targets[case.case_id]
        if target is None or not target.any():
            return TerminateAction(verdict="absent")
        ys, xs = np.nonzero(target)
        box = PixelBox(int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max()))
        return BoxAction.at_pixels(box, case.image.width, case.image.height)


def _click(view: View, x: int, y: int, *, positive: bool = True) -> ClickAction:
    image = view.case.image
    click = Click(x=pixel_to_norm(x, image.width), y=pixel_to_norm(y, image.height), positive=positive)
    return ClickAction(clicks=(click,))

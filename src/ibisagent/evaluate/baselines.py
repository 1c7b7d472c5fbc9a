"""Baselines without a model: what a policy must beat to have looked at all, and what the tool does with one good box.

All of them write ordinary replies and play the ordinary rollout. None ever calls a target absent but the box oracle,
which knows. After the actions that are theirs they stop: "found" if there is a mask, else "uncertain".
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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

__all__ = ["BoxOraclePolicy", "CentrePolicy", "NoLookPolicy", "Place", "Positions", "RandomPolicy", "mean_positions"]


@dataclass(frozen=True)
class Place:
    """Where a target is on an image of the training split.

    Parameters
    ----------
    group, target, image, patient
        From the row; the patient is its group where it names none, None where that is not known either.
    x, y
        Centroid in [0, 1].
    """

    group: str | None
    target: str
    image: str
    patient: str | None
    x: float
    y: float


class Positions:
    """Mean places of targets, as someone knows them who has seen the training split and not the case itself.

    Parameters
    ----------
    places
        Of the training split.
    own
        By case id what is left out for it: its image, and its patient or None.
    """

    def __init__(self, places: Iterable[Place], own: Mapping[str, tuple[str, str | None]] | None = None) -> None:
        self._places: dict[str, list[Place]] = defaultdict(list)
        for place in places:
            self._places[place.target].append(place)
        self._own = dict(own or {})

    def of(self, case_id: str | None, group: str | None, target: str | None) -> tuple[float, float] | None:
        """Mean (x, y) of the target in the group, else the mean of the other groups' means; None without a place."""
        image, patient = self._own.get(case_id or "", (None, None))
        groups: dict[str | None, list[Place]] = defaultdict(list)
        for place in self._places.get(target or "", ()):
            if place.image != image and (patient is None or place.patient != patient):
                groups[place.group].append(place)
        means = {name: _mean([(p.x, p.y) for p in places]) for name, places in groups.items()}
        return means.get(group) or (_mean(list(means.values())) if means else None)


def mean_positions(cases: Path | CaseList, *, split: str = "train", most: int = 200) -> Positions:
    """Where targets are on the images of a split, for cases of the same list.

    No case's own image is looked at for it, and for a case of the split itself no image of its patient. A case of
    another split is given what the other images of its patient in the training split say, as a trained policy is: in
    lists that divide slices of one patient (``data/mini``) that is the bar.

    Parameters
    ----------
    cases
        A ``cases.jsonl`` (paths in it are relative to it), or a list that is open.
    split
        Cases of other splits are not looked at.
    most
        Of each group and target only the first so many cases are read.
    """
    places: list[Place] = []
    number: Counter[tuple[str | None, str]] = Counter()
    own: dict[str, tuple[str, str | None]] = {}
    rows: Sequence[CaseRow | RowError] = read_cases(cases) if isinstance(cases, Path) else cases.rows
    for row in rows:
        if not isinstance(row, CaseRow):
            continue
        named = (row.model_extra or {}).get("patient")
        patient = named if isinstance(named, str) and named else row.group
        own[row.case_id] = row.image, patient if row.split == split else None
        if row.split != split or row.mask is None or number[row.group, row.target] >= most:
            continue
        _, target, _ = load_case(row, cases.parent) if isinstance(cases, Path) else cases.load(row)
        if target is not None and target.any():
            number[row.group, row.target] += 1
            ys, xs = np.nonzero(target)
            x, y = (xs.mean() + 0.5) / target.shape[1], (ys.mean() + 0.5) / target.shape[0]
            places.append(Place(row.group, row.target, row.image, patient, float(x), float(y)))
    return Positions(places, own)


def _mean(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return float(np.mean([x for x, _ in places])), float(np.mean([y for _, y in places]))


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
        From :func:`mean_positions`. A case without one is clicked in the image's centre.
    """

    name = "no-look"
    thought = "The target is usually here."
    farewell = "I clicked once without looking."

    def __init__(self, positions: Positions) -> None:
        self.positions = positions

    def coverage(self, rows: Iterable[CaseRow | RowError]) -> str:
        """How many present cases, and targets of groups, have a position, in one line."""
        cases = [row for row in rows if isinstance(row, CaseRow) and row.mask is not None]
        known = [row for row in cases if self.positions.of(row.case_id, row.group, row.target) is not None]
        targets, found = ({(row.group, row.target) for row in some} for some in (cases, known))
        return (
            f"a training position is known for {len(known)} of {len(cases)} cases ({len(found)} of {len(targets)} "
            "targets); the others are clicked in the centre"
        )

    def action(self, view: View, index: int, seed: int) -> Action | None:
        """The click, then None."""
        if index:
            return None
        case = view.case
        x, y = self.positions.of(case.case_id, case.group, case.target) or (0.5, 0.5)
        return _click(view, int(x * case.image.width), int(y * case.image.height))


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

"""Options of runs on volumes: as arguments, and from there to the settings of a run."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from ibisagent.cli.values import at_least
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.config import RolloutConfig
    from ibisagent.volume.config import VolumeConfig

__all__ = ["add_volume_options", "refuse_volume_options", "volume_config"]

_FLAGS = ("planes", "slices", "scan_slices", "scan", "key_slices", "max_revisits", "min_agreement", "carry")
_RANGE = re.compile(r"([0-9]{1,9})?:([0-9]{1,9})?")


def add_volume_options(p: argparse.ArgumentParser, *, with_range: bool = True) -> None:
    """Add the options; those not given are None."""
    g = p.add_argument_group("how to work on a volume")
    g.add_argument("--planes", metavar="P", type=_planes, help="axial, coronal, sagittal, several or all (axial)")
    if with_range:
        g.add_argument("--slices", metavar="A:B", type=_slices, help="only slices A to B of the plane, from 0")
    g.add_argument("--scan-slices", metavar="N", type=at_least(1), help="slices of the coarse scan (9)")
    g.add_argument("--scan", choices=["tap", "look"], help="carry out the first action there, or only hear of it (tap)")
    g.add_argument("--key-slices", metavar="N", type=at_least(1), help="slices with a whole run of the agent (1)")
    g.add_argument("--max-revisits", metavar="N", type=at_least(0), help="most slices that are asked about again (4)")
    g.add_argument("--min-agreement", metavar="X", type=_share, help="Dice of neighbours under which that is (0.5)")
    g.add_argument("--carry", choices=["auto", "prompt", "video"], help="how masks go from slice to slice (auto)")


def volume_config(options: argparse.Namespace, rollout: RolloutConfig) -> VolumeConfig:
    """The settings of a run; ``--max-seconds`` is the budget of the whole volume.

    Raises
    ------
    InputError
        If options do not go together.
    """
    from ibisagent.volume.config import VolumeConfig

    given: dict[str, Any] = {n: getattr(options, n) for n in _FLAGS if getattr(options, n, None) is not None}
    part = given.pop("slices", None)
    if part is not None:
        if len(given.get("planes", ("axial",))) > 1:
            raise InputError("--slices counts the slices of one plane; give --planes one plane, or leave --slices out")
        given["first_slice"], given["last_slice"] = part
    budget = rollout.max_seconds
    return VolumeConfig(**given, max_seconds=budget, rollout=rollout.model_copy(update={"max_seconds": None}))


def refuse_volume_options(options: argparse.Namespace, what: str) -> None:
    """Make sure that none is given where there is no volume to work on.

    Raises
    ------
    InputError
        If one is.
    """
    for name in _FLAGS:
        if getattr(options, name, None) is not None:
            raise InputError(f"--{name.replace('_', '-')} is for volumes, and this is {what}; leave it out")


def _planes(text: str) -> tuple[str, ...]:
    names = ("axial", "coronal", "sagittal")
    if text.strip().lower() == "all":
        return names
    found = tuple(part.strip().lower() for part in text.split(","))
    if not all(part in names for part in found) or len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(f"axial, coronal, sagittal, several of them or all is needed, not {text!r}")
    return found


def _slices(text: str) -> tuple[int | None, int | None]:
    found = _RANGE.fullmatch(text.strip())
    first, last = (None if n is None else int(n) for n in found.groups()) if found else (None, None)
    if found is None or (first is not None and last is not None and first > last):
        raise argparse.ArgumentTypeError(f"a range such as 20:60 is needed, not {text!r}")
    return first, last


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"a number from 0 to 1 is needed, not {text!r}")
    return value

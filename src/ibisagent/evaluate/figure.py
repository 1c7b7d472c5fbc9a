"""What a figure is: a name, what it counts, and how people read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CaseFigures", "Figure"]

CaseFigures = Mapping[str, tuple[float, float]]
"""(number, weight) by the figure's name."""


@dataclass(frozen=True)
class Figure:
    """What a figure means.

    Parameters
    ----------
    name
        As in summary.json; conventions are part of it (``nsd_2mm``, ``hd95_mm``).
    title
        For tables and plots.
    about
        What is counted, over which cases, and what empty masks and errors give.
    higher_is_better
        None where neither is (the number of steps).
    percent
        Whether people read it as a share.
    unit
        Of the value where it is no share: ``"mm"``, ``"steps"``, ``"s"``, ``"tokens"``; empty for a bare number.
    section
        Which table it belongs to: ``"overlap"``, ``"surface"``, ``"refusals"``, ``"actions"``, ``"refinement"``,
        ``"stopping"`` or ``"cost"``.
    """

    name: str
    title: str
    about: str
    higher_is_better: bool | None = True
    percent: bool = True
    unit: str = ""
    section: str = ""

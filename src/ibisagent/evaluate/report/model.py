"""What a report says, as pure data: page, Markdown, LaTeX, JSON and plots are all written from it.

A report is a row of sections, a section a row of blocks; a block is a table, a forest (estimates under one another,
with their intervals), a curve, a gallery of cases or a list of facts. Whoever fills it in knows runs and statistics;
whoever writes it out knows neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ibisagent.evaluate.statistics.intervals import FEW_CLUSTERS

__all__ = [
    "FEW_CLUSTERS",
    "Block",
    "Card",
    "Cell",
    "Curve",
    "Facts",
    "Forest",
    "ForestRow",
    "Gallery",
    "Headline",
    "Picture",
    "Point",
    "Report",
    "Scale",
    "Section",
    "Series",
    "Table",
    "Value",
]


@dataclass(frozen=True)
class Scale:
    """How the numbers of a figure are read.

    Parameters
    ----------
    title
        Of the figure.
    percent
        Shown times 100, as a share.
    higher_is_better
        None where neither is.
    signed
        Whether the numbers are differences: shown with their sign, around zero.
    unit
        ``"points"`` for differences of shares within a run (they are shown times 100 too), ``"mm"``, ``"s"``,
        ``"steps"``, ``"tokens"``; empty for a share or a bare number.
    """

    title: str
    percent: bool = True
    higher_is_better: bool | None = True
    signed: bool = False
    unit: str = ""

    @property
    def measure(self) -> str:
        """What the numbers are in: ``"%"``, ``"points"``, ``"mm"`` ...; empty for a bare number."""
        if self.percent and self.signed:
            return "points"
        return self.unit or ("%" if self.percent else "")

    @property
    def heading(self) -> str:
        """Title with the unit, for the head of a column or an axis."""
        unit = self.measure
        return f"{self.title}, {unit}" if unit and unit.lower() != self.title.lower() else self.title

    def difference(self) -> Scale:
        """Of differences between two such numbers."""
        return replace(self, signed=True)


@dataclass(frozen=True)
class Value:
    """A number, how sure it is, and of how much it was made.

    Parameters
    ----------
    value
        None where it is undefined.
    ci95
        (low, high) of the 95% interval; None where there is none.
    n
        Cases; None where they do not apply.
    num_clusters, unit
        Independent groups of cases, and what they are: ``"patient"``, ``"image"`` or ``"case"``.
    warning
        What a reader must know of the interval; empty if nothing.
    method
        How the interval was made (see :class:`~ibisagent.evaluate.statistics.Estimate`); empty where nobody said.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    n: int | None = None
    num_clusters: int | None = None
    unit: str = ""
    warning: str = ""
    method: str = ""

    def beside(self, row: Value) -> Value:
        """Without its clusters where its row says the same of how few it is: it is marked where it rests on others."""
        same = (self.n, self.num_clusters) == (row.n, row.num_clusters)
        return replace(self, num_clusters=None) if same else self

    @property
    def is_few(self) -> bool:
        """Whether its interval rests on so few clusters that it must be marked."""
        return self.value is not None and self.num_clusters is not None and self.num_clusters < FEW_CLUSTERS

    @classmethod
    def of(cls, data: Mapping[str, Any] | None, unit: str = "") -> Value:
        """From a figure of ``summary.json``: ``{"value", "ci95", "n", "num_clusters", "warning", "method"}``.

        An interval without width is left out: where every cluster gave the same, or every target stands in a cluster
        of its own, it is not certainty that makes it so.
        """
        if data is None:
            return cls(None)
        ci95 = data.get("ci95")
        if ci95 is not None and None not in ci95 and ci95[1] - ci95[0] < 1e-9:
            ci95 = None
        return cls(
            value=data.get("value"),
            ci95=None if ci95 is None or None in ci95 else (float(ci95[0]), float(ci95[1])),
            n=data.get("n"),
            num_clusters=data.get("num_clusters"),
            unit=data.get("unit") or unit,
            warning=data.get("warning") or "",
            method=data.get("method") or "",
        )


Cell = str | int | None | tuple[Value, Scale]
"""A text, a count, nothing, or a number with its scale."""


@dataclass(frozen=True)
class Headline:
    """A figure of the summary."""

    name: str
    scale: Scale
    about: str
    value: Value
    remark: str = ""
    """One short line under it, for example the difference to a baseline."""


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column names the row.

    Parameters
    ----------
    key
        Short name: of files, labels and anchors; ASCII letters, digits and dashes.
    title, about
        Heading, and what it shows.
    columns
        Headings.
    rows
        As many cells as columns.
    groups
        (index of its first row, heading) of runs of rows that belong together.
    """

    key: str
    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    groups: tuple[tuple[int, str], ...] = ()
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class ForestRow:
    """One estimate of a forest.

    Parameters
    ----------
    label, detail
        Whose it is, and a quiet word about it.
    value
        The estimate.
    group
        Heading under which it stands; rows of one group follow one another.
    strong
        Drawn filled and in colour: the agent itself; of differences, those that hold after correction.
    note
        Shown after the numbers, for example a corrected p-value.
    """

    label: str
    value: Value
    detail: str = ""
    group: str = ""
    strong: bool = False
    note: str = ""


@dataclass(frozen=True)
class Forest:
    """Estimates under one another with their intervals: a dot, its line, and the numbers.

    ``reference`` is where a vertical line stands (zero for differences), ``note_title`` heads the rows' notes.
    """

    key: str
    title: str
    about: str
    scale: Scale
    rows: tuple[ForestRow, ...]
    reference: float | None = None
    reference_title: str = ""
    note_title: str = ""
    kind: Literal["forest"] = "forest"


@dataclass(frozen=True)
class Point:
    """A point of a curve; ``size`` is how many it stands for, drawn as its area."""

    x: float
    value: Value
    size: int | None = None


@dataclass(frozen=True)
class Series:
    """One line of a curve."""

    name: str
    points: tuple[Point, ...]
    style: Literal["main", "second", "quiet"] = "main"


@dataclass(frozen=True)
class Curve:
    """Lines over a number, with bands for intervals.

    ``diagonal`` draws where y equals x; ``joined`` False shows dots with their intervals alone; ``steps`` counts
    whole numbers on x. Ranges are of the axes.
    """

    key: str
    title: str
    about: str
    x_title: str
    scale: Scale
    series: tuple[Series, ...]
    x_range: tuple[float, float]
    y_range: tuple[float, float] = (0.0, 1.0)
    x_percent: bool = False
    x_whole: bool = False
    diagonal: bool = False
    joined: bool = True
    facts: tuple[tuple[str, str], ...] = ()
    kind: Literal["curve"] = "curve"


@dataclass(frozen=True)
class Picture:
    """An image with outlines, in units of its displayed size.

    Parameters
    ----------
    key
        Unique in the page; ASCII letters, digits and dashes.
    data
        ``data:`` address of the bare image.
    width, height
        Displayed size, pixels made square.
    mask, reference
        Paths of the outlines (SVG), empty for none.
    clicks
        (x, y, positive, number of the step).
    close
        (x, y, width, height) of the part to show enlarged; None where the whole is large enough.
    letters
        Patient directions at left, right, top, bottom; None where unknown.
    bar
        (share of the width, label) of the scale bar; None where unknown.
    alt
        What it shows, for who cannot see it.
    """

    key: str
    data: str
    width: float
    height: float
    mask: str
    reference: str
    alt: str
    clicks: tuple[tuple[float, float, bool, int], ...] = ()
    close: tuple[float, float, float, float] | None = None
    letters: tuple[str, str, str, str] | None = None
    bar: tuple[float, str] | None = None


@dataclass(frozen=True)
class Card:
    """A case of a gallery; numbers are shares, None where they do not apply.

    ``link`` is the relative address of its episode page, empty without one; ``picture`` the key of its picture,
    empty where the image is not to be had.
    """

    case_id: str
    target: str
    detail: str
    instruction: str
    outcome: str
    iou: float | None
    best_iou: float | None
    regret: float | None
    steps: int | None
    note: str = ""
    link: str = ""
    picture: str = ""


@dataclass(frozen=True)
class Gallery:
    """Cases in an order that ``about`` names."""

    key: str
    title: str
    about: str
    cards: tuple[Card, ...]
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True)
class Facts:
    """Names and values, in groups."""

    key: str
    title: str
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    about: str = ""
    kind: Literal["facts"] = "facts"


Block = Table | Forest | Curve | Gallery | Facts


@dataclass(frozen=True)
class Section:
    """A part of the page. ``cautions`` stand beside its figures: what a reader must know of the intervals."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    text: str = ""
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The whole.

    Parameters
    ----------
    title
        Who was evaluated.
    subject
        On what, in one line.
    headlines
        The figures that a reader wants first.
    findings
        Sentences that the figures allow, one each.
    cautions
        What limits them; shown with them.
    sections
        Everything else, in order.
    pictures
        By key; shown by the cards of the galleries.
    """

    title: str
    subject: str
    headlines: tuple[Headline, ...]
    findings: tuple[str, ...]
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    pictures: Mapping[str, Picture]

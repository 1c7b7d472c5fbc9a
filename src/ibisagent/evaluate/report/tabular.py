"""Every block as a plain table: what Markdown and LaTeX write, and what a plot cannot be read from."""

from __future__ import annotations

from dataclasses import dataclass

from ibisagent.evaluate.report.model import Block, Cell, Curve, Facts, Forest, Gallery, Scale, Table
from ibisagent.evaluate.report.numbers import SHARE, number_text, sample_text

__all__ = ["Sheet", "sheets"]


@dataclass(frozen=True)
class Sheet:
    """A table of cells, with headings of groups of rows."""

    key: str
    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    groups: tuple[tuple[int, str], ...] = ()


def sheets(block: Block) -> list[Sheet]:
    """The tables that a block comes to.

    Parameters
    ----------
    block
        Of any kind; facts give a table a group, a table itself, everything else one.
    """
    if isinstance(block, Table):
        return [Sheet(block.key, block.title, block.about, block.columns, block.rows, block.groups)]
    if isinstance(block, Forest):
        return [_forest(block)]
    if isinstance(block, Curve):
        return [_curve(block)]
    if isinstance(block, Gallery):
        return [_gallery(block)]
    return _facts(block)


def _forest(forest: Forest) -> Sheet:
    sampled = any(sample_text(row.value) for row in forest.rows)
    noted = bool(forest.note_title)
    columns = ("", forest.scale.heading, *(["Of"] if sampled else []), *([forest.note_title] if noted else []))
    rows: list[tuple[Cell, ...]] = []
    groups, group = [], ""
    for number, row in enumerate(forest.rows):
        if row.group != group:
            groups.append((number, row.group))
            group = row.group
        label = f"{row.label} ({row.detail})" if row.detail else row.label
        cells: list[Cell] = [label, (row.value, forest.scale)]
        cells += [sample_text(row.value)] if sampled else []
        cells += [row.note] if noted else []
        rows.append(tuple(cells))
    return Sheet(forest.key, forest.title, forest.about, columns, tuple(rows), tuple(groups))


def _curve(curve: Curve) -> Sheet:
    shown = [series for series in curve.series if series.style != "quiet"]
    several = len(shown) > 1
    across = Scale(curve.x_title, percent=curve.x_percent)
    columns = (*(["Line"] if several else []), across.heading, curve.scale.heading, "Cases")
    rows: list[tuple[Cell, ...]] = []
    for series in shown:
        for point in series.points:
            x = f"{point.x:g}" if curve.x_whole else number_text(point.x, SHARE if curve.x_percent else across)
            size = point.size if point.size is not None else point.value.n
            rows.append((*([series.name] if several else []), x, (point.value, curve.scale), size))
    return Sheet(curve.key, curve.title, curve.about, columns, tuple(rows))


def _gallery(gallery: Gallery) -> Sheet:
    columns = ("Case", "Target", "Instruction", "IoU", "Best IoU", "Regret", "Steps", "Ended")
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            card.case_id,
            card.target,
            card.instruction,
            number_text(card.iou, SHARE),
            number_text(card.best_iou, SHARE),
            number_text(card.regret, SHARE, unit=False),
            card.steps,
            card.outcome.replace("_", " "),
        )
        for card in gallery.cards
    )
    return Sheet(gallery.key, gallery.title, gallery.about, columns, rows)


def _facts(facts: Facts) -> list[Sheet]:
    return [
        Sheet(f"{facts.key}-{number}", f"{facts.title}: {name}" if name else facts.title, facts.about, ("", ""), rows)
        for number, (name, rows) in enumerate(facts.groups, start=1)
    ]

"""What a published protocol says of a run: its own table, with its conventions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibisagent.evaluate.figures import FIGURES
from ibisagent.evaluate.report.model import Block, Cell, Facts, Forest, ForestRow, Scale, Section, Table, Value
from ibisagent.evaluate.report.numbers import few_text, sentence
from ibisagent.evaluate.report.scales import figure_scale

__all__ = ["protocol_scale", "protocol_section", "protocol_sections"]

_PARTS = ("modality", "group", "source", "target")


def protocol_sections(folder: Path) -> list[Section]:
    """Sections of the protocols whose tables stand in a run's folder; a damaged table is left out.

    Parameters
    ----------
    folder
        Of the run.
    """
    found = []
    for path in sorted(folder.glob("protocol-*.json")):
        try:
            found.append(protocol_section(json.loads(path.read_bytes())))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def protocol_section(table: Mapping[str, Any]) -> Section:
    """A protocol's figures overall and by part; with a drop where it has two sides.

    Parameters
    ----------
    table
        ``protocol-NAME.json``.
    """
    # Keys become file names and anchors, and the table's own name is whatever stands in its file.
    name = re.sub(r"[^A-Za-z0-9]+", "-", str(table["protocol"])).strip("-") or "unnamed"
    unit = str(table["clusters"]["unit"])
    overall = table["overall"]
    drops = any("drop" in one for one in overall.values())
    blocks: list[Block] = (
        [_drops(name, table, unit)] if drops else [_rows(name, "Overall", {"All": overall}, table, unit)]
    )
    first = next(iter(overall), None)
    for part in _PARTS:
        key, title, parts = f"{name}-by-{part}", f"By {part}", table.get(f"by_{part}") or {}
        if first is None or not parts:
            continue
        if any("drop" in one.get(first, {}) for one in parts.values()):
            blocks += _drop_forest(key, title, first, parts, table, unit)
        else:
            blocks.append(_rows(key, title, parts, table, unit))
    conventions = tuple((f"{number}", str(text)) for number, text in enumerate(table.get("conventions") or (), start=1))
    if conventions:
        blocks.append(Facts(f"{name}-conventions", "Conventions of the protocol", (("", conventions),)))
    cautions = [table["clusters"]["warning"]] if table["clusters"].get("warning") else []
    cautions += [f"left out: {number} ({reason})" for reason, number in (table.get("left_out") or {}).items()]
    return Section(
        f"protocol-{name}",
        str(table["title"]),
        tuple(blocks),
        str(table.get("about") or ""),
        tuple(map(sentence, cautions)),
    )


def protocol_scale(name: str, table: Mapping[str, Any]) -> Scale:
    """How a figure of a protocol's table is read: as everywhere if it is one of ours, else as the table says."""
    if name in FIGURES:
        return figure_scale(name)
    told = table["figures"].get(name) or {}
    return Scale(str(told.get("title") or name), bool(told.get("percent", True)), unit=str(told.get("unit") or ""))


def _rows(key: str, title: str, parts: Mapping[str, Any], table: Mapping[str, Any], unit: str) -> Table:
    names = list(dict.fromkeys(name for figures in parts.values() for name in figures))
    rows: list[tuple[Cell, ...]] = []
    for part, figures in parts.items():
        values = [Value.of(figures.get(name), unit) for name in names]
        sample = max(values, key=lambda value: value.n or 0)
        cells = [
            None if v.value is None else (v.beside(sample), protocol_scale(n, table))
            for n, v in zip(names, values, strict=True)
        ]
        rows.append((part, few_text(sample), *cells))
    return Table(
        f"{key}-table", title, "", ("", "Of", *(protocol_scale(name, table).heading for name in names)), tuple(rows)
    )


def _drops(key: str, table: Mapping[str, Any], unit: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, sides in table["overall"].items():
        scale = protocol_scale(name, table)
        inside, outside, drop = (Value.of(sides[side], unit) for side in ("in", "out", "drop"))
        cells = [(inside.beside(inside), scale), (outside.beside(outside), scale), (drop, scale.difference())]
        told = [None if cell[0].value is None else cell for cell in cells]
        rows.append((scale.heading, few_text(inside) or None, few_text(outside) or None, *told))
    about = "Drop: the figure in domain less the figure out of domain. The two sides have different cases."
    columns = ("", "Of, in domain", "Of, out of domain", "In domain", "Out of domain", "Drop")
    return Table(f"{key}-drops", "In domain and out of domain", about, columns, tuple(rows))


def _drop_forest(
    key: str, title: str, name: str, parts: Mapping[str, Any], table: Mapping[str, Any], unit: str
) -> list[Block]:
    """The drop of the first figure by part, where both sides have cases."""
    scale = protocol_scale(name, table).difference()
    rows = [
        ForestRow(part, Value.of(figures[name]["drop"], unit))
        for part, figures in parts.items()
        if name in figures and figures[name]["drop"]["value"] is not None
    ]
    if not rows:
        return []
    about = "In domain less out of domain, where both sides have cases."
    return [
        Forest(key, f"{title}: drop in {scale.title}", about, scale, tuple(rows), 0.0, "right of the line: worse out")
    ]

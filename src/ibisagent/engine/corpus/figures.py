"""Plots of a corpus, drawn from its statistics: the same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.engine.corpus.statistics import PAPER
from ibisagent.rendering.plot_style import BLUE, COLOURS, GREY, RED, STYLE, figure_bytes, plain
from ibisagent.rendering.png import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MAX_TARGETS", "write_figures"]

MAX_TARGETS = 36
"""Targets that get a bar of their own; the rarest others share one."""


def write_figures(folder: str | Path, statistics: Mapping[str, Any]) -> dict[str, str]:
    """Draw what there is to draw of the table ``sft``.

    Parameters
    ----------
    folder
        Where the PNG files go; made if it is missing.
    statistics
        From :func:`ibisagent.engine.corpus.statistics.statistics`.

    Returns
    -------
    dict
        File name -> what it shows, in one sentence. Empty if there is no trajectory.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    facts = statistics.get("sft")
    if not facts or not facts["num"]:
        return {}
    drawings: list[tuple[str, str, Callable[[Mapping[str, Any]], Figure], bool]] = [
        (
            "targets.png",
            "Trajectories by target, and the final IoU of each (median, middle half and middle nine tenths).",
            _targets,
            True,
        ),
        ("final_iou.png", "Distribution of the final IoU.", _final_iou, bool(facts["with_target"]["final_iou"])),
        ("iou_by_step.png", "IoU after each action, by scenario.", _iou_by_step, bool(facts["iou_by_step"])),
        ("lengths.png", "Number of actions of a trajectory, without the last one, which stops.", _lengths, True),
        ("scenarios.png", "Trajectories by scenario and by outcome.", _scenarios, True),
    ]
    import matplotlib

    place, written = Path(folder), {}
    place.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, caption, draw, wanted in drawings:
            if wanted:
                write_atomic(figure_bytes(draw(facts)), place / name)
                written[name] = caption
    return written


def _figure(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, **options)
    return figure, list(axes[0])


def _targets(facts: Mapping[str, Any]) -> Figure:
    rows = [row for row in facts["by_modality_and_target"] if row["final_iou"] is not None]
    bars: list[tuple[str, int, str]] = []  # label, count, colour of those that have no IoU of their own
    if len(rows) > MAX_TARGETS:
        ranked = sorted(rows, key=lambda row: (-row["num_present"], row["modality"], row["target"]))
        kept = {(row["modality"], row["target"]) for row in ranked[: MAX_TARGETS - 1]}
        rare = [row for row in rows if (row["modality"], row["target"]) not in kept]
        rows = [row for row in rows if (row["modality"], row["target"]) in kept]
        bars.append((f"{len(rare)} rarer targets", sum(row["num_present"] for row in rare), GREY))
    if facts["num_absent"]:
        bars.append(("target not in the image", facts["num_absent"], "#bbbbbb"))
    names = sorted({row["modality"] for row in rows})
    colours = {name: COLOURS[i] if i < len(COLOURS) else GREY for i, name in enumerate(names)}
    bars = [(plain(row["target"], 34), row["num_present"], colours[row["modality"]]) for row in rows] + bars
    labels = [label for label, _, _ in bars]
    figure, (left, right) = _figure(9.0, 1.5 + 0.235 * len(bars), 2, sharey=True)
    left.barh(range(len(bars)), [count for _, count, _ in bars], color=[colour for _, _, colour in bars], height=0.72)
    for place, (_, count, _) in enumerate(bars):
        left.annotate(f"{count:,}", (count, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5)
    for place, row in enumerate(rows):
        scores, colour = row["final_iou"], colours[row["modality"]]
        right.plot([scores["q05"], scores["q95"]], [place, place], color=colour, linewidth=1.0)
        right.plot([scores["q25"], scores["q75"]], [place, place], color=colour, linewidth=4.0, solid_capstyle="butt")
        right.plot([scores["median"]], [place], "o", color="white", markeredgecolor=colour, markersize=4.5)
    left.set_yticks(range(len(labels)), labels)
    left.set_ylim(len(labels) - 0.4, -0.6)
    left.margins(x=0.14)
    _count_axis(left.xaxis)
    left.set_title("Trajectories by target")
    lowest = min((row["final_iou"]["q05"] for row in rows), default=0.0)
    start = min(0.5, max(0.0, math.floor(lowest * 10) / 10))
    right.set_xlim(start, 1.01)
    right.set_xlabel("final IoU")
    right.set_title("Final IoU by target")
    right.tick_params(axis="y", length=0)
    for axis in (left, right):
        axis.grid(axis="x")
    handles = [_patch(colours[name], plain(name, 28)) for name in names]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), frameon=False)
    return figure


def _final_iou(facts: Mapping[str, Any]) -> Figure:
    histogram, scores = facts["final_iou_histogram"], facts["with_target"]["final_iou"]
    figure, (axis,) = _figure(6.4, 3.4)
    edges, counts = histogram["edges"], histogram["counts"]
    axis.bar(edges[:-1], counts, width=edges[1] - edges[0], align="edge", color=BLUE, edgecolor="white", linewidth=0.5)
    _marks(
        axis,
        [
            (f"mean {scores['mean']:.3f}", scores["mean"], RED, "-"),
            (f"median {scores['median']:.3f}", scores["median"], RED, ":"),
            (f"mean of the paper's set {PAPER['final_iou']:.4f}", PAPER["final_iou"], "#000000", "--"),
        ],
    )
    first = next((edge for edge, count in zip(edges, counts, strict=False) if count), 0.0)
    axis.set_xlim(min(0.5, max(0.0, first - 0.05)), 1.0)
    axis.set_xlabel("final IoU (trajectories whose target is in the image)")
    _count_axis(axis.yaxis)
    axis.set_title(f"Final IoU of {scores['num']:,} trajectories")
    axis.grid(axis="y")
    return figure


def _iou_by_step(facts: Mapping[str, Any]) -> Figure:
    figure, (axis,) = _figure(6.4, 3.7)
    curves = facts["iou_by_step"]
    names = sorted(curves, key=lambda name: (name != "plain", -curves[name]["num"], name))
    markers = "osD^vP*X<>"
    for place, name in enumerate(names):
        curve, colour = curves[name], COLOURS[place % len(COLOURS)]
        steps = range(1, len(curve["mean"]) + 1)
        if place == 0:  # bands of all would hide each other
            label = f"middle half of {_words(name)}"
            axis.fill_between(steps, curve["q25"], curve["q75"], color=colour, alpha=0.15, linewidth=0, label=label)
        axis.plot(
            steps,
            curve["mean"],
            color=colour,
            marker=markers[place % len(markers)],
            markersize=4,
            linewidth=1.6,
            label=f"{_words(name)} ({curve['num']:,})",
        )
    axis.set_ylim(-0.02, 1.02)
    longest = max(len(curve["mean"]) for curve in curves.values())
    axis.set_xlim(0.7, max(longest, 2) + 0.3)
    axis.set_xticks(_ticks(longest))
    axis.set_xlabel("actions so far (a trajectory that has ended keeps its last value)")
    axis.set_ylabel("mean IoU")
    axis.set_title("IoU after each action")
    axis.grid()
    legend = figure.legend(loc="outside right upper", frameon=False, title="scenario (trajectories)", fontsize=8)
    legend.get_title().set_fontsize(8)
    return figure


def _lengths(facts: Mapping[str, Any]) -> Figure:
    figure, (axis,) = _figure(6.4, 3.4)
    tables = {name: {int(length): n for length, n in by.items()} for name, by in facts["lengths"].items()}
    longest = max([9, *(length for by in tables.values() for length in by)])
    groups = [("plain", [tables["plain"]])] if "plain" in tables else []
    groups.append(("other scenarios", [by for name, by in tables.items() if name != "plain"]))
    floor = [0] * (longest + 1)
    for (label, members), colour in zip(groups, (BLUE, "#88CCEE") if len(groups) == 2 else (BLUE,), strict=True):
        heights = [sum(by.get(length, 0) for by in members) for length in range(longest + 1)]
        if any(heights):
            axis.bar(range(longest + 1), heights, bottom=floor, color=colour, width=0.8, label=label)
            floor = [a + b for a, b in zip(floor, heights, strict=True)]
    plain = facts["by_scenario"].get("plain", {}).get("num_steps")
    marks = [(f"mean of plain {plain['mean']:.2f}", plain["mean"], RED, "-")] if plain else []
    _marks(axis, [*marks, (f"mean of the paper's set {PAPER['num_steps']:.2f}", PAPER["num_steps"], "#000000", "--")])
    axis.set_xlim(-0.7, longest + 0.7)
    axis.set_xticks(_ticks(longest, first=0))
    axis.set_xlabel("actions before the last one, which stops")
    _count_axis(axis.yaxis)
    axis.set_title(f"Length of {facts['num']:,} trajectories")
    axis.grid(axis="y")
    return figure


def _scenarios(facts: Mapping[str, Any]) -> Figure:
    tables = (("Scenario", facts["by"]["scenario"], BLUE), ("Outcome", facts["by"]["outcome"], COLOURS[2]))
    tallest = max(len(table) for _, table, _ in tables)
    figure, axes = _figure(8.4, 1.2 + 0.3 * tallest, 2)
    for axis, (title, table, colour) in zip(axes, tables, strict=True):
        places = range(len(table))
        axis.barh(places, list(table.values()), color=colour, height=0.7)
        axis.set_yticks(places, [plain(_words(name), 26) for name in table])
        axis.set_ylim(tallest - 0.4, -0.6)
        for place, count in enumerate(table.values()):
            text = f"{count:,} ({100 * count / facts['num']:.0f}%)"
            axis.annotate(text, (count, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5)
        axis.margins(x=0.28)
        _count_axis(axis.xaxis)
        axis.set_title(title)
        axis.grid(axis="x")
    return figure


def _count_axis(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axis.set_label_text("trajectories")
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _marks(axis: Axes, lines: Sequence[tuple[str, float, str, str]]) -> None:
    """Vertical lines, told apart by a legend below the axis, where it hides no bar."""
    for text, place, colour, style in lines:
        axis.axvline(place, color=colour, linestyle=style, linewidth=1.5, label=text)
    axis.figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _ticks(last: int, first: int = 1) -> list[int]:
    every = 1 if last <= 14 else 2 if last <= 28 else 5
    return list(range(first, last + 1, every))


def _words(name: str) -> str:
    return name.replace("_", " ")

"""Curves of runs: a grid of small axes, the points faint and their moving mean bold, runs told apart by colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.rendering.plot_style import COLOURS, STYLE, figure_bytes, plain
from ibisagent.train.watch.history import moving_mean
from ibisagent.train.watch.panels import TIME, Panel, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ibisagent.train.watch.history import History

__all__ = ["automatic_width", "draw_curves", "time_split"]

COLUMNS = 4
# Inches. Every axis has its place on one grid, so that columns are straight from top to foot.
_WIDE, _HIGH, _HEAD, _TOP, _FOOT = 3.2, 1.86, 0.44, 0.52, 0.1
_LEFT, _RIGHT, _ABOVE, _BELOW = 0.56, 0.12, 0.3, 0.28
_FEW = 4
"""Series with at most so many points get a mark at each."""


def draw_curves(
    histories: Sequence[History], labels: Sequence[str], sections: Sequence[Section], width: int, kind: Any = "png"
) -> bytes:
    """Draw runs.

    Parameters
    ----------
    histories
        What they logged.
    labels
        Their names in the legend.
    sections
        What is drawn.
    width
        Values in a moving mean; 1 draws none.
    kind
        ``"png"`` or ``"svg"``.

    Returns
    -------
    bytes
        Content of the file; the same for the same figures.
    """
    import matplotlib

    with matplotlib.rc_context({**STYLE, "axes.titlesize": 9.5, "font.size": 8.0, "axes.titlepad": 5.0}):
        return figure_bytes(_figure(histories, labels, sections, width), kind)


def automatic_width(histories: Sequence[History]) -> int:
    """A moving mean over a twentieth of the longest run, of an odd number of values, at most 51."""
    longest = max(len(points) for history in histories for points in history.values.values())
    return min(longest // 20, 50) // 2 * 2 + 1


def time_split(history: History) -> Mapping[str, NDArray[np.float64]] | None:
    """Seconds of each update by part, and its number as ``step``; None where they were not logged.

    An update that learns from the rest of an earlier batch plays nothing: policy and segmenter took no time.
    """
    totals = history.values.get("seconds/update") or history.values.get("seconds_per_step")
    if not totals or "seconds/policy" not in history.values or "seconds/optimizer" not in history.values:
        return None
    steps = sorted(totals)
    parts = {
        name: np.array([history.values.get(metric, {}).get(step, 0.0) for step in steps])
        for metric, name, _ in TIME[:-1]
    }
    whole = np.array([totals[step] for step in steps])
    return {"step": np.array(steps), **parts, TIME[-1][1]: np.maximum(whole - sum(parts.values()), 0.0)}


def _figure(histories: Sequence[History], labels: Sequence[str], sections: Sequence[Section], width: int) -> Figure:
    from matplotlib.figure import Figure

    splits = [time_split(history) for history in histories] if len(sections) > 1 else []
    timed = [(label, split) for label, split in zip(labels, splits, strict=False) if split is not None]
    counts = [len(section.panels) for section in sections] + ([len(timed)] if timed else [])
    titles = [section.title for section in sections] + (["Where the time of an update goes (s)"] if timed else [])
    columns = COLUMNS if len(counts) > 1 else min(COLUMNS, max(2, counts[0]))
    top = _TOP + 0.24 * (_legend_rows(labels, columns) - 1)
    heights = [_HEAD * bool(title) + _HIGH * -(-count // columns) for title, count in zip(titles, counts, strict=True)]
    wide, high = _WIDE * columns + 0.1, top + sum(heights) + _FOOT
    figure = Figure(figsize=(wide, high))

    def place(number: int, below: float) -> Axes:
        """Axes in the cell of this number of a section that begins `below` the figure's top."""
        row, column = divmod(number, columns)
        x, y = column * _WIDE + _LEFT, high - below - (row + 1) * _HIGH + _BELOW
        return figure.add_axes((x / wide, y / high, (_WIDE - _LEFT - _RIGHT) / wide, (_HIGH - _ABOVE - _BELOW) / high))

    _legend(figure, histories, labels, width, columns)
    steps = [step for history in histories for points in history.values.values() for step in points]
    below, ends = top, (min(steps), max(steps))
    for number, (title, height) in enumerate(zip(titles, heights, strict=True)):
        if title:
            y = 1 - (below + _HEAD - 0.13) / high
            figure.text(0.12 / wide, y, title, fontsize=11.5, fontweight="bold", color="#333333", va="baseline")
        start = below + _HEAD * bool(title)
        if number < len(sections):
            for cell, panel in enumerate(sections[number].panels):
                _panel(place(cell, start), panel, histories, width, ends)
        else:
            axes = [place(cell, start) for cell in range(len(timed))]
            for axis, (label, split) in zip(axes, timed, strict=True):
                _time(axis, split, width, plain(label, 30) if len(histories) > 1 else "Seconds", ends)
            _time_legend(figure, 1 - (below + _HEAD - 0.13) / high, wide)
        below += height
    return figure


def _legend(figure: Figure, histories: Sequence[History], labels: Sequence[str], width: int, columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=_colour(place), linestyle=_dash(place), linewidth=2.2, label=plain(label, 40))
        for place, label in enumerate(labels)
    ]
    wide, high = figure.get_size_inches()
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.12 / wide, 1 - 0.08 / high), borderaxespad=0.0,
        borderpad=0.0, ncols=_legend_columns(columns), frameon=False, fontsize=10,
    )  # fmt: skip
    kinds = {"updates" if history.is_rl else "steps" for history in histories}
    note = f"x: {' or '.join(sorted(kinds, reverse=True))}"
    if width > 1:
        note += f"\nfaint: as logged, bold: mean of {width}"
    figure.text(1 - _RIGHT / wide, 1 - 0.1 / high, note, ha="right", va="top", fontsize=8.5, color="#666666")


def _legend_columns(columns: int) -> int:
    return max(1, columns - 1)  # the note stands in the last one


def _legend_rows(labels: Sequence[str], columns: int) -> int:
    return -(-len(labels) // _legend_columns(columns))


def _panel(axis: Axes, panel: Panel, histories: Sequence[History], width: int, ends: tuple[int, int]) -> None:
    seen: list[NDArray[np.float64]] = []
    second = False
    for place, history in enumerate(histories):
        for number, metric in enumerate(panel.metrics):
            steps, values = history.series(metric)
            if not len(steps):
                continue
            dashed = number > 0 and bool(panel.names)
            second |= dashed
            # Values of a held-out set are few and far between: a mean over them would hide them.
            mean = moving_mean(values, width if len(values) > 2 * width else 1)
            colour, style = _colour(place), (0, (4, 1.6)) if dashed else _dash(place)
            if width > 1 and len(values) > 2 * width:
                axis.plot(steps, values, color=colour, linewidth=0.7, alpha=0.28, zorder=2)
            mark = "o" if len(values) <= _FEW else None
            axis.plot(steps, mean, color=colour, linestyle=style, linewidth=1.7, marker=mark, markersize=3, zorder=3)
            seen.append(values if len(values) < 40 else np.concatenate([mean, np.quantile(values, [0.01, 0.99])]))
    axis.set_title(panel.title)
    everything = np.concatenate(seen)
    if panel.scale == "log" and everything.min() > 0 and everything.max() > 20 * everything.min():
        axis.set_yscale("log")
    else:
        axis.set_ylim(*_limits(everything, panel.bounds))
    axis.grid(axis="y")
    _ticks(axis, ends)
    if second:
        from matplotlib.lines import Line2D

        styles: tuple[Any, ...] = ("-", (0, (4, 1.6)))
        handles = [
            Line2D([], [], color="#555555", linestyle=style, linewidth=1.5, label=name)
            for style, name in zip(styles, panel.names, strict=True)
        ]
        # Beside the title, where no curve is.
        axis.legend(
            handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.02), ncols=2, frameon=False, fontsize=7.5,
            handlelength=1.8, columnspacing=0.9, borderaxespad=0.0, borderpad=0.1,
        )  # fmt: skip


def _limits(values: NDArray[np.float64], bounds: tuple[float | None, float | None]) -> tuple[float, float]:
    """Of an axis: what the values need with some room; where 0 is the least that can be, it is shown."""
    low, high = float(values.min()), float(values.max())
    least, most = bounds
    if least is not None:
        # Near the top of a share, one looks for the differences there.
        low = min(low, most - 0.05) if most is not None and low >= 0.8 * most else least
    if high - low < 1e-12:
        room = 0.1 * abs(high) or 0.1
        return (low - (0.02 * room if least is not None else room), high + room)
    room = 0.07 * (high - low)
    upper = high + room if most is None else min(high + room, most + 0.02 * (high - low))
    return low - (room if low != least else 0.02 * (upper - low)), upper


def _time(axis: Axes, split: Mapping[str, NDArray[np.float64]], width: int, title: str, ends: tuple[int, int]) -> None:
    steps = split["step"]
    layers = [moving_mean(split[name], width) for _, name, _ in TIME]
    if len(steps) == 1:  # an area needs two ends
        steps, layers = np.array([steps[0] - 0.4, steps[0] + 0.4]), [np.repeat(layer, 2) for layer in layers]
    axis.stackplot(steps, *layers, colors=[colour for _, _, colour in TIME], linewidth=0)
    axis.set_ylim(0, 1.05 * float(np.sum(layers, 0).max()) or 1.0)
    axis.set_title(title)
    _ticks(axis, ends)


def _time_legend(figure: Figure, y: float, wide: float) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for _, name, colour in TIME]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=((_WIDE + _LEFT) / wide, y), borderaxespad=0.0,
        borderpad=0.0, ncols=len(handles), frameon=False, fontsize=9, handlelength=1.2,
    )  # fmt: skip


def _ticks(axis: Axes, ends: tuple[int, int]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    first, last = ends
    room = 0.02 * (last - first) or 0.8
    axis.set_xlim(first - room, last + room)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    if axis.get_yscale() == "log":
        low, high = axis.get_ylim()
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 200 * low else (1.0, 2.0, 5.0), numticks=7))
        axis.yaxis.set_minor_formatter(NullFormatter())
    else:
        axis.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axis.yaxis.set_major_formatter(FuncFormatter(_number))
    axis.tick_params(labelsize=7.5, color="#888888", length=2.5)


def _number(value: float, _: Any) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g} k"
    return f"{value:.4g}".replace("e-0", "e-").replace("-", "\u2212")


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _dash(place: int) -> Any:
    return ("-", (0, (1, 1)), (0, (5, 1, 1, 1)))[place // len(COLOURS) % 3]

"""How all plots look, and how one becomes a file whose bytes depend on what it shows alone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BLUE", "COLOURS", "GREY", "RED", "STYLE", "figure_bytes", "plain"]

# Colours that people with any colour vision tell apart (Paul Tol's "muted" scheme, and two of his longer one).
COLOURS: tuple[str, ...] = (
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#DDCC77", "#AA4499"),
    *("#44AA99", "#882255", "#999933", "#661100", "#6699CC"),
)
GREY = "#8a8a8a"
BLUE, RED = "#332288", "#CC3311"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same letters
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "svg.hashsalt": "ibisagent",  # else every drawing names its parts anew
}
_DPI = 150


def figure_bytes(figure: Figure, kind: Literal["png", "svg", "pdf"] = "png") -> bytes:
    """A figure as a file's content; it needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    # Without a name of the software and a date in it, the file depends on what it shows alone.
    nameless: dict[str, None] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[kind]
    figure.savefig(buffer, format=kind, dpi=_DPI, metadata=nameless, facecolor="white")
    return buffer.getvalue()


def plain(text: str, limit: int) -> str:
    """A text of somebody else's as a label: one line, not too long, a dollar sign begins no mathematics."""
    text = "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
    return text if len(text) <= limit else text[: limit - 1] + "…"

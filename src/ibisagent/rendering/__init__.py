"""Pictures of masks: the overlay a model sees, and the figure a person sees.

The two are kept apart on purpose. :func:`agent_overlay` is part of the data format (training,
trajectories and inference must agree on it to the bit); :func:`figure_overlay` may change with taste.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ibisagent.rendering.overlay import AGENT_ALPHA, AGENT_COLOR, agent_overlay

if TYPE_CHECKING:
    from ibisagent.rendering.figure import episode_figure, figure_overlay
    from ibisagent.rendering.png import save_png

__all__ = ["AGENT_ALPHA", "AGENT_COLOR", "agent_overlay", "episode_figure", "figure_overlay", "save_png"]

_LAZY = {"episode_figure": "figure", "figure_overlay": "figure", "save_png": "png"}


def __getattr__(name: str) -> Any:
    # Whoever only needs the agent's overlay (every rollout) does not pay for fonts and drawing.
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"ibisagent.rendering.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

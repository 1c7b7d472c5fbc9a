"""Pictures of masks: the overlay a model sees, and the figure a person sees.

The two are kept apart on purpose. :func:`agent_overlay` is part of the data format (training,
trajectories and inference must agree on it to the bit); :func:`figure_overlay` may change with taste.
"""

from __future__ import annotations

from ibisagent.rendering.overlay import AGENT_ALPHA, AGENT_COLOR, agent_overlay

__all__ = ["AGENT_ALPHA", "AGENT_COLOR", "agent_overlay"]

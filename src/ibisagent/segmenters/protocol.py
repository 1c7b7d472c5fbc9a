"""What every promptable segmenter promises: encode once, prompt many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ibisagent.types import Image, Prediction, Prompt

__all__ = ["Capabilities", "Segmenter"]


@dataclass(frozen=True)
class Capabilities:
    """Which prompts a segmenter understands; the environment offers no others to the policy."""

    clicks: bool
    negative_clicks: bool
    boxes: bool
    prior_mask: bool
    max_clicks: int | None = None


@runtime_checkable
class Segmenter(Protocol):
    """A promptable segmenter.

    Attributes
    ----------
    name
        How ``--segmenter`` names it, for example ``"litemedsam"`` or ``"sam:/models/sam-b"``.
    capabilities
        The prompts it understands.
    weights_sha256
        Hash of its weights, or None if it has none (rule-based).
    """

    name: str
    capabilities: Capabilities
    weights_sha256: str | None

    def encode(self, image: Image) -> Any:
        """Compute what depends on the image alone. The result is opaque and reusable."""
        ...

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
        """Answer a batch of prompts on one embedding, in order.

        Raises
        ------
        ibisagent.errors.ToolError
            If it fails, or is asked something outside its capabilities.
        """
        ...

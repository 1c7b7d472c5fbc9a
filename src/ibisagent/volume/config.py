"""Settings of a run on a volume: where to look, how often to act, when to ask again."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ibisagent.config import RolloutConfig

__all__ = ["Plane", "VolumeConfig"]

Plane = Literal["axial", "coronal", "sagittal"]


class VolumeConfig(BaseModel):
    """Budgets and switches of one run on a volume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    planes: tuple[Plane, ...] = Field(default=("axial",), min_length=1)
    """Planes that are worked through one after the other; with three, a voxel needs two votes."""
    first_slice: int | None = Field(default=None, ge=0)
    """First slice of the (single) plane that is looked at; None is the first there is."""
    last_slice: int | None = Field(default=None, ge=0)
    """Last slice that is looked at, itself included; None is the last there is."""
    scan_slices: int = Field(default=9, ge=1)
    """Slices of the coarse scan, spread evenly over the range. Where none shows the target it is looked for between
    them, on up to four times as many slices, before it is said to be absent."""
    scan: Literal["tap", "look"] = "tap"
    """``tap``: the policy's first action on each of them is carried out, and masks are compared. ``look``: only its
    words are heard (absent or not); nothing is clicked, and the middle of where it is present becomes the key slice."""
    key_slices: int = Field(default=1, ge=1)
    """Slices that get a whole run before masks are carried on."""
    max_revisits: int = Field(default=4, ge=0)
    """Most slices where the policy is asked again because a carried mask does not agree with its neighbour."""
    min_agreement: float = Field(default=0.5, ge=0.0, le=1.0)
    """Dice with the neighbouring slice's mask under which a carried mask is doubted."""
    carry: Literal["auto", "prompt", "video"] = "auto"
    """How a mask goes on: as prior mask and clicks, or through a segmenter's video memory; ``auto`` takes the memory
    where the segmenter declares one."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Wall-clock budget of the whole run; what is drawn by then is kept."""
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    """Budgets of the run on one slice."""

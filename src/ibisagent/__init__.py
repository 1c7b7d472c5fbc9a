"""ibisagent: an agent that looks at a medical image, clicks, and looks again.

    >>> import ibisagent
    >>> result = ibisagent.segment("chest.png", "Outline the left lung.")
    >>> result.mask, result.outcome, result.episode.num_steps
    >>> volume = ibisagent.segment_volume("study_folder", "Segment the tumour in the left lung.")
    >>> volume.mask.shape, volume.outcome, volume.record.clicked_slices

Importing the package costs nothing; models and readers load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ibisagent.api import Segmentation, VolumeSegmentation, segment, segment_volume

__version__ = "0.1.0"

__all__ = ["Segmentation", "VolumeSegmentation", "__version__", "segment", "segment_volume"]


def __getattr__(name: str) -> Any:
    if name in __all__ and name != "__version__":
        from ibisagent import api

        return getattr(api, name)
    raise AttributeError(f"module 'ibisagent' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

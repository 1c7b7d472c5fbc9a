"""The nouns that travel between the layers: image, case, prompt, prediction.

Arrays are C-contiguous; images are ``uint8`` of shape (H, W, 3); masks are ``bool`` of shape
(H, W). Pixel coordinates are (x, y), origin top-left, pixel centres at integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.geometry import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Case", "Image", "PixelBox", "PixelClick", "Prediction", "Prompt", "Window", "check_instruction"]


@dataclass(frozen=True)
class Window:
    """Display window that turned stored values into 8-bit gray.

    Parameters
    ----------
    low, high
        Stored values (HU for CT) shown as 0 and 255.
    name
        How it was chosen: ``"soft tissue"``, ``"percentile 0.5-99.5"``, ``"header"``, ``"none"`` …
    channels
        Empty, or three windows that were shown in one picture as its red, green and blue; `low` and `high` are then
        the span of all three.
    """

    low: float
    high: float
    name: str
    channels: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        if len(self.channels) not in (0, 3) or any(c.channels for c in self.channels):
            raise ValueError(f"a window has no channels or three plain ones, not {len(self.channels)}")

    @classmethod
    def of_channels(cls, red: Window, green: Window, blue: Window) -> Window:
        """Three windows as the channels of one picture."""
        channels = (red, green, blue)
        low, high = min(c.low for c in channels), max(c.high for c in channels)
        return cls(low, high, " + ".join(c.name for c in channels), channels)

    def inverted(self) -> Window:
        """The same with low values shown bright, and named so."""
        channels = tuple(replace(c, low=c.high, high=c.low) for c in self.channels)
        return Window(self.high, self.low, f"{self.name}, inverted", channels)


@dataclass(frozen=True, eq=False)
class Image:
    """What an agent looks at: 8-bit pixels, and where they lie in the source.

    Parameters
    ----------
    pixels
        ``uint8`` array (H, W, 3), read-only; gray images repeat one plane.
    geometry
        Maps a display pixel to the source's index and to world millimetres.
    modality
        ``"CT"``, ``"MRI"`` … as the source says or the user gave; None if unknown.
    window
        Display window that made the pixels; None for sources that were 8-bit already.
    source
        Path or URI it was read from, for the record; empty for arrays.
    sha256
        Hash of shape and pixels (see :func:`ibisagent.hashing.pixel_hash`).
    """

    pixels: NDArray[np.uint8]
    geometry: Geometry
    modality: str | None = None
    window: Window | None = None
    source: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        p = self.pixels
        if p.dtype != np.uint8 or p.ndim != 3 or p.shape[2] != 3 or 0 in p.shape:
            raise ValueError(f"Image.pixels must be uint8 (H, W, 3) and not empty, not {p.dtype} {p.shape}")
        if p.flags.writeable:
            p = p.copy()
            p.flags.writeable = False
            object.__setattr__(self, "pixels", p)
        if not self.sha256:
            from ibisagent.hashing import pixel_hash

            object.__setattr__(self, "sha256", pixel_hash(p))

    @property
    def height(self) -> int:
        """Number of rows, in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Number of columns, in pixels."""
        return int(self.pixels.shape[1])

    @property
    def is_gray(self) -> bool:
        """Whether the three planes are equal."""
        p = self.pixels
        return bool(np.array_equal(p[..., 0], p[..., 1]) and np.array_equal(p[..., 0], p[..., 2]))


@dataclass(frozen=True, eq=False)
class Case:
    """One image and one instruction. The target mask is kept apart, on purpose.

    Parameters
    ----------
    image
        The image to segment.
    instruction
        The plain sentence of the user.
    initial_mask
        ``bool`` (H, W) mask to refine, or None to start from nothing.
    case_id, target, group
        Names for the record (``target`` is the name of the structure, never its mask).
    """

    image: Image
    instruction: str
    initial_mask: NDArray[np.bool_] | None = None
    case_id: str = ""
    target: str | None = None
    group: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        m = self.initial_mask
        shape = self.image.pixels.shape[:2]
        if m is not None and (m.dtype != np.bool_ or m.shape != shape):
            raise ValueError(f"initial_mask must be bool {shape}, not {m.dtype} {m.shape}")


@dataclass(frozen=True)
class PixelClick:
    """A click on a pixel: (x, y) as integers inside the image."""

    x: int
    y: int
    positive: bool


@dataclass(frozen=True)
class PixelBox:
    """A box in pixels, corners included: ``x0 <= x1``, ``y0 <= y1``."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True, eq=False)
class Prompt:
    """Everything a segmenter is told about one wanted mask.

    Parameters
    ----------
    clicks
        All clicks so far, oldest first.
    box
        At most one box.
    prior_logits
        ``float32`` (h, w) logits that the same segmenter returned before (``Prediction.state``),
        passed back unchanged, or None.
    prior_mask
        ``bool`` (H, W) mask from elsewhere (a user's), or None. ``prior_logits`` wins where both are set.
    """

    clicks: tuple[PixelClick, ...] = ()
    box: PixelBox | None = None
    prior_logits: NDArray[np.float32] | None = None
    prior_mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """One mask and what the segmenter says of it.

    Parameters
    ----------
    mask
        ``bool`` (H, W) on the image's grid.
    score
        The segmenter's own estimate of the mask's IoU in [0, 1], or None if it makes none.
    state
        Opaque ``float32`` logits to hand back as ``Prompt.prior_logits``, or None.
    probability
        ``float32`` (H, W) in [0, 1] on the image's grid, or None if the backend has none.
    """

    mask: NDArray[np.bool_]
    score: float | None = None
    state: NDArray[np.float32] | None = None
    probability: NDArray[np.float32] | None = None


def check_instruction(instruction: str) -> None:
    """Refuse an instruction that no policy could read and no record hold.

    Raises
    ------
    InputError
        If it is empty, or holds what is no Unicode text (an argument in another encoding).
    """
    if not instruction.strip():
        raise InputError("the instruction is empty")
    try:
        instruction.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("the instruction is not valid Unicode text: write it in UTF-8") from None

"""How an image fits into the square input of a SAM-like model, there and back.

Written without torchvision, which does not exist for a CPU-only torch. Resizing is bilinear (or
bicubic) with antialiasing through ``torch.nn.functional.interpolate``; it stays within one gray
level of the stock image processors.

Coordinates
-----------
A pixel (x, y) has its centre at ``x + 0.5`` when lengths are measured from the image's left edge.
Scaled to the input that is ``(x + 0.5) * scale``. The prompt encoders of SAM and SAM2 add 0.5 to
every coordinate themselves, so :meth:`Frame.to_input` returns ``(x + 0.5) * scale - 0.5``: what the
model finally sees is the exact centre. (The stock processors pass ``x * scale``, which is up to half
a source pixel to the left and above.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["IMAGENET", "MINMAX", "PRIOR_LOGIT", "Frame", "Normalisation"]

PRIOR_LOGIT = 10.0
"""Logit that stands for "surely inside" when a plain mask is turned into decoder input; SAM2 uses the same."""


@dataclass(frozen=True)
class Normalisation:
    """How 8-bit gray levels become model input.

    Parameters
    ----------
    mean, std
        Per channel, on the scale 0..1.
    minmax
        Stretch every image to 0..1 by its own extremes first, as MedSAM was trained.
    bicubic
        Resize with a bicubic kernel in place of a bilinear one.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    minmax: bool = False
    bicubic: bool = False


IMAGENET = Normalisation()
MINMAX = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), minmax=True, bicubic=True)


@dataclass(frozen=True)
class Frame:
    """Where an image of ``height`` x ``width`` pixels lies in a square input of ``size`` pixels.

    Parameters
    ----------
    height, width
        Of the image, in pixels.
    size
        Side of the model's input.
    inner_height, inner_width
        The part of the input that the image fills, from the top-left corner; the rest is padding.
    """

    height: int
    width: int
    size: int
    inner_height: int
    inner_width: int

    @classmethod
    def fit(cls, height: int, width: int, size: int, layout: Literal["pad", "stretch"]) -> Frame:
        """Lay an image out: ``pad`` keeps the aspect ratio (SAM), ``stretch`` fills the square (SAM2, MedSAM)."""
        if layout == "stretch":
            return cls(height, width, size, size, size)
        scale = size / max(height, width)
        # Rounding as SAM does; a one-pixel-wide image still needs a column to exist.
        return cls(height, width, size, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """Map a pixel's centre to the input coordinates that SAM's prompt encoder expects (see the module's text)."""
        return (
            (x + 0.5) * self.inner_width / self.width - 0.5,
            (y + 0.5) * self.inner_height / self.height - 0.5,
        )

    def pixel_values(self, pixels: NDArray[np.uint8], normalisation: Normalisation) -> torch.Tensor:
        """Resize, normalise and pad.

        Parameters
        ----------
        pixels
            ``uint8`` (H, W, 3), left as it is.
        normalisation
            Gray levels to model input.

        Returns
        -------
        torch.Tensor
            ``float32`` (1, 3, size, size); padding is zero after normalisation, as in SAM.
        """
        import torch
        import torch.nn.functional as F

        # torch.tensor copies: the image's array is read-only and must stay untouched.
        x = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        mode = "bicubic" if normalisation.bicubic else "bilinear"
        x = F.interpolate(x, (self.inner_height, self.inner_width), mode=mode, align_corners=False, antialias=True)
        x = x.clamp_(0.0, 255.0)
        if normalisation.minmax:
            low, high = x.amin(), x.amax()
            x = (x - low) / (high - low).clamp_min(1e-8)
        else:
            x = x / 255.0
        mean = torch.tensor(normalisation.mean).view(1, 3, 1, 1)
        std = torch.tensor(normalisation.std).view(1, 3, 1, 1)
        x = (x - mean) / std
        return F.pad(x, (0, self.size - self.inner_width, 0, self.size - self.inner_height))

    def to_image(self, logits: torch.Tensor) -> torch.Tensor:
        """Bring decoder logits (N, h, w) back to the image's grid, (N, height, width)."""
        import torch.nn.functional as F

        x = logits[:, None].float()
        if (self.inner_height, self.inner_width) != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)
            x = x[..., : self.inner_height, : self.inner_width]
        return F.interpolate(x, (self.height, self.width), mode="bilinear", align_corners=False)[:, 0]

    def mask_logits(self, mask: NDArray[np.bool_], side: int) -> torch.Tensor:
        """Turn a mask into low-resolution logits that the mask decoder takes as its prior.

        Parameters
        ----------
        mask
            ``bool`` (H, W) on the image's grid.
        side
            Side of the decoder's grid, 256 for SAM at 1024 pixels.

        Returns
        -------
        torch.Tensor
            ``float32`` (side, side) from -:data:`PRIOR_LOGIT` (outside) to +:data:`PRIOR_LOGIT`
            (inside), in proportion to the part of the cell that the mask covers.
        """
        import torch
        import torch.nn.functional as F

        x = torch.tensor(mask, dtype=torch.float32)[None, None]
        x = F.interpolate(
            x, (self.inner_height, self.inner_width), mode="bilinear", align_corners=False, antialias=True
        )
        x = F.pad(x, (0, self.size - self.inner_width, 0, self.size - self.inner_height))
        x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return (2.0 * x[0, 0].clamp(0.0, 1.0) - 1.0) * PRIOR_LOGIT

"""LiteMedSAM as a network: load it, embed an image, ask it for masks."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibisagent.errors import InputError
from ibisagent.segmenters.clicknet import SIZE, letterbox
from ibisagent.segmenters.precision import fast_dtype
from ibisagent.segmenters.preprocess import Frame
from ibisagent.segmenters.sam_parts import MaskDecoder, PromptEncoder
from ibisagent.segmenters.tinyvit import TinyVit
from ibisagent.types import Image

__all__ = ["WEIGHTS_DIR", "LiteMedSam", "letterbox_frame", "read_weights"]

WEIGHTS_DIR = Path(__file__).parents[1] / "weights" / "litemedsam"
"""Folder of ``litemedsam.safetensors``, inside the package."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read weights from {path}: {error}") from None


def letterbox_frame(height: int, width: int) -> Frame:
    """Where :func:`~ibisagent.segmenters.clicknet.letterbox` puts an image on the 256 square."""
    scale = SIZE / max(height, width)
    # The same rounding as letterbox, which makes the pixels.
    return Frame(height, width, SIZE, max(1, round(height * scale)), max(1, round(width * scale)))


class LiteMedSam(nn.Module):
    """LiteMedSAM (Ma et al., CVPR 2024 challenge baseline): TinyViT encoder, SAM's prompt encoder and decoder.

    Coordinates are pixel centres (x, y) on the 256 square that :meth:`embed` scales an image to.
    For inference: the encoder works in place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TinyVit()
        self.prompts = PromptEncoder()
        self.decoder = MaskDecoder()

    @classmethod
    def load(
        cls,
        path: Path = WEIGHTS_DIR / "litemedsam.safetensors",
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> LiteMedSam:
        """Load the weights.

        Parameters
        ----------
        path
            File that :mod:`ibisagent.train.convert_litemedsam` wrote.
        device
            torch device.
        dtype
            Of the encoder's wide products; None takes ``bfloat16`` where the processor is
            made for it, else ``float32``.
            Prompt encoder and decoder are always ``float32``.

        Raises
        ------
        InputError
            If the file is missing, damaged, or of another network.
        """
        device = torch.device(device)
        state = {k: v.float() for k, v in read_weights(Path(path)).items()}
        with torch.device("meta"):  # no time for random numbers that are overwritten at once
            model = cls()
        try:
            model.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise InputError(f"{path} does not hold LiteMedSAM's weights: {str(error).splitlines()[0]}") from None
        model.encoder.halve(dtype or fast_dtype(device))
        model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def embed(self, image: Image | NDArray[np.uint8]) -> Tensor:
        """Encode an image.

        Parameters
        ----------
        image
            The image, or its ``uint8`` (H, W, 3) pixels: longest side scaled to 256, per-image
            minimum to maximum becomes 0 to 1, zeros at the right and the bottom.

        Returns
        -------
        Tensor
            ``float32`` (1, 256, 64, 64).
        """
        pixels = image.pixels if isinstance(image, Image) else image
        square, _ = letterbox(pixels)
        return self.embed_square(square, letterbox_frame(*pixels.shape[:2]))

    @torch.inference_mode()
    def embed_square(self, square: NDArray[np.uint8], frame: Frame) -> Tensor:
        """Encode pixels that are letterboxed already: ``uint8`` (256, 256, 3)."""
        x = np.zeros(square.shape, np.float32)
        inner = square[: frame.inner_height, : frame.inner_width].astype(np.float32)
        low, high = float(inner.min()), float(inner.max())
        x[: frame.inner_height, : frame.inner_width] = (inner - low) / max(high - low, 1e-8)
        return self.encoder(torch.from_numpy(x).to(self.prompts.frequencies.device))

    @torch.inference_mode()
    def logits(
        self,
        embedding: Tensor,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Answer n prompts of one form.

        Parameters
        ----------
        embedding
            From :meth:`embed`.
        points, labels
            (n, k, 2) and (n, k): 1 positive, 0 negative, -1 padding. As released, points are untrained.
        boxes
            (n, 4) x0, y0, x1, y1.
        mask
            (n, 1, 256, 256) logits of a former mask.

        Returns
        -------
        logits, iou
            (n, 4, 256, 256) and (n, 4). Index 0 is the answer to an unambiguous prompt.
        """
        tokens, plane = self.prompts(points, labels, boxes, mask)
        return self.decoder(embedding, self.grid, tokens, plane)

    def box_logits(self, embedding: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Segment what n boxes (n, 4) hold: logits (n, 256, 256) and estimated IoU (n,)."""
        logits, iou = self.logits(embedding, boxes=boxes)
        return logits[:, 0], iou[:, 0]

    @cached_property
    def grid(self) -> Tensor:
        """Encoded positions of the embedding's cells, (1, 4096, 256)."""
        return self.prompts.grid()

"""SAM's prompt encoder and mask decoder (Kirillov et al. 2023), compact, for a 64 x 64 embedding of 256 pixels.

transformers has these parts too; ours load without it, in a tenth of the time, and name every tensor
once. Shapes: n prompts, t tokens, embeddings (n, 256, 64, 64), image keys (n, 4096, 256).
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MaskDecoder", "PromptEncoder"]

_DIM = 256
_GRID = 64
_INPUT = 256
_MASKS = 4


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (n, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PromptEncoder(nn.Module):
    """Points, boxes and a mask, as tokens and as a plane to add to the image embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.zeros(2, _DIM // 2))
        self.labels = nn.Parameter(torch.zeros(4, _DIM))  # negative, positive, box corner, opposite corner
        self.not_a_point = nn.Parameter(torch.zeros(_DIM))
        self.no_mask = nn.Parameter(torch.zeros(_DIM))
        self.mask = nn.Sequential(
            nn.Conv2d(1, 4, 2, 2), _ChannelNorm(4), nn.GELU(),
            nn.Conv2d(4, 16, 2, 2), _ChannelNorm(16), nn.GELU(),
            nn.Conv2d(16, _DIM, 1),
        )  # fmt: skip

    def positions(self, xy: Tensor) -> Tensor:
        """Encode positions (..., 2) in [0, 1] as (..., 256) waves."""
        waves = 2 * math.pi * ((2 * xy.float() - 1) @ self.frequencies)
        return torch.cat([waves.sin(), waves.cos()], -1)

    def grid(self) -> Tensor:
        """Positions of the embedding's cells: (1, 4096, 256), row-major."""
        axis = (torch.arange(_GRID, device=self.frequencies.device, dtype=torch.float32) + 0.5) / _GRID
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return self.positions(torch.stack([x, y], -1).reshape(1, -1, 2))

    def forward(
        self, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Encode n prompts that have the same parts.

        Parameters
        ----------
        points, labels
            (n, k, 2) pixel centres (x, y) on the 256 square; (n, k) with 1 positive, 0 negative, -1 padding.
        boxes
            (n, 4) x0, y0, x1, y1 on the 256 square.
        mask
            (n, 1, 256, 256) logits of a former mask.

        Returns
        -------
        tokens, plane
            (n, t, 256), and (n, 256, 64, 64) or (1, 256, 1, 1).
        """
        tokens = []
        if points is not None and labels is not None:
            if boxes is None:  # SAM closes a list of points without a box by an empty point.
                points = torch.cat([points, points.new_zeros(len(points), 1, 2)], 1)
                labels = torch.cat([labels, labels.new_full((len(labels), 1), -1)], 1)
            kind = self.labels[labels.clamp_min(0).long()]
            real = self.positions((points + 0.5) / _INPUT) + kind
            tokens.append(torch.where((labels < 0)[..., None], self.not_a_point, real))
        if boxes is not None:
            corners = self.positions((boxes.view(-1, 2, 2) + 0.5) / _INPUT)
            tokens.append(corners + self.labels[2:])
        plane = self.no_mask.view(1, -1, 1, 1) if mask is None else self.mask(mask)
        return torch.cat(tokens, 1), plane


class _Attention(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(_DIM, inner) for _ in range(3))
        self.out = nn.Linear(inner, _DIM)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (8, -1)).transpose(1, 2) for f, x in ((self.q, q), (self.k, k), (self.v, v)))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Perceptron(nn.Sequential):
    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        super().__init__(*layers[:-1])


class _TwoWay(nn.Module):
    """Tokens look at themselves and at the image, then the image looks at the tokens."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.among = _Attention(_DIM)
        self.to_image = _Attention(_DIM // 2)
        self.perceptron = _Perceptron(_DIM, 2048, _DIM)
        self.to_tokens = _Attention(_DIM // 2)
        self.norms = nn.ModuleList(nn.LayerNorm(_DIM) for _ in range(4))

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # the first layer's tokens are their own position
            tokens = self.among(tokens, tokens, tokens)
        else:
            q = tokens + token_pe
            tokens = tokens + self.among(q, q, tokens)
        tokens = self.norms[0](tokens)
        keys = image + image_pe
        tokens = self.norms[1](tokens + self.to_image(tokens + token_pe, keys, image))
        tokens = self.norms[2](tokens + self.perceptron(tokens))
        image = self.norms[3](image + self.to_tokens(keys, tokens + token_pe, tokens))
        return tokens, image


class MaskDecoder(nn.Module):
    """Two-way transformer and four mask heads; the first answers for a single mask."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(1 + _MASKS, _DIM))  # IoU query, then one a mask
        self.layers = nn.ModuleList([_TwoWay(first=True), _TwoWay(first=False)])
        self.final = _Attention(_DIM // 2)
        self.final_norm = nn.LayerNorm(_DIM)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(_DIM, 64, 2, 2), _ChannelNorm(64), nn.GELU(), nn.ConvTranspose2d(64, 32, 2, 2), nn.GELU()
        )
        self.heads = nn.ModuleList(_Perceptron(_DIM, _DIM, _DIM, 32) for _ in range(_MASKS))
        self.iou = _Perceptron(_DIM, _DIM, _DIM, _MASKS)

    def forward(self, embedding: Tensor, grid: Tensor, tokens: Tensor, plane: Tensor) -> tuple[Tensor, Tensor]:
        """Decode n prompts on one embedding.

        Parameters
        ----------
        embedding
            (1, 256, 64, 64).
        grid, tokens, plane
            From :class:`PromptEncoder`.

        Returns
        -------
        logits, iou
            (n, 4, 256, 256) and (n, 4); index 0 is SAM's single-mask answer, 1 to 3 its three guesses.
        """
        n = len(tokens)
        token_pe = torch.cat([self.queries.expand(n, -1, -1), tokens], 1)
        x, image = token_pe, (embedding + plane).flatten(2).transpose(1, 2).expand(n, -1, -1)
        for layer in self.layers:
            x, image = layer(x, image, token_pe, grid)
        x = self.final_norm(x + self.final(x + token_pe, image + grid, image))
        fine = self.up(image.transpose(1, 2).unflatten(2, (_GRID, _GRID)))
        filters = torch.stack([head(x[:, 1 + i]) for i, head in enumerate(self.heads)], 1)
        return torch.einsum("nmc,nchw->nmhw", filters, fine), self.iou(x[:, 0])

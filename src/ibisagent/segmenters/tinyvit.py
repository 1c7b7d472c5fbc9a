"""TinyViT at 256 pixels with SAM's neck: the image encoder of LiteMedSAM, for inference.

The published encoder is exact to these facts (Wu et al. 2022; MobileSAM; LiteMedSAM): its stem keeps
full resolution, one stage of inverted bottlenecks works there, three stages of windowed attention
follow at 128, 64 and 64 pixels, and a neck brings 320 channels to 256. What is ours is how it runs:

- batch norms are folded into the convolutions when the weights are converted;
- everything is (rows, columns, channels), so a 1x1 convolution is a matrix product and nothing is
  transposed between convolutions and attention;
- work at high resolution goes in bands of rows. The widest plane would be 64 MB; fresh memory of
  that size costs more page faults than arithmetic, while a band stays in the cache;
- what is carried from block to block stays ``float32``; the wide products inside a block may be
  ``bfloat16`` (:meth:`TinyVit.halve`), at less than half the time.

Activations work in place, so gradients do not pass through this module.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EMBED_CHANNELS", "EMBED_SIZE", "INPUT_SIZE", "TinyVit"]

INPUT_SIZE = 256
EMBED_SIZE = 64
EMBED_CHANNELS = 256

_WIDTHS = (64, 128, 160, 320)
_DEPTHS = (2, 2, 6, 2)
_HEADS = (0, 4, 5, 10)
_WINDOWS = (0, 7, 14, 7)
_STRIDES = (2, 2, 1)
_BAND_TOKENS = 4096
"""Pixels that wide planes are made for at a time: 4096 x 512 float32 is 8 MB."""


def _gelu(x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_(x)


def _depthwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a 3x3 depthwise convolution to (H, W, C): the channels-last view costs no copy."""
    return conv(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)


def _depthwise_conv(channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention with a bias, (windows, heads, N, C) each."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # Plain products take two thirds of the fused kernel's time on windows this small.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return scores.add_(bias).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class _Bottleneck(nn.Module):
    """Inverted bottleneck: widen, look around, narrow, add; in bands of rows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, 4 * channels)
        self.around = _depthwise_conv(4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width, _ = x.shape
        rows = max(1, _BAND_TOKENS // width)
        out = torch.empty_like(x)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            # One row more on each side, so that the band's own rows see their neighbours.
            first, last = max(top - 1, 0), min(bottom + 1, height)
            wide = _depthwise(_gelu(self.widen(x[first:last].to(self.widen.weight.dtype))), self.around)
            y = self.narrow(_gelu(wide[top - first : bottom - first]))
            # Two passes of one type each: an addition of two types is not vectorised.
            _gelu(out[top:bottom].copy_(y).add_(x[top:bottom]))
        return out


class _Merge(nn.Module):
    """Change of width between stages, halving the grid where the stride is 2; in bands of rows."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.into = nn.Linear(channels, out_channels)
        self.around = _depthwise_conv(out_channels, stride)
        self.out = nn.Linear(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width, _ = x.shape
        rows = max(2, _BAND_TOKENS // width)
        bands = []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            # An even number of rows above keeps the stride's phase.
            first, last = max(top - 2, 0), min(bottom + 1, height)
            wide = _depthwise(_gelu(self.into(x[first:last].to(self.into.weight.dtype))), self.around)
            start = (top - first) // self.stride
            bands.append(self.out(_gelu(wide[start : start + (bottom - top) // self.stride])))
        return torch.cat(bands).float()


class _WindowAttention(nn.Module):
    """Attention inside windows, with a learnt bias for every distance (|dy|, |dx|)."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.distance_bias = nn.Parameter(torch.zeros(heads, window * window))
        self._bias: Tensor | None = None

    def bias(self) -> Tensor:
        """(1, heads, N, N) bias between the window's pixels; made once, as weights do not change."""
        like = self.qkv.weight
        if self._bias is None or self._bias.dtype != like.dtype or self._bias.device != like.device:
            axis = torch.arange(self.window, device=self.distance_bias.device)
            apart = (axis[:, None] - axis).abs()
            index = apart[:, None, :, None] * self.window + apart[None, :, None, :]
            tokens = self.window**2
            self._bias = self.distance_bias[:, index.reshape(tokens, tokens)][None].to(like.dtype).contiguous()
        return self._bias

    def forward(self, x: Tensor) -> Tensor:
        height, width, channels = x.shape
        w = self.window
        down, right = -height % w, -width % w
        # Padding comes before the norm and is attended to, as in the published network.
        padded = self.norm(F.pad(x, (0, 0, 0, right, 0, down))).to(self.qkv.weight.dtype)
        ny, nx = (height + down) // w, (width + right) // w
        windows = padded.view(ny, w, nx, w, channels).transpose(1, 2).reshape(ny * nx, w * w, channels)
        qkv = self.qkv(windows).view(ny * nx, w * w, self.heads, 3, channels // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        y = _attend(q, k, v, self.bias()).transpose(1, 2)
        y = y.reshape(ny, nx, w, w, channels).transpose(1, 2).reshape(ny * w, nx * w, channels)
        return self.proj(y[:height, :width])


class _Block(nn.Module):
    """Window attention, a local convolution, and a perceptron."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.attention = _WindowAttention(channels, heads, window)
        self.around = _depthwise_conv(channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = _depthwise(self.attention(x).float().add_(x), self.around)
        rows = max(1, _BAND_TOKENS // x.shape[1])
        for band in x.split(rows):
            band.add_(self.narrow(_gelu(self.widen(self.norm(band).to(self.widen.weight.dtype)))))
        return x


class TinyVit(nn.Module):
    """LiteMedSAM's image encoder, 5.7 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        first = _WIDTHS[0]
        self.stem = nn.ModuleList([nn.Linear(3, first // 2), nn.Linear(first // 2, first)])
        self.bottlenecks = nn.ModuleList(_Bottleneck(first) for _ in range(_DEPTHS[0]))
        self.merges = nn.ModuleList(_Merge(_WIDTHS[i], _WIDTHS[i + 1], _STRIDES[i]) for i in range(3))
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(_WIDTHS[i], _HEADS[i], _WINDOWS[i]) for _ in range(_DEPTHS[i]))) for i in (1, 2, 3)
        )
        self.neck_in = nn.Linear(_WIDTHS[-1], EMBED_CHANNELS, bias=False)
        self.neck_norm = nn.LayerNorm(EMBED_CHANNELS, eps=1e-6)
        self.neck_around = nn.Conv2d(EMBED_CHANNELS, EMBED_CHANNELS, 3, 1, 1, bias=False)
        self.neck_out = nn.LayerNorm(EMBED_CHANNELS, eps=1e-6)

    def halve(self, dtype: torch.dtype) -> TinyVit:
        """Turn the wide products' weights to ``dtype``; stem, norms and what is carried stay ``float32``."""
        for module in self.modules():
            if isinstance(module, _Bottleneck | _Merge):
                module.to(dtype)
            elif isinstance(module, _WindowAttention):
                module.qkv.to(dtype)
                module.proj.to(dtype)
            elif isinstance(module, _Block):
                module.widen.to(dtype)
                module.narrow.to(dtype)
        self.neck_in.to(dtype)
        self.neck_around.to(dtype)
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Encode one image.

        Parameters
        ----------
        image
            ``float32`` (256, 256, 3), intensities in [0, 1].

        Returns
        -------
        Tensor
            ``float32`` (1, 256, 64, 64), channels last in memory.
        """
        x = _gelu(self.stem[0](image))
        x = self.stem[1](x)
        for bottleneck in self.bottlenecks:
            x = bottleneck(x)
        for merge, stage in zip(self.merges, self.stages, strict=True):
            x = stage(merge(x))
        dtype = self.neck_in.weight.dtype
        x = self.neck_norm(self.neck_in(x.to(dtype)).float()).to(dtype)
        x = self.neck_around(x.permute(2, 0, 1)[None]).permute(0, 2, 3, 1)
        return self.neck_out(x.float()).permute(0, 3, 1, 2)

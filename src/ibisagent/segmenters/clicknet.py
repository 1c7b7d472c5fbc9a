"""ClickNet: a compact click-conditioned U-Net, our own promptable segmenter network.

It sees the image, every click so far, the previous mask and an optional box as input planes, and
two kinds of planes that make clicks generalise to images it never saw:

- *similarity*: how alike each pixel's colour is to the colour under the positive (negative) clicks;
- *geodesic*: how hard it is to walk from the clicks to each pixel without crossing an edge
  (the idea of DeepIGeoS, Wang et al. 2018, as a few dozen min-plus steps on a coarse grid).

All tensors are ``float32`` (B, C, S, S) with S = 256; clicks are pixel centres on that square.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["MAX_CLICKS", "SIZE", "ClickNet", "image_planes", "letterbox", "normalise", "prompt_planes"]

SIZE = 256
"""Side of the square the network works on, in pixels."""

MAX_CLICKS = 24
"""Clicks of one sign that are kept; older ones beyond that are dropped."""

_GEODESIC_SIZE = 64
_GEODESIC_STEPS = 72
_FAR = 4.0


def letterbox(array: NDArray, size: int = SIZE, *, nearest: bool = False) -> tuple[NDArray, float]:
    """Scale the longest side to ``size`` and pad right and bottom with zeros.

    Parameters
    ----------
    array
        (H, W) or (H, W, C), ``uint8`` or ``float32``.
    size
        Side of the square, in pixels.
    nearest
        Keep values as they are (masks); otherwise area means down, bilinear up.

    Returns
    -------
    square, scale
        (size, size[, C]) of the same dtype, and the factor; a pixel x goes to (x + 0.5) * scale - 0.5.
    """
    h, w = array.shape[:2]
    scale = size / max(h, w)
    nh, nw = max(1, round(h * scale)), max(1, round(w * scale))
    how = cv2.INTER_NEAREST if nearest else (cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small = cv2.resize(array, (nw, nh), interpolation=how)
    out = np.zeros((size, size, *array.shape[2:]), array.dtype)
    out[:nh, :nw] = small
    return out, scale


def normalise(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Map the 0.5-99.5 percentile of the square's filled part to [0, 1], cut at -0.1 and 1.1.

    Parameters
    ----------
    rgb
        ``uint8`` (S, S, 3), letterboxed.
    height, width
        Size of the filled part, top left; the rest becomes 0.

    Returns
    -------
    NDArray
        ``float32`` (S, S, 3).
    """
    part = rgb[:height, :width]
    low, high = (float(v) for v in np.percentile(part[::2, ::2], (0.5, 99.5)))
    out = np.clip((rgb.astype(np.float32) - low) / max(high - low, 8.0), -0.1, 1.1)
    out[height:] = 0
    out[:, width:] = 0
    return out


def _smooth(x: Tensor, kernel: int) -> Tensor:
    return F.avg_pool2d(F.pad(x, [kernel // 2] * 4, mode="replicate"), kernel, stride=1)


def image_planes(rgb: Tensor) -> Tensor:
    """Planes that depend on the image alone.

    Parameters
    ----------
    rgb
        (B, 3, S, S), intensities normalised to about [0, 1] per image.

    Returns
    -------
    Tensor
        (B, 7, S, S): rgb, its 3x3 mean per channel (for similarity), and local contrast.
    """
    mean = _smooth(rgb, 3)
    gray = rgb.mean(1, keepdim=True)
    wide = _smooth(gray, 9)
    contrast = (_smooth(gray * gray, 9) - wide * wide).clamp_min(0).add(1e-6).sqrt()
    return torch.cat([rgb, mean, contrast], 1)


def gaussians(points: Tensor, valid: Tensor, sigma: float, size: int) -> Tensor:
    """(B, K, 2) click centres, (B, K) validity -> (B, 1, S, S) maximum of unit Gaussians."""
    axis = torch.arange(size, dtype=torch.float32, device=points.device)
    gx = torch.exp(-((axis - points[..., :1]) ** 2) / (2 * sigma**2))
    gy = torch.exp(-((axis - points[..., 1:]) ** 2) / (2 * sigma**2)) * valid[..., None]
    return (gy[..., :, None] * gx[..., None, :]).amax(1, keepdim=True)


def difference(features: Tensor, points: Tensor, valid: Tensor) -> Tensor:
    """Squared distance of each pixel's (rgb mean, contrast) to the nearest of those under the clicks: (B, S, S)."""
    b, _, s, _ = features.shape
    x = points[..., 0].long().clamp(0, s - 1)
    y = points[..., 1].long().clamp(0, s - 1)
    index = (y * s + x)[:, None].expand(-1, features.shape[1], -1)
    at = features.flatten(2).gather(2, index)  # (B, C, K)
    best = torch.full((b, s, s), 9.0, device=features.device)
    for k in range(points.shape[1]):
        if bool(valid[:, k].any()):
            d = ((features - at[:, :, k, None, None]) ** 2).sum(1) + (1 - valid[:, k, None, None]) * 9.0
            best = torch.minimum(best, d)
    return best


def similarity(best: Tensor) -> Tensor:
    """How alike pixels at such distances are, at two widths: (B, 2, S, S)."""
    return torch.stack([torch.exp(-best / (2 * 0.05**2)), torch.exp(-best / (2 * 0.15**2))], 1)


def walking_cost(planes: Tensor) -> Tensor:
    """What a step onto each cell of the coarse grid costs: (B, 1, G, G)."""
    small = F.avg_pool2d(planes[:, 3:6], planes.shape[-1] // _GEODESIC_SIZE)
    gx = F.pad((small[..., :, 1:] - small[..., :, :-1]).abs().amax(1, keepdim=True), (0, 1, 0, 0))
    gy = F.pad((small[..., 1:, :] - small[..., :-1, :]).abs().amax(1, keepdim=True), (0, 0, 0, 1))
    return 0.02 + 2.0 * torch.maximum(gx, gy)


def walking_distance(cost: Tensor, points: Tensor, valid: Tensor, size: int) -> Tensor:
    """Distance of each cell from the nearest click: (B, 1, G, G)."""
    seeds = F.max_pool2d(gaussians(points, valid, 1.0, size), size // _GEODESIC_SIZE)
    return _geodesic(cost, (seeds > 0.6).float())


def nearness(distance: Tensor, size: int) -> Tensor:
    """1 at the clicks, towards 0 far from them: (B, 1, S, S)."""
    return F.interpolate(torch.exp(-2.0 * distance), size=(size, size), mode="bilinear", align_corners=False)


def _geodesic(cost: Tensor, seeds: Tensor) -> Tensor:
    """Min-plus distance from seeds over a cost grid: (B, 1, G, G) each, in units of cost."""
    d = torch.where(seeds > 0.5, torch.zeros_like(cost), torch.full_like(cost, _FAR))
    for i in range(_GEODESIC_STEPS):
        p = F.pad(d, (1, 1, 1, 1), value=_FAR)
        near = torch.minimum(
            torch.minimum(p[..., 1:-1, :-2], p[..., 1:-1, 2:]), torch.minimum(p[..., :-2, 1:-1], p[..., 2:, 1:-1])
        )
        new = torch.minimum(d, near + cost)
        if i % 12 == 11 and bool(torch.equal(new, d)):
            break
        d = new
    return d


def prompt_planes(
    planes: Tensor,
    positive: Tensor,
    num_positive: Tensor,
    negative: Tensor,
    num_negative: Tensor,
    prior: Tensor,
    box: Tensor,
) -> Tensor:
    """Planes that depend on the prompts.

    Parameters
    ----------
    planes
        Output of :func:`image_planes`, (B, 7, S, S).
    positive, negative
        (B, K, 2) click centres (x, y) in pixels of the square; rows beyond the count are ignored.
    num_positive, num_negative
        (B,) how many rows of each are clicks.
    prior
        (B, 1, S, S) probability of the mask so far, 0 where there is none.
    box
        (B, 1, S, S) 1 inside the box, 0 elsewhere and where there is none.

    Returns
    -------
    Tensor
        (B, 11, S, S): click maps, similarities (positive narrow, wide, negative narrow, wide),
        geodesics (positive, negative), prior, box, whether a prior is given.
    """
    size = planes.shape[-1]
    features = planes[:, 3:7]
    kp, kn = max(1, int(num_positive.max())), max(1, int(num_negative.max()))
    positive, negative = positive[:, :kp], negative[:, :kn]
    vp = (torch.arange(kp, device=planes.device) < num_positive[:, None]).float()
    vn = (torch.arange(kn, device=planes.device) < num_negative[:, None]).float()
    signs = ((positive, vp), (negative, vn))
    out = [gaussians(points, valid, 3.0, size) for points, valid in signs]
    out += [similarity(difference(features, points, valid)) for points, valid in signs]
    cost = walking_cost(planes)
    out += [nearness(walking_distance(cost, points, valid, size), size) for points, valid in signs]
    return torch.cat([*out, prior, box, has_prior(prior)], 1)


def has_prior(prior: Tensor) -> Tensor:
    """1 everywhere in the rows of a batch that are given a prior: (B, 1, S, S)."""
    return (prior.amax((1, 2, 3), keepdim=True) > 0).float().expand_as(prior)


def _block(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride, 1, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.a = _block(c, c)
        self.b = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.b(self.a(x)))


class ClickNet(nn.Module):
    """U-Net over image and prompt planes; returns mask logits and an IoU estimate.

    Parameters
    ----------
    widths
        Channels at 1, 1/2, 1/4, 1/8, 1/16 and 1/32 of the input size.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96, 160, 192)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        w = self.widths
        self.stem = _block(18, w[0])
        self.down = nn.ModuleList()
        for i in range(1, len(w)):
            layers: list[nn.Module] = [_block(w[i - 1], w[i], 2), _Residual(w[i])]
            self.down.append(nn.Sequential(*layers))
        self.context = nn.Sequential(_Residual(w[-1]), _Residual(w[-1]))
        self.lateral = nn.ModuleList(nn.Conv2d(w[i], w[i], 1) for i in range(len(w) - 1))
        self.up = nn.ModuleList(nn.Conv2d(w[i + 1], w[i], 1) for i in range(len(w) - 1))
        self.merge = nn.ModuleList([_block(w[0], w[0]), *(_Residual(w[i]) for i in range(1, len(w) - 1))])
        self.head = nn.Conv2d(w[0], 1, 3, 1, 1)
        self.quality = nn.Sequential(nn.Linear(w[-1] + w[2], 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, planes: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Segment.

        Parameters
        ----------
        planes, prompts
            (B, 7, S, S) and (B, 11, S, S) from :func:`image_planes` and :func:`prompt_planes`.

        Returns
        -------
        logits, quality
            (B, 1, S, S) mask logits, and (B,) logits of the mask's estimated IoU.
        """
        x = torch.cat([planes, prompts], 1) * 2 - 1
        skips = [self.stem(x)]
        for down in self.down:
            skips.append(down(skips[-1]))
        y = self.context(skips[-1])
        deep = y.mean((2, 3))
        middle = deep
        for i in range(len(self.widths) - 2, -1, -1):
            y = F.interpolate(self.up[i](y), scale_factor=2, mode="nearest") + self.lateral[i](skips[i])
            y = self.merge[i](F.relu(y))
            if i == 2:
                middle = y.mean((2, 3))
        return self.head(y), self.quality(torch.cat([deep, middle], 1))[:, 0]

"""ClickNet on a CPU, one prompt at a time: the same bits in less time.

What the plain network does again at every call is done once (weights reordered for oneDNN, where each buffer may be
written), and the steps go by without modules. Every convolution is held against ``torch.conv2d`` when the network is
prepared, with the threads that it will run on; one that differs in a bit stays with ``torch.conv2d``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ibisagent.segmenters.clicknet import SIZE, ClickNet

__all__ = ["CpuClickNet"]

_Step = Callable[[Tensor], Tensor]


class CpuClickNet:
    """Answers as a :class:`~ibisagent.segmenters.clicknet.ClickNet` on a CPU does, for a batch of one.

    Parameters
    ----------
    net
        In evaluation mode, on a CPU; its weights must not change afterwards.

    Attributes
    ----------
    num_threads
        Threads of torch that it was prepared for; with others, other bits may come out.
    exact
        Whether a trial gave the network's bits. If not, use the network.
    """

    def __init__(self, net: ClickNet) -> None:
        self.num_threads = torch.get_num_threads()
        with torch.inference_mode():
            generator = torch.Generator().manual_seed(0)
            planes = torch.rand(1, 7, SIZE, SIZE, generator=generator)
            prompts = torch.rand(1, 11, SIZE, SIZE, generator=generator)
            kinds = (nn.Conv2d, nn.BatchNorm2d)
            seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
            hooks = [m.register_forward_hook(_keep_in(seen)) for m in net.modules() if isinstance(m, kinds)]
            try:
                expected = net(planes, prompts)
            finally:
                for hook in hooks:
                    hook.remove()
            steps = {m: _fastest(m, *e) if isinstance(m, nn.Conv2d) else _norm(m, e[0]) for m, e in seen.items()}
            parts: Any = net
            self._levels = len(net.widths)
            self._stem = _block(parts.stem, steps)
            self._down = [(_block(down[0], steps), _residual(down[1], steps)) for down in parts.down]
            self._context = [_residual(part, steps) for part in parts.context]
            self._lateral, self._up = [[steps[m] for m in part] for part in (parts.lateral, parts.up)]
            self._merge = [_block(parts.merge[0], steps), *(_residual(part, steps) for part in parts.merge[1:])]
            self._head, self._quality = steps[parts.head], parts.quality
            got = self(planes, prompts)
            self.exact = all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))

    def __call__(self, planes: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (1, 1, S, S) and quality (1,), as of ``ClickNet.forward``; in inference mode."""
        x = torch.cat([planes, prompts], 1).mul_(2).sub_(1)
        # Channels last, by a transpose that goes by tiles.
        flat = torch.from_numpy(cv2.transpose(x[0].flatten(1).numpy()))
        x = flat.view(1, x.shape[2], x.shape[3], x.shape[1]).permute(0, 3, 1, 2)
        skips = [self._stem(x)]
        for first, second in self._down:
            skips.append(second(first(skips[-1])))
        y = skips[-1]
        for part in self._context:
            y = part(y)
        deep = y.mean((2, 3))
        middle = deep
        for i in range(self._levels - 2, -1, -1):
            wide = F.interpolate(self._up[i](y), scale_factor=2, mode="nearest")
            y = self._merge[i](wide.add_(self._lateral[i](skips[i])).relu_())
            if i == 2:
                middle = y.mean((2, 3))
        return self._head(y), self._quality(torch.cat([deep, middle], 1))[:, 0]


def _keep_in(seen: dict[nn.Module, tuple[Tensor, Tensor]]) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        # What follows writes in place.
        seen[module] = inputs[0].clone(), output.clone()

    return keep


def _block(part: Any, steps: dict[nn.Module, _Step]) -> _Step:
    conv, norm = steps[part[0]], steps[part[1]]
    return lambda x: norm(conv(x)).relu_()


def _residual(part: Any, steps: dict[nn.Module, _Step]) -> _Step:
    first, conv, norm = _block(part.a, steps), steps[part.b[0]], steps[part.b[1]]
    return lambda x: norm(conv(first(x))).add_(x).relu_()


def _norm(norm: Any, x: Tensor) -> _Step:
    """Batch normalisation in place; ``torch.batch_norm`` where the bits would differ."""
    weight, bias, mean, var, eps = norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps
    expected = torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, False)
    factor = torch.rsqrt(var + eps) * weight
    # A fused multiply and add, as there.
    term = torch.addcmul(bias, -mean, factor).view(1, -1, 1, 1)
    factor = factor.view(1, -1, 1, 1)
    if torch.equal(torch.addcmul(term, x, factor, out=x.clone()), expected):
        return lambda x: torch.addcmul(term, x, factor, out=x)
    return lambda x: torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, False)


def _fastest(conv: Any, x: Tensor, expected: Tensor) -> _Step:
    """The first way to convolve that gives the bits of ``torch.conv2d``."""
    x = x.contiguous(memory_format=torch.channels_last)
    for way in (_packed, _by_taps):
        try:
            step = way(conv, x)
            if torch.equal(step(x), expected):
                return step
        except (AttributeError, NotImplementedError, RuntimeError):
            continue  # another build of torch
    weight, bias, stride, padding = conv.weight, conv.bias, conv.stride, conv.padding
    return lambda x: torch.conv2d(x, weight, bias, stride, padding)


def _packed(conv: Any, x: Tensor) -> _Step:
    """oneDNN with weights that lie as it wants them, which ``torch.conv2d`` arranges anew at every call."""
    bias, padding, stride = conv.bias, tuple(conv.padding), tuple(conv.stride)
    weight = _reordered(conv.weight, list(x.shape), stride, padding)
    run = torch.ops.mkldnn._convolution_pointwise.default
    return lambda x: run(x, weight, bias, padding, stride, (1, 1), 1, "none", [], "")


def _by_taps(conv: Any, x: Tensor) -> _Step:
    """A product of matrices for each tap of the kernel, added tap by tap: MKL's order, where few pixels go to it."""
    if conv.stride != (1, 1) or conv.padding != (1, 1) or conv.kernel_size != (3, 3) or conv.bias is not None:
        raise NotImplementedError
    _, channels, height, width = x.shape
    out = conv.out_channels
    # One convolution in nine groups makes the nine products.
    taps = conv.weight.permute(2, 3, 0, 1).reshape(9 * out, channels, 1, 1)
    weight = _reordered(taps, [1, 9 * channels, height, width], groups=9)
    run = torch.ops.mkldnn._convolution_pointwise.default

    def step(x: Tensor) -> Tensor:
        padded = x.new_zeros(height + 2, width + 2, channels)
        padded[1:-1, 1:-1] = x[0].permute(1, 2, 0)
        row, pixel = padded.stride()[:2]
        shifted = padded.as_strided((height, width, 3, 3, channels), (row, pixel, row, pixel, 1))
        inputs = shifted.reshape(1, height, width, 9 * channels).permute(0, 3, 1, 2)
        products = run(inputs, weight, None, (0, 0), (1, 1), (1, 1), 9, "none", [], "")
        parts = products.permute(0, 2, 3, 1).view(1, height, width, 9, out).unbind(3)
        y = parts[0] + parts[1]
        for part in parts[2:]:
            y.add_(part)
        return y.permute(0, 3, 1, 2)

    return step


def _reordered(
    weight: Tensor,
    shape: list[int],
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
    groups: int = 1,
) -> Tensor:
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    return reorder(weight.contiguous().to_mkldnn(), padding, stride, (1, 1), groups, shape)

"""Time of LiteMedSAM's encoder, ours against the plain one, and of the default segmenter's other parts.

    python benchmarks/bench_litemedsam.py [--repeats 5] [--threads 2] [--image data/mini/images/…png]

The plain encoder is the released network as it is released: the same weights in ``float32``, planes before rows,
separate batch norms, attention step by step, fresh memory for every result. Ours takes turns with it in
one process. All is measured twice: as the process comes, and with glibc told to keep freed memory (a plain
encoder spends most of its time in page faults otherwise). Prints one JSON object; seconds are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ibisagent.io.images import read_image
from ibisagent.segmenters.clicknet import ClickNet
from ibisagent.segmenters.litemedsam import CLICKNET_DIR, LiteMedSamSegmenter
from ibisagent.segmenters.litemedsam_net import LiteMedSam, letterbox_frame
from ibisagent.segmenters.tinyvit import TinyVit
from ibisagent.types import PixelBox, PixelClick, Prompt

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}


def plain_encoder(encoder: TinyVit) -> Callable[[Tensor], Tensor]:
    """The released encoder's sequence of operations, on our ``float32`` weights."""

    net: Any = encoder

    def conv_norm(x: Tensor, layer: Any) -> Tensor:
        weight, bias = layer.weight, layer.bias
        weight = weight[:, :, None, None] if weight.ndim == 2 else weight
        stride, groups = getattr(layer, "stride", (1, 1)), getattr(layer, "groups", 1)
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups)
        # The norm is folded into weight and bias: what is left of it costs the same and only adds the bias.
        zeros, ones = torch.zeros_like(bias), torch.ones_like(bias)
        return F.batch_norm(x, zeros, ones, ones, bias, eps=0.0)

    def attend(x: Tensor, a: Any) -> Tensor:
        n, tokens, channels = x.shape
        qkv = a.qkv(a.norm(x)).view(n, tokens, a.heads, -1)
        q, k, v = (t.permute(0, 2, 1, 3) for t in qkv.split(channels // a.heads, 3))
        scores = (q @ k.transpose(-2, -1)) * (channels // a.heads) ** -0.5 + a.bias()
        return a.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, channels))

    def block(x: Tensor, b: Any, side: int) -> Tensor:
        channels, w = x.shape[-1], b.attention.window
        pad = -side % w
        grid = F.pad(x.view(1, side, side, channels), (0, 0, 0, pad, 0, pad))
        count, full = (side + pad) // w, side + pad
        windows = grid.view(count, w, count, w, channels).transpose(1, 2).reshape(-1, w * w, channels)
        y = attend(windows, b.attention).view(count, count, w, w, channels).transpose(1, 2)
        y = y.reshape(1, full, full, channels)[:, :side, :side].contiguous().view(1, side * side, channels)
        x = conv_norm((x + y).transpose(1, 2).reshape(1, channels, side, side), b.around)
        x = x.view(1, channels, side * side).transpose(1, 2)
        return x + b.narrow(F.gelu(b.widen(b.norm(x))))

    def channel_norm(x: Tensor, norm: Any) -> Tensor:
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + norm.eps)
        return norm.weight[:, None, None] * x + norm.bias[:, None, None]

    def run(image: Tensor) -> Tensor:
        x = conv_norm(F.gelu(conv_norm(image.permute(2, 0, 1)[None], net.stem[0])), net.stem[1])
        for b in net.bottlenecks:
            y = F.gelu(conv_norm(F.gelu(conv_norm(x, b.widen)), b.around))
            x = F.gelu(conv_norm(y, b.narrow) + x)
        for merge, stage in zip(net.merges, net.stages, strict=True):
            if x.ndim == 3:
                side = round(x.shape[1] ** 0.5)
                x = x.view(1, side, side, -1).permute(0, 3, 1, 2)
            x = conv_norm(F.gelu(conv_norm(F.gelu(conv_norm(x, merge.into)), merge.around)), merge.out)
            side = x.shape[-1]
            x = x.flatten(2).transpose(1, 2)
            for b in stage:
                x = block(x, b, side)
        x = x.view(1, 64, 64, -1).permute(0, 3, 1, 2)
        x = channel_norm(F.conv2d(x, net.neck_in.weight[:, :, None, None]), net.neck_norm)
        return channel_norm(F.conv2d(x, net.neck_around.weight, padding=1), net.neck_out)

    return run


def measure(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Run the jobs in turn; medians of wall and processor seconds. One round first, not counted."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            job()
            if turn:
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {
            "wall": round(statistics.median(w for w, _ in s), 4),
            "cpu": round(statistics.median(c for _, c in s), 4),
        }
        for name, s in seconds.items()
    }


def one_process(a: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(a.threads)
    image = read_image(a.image)
    started = time.perf_counter()
    ours = LiteMedSam.load()
    load_seconds = time.perf_counter() - started
    ours_float32 = LiteMedSam.load(dtype=torch.float32)
    plain = plain_encoder(LiteMedSam.load(dtype=torch.float32).encoder)
    trained = (CLICKNET_DIR / "clicknet.safetensors").exists()
    segmenter = LiteMedSamSegmenter(clicknet=None if trained else ClickNet(), litemedsam=ours)
    frame = letterbox_frame(image.height, image.width)
    embedding = segmenter.encode(image)
    square = torch.zeros(256, 256, 3)
    inner = torch.from_numpy(embedding.square[: frame.inner_height, : frame.inner_width].astype("float32"))
    square[: frame.inner_height, : frame.inner_width] = (inner - inner.min()) / (inner.max() - inner.min())
    box = PixelBox(image.width // 4, image.height // 4, image.width // 2, image.height // 2)
    click = PixelClick(image.width // 3, image.height // 3, positive=True)
    with torch.inference_mode():
        want, got = plain(square), ours_float32.embed(image)
        error = float((got - want).norm() / want.norm())
        if error > 1e-4:
            raise SystemExit(f"the plain encoder and ours disagree: {error:.1e}")
        times = measure(
            {
                "plain": lambda: plain(square),
                "ours": lambda: ours.embed(image),
                "ours_float32": lambda: ours_float32.embed(image),
                "segmenter_encode": lambda: segmenter.encode(image),
                "box": lambda: segmenter.predict(embedding, [Prompt(box=box)]),
                "click": lambda: segmenter.predict(embedding, [Prompt(clicks=(click,))]),
            },
            a.repeats,
        )
    return {
        "encoder_dtype": str(ours.encoder.neck_in.weight.dtype).removeprefix("torch."),
        "load_seconds": round(load_seconds, 3),
        "clicknet": "trained" if trained else "random",
        "seconds": times,
        "ours_over_plain": {k: round(times["ours"][k] / times["plain"][k], 3) for k in ("wall", "cpu")},
        "ours_float32_over_plain": {k: round(times["ours_float32"][k] / times["plain"][k], 3) for k in ("wall", "cpu")},
    }


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--image", type=Path, default=Path("data/mini/images/icbm152_axial_036.png"))
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--one-process", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.one_process:
        print(json.dumps(one_process(a)))
        return 0
    out: dict[str, object] = {"threads": a.threads, "repeats": a.repeats, "torch": torch.__version__}
    command = [sys.executable, __file__, "--one-process", f"--image={a.image}"]
    command += [f"--repeats={a.repeats}", f"--threads={a.threads}"]
    bare = {k: v for k, v in os.environ.items() if k not in KEEP_MEMORY}
    for name, extra in {"as_it_comes": {}, "memory_kept": KEEP_MEMORY}.items():
        done = subprocess.run(command, env={**bare, **extra}, stdout=subprocess.PIPE, text=True, check=True)
        out[name] = json.loads(done.stdout)
    print(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

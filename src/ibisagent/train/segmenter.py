"""Train ClickNet, the embedded click segmenter.

What it does: draws a sample, simulates the expert's clicks on the network's own masks, first click
through eighth, and takes one optimiser step after every click; some samples start from a box or
from a damaged prior mask.

How to run::

    ibisagent train segmenter --stage base --minutes 20 --out runs/seg/base
    ibisagent train segmenter --init runs/seg/base/last.pt --minutes 20 --out runs/seg/full
    ibisagent train segmenter --init runs/seg/base/last.pt --leave-out lung1 --minutes 12 --out runs/seg/no-lung1

``base`` sees procedural images only, so that every leave-one-group-out run may start from it.
A run resumes from ``OUT/last.pt``; ``--minutes`` counts training time over all its parts, and the
learning rate falls with it (one cycle), so a run ends when its time is spent.

Where it departs from the textbook (RITM, Sofiiuk et al. 2021): every click is trained on, not only
the last, and the schedule is in wall-clock time because machines here are shared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ibisagent.clicks import jittered_click
from ibisagent.errors import InputError
from ibisagent.segmenters.clicknet import MAX_CLICKS, SIZE, ClickNet, image_planes, prompt_planes
from ibisagent.segmenters.precision import fast_dtype
from ibisagent.train.segmenter_data import Diet, SegmenterSamples, load_pool

__all__ = ["export", "load_checkpoint", "main"]


def load_checkpoint(path: Path) -> ClickNet:
    """The averaged network of a run's ``last.pt``, on the CPU, in evaluation mode.

    Parameters
    ----------
    path
        Checkpoint of a network with the default widths.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)["average"]
    net = ClickNet()
    net.load_state_dict(state)
    return net.eval()


def export(net: ClickNet, folder: Path) -> None:
    """Write ``clicknet.safetensors`` (fp16) and ``config.json``, as the segmenter loads them.

    Parameters
    ----------
    net
        On the CPU.
    folder
        Made if need be; files in it are replaced.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    save_file(state, folder / "clicknet.safetensors")
    (folder / "config.json").write_text(json.dumps({"widths": list(net.widths)}) + "\n", encoding="utf-8")


class _Clicks:
    """Click lists of a batch, as padded tensors."""

    def __init__(self, batch: int) -> None:
        self.points = torch.zeros(2, batch, MAX_CLICKS, 2)
        self.counts = torch.zeros(2, batch, dtype=torch.long)

    def add(self, row: int, x: float, y: float, positive: bool) -> None:
        """Add a click, in pixels, to a row; a full list stays as it is."""
        sign = 0 if positive else 1
        k = int(self.counts[sign, row])
        if k < MAX_CLICKS:
            self.points[sign, row, k] = torch.tensor([x, y], dtype=torch.float32)
            self.counts[sign, row] = k + 1

    def planes(self, image: Tensor, prior: Tensor, box: Tensor) -> Tensor:
        """The planes of all rows, see :func:`~ibisagent.segmenters.clicknet.prompt_planes`."""
        return prompt_planes(image, self.points[0], self.counts[0], self.points[1], self.counts[1], prior, box)


def _damaged(rng: np.random.Generator, target: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A wrong mask to refine: shifted, grown, shrunk, half missing, or another blob added."""
    m = target.astype(np.uint8)
    kind = rng.integers(4)
    if kind == 0:
        k = int(rng.integers(3, 25))
        m = (
            cv2.dilate(m, np.ones((k, k), np.uint8))
            if rng.random() < 0.5
            else cv2.erode(m, np.ones((k // 2 + 1,) * 2, np.uint8))
        )
    elif kind == 1:
        m = np.roll(m, tuple(rng.integers(-40, 41, 2)), (0, 1))
    elif kind == 2:
        cut = int(rng.integers(30, SIZE - 30))
        if rng.random() < 0.5:
            m[:cut] = 0
        else:
            m[:, cut:] = 0
    if kind == 3 or rng.random() < 0.3:
        cv2.circle(
            m, tuple(int(v) for v in rng.integers(0, SIZE, 2)), int(rng.integers(5, 50)), int(rng.random() < 0.8), -1
        )
    return cv2.GaussianBlur(m.astype(np.float32), (0, 0), 0.8) if rng.random() < 0.5 else m.astype(np.float32)


def _box_plane(rng: np.random.Generator, target: NDArray[np.bool_]) -> NDArray[np.float32]:
    ys, xs = np.nonzero(target)
    jitter = rng.normal(0, 0.04, 4) * max(int(np.ptp(xs)), int(np.ptp(ys)), 8)
    x0, x1 = np.clip([xs.min() + jitter[0], xs.max() + jitter[1]], 0, SIZE - 1)
    y0, y1 = np.clip([ys.min() + jitter[2], ys.max() + jitter[3]], 0, SIZE - 1)
    plane = np.zeros((SIZE, SIZE), np.float32)
    plane[int(min(y0, y1)) : int(max(y0, y1)) + 1, int(min(x0, x1)) : int(max(x0, x1)) + 1] = 1
    return plane


def _loss(logits: Tensor, quality: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    p = logits.sigmoid()
    overlap = (p * target).sum((1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (p.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
    hard = logits.detach() > 0
    t = target > 0.5
    iou = (hard & t).sum((1, 2, 3)) / (hard | t).sum((1, 2, 3)).clamp_min(1)
    q = F.binary_cross_entropy_with_logits(quality, iou, reduction="none")
    return (dice + 2.0 * bce + 0.1 * q).mean(), iou


def _update_average(average: ClickNet, net: ClickNet, decay: float) -> None:
    with torch.no_grad():
        for a, b in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if a.dtype.is_floating_point:
                a.lerp_(b, 1 - decay)
            else:
                a.copy_(b)


def _check_groups(cases: Path, groups: Sequence[str]) -> None:
    """A group that is not in the list would be left out silently, and the figure would lie."""
    try:
        known = {json.loads(line)["group"] for line in cases.read_text(encoding="utf-8").splitlines()}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read the cases {cases}: {error}") from None
    unknown = sorted(set(groups) - known)
    if unknown:
        raise InputError(f"--leave-out: no group {', '.join(unknown)} in {cases}; there are {', '.join(sorted(known))}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibisagent train segmenter``.

    Parameters
    ----------
    argv
        Options without the program's name; None takes those of the process.

    Returns
    -------
    int
        The exit code, 0.
    """
    p = argparse.ArgumentParser(prog="ibisagent train segmenter", description=__doc__.split("\n")[0])
    p.add_argument("--cases", type=Path, default=Path("data/mini/cases.jsonl"))
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--stage", choices=["base", "full"], default="full", help="base: procedural images only")
    p.add_argument("--init", type=Path, help="start from the averaged weights of another run")
    p.add_argument("--leave-out", nargs="*", default=[], help="groups that must not be seen")
    p.add_argument("--pseudo", type=Path, help="folder of LiteMedSAM pseudo masks (npz)")
    p.add_argument("--minutes", type=float, default=20.0)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--device", default="cpu")
    a = p.parse_args(argv)
    if a.threads:
        torch.set_num_threads(a.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(a.seed)
    _check_groups(a.cases, a.leave_out)
    diet = f"stage {a.stage}, without {' '.join(sorted(a.leave_out)) or 'nothing'}"
    a.out.mkdir(parents=True, exist_ok=True)
    pool = [] if a.stage == "base" else load_pool(a.cases, leave_out=a.leave_out, pseudo=a.pseudo)
    net = ClickNet().to(a.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = ClickNet().to(a.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=a.lr, weight_decay=0.01)
    done_seconds, samples_done, steps = 0.0, 0, 0
    last = a.out / "last.pt"
    if last.exists():
        state = torch.load(last, map_location="cpu", weights_only=True)
        if state.get("diet", diet) != diet:
            raise InputError(f"{last} belongs to another run ({state['diet']}), not to {diet}: choose another --out")
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done_seconds, samples_done, steps = state["seconds"], state["samples"], state["steps"]
        print(f"resumed at {done_seconds / 60:.1f} min, {samples_done} samples", file=sys.stderr)
    elif a.init:
        weights = torch.load(a.init, map_location="cpu", weights_only=True)["average"]
        net.load_state_dict(weights)
        average.load_state_dict(weights)
    else:
        average.load_state_dict(net.state_dict())
    net.train()
    budget = a.minutes * 60

    def save() -> None:
        """Write ``OUT/last.pt``: all that a resumed run needs, whole or not at all."""
        tmp = last.with_suffix(".tmp")
        state = {
            "diet": diet,
            "net": net.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "seconds": done_seconds,
            "samples": samples_done,
            "steps": steps,
        }
        torch.save(state, tmp)
        tmp.replace(last)

    data = SegmenterSamples(pool, Diet(), a.seed, length=10_000_000, start=samples_done)
    loader = DataLoader(data, batch_size=a.batch, shuffle=False, num_workers=1, prefetch_factor=4)
    clock, saved, shown = time.perf_counter(), time.perf_counter(), time.perf_counter()
    running: list[list[float]] = []
    log = (a.out / "log.jsonl").open("a")
    warm = min(60.0, budget * 0.04)
    low = fast_dtype(a.device) is torch.bfloat16
    for rgb, target in loader:
        rng = np.random.default_rng([a.seed, 1, samples_done])
        truth = target.numpy()
        image = image_planes(rgb.to(a.device))
        goal = target[:, None].float().to(a.device)
        clicks = _Clicks(len(truth))
        prior = torch.zeros(len(truth), 1, SIZE, SIZE)
        box = torch.zeros(len(truth), 1, SIZE, SIZE)
        ready = [False] * len(truth)
        for b in range(len(truth)):
            start = rng.random()
            if start < 0.15:
                prior[b, 0] = torch.from_numpy(_damaged(rng, truth[b]))
                ready[b] = rng.random() < 0.3
            elif start < 0.28:
                box[b, 0] = torch.from_numpy(_box_plane(rng, truth[b]))
                ready[b] = rng.random() < 0.7
        prior, box = prior.to(a.device), box.to(a.device)
        curve = []
        for step in range(int(rng.choice([3, 5, 6, 8], p=[0.2, 0.3, 0.3, 0.2]))):
            mask = (prior > 0.5).cpu().numpy()[:, 0]
            for b in range(len(truth)):
                if step == 0 and ready[b]:
                    continue
                click = jittered_click(mask[b], truth[b], rng)
                if click is not None:
                    clicks.add(b, click.x, click.y, click.positive)
            prompts = clicks.planes(
                image.cpu() if a.device != "cpu" else image,
                prior.cpu() if a.device != "cpu" else prior,
                box.cpu() if a.device != "cpu" else box,
            ).to(a.device)
            elapsed = done_seconds + time.perf_counter() - clock
            share = min(1.0, elapsed / budget)
            lr = a.lr * min(1.0, (elapsed + 1) / warm) * max(0.02, 0.5 * (1 + math.cos(math.pi * share)))
            for g in optimizer.param_groups:
                g["lr"] = lr
            with torch.autocast(torch.device(a.device).type, torch.bfloat16, enabled=low):
                logits, quality = net(
                    image.contiguous(memory_format=torch.channels_last),
                    prompts.contiguous(memory_format=torch.channels_last),
                )
            loss, iou = _loss(logits.float(), quality.float(), goal)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 3.0)
            optimizer.step()
            steps += 1
            _update_average(average, net, min(0.998, (steps + 1) / (steps + 20)))
            prior = logits.detach().float().sigmoid()
            if rng.random() < 0.1:
                prior = torch.zeros_like(prior)
            curve.append(float(iou.mean()))
        running.append([float(loss.detach()), curve[0], curve[min(2, len(curve) - 1)], curve[-1]])
        samples_done += len(truth)
        now = time.perf_counter()
        elapsed = done_seconds + now - clock
        if now - shown > 20:
            shown = now
            m = [float(v) for v in np.mean(running, 0)]
            running.clear()
            record = {
                "minutes": round(elapsed / 60, 2),
                "samples": samples_done,
                "steps": steps,
                "lr": round(lr, 6),
                "loss": round(m[0], 4),
                "iou_first": round(m[1], 4),
                "iou_third": round(m[2], 4),
                "iou_last": round(m[3], 4),
            }
            log.write(json.dumps(record) + "\n")
            log.flush()
            print(record, file=sys.stderr, flush=True)
        if now - saved > 90 or elapsed >= budget:
            done_seconds += now - clock
            clock = saved = now
            save()
        if elapsed >= budget:
            break
    log.close()
    export(average.cpu(), a.out / "model")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

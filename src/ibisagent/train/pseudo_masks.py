"""Self-distillation: masks that LiteMedSAM's own box prompts give on the training images.

How to run: ``python -m ibisagent.train.pseudo_masks --out runs/seg/pseudo``; then give the folder to
``ibisagent train segmenter --pseudo``. Boxes are those of Felzenszwalb regions, jittered, so that they
hold something; answers that LiteMedSAM itself doubts, and near copies, are dropped. Never reads the
val split.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ibisagent.errors import InputError
from ibisagent.metrics import iou
from ibisagent.segmenters.litemedsam import LiteMedSam

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``IMAGE_STEM.npz`` with ``masks``: ``bool`` (n, h, w), the image scaled so that its longest side is 256.

    Parameters
    ----------
    argv
        Options without the program's name; None takes those of the process.

    Returns
    -------
    int
        The exit code, 0. Files that are there already are kept.
    """
    import torch
    from skimage.segmentation import felzenszwalb

    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--cases", type=Path, default=Path("data/mini/cases.jsonl"))
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--boxes", type=int, default=12)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args(argv)
    a.out.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in a.cases.read_text().splitlines()]
    names = sorted({r["image"] for r in rows if r["split"] == "train"})
    model = LiteMedSam.load()
    for index, name in enumerate(names):
        out = a.out / f"{Path(name).stem}.npz"
        if out.exists():
            continue
        rng = np.random.default_rng([a.seed, index])
        bgr: Any = cv2.imread(str(a.cases.parent / name))
        if bgr is None:
            raise InputError(f"cannot read the image {a.cases.parent / name}")
        pixels = np.ascontiguousarray(bgr[..., ::-1])
        h, w = pixels.shape[:2]
        scale = 256 / max(h, w)
        sh, sw = round(h * scale), round(w * scale)
        small = cv2.resize(pixels, (sw, sh), interpolation=cv2.INTER_AREA)
        boxes = []
        for size in (100, 400, 1500):
            labels = felzenszwalb(small, scale=size, sigma=0.8, min_size=max(30, size // 3))
            areas = np.bincount(labels.ravel()).astype(float)
            for label in rng.choice(len(areas), min(len(areas), a.boxes), replace=False, p=None):
                ys, xs = np.nonzero(labels == label)
                jitter = rng.normal(0, 2, 4)
                box = [xs.min() + jitter[0], ys.min() + jitter[1], xs.max() + jitter[2], ys.max() + jitter[3]]
                if box[2] - box[0] > 6 and box[3] - box[1] > 6 and small[labels == label].mean() > 4:
                    boxes.append(np.clip(box, 0, [sw - 1, sh - 1, sw - 1, sh - 1]))
        order = rng.permutation(len(boxes))[: a.boxes]
        kept: list[np.ndarray] = []
        if len(order):
            logits, score = model.box_logits(
                model.embed(pixels), torch.tensor(np.array(boxes)[order], dtype=torch.float32)
            )
            for i in np.argsort(-score.numpy()):
                mask = logits[i].numpy() > 0
                mask[sh:], mask[:, sw:] = False, False
                if float(score[i]) > 0.6 and mask.sum() > 40 and all(iou(mask, k) < 0.8 for k in kept):
                    kept.append(mask)
        stack = np.stack([m[:sh, :sw] for m in kept]) if kept else np.zeros((0, sh, sw), bool)
        np.savez_compressed(out, masks=stack)
        print(f"{index + 1}/{len(names)} {name}: {len(kept)} masks", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

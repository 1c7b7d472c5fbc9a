"""The mini format: pictures and masks as PNG, and the ``cases.jsonl`` that ``ibisagent evaluate`` reads.

``OUT/cases.jsonl``, ``OUT/images/…``, ``OUT/masks/…``. Rows keep the corpus's own instruction, so that an evaluation
asks what the corpus asks; a given mask becomes ``initial_mask``. What the format cannot say: trajectories, their
messages and their loss spans. Rows of ``sft`` can be written too, as the cases that they were made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.corpus.converters.convert import Conversion
from ibisagent.io.files import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.engine.corpus.reader import Corpus

__all__ = ["write"]


def write(corpus: Corpus, table: str, split: str | None, out: Path, per_turn: bool) -> Conversion:
    """Write a table; called by :func:`~.convert.convert`. `per_turn` means nothing to cases."""
    path, count = out / "cases.jsonl", 0
    for folder in ("images", "masks"):
        (out / folder).mkdir(exist_ok=True)
    with atomic_write(path) as file:
        for row in corpus.rows(table, split):
            file.write((json.dumps(_case(corpus, row, out), ensure_ascii=False) + "\n").encode())
            count += 1
    return Conversion("mini", table, (path,), count, count)


def _case(corpus: Corpus, row: Mapping[str, Any], out: Path) -> dict[str, Any]:
    name = row.get("prompt_id") or row["trajectory_id"]
    image = f"images/{row['image_id'][:32]}.png"
    if not (out / image).is_file():
        with atomic_write(out / image) as file:
            file.write(corpus.image_png(row["image_id"]))
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:80]
    stem = f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"  # two names may look alike once they are safe
    return {
        "case_id": name,
        "image": image,
        "mask": _write_mask(corpus.target(row), f"masks/{stem}.png", out),
        "target": row["target"],
        "modality": row["modality"],
        "view": row["view"],
        "group": row["group"],
        "split": row["split"],
        "spacing_mm": corpus.image_row(row["image_id"])["spacing_mm"],
        "instruction": row["instruction"],
        "initial_mask": _write_mask(corpus.mask(row, row["initial_mask"]), f"masks/{stem}-given.png", out),
        "source": row["source"],
        "license": row["licence"],
    }


def _write_mask(mask: NDArray[np.bool_] | None, place: str, out: Path) -> str | None:
    from ibisagent.rendering.png import png_bytes

    if mask is None:
        return None
    with atomic_write(out / place) as file:
        file.write(png_bytes(mask.astype(np.uint8) * 255))
    return place

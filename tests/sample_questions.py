"""A small question-answering set in VQA-RAD's published layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

CLOSED = (("Is there a square?", "Yes"), ("Is there a disc?", "no"))
OPEN = ("What shines?", "the square")


def write_questions(folder: Path) -> Path:
    """Write the set: pictures of a bright square, two for training and one for the test.

    The questions :data:`CLOSED` are asked about each, :data:`OPEN` about the first and the last; so there are five
    training questions about two pictures, and three test questions about one.
    """
    rows: list[dict[str, Any]] = []
    (folder / "VQA_RAD Image Folder").mkdir(parents=True)
    for number in range(3):
        name = f"synpic{number}.png"
        pixels = np.full((40, 56, 3), 30, np.uint8)
        pixels[4 + 6 * number : 20 + 6 * number, 4 + 14 * number : 20 + 14 * number] = 220
        PIL.Image.fromarray(pixels).save(folder / "VQA_RAD Image Folder" / name)
        kinds = [(*pair, "CLOSED") for pair in CLOSED] + [(*OPEN, "OPEN")] * (number != 1)
        for question, answer, kind in kinds:
            phrase = "test_freeform" if number == 2 else "freeform"
            fields = {"image_name": name, "image_organ": "CHEST", "phrase_type": phrase}
            rows.append({**fields, "question": question, "answer": answer, "answer_type": kind})
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    return folder

"""A disc that the rule-based segmenter finds with one click, and a toy case list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chat_servers import chat_server, decode_uri, make_completion  # noqa: F401 fixtures
from ibisagent.geometry import Geometry
from ibisagent.types import Case, Image


@pytest.fixture
def disc_target() -> NDArray[np.bool_]:
    y, x = np.mgrid[:48, :64]
    return (x - 40) ** 2 + (y - 20) ** 2 <= 12**2


@pytest.fixture
def disc_image(disc_target: NDArray[np.bool_]) -> Image:
    gray = np.where(disc_target, 200, 40).astype(np.uint8)
    return Image(np.repeat(gray[..., None], 3, axis=2), Geometry.plane_2d(), source="/data/patient/disc.png")


@pytest.fixture
def disc_case(disc_image: Image) -> Case:
    return Case(disc_image, "Segment the disc.", case_id="disc", target="disc", group="shapes")


@pytest.fixture(scope="session")
def toy_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``cases.jsonl`` in the mini format: discs on gray, 64 x 80 pixels, two groups, two splits.

    The files of its ``val`` rows do not exist, so that whoever reads them fails.
    """
    import cv2

    root = tmp_path_factory.mktemp("toy")
    y, x = np.mgrid[:64, :80]
    rows = []

    def add(
        group: str, modality: str, number: int, split: str, targets: dict[str, tuple[int, int, int] | None]
    ) -> None:
        image = f"{group}{number}.png"
        pixels = np.full((64, 80), 20, np.uint8)
        for level, (target, disc) in enumerate(targets.items()):
            mask = None
            if disc is not None:
                mask = f"{group}{number}_{level}.png"
                inside = (x - disc[0]) ** 2 + (y - disc[1]) ** 2 <= disc[2] ** 2
                pixels[inside] = 110 + 60 * level
                if split == "train":
                    cv2.imwrite(str(root / mask), inside.astype(np.uint8) * 255)
            rows.append(
                {"case_id": f"{group}{number}__{level}", "image": image, "mask": mask, "target": target,
                 "modality": modality, "view": "axial", "group": group, "split": split, "label_source": "derived",
                 "spacing_mm": None, "source": "toy", "license": "CC0"}
            )  # fmt: skip
        if split == "train":
            cv2.imwrite(str(root / image), pixels)

    add("alpha", "CT", 0, "train", {"body": (30, 32, 24), "lung tumor": (36, 30, 9), "heart": None})
    add("alpha", "CT", 1, "train", {"body": (50, 32, 24)})
    add("beta", "MRI", 0, "train", {"brain": (40, 34, 22)})
    add("alpha", "CT", 9, "val", {"body": (40, 32, 24), "lung tumor": (44, 30, 8)})
    (root / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root / "cases.jsonl"

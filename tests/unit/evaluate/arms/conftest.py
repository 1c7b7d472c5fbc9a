"""A small case list, and a policy that looks: it clicks the middle of what is brightest, and stops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ibisagent.actions import DIALECTS, Action, Click, ClickAction, DiscardAction, TerminateAction, Turn
from ibisagent.evaluate.case_list import CaseList, open_case_list
from ibisagent.geometry import pixel_to_norm
from ibisagent.policies.conversation import Conversation
from ibisagent.policies.protocol import Reply, View

HEIGHT, WIDTH = 64, 80


class Looker:
    """Segments what is bright. It reads nothing, so that every instruction is the same to it."""

    name = "looker"
    dialect = DIALECTS["plain"]
    weights_sha256 = None

    def __init__(self) -> None:
        self.conversation = Conversation("plain")
        self.calls = 0

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        self.calls += len(views)
        return [Reply(self.dialect.format(Turn(thought="bright", action=self._action(view)))) for view in views]

    def _action(self, view: View) -> Action:
        gray = view.case.image.pixels[..., 0]
        y, x = (int(v.mean()) for v in np.nonzero(gray == gray.max()))
        if not view.episode.steps and view.mask is not None and not view.mask[y, x]:
            return DiscardAction()
        if view.mask is None:
            at = Click(x=pixel_to_norm(x, WIDTH), y=pixel_to_norm(y, HEIGHT), positive=True)
            return ClickAction(clicks=(at,))
        return TerminateAction(verdict="found")


@pytest.fixture
def looker() -> Looker:
    return Looker()


@pytest.fixture(scope="session")
def case_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six CT images with a bright heart and a grey liver, two MRI images with a brain; one row a target."""
    root = tmp_path_factory.mktemp("arms")
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rows = []

    def save(array: np.ndarray, name: str) -> str:
        PIL.Image.fromarray(array.astype(np.uint8)).save(root / name)
        return name

    def add(image: int, group: str, modality: str, split: str, discs: dict[str, tuple[int, int, int, int]]) -> None:
        pixels = np.full((HEIGHT, WIDTH), 20)
        inside = {name: (x - cx) ** 2 + (y - cy) ** 2 <= r * r for name, (cx, cy, r, _) in discs.items()}
        for name, (_, _, _, level) in discs.items():
            pixels[inside[name]] = level
        for number, name in enumerate(discs):
            rows.append(
                {"case_id": f"i{image}__{name}", "image": f"i{image}.png", "target": name, "modality": modality,
                 "mask": save(inside[name] * 255, f"i{image}_{number}.png"), "group": group, "view": "axial",
                 "split": split, "patient": f"p{image}"}
            )  # fmt: skip
        save(pixels, f"i{image}.png")

    for image in range(6):
        split = "train" if image > 3 else "val"
        shift = 3 * image
        add(image, "chest", "CT", split, {"heart": (20 + shift, 20, 10, 220), "liver": (30 + shift, 45, 14, 120)})
    for image in (6, 7):
        add(image, "head", "MRI", "val", {"brain": (40, 32, 16, 200)})
    path = root / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def cases(case_file: Path) -> CaseList:
    return open_case_list(case_file, split="val")

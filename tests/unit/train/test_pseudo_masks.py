"""Pseudo masks: train images only, doubtful answers and near copies dropped, done files kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skimage")

from ibisagent.train import pseudo_masks  # noqa: E402


class Boxes:
    """Answers a box with all of it, surely or not."""

    score = 0.9

    @classmethod
    def load(cls) -> Boxes:
        return cls()

    def embed(self, pixels: np.ndarray) -> None:
        assert pixels.dtype == np.uint8 and pixels.shape == (64, 80, 3)

    def box_logits(self, embedding: None, boxes: Any) -> tuple[Any, Any]:
        logits = torch.full((len(boxes), 256, 256), -1.0)
        for plane, (x0, y0, x1, y1) in zip(logits, boxes.int().tolist(), strict=True):
            plane[y0 : y1 + 60, x0 : x1 + 60] = 1.0  # beyond the image, too
        return logits, torch.full((len(boxes),), self.score)


def test_masks_are_written_for_every_train_image(
    toy_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pseudo_masks, "LiteMedSam", Boxes)
    assert pseudo_masks.main(["--cases", str(toy_cases), "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alpha0.npz", "alpha1.npz", "beta0.npz"]
    for path in tmp_path.iterdir():
        masks = np.load(path)["masks"]
        assert masks.dtype == np.bool_ and masks.shape[1:] == (205, 256) and len(masks) >= 1
        flat = masks.reshape(len(masks), -1).astype(float)
        union = flat.sum(1)[:, None] + flat.sum(1) - flat @ flat.T
        overlap = flat @ flat.T / union
        assert (overlap[~np.eye(len(masks), dtype=bool)] < 0.8).all()
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert pseudo_masks.main(["--cases", str(toy_cases), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""  # all there already


def test_what_the_network_doubts_is_dropped(toy_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Boxes, "score", 0.5)
    monkeypatch.setattr(pseudo_masks, "LiteMedSam", Boxes)
    assert pseudo_masks.main(["--cases", str(toy_cases), "--out", str(tmp_path), "--boxes", "3"]) == 0
    assert np.load(tmp_path / "beta0.npz")["masks"].shape == (0, 205, 256)

"""The simulated click, the damage, the loss; and the recipe from end to end at a toy size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ibisagent.segmenters.clicknet import MAX_CLICKS, SIZE, ClickNet  # noqa: E402
from ibisagent.segmenters.litemedsam import load_clicknet  # noqa: E402
from ibisagent.train import segmenter as recipe  # noqa: E402
from ibisagent.train.segmenter import load_checkpoint, main  # noqa: E402


def test_click_lists_keep_signs_apart_and_stop_when_full() -> None:
    clicks = recipe._Clicks(2)
    clicks.add(0, 3, 4, True)
    clicks.add(0, 5, 6, False)
    for _ in range(MAX_CLICKS + 3):
        clicks.add(1, 7, 8, True)
    assert clicks.counts.tolist() == [[1, MAX_CLICKS], [1, 0]]
    assert clicks.points[0, 0, 0].tolist() == [3, 4] and clicks.points[1, 0, 0].tolist() == [5, 6]


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_mask_is_a_mask_and_a_box_plane_is_a_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    target = (x - 100) ** 2 + (y - 140) ** 2 <= 40**2
    prior = recipe._damaged(rng, target)
    assert prior.shape == (SIZE, SIZE) and prior.dtype == np.float32 and prior.min() >= 0 and prior.max() <= 1
    box = recipe._box_plane(rng, target)
    ys, xs = np.nonzero(box)
    assert box[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()
    assert abs(xs.min() - 60) < 20 and abs(ys.max() - 180) < 20
    assert (box[target] == 1).mean() > 0.8


def test_the_loss_falls_with_the_overlap_and_learns_the_iou() -> None:
    target = torch.zeros(2, 1, 16, 16)
    target[:, :, :8] = 1
    right, wrong = (target * 2 - 1) * 8, (1 - target * 2) * 8
    quality = torch.zeros(2)
    best, iou = recipe._loss(right, quality, target)
    worst, none = recipe._loss(wrong, quality, target)
    assert iou.tolist() == [1, 1] and none.tolist() == [0, 0]
    assert best < 0.2 < 1 < worst
    half = right.clone()
    half[:, :, 4:8] = -8
    _, iou = recipe._loss(half, quality, target)
    assert iou.tolist() == [0.5, 0.5]
    good, bad = (recipe._loss(half, torch.full((2,), q), target)[0] for q in (0.0, 4.0))
    assert good < bad  # sigmoid(0) is the right estimate


def test_the_average_follows_the_network() -> None:
    torch.manual_seed(0)
    small = (4, 4, 4, 4, 4, 4)
    average, net = ClickNet(small), ClickNet(small)
    before = {k: v.clone() for k, v in average.state_dict().items()}
    net.stem[1].num_batches_tracked.fill_(7)
    recipe._update_average(average, net, 0.75)
    for key, value in average.state_dict().items():
        want = net.state_dict()[key]
        if value.dtype.is_floating_point:
            want = 0.75 * before[key] + 0.25 * want
        torch.testing.assert_close(value, want)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of some thousand parameters in place of the real one, at the real resolution."""
    monkeypatch.setattr(recipe, "ClickNet", lambda: ClickNet((4, 4, 4, 4, 4, 4)))


def run(folder: Path, cases: Path, *more: str) -> dict:
    assert main(["--cases", str(cases), "--out", str(folder), "--minutes", "0.02", "--batch", "1", *more]) == 0
    return torch.load(folder / "last.pt", weights_only=True)


@pytest.mark.usefixtures("tiny")
def test_the_recipe_writes_a_checkpoint_and_a_model_and_resumes(
    toy_cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = run(tmp_path / "base", toy_cases, "--stage", "base")
    assert base["samples"] >= 1 and base["steps"] >= 3 and base["seconds"] >= 1.2
    net = load_clicknet(tmp_path / "base" / "model")
    for key, value in load_checkpoint(tmp_path / "base" / "last.pt").state_dict().items():
        torch.testing.assert_close(net.state_dict()[key], value.half().float() if value.is_floating_point() else value)
    assert json.loads((tmp_path / "base" / "model" / "config.json").read_text()) == {"widths": [4] * 6}
    # again in the same folder: it goes on where it stopped
    assert "resumed" not in capfd.readouterr().err
    again = run(tmp_path / "base", toy_cases, "--stage", "base")
    assert "resumed" in capfd.readouterr().err
    assert again["samples"] > base["samples"] and again["steps"] > base["steps"] and again["seconds"] > base["seconds"]
    assert any(not torch.equal(again["net"][k], base["net"][k]) for k in base["net"])


@pytest.mark.usefixtures("tiny")
def test_the_full_stage_starts_from_another_run_s_average(
    toy_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    start = ClickNet((4, 4, 4, 4, 4, 4))
    torch.save({"average": start.state_dict()}, tmp_path / "init.pt")
    seen: list[list[str]] = []
    monkeypatch.setattr(
        recipe, "SegmenterSamples", lambda pool, *a, **k: seen.append(sorted(key for i in pool for key, _ in i.masks))
    )
    monkeypatch.setattr(recipe, "DataLoader", lambda *a, **k: [])  # no step: what it starts from comes out
    out = tmp_path / "full"
    options = [
        "--cases",
        str(toy_cases),
        "--out",
        str(out),
        "--init",
        str(tmp_path / "init.pt"),
        "--leave-out",
        "alpha",
    ]
    assert main(options) == 0
    assert seen == [["beta/brain"]]
    for key, value in load_clicknet(out / "model").state_dict().items():
        torch.testing.assert_close(value, start.state_dict()[key], atol=1e-3, rtol=1e-3)

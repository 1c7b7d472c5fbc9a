"""Nano's samples: where a click would have been right, what is learnt, and that all of it is warped alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from ibisagent.geometry import Geometry  # noqa: E402
from ibisagent.rendering import agent_overlay  # noqa: E402
from ibisagent.segmenters.rules import RulesSegmenter  # noqa: E402
from ibisagent.train.augment import draw_warp  # noqa: E402
from ibisagent.train.nano_data import NanoSamples, _forward, cell_shares, collate, soft_cells  # noqa: E402
from ibisagent.train.nano_expert import synthesize  # noqa: E402
from ibisagent.train.nano_scenes import SceneSource  # noqa: E402
from ibisagent.train.nano_trajectories import Scene, Trajectory  # noqa: E402
from ibisagent.train.vocabulary import build_processor  # noqa: E402
from ibisagent.types import Image  # noqa: E402
from sample_scenes import disc_scene  # noqa: E402

SIZE, GRID, SYSTEM = 64, 64, "Segment."
masks = arrays(np.bool_, (32, 24))


def scene(number: int, absent: bool = False) -> Scene:
    return disc_scene(number, absent, name="lung tumor")


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(["Segment the lung tumor in this CT scan."] * 3, size=300, image_tokens=4)


@pytest.fixture(scope="module")
def trajectories() -> list[Trajectory]:
    made = [synthesize(scene(i), RulesSegmenter(), np.random.default_rng([1, i])) for i in range(60)]
    wrong = [t for t in made if not all(t.learn)]
    given = [t for t in made if t.walk.initial_mask is not None and all(t.learn)]
    plain = [t for t in made if t.walk.initial_mask is None and all(t.learn)]
    assert len(wrong) >= 2 and len(given) >= 2 and len(plain) >= 4
    absent = synthesize(scene(0, absent=True), RulesSegmenter(), np.random.default_rng(0))
    return [*wrong[:2], *given[:2], *plain[:4], absent]


def samples(trajectories: list[Trajectory], processor: Any, **options: Any) -> NanoSamples:
    return NanoSamples(trajectories, processor, SYSTEM, seed=0, length=100, **{"group": 5, **options})


@settings(max_examples=150, deadline=None)
@given(masks, masks, st.booleans(), st.sampled_from([4, 8, 16]))
def test_no_weight_lies_outside_the_error_region(before: np.ndarray, target: np.ndarray, sign: bool, grid: int) -> None:
    region = (target & ~before) if sign else (before & ~target)
    weights = soft_cells(before, target, sign, grid)
    ys, xs = ((np.arange(grid) + 0.5) * 32 / grid).astype(int), ((np.arange(grid) + 0.5) * 24 / grid).astype(int)
    inside = region[np.ix_(ys, xs)].ravel()
    if weights is None:
        assert not inside.any()
        return
    assert weights.shape == (grid * grid,) and weights.dtype == np.float32
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert (weights > 0).tolist() == inside.tolist()


def test_the_deepest_cells_have_the_most_weight_and_equals_have_equals() -> None:
    target = np.zeros((64, 64), bool)
    target[8:25, 8:25] = True  # two squares of one size
    target[40:57, 40:57] = True
    weights = soft_cells(None, target, True, 64).reshape(64, 64)
    assert weights[16, 16] == weights.max() and weights[48, 48] == pytest.approx(weights[16, 16])
    assert weights[8, 8] < weights[12, 12] < weights[16, 16]
    assert soft_cells(target, target, True, 64) is None and soft_cells(target, target, False, 64) is None
    grown = np.zeros_like(target)
    grown[:32, :32] = True
    assert soft_cells(grown, target, False, 64).reshape(64, 64)[target].sum() == 0


def test_a_click_goes_where_its_pixel_goes() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        warp = draw_warp(rng, (SIZE, SIZE), SIZE, turn=8, flip=False, zoom=(0.92, 1.1), shift=0.05)
        spot = np.zeros((SIZE, SIZE), np.uint8)
        spot[18:23, 38:43] = 255
        moved = _forward(warp.map_x, warp.map_y, (40.0, 20.0, True))
        assert moved is not None and moved[2] is True
        ys, xs = np.nonzero(warp.image(spot) > 127)
        assert abs(moved[0] - xs.mean()) < 2 and abs(moved[1] - ys.mean()) < 2
        assert warp.image(spot)[int(moved[1]), int(moved[0])] > 127
    far = np.full((SIZE, SIZE), 500, np.float32)
    assert _forward(far, far, (40.0, 20.0, True)) is None


def test_without_augmentation_a_sample_is_the_recorded_run(trajectories: list[Trajectory], processor: Any) -> None:
    data = samples(trajectories, processor, augment=False)
    for t in trajectories:
        s = data.build(t, np.random.default_rng(0))
        shown = [t.walk.initial_mask, *t.walk.masks[:-1]]
        assert s.images.shape == (len(t.walk.masks), SIZE, SIZE, 3) and s.images.dtype == np.uint8
        for image, mask in zip(s.images, shown, strict=True):
            assert np.array_equal(image, agent_overlay(t.scene.image.pixels, mask))
        # the coordinates that are learnt are those of the right clicks, in their order
        cells = [
            (int(c[0] * GRID / SIZE), int(c[1] * GRID / SIZE))
            for c, ok in zip(t.clicks, t.learn, strict=True)
            if c and ok
        ]
        assert [tuple(divmod(int(s.ids[p]) - data.vocab, GRID))[::-1] for p in s.cell_at] == cells
        assert len(s.cell_weights) == len(cells)
        placeholder = processor.tokenizer.convert_tokens_to_ids("<image>")
        assert (s.ids == placeholder).sum() == 4 * len(s.images)
        assert not s.loss_mask[s.ids == placeholder].any()


def test_the_maps_are_the_target_and_what_each_image_shows(trajectories: list[Trajectory], processor: Any) -> None:
    data = samples(trajectories, processor, augment=False)
    for t in trajectories:
        s = data.build(t, np.random.default_rng(0))
        assert np.array_equal(s.target_map, cell_shares(t.scene.target))
        assert s.target_map.any() == (t.scene.target is not None)
        assert s.shown_maps.shape == (len(s.images), GRID * GRID) and s.shown_maps.dtype == np.uint8
        for shown, mask in zip(s.shown_maps, [t.walk.initial_mask, *t.walk.masks[:-1]], strict=True):
            assert np.array_equal(shown, cell_shares(mask))
    assert any(not np.array_equal(s.shown_maps[0], s.shown_maps[-1]) for s in (data.build(t, np.random.default_rng(0))
               for t in trajectories if len(t.walk.masks) > 1))  # fmt: skip


def test_a_cell_s_share_is_that_of_its_pixels() -> None:
    mask = np.zeros((128, 256), bool)
    mask[:2, :2] = True  # the left half of the first cell, which is 2 x 4 pixels
    shares = cell_shares(mask).reshape(GRID, GRID)
    assert shares[0, 0] == 128 and shares.sum() == 128
    assert not cell_shares(None).any() and (cell_shares(~np.zeros((64, 64), bool)) == 255).all()


def test_single_questions_stand_among_the_batches_of_a_group(
    trajectories: list[Trajectory], processor: Any, toy_cases: Path
) -> None:
    options: dict[str, Any] = {"group": 2, "max_batch_images": 6, "question_batches": 2, "questions": 3}
    t = trajectories[-1]
    large = Image(cv2.resize(t.scene.image.pixels, (256, 256)), Geometry.plane_2d(), "CT")  # as pictures are
    items = [replace(t, scene=replace(t.scene, image=large))]
    data = samples(items, processor, pictures=SceneSource(toy_cases), **options)
    batches = data[0]
    # two absent trajectories of one image each make one batch; the others are questions, one image a row
    assert sorted(len(b["input_ids"]) for b in batches) == [2, 6, 6]
    for b in batches:
        assert len(b["pixel_values"]) == len(b["input_ids"]) == len(b["target_maps"]) == len(b["shown_maps"])
    present = torch.cat([b["target_maps"] for b in batches]).any(1)
    assert 0 < present.sum() < len(present)


def test_wrong_actions_are_read_but_not_learnt(trajectories: list[Trajectory], processor: Any) -> None:
    data = samples(trajectories, processor)
    for t in trajectories[:2]:
        s = data.build(t, np.random.default_rng(1))
        text = processor.tokenizer.decode(s.ids)
        assert text.count("<|assistant|>") == len(t.learn)
        learnt = processor.tokenizer.decode(s.ids[s.loss_mask])
        assert learnt.count("<|end|>") == sum(t.learn) == len(t.learn) - 1
        assert learnt.count("<action>") == sum(t.learn)
        assert SYSTEM not in learnt and "shown in green" not in learnt
        # every coordinate stands in the conversation, one of them without being learnt
        coordinates = np.flatnonzero(s.ids >= data.vocab)
        assert len(coordinates) == sum(c is not None for c in t.clicks)
        assert len(s.cell_at) == len(coordinates) - 1 and s.loss_mask[s.cell_at].all()


def test_an_augmented_click_mostly_lies_in_the_warped_error_region(
    trajectories: list[Trajectory], processor: Any
) -> None:
    data = samples(trajectories, processor)
    inside, moved = [], 0
    for t in trajectories[:-1]:
        for seed in range(6):
            s = data.build(t, np.random.default_rng(seed))
            np.testing.assert_allclose(s.cell_weights.sum(1), 1, atol=1e-5)
            for at, weights in zip(s.cell_at, s.cell_weights, strict=True):
                # its own cell has 0.2 for certain; more says that the warped error region holds its centre
                own = weights[int(s.ids[at]) - data.vocab]
                assert own >= 0.2 - 1e-6
                inside.append(own > 0.2 + 1e-6)
            original = [int(c[1] * 64 / SIZE) * GRID + int(c[0] * 64 / SIZE) for c in t.clicks if c is not None]
            moved += original != [int(i) - data.vocab for i in s.ids[s.ids >= data.vocab]]
    assert len(inside) > 50 and np.mean(inside) > 0.9
    assert moved > 20


def test_thoughts_name_the_error_that_is_clicked_and_never_its_place(
    trajectories: list[Trajectory], processor: Any
) -> None:
    from ibisagent.actions import DIALECTS, ClickAction
    from ibisagent.engine.reasoning.terse import thought_text

    data = samples(trajectories, processor)
    for t in trajectories[:-1]:
        text = processor.tokenizer.decode(data.build(t, np.random.default_rng(0)).ids)
        before = t.walk.initial_mask
        for reply, after in zip(text.split("<|assistant|>")[1:], t.walk.masks, strict=True):
            turn = DIALECTS["plain"].parse(reply.split("<|end|>")[0])
            if isinstance(turn.action, ClickAction):
                kind = "start" if before is None else "missed" if turn.action.clicks[0].positive else "excess"
                # A place told before the click would give away what must be found by looking.
                assert turn.thought == thought_text(kind, "lung tumor")
            before = after


def test_an_absent_target_is_asked_for_unmistakably_and_refused(trajectories: list[Trajectory], processor: Any) -> None:
    data = samples(trajectories, processor)
    for seed in range(10):
        s = data.build(trajectories[-1], np.random.default_rng(seed))
        text = processor.tokenizer.decode(s.ids)
        user = text.split("<|user|>")[1].split("<|end|>")[0]
        assert any(way in user.lower() for way in ("lung tumor", "lung tumour", "tumor in the lung", "pulmonary tumor"))
        assert text.endswith("<answer>Absent: no lung tumor in this image</answer><|end|>")
        assert len(s.images) == 1 and s.cell_weights.shape == (0, GRID * GRID)


def test_a_trajectory_is_not_changed_by_being_drawn(trajectories: list[Trajectory], processor: Any) -> None:
    t = trajectories[0]
    masks = [None if m is None else m.copy() for m in t.walk.masks]
    before = (t.scene.image.pixels.copy(), masks, t.episode.model_dump_json())
    samples(trajectories, processor).build(t, np.random.default_rng(3))
    assert np.array_equal(t.scene.image.pixels, before[0]) and t.episode.model_dump_json() == before[2]
    assert all(a is b is None or np.array_equal(a, b) for a, b in zip(t.walk.masks, before[1], strict=True))


def test_a_group_is_cut_into_batches_within_the_budget(trajectories: list[Trajectory], processor: Any) -> None:
    data = samples(trajectories, processor, group=8, max_batch_images=6)
    batches = data[0]
    assert sum(len(b["input_ids"]) for b in batches) == 8 and len(batches) > 1
    for b in batches:
        rows, width = b["input_ids"].shape
        assert b["loss_mask"].shape == (rows, width) and b["loss_mask"].dtype == torch.bool
        assert len(b["pixel_values"]) <= 6 or rows == 1
        assert b["pixel_values"].shape[1:] == (SIZE, SIZE, 3) and b["pixel_values"].dtype == torch.uint8
        assert (b["input_ids"] == 3).sum() == 4 * len(b["pixel_values"])
        m = len(b["cell_at"])
        assert b["cell_row"].shape == (m,) and b["cell_weights"].shape == (m, GRID * GRID)
        assert (b["input_ids"][b["cell_row"], b["cell_at"]] >= data.vocab).all()


def test_collate_pads_on_the_right_and_keeps_the_rows_apart(trajectories: list[Trajectory], processor: Any) -> None:
    data = samples(trajectories, processor)
    parts = [data.build(t, np.random.default_rng(0)) for t in (trajectories[-1], trajectories[0])]
    b = collate(parts, pad_id=0)
    short, long = parts
    assert b["input_ids"].shape == (2, len(long.ids))
    assert b["input_ids"][0, : len(short.ids)].tolist() == short.ids.tolist()
    assert not b["input_ids"][0, len(short.ids) :].any() and not b["loss_mask"][0, len(short.ids) :].any()
    assert b["loss_mask"][1].tolist() == long.loss_mask.tolist()
    assert b["pixel_values"].numpy().tobytes() == short.images.tobytes() + long.images.tobytes()
    assert b["cell_row"].tolist() == [1] * len(long.cell_at) and b["cell_at"].tolist() == long.cell_at.tolist()


def test_a_group_depends_on_seed_and_number_only(trajectories: list[Trajectory], processor: Any) -> None:
    one, later = samples(trajectories, processor), samples(trajectories, processor, start=2)
    other = NanoSamples(trajectories, processor, SYSTEM, seed=1, length=100, group=5)
    for i in (3, 2):
        a, b = one[i], later[i - 2]
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    a, b = one[3], other[3]
    assert len(a) != len(b) or any(
        x["input_ids"].tolist() != y["input_ids"].tolist() for x, y in zip(a, b, strict=True)
    )

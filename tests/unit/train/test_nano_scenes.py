"""Scenes: from the train split and from phantoms, by seed; an absent name is foreign to its image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ibisagent import phantoms
from ibisagent.train.nano_scenes import NEVER_SHOWN, OPTIONAL, SceneSource, one_of_many
from ibisagent.train.nano_trajectories import Scene

MINI = Path(__file__).parents[3] / "data" / "mini" / "cases.jsonl"
COUNT = 40


@pytest.fixture(scope="module")
def source(toy_cases: Path) -> SceneSource:
    return SceneSource(toy_cases, seed=4, absent_share=0.4)


@pytest.fixture(scope="module")
def scenes(source: SceneSource) -> list[Scene]:
    return [source.scene(i) for i in range(COUNT)]


def test_scenes_have_one_size_and_a_target_or_none(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.pixels.shape == (256, 256, 3) and scene.image.pixels.dtype == np.uint8
        assert (scene.target is None) == scene.kind_of_case.startswith("absent/")
        if scene.target is not None:
            assert scene.target.shape == (256, 256) and scene.target.dtype == np.bool_
            assert 30 <= scene.target.sum() <= 0.95 * 256 * 256
            assert scene.kind_of_case.endswith(f"/{scene.name}")
        for other in scene.others:
            assert other.shape == (256, 256) and other.dtype == np.bool_


def test_shares_are_as_asked(scenes: list[Scene]) -> None:
    absent = [s.target is None for s in scenes]
    real = [s.kind_of_case.split("/")[0] in ("alpha", "beta") for s in scenes if s.target is not None]
    assert 0.2 < np.mean(absent) < 0.6  # 0.4
    assert 0.3 < np.mean(real) < 0.9  # 0.6


def test_a_real_target_lies_on_what_is_seen(scenes: list[Scene]) -> None:
    seen = [s for s in scenes if s.target is not None and s.kind_of_case in ("alpha/body", "beta/brain")]
    assert len(seen) >= 3
    for scene in seen:
        assert scene.image.pixels[scene.target].mean() > scene.image.pixels[~scene.target].mean() + 40
        assert scene.image.modality == {"a": "CT", "b": "MRI"}[scene.kind_of_case[0]]


def test_a_name_that_is_asked_as_absent_is_not_one_of_the_image_s_modality(
    source: SceneSource, scenes: list[Scene]
) -> None:
    optional = {name for names in (*OPTIONAL.values(), *NEVER_SHOWN.values()) for name in names}
    absent = [s for s in scenes if s.target is None]
    assert len(absent) >= 8
    for scene in absent:
        assert scene.image.modality not in source.homes[scene.name] or scene.name in optional


def test_a_foreign_name_is_none_of_the_picture_s(source: SceneSource) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        picture = source.picture(rng)
        assert not set(picture.missing) & set(picture.masks)
        for _ in range(8):
            name = source.foreign(rng, picture)
            assert name not in picture.masks
            assert picture.image.modality not in source.homes[name] or name in picture.missing


def test_a_structure_that_a_phantom_may_have_is_missing_only_where_its_mask_is() -> None:
    source = SceneSource.__new__(SceneSource)  # nothing but the phantoms
    source.homes = {"brain tumor": {"MRI"}, "breast lesion": {"MRI"}, "polyp": {"Endoscopy"}}
    source.kind_p = np.array([float(kind == "brain_mri") for kind in phantoms.KINDS])
    with_tumor = without = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rng.choice(phantoms.KINDS, p=source.kind_p)
        drawn = phantoms.generate("brain_mri", int(rng.integers(2**31)), 256)
        picture = source._phantom(np.random.default_rng(seed))
        assert np.array_equal(picture.image.pixels, drawn.pixels) and picture.asked in picture.masks
        names = {source.foreign(np.random.default_rng(k), picture) for k in range(40)}
        if "brain tumor" in drawn.masks:
            assert names == {"polyp", "breast lesion"}
            with_tumor += 1
        else:
            assert names == {"polyp", "breast lesion", "brain tumor"}
            without += 1
    assert with_tumor and without


def test_images_that_are_left_out_are_out_of_reach(toy_cases: Path, source: SceneSource) -> None:
    less = SceneSource(toy_cases, seed=4, leave_out={"alpha0.png"})
    assert set(source.images) - set(less.images) == {"alpha0.png"}
    assert not any(image == "alpha0.png" for members in less.by_target.values() for image, _ in members)


def test_val_images_are_never_read(toy_cases: Path, source: SceneSource, scenes: list[Scene]) -> None:
    # Their files do not exist, so drawing 40 scenes read none of them; and nothing points to them.
    assert scenes
    assert set(source.images) == {"alpha0.png", "alpha1.png", "beta0.png"}
    names = set(source._cache)
    assert names and not {n for n in names if n.startswith("alpha9")}


def test_on_mini_no_image_of_val_is_in_reach() -> None:
    rows = [json.loads(line) for line in MINI.read_text(encoding="utf-8").splitlines()]
    val = {row["image"] for row in rows if row["split"] == "val"} | {r["mask"] for r in rows if r["split"] == "val"}
    source = SceneSource(MINI)
    reachable = set(source.images) | {m for e in source.images.values() for m in e["masks"].values()}
    assert len(val) > 50 and len(reachable) > 200 and not val & reachable
    assert {image for members in source.by_target.values() for image, _ in members} <= set(source.images)


def test_a_scene_depends_on_seed_and_number_only(toy_cases: Path, source: SceneSource, scenes: list[Scene]) -> None:
    again = SceneSource(toy_cases, seed=4, absent_share=0.4)
    other = SceneSource(toy_cases, seed=5, absent_share=0.4)
    for i in (7, 3, 5):  # in any order
        a, b, c = scenes[i], again.scene(i), other.scene(i)
        assert np.array_equal(a.image.pixels, b.image.pixels) and a.name == b.name
        assert (a.target is None) == (b.target is None)
        assert a.target is None or np.array_equal(a.target, b.target)
        assert not np.array_equal(a.image.pixels, c.image.pixels)


def test_one_of_many_is_shown_in_the_whole_image_and_named_as_it_lies_there() -> None:
    source = SceneSource(MINI, seed=2, real_share=1.0, absent_share=0.0, instances=60)
    places = {"leftmost": (1, 1), "rightmost": (1, -1), "uppermost": (0, 1), "lowest": (0, -1)}
    seen = set()
    for number in range(60):
        picture = source.picture(np.random.default_rng([2, number]))
        if not one_of_many(picture.asked):
            continue
        seen.add(picture.asked)
        # No black frame around it: what the border cuts must look cut.
        edges = np.concatenate([picture.image.pixels[side].max(-1) for side in (0, -1)])
        assert edges.min() > 0
        centres = {n: np.argwhere(m).mean(0) for n, m in picture.masks.items() if one_of_many(n)}
        for name, centre in centres.items():
            axis, sign = places.get(name.split()[0], (0, 0))
            assert all(sign * centre[axis] <= sign * other[axis] for other in centres.values())
    assert {name.split()[0] for name in seen} == {*places, "largest"}

"""The leakage audit: groups, equal images, near-duplicates, and what is not a leak."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibisagent.engine.sources.audit import MAX_LISTED, ImageRecord, audit, audit_records
from ibisagent.engine.sources.fingerprint import (
    FINGERPRINT_LENGTH,
    MAX_BITS,
    Fingerprints,
    fingerprint,
    near_pairs,
)
from ibisagent.engine.sources.registry import open_source
from ibisagent.engine.sources.sample import Fault, LabelledImage, Sample
from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.hashing import pixel_hash
from ibisagent.phantoms import generate
from ibisagent.types import Image

MINI = Path(__file__).parents[4] / "data" / "mini"


def picture(seed: int, kind: str = "chest_ct") -> np.ndarray:
    return np.asarray(generate(kind, seed, 128).pixels)


def jpeg(pixels: np.ndarray, quality: int = 50) -> np.ndarray:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file))


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(PIL.Image.fromarray(pixels).resize((side, side)))


def record(pixels: np.ndarray, key: str, split: str, group: str | None = None, source: str = "s") -> ImageRecord:
    return ImageRecord(source, key, group, split, pixel_hash(pixels), fingerprint(pixels))


def test_copies_are_found_and_other_patients_are_not() -> None:
    pictures = [picture(seed) for seed in range(12)]
    copies = [jpeg(pictures[0]), resized(pictures[1], 90), np.clip(pictures[2] * 0.85 + 10, 0, 255).astype(np.uint8)]
    records = [record(p, f"train{n}", "train") for n, p in enumerate(pictures)]
    records += [record(p, f"copy{n}", "test") for n, p in enumerate(copies)]
    records += [record(picture(seed), f"test{seed}", "test") for seed in range(50, 60)]
    report = audit_records(records)
    assert {(p.first[1], p.second[1]) for p in report.near} == {(f"copy{n}", f"train{n}") for n in range(3)}
    assert report.num_near == 3 and not report.num_equal and not report.groups
    assert [p.distance for p in report.near] == sorted(p.distance for p in report.near)
    assert report == audit_records(reversed(records))
    with pytest.raises(InputError, match="3 near-duplicates in several splits") as caught:
        report.raise_if_leaking()
    assert "s/copy0 (test) = s/train0 (train)" in str(caught.value) and "\n" not in str(caught.value)


def test_equal_pixels_are_counted_once_and_not_as_similar() -> None:
    same, other = picture(1), picture(2)
    records = [record(same, f"a{n}", "train") for n in range(60)] + [record(same, f"b{n}", "test") for n in range(40)]
    records += [record(same, "v", "val"), record(other, "x", "train"), record(other, "y", "train")]
    report = audit_records(records)
    assert report.num_equal == 60 * 40 + 60 + 40 and len(report.equal) == MAX_LISTED and report.num_near == 0
    assert all(p.first[2] != p.second[2] and p.distance == 0 for p in report.equal)


def test_one_group_in_two_splits_is_one_leak_that_can_be_allowed() -> None:
    first = picture(1)
    records = [
        record(first, "p1/a", "train", "p1"),
        record(jpeg(first), "p1/b", "val", "p1"),
        record(first, "p1/c", "val", "p1"),
        record(picture(5), "p2/a", "train", "p2"),
        record(picture(6), "p2/b", "train", "p2"),
        record(picture(7), "p1/z", "test", "p1", source="other"),
    ]
    report = audit_records(records)
    assert report.leaks and not report.num_near and not report.num_equal
    assert [(g.source, g.group, g.splits) for g in report.groups] == [("s", "p1", {"train": 1, "val": 2})]
    assert [(f.code, f.item) for f in report.faults] == [("leak", "p1")]
    for allowed in (["s/p1"], ["s"]):
        fine = audit_records(records, allow_groups=allowed)
        assert not fine.leaks and not fine.faults and fine.groups[0].allowed
        fine.raise_if_leaking()
    assert audit_records(records, allow_groups=["s/p2", "other"]).leaks


def test_allowing_a_group_allows_no_copy_of_another_one() -> None:
    first = picture(1)
    records = [record(first, "a", "train", "p1"), record(first, "b", "val", "p2"), record(first, "c", "val", "p1")]
    report = audit_records(records, allow_groups=["s"])
    assert report.num_equal == 1 and report.leaks  # p1's own copy belongs to the allowed group
    assert [(f.code, f.item) for f in report.faults] == [("leak", "a")]


def test_mini_shares_patients_on_purpose_and_fails_until_allowed() -> None:
    report = audit(open_source(f"mini:{MINI}").samples())
    groups = {group.group: group.splits for group in report.groups}
    assert {"icbm152", "lung1", "dsb2018"} <= set(groups) and all(set(s) == {"train", "val"} for s in groups.values())
    assert report.num_equal == 0 and report.num_near == 0  # slices that look alike are of one group
    with pytest.raises(InputError, match=r"mini/icbm152 \(60 in train, 15 in val\)"):
        report.raise_if_leaking()
    audit(open_source(f"mini:{MINI}").samples(), allow_groups=["mini"]).raise_if_leaking()


class _Reader:
    def __init__(self, pixels: np.ndarray | None) -> None:
        self.pixels = pixels

    def __call__(self) -> LabelledImage:
        if self.pixels is None:
            raise InputError("gone")
        return LabelledImage(Image(self.pixels, Geometry.plane_2d()), {})


def test_samples_are_read_or_loaded_and_get_a_split() -> None:
    samples = [
        Sample("a", "s", _Reader(picture(1)), (), group="p1", split="train"),
        Sample("b", "s", _Reader(picture(1)), (), group="p2", split="test"),
        Sample("c", "s", _Reader(None), (), group="p3", split="test"),
        Fault("s", "d", "missing_image", "not there"),
    ]
    report = audit(samples)
    assert report.num_equal == 1 and report.unread == ("s/c",) and report.splits == {"test": 1, "train": 1}
    assert audit(samples, load=lambda sample: picture(ord(sample.key))).num_equal == 0
    free = [Sample(str(n), "s", _Reader(picture(3)), (), group="p" if n % 2 else None) for n in range(30)]
    report = audit(free, shares={"train": 0.5, "test": 0.5})
    assert not report.groups and report.num_equal > 0 and sum(report.splits.values()) == 30


def test_the_report_is_json_and_says_that_all_is_well() -> None:
    report = audit_records([record(picture(1), "a", "train", "p"), record(picture(2), "b", "test", "q")])
    assert not report.leaks and json.loads(json.dumps(report.to_json()))["leaks"] is False
    assert report.summary() == "no leak in 2 images of test, train"
    bad = audit_records([record(picture(1), "a\nb", "train"), record(picture(1), "c", "test")])
    made = json.loads(json.dumps(bad.to_json()))
    assert made["num_equal"] == 1 and made["equal"][0]["images"][1] == {"source": "s", "key": "c", "split": "test"}
    assert "\n" not in bad.summary() and not audit_records([]).leaks


def test_fingerprints_are_text_of_one_length_and_refuse_the_rest() -> None:
    assert len(fingerprint(picture(1))) == FINGERPRINT_LENGTH == 272
    flat = np.full((5, 7, 3), 9, np.uint8)
    black = record(flat, "a", "train"), record(np.full((9, 9, 3), 8, np.uint8), "b", "test")
    assert audit_records(black).num_near == 0  # two images of one gray have nothing to compare
    for wrong in (flat[..., 0], flat.astype(float), flat[:0]):
        with pytest.raises(ValueError, match="pixels must be"):
            fingerprint(wrong)
    with pytest.raises(ValueError, match="hexadecimal"):
        Fingerprints.parse(["ab"])


def test_the_difference_hash_is_the_one_that_others_use() -> None:
    imagehash = pytest.importorskip("imagehash")
    for kind in ("chest_ct", "histology", "fundus"):
        pixels = picture(3, kind)
        assert fingerprint(pixels)[:16] == str(imagehash.dhash(PIL.Image.fromarray(pixels)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.integers(1, 12))
def test_no_pair_within_the_limit_is_missed(seed: int, spread: int) -> None:
    """Against all pairs, on hashes that are one another's neighbours."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**63, 3).astype(np.uint64)
    levels = np.repeat(rng.integers(0, 256, (1, 128)).astype(np.uint8), 40, axis=0)
    bits = base[rng.integers(0, 3, 40)]
    for _ in range(spread):
        bits = bits ^ (np.uint64(1) << rng.integers(0, 64, 40).astype(np.uint64))
    prints = Fingerprints(bits, levels)
    i, j, _ = near_pairs(prints.take(np.arange(20)), prints.take(np.arange(20, 40)))
    expected = {
        (a, b) for a in range(20) for b in range(20) if bin(int(bits[a]) ^ int(bits[20 + b])).count("1") <= MAX_BITS
    }
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == expected and len(i) == len(expected)


def test_a_hundred_thousand_images_take_seconds() -> None:
    rng = np.random.default_rng(0)
    prints = Fingerprints(
        rng.integers(0, 2**63, 100_000).astype(np.uint64), rng.integers(0, 256, (100_000, 128)).astype(np.uint8)
    )
    again = prints.take(np.arange(0, 100_000, 10_000))
    i, j, distance = near_pairs(again, prints)
    assert i.tolist() == list(range(10)) and j.tolist() == list(range(0, 100_000, 10_000))
    assert np.abs(distance).max() < 1e-9

"""Phantoms as a data set: nothing drawn while listing, exact masks, and what is absent is absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ibisagent import phantoms
from ibisagent.engine.sources.phantoms import PhantomReader, may_lack
from ibisagent.engine.sources.registry import open_source
from ibisagent.errors import InputError
from ibisagent.train.nano_scenes import OPTIONAL


def test_listing_draws_nothing_and_kinds_take_turns(listed: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(phantoms, "generate", None)
    samples, faults = listed("phantoms:5?kinds=chest_ct,nuclei&seed=3")
    assert not faults
    assert [s.key for s in samples] == [
        "phantom/chest_ct/000000",
        "phantom/nuclei/000000",
        "phantom/chest_ct/000001",
        "phantom/nuclei/000001",
        "phantom/chest_ct/000002",
    ]
    assert {(s.source, s.split, s.group, s.names, s.licence) for s in samples} == {
        ("phantoms-3", "train", None, (), "Apache-2.0")
    }
    assert [s.modality for s in samples[:2]] == ["CT", "Fluorescence microscopy"]
    assert {s.split for s in listed("phantoms:2?split=test")[0]} == {"test"}


def test_seeds_of_data_sets_never_meet(listed: Any) -> None:
    def seeds(spec: str) -> set[tuple[str, int]]:
        return {(s.reader.kind, s.reader.seed) for s in listed(spec)[0]}

    assert len(seeds("phantoms:60")) == 60
    assert not seeds("phantoms:60?seed=0") & seeds("phantoms:60?seed=1")
    assert seeds("phantoms:22") < seeds("phantoms:60")


def test_a_sample_is_the_phantom(listed: Any, read: Any) -> None:
    samples, _ = listed(f"phantoms:{len(phantoms.KINDS)}?size=96")
    for sample in samples:
        found, again = read(sample), read(sample)
        drawn = phantoms.generate(sample.reader.kind, sample.reader.seed, 96)
        assert np.array_equal(found.image.pixels, drawn.pixels) and found.image.sha256 == again.image.sha256
        assert found.image.modality == sample.modality == drawn.modality
        assert list(found.masks) == sorted(found.masks)
        for name, mask in found.masks.items():
            if name != "cerebrospinal fluid":
                assert np.array_equal(mask, drawn.masks[name])


def test_fluid_means_what_it_means_in_mini() -> None:
    for seed in range(30):
        masks = PhantomReader("brain_mri", seed, 128)().masks
        if {"cerebrospinal fluid", "ventricles"} <= masks.keys():
            assert not (masks["cerebrospinal fluid"] & masks["ventricles"]).any()
            return
    raise AssertionError("no phantom with ventricles in 30")


def test_absent_structures_and_vocabulary_hold_on_drawings() -> None:
    source = open_source("phantoms:1")
    vocabulary = source.vocabulary()
    seen: dict[str, set[str]] = {}
    for kind in phantoms.KINDS:
        for seed in range(12):
            found = PhantomReader(kind, seed, 96)()
            assert set(found.absent) == set(may_lack(kind)) - set(found.masks)
            seen.setdefault(phantoms.MODALITIES[kind], set()).update(found.masks)
    assert {modality: set(names) for modality, names in vocabulary.items()} == seen
    assert PhantomReader("breast_mri", 0, 96)().absent[0] == "brain"


def test_the_table_is_nanos() -> None:
    assert {kind: set(may_lack(kind)) for kind in phantoms.KINDS if may_lack(kind)} == {
        kind: set(names) for kind, names in OPTIONAL.items()
    }


@pytest.mark.parametrize(
    "spec",
    ["0", "-3", "many", "3.5", "5?size=32", "5?size=9000", "5?kinds=ct", "5?seed=-1", "5?group=(x)"],
)
def test_wrong_specs(spec: str) -> None:
    with pytest.raises(InputError):
        open_source(f"phantoms:{spec}")

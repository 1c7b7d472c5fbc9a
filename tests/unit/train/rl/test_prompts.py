"""Prompts by number: of a corpus, of scenes; what cannot be opened is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from ibisagent.errors import InputError
from ibisagent.train.rl.prompts import open_prompts
from sample_corpus import LESION, LIVER, disc, write_sample_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts") / "corpus"
    write_sample_corpus(folder)
    return folder


def test_rows_of_a_corpus_are_cases_with_their_targets(corpus: Path) -> None:
    prompts = open_prompts(f"corpus:{corpus}")
    assert [prompts[i].key for i in range(len(prompts))] == ["toy-rl-0", "toy-rl-1", "toy-rl-2"]
    one, two, none = (prompts[i] for i in range(3))
    assert np.array_equal(one.target, LIVER) and np.array_equal(two.target, LESION) and none.target is None
    assert one.case.initial_mask is None and np.array_equal(two.case.initial_mask, disc(30, 18, 7))
    assert one.case.instruction == "Segment the liver." and one.case.image.pixels.shape == (40, 56, 3)
    assert [p.case.case_id for p in (one, two, none)] == ["toy-rl-0", "toy-rl-1", "toy-rl-2"]
    again = open_prompts(f"corpus:{corpus}?table=rl&split=train")
    assert np.array_equal(again[1].case.image.pixels, two.case.image.pixels)
    assert [p.key for p in map(open_prompts(f"corpus:{corpus}?table=test").__getitem__, range(2))] == [
        "toy-test-0",
        "toy-test-1",
    ]


def test_scenes_are_the_same_for_the_same_number(toy_cases: Path) -> None:
    spec = f"scenes:{toy_cases}?number=40&real_share=1&absent_share=0.5&given_share=0.9"
    one, other = open_prompts(spec, seed=3), open_prompts(spec, seed=3)
    assert len(one) == 40
    for i in (7, 0, 39):
        a, b = one[i], other[i]
        assert a.key == b.key == f"scene-{1_000_000 + i}" == a.case.case_id
        assert a.case.image.sha256 == b.case.image.sha256 and a.case.instruction == b.case.instruction
        assert (a.target is None) == (b.target is None)
        assert a.target is None or np.array_equal(a.target, b.target)
    assert any(one[i].case.image.sha256 != open_prompts(spec, seed=4)[i].case.image.sha256 for i in range(3))
    drawn = [one[i] for i in range(40)]
    assert 8 <= sum(p.target is None for p in drawn) <= 32
    given = [p for p in drawn if p.case.initial_mask is not None]
    assert given and all(p.target is not None for p in given)
    for p in drawn:
        assert p.target is None or (p.target.dtype == np.bool_ and p.target.shape == p.case.image.pixels.shape[:2])
    with pytest.raises(IndexError):
        one[40]
    with pytest.raises(IndexError):
        one[-1]


def test_an_offset_moves_the_numbers(toy_cases: Path) -> None:
    one = open_prompts(f"scenes:{toy_cases}?number=3&offset=100")
    other = open_prompts(f"scenes:{toy_cases}?number=3&offset=101")
    assert one[1].case.image.sha256 == other[0].case.image.sha256 and one[1].key == other[0].key == "scene-101"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "say corpus:FOLDER or scenes:CASES.jsonl"),
        ("corpus:", "say corpus:FOLDER"),
        ("cases.jsonl", "say corpus:FOLDER"),
        ("vqa:here", "say corpus:FOLDER"),
        ("corpus:{corpus}?rows=3", "corpus takes no rows; it takes table and split"),
        ("corpus:{corpus}?table=nothing", "nothing"),
        ("corpus:{corpus}?split=nowhere", "nowhere"),
        ("corpus:/not/there", "/not/there"),
        ("scenes:/not/there.jsonl", "/not/there.jsonl"),
        ("scenes:{cases}?share=1", "scenes takes no share; it takes number"),
        ("scenes:{cases}?number=many", "number must be a number, not 'many'"),
        ("scenes:{cases}?number=0", "number must be at least 1"),
        ("scenes:{cases}?real_share=1.5", "real_share must be from 0 to 1, not 1.5"),
        ("scenes:{cases}?given_share=nan", "given_share must be from 0 to 1"),
        ("scenes:{cases}?offset=-1", "offset must be at least 0"),
        ("scenes:{cases}?instances=-1", "instances must be at least 0"),
        ("scenes:{cases}?instances=nan", "instances must be at least 0"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(spec: str, reason: str, corpus: Path, toy_cases: Path) -> None:
    with pytest.raises(InputError) as error:
        open_prompts(spec.format(corpus=corpus, cases=toy_cases))
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_a_target_of_another_size_is_an_error(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: Any = open_prompts(f"corpus:{corpus}")
    monkeypatch.setattr(prompts._corpus, "target", lambda row: np.zeros((3, 3), bool))
    with pytest.raises(InputError, match=r"toy-rl-0: the target is not of the image's size"):
        prompts[0]

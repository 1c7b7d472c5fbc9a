"""Visual questions by number: of sets as they are published and of corpora; what cannot be opened is said in a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ibisagent.engine.questions import Questions, open_questions
from ibisagent.engine.sources.sample import Question
from ibisagent.errors import InputError
from ibisagent.io import read_image
from sample_corpus import ct_image, write_sample_corpus
from sample_questions import OPEN, write_questions


@pytest.fixture(scope="module")
def rad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "rad")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions") / "corpus"
    write_sample_corpus(folder)
    return folder


def keys(questions: Questions) -> list[str]:
    return [questions[i].key for i in range(len(questions))]


def test_questions_of_a_published_set(rad: Path) -> None:
    found = open_questions(f"vqa-rad:{rad}")
    assert keys(found) == [f"vqa-rad/synpic2.png/{i}" for i in range(3)]  # the test split
    one = found[2]
    assert one.question == Question(*OPEN, closed=False) and one.group == "vqa-rad/synpic2.png"
    assert np.array_equal(one.pixels, read_image(rad / "VQA_RAD Image Folder" / "synpic2.png").pixels)
    assert len(open_questions(f"vqa-rad:{rad}", split="train")) == 5
    assert len(open_questions(f"vqa-rad:{rad}?split=train")) == 5
    assert len(open_questions(f"vqa-rad:{rad}?disjoint=1&split=all")) == 8
    assert found.notes == [f"vqa-rad:{rad}: 3 visual questions about 1 images or patients"]


def test_questions_of_a_corpus(corpus: Path) -> None:
    found = open_questions(f"corpus:{corpus}?split=train&table=vqa")
    assert keys(found) == ["toy-vqa-0", "toy-vqa-1"]
    assert found[0].question == Question("Is there a cyst?", "yes", closed=True) and found[0].group == "toy/ct_1"
    assert np.array_equal(found[0].pixels, ct_image().pixels)


def test_a_number_draws_the_same_ones_every_time(rad: Path) -> None:
    spec = f"vqa-rad:{rad}?split=all&number=4"
    every = keys(open_questions(f"vqa-rad:{rad}?split=all"))
    some = keys(open_questions(spec))
    assert some == keys(open_questions(spec)) and len(some) == 4 and [k for k in every if k in some] == some
    assert keys(open_questions(f"vqa-rad:{rad}?split=all&number=99")) == every


def test_open_questions_can_be_left_out_and_it_is_said(rad: Path, corpus: Path) -> None:
    closed = open_questions(f"vqa-rad:{rad}?split=train").closed()
    assert len(closed) == 4 and all(closed[i].question.closed for i in range(4)) and closed.num_left_out == 1
    assert "1 open questions are left out, for which there is no reward" in closed.notes[1]
    rows = json.loads((rad / "VQA_RAD Dataset Public.json").read_text())
    (rad / "only_open_vqa_rad.json").write_text(json.dumps([row for row in rows if row["answer_type"] == "OPEN"]))
    with pytest.raises(InputError, match="all 1 questions are open, and only closed ones can be rewarded"):
        open_questions(f"vqa-rad:{rad / 'only_open_vqa_rad.json'}").closed()
    (rad / "only_open_vqa_rad.json").unlink()


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    rad = write_questions(tmp_path / "rad")
    (rad / "VQA_RAD Image Folder" / "synpic0.png").unlink()
    found = open_questions(f"vqa-rad:{rad}", "train")
    assert len(found) == 2 and "1 items cannot be used, the first: synpic0.png: no such image" in found.notes[1]
    (rad / "VQA_RAD Image Folder" / "synpic1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"synpic1\.png"):
        open_questions(f"vqa-rad:{rad}", "train")[0]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("questions.json", "is not a source; write KIND:PATH"),
        ("mini:cases.jsonl", "no visual questions; say one of corpus, vqa-rad, slake, pathvqa, mecovqa"),
        ("vqa-rad:{rad}?split=val", "no visual question of split 'val'; give split=, there is test (3), train (5)"),
        ("vqa-rad:{rad}?number=0", "number must be a whole number from 1 up, not '0'"),
        ("vqa-rad:{rad}?wrong=1", "no option 'wrong'"),
        ("vqa-rad:{rad}/nowhere", "no such file"),
        ("corpus:{corpus}", "no visual question of split 'test'; give split=, there is train (2)"),
        ("corpus:{corpus}?table=rl", "take split, number and table=vqa"),
        ("corpus:{corpus}/data", "no corpus in it"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(spec: str, reason: str, rad: Path, corpus: Path) -> None:
    with pytest.raises(InputError) as error:
        open_questions(spec.format(rad=rad, corpus=corpus))
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_a_corpus_without_questions(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rl").symlink_to(corpus / "data" / "rl")
    with pytest.raises(InputError, match=r"holds no visual questions \(table vqa\).*ibisagent synthesize"):
        open_questions(f"corpus:{tmp_path}")

"""VQA-RAD, SLAKE and PathVQA, on small files of their layouts."""

from __future__ import annotations

import csv
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ibisagent.engine.sources.audit import audit
from ibisagent.engine.sources.registry import open_source
from ibisagent.engine.sources.sample import Fault, Question, Sample
from ibisagent.errors import InputError


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 12, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).resize((60, 80)).save(file, "JPEG")
    return file.getvalue()


def put(path: Path, content: bytes | Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def read(spec: str) -> tuple[list[Sample], list[Fault]]:
    found = list(open_source(spec).samples())
    return [s for s in found if isinstance(s, Sample)], [f for f in found if isinstance(f, Fault)]


def rad_row(image: str, question: str, answer: Any, kind: str, phrase: str) -> dict[str, Any]:
    fields = {"qid": "1", "image_organ": "HEAD", "answer_type": kind, "phrase_type": phrase}
    return {**fields, "image_name": image, "question": question, "answer": answer}


@pytest.fixture
def rad(tmp_path: Path) -> Path:
    rows = [
        rad_row("synpic1.jpg", "Is there a  mass?", "Yes", "CLOSED ", "freeform"),
        rad_row("synpic1.jpg", "What organ is it?", "brain", "OPEN", "test_freeform"),
        rad_row("synpic2.jpg", "How many lesions?", 3, "OPEN", "para"),
        rad_row("synpic3.jpg", "Is it axial?", "no", "CLOSED", "test_para"),
    ]
    put(tmp_path / "VQA_RAD Dataset Public.json", rows)
    for n in (1, 2, 3):
        put(tmp_path / "VQA_RAD Image Folder" / f"synpic{n}.jpg", jpeg(n))
    return tmp_path


def test_vqa_rad(rad: Path) -> None:
    samples, faults = read(f"vqa-rad:{rad}")
    assert not faults
    assert [(s.key, s.split, s.group, len(s.questions)) for s in samples] == [
        ("synpic1.jpg#train", "train", "synpic1.jpg", 1),
        ("synpic1.jpg#test", "test", "synpic1.jpg", 1),
        ("synpic2.jpg", "train", "synpic2.jpg", 1),
        ("synpic3.jpg", "test", "synpic3.jpg", 1),
    ]
    assert samples[0].questions == (Question("Is there a mass?", "Yes", closed=True),)
    assert samples[2].questions == (Question("How many lesions?", "3", closed=False),)
    assert all(s.names == () and s.licence == "CC0 1.0" and s.source == "vqa-rad" for s in samples)
    made = pickle.loads(pickle.dumps(samples[0].reader))()
    assert made.masks == {} and made.image.pixels.shape == (80, 60, 3)
    assert [s.key for s in read(f"vqa-rad:{rad / 'VQA_RAD Dataset Public.json'}")[0]] == [s.key for s in samples]


def test_the_published_split_of_vqa_rad_leaks_and_can_be_made_disjoint(rad: Path) -> None:
    report = audit(read(f"vqa-rad:{rad}")[0])
    assert [g.group for g in report.groups] == ["synpic1.jpg"] and report.leaks
    samples, faults = read(f"vqa-rad:{rad}?disjoint=1")
    assert [(s.key, s.split) for s in samples] == [
        ("synpic1.jpg", "test"),
        ("synpic2.jpg", "train"),
        ("synpic3.jpg", "test"),
    ]
    assert not faults and not audit(samples).leaks  # what was asked for is no fault


def test_rows_and_images_that_are_wrong(rad: Path) -> None:
    rows = json.loads((rad / "VQA_RAD Dataset Public.json").read_text())
    rows += [rad_row("../x.jpg", "a", "b", "OPEN", ""), rad_row("gone.jpg", "a", "b", "OPEN", "")]
    rows += [rad_row("synpic2.jpg", " ", "b", "OPEN", ""), rad_row("synpic2.jpg", "a", None, "OPEN", ""), 7]
    put(rad / "VQA_RAD Dataset Public.json", rows)
    samples, faults = read(f"vqa-rad:{rad}")
    assert len(samples) == 4
    assert [(f.item, f.code) for f in faults] == [
        ("VQA_RAD Dataset Public.json row 7", "bad_row"),
        ("VQA_RAD Dataset Public.json row 8", "bad_row"),
        ("VQA_RAD Dataset Public.json row 9", "bad_row"),
        ("../x.jpg", "missing_image"),
        ("gone.jpg", "missing_image"),
    ]
    assert "has no question" in faults[0].message and "has no answer" in faults[1].message
    (rad / "VQA_RAD Image Folder" / "synpic2.jpg").write_bytes(b"\xff\xd8\xff damaged")
    with pytest.raises(InputError, match=r"synpic2\.jpg"):
        samples[2].reader()


@pytest.fixture
def slake(tmp_path: Path) -> Path:
    def row(image: int, lang: str, question: str, answer: str, kind: str = "OPEN") -> dict[str, Any]:
        fields = {"img_id": image, "img_name": f"xmlab{image}/source.jpg", "q_lang": lang, "location": "Lung"}
        return {**fields, "question": question, "answer": answer, "answer_type": kind, "modality": "X-Ray"}

    put(tmp_path / "train.json", [row(1, "en", "Is it a chest?", "Yes", "CLOSED"), row(1, "zh", "这是什么?", "肺")])
    put(tmp_path / "validate.json", [row(2, "en", "What is it?", "Lung")])
    put(tmp_path / "test.json", [row(3, "en", "Which side?", "Left, Right"), row(4, "zh", "哪里?", "肺")])
    for n in (1, 2, 3, 4):
        put(tmp_path / "imgs" / f"xmlab{n}" / "source.jpg", jpeg(n))
    return tmp_path


def test_slake(slake: Path) -> None:
    samples, faults = read(f"slake:{slake}")
    assert not faults
    assert [(s.key, s.split, s.modality) for s in samples] == [
        ("xmlab1/source.jpg", "train", "X-ray"),
        ("xmlab2/source.jpg", "val", "X-ray"),
        ("xmlab3/source.jpg", "test", "X-ray"),
    ]
    assert samples[0].questions == (Question("Is it a chest?", "Yes", closed=True),)
    assert not samples[1].questions[0].closed and samples[1].group == "xmlab2/source.jpg"
    assert sum(len(s.questions) for s in read(f"slake:{slake}?lang=zh")[0]) == 2
    assert sum(len(s.questions) for s in read(f"slake:{slake}?lang=all")[0]) == 5
    assert {s.group for s in read(f"slake:{slake}?group=(xmlab.)")[0]} == {"xmlab1", "xmlab2", "xmlab3"}
    assert [f.code for f in read(f"slake:{slake}?group=(case.)")[1]] == ["bad_row"] * 3
    with pytest.raises(InputError, match="one of en, zh, all"):
        open_source(f"slake:{slake}?lang=fr")
    (slake / "test.json").unlink()
    samples, faults = read(f"slake:{slake}")
    assert not faults and [s.split for s in samples] == ["train", "val"]


def path_rows(split: str) -> list[dict[str, str]]:
    return [
        {"image": f"{split}_0001", "question": "is it liver?", "answer": "yes"},
        {"image": f"{split}_0001", "question": "what is shown?", "answer": "fatty change"},
        {"image": f"{split}_0002", "question": "where are nuclei?", "answer": "in the centre"},
    ]


@pytest.fixture
def pathvqa(tmp_path: Path) -> Path:
    put(tmp_path / "qas" / "train" / "train_qa.json", path_rows("train"))
    put(tmp_path / "qas" / "test_qa.jsonl", "\n".join(json.dumps(row) for row in path_rows("test")).encode())
    table = io.StringIO()
    writer = csv.DictWriter(table, ["image", "question", "answer"])
    writer.writeheader()
    writer.writerows(path_rows("val"))
    put(tmp_path / "qas" / "val" / "val_qa.csv", table.getvalue().encode())
    for split in ("train", "val", "test"):
        for n in (1, 2):
            put(tmp_path / "images" / split / f"{split}_000{n}.jpg", jpeg(n + 10 * len(split)))
    return tmp_path


def test_pathvqa_lists(pathvqa: Path) -> None:
    samples, faults = read(f"pathvqa:{pathvqa}")
    assert not faults and [s.split for s in samples] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert samples[2].key == "val/val_0001.jpg" and [q.closed for q in samples[2].questions] == [True, False]
    assert samples[2].modality is None and samples[2].reader().image.height == 80
    (pathvqa / "images" / "test" / "test_0002.jpg").unlink()
    (pathvqa / "qas" / "train" / "train_qa.json").write_text('[{"question": "a", "answer": "b"}]')
    assert [(f.item, f.code) for f in read(f"pathvqa:{pathvqa}")[1]] == [
        ("train_qa.json row 1", "bad_row"),
        ("test/test_0002.jpg", "missing_image"),
    ]


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("a pickle was loaded",))


def test_pickles_are_refused_and_never_loaded(pathvqa: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pathvqa / "qas" / "train" / "train_qa.json").unlink()
    put(pathvqa / "qas" / "train" / "train_qa.pkl", pickle.dumps([_Trap()]))
    samples, faults = read(f"pathvqa:{pathvqa}")
    assert len(samples) == 4 and [f.code for f in faults] == ["unreadable"] and "pickle" in faults[0].message
    for path in (pathvqa / "qas").rglob("*_qa.*"):
        if path.suffix != ".pkl":
            path.unlink()
    with pytest.raises(InputError, match="is a pickle, which runs as a program"):
        open_source(f"pathvqa:{pathvqa}")
    assert "loaded" not in capsys.readouterr().out


def parquet(path: Path, rows: list[tuple[bytes | None, str | None, str]]) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": data, "path": None} for data, _, _ in rows]
    table = pa.table({"image": images, "question": [q for _, q, _ in rows], "answer": [a for _, _, a in rows]})
    pq.write_table(table, path, row_group_size=2)


def test_pathvqa_parquet(tmp_path: Path) -> None:
    one, two = jpeg(1), jpeg(2)
    parquet(
        tmp_path / "data" / "train-00000-of-00001.parquet",
        [(one, "a?", "yes"), (two, "b?", "cells"), (one, "c?", "no"), (None, "d?", "e"), (two, None, "f")],
    )
    parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", [(jpeg(3), "a?", "b")])
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [(one, "a?", "b"), (b"no image", "a?", "b")])
    samples, faults = read(f"pathvqa:{tmp_path}")
    assert [s.split for s in samples] == ["train", "train", "val", "test", "test"]
    assert [q.text for q in samples[0].questions] == ["a?", "c?"]
    assert [f.code for f in faults] == ["missing_image", "bad_row"]
    for sample, data in zip(samples[:4], (one, two, jpeg(3), one), strict=True):
        image = pickle.loads(pickle.dumps(sample.reader))().image
        assert np.array_equal(image.pixels, np.asarray(PIL.Image.open(io.BytesIO(data)))) and image.source == sample.key
    with pytest.raises(InputError) as caught:
        samples[4].reader()
    assert samples[4].key in str(caught.value) and "/tmp" not in str(caught.value)
    # the same picture in two splits is one group in two splits
    assert [g.splits for g in audit(samples[:4]).groups] == [{"test": 1, "train": 1}]
    (tmp_path / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 no")
    assert [f.code for f in read(f"pathvqa:{tmp_path}")[1]] == ["missing_image", "bad_row", "unreadable"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vqa-rad:{root}", "no such file as"),
        ("vqa-rad:{root}/x.json", "no such file"),
        ("slake:{root}", "no train.json"),
        ("pathvqa:{root}", "no qas/train"),
        ("pathvqa:{root}/no", "no such folder"),
        ("slake:{root}?wrong=1", "no option 'wrong'"),
        ("vqa-rad:{root}?target=liver", "no option 'target'"),
    ],
)
def test_where_there_is_no_data_set(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(open_source(spec.format(root=tmp_path)).samples())


def test_the_images_folder_must_be_there(rad: Path) -> None:
    (rad / "VQA_RAD Image Folder").rename(rad / "pictures")
    with pytest.raises(InputError, match="no such folder; put the images there"):
        open_source(f"vqa-rad:{rad}")
    assert len(read(f"vqa-rad:{rad}?images=pictures")[0]) == 4
    (rad / "VQA_RAD Dataset Public.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="not a list of questions"):
        read(f"vqa-rad:{rad}?images=pictures")

"""Every format, read back the way its own loader reads it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

import sample_corpus
from ibisagent.engine.corpus.converters import FORMATS, Conversion, convert
from ibisagent.engine.corpus.reader import Corpus
from ibisagent.engine.corpus.writer import shard_path, write_table
from ibisagent.episode import Rle, decode_mask
from ibisagent.errors import InputError
from ibisagent.io import CaseRow, load_case, read_cases
from ibisagent.metrics import iou

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    sample_corpus.write_sample_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return Corpus(folder)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``datasets.load_dataset`` without a network and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets.disable_progress_bars()

    def load(*args: Any, **options: Any) -> Any:
        return datasets.load_dataset(*args, cache_dir=str(tmp_path / "cache"), **options)

    return load


def images_of(messages: list[dict[str, Any]]) -> list[np.ndarray]:
    return [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]


def same_pictures(found: list[Any], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for picture, pixels in zip(found, expected, strict=True):
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), pixels)


# -- trl -------------------------------------------------------------------------------------


def trl_places(messages: list[dict[str, Any]]) -> int:
    """Places that trl's ``prepare_multimodal_messages`` fills; it refuses other roles and plain counts."""
    assert all(m["role"] in ("system", "user", "assistant") and isinstance(m["content"], list) for m in messages)
    assert all("image" not in part for m in messages for part in m["content"])  # such a part counts as filled
    return sum(part["type"] == "image" for m in messages for part in m["content"])


def test_trl_conversations(folder: Path, corpus: Corpus, tmp_path: Path, load: Callable[..., Any]) -> None:
    done = convert(folder, "trl", tmp_path / "out")
    assert (done.table, done.num_rows, done.num_examples) == ("sft", 4, 4)
    loaded = load(str(tmp_path / "out" / "sft"))
    assert list(loaded) == ["train"]
    for example, row in zip(loaded["train"], corpus.rows("sft"), strict=True):
        assert example["id"] == row["trajectory_id"] and example["target"] == row["target"]
        assert trl_places(example["messages"]) == len(example["images"])
        same_pictures(example["images"], images_of(corpus.messages(row)))
        assert example["loss_spans"] == row["loss_spans"]
        learnt = [n for n, message in enumerate(example["messages"]) if message["learn"]]
        assert learnt == [span["message"] for span in row["loss_spans"]]
        texts = [[p["text"] for p in m["content"] if p["type"] == "text"] for m in example["messages"]]
        assert texts == [[p["text"] for p in m["content"] if p["type"] == "text"] for m in row["messages"]]
    wrong = loaded["train"][1]["messages"][2]
    assert "Positive Point" in wrong["content"][0]["text"] and wrong["learn"] is False


def test_trl_prompts_and_completions(folder: Path, corpus: Corpus, tmp_path: Path, load: Callable[..., Any]) -> None:
    done = convert(folder, "trl", tmp_path / "out", per_turn=True)
    assert (done.num_rows, done.num_examples) == (4, 9)
    loaded = load("parquet", data_files=[str(path) for path in done.files])["train"]
    assert "messages" not in loaded.column_names  # trl looks for it first, and then learns every text
    correction = [example for example in loaded if example["id"].startswith("toy-1")]
    assert [example["id"] for example in correction] == ["toy-1-lesion#4", "toy-1-lesion#6", "toy-1-lesion#8"]
    full = corpus.messages(list(corpus.rows("sft"))[1])
    for example, end in zip(correction, (4, 6, 8), strict=True):
        (completion,) = example["completion"]
        assert completion["role"] == "assistant" and trl_places([completion]) == 0
        assert completion["content"][0]["text"] == full[end]["content"][0]["text"]
        assert trl_places(example["prompt"]) == len(example["images"])
        same_pictures(example["images"], images_of(full[:end]))


def test_trl_prompts_for_rl(folder: Path, corpus: Corpus, tmp_path: Path, load: Callable[..., Any]) -> None:
    convert(folder, "trl", tmp_path / "out", table="rl")
    loaded = load(str(tmp_path / "out" / "rl"))["train"]
    assert {"prompt", "images"} <= set(loaded.column_names) and "completion" not in loaded.column_names
    for example, row in zip(loaded, corpus.rows("rl"), strict=True):
        assert [m["role"] for m in example["prompt"]] == ["system", "user"]
        assert trl_places(example["prompt"]) == len(example["images"]) == 1
        same_pictures(example["images"], images_of(corpus.messages(row)))
        same_pictures([example["source_image"]], [corpus.image(row["image_id"])])
        assert example["target_mask"] == row["target_mask"]
        assert (example["initial_mask"] is None) == (row["initial_mask"] == -1)


def test_trl_questions(folder: Path, tmp_path: Path, load: Callable[..., Any]) -> None:
    convert(folder, "trl", tmp_path / "out", table="vqa")
    first = load(str(tmp_path / "out" / "vqa"))["train"][0]
    assert [m["learn"] for m in first["messages"]] == [False, True]
    assert first["messages"][1]["content"][0]["text"] == "yes"
    assert trl_places(first["messages"]) == len(first["images"]) == 1


# -- LLaMA-Factory ---------------------------------------------------------------------------


def llamafactory_examples(out: Path, name: str) -> Iterator[tuple[str, list[dict[str, str]], list[np.ndarray]]]:
    """(system, turns, images) as its ShareGPT converter makes them; what it would skip or refuse fails here."""
    entry = json.loads((out / "dataset_info.json").read_text())[name]
    assert entry["formatting"] == "sharegpt" and set(entry) <= {"file_name", "formatting", "columns", "tags", "split"}
    assert Path(entry["file_name"]).suffix in (".json", ".jsonl", ".parquet")
    columns = entry["columns"]
    for line in (out / entry["file_name"]).read_text(encoding="utf-8").splitlines():
        example = json.loads(line)
        messages, system = example[columns["messages"]], ""
        if messages[0]["from"] == "system":
            system, messages = messages[0]["value"], messages[1:]
        assert messages and len(messages) % 2 == 0, "it warns of an invalid message count and skips the example"
        assert [m["from"] for m in messages] == ["human", "gpt"] * (len(messages) // 2)
        paths = example[columns["images"]]
        text = "".join(m["value"] for m in messages)
        assert text.count("<image>") == len(paths) and "<video>" not in text and "<audio>" not in text
        images = [np.asarray(PIL.Image.open(out / path).convert("RGB")) for path in paths]  # media_dir: dataset_dir
        yield system, messages, images


def test_llamafactory_one_example_a_learnt_reply(folder: Path, corpus: Corpus, tmp_path: Path) -> None:
    done = convert(folder, "llamafactory", tmp_path)
    assert (done.num_rows, done.num_examples) == (4, 9)
    assert "mask_history" in done.notes[0]
    examples = list(llamafactory_examples(tmp_path, "ibisagent_sft_train"))
    expected = []
    for row in corpus.rows("sft"):
        full = corpus.messages(row)
        expected += [full[: span["message"] + 1] for span in row["loss_spans"]]
    assert len(examples) == len(expected)
    for (system, messages, images), full in zip(examples, expected, strict=True):
        assert system == full[0]["content"][0]["text"]
        # with mask_history the loss falls on the last reply alone: it must be the learnt one
        assert messages[-1]["value"] == full[-1]["content"][0]["text"]
        for pixels, mine in zip(images, images_of(full), strict=True):
            np.testing.assert_array_equal(pixels, mine)
    learnt = [messages[-1]["value"] for _, messages, _ in examples]
    assert not any("I click in the corner." in reply for reply in learnt)
    assert any("I click in the corner." in m["value"] for _, messages, _ in examples for m in messages[:-1])


def test_llamafactory_whole_conversations_say_what_is_lost(folder: Path, tmp_path: Path) -> None:
    done = convert(folder, "llamafactory", tmp_path, per_turn=False)
    assert done.num_examples == 4 and done.notes[0].startswith("1 of 4 trajectories hold replies")
    assert len(list(llamafactory_examples(tmp_path, "ibisagent_sft_train"))) == 4


def test_llamafactory_keeps_others_entries_and_writes_pictures_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "a.json"}}')
    convert(folder, "llamafactory", tmp_path)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert list(info) == ["mine", "ibisagent_sft_train"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")}
    assert len(before) == 7  # two bare, and every mask of a trajectory once
    first = (tmp_path / "ibisagent_sft_train.jsonl").read_bytes()
    convert(folder, "llamafactory", tmp_path, table="vqa")
    convert(folder, "llamafactory", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")} == before
    assert (tmp_path / "ibisagent_sft_train.jsonl").read_bytes() == first
    questions = list(llamafactory_examples(tmp_path, "ibisagent_vqa_train"))
    assert questions[0][1] == [
        {"from": "human", "value": "<image>Is there a cyst?"},
        {"from": "gpt", "value": "yes"},
    ]
    (tmp_path / "dataset_info.json").write_text("[1")
    with pytest.raises(InputError, match="not a JSON object"):
        convert(folder, "llamafactory", tmp_path)


def test_a_trailing_observation_is_cut_and_a_placeholder_in_a_text_is_refused(tmp_path: Path) -> None:
    runs = sample_corpus.sft_runs()[:1]
    row = runs[0].row
    row["messages"].append({"role": "user", "content": [{"type": "text", "text": "Done.", "mask": -1}]})
    write_table(
        shard_path(tmp_path, "images", "train", 0, 1), "images", [sample_corpus.image_row(runs[0].view.case.image)]
    )
    write_table(shard_path(tmp_path, "sft", "train", 0, 1), "sft", [row])
    convert(tmp_path, "llamafactory", tmp_path / "a", per_turn=False)
    ((_, messages, _),) = llamafactory_examples(tmp_path / "a", "ibisagent_sft_train")
    assert messages[-1]["from"] == "gpt"
    row["messages"][1]["content"][0]["text"] = "Segment the <image> liver."
    write_table(shard_path(tmp_path, "sft", "train", 0, 1), "sft", [row])
    with pytest.raises(InputError, match=r"toy-0-liver.*: a text holds '<image>'"):
        convert(tmp_path, "llamafactory", tmp_path / "b")
    assert not list((tmp_path / "b").glob("*.jsonl"))


# -- verl ------------------------------------------------------------------------------------


def verl_prompt(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompt with pictures in it, as ``RLHFDataset`` puts it together; its assertions are ours."""
    images, offset, messages = row["images"], 0, []
    for message in row["prompt"]:
        assert isinstance(message["content"], str)  # anything else is left without its pictures
        content: list[Any] = []
        for segment in (s for s in re.split("(<image>|<video>)", message["content"]) if s):
            assert segment != "<video>"
            if segment == "<image>":
                assert isinstance(images[offset], PIL.Image.Image)
                content.append(images[offset])
                offset += 1
            else:
                content.append(segment)
        messages.append({"role": message["role"], "content": content})
    assert offset == len(images)
    return messages


def test_verl_prompts(folder: Path, corpus: Corpus, tmp_path: Path, load: Callable[..., Any]) -> None:
    done = convert(folder, "verl", tmp_path / "out")
    loaded = load("parquet", data_files=str(done.files[0]))["train"]
    for index, (example, row) in enumerate(zip(loaded, corpus.rows("rl"), strict=True)):
        assert example["data_source"] == "ibisagent/toy" and example["ability"] == "segmentation"
        assert example["extra_info"]["index"] == index and example["extra_info"]["split"] == "train"
        assert example["extra_info"]["id"] == row["prompt_id"]
        prompt, mine = verl_prompt(example), corpus.messages(row)
        for message, expected in zip(prompt, mine, strict=True):
            assert message["role"] == expected["role"]
            for part, wanted in zip(message["content"], expected["content"], strict=True):
                if wanted["type"] == "text":
                    assert part == wanted["text"]
                else:
                    same_pictures([part], [wanted["image"]])
        assert example["reward_model"]["style"] == "rule"
        truth = json.loads(example["reward_model"]["ground_truth"])
        target = corpus.target(row)
        if target is None:
            assert truth == {"kind": "mask", "mask": None}
        else:  # a reward can be computed from the row alone
            assert iou(decode_mask(Rle.model_validate(truth["mask"])), target) == 1.0
        bare = np.asarray(PIL.Image.open(io.BytesIO(example["source_image"]["bytes"])).convert("RGB"))
        np.testing.assert_array_equal(bare, corpus.image(row["image_id"]))
        given = example["extra_info"]["initial_mask"]
        mask = corpus.mask(row, row["initial_mask"])
        if mask is None:
            assert given == ""
        else:
            np.testing.assert_array_equal(decode_mask(Rle.model_validate_json(given)), mask)


def test_verl_questions(folder: Path, tmp_path: Path, load: Callable[..., Any]) -> None:
    done = convert(folder, "verl", tmp_path / "out", table="vqa")
    first = load("parquet", data_files=str(done.files[0]))["train"][0]
    assert first["ability"] == "vqa" and len(verl_prompt(first)[0]["content"]) == 2
    assert json.loads(first["reward_model"]["ground_truth"]) == {"kind": "answer", "answer": "yes", "closed": True}


# -- mini ------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["test", "rl", "sft"])
def test_mini_cases(folder: Path, corpus: Corpus, tmp_path: Path, table: str) -> None:
    done = convert(folder, "mini", tmp_path, table=table)
    cases = read_cases(done.files[0])
    assert len(cases) == corpus.count(table) == done.num_examples
    for case, row in zip(cases, corpus.rows(table), strict=True):
        assert isinstance(case, CaseRow), case
        assert case.instruction == row["instruction"] and case.split == row["split"] and case.group == row["group"]
        image, target, initial = load_case(case, tmp_path)
        assert image.sha256 == row["image_id"]
        for found, wanted in ((target, corpus.target(row)), (initial, corpus.mask(row, row["initial_mask"]))):
            assert (found is None) == (wanted is None)
            if wanted is not None:
                np.testing.assert_array_equal(found, wanted)
    if table == "rl":
        assert load_case(cases[0], tmp_path)[0].geometry.spacing_mm == (0.7, 0.7)  # type: ignore[arg-type]


def test_mini_cases_are_evaluated(folder: Path, tmp_path: Path) -> None:
    from ibisagent.api import resolve_policy
    from ibisagent.evaluate import evaluate
    from ibisagent.segmenters.rules import RulesSegmenter

    done = convert(folder, "mini", tmp_path)
    targets: dict[str, Any] = {}
    policy = resolve_policy("oracle", targets=targets)
    results = evaluate(read_cases(done.files[0]), tmp_path, policy, RulesSegmenter(), targets=targets)
    assert [result.error for result in results] == ["", ""]
    assert results[0].iou is not None and results[0].iou > 0.8 and results[1].absent is True
    assert results[0].instruction == "Segment the liver."


# -- all -------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", FORMATS)
def test_equal_corpora_give_equal_bytes(folder: Path, tmp_path: Path, to: str) -> None:
    def written(out: Path) -> tuple[Conversion, dict[str, bytes]]:
        done = convert(folder, to, out)
        return done, {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    assert first[1] == second[1] and all(path.is_file() for path in first[0].files)
    assert not [name for name in first[1] if ".part" in name]


def test_one_split_only(folder: Path, tmp_path: Path) -> None:
    done = convert(folder, "verl", tmp_path, split="test", table="test")
    assert [path.name for path in done.files] == ["test-00000-of-00001.parquet"]
    assert pq.read_metadata(done.files[0]).num_rows == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "axolotl"}, "no format 'axolotl'; there is trl, llamafactory, verl, mini"),
        ({"to": "verl", "table": "sft"}, "verl has no use for the table 'sft'; give one of rl, test, vqa"),
        ({"to": "trl", "split": "val"}, "no split 'val' of 'sft'"),
    ],
)
def test_what_cannot_be_converted(folder: Path, tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        convert(folder, out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        convert(folder, "trl", tmp_path / "file" / "out")

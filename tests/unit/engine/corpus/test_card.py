"""The data card: it tells the truth of its folder, and makes the folder a data set that loads with no code."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml

import sample_corpus
from ibisagent.engine.corpus.card import write_card
from ibisagent.engine.corpus.figures import MAX_TARGETS, write_figures
from ibisagent.engine.corpus.front_matter import front_matter
from ibisagent.engine.corpus.markdown import cell, code_block, counts_table, number
from ibisagent.engine.corpus.reader import Corpus
from ibisagent.engine.corpus.statistics import statistics, summary
from ibisagent.engine.corpus.writer import shard_path, write_table
from ibisagent.errors import InputError

FACTS = {
    "name": "A tiny corpus: discs",
    "command": "ibisagent synthesize --config tiny.yaml",
    "config": {"seed": 0, "note": "```"},
    "segmenter": {"name": "rules", "weights sha256": None},
    "teacher": "template",
    "run": {"seconds": 12.345, "cases_per_second": 4.5},
    "drops": {"plain: low_final_iou": 3, "rejected_by_person": 1, "absent": {"too_long": 2}},
    "num_samples": 17,
    "faults": {"missing_mask": 2},
    "reasoning": {"asked": 100, "written": 120, "rejected": 20, "given_up": 1, "rejected: leak": 12},
    "audit": {"groups shared between splits": 0},
    "decisions": {"rejected by a person": 1},
    "limits": ["Discs are not organs."],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    sample_corpus.write_sample_corpus(folder)
    write_card(folder, FACTS)
    return folder


@pytest.fixture(scope="module")
def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def section(card: str, title: str) -> str:
    return card.split(f"\n{title}\n", 1)[1].split("\n## ", 1)[0]


def test_it_loads_with_no_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets.disable_progress_bars()
    corpus = Corpus(folder)
    for table in corpus.tables:
        loaded = datasets.load_dataset(str(folder), table, cache_dir=str(tmp_path))
        assert {split: len(rows) for split, rows in loaded.items()} == {
            split: corpus.count(table, split) for split in corpus.splits(table)
        }
    images = datasets.load_dataset(str(folder), "images", cache_dir=str(tmp_path))["train"]
    for row in images:
        assert isinstance(row["image"], PIL.Image.Image)
        np.testing.assert_array_equal(np.asarray(row["image"].convert("RGB")), corpus.image(row["image_id"]))
    sft = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))["train"]  # the default
    first = next(corpus.rows("sft"))
    assert sft[0]["messages"] == first["messages"] and sft[0]["masks"] == first["masks"]
    assert sft[0]["steps"] == first["steps"] and sft[0]["loss_spans"] == first["loss_spans"]


def test_shards_without_rows_load_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    out = tmp_path / "c"
    sample_corpus.write_sample_corpus(out)
    (full,) = (out / "data" / "rl").glob("*.parquet")
    full.rename(full.with_name("train-00000-of-00002.parquet"))
    write_table(shard_path(out, "rl", "train", 1, 2), "rl", [])
    write_table(shard_path(out, "rl", "val", 0, 1), "rl", [])
    write_table(shard_path(out, "test", "test", 0, 1), "test", [])
    write_card(out)
    loaded = datasets.load_dataset(str(out), "rl", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 3}
    head = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert "test" not in [config["config_name"] for config in head["configs"]]


def test_the_front_matter_is_yaml_that_names_every_table(card: str) -> None:
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == ["cc0-1.0"] and head["pretty_name"] == "A tiny corpus: discs"
    assert head["size_categories"] == ["n<1K"]
    configs = {config["config_name"]: config for config in head["configs"]}
    assert list(configs) == ["images", "sft", "rl", "test", "vqa"]
    assert configs["images"]["data_files"][0] == {"split": "test", "path": "data/images/test-*.parquet"}
    assert [name for name, config in configs.items() if config.get("default")] == ["sft"]


def test_licences_that_the_hub_does_not_know_are_other() -> None:
    def licence(*names: str) -> dict[str, Any]:
        counted = {"tables": {"sft": {"train": 20_000}}, "licences": {"a": {name: {"train": 1} for name in names}}}
        head: dict[str, Any] = yaml.safe_load(front_matter(counted, 'say "x": y').split("---")[1])
        return head

    assert licence("CC-BY-4.0", "CC0-1.0")["license"] == ["cc-by-4.0", "cc0-1.0"]
    assert licence("CC-BY-4.0", "ICBM permissive")["license"] == "other"
    assert licence()["license"] == "other" and licence()["pretty_name"] == 'say "x": y'
    assert licence()["size_categories"] == ["10K<n<100K"]


def test_it_stands_beside_the_paper(card: str) -> None:
    told = section(card, "## Trajectories")
    assert "| mean final IoU | 0.8147 | 0.8458 | 0.9427 |" in told
    assert "| mean length | 2.00 | 1.00 | 8.69 |" in told
    assert "| CT | liver | 1 | 0.8458 | 0.8458 | 0.8458 | 1.00 |" in told
    assert "| absent | 1 | 25.0% | – | – |" in told
    assert "| spleen | 1 | 100.0% |" in told and "| dermoscopy | spleen |" not in told
    assert "10 replies, of which 9 are learnt" in told


def test_it_says_how_it_was_made_and_what_was_left_out(card: str) -> None:
    made = section(card, "## How it was made")
    assert "ibisagent synthesize --config tiny.yaml" in made and "| seconds | 12.35 |" in made
    assert '````json\n{\n  "seed": 0' in made  # the block is not closed by the text in it
    assert "| num samples | 17 |" in made
    left_out = section(card, "## Left out")
    assert "| plain | low final iou | 3 |" in left_out and "| – | rejected by person | 1 |" in left_out
    assert "| absent | too long | 2 |" in left_out
    assert "| missing mask | 2 |" in left_out
    reasoning = section(card, "## Reasoning and its verifier")
    assert "| of those, rejected | 20 | 16.67% |" in reasoning and "| rejected: leak | 12 | 10.00% |" in reasoning
    assert "| groups shared between splits | 0 |" in section(card, "## Audit of the splits")
    assert "| rejected by a person | 1 |" in section(card, "## Decisions")
    assert "| toy | CC0-1.0 | 3 |" in section(card, "## Sources and their licences")


def test_it_is_plain_about_limits(card: str) -> None:
    assert card.count("ot for clinical use") >= 2
    limits = section(card, "## Limits")
    assert "Discs are not organs." in limits and "The expert knows the answer" in limits
    assert "drawn, not taken" not in limits


def test_every_picture_of_the_card_is_there(folder: Path, card: str) -> None:
    named = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", card)
    assert sorted(named) == sorted(f"figures/{path.name}" for path in (folder / "figures").iterdir())
    assert len(named) == 5
    for name in named:
        with PIL.Image.open(folder / name) as picture:
            assert picture.width >= 600 and not set(picture.info) & {"Software", "Creation Time", "date"}
            gray = np.asarray(picture.convert("L"))
        assert (gray < 200).mean() > 0.01  # something is drawn


def test_the_same_folder_gives_the_same_card(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    write_card(tmp_path, FACTS)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name
    both = json.loads((folder / "statistics.json").read_text())
    assert both["statistics"] == statistics(folder) and both["facts"]["run"]["seconds"] == 12.345


def test_a_partial_or_empty_corpus_has_a_card(tmp_path: Path) -> None:
    write_table(shard_path(tmp_path, "sft", "train", 0, 1), "sft", [])
    write_card(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "sft: trajectories" in text and "## Trajectories" not in text and not (tmp_path / "figures").exists()
    with pytest.raises(InputError, match="no such folder"):
        write_card(tmp_path / "nowhere")


def test_phantoms_are_called_drawn(tmp_path: Path) -> None:
    row = sample_corpus.image_row(sample_corpus.ct_image())
    write_table(shard_path(tmp_path, "images", "train", 0, 1), "images", [{**row, "source": "phantoms"}])
    write_card(tmp_path, {"drops": {"too_long": 2}, "faults": {}})
    text = (tmp_path / "README.md").read_text()
    assert "`phantoms` are drawn, not taken" in text and "| – | too long | 2 |" in text


def test_many_targets_and_hostile_names_are_drawn(tmp_path: Path) -> None:
    sample_corpus.write_sample_corpus(tmp_path / "c")
    counted = statistics(tmp_path / "c")
    scores = summary([0.8, 0.9])
    counted["sft"]["by_modality_and_target"] = [
        {
            "modality": f"modality {n % 12}",
            "target": "$x^2_{" + "ü" * n,
            "num": 100 - n,
            "num_present": 99 - n,
            "final_iou": scores,
        }
        for n in range(MAX_TARGETS + 20)
    ]
    assert len(write_figures(tmp_path / "f", counted)) == 5
    with PIL.Image.open(tmp_path / "f" / "targets.png") as picture:
        assert 1000 < picture.height < 2500


def test_texts_of_strangers_stay_in_their_cells() -> None:
    assert cell("a|b\n<b>*c*") == "a\\|b \\<b\\>\\*c\\*"
    assert cell(None) == "–" and cell(True) == "yes" and cell([1, "x"]) == "1, x" and cell({"a": 1}) == "a: 1"
    assert [number(v) for v in (1234567, 0.94271, 12.345, 1234.56, 3.0, float("nan"))] == [
        "1,234,567", "0.9427", "12.35", "1,234.6", "3", "–",
    ]  # fmt: skip
    assert cell(list(range(30))).endswith("9, and 20 more")
    assert code_block("``` x").startswith("````")
    table = counts_table("t", {"a": 6, "b": 3, "c": 1}, limit=1)
    assert table.splitlines()[2:] == ["| a | 6 | 60.0% |", "| 2 others | 4 | 40.0% |"]

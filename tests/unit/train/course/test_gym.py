"""The gym: a NanoVLM of another size, whole phrases as tokens, random clicks, and one cell from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")

from ibisagent.actions import DIALECTS, ClickAction, TerminateAction
from ibisagent.policies.nano_processor import load_processor
from ibisagent.train.course.base import scrambled
from ibisagent.train.course.cell import CellConfig, is_finished, run_cell
from ibisagent.train.course.config import GymConfig
from ibisagent.train.course.gym import PHRASES, gym_model
from ibisagent.train.tokens import Renderer
from ibisagent.train.vocabulary import build_processor, save_processor

REPLIES = [
    "<think>There is no mask yet. I see the heart and start in the upper left.</think>"
    "<action>Positive Point (0.1406, 0.0156)</action>",
    "<think>The mask covers more than the heart in the centre.</think><action>Negative Point (0.5156, 0.4844)</action>",
    "<think>The mask fits the heart.</think><action>Terminate</action><answer>Found: the mask shows the heart</answer>",
    "<think>I see no heart in this image.</think><action>Terminate</action><answer>Absent: no heart in this image"
    "</answer>",
]
TOY = GymConfig.PRESETS["toy"]


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(REPLIES, size=350, grid=32, image_tokens=16, image_size=128, phrases=PHRASES)


def says(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


def test_phrases_are_single_tokens_and_texts_come_back(processor: Any) -> None:
    renderer = Renderer(processor)
    for text in REPLIES:
        ids = renderer.reply(text)
        assert renderer.text(ids) == text
        assert len(ids) < 24
    assert [len(processor.tokenizer(phrase)["input_ids"]) for phrase in PHRASES] == [1] * len(PHRASES)


def test_a_small_processor_is_the_same_after_saving(processor: Any, tmp_path: Path) -> None:
    save_processor(processor, tmp_path)
    again = load_processor(tmp_path)
    picture = np.zeros((90, 200, 3), np.uint8)
    for one in (processor, again):
        made = one(images=[picture], text="<image>look", return_tensors="pt")
        assert made["pixel_values"].shape == (1, 3, 128, 128)
        assert int((made["input_ids"] == Renderer(one).image_id).sum()) == 16


def test_the_model_is_small_and_takes_what_the_processor_gives(processor: Any) -> None:
    config = GymConfig()
    model = gym_model(config, processor, 0)
    assert 0.4e6 < sum(p.numel() for p in model.parameters()) < 1.2e6
    made = processor(images=[np.zeros((128, 128, 3), np.uint8)], text="<image>look", return_tensors="pt")
    assert model.eval()(**made).logits.shape[-1] == len(processor.tokenizer)


def test_random_replies_keep_the_form_and_nothing_else() -> None:
    picture = {"type": "image", "image": np.zeros((4, 4, 3), np.uint8)}
    talk = [
        {"role": "system", "content": says("s")},
        {"role": "user", "content": [*says("Segment the heart"), picture]},
        {"role": "assistant", "content": says(REPLIES[0])},
        {"role": "user", "content": [*says("The new mask is shown in green."), picture]},
        {"role": "assistant", "content": says(REPLIES[2])},
    ]
    rng, dialect = np.random.default_rng(0), DIALECTS["plain"]
    places, verdicts = set(), set()
    for _ in range(60):
        made = scrambled(talk, "heart", 32, rng)
        assert [m["role"] for m in made] == [m["role"] for m in talk]
        assert made[1] is talk[1]
        first, last = (dialect.parse(made[i]["content"][0]["text"]) for i in (2, 4))
        assert isinstance(first.action, ClickAction) and isinstance(last.action, TerminateAction)
        assert "heart" in first.thought
        click = first.action.clicks[0]
        places.add((click.x, click.y))
        verdicts.add(last.action.verdict)
    assert len(places) > 50
    assert verdicts == {"found", "absent"}


def test_settings_that_decide_nothing_about_a_part_leave_its_folder_alone() -> None:
    one, other = GymConfig(), GymConfig(rl_updates=99, num_absent=5)
    assert one.corpora == other.corpora
    assert one.run_folder("sft", "sft", 0) == other.run_folder("sft", "sft", 0)
    assert one.run_folder("rl", "rl", 0) != other.run_folder("rl", "rl", 0)
    assert one.run_folder("sft", "sft", 0) != GymConfig(base_steps=7).run_folder("sft", "sft", 0)
    assert one.sha256 == GymConfig(work=Path("elsewhere"), results=Path("there")).sha256 != other.sha256


def test_cells_that_have_run_keep_their_names_beside_settings_that_came_later() -> None:
    done = json.loads((Path(__file__).parents[4] / "docs/results/ablation/sft-seed0.json").read_text())
    assert GymConfig().sha256 == done["config_sha256"]
    real = GymConfig(**GymConfig.PRESETS["mini"])
    assert real.sha256 != GymConfig().sha256 and real.corpora.name != GymConfig().corpora.name
    assert real.content["cases"] == "data/mini/cases.jsonl" and real.content["segmenter"] == "litemedsam"
    places = GymConfig(**GymConfig.PRESETS["places"])
    assert places.run_folder("reflection", "reflection", 0) == GymConfig().run_folder("reflection", "reflection", 0)
    assert places.run_folder("all", "rl", 0) != GymConfig().run_folder("all", "rl", 0)
    assert places.sha256 != GymConfig().sha256 and places.results != GymConfig().results


@pytest.mark.slow
def test_a_cell_from_end_to_end(tmp_path: Path) -> None:
    def config(row: str) -> CellConfig:
        return CellConfig(**TOY, row=row, work=tmp_path / "work", results=tmp_path / "results")

    assert run_cell(config("all")) == 0
    told = json.loads((tmp_path / "results" / "all-seed0.json").read_text())
    assert told["figures"]["iou"]["n"] == 6 and len(told["runs"]["iou"]) == len(told["runs"]["steps"]) == 6
    low, high = told["figures"]["iou"]["ci95"]
    assert 0 <= low <= told["figures"]["iou"]["value"] <= high <= 1
    assert told["figures"]["right_refusals"]["n"] == 2
    assert set(told["training"]) == {"base", "reflection", "all"}
    assert told["training"]["all"]["updates"] == 1
    assert set(told["seconds"]) == {"corpora", "base", "reflection", "all", "exam"}

    # What was made is used again, and what is finished stays.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*/model/model.safetensors")}
    assert len(before) == 3
    assert run_cell(config("reflection")) == 0
    again = json.loads((tmp_path / "results" / "reflection-seed0.json").read_text())
    assert "base" not in again["seconds"] and "reflection" not in again["seconds"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert is_finished(config("all"), "all", 0) and not is_finished(config("all"), "sft", 0)
    assert not is_finished(config("all").model_copy(update={"rl_updates": 2}), "all", 0)
    assert run_cell(config("all")) == 0

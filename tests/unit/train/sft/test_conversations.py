"""Rows of a corpus as conversations: what is learnt of them, what is drawn, what is left out."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.actions import DIALECTS
from ibisagent.engine.corpus.reader import Corpus
from ibisagent.errors import InputError
from ibisagent.rendering import agent_overlay
from ibisagent.train.sft.config import SftConfig
from ibisagent.train.sft.conversations import Conversations, open_conversations, snapped
from ibisagent.train.shards import Shards
from sample_corpus import LESION, LIVER, skin_image


def opened(corpus: Path, prompt: str | None = None, grid: int | None = None, **settings: Any) -> Conversations:
    config = SftConfig(model="m", corpus=(str(corpus),), out=Path("o"), **settings)
    return open_conversations(config, prompt, grid)[0]


def by_name(conversations: Conversations) -> dict[str, Any]:
    return {found.name: found for found in conversations}


def test_wrong_actions_are_not_learnt(corpus: Path) -> None:
    found = by_name(opened(corpus))
    assert {name: c.learn for name, c in found.items()} == {
        "toy-0-liver": (True, True),
        "toy-1-lesion": (False, True, True, True),
        "toy-2-cyst": (True, True, True),
        "toy-3-spleen": (True,),
    }
    assert by_name(opened(corpus, learn_wrong=True))["toy-1-lesion"].learn == (True,) * 4


def test_images_are_drawn_as_at_inference(corpus: Path) -> None:
    found = by_name(opened(corpus))["toy-1-lesion"]
    images = [part["image"] for m in found.messages for part in m["content"] if part["type"] == "image"]
    pixels = skin_image().pixels
    assert len(images) == 4  # at first, after the wrong click, after the undo, after the click
    for number in (0, 2):
        assert np.array_equal(images[number], agent_overlay(pixels, None))
    assert not np.array_equal(images[1], images[0])
    after = Corpus(corpus).mask(found.row, found.row["steps"][2]["mask"])
    assert after is not None and (after & LESION).sum() > 0.8 * LESION.sum()
    assert np.array_equal(images[3], agent_overlay(pixels, after))
    given = by_name(opened(corpus))["toy-2-cyst"]
    first = next(part["image"] for part in given.messages[1]["content"] if part["type"] == "image")
    assert np.array_equal(first, agent_overlay(Corpus(corpus).image(given.row["image_id"]), LIVER))


def test_reflection_and_scenarios_can_be_left_out(corpus: Path) -> None:
    assert set(by_name(opened(corpus, reflection=False))) == {"toy-0-liver", "toy-3-spleen"}
    assert set(by_name(opened(corpus, scenarios=("absent",)))) == {"toy-3-spleen"}
    with pytest.raises(InputError, match="nothing to learn"):
        opened(corpus, scenarios=("self_correction",), reflection=False)


def test_visual_questions_are_mixed_in_by_share(corpus: Path) -> None:
    found = opened(corpus, vqa_share=0.5, seed=3)
    asked = [c for c in found if c.name.startswith("toy-vqa")]
    assert len(found) == 8 and len(asked) == 4
    assert {c.name for c in asked} == {"toy-vqa-0", "toy-vqa-1"}
    assert asked[0].learn == (True,) and [m["role"] for m in asked[0].messages] == ["user", "assistant"]
    one = next(c for c in asked if c.name == "toy-vqa-0")
    assert one.messages[1]["content"] == [{"type": "text", "text": "yes"}]
    assert one.messages[0]["content"][0]["image"].shape == (40, 56, 3)


def test_patients_are_kept_out_whole(corpus: Path) -> None:
    seen = set()
    for seed in range(12):
        config = SftConfig(model="m", corpus=(str(corpus),), out=Path("o"), eval_share=0.5, seed=seed)
        try:
            learnt, measured = open_conversations(config)
        except InputError:
            continue  # both patients were drawn, or none
        kept = {c.row["group"] for c in learnt}
        assert measured is not None
        out = {c.row["group"] for c in measured}
        assert not kept & out and kept | out == {"ct_1", "skin_1"}
        seen.add(frozenset(kept))
    assert len(seen) > 1


def test_the_number_of_rows_can_be_limited_by_seed(corpus: Path) -> None:
    drawn = [tuple(by_name(opened(corpus, max_rows=2, seed=seed))) for seed in range(8)]
    assert all(len(names) == 2 for names in drawn) and len(set(drawn)) > 1
    assert drawn[3] == tuple(by_name(opened(corpus, max_rows=2, seed=3)))


def test_the_system_prompt_can_be_replaced(corpus: Path) -> None:
    (first, *_) = opened(corpus, prompt="Be brief.")
    assert first.messages[0] == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert first.messages[1]["role"] == "user"
    (bare, *_) = opened(corpus, prompt="")
    assert bare.messages[0]["role"] == "user"


def test_clicks_are_moved_to_cells_and_the_rest_stays(corpus: Path) -> None:
    plain, moved = by_name(opened(corpus)), by_name(opened(corpus, grid=64))
    dialect = DIALECTS["plain"]
    for name in plain:
        for one, other in zip(plain[name].messages, moved[name].messages, strict=True):
            if one["role"] != "assistant":
                assert one["content"][0] == other["content"][0]
                continue
            before, after = (dialect.parse(m["content"][0]["text"]) for m in (one, other))
            assert before.thought == after.thought and before.action.kind == after.action.kind
            for click, shifted in zip(
                getattr(before.action, "clicks", ()), getattr(after.action, "clicks", ()), strict=True
            ):
                assert (shifted.x * 64) % 1 == pytest.approx(0.5, abs=0.01)
                assert abs(click.x - shifted.x) <= 1 / 128 + 1e-4 and click.positive == shifted.positive


def test_replies_that_are_no_actions_are_not_moved() -> None:
    chat = [{"role": "assistant", "content": [{"type": "text", "text": "Positive Point (0.1, 2)"}]}]
    assert snapped(chat, 64) == chat


def test_they_go_through_a_pickle_without_their_caches(corpus: Path) -> None:
    found = opened(corpus)
    names = [c.name for c in found]
    sent = pickle.dumps(found)
    assert len(sent) < 3000
    assert [c.name for c in pickle.loads(sent)] == names


def test_a_span_of_a_part_of_a_reply_is_refused(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(corpus)
    real = Shards.row

    def shortened(self: Shards, path: Path, number: int) -> dict[str, Any]:
        row = real(self, path, number)
        return {**row, "loss_spans": [{**span, "end": span["end"] - 1} for span in row["loss_spans"]]}

    monkeypatch.setattr(Shards, "row", shortened)
    with pytest.raises(InputError, match="toy-0-liver: a loss span covers a part of a reply"):
        found[0]


def test_folders_without_trajectories_are_refused(tmp_path: Path, corpus: Path) -> None:
    import shutil

    with pytest.raises(InputError, match="no such folder"):
        opened(tmp_path / "none")
    shutil.copytree(corpus / "data" / "rl", tmp_path / "c" / "data" / "rl")
    with pytest.raises(InputError, match="no trajectories"):
        opened(tmp_path / "c")

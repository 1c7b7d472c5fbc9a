"""Visual questions among the runs of a batch: played in one reply, rewarded apart, tokens as everywhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ibisagent.engine.questions import open_questions  # noqa: E402
from ibisagent.errors import InputError  # noqa: E402
from ibisagent.rewards import load_rubric  # noqa: E402
from ibisagent.train.rl.advantages import episode_advantages, turn_advantages  # noqa: E402
from ibisagent.train.rl.batch import to_tensors, token_advantages  # noqa: E402
from ibisagent.train.rl.config import RlConfig  # noqa: E402
from ibisagent.train.rl.measures import measure  # noqa: E402
from ibisagent.train.rl.prompts import MixedPrompts, open_mix, open_prompts  # noqa: E402
from ibisagent.train.rl.question_run import Answered  # noqa: E402
from ibisagent.train.rl.run_state import Rollout  # noqa: E402
from sample_corpus import write_sample_corpus  # noqa: E402
from sample_questions import write_questions  # noqa: E402
from sample_rl import FOUND, INSIDE  # noqa: E402

SCRIPT = {
    "0/0": [INSIDE, FOUND],
    "0/1": ["nonsense", INSIDE, FOUND],
    "1/0": ["Yes, there is."],
    "1/1": ["no…"],
}


@pytest.fixture(scope="module")
def rad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "rad")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions") / "corpus"
    write_sample_corpus(folder)
    return folder


@pytest.fixture
def question(rad: Path) -> Any:
    return open_questions(f"vqa-rad:{rad}", "train")[0]


@pytest.fixture
def played(make_player: Callable[..., Any], scripted: Callable[..., Any], disc_prompt: Any, question: Any) -> Any:
    """Both kinds in one call: two siblings of a case, two of a question."""
    player, sampler = make_player(), scripted(SCRIPT)
    return player, sampler, player.play([disc_prompt, question], 2, sampler, seed=0)


def test_a_question_is_a_run_of_one_reply_without_a_tool(played: Any, renderer: Any, question: Any) -> None:
    player, sampler, runs = played
    assert [type(run) for run in runs] == [Rollout, Rollout, Answered, Answered]
    assert not any(sampler.script.values()) and player.segmenter.num_encoded == 1  # the case's image alone
    for run, reply in zip(runs[2:], ("Yes, there is.", "no"), strict=True):
        context = run.context
        assert run.prompt is question and run.reply == reply and context.num_turns == 1
        own = [i for i, mine in zip(context.ids, context.own, strict=True) if mine]
        assert renderer.text(own) == reply
        assert len(context.images) == 1 and np.array_equal(context.images[0], question.pixels)
        assert context.ids.count(renderer.image_id) == sum(renderer.image_lengths(context.images))
    assert runs[3].context.truncated and not runs[3].context.own[-1]  # an end that the model did not draw
    assert [r.breakdown.total for r in runs[2:]] == [1.0, 0.0] and runs[2].breakdown.parts == {"vqa": 1.0}


def test_it_is_shown_as_fine_tuning_shows_it(corpus: Path, renderer: Any, make_player: Any, scripted: Any) -> None:
    from ibisagent.train.sft.config import SftConfig
    from ibisagent.train.sft.conversations import open_conversations

    config = SftConfig(model="m", corpus=(str(corpus),), out=Path("o"), vqa_share=0.5)
    learnt = next(c for c in open_conversations(config)[0] if c.name == "toy-vqa-0")
    rendered = renderer.conversation(learnt.messages, learnt.learn)
    prompt = open_prompts(f"corpus:{corpus}?table=vqa")[0]
    (run,) = make_player().play([prompt], 1, scripted({"0/0": ["yes"]}), 0)
    assert run.context.ids == rendered.ids.tolist() and run.context.own == rendered.loss_mask.tolist()
    assert np.array_equal(run.context.images[0], rendered.images[0])


def test_both_kinds_share_a_batch_and_only_own_tokens_are_learnt(played: Any, renderer: Any) -> None:
    _, _, runs = played
    rubric = load_rubric("ibis")
    whole = episode_advantages([r.breakdown.total for r in runs], 2)
    assert whole[2] > 0 > whole[3]
    turns = turn_advantages([rubric.turn_rewards(r.breakdown) for r in runs], 2)
    assert all(len(turn) == 0 or not turn.any() for turn in turns[2:])  # one reply: its run's advantage says it all
    advantages = token_advantages(runs, whole, turns, 0.5)
    batch = to_tensors(runs, advantages, renderer)
    assert batch["num_images"] == [2, 3 - 1, 1, 1] and len(batch["pixel_values"]) == 6
    learnt = (batch["tool_mask"] * batch["completion_mask"]).sum(1).tolist()
    assert learnt == [sum(run.context.own) for run in runs]
    for row in (2, 3):
        own = batch["tool_mask"][row].bool()
        assert (batch["advantages"][row][own] == float(whole[row])).all() and not batch["advantages"][row][~own].any()


def test_figures_of_both_kinds_stay_apart(played: Any) -> None:
    player, _, runs = played
    mixed, alone = measure(runs, player.rubric, 2), measure(runs[:2], player.rubric, 2)
    assert mixed["reward/vqa"] == 0.5 and mixed["questions"] == 0.5 and mixed["groups_alike"] == 0.0
    both = set(mixed) - {"reward/vqa", "questions", "truncated"}
    assert {n: mixed[n] for n in both} == pytest.approx({n: alone[n] for n in both}, nan_ok=True)
    assert math.isnan(alone["reward/vqa"]) and alone["questions"] == 0.0
    asked = measure(runs[2:], player.rubric, 2)
    assert asked["reward/vqa"] == 0.5 and math.isnan(asked["reward"]) and math.isnan(asked["failed"])


def test_prompts_are_mixed_by_share_and_none_is_left_out(corpus: Path, rad: Path) -> None:
    specs = (f"corpus:{corpus}", f"vqa-rad:{rad}", f"corpus:{corpus}?table=vqa")
    every = open_mix(specs)
    names = [every[i].key for i in range(len(every))]
    assert names[:3] == ["toy-rl-0", "toy-rl-1", "toy-rl-2"] and len(names) == 8 and names[7] == "toy-vqa-0"
    assert [type(every[i]).__name__ for i in (2, 3)] == ["RlPrompt", "VisualQuestion"]
    assert any("1 open questions are left out" in note for note in every.notes)
    for share, sizes in ((0.25, (15, 5)), (0.5, (5, 5)), (0.8, (3, 12))):
        mixed = open_mix(specs, share)
        assert (mixed.num_cases, mixed.num_questions) == sizes
        times = Counter(mixed[i].key for i in range(len(mixed)))
        assert set(times) == set(names) and max(times.values()) <= -(-max(sizes) // 3)
    with pytest.raises(IndexError):
        every[8]


@pytest.mark.parametrize(
    ("specs", "share", "reason"),
    [
        (("corpus:{corpus}",), 0.5, "--vqa-share mixes two kinds of --prompts; there are no visual questions"),
        (("vqa-rad:{rad}",), 0.5, "there are no segmentation prompts"),
        (("vqa-rad:{rad}?split=val",), None, "no visual question of split 'val'"),
        (("slake:{rad}",), None, "no train.json"),
    ],
)
def test_what_cannot_be_mixed_is_said(
    specs: tuple[str, ...], share: float | None, reason: str, corpus: Path, rad: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        open_mix([spec.format(corpus=corpus, rad=rad) for spec in specs], share)


def test_one_place_is_written_as_ever_and_several_are_a_list() -> None:
    one = RlConfig(out=Path("o"), prompts="corpus:a")  # type: ignore[arg-type]  # as YAML has it
    assert one.prompts == ("corpus:a",) and one.what_is_learnt["prompts"] == "corpus:a"
    two = RlConfig(out=Path("o"), prompts=("corpus:a", "slake:b"), vqa_probe="slake:b")
    assert two.what_is_learnt["prompts"] == ["corpus:a", "slake:b"] and "vqa_probe" not in two.what_is_learnt
    assert len(MixedPrompts([], [])) == 0

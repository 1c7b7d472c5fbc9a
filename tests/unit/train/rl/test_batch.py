"""Rollouts as tensors, against tensors written by hand; whose tokens get which advantage."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ibisagent.errors import PolicyError  # noqa: E402
from ibisagent.train.rl.advantages import turn_advantages  # noqa: E402
from ibisagent.train.rl.batch import to_tensors, token_advantages, trimmed  # noqa: E402
from ibisagent.train.rl.contexts import Context  # noqa: E402
from sample_rl import ABSENT, FOUND, INSIDE, OUTSIDE  # noqa: E402

IMAGE, PAD, END = 9, 0, 8
N = 7.0  # for "no number"


class Stub:
    """A renderer with two placeholders an image."""

    image_id, pad_id = IMAGE, PAD

    def image_inputs(self, images: list[Any]) -> dict[str, Any]:
        return {"pixel_values": torch.tensor([[float(image.flat[0])] for image in images])}

    def image_lengths(self, images: list[Any]) -> list[int]:
        return [2] * len(images)


class Grids(Stub):
    """The same with Qwen's grids."""

    def image_inputs(self, images: list[Any]) -> dict[str, Any]:
        return super().image_inputs(images) | {"image_grid_thw": torch.tensor([[1, 2, 4]] * len(images))}


def picture(value: int) -> Any:
    return np.full((2, 2, 3), value, np.uint8)


def rollout(context: Context, excluded: str | None = None) -> Any:
    return SimpleNamespace(context=context, breakdown=SimpleNamespace(excluded=excluded))


def two() -> list[Any]:
    """[7 I I | 20 8 | 6 I I | 21 22 (cut) 8] and [7 5 I I | 23 8]."""
    one = Context("0/0", [7, 9, 9], [False] * 3, [-1] * 3, [picture(1)], 3)
    one.reply([20, END], True, END, [-0.5, -0.25])
    one._shown([6, 9, 9], [picture(2)])
    one.reply([21, 22], False, END)
    other = Context("0/1", [7, 5, 9, 9], [False] * 4, [-1] * 4, [picture(3)], 4)
    other.reply([23, END], True, END)
    return [rollout(one), rollout(other)]


def test_tensors_are_those_written_by_hand() -> None:
    runs = two()
    values = token_advantages(runs, np.array([1.5, -1.5], np.float32), None, 0.5)
    batch = to_tensors(runs, values, Stub())
    want = {
        "prompt_ids": [[0, 7, 9, 9], [7, 5, 9, 9]],
        "prompt_mask": [[0, 1, 1, 1], [1, 1, 1, 1]],
        "completion_ids": [[20, 8, 6, 9, 9, 21, 22, 8], [23, 8, 0, 0, 0, 0, 0, 0]],
        "completion_mask": [[1] * 8, [1, 1, 0, 0, 0, 0, 0, 0]],
        # What the model drew; the end after 22 is not its own.
        "tool_mask": [[1, 1, 0, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0, 0, 0]],
        "advantages": [[1.5, 1.5, 0, 0, 0, 1.5, 1.5, 0], [-1.5, -1.5, 0, 0, 0, 0, 0, 0]],
        "sampling_per_token_logps": [[-0.5, -0.25, N, N, N, N, N, N], [N] * 8],
        "pixel_values": [[1], [2], [3]],
    }
    assert {name: batch[name].nan_to_num(N).tolist() for name in want} == want
    assert batch["num_images"] == [2, 1] and set(batch) == {*want, "num_images"}


def test_types_of_tokens_are_told_where_the_model_places_images_in_a_grid() -> None:
    runs = two()
    batch = to_tensors(runs, token_advantages(runs, np.zeros(2, np.float32), None, 0.5), Grids())
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    assert torch.equal(batch["mm_token_type_ids"], (ids == IMAGE).long())
    assert batch["mm_token_type_ids"].sum() == 6


def test_columns_that_are_padding_in_all_rows_are_cut_away() -> None:
    runs = two()
    batch = to_tensors(runs, token_advantages(runs, np.array([1.5, -1.5], np.float32), None, 0.5), Grids())
    batch["ref_per_token_logps"] = torch.arange(16.0).reshape(2, 8)
    whole = trimmed(batch)
    assert all(
        torch.equal(whole[name].nan_to_num(N), batch[name].nan_to_num(N)) for name in batch if name != "num_images"
    )
    rows = {name: value[1:] if torch.is_tensor(value) and len(value) == 2 else value for name, value in batch.items()}
    cut = trimmed(rows)  # the shorter run alone
    want = {
        "prompt_ids": [[7, 5, 9, 9]],
        "completion_ids": [[23, 8]],
        "completion_mask": [[1, 1]],
        "tool_mask": [[1, 1]],
        "advantages": [[-1.5, -1.5]],
        "ref_per_token_logps": [[8, 9]],
        "mm_token_type_ids": [[0, 0, 1, 1, 0, 0]],
    }
    assert {name: cut[name].tolist() for name in want} == want
    other = {name: value[:1] if torch.is_tensor(value) and len(value) == 2 else value for name, value in batch.items()}
    assert trimmed(other)["prompt_ids"].tolist() == [[7, 9, 9]]
    assert trimmed(other)["mm_token_type_ids"].tolist() == [[0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]]


def test_a_failed_run_has_nothing_in_the_loss_and_keeps_its_place() -> None:
    runs = two()
    runs[1].breakdown.excluded = "tool_error"
    values = token_advantages(runs, np.array([1.0, 0.0], np.float32), [np.ones(2, np.float32), np.zeros(0)], 0.5)
    batch = to_tensors(runs, values, Stub())
    assert batch["completion_mask"][1].sum() == 2  # it is there, with its picture
    assert batch["tool_mask"][1].sum() == 0 and (batch["advantages"][1] == 0).all()
    assert batch["num_images"] == [2, 1]


def test_a_run_that_failed_before_its_first_reply_fits_in() -> None:
    failed = rollout(Context("0/0", [7, 9, 9], [False] * 3, [-1] * 3, [picture(1)], 3), "tool_error")
    batch = to_tensors([failed], token_advantages([failed], np.zeros(1, np.float32), None, 0.5), Stub())
    assert batch["completion_ids"].tolist() == [[PAD]] and batch["completion_mask"].tolist() == [[0]]


@pytest.mark.parametrize("lost", [0, 2])
def test_a_picture_too_few_or_too_many_is_an_error(lost: int) -> None:
    runs = two()
    images = runs[0].context.images
    runs[0].context.images = images[:lost] + ([picture(5)] if lost else [])
    with pytest.raises(PolicyError, match="6 image tokens for"):
        to_tensors(runs, token_advantages(runs, np.zeros(2, np.float32), None, 0.5), Stub())


def test_turns_add_their_own_advantage_to_the_run_s() -> None:
    runs = two()
    turns = [np.array([1.0, -2.0], np.float32), np.array([4.0], np.float32)]
    one, other = token_advantages(runs, np.array([0.5, -0.5], np.float32), turns, 0.25)
    assert one.tolist() == [0.75, 0.75, 0, 0, 0, 0.0, 0.0, 0]
    assert other.tolist() == [0.5, 0.5]


# -- numbers of turns and of rewards, through the environment ---------------------------------


def test_the_unused_reply_to_the_last_call_earns_nothing_of_its_own(
    make_player: Callable[..., Any], scripted: Callable[..., Any], disc_prompt: Any, renderer: Any
) -> None:
    player = make_player(max_steps=2)
    script = {
        "0/0": [INSIDE, "nonsense", INSIDE],  # two steps, and a reply that is not carried out
        "0/1": ["nonsense", INSIDE, FOUND],
        "0/2": [INSIDE, OUTSIDE, ABSENT],
    }
    rollouts = player.play([disc_prompt], 3, scripted(script), seed=0)
    assert [r.context.num_turns for r in rollouts] == [3, 3, 3]
    assert [len(r.episode.steps) for r in rollouts] == [2, 3, 3]
    assert [r.episode.unused_reply is not None for r in rollouts] == [True, False, False]
    rewards = [player.rubric.turn_rewards(r.breakdown) for r in rollouts]
    for r, earned in zip(rollouts, rewards, strict=True):
        assert len(earned) == len(r.episode.steps)
        for k, step in enumerate(r.episode.steps):  # the reply that the reward speaks of is the one in the tokens
            ids = [i for i, turn in zip(r.context.ids, r.context.turn, strict=True) if turn == k]
            assert renderer.text(ids) == step.raw_text
            assert r.breakdown.by_turn["format"][k] == (-1.0 if step.invalid is not None else 0.0)
    turns = turn_advantages(rewards, 3, "none")
    # The third turn: Found and Absent are held against each other, and against nobody else.
    assert turns[1][2] == -turns[2][2] > 0 and len(turns[0]) == 2
    whole = np.array([10.0, 20.0, 30.0], np.float32)
    for r, value, run, extra in zip(rollouts, token_advantages(rollouts, whole, turns, 1.0), whole, turns, strict=True):
        at = np.array(r.context.turn[r.context.num_prompt :])
        for k in range(3):
            mine = extra[k] if k < len(extra) else 0.0
            assert value[at == k] == pytest.approx(run + mine)
        assert (value[at == -1] == 0).all()


def test_an_unused_reply_does_not_take_an_earlier_turn_s_advantage(
    make_player: Callable[..., Any], scripted: Callable[..., Any], disc_prompt: Any
) -> None:
    player = make_player(max_steps=1)
    rollouts = player.play([disc_prompt], 2, scripted({"0/0": [INSIDE, OUTSIDE], "0/1": [OUTSIDE, OUTSIDE]}), seed=0)
    turns = turn_advantages([player.rubric.turn_rewards(r.breakdown) for r in rollouts], 2, "none")
    assert turns[0][0] > 0 > turns[1][0]
    values = token_advantages(rollouts, np.zeros(2, np.float32), turns, 1.0)
    for r, value in zip(rollouts, values, strict=True):
        at = np.array(r.context.turn[r.context.num_prompt :])
        assert (value[at == 0] != 0).all() and (value[at == 1] == 0).all()

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reward_samples import TARGET, click, failed, golden, mask, run, runs, stop

from ibisagent.episode import Episode, Outcome
from ibisagent.errors import InputError
from ibisagent.rewards import PRESETS, TABLE_5, Breakdown, load_rubric, means
from ibisagent.rewards.rubric import load_preset
from ibisagent.rle import Rle, decode_mask, encode_mask

Run = tuple[Episode, NDArray[np.bool_] | None]
SPECS = ["paper", "paper:click+progress", "paper:none", "ibis", "ibis:answer=0.3,step_cost=0.2", "ibis:stop+refusal"]


# -- specs ------------------------------------------------------------------------------------


def test_weights_can_be_changed() -> None:
    rubric = load_rubric("ibis:step_cost=0.05, stop=0.5")
    plain = load_rubric("ibis").weights
    assert rubric.weights == {**plain, "step_cost": 0.05, "stop": 0.5}
    assert rubric.names == tuple(plain)


def test_a_part_of_weight_zero_is_still_logged() -> None:
    breakdown = load_rubric("ibis:stop=0").score(golden(), TARGET)
    assert breakdown.parts["stop"] == 1.0
    assert breakdown.total == pytest.approx(load_rubric("ibis").score(golden(), TARGET).total - 0.2)  # type: ignore[operator]


def test_the_rows_of_table_5() -> None:
    parts = {row: load_rubric(spec).names for row, spec in TABLE_5.items()}
    assert parts == {
        "none": ("answer", "format"),
        "click": ("answer", "format", "click"),
        "progress": ("answer", "format", "progress"),
        "length": ("answer", "format", "length"),
        "click+progress": ("answer", "format", "click", "progress"),
        "click+length": ("answer", "format", "click", "length"),
        "progress+length": ("answer", "format", "progress", "length"),
        "all": ("answer", "format", "click", "progress", "length"),
    }
    for spec in TABLE_5.values():
        weights = list(load_rubric(spec).weights.values())
        assert weights == [1 / len(weights)] * len(weights)


def test_subsets_and_weights_together() -> None:
    assert load_rubric("paper:click,click=2").weights == {"answer": 1 / 3, "format": 1 / 3, "click": 2.0}
    assert load_rubric("ibis:stop").names == ("gain", "stop", "format")
    assert load_rubric("paper:all").weights == load_rubric("paper").weights


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("best", "no reward 'best'"),
        ("", "no reward ''"),
        ("paper:", "no part ''"),
        ("paper:clicks", "no part 'clicks'; it has answer"),
        ("paper:click,progress", "two subsets"),
        ("paper:click,length=2", "no part 'length' here; it has answer, format, click"),
        ("ibis:stop=much", "'stop=much' in 'ibis:stop=much' is no weight"),
        ("ibis:stop=-1", "must be a number from 0 up"),
        ("ibis:stop=nan", "must be a number from 0 up"),
        ("ibis:stop=inf", "must be a number from 0 up"),
        ("ibis:halt=1", "no part 'halt'"),
    ],
)
def test_wrong_specs_are_named(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        load_rubric(spec)


# -- breakdowns -------------------------------------------------------------------------------


def test_an_excluded_episode_has_no_number() -> None:
    rubric = load_rubric("ibis")
    breakdown = rubric.score(run(failed(), outcome=Outcome.ERROR), TARGET)
    assert breakdown == Breakdown(None, dict.fromkeys(rubric.names), {}, "tool_error")
    for ask in (rubric.turn_rewards, rubric.episode_reward):
        with pytest.raises(ValueError, match="tool_error"):
            ask(breakdown)


def test_means_leave_out_what_does_not_apply() -> None:
    rubric = load_rubric("ibis")
    scored = [
        rubric.score(golden(), TARGET),  # gain 0.9
        rubric.score(run(click(0, 0, True, mask(5)), stop()), TARGET),  # gain 0.5
        rubric.score(run(stop("absent")), None),  # no gain
        rubric.score(run(outcome=Outcome.ERROR), TARGET),
    ]
    found = means(scored)
    assert found["gain"] == pytest.approx(0.7) and found["false_positive"] == 0.0
    assert found["refusal"] == pytest.approx(1 / 3) and found["excluded"] == 0.25
    assert found["total"] == pytest.approx(math.fsum(b.total for b in scored[:3] if b.total is not None) / 3)
    assert means([]) == {} and means(scored[3:]) == {"excluded": 1.0}


@pytest.mark.parametrize("spec", SPECS)
def test_rubrics_and_breakdowns_go_to_other_processes(spec: str) -> None:
    rubric = load_rubric(spec)
    assert pickle.loads(pickle.dumps(rubric)) == rubric
    breakdown = rubric.score(golden(), TARGET)
    assert pickle.loads(pickle.dumps(breakdown)) == breakdown


# -- properties -------------------------------------------------------------------------------


@given(runs(), st.sampled_from(SPECS))
@settings(max_examples=150, deadline=None)
def test_what_the_replies_and_the_episode_earn_is_the_total(pair: Run, spec: str) -> None:
    rubric = load_rubric(spec)
    breakdown = rubric.score(*pair)
    assume(breakdown.excluded is None)
    assert set(breakdown.by_turn) <= set(rubric.names) == set(breakdown.parts)
    for name, values in breakdown.by_turn.items():
        assert len(values) == len(pair[0].steps)
        assert breakdown.parts[name] == pytest.approx(math.fsum(values), abs=1e-12)
    by_turn = rubric.turn_rewards(breakdown)
    assert len(by_turn) == (len(pair[0].steps) if breakdown.by_turn else 0)
    assert math.fsum(by_turn) + rubric.episode_reward(breakdown) == pytest.approx(breakdown.total, abs=1e-12)


@given(runs())
@settings(max_examples=150, deadline=None)
def test_bounds(pair: Run) -> None:
    replies = len(pair[0].steps)
    bounds = {
        "paper": {
            "answer": (0, 3),
            "format": (0, 1),
            "click": (-1, 1),
            "progress": (0, 1),
            "length": (-0.2 * max(0, replies - 5), 1),
        },
        "ibis": {
            "gain": (-1, 1),
            "stop": (0, 1),
            "refusal": (-1, 1),
            "false_positive": (-1, 0),
            "step_cost": (-replies, 0),
            "format": (-replies, 0),
            "answer": (0, 3),
        },
    }
    for spec, parts in bounds.items():
        breakdown = load_rubric(spec).score(*pair)
        assert set(breakdown.parts) == set(parts)
        for name, (low, high) in parts.items():
            value = breakdown.parts[name]
            assert value is None or low - 1e-9 <= value <= high + 1e-9, name
        if spec == "paper":
            assert breakdown.total == pytest.approx(sum(v for v in breakdown.parts.values() if v is not None) / 5)


@given(runs(), st.data())
@settings(max_examples=60, deadline=None)
def test_how_a_mask_is_encoded_does_not_matter(pair: Run, data: st.DataObject) -> None:
    episode, target = pair

    def again(rle: Rle | None) -> Rle | None:
        return split_runs(encode_mask(decode_mask(rle)), data.draw(st.integers(0, 19))) if rle is not None else None

    other = episode.model_copy(
        update={
            "initial_mask": again(episode.initial_mask),
            "final_mask": again(episode.final_mask),
            "steps": [step.model_copy(update={"mask": again(step.mask)}) for step in episode.steps],
        }
    )
    other = Episode.model_validate_json(other.model_dump_json())
    for spec in SPECS:
        assert load_rubric(spec).score(other, target) == load_rubric(spec).score(episode, target)


def split_runs(rle: Rle, which: int) -> Rle:
    """The same mask with one of its runs cut in two by an empty run, as other writers may leave it."""
    from pycocotools import mask as coco

    flat = decode_mask(rle).ravel(order="F")
    edges = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1), flat.size]
    lengths = [int(length) for length in np.diff(edges)]
    if flat[0]:
        lengths = [0, *lengths]
    which %= len(lengths)
    cut = lengths[which] // 2
    lengths[which : which + 1] = [cut, 0, lengths[which] - cut]
    counts = coco.frPyObjects({"counts": lengths, "size": list(rle.size)}, *rle.size)["counts"].decode()
    split = Rle(size=rle.size, counts=counts)
    assert counts != rle.counts and np.array_equal(decode_mask(split), decode_mask(rle))
    return split


# -- every part is alive ----------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_every_part_varies(preset: str) -> None:
    """A part that is always the same number teaches nothing; two of the published code's five were so."""
    wrong = run(*(click(0, 1, True, mask(0, 5)) for _ in range(7)))
    episodes = [(golden(), TARGET), (wrong, TARGET), (run(stop("absent")), None), (wrong, None)]
    seen: dict[str, set[float]] = {}
    for episode, target in episodes:
        for name, value in load_rubric(preset).score(episode, target).parts.items():
            if value is not None:
                seen.setdefault(name, set()).add(value)
    assert set(seen) == {function.name for function in load_preset(preset).functions}
    assert all(len(values) >= 2 for values in seen.values()), seen

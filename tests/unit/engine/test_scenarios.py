from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ibisagent.actions import ClickAction, DiscardAction, TerminateAction, UndoAction
from ibisagent.engine.expert import EXPERTS, Expert
from ibisagent.engine.moments import Intent
from ibisagent.engine.scenarios import SCENARIOS, Dropped, Filters, Stage, false_place, make_walk, starting_mask
from ibisagent.engine.walk import Move, Subject, Walk, expert_walk
from ibisagent.metrics import dice, iou
from ibisagent.segmenters.memo import MemoSegmenter
from ibisagent.segmenters.rules import RulesSegmenter
from sample_scenes import disc_subject


def stage(number: int = 0, absent: bool = False, expert: str = "ibis") -> Stage:
    subject = disc_subject(number, absent)
    return Stage(subject, Expert(EXPERTS[expert]), MemoSegmenter(RulesSegmenter()), lambda: np.random.default_rng(5))


def walks(scenario: str, number: int = 12, filters: Filters = Filters()) -> tuple[list[tuple[Stage, Walk]], Counter]:  # noqa: B008
    """Kept walks over some discs, and why the others were not kept."""
    kept, dropped = [], Counter()
    for i in range(number):
        s = stage(i, absent=scenario == "absent")
        try:
            kept.append((s, make_walk(scenario, s, filters, np.random.default_rng(i))))  # type: ignore[arg-type]
        except Dropped as drop:
            dropped[drop.reason] += 1
    return kept, dropped


def intents(walk: Walk) -> list[str]:
    return [move.intent.value for move in walk.moves]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_ends_with_a_terminate_and_only_wrong_clicks_are_not_learnt(scenario: str) -> None:
    kept, dropped = walks(scenario)
    assert len(kept) >= 6, dropped
    for s, walk in kept:
        assert len(walk.moves) == len(walk.masks)
        last = walk.moves[-1].action
        assert isinstance(last, TerminateAction)
        assert not any(isinstance(move.action, TerminateAction) for move in walk.moves[:-1])
        assert [m for m in walk.moves if not m.learn] == [m for m in walk.moves if m.intent is Intent.WRONG]
        if s.subject.target is None:
            assert last.verdict == "absent" and walk.ious == []
        else:
            assert last.verdict == "found" and len(walk.ious) == len(walk.moves)
            assert walk.final_mask is not None and dice(walk.final_mask, s.subject.target) >= 0.85


def test_plain_walks_say_why_they_click() -> None:
    for s, walk in walks("plain")[0]:
        assert intents(walk)[0] == "start" and intents(walk)[-1] == "fits"
        for move, before in zip(walk.moves[1:-1], walk.masks, strict=False):
            assert isinstance(move.action, ClickAction) and before is not None and s.subject.target is not None
            click = move.action.clicks[0].to_pixel(*before.shape[::-1])
            region = s.subject.target & ~before if move.intent is Intent.MISSED else before & ~s.subject.target
            assert region[click.y, click.x] and click.positive == (move.intent is Intent.MISSED)


def test_a_wrong_click_is_followed_by_its_undo_and_the_right_one() -> None:
    for s, walk in walks("self_correction")[0]:
        plain = make_walk("plain", s, Filters(), np.random.default_rng(0))
        at = intents(walk).index("wrong")
        assert intents(walk)[at + 1] == "undo" and isinstance(walk.moves[at + 1].action, UndoAction)
        before = walk.masks[at - 1] if at else None
        after = walk.masks[at + 1]
        assert (before is None and after is None) or np.array_equal(before, after), "undo restores the mask"  # type: ignore[arg-type]
        assert [*walk.moves[:at], *walk.moves[at + 2 :]] == plain.moves, "the rest is the plain run"
        assert walk.moves[at + 2].learn and not isinstance(walk.moves[at + 2].action, TerminateAction)
        assert walk.ious[at] < (walk.ious[at - 1] - 0.05 if at else 0.1), "the wrong click did harm"


def test_an_expert_goes_on_from_what_was_done_before_and_keeps_all_of_it() -> None:
    for i in range(6):
        s = stage(i)
        plain = s.walk()
        led = Walk(None, plain.moves[:1], plain.masks[:1], plain.ious[:1])
        walk = expert_walk(s.subject, s.expert, s.segmenter, np.random.default_rng(5), led=led)
        assert walk.moves == plain.moves and walk.ious == plain.ious
        done = expert_walk(s.subject, s.expert, s.segmenter, np.random.default_rng(5), led=plain)
        assert done.moves[: len(plain.moves)] == plain.moves
        assert len(done.moves) == len(plain.moves) or done.ious[-1] > plain.ious[-1]


def test_a_stage_may_find_no_damaged_mask_worthless() -> None:
    first = Counter()
    for i in range(12):
        for least in (0.0, 1.0):
            try:
                s = replace(stage(i), worthless=least)
                walk = make_walk("corrupted_mask", s, Filters(), np.random.default_rng(i))
            except Dropped:
                continue
            first[least, intents(walk)[0] == "discard"] += 1
    assert set(first) == {(0.0, False), (1.0, True)}, "none is dropped, or all are"


def test_given_masks_are_what_the_scenario_says() -> None:
    for s, walk in walks("mismatched_mask")[0]:
        assert walk.initial_mask is not None and iou(walk.initial_mask, s.subject.target) < 0.2  # type: ignore[arg-type]
        assert isinstance(walk.moves[0].action, DiscardAction) and walk.masks[0] is None
        assert intents(walk)[1] == "start"
    for s, walk in walks("corrupted_mask", 24)[0]:
        given = iou(walk.initial_mask, s.subject.target)  # type: ignore[arg-type]
        assert given < 0.8 and (intents(walk)[0] == "discard") == (given < 0.1)
    for s, walk in walks("right_stop")[0]:
        assert intents(walk) == ["fits"] and iou(walk.initial_mask, s.subject.target) >= 0.92  # type: ignore[arg-type]


def test_deceptive_walks_name_a_false_hint() -> None:
    kept, _ = walks("deceptive", 30)
    assert {walk.hint for _, walk in kept} >= {"false_error", "false_mask"}
    for _, walk in kept:
        assert (walk.place is not None) == (walk.hint == "wrong_place")
        assert (walk.initial_mask is not None) == (walk.hint == "false_error")


def test_a_false_place_is_a_quarter_without_target() -> None:
    target = np.zeros((8, 8), bool)
    target[:3, :6] = True
    assert {false_place(target, np.random.default_rng(i)) for i in range(20)} == {"lower left", "lower right"}
    target[7, 7] = target[7, 0] = True
    assert false_place(target, np.random.default_rng(0)) is None


def test_absent_sometimes_comes_with_a_mask_of_something_else() -> None:
    kept, _ = walks("absent", 60)
    given = [walk for _, walk in kept if walk.initial_mask is not None]
    assert 5 <= len(given) <= 27
    assert all(intents(walk) == ["absent"] for _, walk in kept)


@pytest.mark.parametrize(
    ("ious", "filters", "reason"),
    [
        ([0.5, 0.6], Filters(), "low_final_dice"),
        ([0.9, 0.6, 0.9], Filters(), "not_monotonic"),
        ([0.9] * 21, Filters(), "too_long"),
        ([], Filters(), "no_mask"),
    ],
)
def test_filters_say_why(ious: list[float], filters: Filters, reason: str) -> None:
    from ibisagent.engine.scenarios import keep_or_drop

    target = np.zeros((10, 100), bool)
    target[:] = True
    walk = Walk()
    for i, value in enumerate(ious):
        mask = np.zeros_like(target)
        mask[:, : round(100 * value)] = True
        action = ClickAction.model_validate({"clicks": [{"x": round(0.01 * i, 4), "y": 0.5, "positive": True}]})
        walk.moves.append(Move(action, Intent.MISSED))
        walk.masks.append(mask)
        walk.ious.append(iou(mask, target))
    with pytest.raises(Dropped) as drop:
        keep_or_drop(walk, target, filters, np.random.default_rng(0))
    assert drop.value.reason == reason
    if reason == "low_final_dice":
        kept = keep_or_drop(walk, target, Filters(uncertain_share=1.0), np.random.default_rng(0))
        assert kept.moves[-1] == Move(TerminateAction(verdict="uncertain"), Intent.ROUGH)
    if reason == "not_monotonic":
        assert keep_or_drop(walk, target, Filters(max_fall=None), np.random.default_rng(0)).moves[-1].learn


def test_a_click_made_three_times_is_no_example() -> None:
    from ibisagent.engine.scenarios import keep_or_drop

    target = np.ones((4, 4), bool)
    action = ClickAction.model_validate({"clicks": [{"x": 0.5, "y": 0.5, "positive": True}]})
    walk = Walk(moves=[Move(action, Intent.MISSED)] * 3, masks=[target] * 3, ious=[1.0] * 3)
    with pytest.raises(Dropped, match="repeated_click"):
        keep_or_drop(walk, target, Filters(), np.random.default_rng(0))


def test_walks_of_one_target_share_their_predictions() -> None:
    s = stage(3)
    memory = s.segmenter
    assert isinstance(memory, MemoSegmenter)
    make_walk("plain", s, Filters(), np.random.default_rng(0))
    first = memory.num_predicted
    make_walk("mismatched_mask", s, Filters(), np.random.default_rng(0))
    assert memory.num_predicted == first and memory.num_encoded == 1, "the same run after the discard"
    assert memory.num_remembered == first


def test_a_starting_mask_needs_another_structure() -> None:
    subject = disc_subject(0)
    alone = Subject(subject.image, subject.name, subject.target)
    with pytest.raises(Dropped, match="no_other_structure"):
        starting_mask("mismatched_mask", alone, np.random.default_rng(0))


def test_an_uncertain_walk_shows_that_clicks_helped_no_more() -> None:
    from ibisagent.engine.scenarios import keep_or_drop

    target = np.ones((10, 100), bool)

    def mask(columns: int) -> np.ndarray:
        made = np.zeros_like(target)
        made[:, :columns] = True
        return made

    def move(x: float) -> Move:
        action = ClickAction.model_validate({"clicks": [{"x": x, "y": 0.5, "positive": True}]})
        return Move(action, Intent.MISSED)

    filters = Filters(uncertain_share=1.0, show_plateau=2)
    for tail, kept in (((60, 61, 58), True), ((60, 40), False), ((60,), False), ((), False)):
        walk = Walk(moves=[move(0.1)], masks=[mask(60)], ious=[0.6])
        walk.tail = [(move(round(0.2 + 0.1 * i, 4)), mask(n), n / 100) for i, n in enumerate(tail)]
        if kept:
            done = keep_or_drop(walk, target, filters, np.random.default_rng(0))
            assert [m.intent for m in done.moves] == [Intent.MISSED] * 3 + [Intent.ROUGH]
            assert done.ious == [0.6, 0.6, 0.61, 0.61]
            assert done.final_mask is not None and done.final_mask.mean() == 0.61
        else:
            with pytest.raises(Dropped, match="no_visible_plateau"):
                keep_or_drop(walk, target, filters, np.random.default_rng(0))

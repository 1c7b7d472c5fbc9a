from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.actions import DIALECTS, Click, ClickAction, DiscardAction, TerminateAction, Turn, UndoAction
from ibisagent.config import RolloutConfig
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode, Outcome
from ibisagent.errors import ActionError, InputError, PolicyError, ToolError
from ibisagent.geometry import Geometry
from ibisagent.metrics import iou
from ibisagent.policies.protocol import Reply
from ibisagent.rle import decode_mask
from ibisagent.segmenters.fake import FakeSegmenter
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Case, Image, Prediction, Window

UNDO, DISCARD = UndoAction(), DiscardAction()


def say(body: str, answer: str | None = None) -> str:
    return f"<think>t</think><action>{body}</action>" + (f"<answer>{answer}</answer>" if answer is not None else "")


CLICK = say("Positive Point (0.6328, 0.4271)")
CLICK_2 = say("Positive Point (0.6016, 0.4271)")
NEGATIVE = say("Negative Point (0.0703, 0.1042)")
FOUND, ABSENT, UNCERTAIN = (say("Terminate", word) for word in ("Found: it", "Absent: no", "Uncertain: hm"))


def play(case: Case, *replies: str, segmenter: object = None, **settings: object) -> SegmentationEnv:
    env = SegmentationEnv(segmenter or RulesSegmenter(), RolloutConfig(**settings))  # type: ignore[arg-type]
    env.reset(case)
    for reply in replies:
        env.step(reply)
    return env


def final(episode: Episode) -> NDArray[np.bool_]:
    assert episode.final_mask is not None
    return decode_mask(episode.final_mask)


def scored(case: Case, *pairs: tuple[int, float | None]) -> FakeSegmenter:
    """Answers with masks of so many pixels and such scores."""
    answers = []
    for size, score in pairs:
        mask = np.zeros((case.image.height, case.image.width), bool)
        mask.ravel()[:size] = True
        answers.append(Prediction(mask, score))
    return FakeSegmenter(answers)


# -- outcomes -------------------------------------------------------------------------------


def test_done(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    env = play(disc_case, CLICK, FOUND)
    episode = env.episode
    assert env.done and episode.outcome is Outcome.DONE and episode.end_reason == "terminate"
    assert episode.answer == "it" and episode.error is None
    assert iou(final(episode), disc_target) > 0.8
    assert episode.final_step == 0 and episode.num_steps == 1
    assert episode.best_mask_rule == "the mask at Terminate"


def test_absent(disc_case: Case) -> None:
    episode = play(disc_case, CLICK, ABSENT).episode
    assert episode.outcome is Outcome.ABSENT and episode.answer == "no"
    assert not final(episode).any() and episode.final_step is None


def test_uncertain_keeps_the_mask(disc_case: Case) -> None:
    episode = play(disc_case, CLICK, UNCERTAIN).episode
    assert episode.outcome is Outcome.UNCERTAIN and final(episode).any()


def test_uncertain_without_a_mask_is_zero_and_says_so(disc_case: Case) -> None:
    episode = play(disc_case, UNCERTAIN).episode
    assert episode.outcome is Outcome.UNCERTAIN and not final(episode).any()
    assert episode.best_mask_rule == "all zero: there was no mask"


def test_found_keeps_a_given_mask(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    episode = play(replace(disc_case, initial_mask=disc_target), FOUND).episode
    assert episode.outcome is Outcome.DONE and episode.final_step is None
    assert np.array_equal(final(episode), disc_target)


def test_out_of_steps_offers_a_last_terminate(disc_case: Case) -> None:
    env = play(disc_case, CLICK, CLICK_2, max_steps=2)
    assert not env.done and env.last_call
    env.step(FOUND)
    assert env.episode.outcome is Outcome.DONE and env.episode.num_steps == 2


@pytest.mark.parametrize("last", [CLICK, "junk", say("Undo")])
def test_out_of_steps(disc_case: Case, last: str) -> None:
    episode = play(disc_case, CLICK, CLICK_2, last, max_steps=2).episode
    assert episode.outcome is Outcome.OUT_OF_STEPS and episode.end_reason == "max_steps"
    assert episode.num_steps == len(episode.steps) == 2 and episode.unused_reply == last
    assert final(episode).any() and episode.best_mask_rule == "the last mask"


def test_a_policy_that_fails_at_the_last_call_is_out_of_steps(disc_case: Case) -> None:
    env = play(disc_case, CLICK, max_steps=1)
    env.fail(PolicyError("the script ran out"))
    assert env.episode.outcome is Outcome.OUT_OF_STEPS and env.episode.error is None
    assert env.episode.unused_reply == "(none: the script ran out)"


def test_a_policy_that_fails_before_is_an_error(disc_case: Case) -> None:
    env = play(disc_case, CLICK)
    env.fail(PolicyError("no server"))
    assert env.episode.outcome is Outcome.ERROR and env.episode.error == "PolicyError: no server"
    assert env.episode.final_mask is None


def test_what_a_record_cannot_hold_never_costs_the_record(disc_case: Case) -> None:
    # a server's message with half of a surrogate pair, a file name that is not UTF-8
    env = SegmentationEnv(RulesSegmenter())
    env.reset(replace(disc_case, image=replace(disc_case.image, source="/a/b\udcff.png")))
    env.fail(PolicyError("the server said \ud83d"))
    episode = Episode.model_validate_json(env.episode.model_dump_json())
    assert episode.image.source == "b?.png" and "the server said ?" in (episode.error or "")


def test_stopped_keeps_the_mask(disc_case: Case) -> None:
    env = play(disc_case, CLICK)
    env.stop()
    assert env.episode.outcome is Outcome.STOPPED and final(env.episode).any()
    env.stop()
    with pytest.raises(RuntimeError):
        env.step(CLICK)


def test_three_identical_actions_end_the_run(disc_case: Case) -> None:
    env = play(disc_case, CLICK, CLICK_2, CLICK, CLICK)
    assert not env.done
    env.step(CLICK.replace("<think>t", "<think>once more"))  # the thought makes no difference
    assert env.episode.outcome is Outcome.OUT_OF_STEPS and env.episode.end_reason == "repeated_actions"
    assert env.episode.num_steps == 5


def test_three_identical_rejected_replies_end_the_run(disc_case: Case) -> None:
    episode = play(disc_case, "what?", "what?", "what?").episode
    assert episode.end_reason == "repeated_actions" and not final(episode).any()


def test_undo_is_never_a_repetition(disc_case: Case) -> None:
    undo = say("Undo")
    env = play(disc_case, CLICK, CLICK_2, CLICK, undo, undo, undo, max_steps=20)
    assert not env.done and env.view.mask is None
    env.step(undo)
    env.step(undo)
    env.step(undo)  # nothing to undo, three times
    assert env.episode.end_reason == "repeated_actions"


def test_wall_clock(disc_case: Case) -> None:
    episode = play(disc_case, CLICK, max_seconds=1e-9).episode
    assert episode.outcome is Outcome.OUT_OF_STEPS and episode.end_reason == "max_seconds"


# -- failing tools --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [RuntimeError("boom"), ToolError("boom"), Prediction(np.zeros((1, 1), bool)), None])
def test_a_failing_segmenter_is_an_error_and_never_a_mask(disc_case: Case, fault: object) -> None:
    episode = play(disc_case, CLICK, segmenter=FakeSegmenter([fault])).episode
    assert episode.outcome is Outcome.ERROR and episode.final_mask is None
    assert episode.error is not None and episode.error.startswith("ToolError: ")
    (step,) = episode.steps
    assert step.failed and step.mask is None and isinstance(step.action, ClickAction)


def test_a_failing_encoder_ends_the_run_at_reset(disc_case: Case) -> None:
    env = SegmentationEnv(FakeSegmenter(encode_error=MemoryError("too big")))
    env.reset(disc_case)
    assert env.done and env.episode.outcome is Outcome.ERROR and env.episode.steps == []
    assert env.view.mask is None
    with pytest.raises(RuntimeError):
        env.step(CLICK)


# -- bad actions are observations -----------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("hello", "missing_tag"),
        (say("Positive Point (1.5000, 0.1000)"), "coordinate_range"),
        (say("Undo"), "nothing_to_undo"),
        (say("Discard"), "nothing_to_discard"),
        (FOUND, "nothing_found"),
        ("\ud800", "not_unicode"),
    ],
)
def test_invalid_replies(disc_case: Case, reply: str, code: str) -> None:
    env = play(disc_case, reply)
    (step,) = env.episode.steps
    assert step.invalid is not None and step.invalid.code == code
    assert step.mask is None and step.changed_pixels is None
    assert not env.done and env.episode.num_steps == 1
    env.episode.model_dump_json()  # even half a surrogate pair must be writable


def test_found_with_an_empty_mask_is_refused(disc_case: Case) -> None:
    env = play(disc_case, NEGATIVE, FOUND)
    invalid = env.episode.steps[1].invalid
    assert invalid is not None and invalid.code == "nothing_found" and "empty" in invalid.reason


@pytest.mark.parametrize(
    ("capabilities", "reply", "code"),
    [
        (Capabilities(True, True, False, True), say("Box (0.1000, 0.1000, 0.2000, 0.2000)"), "action_not_allowed"),
        (Capabilities(False, False, True, True), CLICK, "action_not_allowed"),
        (Capabilities(True, False, True, True), NEGATIVE, "not_supported"),
    ],
)
def test_actions_that_the_segmenter_cannot_serve(
    disc_case: Case, capabilities: Capabilities, reply: str, code: str
) -> None:
    env = play(disc_case, reply, segmenter=FakeSegmenter([], capabilities))
    invalid = env.episode.steps[0].invalid
    assert invalid is not None and invalid.code == code
    assert env.episode.policy.action_kinds == sorted(env.dialect.kinds)


def test_the_segmenters_click_limit_counts_all_clicks(disc_case: Case) -> None:
    fake = scored(disc_case, (5, None), (6, None))
    fake.capabilities = Capabilities(True, True, True, True, max_clicks=2)
    env = play(disc_case, CLICK, CLICK_2, CLICK, segmenter=fake)
    assert [s.invalid.code if s.invalid else None for s in env.episode.steps] == [None, None, "too_many_clicks"]


def test_a_policy_and_a_segmenter_without_common_actions_do_not_start() -> None:
    only_boxes = FakeSegmenter([], Capabilities(False, False, True, True))
    with pytest.raises(InputError, match="share neither"):
        SegmentationEnv(only_boxes, dialect=DIALECTS["ibis-paper"])


# -- best mask ------------------------------------------------------------------------------


def test_best_mask_is_the_last_unless_it_was_ruined(disc_case: Case) -> None:
    for last, step, size in ((0.75, 3, 40), (0.5, 2, 30)):
        fake = scored(disc_case, (10, 0.3), (20, 0.9), (30, 0.9), (40, last))
        env = play(disc_case, CLICK, NEGATIVE, CLICK_2, NEGATIVE, segmenter=fake)
        env.stop()
        assert (env.episode.final_step, final(env.episode).sum()) == (step, size)


def test_best_mask_is_the_segmenters_favourite(disc_case: Case) -> None:
    fake = scored(disc_case, (10, 0.3), (20, 0.9), (30, 0.9), (40, 0.5))
    episode = play(disc_case, CLICK, NEGATIVE, CLICK_2, NEGATIVE, "no more", segmenter=fake, max_steps=4).episode
    assert final(episode).sum() == 30 and episode.final_step == 2  # the later of equals
    assert episode.best_mask_rule == "an earlier mask, scored more than 0.2 above the last one"


def test_a_mask_that_was_undone_is_not_the_best(disc_case: Case) -> None:
    fake = scored(disc_case, (10, 0.3), (20, 0.9))
    env = play(disc_case, CLICK, NEGATIVE, say("Undo"), segmenter=fake)
    env.stop()
    assert final(env.episode).sum() == 10 and env.episode.final_step == 0


def test_a_discarded_past_is_not_the_best(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    case = replace(disc_case, initial_mask=disc_target)
    fake = scored(disc_case, (10, 0.9), (20, 0.2))
    env = play(case, CLICK, say("Discard"), segmenter=fake)
    env.step(CLICK_2)
    env.stop()
    assert final(env.episode).sum() == 20 and env.episode.final_step == 2


def test_without_scores_the_last_mask_is_kept(disc_case: Case) -> None:
    env = play(disc_case, CLICK, NEGATIVE, segmenter=scored(disc_case, (10, None), (20, None)))
    env.stop()
    assert final(env.episode).sum() == 20 and env.episode.final_step == 1


# -- the record -----------------------------------------------------------------------------


def test_the_record(disc_case: Case) -> None:
    geometry = Geometry(
        (1.0, 1.0),
        ((1, 0, 0), (0, 1, 0), (0, 0, 5)),
        ((2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 2, 0), (0, 0, 0, 1)),
        (64, 48, 9),
    )
    image = Image(disc_case.image.pixels, geometry, "CT", Window(-160, 240, "soft tissue"), "/secret/name/ct.nii.gz")
    env = play(replace(disc_case, image=image), CLICK, seed=7, max_seconds=60.0)
    env.step(Reply(FOUND, num_prompt_tokens=90, num_tokens=12, messages=[{"role": "user", "content": []}]), 0.25)
    episode = env.episode
    assert (episode.case_id, episode.target, episode.group) == ("disc", "disc", "shapes")
    assert episode.image.source == "ct.nii.gz" and "secret" not in episode.model_dump_json()
    assert episode.image.window is not None and episode.image.window.name == "soft tissue"
    assert Geometry.from_json(episode.image.geometry or {}) == geometry
    assert (episode.seed, episode.max_steps, episode.budget.max_seconds) == (7, 8, 60.0)
    assert episode.segmenter.name == "rules" and episode.policy.dialect == "plain"
    assert len(episode.policy.system_prompt_sha256 or "") == 64
    first, last = episode.steps
    assert first.thought == "t" and first.pixels_xy == [(40, 20)] and first.world_mm == [(80.0, 40.0, 10.0)]
    assert first.mask is not None and first.changed_pixels == decode_mask(first.mask).sum()
    assert last.seconds.policy == 0.25 and (last.num_prompt_tokens, last.num_tokens) == (90, 12)
    assert last.messages == [{"role": "user", "content": []}]
    assert episode.seconds_total > 0


def test_box_pixels_are_its_corners(disc_case: Case) -> None:
    env = play(disc_case, say("Box (0.4000, 0.1500, 0.8500, 0.7000)"))
    assert env.episode.steps[0].pixels_xy == [(25, 7), (54, 33)]


def test_turns_are_taken_too(disc_case: Case) -> None:
    env = play(disc_case)
    env.step(Turn(thought="in", action=ClickAction(clicks=(Click(x=0.6328, y=0.4271, positive=True),))))
    env.step(Turn(thought="ok", action=TerminateAction(answer="it")))
    assert env.episode.outcome is Outcome.DONE
    assert env.episode.steps[0].raw_text == CLICK.replace("<think>t", "<think>in")


def test_a_turn_that_cannot_be_said_is_the_callers_fault(disc_case: Case) -> None:
    env = SegmentationEnv(RulesSegmenter(), dialect=DIALECTS["ibis-paper"])
    env.reset(disc_case)
    with pytest.raises(ActionError):
        env.step(Turn(thought="", action=UNDO))
    assert env.episode.steps == []


def test_reset_starts_afresh(disc_case: Case) -> None:
    env = play(disc_case, CLICK, FOUND)
    old = env.episode
    env.reset(disc_case)
    assert env.episode is not old and env.episode.steps == [] and not env.done and env.view.mask is None


def test_discard_then_undo_brings_the_given_mask_back(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    env = play(replace(disc_case, initial_mask=disc_target), say("Discard"))
    assert env.view.mask is None and env.episode.steps[0].changed_pixels == disc_target.sum()
    env.step(Turn(thought="", action=UNDO))
    assert env.view.mask is not None and np.array_equal(env.view.mask, disc_target)

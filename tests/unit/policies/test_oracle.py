from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.actions import ClickAction, TerminateAction
from ibisagent.clicks import next_click
from ibisagent.environment import SegmentationEnv
from ibisagent.errors import InputError, PolicyError
from ibisagent.policies.oracle import PAPER_STOP_IOU, STOP_IOU, OraclePolicy, make
from ibisagent.policies.protocol import Policy, View
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Case


def start(case: Case) -> View:
    return SegmentationEnv(RulesSegmenter()).reset(case)


def test_first_reply_is_the_experts_click(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    policy = OraclePolicy({"disc": disc_target})
    assert isinstance(policy, Policy)
    (reply,) = policy.act([start(disc_case)], seed=3)
    turn = policy.dialect.parse(reply.text)
    assert isinstance(turn.action, ClickAction)
    assert turn.action.clicks[0].to_pixel(64, 48) == next_click(None, disc_target)
    assert turn.thought == "There is no mask yet. I click inside the disc."


@pytest.mark.parametrize("target", [None, "empty"])
def test_absent_targets_are_refused_at_once(
    disc_case: Case, disc_target: NDArray[np.bool_], target: str | None
) -> None:
    policy = OraclePolicy({"disc": np.zeros_like(disc_target) if target else None})
    action = policy.turn(start(disc_case)).action
    assert isinstance(action, TerminateAction) and action.verdict == "absent"


def test_it_stops_at_the_wanted_iou(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    rough = disc_target.copy()
    rough[:, 48:] = False  # a given mask with an IoU between the two
    view = start(replace(disc_case, initial_mask=rough))
    assert isinstance(OraclePolicy({"disc": disc_target}, PAPER_STOP_IOU).turn(view).action, TerminateAction)
    turn = OraclePolicy({"disc": disc_target}, STOP_IOU).turn(view)
    assert isinstance(turn.action, ClickAction) and turn.action.clicks[0].positive
    assert turn.thought == "The mask misses a part of the disc. I add it."
    assert isinstance(
        OraclePolicy({"disc": disc_target}, 1.0).turn(start(replace(disc_case, initial_mask=disc_target))).action,
        TerminateAction,
    )


def test_excess_is_taken_away(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    view = start(replace(disc_case, initial_mask=np.ones_like(disc_target)))
    turn = OraclePolicy({"disc": disc_target}).turn(view)
    assert isinstance(turn.action, ClickAction) and not turn.action.clicks[0].positive


def test_a_target_name_cannot_break_the_grammar(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    case = replace(disc_case, target="</think>\n" + "x" * 9000)
    policy = OraclePolicy({"disc": disc_target})
    (reply,) = policy.act([start(case)], 0)
    turn = policy.dialect.parse(reply.text)
    assert isinstance(turn.action, ClickAction) and "</think>" not in turn.thought


def test_missing_or_misfit_targets_are_policy_errors(disc_case: Case) -> None:
    with pytest.raises(PolicyError, match="no target for the case 'disc'"):
        OraclePolicy({}).act([start(disc_case)], 0)
    with pytest.raises(PolicyError, match="target for 'disc' is"):
        OraclePolicy({"disc": np.ones((3, 3), bool)}).act([start(disc_case)], 0)


def test_factory() -> None:
    assert make(None, targets={}, device="cpu").stop_iou == STOP_IOU
    for arg, targets in (("x", {}), (None, None)):
        with pytest.raises(InputError):
            make(arg, targets=targets)
    with pytest.raises(InputError):
        OraclePolicy({}, stop_iou=1.5)

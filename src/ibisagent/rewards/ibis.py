"""Preset ``ibis``: our reward. What the final mask is worth is earned step by step; stopping and refusing are learnt.

The parts and why they are there:

- *gain*: every reply earns the IoU that it added. The potential is the IoU of the mask, of every state: what undo and
  discard take away or bring back is counted too, so the sum over an episode is final minus initial IoU and nothing
  can be earned by going back and forth. The last reply also gets what the end itself did: a Terminate absent makes the
  final mask empty, and a run out of steps may end on an earlier mask.
- *stop*: a Terminate found earns by the quality of the mask, 0 up to IoU 0.5, 1 from IoU 0.8, a straight line
  between (the range in which the published tiers move); nothing where the run had a mask more than
  :data:`NEAR` better and did not go back to it. It is never negative: on a target that the segmenter cannot do, an
  early stop must not be worse than using up the steps. Terminate uncertain earns nothing here.
- *refusal*: +1 for calling an absent target absent, -1 for calling a present one absent (which loses the gain as well).
- *false_positive*: -1 where an absent target ends with a mask that is not empty.
- *step_cost*: -1 a step. With it, a reply that changes nothing is worth less than any Terminate found or uncertain.
- *format*: -1 for every reply that was not carried out, on top of the step that it costs.
- *answer*: the published tiers, at weight 0: logged, so that runs with other rewards compare; ``ibis:answer=0.1``
  adds it.

Parts that do not apply are None: gain and stop for an absent target, false_positive for a present one.

Weights. With these, refusing pays from a probability of absence of 0.57 on (where the mask would have IoU 0.7), a
click pays that adds more than 0.02 IoU, and the best episode on a present target earns about 1.2.
"""

from __future__ import annotations

from itertools import pairwise

from ibisagent.rewards.paper import answer
from ibisagent.rewards.rubric import Part, Preset, RewardFunction
from ibisagent.rewards.trace import Trace

__all__ = ["GOOD_IOU", "LEAST_IOU", "NEAR", "PRESET"]

LEAST_IOU, GOOD_IOU = 0.5, 0.8
"""IoU from which stopping earns something, and from which it earns all."""

NEAR = 0.05
"""How far below the best mask of the run a stop may be and still earn."""


def _gain(trace: Trace) -> Part:
    if trace.absent:
        return Part(None)
    states = [trace.initial_iou or 0.0, *(r.iou_after or 0.0 for r in trace.replies[:-1]), trace.final_iou or 0.0]
    if not trace.replies:
        return Part.of_turns(())
    return Part.of_turns(after - before for before, after in pairwise(states))


def _stop(trace: Trace) -> Part:
    if trace.absent:
        return Part(None)
    final, best = trace.final_iou or 0.0, trace.best_iou or 0.0
    earned = min(1.0, max(0.0, (final - LEAST_IOU) / (GOOD_IOU - LEAST_IOU))) if final >= best - NEAR else 0.0
    return Part.of_turns(earned if reply.verdict == "found" else 0.0 for reply in trace.replies)


def _refusal(trace: Trace) -> Part:
    earned = 1.0 if trace.absent else -1.0
    return Part.of_turns(earned if reply.verdict == "absent" else 0.0 for reply in trace.replies)


def _false_positive(trace: Trace) -> Part:
    if not trace.absent:
        return Part(None)
    value = 0.0 if trace.final_empty else -1.0
    if not trace.replies:
        return Part(value)
    return Part.of_turns((*(0.0 for _ in trace.replies[:-1]), value))


def _step_cost(trace: Trace) -> Part:
    return Part.of_turns(-1.0 if reply.counts else 0.0 for reply in trace.replies)


def _format(trace: Trace) -> Part:
    return Part.of_turns(0.0 if reply.valid else -1.0 for reply in trace.replies)


PRESET = Preset(
    name="ibis",
    functions=(
        RewardFunction(
            "gain",
            _gain,
            "IoU after a reply minus IoU before it; sums to final - initial IoU; present targets only",
            "[-1, 1]",
            "ours (potential-based shaping)",
            per_turn=True,
        ),
        RewardFunction(
            "stop",
            _stop,
            f"at Terminate found: final IoU mapped from {LEAST_IOU}-{GOOD_IOU} to 0-1, if within {NEAR} of the run's "
            "best; present targets only",
            "[0, 1]",
            "ours",
            per_turn=True,
        ),
        RewardFunction(
            "refusal",
            _refusal,
            "at Terminate absent: +1 if the target is absent, -1 if it is present",
            "-1, 0, 1",
            "ours",
            per_turn=True,
        ),
        RewardFunction(
            "false_positive",
            _false_positive,
            "-1 at the last reply if the final mask is not empty; absent targets only",
            "-1, 0",
            "ours",
            per_turn=True,
        ),
        RewardFunction("step_cost", _step_cost, "-1 for every step", "-T", "ours", per_turn=True),
        RewardFunction(
            "format", _format, "-1 for every reply that was not a legal action", "-T to 0", "ours", per_turn=True
        ),
        RewardFunction("answer", answer, "as in `paper`", "0, 1, 2, 3", "paper", per_turn=False),
    ),
    always=("gain", "format"),
    weights={
        "gain": 1.0,
        "stop": 0.2,
        "refusal": 0.5,
        "false_positive": 0.5,
        "step_cost": 0.02,
        "format": 0.1,
        "answer": 0.0,
    },
)
"""Our reward."""

"""Preset ``paper``: the five published parts and their plain mean (arXiv 2601.03054).

As published: answer 3 / 2 / 1 / 0 for a final IoU > 0.80 / > 0.70 / > 0.50 / else; format 1 if every tag and
coordinate parses, else 0; click +1 for a positive click in a false-negative or a negative click in a false-positive
region of the mask before it, else -1; progress 1 if the IoU rose at this step, else 0; length 1 if T <= T_opt, else
-0.2 (T - T_opt), T_opt = 5. The reward is the mean of the five.

The publication scores single steps of stored runs. Here whole episodes are scored, so click and progress are means
over steps. Where it is silent, this is what was chosen:

- *Format* is one number an episode: one reply that is not carried out makes it 0.
- *Progress* is the mean over all steps T; a reply that was not carried out raised nothing.
- *Click* is the mean over click actions and over replies that were not carried out, which are no right click (-1);
  else a policy could write nonsense in place of a hard click. Several clicks in one action count with their mean.
  Boxes, undo and discard are no clicks and stay out of it: the published agent has none of them.
- *Terminate* is no step: it is not in T, and click and progress do not see it. So a stop costs nothing, and a click
  that misses and changes nothing after it would have lowered both means. But the published parts do not *reward* a stop
  either: where the clicks so far were worse than average, a useless click inside the missed region lifts the click
  mean, and stopping scores less than it. That is a property of the publication, kept here; preset ``ibis`` has no
  such case.
- *No step at all*: click and progress are 0, so that the mean stays one of five numbers.
- *Absent targets* are not in the published data (and there the IoU of empty with empty was 0). The answer part is 3
  for saying so and 0 otherwise; progress is 0, since no IoU is defined; a positive click is never right.
- An answer to a closed visual question is scored by :mod:`ibisagent.rewards.vqa`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ibisagent.rewards.rubric import Part, Preset, RewardFunction
from ibisagent.rewards.trace import Trace

__all__ = ["PRESET", "TABLE_5", "T_OPT", "answer"]

T_OPT = 5
"""Steps up to which nothing is taken off."""

TABLE_5: dict[str, str] = {
    "none": "paper:none",
    "click": "paper:click",
    "progress": "paper:progress",
    "length": "paper:length",
    "click+progress": "paper:click+progress",
    "click+length": "paper:click+length",
    "progress+length": "paper:progress+length",
    "all": "paper:all",
}
"""Rows of the published reward ablation (table 5) and the spec of each."""


def answer(trace: Trace) -> Part:
    """3, 2, 1 or 0 for the final mask; for an absent target 3 for saying so."""
    if trace.absent:
        return Part(3.0 if trace.refused else 0.0)
    final = trace.final_iou or 0.0
    return Part(float((final > 0.80) + (final > 0.70) + (final > 0.50)))


def _format(trace: Trace) -> Part:
    return Part(0.0 if trace.num_invalid else 1.0)


def _click(trace: Trace) -> Part:
    values: list[float | None] = []
    for reply in trace.replies:
        if not reply.valid:
            values.append(-1.0)
        elif reply.clicks_right:
            values.append(2 * sum(reply.clicks_right) / len(reply.clicks_right) - 1)
        else:
            values.append(None)
    return _mean(values)


def _progress(trace: Trace) -> Part:
    return _mean([float(_rose(r.iou_before, r.iou_after)) if r.counts else None for r in trace.replies])


def _rose(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after > before


def _length(trace: Trace) -> Part:
    steps = trace.num_steps
    return Part(1.0 if steps <= T_OPT else -0.2 * (steps - T_OPT))


def _mean(values: Sequence[float | None]) -> Part:
    """Mean of the numbers, as a share for every reply; 0 without any."""
    count = max(1, sum(value is not None for value in values))
    return Part.of_turns(0.0 if value is None else value / count for value in values)


PRESET = Preset(
    name="paper",
    functions=(
        RewardFunction(
            "answer",
            answer,
            "3 / 2 / 1 / 0 for final IoU > 0.80 / > 0.70 / > 0.50 / else; absent target: 3 if refused, else 0",
            "0, 1, 2, 3",
            "paper; absent targets ours",
            per_turn=False,
        ),
        RewardFunction(
            "format", _format, "1 if every reply was a legal action, else 0", "0, 1", "paper", per_turn=False
        ),
        RewardFunction(
            "click",
            _click,
            "mean over clicks and rejected replies: +1 for a click in the region that it corrects, else -1",
            "[-1, 1]",
            "paper; mean over steps ours",
            per_turn=True,
        ),
        RewardFunction(
            "progress",
            _progress,
            "mean over steps: 1 if the IoU rose, else 0",
            "[0, 1]",
            "paper; mean over steps ours",
            per_turn=True,
        ),
        RewardFunction(
            "length",
            _length,
            "1 if T <= 5, else -0.2 (T - 5), for T steps",
            "1, or -0.2 (T - 5)",
            "paper; T_opt from its code",
            per_turn=False,
        ),
    ),
    always=("answer", "format"),
    weights=None,
)
"""The published reward."""

"""Rewards: what an episode is worth as a training signal, part by part.

:func:`trace_episode` states the facts of every reply against the target; reward functions read those facts;
:func:`load_rubric` weighs them. A run that a tool or the policy's server broke earns nothing at all: it is excluded.
"""

from __future__ import annotations

from ibisagent.rewards.paper import TABLE_5
from ibisagent.rewards.rubric import PRESETS, Breakdown, Part, RewardFunction, Rubric, load_rubric, means
from ibisagent.rewards.trace import ReplyFacts, Trace, trace_episode
from ibisagent.rewards.vqa import exact_match, score_answer

__all__ = [
    "PRESETS",
    "TABLE_5",
    "Breakdown",
    "Part",
    "ReplyFacts",
    "RewardFunction",
    "Rubric",
    "Trace",
    "exact_match",
    "load_rubric",
    "means",
    "score_answer",
    "trace_episode",
]

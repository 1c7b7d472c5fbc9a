"""An arm: one named way to play a case list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["AGENT", "KINDS", "Arm", "Kind", "slug"]

Kind = Literal["agent", "baseline", "ceiling", "robustness", "wording", "ablation", "segmenter", "policy"]

KINDS: tuple[Kind, ...] = (
    "agent", "baseline", "ceiling", "robustness", "wording", "ablation", "segmenter", "policy",
)  # fmt: skip
"""The kinds, in the order of reports."""

AGENT = "agent"
"""Name of the arm that every lab has: the policy, the segmenter and the list as they are."""


@dataclass(frozen=True)
class Arm:
    """What to play, and what to hold it against.

    Parameters
    ----------
    name
        Of its folder: lower-case letters, digits, ``-``.
    kind
        What it answers.
    title
        For tables and plots.
    about
        One sentence: what differs from the plain run.
    policy
        Name of a baseline (:data:`~ibisagent.evaluate.arms.players.BASELINES`), ``"oracle"``, or a policy's spec; None
        is the lab's own policy.
    segmenter
        A segmenter's spec; None is the lab's own.
    condition
        What is done to each case (:data:`~ibisagent.evaluate.arms.conditions.CONDITIONS`, or ``"wording:STAGE:NAME"``);
        None plays the cases as they are.
    rollout
        Settings of :class:`ibisagent.config.RolloutConfig` that differ from the lab's.
    against
        Name of the arm that it is compared with case by case; None where the cases are others.
    cases
        A case list of its own; None is the lab's.
    """

    name: str
    kind: Kind
    title: str
    about: str
    policy: str | None = None
    segmenter: str | None = None
    condition: str | None = None
    rollout: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = AGENT
    cases: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name):
            raise ValueError(f"an arm's name has lower-case letters, digits and '-', not {self.name!r}")

    def to_json(self) -> dict[str, Any]:
        """What ``lab.json`` says of it."""
        return {
            "kind": self.kind,
            "title": self.title,
            "about": self.about,
            "policy": self.policy,
            "segmenter": self.segmenter,
            "condition": self.condition,
            "rollout": dict(self.rollout),
            "against": self.against,
            "cases": None if self.cases is None else self.cases.name,
        }


def slug(text: str) -> str:
    """A text as a part of an arm's name.

    Examples
    --------
    >>> slug("vlm:/models/Qwen2.5-VL")
    'vlm-qwen2-5-vl'
    """
    kind, colon, rest = text.partition(":")
    last = rest.rstrip("/").rpartition("/")[2]
    words = re.findall(r"[a-z0-9]+", f"{kind} {last}".lower() if colon else text.lower())
    return "-".join(words)[:60] or "x"

"""What a build says of itself: counts, every fault and every drop with its reason, and how reasoning fared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.rendering.png import write_atomic

if TYPE_CHECKING:
    from ibisagent.engine.builder.config import SynthesisConfig
    from ibisagent.engine.builder.plan import Plan

__all__ = ["Report", "write_lines"]


class Report:
    """Adds up the shards' notes. Nothing in it depends on time or machine.

    Parameters
    ----------
    config
        Settings of the build.
    plan
        What was planned.
    notes
        Notes of all shards, in the plan's order.
    """

    def __init__(self, config: SynthesisConfig, plan: Plan, notes: Iterable[Mapping[str, Any]]) -> None:
        self.config, self.plan = config, plan
        self.faults: list[dict[str, str]] = [vars(fault) | {} for fault in plan.faults]
        self.drops: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self.unread: list[str] = []
        self.reasoning: Counter[str] = Counter()
        self.num_trajectories = 0
        for note in notes:
            self.num_trajectories += len(note["trajectories"])
            for unit in note["units"]:
                self.faults += unit["faults"]
                self.drops += unit["drops"]
                self.reasoning.update(unit["reasoning"])
                if unit["record"] is None:
                    self.unread.append(unit["sample"])
                else:
                    self.records.append(unit["record"])
            self.drops += [
                {"sample": "", "target": "", "scenario": "", "reason": "rejected_by_person", "value": None, "id": name}
                for name in note["rejected"]
            ]

    @property
    def drops_by_reason(self) -> dict[str, int]:
        """``scenario: reason`` -> number, most frequent first."""
        counts = Counter(f"{d['scenario']}: {d['reason']}" if d["scenario"] else d["reason"] for d in self.drops)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def faults_by_code(self) -> dict[str, int]:
        """Code -> number."""
        return dict(sorted(Counter(fault["code"] for fault in self.faults).items()))

    def facts(self) -> dict[str, Any]:
        """All of it but the single faults and drops, for ``report.json`` and the data card."""
        asked, written, rejected = (self.reasoning[name] for name in ("asked", "written", "rejected"))
        if self.reasoning["teacher: replies"]:  # a chat teacher has its own replies checked before it gives one
            written += self.reasoning["teacher: refused"]
            rejected += self.reasoning["teacher: refused"]
        return {
            "config": self.config.model_dump(mode="json"),
            "config_sha256": self.config.sha256,
            "num_samples": len(self.plan.samples),
            "num_images": len(self.records),
            "num_trajectories": self.num_trajectories,
            "faults": self.faults_by_code,
            "drops": self.drops_by_reason,
            "reasoning": {
                **dict(sorted(self.reasoning.items())),
                "rejection_rate": round(rejected / written, 4) if written else None,
                "given_up_rate": round(self.reasoning["given_up"] / asked, 4) if asked else None,
            },
        }


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, atomically."""
    write_atomic("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(), path)

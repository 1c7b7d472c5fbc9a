"""What ``ibisagent evaluate`` says of a run that has been played or scored again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ibisagent.evaluate.result import CaseResult

__all__ = ["report", "report_protocol", "say"]


def report(summary: dict[str, Any], results: Sequence[CaseResult], out: Path) -> None:
    """The main figures, and which lines of the list could not be played."""

    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    interval = summary["ci95_iou"]
    spread = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    lines = [
        f"{summary['num_cases']} cases, {summary['num_errors']} errors, {show(summary['seconds_per_case'])} s a case",
        f"mean IoU {show(summary['mean_iou'])}{spread}, Dice {show(summary['mean_dice'])}, "
        f"mean over targets {show(summary['target_mean_iou'])}",
        f"action validity {show(summary['action_validity'])}, steps {show(summary['mean_steps'])}, "
        f"refinements that helped {show(summary['refinement_success'])}",
        f"right refusals {show(summary['right_refusals'])}, false refusals {show(summary['false_refusals'])}",
    ]
    unread = [r for r in results if r.error and r.episode is None]
    if unread:
        numbers = [str(r.line) for r in unread if r.line is not None]
        more = "" if len(numbers) <= 20 else f" and {len(numbers) - 20} more"
        where = f" (line{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:20])}{more})" if numbers else ""
        lines.append(f"{len(unread)} of them could not be played{where}: cases.csv says why; they count as errors")
    say("\n".join([*lines, f"written to {out}"]))


def report_protocol(table: dict[str, Any], out: Path) -> None:
    """A protocol's figures, with their intervals."""
    from ibisagent.evaluate.protocols.apply import table_name

    def show(one: dict[str, Any]) -> str:
        if one["value"] is None:
            return "-"
        ends = "" if one["ci95"] is None else f" [{one['ci95'][0]:.3f}, {one['ci95'][1]:.3f}]"
        return f"{one['value']:.3f}{ends}"

    lines = [f"{table['title']}: {table['num_cases']} cases"]
    lines += [f"left out: {number} ({reason})" for reason, number in table["left_out"].items()]
    if table["clusters"]["warning"]:
        lines.append(f"intervals: {table['clusters']['warning']}")
    for name, one in table["overall"].items():
        title = table["figures"][name]["title"]
        if "drop" in one:
            shown = f"in {show(one['in'])}, out {show(one['out'])}, drop {show(one['drop'])}"
        else:
            shown = show(one)
        lines.append(f"  {title}: {shown}")
    say("\n".join([*lines, f"table in {out / table_name(table['protocol'])}"]))


def say(text: str) -> None:
    """Lines for people, on standard error."""
    print(text, file=sys.stderr, flush=True)

"""What ``ibisagent evaluate`` says of a run that has been played or scored again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ibisagent.evaluate.report.model import Scale
    from ibisagent.evaluate.result import CaseResult

__all__ = ["report", "report_protocol", "say"]


def report(summary: dict[str, Any], results: Sequence[CaseResult], out: Path) -> None:
    """The main figures, and which lines of the list could not be played."""
    from ibisagent.evaluate.report.numbers import count_text, value_text
    from ibisagent.evaluate.report.scales import figure_scale, figure_value

    unit, warning = summary["intervals"]["unit"], summary["intervals"]["warning"]

    def show(name: str, data: dict[str, Any] | None = None) -> str:
        return value_text(figure_value(data or summary["figures"][name], unit, name), figure_scale(name))

    lines = [
        f"{count_text(summary['num_cases'], 'case')}, {count_text(summary['num_errors'], 'error')}"
        + ("" if summary["seconds_per_case"] is None else f", {summary['seconds_per_case']:.3g} s a case"),
        f"mean IoU {show('iou')}, Dice {show('dice')}",
        f"mean IoU over {count_text(len(summary['per_target']), 'pair')} of group and target "
        f"{show('iou', summary['target_mean']['iou'])}, "
        f"over target names {show('iou', summary['target_name_mean']['iou'])}",
        f"action validity {show('action_validity')}, steps {show('steps')}, "
        f"refinements that helped {show('refinement_success')}",
        f"right refusals {show('right_refusals')}, false refusals {show('false_refusals')}",
    ]
    if warning:
        lines.append(f"intervals: {warning}")
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
    from ibisagent.evaluate.report.model import Value
    from ibisagent.evaluate.report.numbers import count_text, value_text
    from ibisagent.evaluate.report.protocol_section import protocol_scale

    def show(one: dict[str, Any], scale: Scale) -> str:
        return value_text(Value.of(one), scale)

    lines = [f"{table['title']}: {count_text(table['num_cases'], 'case')}"]
    lines += [f"left out: {number} ({reason})" for reason, number in table["left_out"].items()]
    if table["clusters"]["warning"]:
        lines.append(f"intervals: {table['clusters']['warning']}")
    for name, one in table["overall"].items():
        scale = protocol_scale(name, table)
        if "drop" in one:
            inside, outside, drop = (
                show(one["in"], scale),
                show(one["out"], scale),
                show(one["drop"], scale.difference()),
            )
            shown = f"in {inside}, out {outside}, drop {drop}"
        else:
            shown = show(one, scale)
        lines.append(f"  {scale.title}: {shown}")
    say("\n".join([*lines, f"table in {out / table_name(table['protocol'])}"]))


def say(text: str) -> None:
    """Lines for people, on standard error."""
    print(text, file=sys.stderr, flush=True)

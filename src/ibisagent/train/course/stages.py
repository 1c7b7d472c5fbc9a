"""What the rows of the two tables are, and how each comes from those before it."""

from __future__ import annotations

from dataclasses import dataclass

from ibisagent.errors import InputError
from ibisagent.rewards.paper import TABLE_5

__all__ = ["ROWS", "STAGES", "Row", "cell_name", "row_named"]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Parameters
    ----------
    name
        ``sft+rl``, or ``reward-click`` and the like.
    table
        ``stages`` or ``rewards``.
    start
        What its training begins with: another row of the stages; None makes it itself.
    part
        What it adds: ``base``, ``sft``, ``reflection`` or ``rl``.
    reward
        Of ``rl``.
    paper_iou, paper_steps
        The published in-house figures, IoU in percent.
    """

    name: str
    table: str
    start: str | None
    part: str
    reward: str | None = None
    paper_iou: float | None = None
    paper_steps: float | None = None


_OURS = "ibis:step_cost=0.005,refusal=1"
"""At the default cost of a step, minutes of training teach to stop after one click and little else."""

STAGES: tuple[Row, ...] = (
    Row("base", "stages", None, "base", paper_iou=11.77),
    Row("sft", "stages", "base", "sft", paper_iou=53.42),
    Row("reflection", "stages", "base", "reflection", paper_iou=57.16),
    Row("rl", "stages", "base", "rl", _OURS, paper_iou=62.77),
    Row("sft+rl", "stages", "sft", "rl", _OURS, paper_iou=68.92),
    Row("all", "stages", "reflection", "rl", _OURS, paper_iou=72.09),
)
"""Table 4. The stages are trained with our rubric: the published one has a hole (docs/rewards.md), and table 5 is
about it."""

_PAPER_5 = {
    "none": (68.96, 13.44), "click": (70.45, 12.74), "progress": (70.62, 10.07), "length": (69.03, 7.22),
    "click+progress": (72.05, 9.68), "click+length": (70.75, 6.49), "progress+length": (71.16, 5.43),
    "all": (72.09, 4.89),
}  # fmt: skip

REWARDS: tuple[Row, ...] = tuple(
    Row(f"reward-{name}", "rewards", "reflection", "rl", spec, *_PAPER_5[name]) for name, spec in TABLE_5.items()
)
"""Table 5: all rows from the same SFT with reflection of their seed, as the published ones."""

ROWS: dict[str, Row] = {row.name: row for row in (*STAGES, *REWARDS)}


def row_named(name: str) -> Row:
    """A row by name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in ROWS:
        raise InputError(f"there is no cell '{name}'; there are {', '.join(ROWS)}")
    return ROWS[name]


def cell_name(row: str, seed: int) -> str:
    """``sft+rl-seed0``: a cell's file without its ending."""
    return f"{row}-seed{seed}"

"""A protocol: which cases, how they are played, and which figures with which conventions.

A protocol is not another evaluation. Its cases come from the same lists, are played by the same rollout, and end as the
same :class:`~ibisagent.evaluate.result.CaseResult`; its figures are those of :mod:`ibisagent.evaluate.figures` by the
same names, or a few of its own where the published rule has no such name. So the run's folder is an ordinary one, and
the protocol's table can be made of it again without a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ibisagent.engine.sources.options import Options
from ibisagent.evaluate.figures import FIGURES, CaseFigures, Figure, case_figures
from ibisagent.evaluate.protocols.tables import FigureTable
from ibisagent.io import CaseRow, RowError

if TYPE_CHECKING:
    from ibisagent.config import RolloutConfig
    from ibisagent.evaluate.case_list import Sentences
    from ibisagent.evaluate.result import CaseResult

__all__ = ["ABSENT", "Protocol", "Selection"]

ABSENT = "the target is absent"
"""Why a row has no part in a protocol that asks for present targets alone."""


@dataclass(frozen=True)
class Selection:
    """The rows that a protocol plays.

    Parameters
    ----------
    rows
        In the list's order; rows that cannot be used stay, for they count as errors.
    left_out
        Reason → number of rows that the protocol has no part for.
    """

    rows: tuple[CaseRow | RowError, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


class Protocol:
    """The usual way: all cases, the policy and the segmenter that are given, figures by name.

    Parameters
    ----------
    values
        Options of the spec ``NAME?option=value&option=value``.

    Raises
    ------
    InputError
        If an option is not known or has a wrong value.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    about: ClassVar[str] = ""
    """Which cases, how they are played, which figures: a few sentences for the report."""
    conventions: ClassVar[tuple[str, ...]] = ()
    """What decides how a number compares with a published one, a sentence each."""
    option_names: ClassVar[tuple[str, ...]] = ()
    figure_names: ClassVar[tuple[str, ...]] = ()
    """Names in :data:`~ibisagent.evaluate.figures.FIGURES`."""
    sentences: ClassVar[Sentences] = "first"
    """Which of a data set's own sentences are instructions."""
    with_absent: ClassVar[bool] = True
    """Whether cases whose target is absent have a part in it."""
    only_reads: ClassVar[bool] = False
    """Whether it tells the agent what any run tells it, so that its table can be read off a run of no protocol."""
    from_nothing: ClassVar[bool] = False
    """Whether masks that rows give to start from are left aside."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self.values = dict(values or {})
        self.options = Options(self.name, self.values, self.option_names, common=(), noun="protocol")

    @property
    def figures(self) -> dict[str, Figure]:
        """What the protocol reports, in the order of its table."""
        return {name: FIGURES[name] for name in self.figure_names}

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Least and largest value of figures that are no shares."""
        return {}

    def facts(self) -> dict[str, Any]:
        """For ``run.json``: what the results depend on, and what makes the table again."""
        return {"name": self.name, "options": dict(sorted(self.values.items()))}

    def select(self, rows: Sequence[CaseRow | RowError], seed: int) -> Selection:
        """The rows to play, with the protocol's instructions in them.

        Parameters
        ----------
        rows
            Of the case list.
        seed
            Of the run; draws instructions.
        """
        kept: list[CaseRow | RowError] = []
        left_out: Counter[str] = Counter()
        for row in rows:
            if isinstance(row, RowError):
                kept.append(row)
            elif row.mask is None and not self.with_absent:
                left_out[ABSENT] += 1
            else:
                told = self.tell(self._bare(row), seed)
                if isinstance(told, str):
                    left_out[told] += 1
                else:
                    kept.append(told)
        return Selection(tuple(kept), dict(sorted(left_out.items())))

    def tell(self, row: CaseRow, seed: int) -> CaseRow | str:
        """The row with the protocol's instruction, or why it has no part in the protocol."""
        return row

    def _bare(self, row: CaseRow) -> CaseRow:
        if row.initial_mask is None or not self.from_nothing:
            return row
        return row.model_copy(update={"initial_mask": None, "instruction": None})  # which speaks of that mask

    def config(self, config: RolloutConfig) -> RolloutConfig:
        """The rollout's settings under this protocol."""
        return config

    @property
    def policy(self) -> str | None:
        """Spec of the policy that plays; None is the one that the user names."""
        return None

    def case_figures(self, result: CaseResult) -> CaseFigures:
        """Numbers and weights of one case, for the names of :attr:`figures`."""
        found = case_figures(result) if self.with_absent or not result.absent else {}
        return {name: found[name] for name in self.figure_names if name in found}

    def weights(self, results: Sequence[CaseResult]) -> Sequence[float]:
        """How much each of some cases counts in a mean over them; here 1."""
        return [1.0] * len(results)

    def summarise(self, results: Sequence[CaseResult], left_out: Mapping[str, int] | None = None) -> dict[str, Any]:
        """The protocol's table.

        Parameters
        ----------
        results
            Scored.
        left_out
            From :meth:`select`.

        Returns
        -------
        dict
            ``protocol``, ``title``, ``about``, ``conventions``, ``options``; ``figures``: name → title and about;
            ``num_cases``, ``num_errors``, ``left_out``; ``clusters``: unit, number and warning of the intervals;
            ``overall``, ``by_modality``, ``by_target``, ``by_source``: name → an estimate as
            :meth:`ibisagent.evaluate.statistics.Estimate.to_json` has it; ``target_name_mean``: likewise, of shares,
            the mean over target names of what ``by_target`` says. Figures that no case has are missing.
        """
        table = self.table(results)
        return {
            **self._head(results, left_out),
            "clusters": table.clusters_json(),
            "overall": table.row(),
            "target_name_mean": table.target_means(),
            **{f"by_{by}": table.rows(by) for by in ("modality", "target", "source")},
        }

    def table(self, results: Sequence[CaseResult]) -> FigureTable:
        """All cases' figures, ready to be averaged over any part of them."""
        figures = [self.case_figures(result) for result in results]
        return FigureTable(results, figures, self.weights, self.bounds)

    def _head(self, results: Sequence[CaseResult], left_out: Mapping[str, int] | None) -> dict[str, Any]:
        return {
            "protocol": self.name,
            "title": self.title,
            "about": self.about,
            "conventions": list(self.conventions),
            "options": dict(sorted(self.values.items())),
            "figures": {
                name: {"title": f.title, "about": f.about, "percent": f.percent, "unit": f.unit}
                for name, f in self.figures.items()
            },
            "num_cases": len(results),
            "num_errors": sum(bool(result.error) for result in results),
            "left_out": dict(left_out or {}),
        }

"""What a lab says: every arm's figures, what differs from the plain run, and how much of it is the policy's doing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.evaluate.arms.arm import AGENT
from ibisagent.evaluate.arms.ceiling import ORACLE, best_iou, ceilings_of
from ibisagent.evaluate.arms.ratio import ratio_of_means
from ibisagent.evaluate.arms.recovery import recovery
from ibisagent.evaluate.figures import HEADLINE, case_figures
from ibisagent.evaluate.statistics import Clusters, Difference, cluster_unit, estimate, holm, macro_estimate, paired
from ibisagent.evaluate.summary import figures_with_intervals

if TYPE_CHECKING:
    from ibisagent.evaluate.arms.lab import Lab
    from ibisagent.evaluate.figure import CaseFigures
    from ibisagent.evaluate.result import CaseResult

__all__ = ["COMPARED", "SHOWN", "lab_lines", "lab_summary"]

SHOWN = (*HEADLINE, "ceiling_share", "premature_stops", "premature_vs_ceiling", "out_of_steps", "tokens", "seconds")
"""Figures of every arm."""

COMPARED = ("iou", "dice", "steps", "false_refusals")
"""Figures of which an arm's difference is told, case by case; beside them ``target_mean_iou``."""

_EXCHANGES = 1000

NO_LOOK = "no-look"

Figured = dict[str, "CaseFigures"]


class _Arms:
    """The results of a lab's arms by case, with one cluster a case for all of them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.results = {name: run.results for name, run in lab.arms.items()}
        # The plain run's unit for all arms: what else was played, such as an absent list, changes no interval of it.
        agent = self.results.get(AGENT) or [r for results in self.results.values() for r in results]
        self.unit: Clusters = cluster_unit(agent)
        of_image = {r.image: label for r, label in zip(agent, self.unit.labels, strict=True) if r.image}
        self.labels = {
            name: [_label(r, self.unit, of_image) for r in results] for name, results in self.results.items()
        }
        self.figures: dict[str, list[CaseFigures]] = {}
        for name, results in self.results.items():
            ceilings, steps = ceilings_of(lab, name), lab.arms[name].max_steps
            self.figures[name] = [
                case_figures(r, max_steps=steps, ceiling_iou=ceilings.get(r.case_id or "")) for r in results
            ]

    def by_id(self, name: str) -> dict[str, CaseResult]:
        """Results of an arm by case id; rows without one are left out."""
        return {r.case_id: r for r in self.results.get(name, []) if r.case_id is not None}

    def cluster_of(self, name: str) -> dict[str, str]:
        """Clusters of an arm by case id."""
        pairs = zip(self.results.get(name, []), self.labels.get(name, []), strict=True)
        return {r.case_id: label for r, label in pairs if r.case_id is not None}

    def numbers(self, name: str, figure: str) -> dict[str, tuple[float, float]]:
        """(number, weight) of a figure by case id."""
        pairs = zip(self.results[name], self.figures[name], strict=True)
        return {r.case_id: found[figure] for r, found in pairs if r.case_id is not None and figure in found}


def _label(result: CaseResult, unit: Clusters, of_image: Mapping[str, str]) -> str:
    """The cluster of a case of any arm; `of_image` has those of the plain run's images."""
    if unit.unit != "case" and result.image:
        other = result.patient if unit.unit == "patient" and result.patient else f"image {result.image}"
        return of_image.get(result.image, other)
    return f"case {result.case_id or result.line}"


def lab_summary(lab: Lab) -> dict[str, Any]:
    """The figures of a lab; the same for the same episodes, whenever and wherever it is asked.

    Parameters
    ----------
    lab
        Finished or not.

    Returns
    -------
    dict
        ``clusters``: ``unit``, ``number``, ``warning``. ``arms`` by name: what ``lab.json`` says of it, ``num_cases``,
        ``num_errors``, ``complete``, ``figures`` (:data:`SHOWN`, each as
        :meth:`~ibisagent.evaluate.statistics.Estimate.to_json`), ``target_mean_iou`` (likewise), ``difference``: for
        :data:`COMPARED` and ``target_mean_iou`` the arm less ``against`` over the cases of both (as
        :meth:`~ibisagent.evaluate.statistics.Difference.to_json`, with ``p_holm``, corrected over all figures of all
        arms; ``minimum_detectable`` is for that correction), and for robustness on present targets ``recovery``
        (:func:`~ibisagent.evaluate.arms.recovery.recovery`).
        ``ceiling``, ``absent``, ``wording``: see the functions that make them; None where their arms are missing.
    """
    arms = _Arms(lab)
    told: dict[str, Any] = {name: _arm(arms, name) for name in lab.facts["arms"]}
    gaps = [about["difference"] for about in told.values() if "difference" in about]
    compared = [(gap, name, found) for gap in gaps for name, found in gap.items() if isinstance(found, Difference)]
    p_values = [found.p for _, _, found in compared]
    tests = max(1, sum(p is not None for p in p_values))
    for (gap, name, found), p in zip(compared, holm(p_values), strict=True):
        gap[name] = {**found.among(tests).to_json(), "p_holm": p}
    return {
        "schema_version": 1,
        "settings": {name: value for name, value in lab.facts.items() if name not in ("arms", "schema_version")},
        "complete": lab.is_complete,
        "clusters": {"unit": arms.unit.unit, "number": arms.unit.number, "warning": arms.unit.warning},
        "arms": told,
        "ceiling": _ceiling(arms),
        "absent": _absent(arms),
        "wording": _wording(arms, told),
    }


def _arm(arms: _Arms, name: str) -> dict[str, Any]:
    about = dict(arms.lab.about(name))
    results = arms.results.get(name)
    if results is None:
        return {**about, "num_cases": 0, "num_errors": 0, "complete": False, "figures": {}}
    figures = figures_with_intervals(arms.figures[name], arms.labels[name], SHOWN)
    figures = {figure: found for figure, found in figures.items() if found["n"]}
    about |= {
        "num_cases": len(results),
        "num_errors": sum(bool(r.error) for r in results),
        "complete": arms.lab.arms[name].is_complete,
        "figures": figures,
    }
    present = [(r, label) for r, label in zip(results, arms.labels[name], strict=True) if not r.absent]
    if present:
        about["target_mean_iou"] = macro_estimate(
            [r.iou or 0.0 for r, _ in present], None, [label for _, label in present], [r.pair for r, _ in present]
        ).to_json()
    against = about.get("against")
    if isinstance(against, str) and against in arms.results and present:
        about["difference"] = _difference(arms, name, against)
    if about.get("kind") == "robustness" and present and isinstance(about.get("condition"), str):
        about["recovery"] = recovery(results, arms.by_id(AGENT), arms.cluster_of(name))
    return about


def _difference(arms: _Arms, name: str, against: str) -> dict[str, Any]:
    """The arm less another, over the cases that both have: ``against``, and a Difference by figure."""
    found: dict[str, Any] = {"against": against}
    clusters, targets = arms.cluster_of(name), {c: r.pair for c, r in arms.by_id(name).items()}
    for figure in (*COMPARED, "target_mean_iou"):
        of = "iou" if figure == "target_mean_iou" else figure
        a, b = arms.numbers(against, of), arms.numbers(name, of)
        common = [case for case in b if case in a]
        sides = [([side[c][0] for c in common], [side[c][1] for c in common]) for side in (a, b)]
        macro = [targets[c] for c in common] if figure == "target_mean_iou" else None
        found[figure] = paired(sides[0], sides[1], [clusters[c] for c in common], macro)
    return found


def _ceiling(arms: _Arms) -> dict[str, Any] | None:
    """How much of what the tool can do the policy gets out of it, over present targets that all three arms played.

    ``share_of_ceiling`` is (agent - no-look) / (oracle - no-look), ``agent_over_oracle`` is agent / oracle; each
    ``cases`` (means over cases) and ``targets`` (means over targets of their means). Without the arm no-look the first
    is None. Both hold the agent against the oracle's last mask; with ``_best``, against the best mask of the oracle's
    run, which is the ceiling of all other figures.
    """
    agent, oracle, blind = (arms.by_id(name) for name in (AGENT, ORACLE, NO_LOOK))
    common = [c for c, r in agent.items() if not r.absent and c in oracle and (c in blind or not blind)]
    if not common:
        return None
    clusters = arms.cluster_of(AGENT)
    labels, targets = [clusters[c] for c in common], [agent[c].pair for c in common]
    mine, last, low = ([(by[c].iou or 0.0) if by else 0.0 for c in common] for by in (agent, oracle, blind))
    best, none = [best_iou(oracle[c]) or 0.0 for c in common], [0.0] * len(common)

    def share(reached: Sequence[float], floor: Sequence[float]) -> dict[str, Any]:
        """The share of the way from `floor` to `reached` that the agent goes."""
        above = [m - f for m, f in zip(mine, floor, strict=True)]
        below = [r - f for r, f in zip(reached, floor, strict=True)]
        return {
            "cases": ratio_of_means(above, below, labels),
            "targets": ratio_of_means(above, below, labels, targets),
        }

    return {
        "n": len(common),
        "agent_iou": float(np.mean(mine)),
        "oracle_iou": float(np.mean(last)),
        "oracle_best_iou": float(np.mean(best)),
        "no_look_iou": float(np.mean(low)) if blind else None,
        "share_of_ceiling": share(last, low) if blind else None,
        "share_of_ceiling_best": share(best, low) if blind else None,
        "agent_over_oracle": share(last, none),
        "agent_over_oracle_best": share(best, none),
        "premature_stops": arms_figure(arms, AGENT, "premature_vs_ceiling"),
    }


def _absent(arms: _Arms) -> dict[str, Any] | None:
    """The figures of absent targets by name and arm, and of the plain run those of present ones beside them.

    ``right_refusals`` (called absent) and ``specificity`` (nothing marked) by arm, ``false_refusals`` and
    ``sensitivity`` of the arm ``agent``; all as :data:`~ibisagent.evaluate.figures.FIGURES` says them. Absent rows of
    the list itself count in the arm ``agent``. None where no arm has an absent target.
    """
    found: dict[str, Any] = {"right_refusals": {}, "specificity": {}}
    for name in arms.results:
        if arms.lab.about(name).get("kind") in ("agent", "robustness", "policy", "segmenter"):
            for figure, by_arm in found.items():
                value = arms_figure(arms, name, figure)
                if value is not None:
                    by_arm[name] = value
    if not found["right_refusals"]:
        return None
    return {**found, **{figure: arms_figure(arms, AGENT, figure) for figure in ("false_refusals", "sensitivity")}}


def _wording(arms: _Arms, told_of: Mapping[str, Any]) -> dict[str, Any] | None:
    """By stage: the categories (their arms' names and paired differences in IoU), and how much wording matters.

    ``within_case_sd``: the standard deviation (n - 1) of a case's IoU over the wordings that it was told in, averaged
    over the cases with two or more. ``largest_difference``: between two categories' paired differences; the largest of
    many is never 0, so ``largest_by_chance`` is what it is on average where wordings do not matter: where the IoU of
    each case are exchanged among the wordings that it was told in.
    """
    stages: dict[str, Any] = {}
    for stage in ("start", "refine"):
        start = f"wording:{stage}:"
        names = {
            str(arms.lab.about(name)["condition"]).removeprefix(start): name
            for name in arms.results
            if str(arms.lab.about(name).get("condition") or "").startswith(start)
        }
        if not names:
            continue
        against = str(arms.lab.about(next(iter(names.values()))).get("against"))
        told: dict[str, list[float]] = {}
        clusters: dict[str, str] = {}
        for name in names.values():
            clusters |= arms.cluster_of(name)
            for case, r in arms.by_id(name).items():
                told.setdefault(case, []).append(r.iou or 0.0)
        several = {case: values for case, values in told.items() if len(values) > 1}
        spread = estimate(
            [float(np.std(v, ddof=1)) for v in several.values()], None, [clusters[c] for c in several]
        ).to_json()
        categories: dict[str, Any] = {}
        for category, name in names.items():
            gap = told_of[name].get("difference", {}).get("iou")
            categories[category] = {"arm": name, "n": len(arms.results[name]), "difference": gap}
        gaps = [c["difference"]["difference"] for c in categories.values() if c["difference"] is not None]
        gaps = [gap for gap in gaps if gap is not None]
        stages[stage] = {
            "against": against,
            "categories": categories,
            "within_case_sd": spread,
            "largest_difference": max(gaps) - min(gaps) if gaps else None,
            "largest_by_chance": _largest_by_chance(arms, list(names.values()), against) if gaps else None,
        }
    return stages or None


def _largest_by_chance(arms: _Arms, names: Sequence[str], against: str) -> float:
    plain, rows = arms.numbers(against, "iou"), []
    for number, name in enumerate(names):
        rows += [(c, number, iou - plain[c][0]) for c, (iou, _) in arms.numbers(name, "iou").items() if c in plain]
    rows.sort(key=lambda row: row[0])
    case = np.unique([c for c, _, _ in rows], return_inverse=True)[1]
    category, change = np.array([n for _, n, _ in rows]), np.array([change for *_, change in rows])
    counts, rng, found = np.bincount(category), np.random.default_rng(0), []
    for _ in range(_EXCHANGES):
        exchanged = change[np.lexsort((rng.random(len(rows)), case))]  # within the case, which is sorted already
        means = np.bincount(category, exchanged)[counts > 0] / counts[counts > 0]
        found.append(float(means.max() - means.min()))
    return float(np.mean(found))


def arms_figure(arms: _Arms, name: str, figure: str) -> dict[str, Any] | None:
    """One figure of an arm with its interval, None where no case has it."""
    found = arms.numbers(name, figure) if name in arms.results else {}
    if not found:
        return None
    clusters = arms.cluster_of(name)
    return estimate(
        [n for n, _ in found.values()], [w for _, w in found.values()], [clusters[c] for c in found]
    ).to_json()


# -- for the terminal ------------------------------------------------------------------------------


def lab_lines(summary: Mapping[str, Any]) -> list[str]:
    """A lab's summary as a few lines of text, one an arm."""
    width = max(len(name) for name in summary["arms"])
    lines = [f"{'arm':{width}}    n  IoU                   less the arm it is held against"]
    for name, about in summary["arms"].items():
        if about.get("skipped"):
            lines.append(f"{name:{width}}    -  not played: {about['skipped']}")
            continue
        absent = about["figures"].get("right_refusals")
        shown = _range(about["figures"].get("iou")) if about["figures"].get("iou") else ""
        if absent and not shown:
            shown = f"called absent {_range(absent)}"
        gap = about.get("difference")
        told = "" if gap is None else f"{_range(gap['iou'], 'difference', sign='+')} ({gap['against']})"
        back = about.get("recovery")
        told += f", recovered {_range(back['recovery'])}" if back else ""
        lines.append(f"{name:{width}} {about['num_cases']:4d}  {shown:21} {told}".rstrip())
    ceiling = summary.get("ceiling")
    if ceiling is not None:
        for end, which in (("", "last"), ("_best", "best")):
            of = ceiling[f"share_of_ceiling{end}"]
            parts = [f"agent / oracle {_range(ceiling[f'agent_over_oracle{end}']['cases'])}"]
            parts += [] if of is None else [f"(agent - no-look) / (oracle - no-look) {_range(of['cases'])}"]
            lines.append(f"share of the ceiling, the oracle's {which} mask: " + ", ".join(parts))
    lines += [f"warning: {name}: {about['leakage']}" for name, about in summary["arms"].items() if about.get("leakage")]
    if summary["settings"].get("subset"):
        lines.append("a subset of the list: rare targets have a larger part in it, so its means are not the list's")
    warning = summary["clusters"]["warning"]
    lines += [f"intervals: {warning}"] if warning else []
    return lines


def _range(found: Mapping[str, Any] | None, key: str = "value", sign: str = "") -> str:
    if not found or found.get(key) is None:
        return "-"
    ends = found.get("ci95")
    spread = "" if ends is None else f" [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"
    return f"{found[key]:{sign}.3f}{spread}"

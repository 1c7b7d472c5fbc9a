"""The end of a report: the conventions behind its numbers, and everything that making the run again needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ibisagent.evaluate.report.model import Facts, Section
from ibisagent.evaluate.report.numbers import sentence

__all__ = ["appendix_section", "leakage_text", "run_facts"]

_CONVENTIONS = (
    (
        "Averages",
        "A figure is the sum of its numbers over the sum of their weights, over the cases that have it. What is "
        "undefined in a case is left out of it: neither zero nor a case that counts.",
    ),
    (
        "Failures",
        "An error, an unreadable row of a present target and a false refusal score IoU and Dice 0. Absent targets "
        "have no IoU; they count in the refusals.",
    ),
    (
        "Shares",
        "Shares are in percent, their differences in percentage points. Regret and gains are differences of IoU, "
        "in points.",
    ),
    (
        "Intervals",
        "95% intervals, in square brackets, take whole clusters as independent: all cases of one patient (or of one "
        "image, where patients are few) come and go together. From ten clusters on they draw clusters again "
        "(bootstrap-t); below, they are Student's t. Instead, shares that fewer than ten clusters keep from 0 or 100%, "
        "and yes or no with one case a cluster, have Wilson's interval, and shares of exactly 0 or 100% Clopper and "
        "Pearson's. 'All figures' says which it was; report.json says it of every number that is no difference.",
    ),
)

_SETTINGS = (
    ("cases", "case list"),
    ("cases_sha256", "case list sha256"),
    ("split", "split"),
    ("limit", "first rows only"),
    ("num_rows", "rows"),
    ("policy", "policy"),
    ("policy_weights_sha256", "policy weights sha256"),
    ("dialect", "dialect"),
    ("segmenter", "segmenter"),
    ("segmenter_weights_sha256", "segmenter weights sha256"),
    ("max_steps", "most actions"),
    ("max_seconds", "most seconds"),
    ("seed", "seed"),
    ("instructions", "instructions"),
)
_ABOUT_ITSELF = ("schema_version", "sessions", "ibisagent_version", "leakage", "protocol")


def appendix_section(runs: Mapping[str, Mapping[str, Any]]) -> Section:
    """Conventions and records.

    Parameters
    ----------
    runs
        ``run.json`` by the run's title; the first is the one that the report is about.
    """
    blocks = [Facts("conventions", "Conventions", (("", _CONVENTIONS),))]
    for number, (title, facts) in enumerate(runs.items()):
        blocks.append(Facts("record" if not number else f"record-{number}", f"Record of {title}", run_facts(facts)))
    return Section("appendix", "Record", tuple(blocks))


def leakage_text(found: Any) -> str:
    """Whether the images were in the policy's training data, as a sentence; empty where nobody looked or none was.

    Parameters
    ----------
    found
        ``leakage`` of ``run.json``, if there is any.
    """
    from ibisagent.evaluate.leakage import leakage_warning

    try:
        if not isinstance(found, Mapping):
            return ""
        if not found["checked"]:
            return sentence(f"whether the images were in the policy's training data is not known: {found['reason']}")
        return sentence(leakage_warning(dict(found)) or "")
    except (KeyError, TypeError):
        return ""


def run_facts(facts: Mapping[str, Any]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """What ``run.json`` says, in groups: settings, then every session with its machine and packages."""
    names = dict(_SETTINGS)
    order = [name for name, _ in _SETTINGS if name in facts]
    order += [name for name in facts if name not in names and name not in _ABOUT_ITSELF]
    settings = [(names.get(name, name.replace("_", " ")), _plain(facts[name])) for name in order]
    version = facts.get("ibisagent_version")
    first = [("ibisagent", str(version))] if version else []
    groups = [("Settings", tuple(first + [pair for pair in settings if pair[1]]))]
    leakage = facts.get("leakage")
    if isinstance(leakage, Mapping) and leakage.get("checked"):
        none = "none of the images, as far as the weights' list of training images tells"
        told = leakage_text(leakage) or none
        groups.append(("Training data", (("seen in training", told), ("list", f"{leakage.get('about')}"))))
    sessions = facts.get("sessions") or []
    for number, session in enumerate(sessions, start=1):
        title = "Where it was run" if len(sessions) == 1 else f"Session {number}"
        groups.append((title, _session(session)))
    return tuple(groups)


def _session(session: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    told = []
    for name, value in session.items():
        if name == "git" and isinstance(value, Mapping):
            changed = ", with changes that are not committed" if value.get("dirty") else ""
            told.append(("commit", f"{value.get('commit')}{changed}"))
        elif name == "packages" and isinstance(value, Mapping):
            told.append(("packages", ", ".join(f"{n} {v}" for n, v in value.items() if v)))
        else:
            told.append((name.replace("_", " "), _plain(value)))
    return tuple(pair for pair in told if pair[1])


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items() if _plain(one))
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value)
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)

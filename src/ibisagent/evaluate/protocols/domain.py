"""What counts as in domain: rules over the facts of a case, from options, a file, or the card of shipped weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, read_bytes

if TYPE_CHECKING:
    from ibisagent.evaluate.result import CaseResult

__all__ = ["DOMAIN_FIELDS", "SHIPPED", "Domain", "Rule", "load_domain"]

DOMAIN_FIELDS = ("group", "patient", "modality", "source", "target", "view", "split")
"""Facts of a case that a rule may ask for."""

SHIPPED = Path(__file__).parent / "assets"
"""Folder of the descriptions that come with the package, NAME.yaml."""

_KEYS = ("name", "about", "in_domain", "out_of_domain")


@dataclass(frozen=True)
class Rule:
    """Facts that a case must have, all of them.

    Parameters
    ----------
    wanted
        Field → words, of which one must fit; upper and lower case are the same, ``*`` stands for anything.
    """

    wanted: Mapping[str, tuple[str, ...]]

    def fits(self, result: CaseResult) -> bool | None:
        """Whether the case has them; None where that hangs on a fact that is not known."""
        known: bool | None = True
        for name, words in self.wanted.items():
            fact = getattr(result, name)
            if fact is None:
                known = None
            elif not any(fnmatchcase(fact.lower(), word.lower()) for word in words):
                return False
        return known


@dataclass(frozen=True)
class Domain:
    """Which cases are like what a policy was trained on.

    Parameters
    ----------
    name, about
        For people.
    inside
        A case that fits one of these is in domain.
    outside
        A case that fits one of these, and is not known to fit one of `inside`, is out of domain; None: every case is
        that is known to fit none of `inside`.
    """

    name: str
    inside: tuple[Rule, ...]
    outside: tuple[Rule, ...] | None = None
    about: str = ""

    def side(self, result: CaseResult) -> Literal["in", "out"] | None:
        """Where a case belongs; None where the description, or what is known of the case, leaves it open."""
        inside = [rule.fits(result) for rule in self.inside]
        if True in inside:
            return "in"
        if self.outside is not None:
            return "out" if any(rule.fits(result) for rule in self.outside) else None
        return None if None in inside else "out"

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""

        def plain(rules: Sequence[Rule]) -> list[dict[str, list[str]]]:
            return [{name: list(words) for name, words in rule.wanted.items()} for rule in rules]

        found: dict[str, Any] = {"name": self.name, "about": self.about, "in_domain": plain(self.inside)}
        if self.outside is not None:
            found["out_of_domain"] = plain(self.outside)
        return found


def load_domain(path: str | Path) -> Domain:
    """Read a description.

    Parameters
    ----------
    path
        YAML or JSON: ``in_domain``, a list of rules such as ``{group: [lung1, brain1], modality: CT}``; if need be
        ``out_of_domain``, likewise; ``name`` and ``about``.

    Raises
    ------
    InputError
        If it cannot be read or is no such description.
    """
    shown = display_name(path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{shown}: not UTF-8 text; write YAML or JSON with in_domain") from None
    return parse_domain(text, shown, Path(path).stem)


def parse_domain(text: str, shown: str, name: str) -> Domain:
    """:func:`load_domain` for text; `shown` is what messages call it, `name` its name if it has none."""
    import yaml

    try:
        document = json.loads(text) if text.lstrip()[:1] == "{" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{shown}: neither YAML nor JSON ({one_line(error, 80)})") from None
    if not isinstance(document, dict) or "in_domain" not in document:
        raise InputError(f"{shown}: no in_domain in it; write in_domain: [{{group: [NAME, ...]}}]")
    for key in document:
        if key not in _KEYS:
            raise InputError(f"{shown}: there is no '{one_line(key, 40)}' in a domain; there are {', '.join(_KEYS)}")
    outside = document.get("out_of_domain")
    return Domain(
        str(document.get("name") or name),
        _rules(document["in_domain"], f"{shown}: in_domain"),
        None if outside is None else _rules(outside, f"{shown}: out_of_domain"),
        " ".join(str(document.get("about") or "").split()),
    )


def _rules(given: Any, where: str) -> tuple[Rule, ...]:
    rules = [given] if isinstance(given, dict) else given
    if not isinstance(rules, list) or not rules:
        raise InputError(f"{where} must be a list of rules such as {{modality: [CT, MRI]}}, and not empty")
    found = []
    for rule in rules:
        if not isinstance(rule, dict) or not rule:
            raise InputError(f"{where}: {one_line(rule, 60)} is no rule such as {{modality: [CT, MRI]}}")
        wanted = {}
        for name, words in rule.items():
            if name not in DOMAIN_FIELDS:
                raise InputError(f"{where}: cases have no '{one_line(name, 40)}'; they have {', '.join(DOMAIN_FIELDS)}")
            listed = words if isinstance(words, list) else [words]
            if not listed or not all(isinstance(word, str | int | float) for word in listed):
                raise InputError(f"{where}: {name} must be a word or a list of words")
            wanted[name] = tuple(str(word) for word in listed)
        found.append(Rule(wanted))
    return tuple(found)

"""In domain and out of domain: the same figures on both sides, and the drop with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ibisagent.errors import InputError
from ibisagent.evaluate.protocols.domain import SHIPPED, Domain, Rule, load_domain
from ibisagent.evaluate.protocols.drop import drop_between
from ibisagent.evaluate.protocols.protocol import Protocol
from ibisagent.evaluate.protocols.tables import PARTS, FigureTable
from ibisagent.evaluate.result import CaseResult

__all__ = ["DomainsProtocol"]

_BY_OPTION = {"groups": "group", "modalities": "modality", "sources": "source", "targets": "target"}


class DomainsProtocol(Protocol):
    """``--protocol domains?of=nano``, ``domains?file=domains.yaml`` or ``domains?modalities=CT,MRI&groups=a,b``."""

    name = "domains"
    title = "In domain and out of domain"
    about = (
        "All cases are played as usual, and each is in domain or out of it by a description of what the policy was "
        "trained on. Every figure is given on both sides, with the drop from the one to the other."
    )
    conventions = (
        "The drop is the figure in domain minus the figure out of domain. Its interval takes the two sides as "
        "independent; where a patient (or image) stands on both sides, its cases are drawn together.",
        "The description says what is like the training data; nothing here looks at the data itself.",
        "A drop also holds whatever else differs between the two lists: other targets, other sizes, other labels. The "
        "tables by modality and by target hold one of these fast.",
    )
    option_names = ("of", "file", *_BY_OPTION)
    only_reads = True
    figure_names = (
        "iou",
        "dice",
        "p_at_50",
        "right_refusals",
        "false_refusals",
        "action_validity",
        "refinement_success",
        "steps",
        "errors",
    )

    def __init__(self, values: Mapping[str, str] | None = None, domain: Domain | None = None) -> None:
        super().__init__(values)
        self.domain = domain if domain is not None else self._described()

    def _described(self) -> Domain:
        given = {field: self.options.text(option) for option, field in _BY_OPTION.items() if option in self.options}
        ways = (given or None, self.options.path("file"), self.options.text("of"))
        if sum(way is not None for way in ways) > 1:
            raise InputError("the protocol 'domains' takes one of of=NAME, file=FILE or lists of groups and the like")
        if given:
            wanted = {field: _words(text or "") for field, text in given.items()}
            return Domain(" and ".join(wanted), (Rule(wanted),))
        if ways[1] is not None:
            return load_domain(ways[1])
        shipped = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
        if ways[2] is None:
            raise InputError(
                "the protocol 'domains' must be told what is in domain: domains?file=FILE, domains?modalities=CT,MRI "
                f"(or groups=, sources=, targets=), or domains?of={'|'.join(shipped)}"
            )
        if ways[2] not in shipped:
            raise InputError(f"no description of '{ways[2]}' comes with ibisagent; there are {', '.join(shipped)}")
        return load_domain(SHIPPED / f"{ways[2]}.yaml")

    def facts(self) -> dict[str, Any]:
        """With the description itself: the file may change."""
        return {**super().facts(), "domain": self.domain.to_json()}

    def summarise(self, results: Sequence[CaseResult], left_out: Mapping[str, int] | None = None) -> dict[str, Any]:
        """The two sides and the drop.

        Returns
        -------
        dict
            As :meth:`Protocol.summarise`, with ``domain``, ``num_in``, ``num_out`` and ``num_open``; ``overall``,
            ``by_modality``, ``by_target``: name → ``{"in": estimate, "out": estimate, "drop": drop}``; ``by_group``:
            estimates, and ``side`` of each group.
        """
        table = self.table(results)
        sides: dict[str | None, list[int]] = {"in": [], "out": [], None: []}
        for place, result in enumerate(results):
            sides[self.domain.side(result)].append(place)
        left = dict(left_out or {})
        unread = sum(results[place].episode is None and bool(results[place].error) for place in sides[None])
        for reason, number in (
            ("neither in domain nor out of it, by the description", len(sides[None]) - unread),
            ("could not be read, so that nothing says whether it is in domain", unread),
        ):
            if number:
                left[reason] = number
        return {
            **self._head(results, left),
            "domain": self.domain.to_json(),
            "num_in": len(sides["in"]),
            "num_out": len(sides["out"]),
            "num_open": len(sides[None]),
            "clusters": table.clusters_json(),
            "overall": _drops(table, sides["in"], sides["out"]),
            **{f"by_{by}": self._by(table, by, sides) for by in ("modality", "target")},
            "by_group": self._groups(table, results),
        }

    def _by(self, table: FigureTable, by: str, sides: Mapping[str | None, list[int]]) -> dict[str, Any]:
        found = {}
        inside, outside = set(sides["in"]), set(sides["out"])
        for part, places in sorted(table.places(by).items()):
            mine = [place for place in places if place in inside], [place for place in places if place in outside]
            if any(mine):
                found[part] = _drops(table, *mine)
        return found

    def _groups(self, table: FigureTable, results: Sequence[CaseResult]) -> dict[str, Any]:
        """A row for every group on either side; a list where every image is a group of its own has none."""
        places: dict[tuple[str, str], list[int]] = {}
        for place, result in enumerate(results):
            side = self.domain.side(result)
            if side is not None:
                places.setdefault((PARTS["group"](result), side), []).append(place)
        if len(places) > len({r.image for r in results}) // 2:
            return {}
        return {
            f"{group} ({side} of domain)" if side == "out" else f"{group} (in domain)": table.row(mine)
            for (group, side), mine in sorted(places.items())
        }


def _drops(table: FigureTable, inside: Sequence[int], outside: Sequence[int]) -> dict[str, Any]:
    found = {}
    for name in table.names:
        first, second, drop = drop_between(table.numbers(name, inside), table.numbers(name, outside))
        if first.value is not None or second.value is not None:
            found[name] = {"in": first.to_json(), "out": second.to_json(), "drop": drop.to_json()}
    return found


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise InputError("the protocol 'domains': a list is empty; write for example groups=lung1,brain1")
    return words

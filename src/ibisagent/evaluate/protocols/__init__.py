"""Published ways to evaluate, each by one option: ``ibisagent evaluate CASES --protocol NAME?option=value``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ibisagent.engine.sources.registry import parse_options
from ibisagent.errors import InputError
from ibisagent.io.files import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ibisagent.evaluate.protocols.protocol import Protocol

__all__ = ["PROTOCOLS", "make_protocol", "protocol_of"]

_HERE = "ibisagent.evaluate.protocols"

PROTOCOLS: dict[str, str] = {
    "domains": f"{_HERE}.domains:DomainsProtocol",
    "cvpr25": f"{_HERE}.cvpr25:Cvpr25Protocol",
    "noc": f"{_HERE}.noc:NocProtocol",
    "biomedparse": f"{_HERE}.biomedparse:BiomedParseProtocol",
    "mecovqa-g": f"{_HERE}.mecovqa:MecoVqaProtocol",
    "reasonseg": f"{_HERE}.reasonseg:ReasonSegProtocol",
}
"""Import string of every protocol's class."""


def make_protocol(spec: str) -> Protocol:
    """The protocol that ``NAME`` or ``NAME?option=value&option=value`` names; values are percent-decoded.

    Raises
    ------
    InputError
        If there is no such protocol, or an option is wrong.
    """
    name, _, query = spec.partition("?")
    return _make(name, parse_options(spec, query))


def protocol_of(facts: Mapping[str, Any]) -> Protocol:
    """The protocol that a run was played under, from :meth:`Protocol.facts` as ``run.json`` has them.

    Raises
    ------
    InputError
        If they are no facts of a protocol that there is.
    """
    name, values = facts.get("name"), facts.get("options")
    if not isinstance(name, str) or not isinstance(values, dict):
        raise InputError("the run's protocol is damaged: it needs a name and options")
    if name == "domains" and isinstance(facts.get("domain"), dict):
        import json

        from ibisagent.evaluate.protocols.domain import parse_domain
        from ibisagent.evaluate.protocols.domains import DomainsProtocol

        # The description as it was then: its file may have changed or gone.
        return DomainsProtocol(values, parse_domain(json.dumps(facts["domain"]), "the run's domain", "run"))
    return _make(name, {str(option): str(value) for option, value in values.items()})


def _make(name: str, values: dict[str, str]) -> Protocol:
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol '{one_line(name, 40)}'; there are {', '.join(PROTOCOLS)}")
    module, _, what = PROTOCOLS[name].partition(":")
    made: Protocol = getattr(import_module(module), what)(values)
    return made

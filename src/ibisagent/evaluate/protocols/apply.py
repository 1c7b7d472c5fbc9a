"""A protocol put to use: what it makes of a list and of the settings, and its table beside a run's summary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.evaluate.protocols import make_protocol, protocol_of
from ibisagent.evaluate.protocols.protocol import ABSENT, Protocol
from ibisagent.evaluate.records import PROTOCOL_TABLES
from ibisagent.evaluate.store import write_json
from ibisagent.io import CaseRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ibisagent.config import RolloutConfig
    from ibisagent.evaluate.case_list import CaseList
    from ibisagent.evaluate.result import CaseResult

__all__ = ["UnderProtocol", "table_name", "under_protocol", "write_table"]


@dataclass(frozen=True)
class UnderProtocol:
    """What is played.

    Parameters
    ----------
    cases
        The rows that the protocol plays, with its instructions.
    config
        Budgets, as the protocol has them.
    policy
        Spec of who plays.
    facts
        For ``run.json``, under ``"protocol"``.
    """

    cases: CaseList
    config: RolloutConfig
    policy: str
    facts: dict[str, Any]


def under_protocol(protocol: Protocol, cases: CaseList, config: RolloutConfig, policy: str) -> UnderProtocol:
    """The list, the settings and the player under a protocol.

    Parameters
    ----------
    protocol
        From :func:`~ibisagent.evaluate.protocols.make_protocol`.
    cases
        Opened with the protocol's ``sentences``.
    config
        As the user has it; its seed draws instructions.
    policy
        Spec of the user's policy, which plays unless the protocol has one of its own.

    Raises
    ------
    InputError
        If no case is left.
    """
    chosen = protocol.select(cases.rows, config.seed)
    if not any(isinstance(row, CaseRow) for row in chosen.rows):
        reasons = "; ".join(f"{reason}: {number}" for reason, number in chosen.left_out.items()) or "no row can be used"
        raise InputError(f"{cases.name}: the protocol '{protocol.name}' has no case in it ({reasons})")
    facts = {**protocol.facts(), "left_out": dict(chosen.left_out)}
    return UnderProtocol(replace(cases, rows=chosen.rows), protocol.config(config), protocol.policy or policy, facts)


def table_name(protocol: str) -> str:
    """The file of a protocol's table in a run's folder."""
    return PROTOCOL_TABLES.replace("*", protocol)


def write_table(
    folder: Path, facts: Mapping[str, Any], results: Sequence[CaseResult], spec: str | None = None
) -> dict[str, Any] | None:
    """Make a run's table and write it beside its summary.

    Parameters
    ----------
    folder
        The run's.
    facts
        What ``run.json`` says.
    results
        Scored.
    spec
        A protocol that the run was not played under, but that only reads figures (:attr:`Protocol.only_reads`); None
        takes the run's own.

    Returns
    -------
    dict or None
        The table; None where there is no protocol.

    Raises
    ------
    InputError
        If the facts are damaged, or `spec` names a protocol that must play the cases itself, or the run was played
        under another that did.
    """
    played = facts.get("protocol")
    own = protocol_of(played) if isinstance(played, dict) else None
    protocol = own if spec is None else make_protocol(spec)
    if protocol is None:
        return None
    left_out: dict[str, int] = dict(played.get("left_out") or {}) if isinstance(played, dict) else {}
    if own is None or protocol.facts() != own.facts():
        if not protocol.only_reads:
            raise InputError(
                f"{folder} was not played under the protocol '{spec}', which has its own way to play; evaluate the "
                "cases with --protocol"
            )
        if own is not None and not own.only_reads:
            raise InputError(
                f"{folder} was played under the protocol '{own.name}', in its own way: '{spec}' says nothing of it"
            )
        if not protocol.with_absent:
            absent = [result for result in results if result.absent]
            results = [result for result in results if not result.absent]
            if absent:
                left_out[ABSENT] = left_out.get(ABSENT, 0) + len(absent)
    table = protocol.summarise(results, left_out)
    write_json(table, folder / table_name(protocol.name))
    return table

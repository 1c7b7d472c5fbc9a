"""Names of policies and segmenters, and where each is made. Nothing is imported before it is asked for.

A spec is ``kind`` or ``kind:argument``, for example ``nano``, ``vlm:/models/qwen`` or
``sam:facebook/sam-vit-base``. Every factory is ``make(argument: str | None, **options)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ibisagent.errors import InputError

__all__ = [
    "POLICIES",
    "SEES_TARGETS",
    "SEGMENTERS",
    "make_policy",
    "make_segmenter",
    "parse_spec",
    "resolve_policy",
    "wanted_windows",
]

POLICIES: dict[str, str] = {
    "nano": "ibisagent.policies.nano:make",
    "vlm": "ibisagent.policies.vlm:make",
    "api": "ibisagent.policies.api:make",
    "scripted": "ibisagent.policies.scripted:make",
    "oracle": "ibisagent.policies.oracle:make",
    "clicks": "ibisagent.policies.clicker:make",
}
"""Import string of every policy's factory."""

SEGMENTERS: dict[str, str] = {
    "litemedsam": "ibisagent.segmenters.litemedsam:make",
    "sam": "ibisagent.segmenters.sam:make",
    "sam2": "ibisagent.segmenters.sam2:make",
    "medsam2": "ibisagent.segmenters.medsam2:make",
    "rules": "ibisagent.segmenters.rules:make",
}
"""Import string of every segmenter's factory."""

NEEDS_ARGUMENT: dict[str, str] = {
    "vlm": "vlm:PATH_OR_ID",
    "api": "api:MODEL",
    "scripted": "scripted:FILE",
    "clicks": "clicks:RULE",
    "sam": "sam:PATH_OR_ID",
    "sam2": "sam2:PATH_OR_ID",
    "medsam2": "medsam2:PATH_OR_ID",
}
"""The kinds that cannot be made without an argument, as a user writes them."""

SEES_TARGETS = ("oracle", "clicks")
"""Kinds of policies that are made with the targets' masks (the option ``targets``); no other ever sees one."""

_COMMON_OPTIONS = {"device", "system_prompt", "base_url", "targets"}
_POLICY_OPTIONS = {
    "nano": {"device", "system_prompt"},
    "vlm": {"device", "system_prompt"},
    "api": {"base_url", "system_prompt"},
    "oracle": {"targets"},
    "clicks": {"targets"},
    "scripted": set(),
}


def parse_spec(spec: str) -> tuple[str, str | None]:
    """Split ``kind:argument`` at the first colon; the argument is None if there is none.

    Raises
    ------
    InputError
        If the kind or the argument after a colon is empty.
    """
    kind, colon, argument = spec.partition(":")
    if not kind or (colon and not argument):
        raise InputError(f"{spec!r} is not a name: write NAME or NAME:ARGUMENT")
    return kind, argument if colon else None


def make_policy(spec: str, **options: Any) -> Any:
    """Make the policy that a spec names (see :class:`ibisagent.policies.protocol.Policy`).

    Options that are None count as not given; the others go to the factory.

    Raises
    ------
    InputError
        If there is no such policy, or its factory cannot use the argument.
    """
    return _make("policy", POLICIES, spec, options)


def resolve_policy(spec: str, **options: Any) -> Any:
    """Make a policy and hand it those of the common options that its kind knows.

    The common options are ``device``, ``system_prompt``, ``base_url`` and ``targets``; a policy without
    a use for one is not given it. All other options are passed on.

    Raises
    ------
    InputError
        As :func:`make_policy`.
    """
    known = _POLICY_OPTIONS.get(parse_spec(spec)[0], _COMMON_OPTIONS)
    kept = {name: value for name, value in options.items() if name in known or name not in _COMMON_OPTIONS}
    return make_policy(spec, **kept)


def wanted_windows(policy: Any) -> str | None:
    """The ``--window`` option that a policy wants CT in where the user names none, or None if it does not mind.

    Parameters
    ----------
    policy
        A spec, for which nothing is loaded but what says so, or a policy (its ``windows``).

    Raises
    ------
    InputError
        If the spec is empty.
    """
    if not isinstance(policy, str):
        return getattr(policy, "windows", None)
    kind, argument = parse_spec(policy)
    if kind not in POLICIES:
        return None
    declared = getattr(import_module(POLICIES[kind].partition(":")[0]), "windows", None)
    return None if declared is None else declared(argument)


def make_segmenter(spec: str, device: str = "cpu", **options: Any) -> Any:
    """Make the segmenter that a spec names (see :class:`ibisagent.segmenters.protocol.Segmenter`).

    Raises
    ------
    InputError
        If there is no such segmenter, or its factory cannot use the argument.
    """
    return _make("segmenter", SEGMENTERS, spec, {"device": device, **options})


def _make(noun: str, table: Mapping[str, str], spec: str, options: dict[str, Any]) -> Any:
    kind, argument = parse_spec(spec)
    if kind not in table:
        names = ", ".join(NEEDS_ARGUMENT.get(name, name) for name in table)
        raise InputError(f"there is no {noun} '{kind}'; there are {names}")
    if argument is None and kind in NEEDS_ARGUMENT:
        raise InputError(f"the {noun} '{kind}' needs an argument: {NEEDS_ARGUMENT[kind]}")
    given = {name: value for name, value in options.items() if value is not None}
    module, _, function = table[kind].partition(":")
    return getattr(import_module(module), function)(argument, **given)

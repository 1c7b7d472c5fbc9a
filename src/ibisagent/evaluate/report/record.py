"""The report as JSON: everything that page, Markdown and LaTeX say, unrounded and without the pictures."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from typing import Any

from ibisagent.evaluate.report.model import Picture, Report, Scale, Value

__all__ = ["SCHEMA_VERSION", "report_json"]

SCHEMA_VERSION = 1
"""Version of ``report.json``. Added fields keep it; renamed, removed or reinterpreted ones raise it."""


def report_json(report: Report) -> str:
    """JSON of the report's parts by the names of their fields.

    Numbers are as they were computed (shares from 0 to 1), ``[value, scale]`` pairs as objects with both, what is
    undefined or not finite null.
    """
    told = {"schema_version": SCHEMA_VERSION, **_plain(report)}
    told.pop("pictures")
    return json.dumps(told, indent=1, allow_nan=False) + "\n"


def _plain(thing: Any) -> Any:
    if isinstance(thing, Picture):
        return None
    if is_dataclass(thing) and not isinstance(thing, type):
        return {field.name: _plain(getattr(thing, field.name)) for field in fields(thing)}
    if isinstance(thing, tuple) and len(thing) == 2 and isinstance(thing[0], Value) and isinstance(thing[1], Scale):
        return {**_plain(thing[0]), "scale": _plain(thing[1])}
    if isinstance(thing, tuple | list):
        return [_plain(one) for one in thing]
    if isinstance(thing, dict):
        return {str(name): _plain(one) for name, one in thing.items()}
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else None
    return thing

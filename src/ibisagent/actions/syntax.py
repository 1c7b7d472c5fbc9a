"""What stands inside ``<action>``: plain text or JSON.

Plain: ``Positive Point (0.5000, 0.2500)``, ``Negative Point (x, y)``, ``Box (x0, y0, x1, y1)``,
``Undo``, ``Discard``, ``Terminate``.

JSON: a list of clicks ``[{"Target": "liver", "Attribute": 1, "Coordinate_2d": [0.5000, 0.2500]}]``
(Attribute 1 positive, -1 negative; Target may be left out, and is one name for the whole action), a
box ``{"Box_2d": [x0, y0, x1, y1]}``, or one of the strings ``"Undo"``, ``"Discard"``, ``"Terminate"``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, NoReturn

from pydantic import ValidationError

from ibisagent.actions.model import (
    MAX_TARGET_CHARS,
    TAG,
    Action,
    BoxAction,
    Click,
    ClickAction,
    DiscardAction,
    TerminateAction,
    UndoAction,
)
from ibisagent.errors import ActionError

__all__ = ["SYNTAXES", "JsonSyntax", "PlainSyntax"]

_COORDINATE = re.compile(r"[0-9]+\.[0-9]{4}")
_SHAPE = re.compile(r"(Positive Point|Negative Point|Box) \(([^()]*)\)")
_WORDS: dict[str, type[UndoAction] | type[DiscardAction] | type[TerminateAction]] = {
    "Undo": UndoAction,
    "Discard": DiscardAction,
    "Terminate": TerminateAction,
}


def _coordinate(text: str) -> float:
    """Read one coordinate as written, for a reason that tells format from range."""
    if text.startswith("-"):
        raise ActionError("coordinate_range", f"the coordinate {text[:20]} is outside [0, 1]")
    if not _COORDINATE.fullmatch(text):
        raise ActionError("coordinate_format", f"a coordinate has four decimals, like 0.5000, not {text[:20]!r}")
    value = float(text)
    if value > 1.0:
        raise ActionError("coordinate_range", f"the coordinate {text[:20]} is outside [0, 1]")
    return value


def _box(values: list[float]) -> BoxAction:
    x0, y0, x1, y1 = values
    if x0 > x1 or y0 > y1:
        raise ActionError("box_order", "a box is written (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1")
    return BoxAction(x0=x0, y0=y0, x1=x1, y1=y1)


def _word(word: str, has_answer: bool) -> Action:
    if word == "Terminate" and not has_answer:
        raise ActionError("missing_answer", "Terminate must be followed by <answer>…</answer>")
    if word != "Terminate" and has_answer:
        raise ActionError("answer_without_terminate", "only Terminate is followed by <answer>…</answer>")
    return _WORDS[word]()


def _no_answer(has_answer: bool) -> None:
    if has_answer:
        raise ActionError("answer_without_terminate", "only Terminate is followed by <answer>…</answer>")


class PlainSyntax:
    """Plain text, the syntax of the published weights and its extension."""

    @staticmethod
    def parse(body: str, has_answer: bool) -> Action:
        """Read the inside of ``<action>``; raises ActionError only."""
        if body in _WORDS:
            return _word(body, has_answer)
        match = _SHAPE.fullmatch(body)
        if not match:
            raise ActionError("unknown_action", f"not an action: {body[:60]!r}")
        _no_answer(has_answer)
        name, values = match[1], [_coordinate(part.strip(" \t")) for part in match[2].split(",")]
        expected = 4 if name == "Box" else 2
        if len(values) != expected:
            raise ActionError("coordinate_count", f"{name} takes {expected} coordinates, not {len(values)}")
        if name == "Box":
            return _box(values)
        return ClickAction(clicks=(Click(x=values[0], y=values[1], positive=name == "Positive Point"),))

    @staticmethod
    def format(action: Action) -> str:
        """Write the inside of ``<action>``; raises ActionError for what plain text cannot say."""
        if isinstance(action, ClickAction):
            if action.target:
                raise ActionError("not_expressible", "plain text cannot name the target of a click")
            if len(action.clicks) != 1:
                raise ActionError("too_many_clicks", "plain text says one click an action")
            click = action.clicks[0]
            return f"{'Positive' if click.positive else 'Negative'} Point ({click.x:.4f}, {click.y:.4f})"
        if isinstance(action, BoxAction):
            return f"Box ({action.x0:.4f}, {action.y0:.4f}, {action.x1:.4f}, {action.y1:.4f})"
        return action.kind.capitalize()

    @staticmethod
    def describe(kinds: Collection[str], max_clicks: int) -> list[str]:
        """One line for each action."""
        lines = {
            "click": "Positive Point (x, y) — click inside the target where the mask misses it\n"
            "Negative Point (x, y) — click outside the target where the mask covers too much",
            "box": "Box (x0, y0, x1, y1) — a box around the target",
            "undo": "Undo — take back the last action",
            "discard": "Discard — drop the given mask and start again",
            "terminate": "Terminate — stop",
        }
        return [text for kind, text in lines.items() if kind in kinds]


class _Number(str):
    """A JSON number kept as it was written, so that four decimals can be demanded."""

    __slots__ = ()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ActionError("json", "a key occurs twice")
    return result


def _constant(name: str) -> NoReturn:
    raise ActionError("coordinate_format", f"{name} is not a coordinate")


def _coordinates(value: Any, count: int) -> list[float]:
    if not isinstance(value, list) or len(value) != count:
        raise ActionError("coordinate_count", f"a list of {count} coordinates is needed")
    if not all(type(v) is _Number for v in value):
        raise ActionError("coordinate_format", "a coordinate is a number written with four decimals, like 0.5000")
    return [_coordinate(v) for v in value]


class JsonSyntax:
    """JSON with the field names of the paper's action triple: Target, Attribute, Coordinate_2d."""

    @staticmethod
    def parse(body: str, has_answer: bool) -> Action:
        """Read the inside of ``<action>``; raises ActionError only."""
        try:
            value = json.loads(
                body, parse_float=_Number, parse_int=_Number, parse_constant=_constant, object_pairs_hook=_unique
            )
        except (ValueError, RecursionError):
            raise ActionError("json", "the action is not valid JSON") from None
        if isinstance(value, str) and type(value) is not _Number and value in _WORDS:
            return _word(value, has_answer)
        if isinstance(value, dict) and set(value) == {"Box_2d"}:
            _no_answer(has_answer)
            return _box(_coordinates(value["Box_2d"], 4))
        if isinstance(value, list) and value:
            _no_answer(has_answer)
            return JsonSyntax._clicks(value)
        raise ActionError("unknown_action", f"not an action: {body[:60]!r}")

    @staticmethod
    def _clicks(items: list[Any]) -> ClickAction:
        clicks, targets = [], set()
        for item in items:
            if not isinstance(item, dict) or not {"Attribute", "Coordinate_2d"} <= set(item) <= {
                "Target",
                "Attribute",
                "Coordinate_2d",
            }:
                raise ActionError("json_fields", "a click has the fields Target, Attribute and Coordinate_2d")
            attribute, target = item["Attribute"], item.get("Target", "")
            if type(attribute) is not _Number or attribute not in ("1", "-1"):
                raise ActionError("attribute", "Attribute is 1 (positive) or -1 (negative)")
            if type(target) is not str:
                raise ActionError("target", "Target is a text")
            x, y = _coordinates(item["Coordinate_2d"], 2)
            clicks.append(Click(x=x, y=y, positive=attribute == "1"))
            targets.add(target)
        if len(targets) != 1:
            raise ActionError("target", "all clicks of one action have the same Target")
        target = targets.pop().strip()
        if len(target) > MAX_TARGET_CHARS or TAG.search(target):
            raise ActionError("target", "Target is too long or contains a tag")
        try:
            return ClickAction(clicks=tuple(clicks), target=target)
        except ValidationError:  # lone surrogates that JSON escapes can smuggle in
            raise ActionError("target", "Target is not valid text") from None

    @staticmethod
    def format(action: Action) -> str:
        """Write the inside of ``<action>``."""
        if isinstance(action, ClickAction):
            target = f'"Target": {json.dumps(action.target, ensure_ascii=False)}, ' if action.target else ""
            items = [
                f'{{{target}"Attribute": {1 if c.positive else -1}, "Coordinate_2d": [{c.x:.4f}, {c.y:.4f}]}}'
                for c in action.clicks
            ]
            return f"[{', '.join(items)}]"
        if isinstance(action, BoxAction):
            return f'{{"Box_2d": [{action.x0:.4f}, {action.y0:.4f}, {action.x1:.4f}, {action.y1:.4f}]}}'
        return f'"{action.kind.capitalize()}"'

    @staticmethod
    def describe(kinds: Collection[str], max_clicks: int) -> list[str]:
        """One line for each action."""
        lines = {
            "click": '[{"Target": "name", "Attribute": 1, "Coordinate_2d": [x, y]}] — one to '
            f"{max_clicks} clicks; Attribute 1 where the mask misses the target, -1 where it covers too much",
            "box": '{"Box_2d": [x0, y0, x1, y1]} — a box around the target',
            "undo": '"Undo" — take back the last action',
            "discard": '"Discard" — drop the given mask and start again',
            "terminate": '"Terminate" — stop',
        }
        return [text for kind, text in lines.items() if kind in kinds]


SYNTAXES: dict[str, type[PlainSyntax] | type[JsonSyntax]] = {"plain": PlainSyntax, "json": JsonSyntax}

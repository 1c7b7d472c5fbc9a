"""Fixed replies from a file, for tests, demonstrations and for repeating what a model once wrote.

The file holds one raw reply per step, in the first of these forms that fits:

- a JSON list of strings or of objects with a ``text``, bare or as the ``replies`` of an object;
- JSON lines, each a string or an object with a ``text``;
- plain text, replies parted by lines of ``---``; without such a line, every line that begins with ``<think>`` begins a
  reply.

Every case hears the same replies from the beginning; the episode itself says which is next.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ibisagent.actions import DIALECTS, Dialect
from ibisagent.errors import InputError, PolicyError
from ibisagent.policies.protocol import Reply, View

__all__ = ["ScriptedPolicy", "make", "read_script"]


class ScriptedPolicy:
    """Says `replies`, one a step, whatever it sees.

    Parameters
    ----------
    replies
        Raw texts, in order.
    dialect
        Dialect that they are written in, by name or itself.
    name
        Name for the record.
    """

    weights_sha256: str | None = None

    def __init__(self, replies: Sequence[str], dialect: Dialect | str = "plain", name: str = "scripted") -> None:
        self.replies = tuple(replies)
        if isinstance(dialect, str) and dialect not in DIALECTS:
            raise InputError(f"there is no dialect '{dialect}'; there are {', '.join(DIALECTS)}")
        self.dialect = DIALECTS[dialect] if isinstance(dialect, str) else dialect
        self.name = name

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        """The reply that is next in every view; `seed` changes nothing.

        Raises
        ------
        PolicyError
            If a view is past the end of the script.
        """
        return [Reply(self._next(len(view.episode.steps))) for view in views]

    def _next(self, index: int) -> str:
        if index >= len(self.replies):
            raise PolicyError(f"the script has {len(self.replies)} replies and the run needs another")
        return self.replies[index]


def make(arg: str | None, dialect: Dialect | str = "plain", **options: Any) -> ScriptedPolicy:
    """``--policy scripted:FILE``. Options of other policies (a device, a system prompt) mean nothing to it.

    Raises
    ------
    InputError
        If there is no file name, or the file is no script.
    """
    if not arg:
        raise InputError("the policy 'scripted' needs a file: scripted:FILE")
    return ScriptedPolicy(read_script(arg), dialect, f"scripted:{Path(arg).name}")


def read_script(path: str | Path) -> list[str]:
    """Read the replies of a script.

    Raises
    ------
    InputError
        If the file cannot be read, holds no reply, or its JSON holds something else than texts.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the script {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"cannot read the script {path}: it is not UTF-8 text") from None
    items = _json_items(text)
    if items is None:
        blocks: list[list[str]] = [[]]
        lines = text.splitlines()
        parted = any(line.strip() == "---" for line in lines)
        for line in lines:
            if line.strip() == "---":
                blocks.append([])
                continue
            if not parted and line.lstrip().startswith("<think>"):
                blocks.append([])
            blocks[-1].append(line)
        replies = [block for block in ("\n".join(block).strip() for block in blocks) if block]
    else:
        replies = [item["text"] if isinstance(item, dict) and "text" in item else item for item in items]
        if not all(isinstance(reply, str) for reply in replies):
            raise InputError(f"the script {path} must hold texts, or objects with a 'text'")
    if not replies:
        raise InputError(f"the script {path} holds no reply")
    return replies


def _json_items(text: str) -> list[Any] | None:
    """The items of a JSON list or of JSON lines, None if the text is neither."""
    try:
        value = json.loads(text)
        if isinstance(value, dict) and isinstance(value.get("replies"), list):
            value = value["replies"]
        return value if isinstance(value, list) else [value]
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()] or None
    except (ValueError, RecursionError):
        return None

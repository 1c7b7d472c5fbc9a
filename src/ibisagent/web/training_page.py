"""``index.html`` of a training's pages: which runs can be looked at, and what they earned for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ibisagent.rendering.figure import OUTCOME_WORDS
from ibisagent.web.parts import asset, content_policy, template

__all__ = ["render_training_page"]


def render_training_page(entries: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> str:
    """Make the page; the newest update stands first.

    Parameters
    ----------
    entries
        Runs, ascending by ``update``: ``file`` (relative address of the page), ``which``, ``group``, ``case``,
        ``target``, ``present``, ``instruction``, ``reward``, ``advantage``, ``parts`` (after their weights), ``iou``,
        ``steps``, ``outcome``, ``thumb``. None is what does not apply.
    parts
        Names of the parts of the reward, in the order of columns.
    """
    style = asset("theme.css", "training.css")
    updates = [(update, list(found)) for update, found in groupby(entries, key=lambda entry: entry["update"])]
    return template("training.html.jinja").render(
        policy=content_policy(style, ""),
        style=style,
        parts=parts,
        updates=updates[::-1],
        outcomes=OUTCOME_WORDS,
    )

"""The tersest teacher: one short sentence a step, in words that only state what the agent can see or was told.

A thought names the kind of error it acts on and the part of the image it clicks in, so that what is
written and what is done agree. Nothing here reveals how good a mask is against its target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibisagent.engine.moments import Intent

if TYPE_CHECKING:
    import numpy as np

    from ibisagent.engine.moments import Moment

__all__ = ["TerseTeacher", "answer_text", "thought_text", "where_text"]

_ROWS = ("upper", "middle", "lower")
_COLUMNS = ("left", "centre", "right")


def where_text(x: float, y: float) -> str:
    """Name the ninth of the image that holds (x, y) in [0, 1]: ``"upper left"``, ``"centre"`` …

    Left and right are those of the picture, not the patient's.
    """
    row, column = _ROWS[min(2, int(y * 3))], _COLUMNS[min(2, int(x * 3))]
    if row == "middle" and column == "centre":
        return "centre"
    return f"{row} {column}"


def thought_text(kind: str, target: str, where: str = "") -> str:
    """The thought of one turn.

    Parameters
    ----------
    kind
        ``start``, ``missed``, ``excess``, ``undo``, ``discard``, ``fits``, ``rough`` or ``absent``.
    target
        Name of the structure, without an article.
    where
        From :func:`where_text`; used by the clicks. Empty leaves the place out.

    Raises
    ------
    KeyError
        If the kind is another word.
    """
    place = f" in the {where}" if where else ""
    texts = {
        "start": f"There is no mask yet. I see the {target} and start{place or ' there'}.",
        "missed": f"The mask misses a part of the {target}{place}.",
        "excess": f"The mask covers more than the {target}{place}.",
        "undo": "The last click made the mask worse. I take it back.",
        "discard": f"The given mask does not show the {target}. I drop it.",
        "fits": f"The mask fits the {target}.",
        "rough": f"The mask shows the {target} only roughly, and more clicks do not help.",
        "absent": f"I see no {target} in this image.",
    }
    return texts[kind]


def answer_text(verdict: str, target: str) -> str:
    """The answer that goes with a Terminate.

    Parameters
    ----------
    verdict
        ``found``, ``absent`` or ``uncertain``.
    target
        Name of the structure, without an article.
    """
    return {
        "found": f"the mask shows the {target}",
        "absent": f"no {target} in this image",
        "uncertain": f"the mask shows the {target} only roughly",
    }[verdict]


class TerseTeacher:
    """The sentences of the first generator, one for each intent; a wrong click is explained as a right one would be.

    It draws nothing, so two steps of one intent in one place say the same: for a small model that is the point.
    """

    name = "terse"

    def think(self, moment: Moment, rng: np.random.Generator | None = None) -> str:
        """One sentence from :func:`thought_text`; see :meth:`.teacher.Teacher.think`."""
        action, kind, where = moment.action, moment.intent.value, ""
        if action.kind == "click":
            click = action.clicks[0]
            where = where_text(click.x, click.y)
            if moment.intent is Intent.WRONG:
                kind = "missed" if click.positive else "excess"
        elif action.kind == "box":
            where = where_text((action.x0 + action.x1) / 2, (action.y0 + action.y1) / 2)
            if moment.intent is Intent.WRONG:
                kind = "missed"
        if kind == "missed" and (moment.mask is None or not moment.mask.any()):
            kind = "start"
        return thought_text(kind if kind != "wrong" else "fits", moment.name, where)

    def answer(self, moment: Moment, rng: np.random.Generator | None = None) -> str:
        """From :func:`answer_text`; empty where the action is not Terminate."""
        return answer_text(moment.action.verdict, moment.name) if moment.action.kind == "terminate" else ""

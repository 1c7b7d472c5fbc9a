"""A teacher that needs no server: varied sentences, each said only where measured facts make it true.

The Oracle view enters through the intent alone: which kind of step this is. What a thought says of the picture comes
from :func:`.facts.measure`, which does not read the target.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from ibisagent.engine.language.naming import Phrase, target_phrases
from ibisagent.engine.moments import Intent
from ibisagent.engine.reasoning.facts import measure
from ibisagent.engine.reasoning.phrases import library
from ibisagent.engine.reasoning.slots import flags_of, slots_of

if TYPE_CHECKING:
    import numpy as np

    from ibisagent.engine.moments import Moment

__all__ = ["TemplateTeacher"]

_OWN_NAME = 0.8
"""Share of the thoughts that call the target by its own name; the others take a synonym."""
_TRIES = 12


class TemplateTeacher:
    """Writes thoughts from sentence parts: what came before, what is seen, what it means, what is done."""

    name = "template"

    def think(self, moment: Moment, rng: np.random.Generator) -> str:
        """A thought that differs from the one before; see :meth:`.teacher.Teacher.think`."""
        text = ""
        for _ in range(_TRIES):
            text = self._draw(moment, rng)
            if text not in moment.thoughts:
                return text
        # Few facts and many steps: the words run out before the steps do.
        return text if not moment.thoughts or text != moment.thoughts[-1] else f"Once more: {text}"

    def answer(self, moment: Moment, rng: np.random.Generator) -> str:
        """The text after the verdict word; empty for other actions than Terminate."""
        if moment.action.kind != "terminate":
            return ""
        slots = slots_of(measure(moment), moment, _phrase(moment.name, rng), rng)
        ways = [s for _, s in library().answers[moment.action.verdict] if _needs(s) <= slots.keys()]
        return ways[int(rng.integers(len(ways)))].format_map(slots)

    def _draw(self, moment: Moment, rng: np.random.Generator) -> str:
        facts = measure(moment)
        phrase = _phrase(moment.name, rng)
        slots = slots_of(facts, moment, phrase, rng)
        flags = flags_of(facts, moment)
        plans = library().plans[_plan(moment)]
        plan = list(plans[int(rng.integers(len(plans)))])
        hint = _hint(moment)
        if hint is not None:
            plan = [hint, *(part for part in plan if part not in ("before", "start_before"))]
        said: list[str] = []
        told: set[str] = set()
        for part in plan:
            ways = [
                (conditions, sentence)
                for conditions, sentence in library().phrases[part]
                if _holds(conditions, flags) and _needs(sentence) <= slots.keys()
                and not told & _topics(conditions, sentence)
            ]  # fmt: skip
            if not ways:
                continue
            conditions, sentence = ways[int(rng.integers(len(ways)))]
            said.append(sentence.format_map(slots))
            told |= _topics(conditions, sentence)
            if part.endswith("_see"):
                flags |= {"seen"}
        return " ".join(said)


def _phrase(name: str, rng: np.random.Generator) -> Phrase:
    own, *others = target_phrases(name)
    share, which = rng.random(2)
    return own if share < _OWN_NAME or not others else others[int(which * len(others))]


def _plan(moment: Moment) -> str:
    intent, action = moment.intent, moment.action
    no_mask = moment.mask is None or not moment.mask.any()
    if intent is Intent.WRONG:
        if action.kind == "click" and not action.clicks[0].positive:
            return "wrong_less"
        return "wrong_start" if no_mask else "wrong_more"
    if intent is Intent.MISSED and no_mask:
        return "start"
    return intent.value


def _hint(moment: Moment) -> str | None:
    """The part that answers a false instruction: at the first step, where a reader meets it."""
    if moment.hint is None or moment.index > 0:
        return None
    if moment.hint == "false_error" and moment.intent is not Intent.FITS:
        return None
    if moment.hint == "false_mask" and moment.mask is not None:
        return None
    part = f"hint_{moment.hint}"
    return part if part in library().phrases else None


_REPEATABLE = frozenset(
    "the The image a_image it it_is is has does goes ends extends last tone given_word mask_tone".split()
)
_TOPICS = frozenset("hardly moved new_pieces smooth ragged one_piece many_pieces clear_edge first_mask gone".split())


@cache
def _topics(conditions: str, sentence: str) -> frozenset[str]:
    """What a sentence tells: no thought tells it twice."""
    told = {slot.lower() for slot in _needs(sentence) - _REPEATABLE} | (set(conditions.split()) & _TOPICS)
    # All that is said of a change is one topic.
    if told & {"grew", "shrank", "hardly", "moved"}:
        told.add("change")
    return frozenset(told | {sentence})


def _holds(conditions: str, flags: frozenset[str]) -> bool:
    for condition in conditions.split():
        if condition.startswith("!"):
            if condition[1:] in flags:
                return False
        elif condition not in flags:
            return False
    return True


@cache
def _needs(sentence: str) -> frozenset[str]:
    return frozenset(re.findall(r"{(\w+)}", sentence))

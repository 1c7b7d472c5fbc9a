"""What a chat teacher is told: its role, both pictures of a step, the right action in words, and what was wrong.

The wording is part of every question to the cache (:mod:`ibisagent.engine.chat`): a change here asks everything anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ibisagent.engine.moments import Intent, Moment
from ibisagent.engine.reasoning.terse import where_text

if TYPE_CHECKING:
    from ibisagent.actions import Action

__all__ = ["SYSTEM_PROMPT", "action_words", "again_messages", "thought_messages"]

Message = dict[str, Any]

SYSTEM_PROMPT = """\
You write the inner voice of an agent that segments medical images. The agent sees the picture with its current mask \
in half-transparent green, and steers a segmentation tool: it clicks (positive clicks add, negative clicks remove), \
draws a box, takes a click back, discards a mask that it was given, or stops. Before every action it thinks aloud.

You are told the agent's next action, which is fixed, and you see two pictures. Picture A is what the agent sees. \
Picture B is for you alone: it shows where the mask is right (green), where it covers too much (red), and what it \
misses (yellow outline and stripes). Picture B tells you why the action makes sense; the agent has never seen anything \
like it.

Write the thought that leads the agent from picture A to its action:
- One to three plain sentences in the first person and the present tense, at most 60 words.
- Say what picture A shows: where the mask ends and where the structure goes on, how bright or dark, how smooth or \
ragged, which side, how large, what the last action changed.
- Use nothing that only picture B shows. Never mention a second picture, red or yellow marks, a reference, a ground \
truth, an annotation, an expert, a score or a percentage of overlap.
- The thought must fit the action: its kind, its sign and its place. Places are those of the picture, without numbers.
- Name no other structure as the target, and do not repeat an earlier thought.
- Write the thought alone: no heading, no quotation marks, no tags, no list."""

_WHY: dict[Intent, str] = {
    Intent.START: "There is no mask to build on. The agent recognises the target and begins with it.",
    Intent.MISSED: "The mask leaves out a part of the target at this place, and the click adds it.",
    Intent.EXCESS: "The mask covers something at this place that is not the target, and the click removes it.",
    Intent.WRONG: (
        "This action is a mistake, and the agent does not know it yet: it takes what it sees there for a reason to act "
        "so. Write what it honestly, but mistakenly, thinks, with no sign of doubt."
    ),
    Intent.UNDO: "The last action made the mask worse, as anyone sees who looks at what it changed. It is taken back.",
    Intent.DISCARD: "The mask that the user gave shows something else than the target. It is dropped.",
    Intent.FITS: "The mask fits the target, and the agent stops.",
    Intent.ROUGH: (
        "The mask shows the target only roughly, and more clicks do not help. The agent stops and says that it is "
        "uncertain."
    ),
    Intent.ABSENT: "The target is not in the picture. The agent has looked for it, and refuses.",
}

_HINTS: dict[str, str] = {
    "wrong_place": "The instruction names a place where the target is not. The agent trusts its eyes.",
    "false_error": "The instruction speaks of an error that the mask does not have. The agent trusts its eyes.",
    "false_mask": "The instruction speaks of a mask, and there is none. The agent trusts its eyes.",
}

_PAST = 4
"""So many earlier thoughts are shown: enough to go on from, and a long run does not cost ever more."""


def thought_messages(moment: Moment) -> list[Message]:
    """The question for the thought of a step, in the form of :mod:`ibisagent.messages`.

    Parameters
    ----------
    moment
        The step.

    Returns
    -------
    list of dict
        System message; user message with two images, the Agent view first and the Oracle view second, each ``uint8``
        (H, W, 3).
    """
    from ibisagent.engine.reasoning.views import agent_view, oracle_view

    target = moment.name if moment.modality is None else f"{moment.name} ({moment.modality})"
    facts = [f'The user\'s instruction: "{moment.instruction}"', f"The target: {target}."]
    if moment.given:
        facts.append("The user gave the mask that the run began with.")
    if moment.hint is not None:
        facts.append(_HINTS.get(moment.hint, "The instruction says something false. The agent trusts its eyes."))
    if moment.thoughts:
        past = moment.thoughts[-_PAST:]
        facts.append("The agent's thoughts so far, oldest first:\n" + "\n".join(f"- {thought}" for thought in past))
    if moment.previous_action is not None:
        facts.append(f"Its last action: {action_words(moment.previous_action)}.")
    mask = "no mask yet" if moment.mask is None else "with the current mask" if moment.mask.any() else "an empty mask"
    ask = [
        f"The agent's next action: {action_words(moment.action)}.",
        f"Why: {_WHY[moment.intent]}",
        "Write its thought.",
    ]
    content = [
        _text("\n".join(facts)),
        _text(f"Picture A, what the agent sees ({mask}):"),
        _image(agent_view(moment.pixels, moment.mask)),
        _text("Picture B, for you alone:"),
        _image(oracle_view(moment.pixels, moment.mask, moment.target)),
        _text("\n".join(ask)),
    ]
    return [{"role": "system", "content": [_text(SYSTEM_PROMPT)]}, {"role": "user", "content": content}]


def again_messages(messages: Sequence[Message], text: str, faults: Sequence[str]) -> list[Message]:
    """The question again, after a reply that cannot be used.

    Parameters
    ----------
    messages
        The question so far: :func:`thought_messages`, or this function's own.
    text
        The reply.
    faults
        What is wrong with it, one sentence each.
    """
    why = "\n".join(f"- {fault}" for fault in faults)
    wish = f"This thought cannot be used:\n{why}\nWrite another that is free of this, for the same action."
    return [
        *messages,
        {"role": "assistant", "content": [_text(text)]},
        {"role": "user", "content": [_text(wish)]},
    ]


def action_words(action: Action) -> str:
    """An action in plain words, with the ninth of the picture where it happens.

    Examples
    --------
    ``"a positive click at (0.2500, 0.7500), in the lower left of the picture"``
    """
    if action.kind == "click":
        return ", and ".join(
            f"a {'positive' if click.positive else 'negative'} click at ({click.x:.4f}, {click.y:.4f}), "
            f"in the {where_text(click.x, click.y)} of the picture"
            for click in action.clicks
        )
    if action.kind == "box":
        where = where_text((action.x0 + action.x1) / 2, (action.y0 + action.y1) / 2)
        return (
            f"a box from ({action.x0:.4f}, {action.y0:.4f}) to ({action.x1:.4f}, {action.y1:.4f}), "
            f"around the {where} of the picture"
        )
    if action.kind == "terminate":
        verdicts = {
            "found": "that the target is found",
            "absent": "that the target is absent",
            "uncertain": "that it is uncertain",
        }
        return f"stop, and say {verdicts[action.verdict]}"
    return {"undo": "undo, which takes back the last action", "discard": "discard the mask that the user gave"}[
        action.kind
    ]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(image: Any) -> dict[str, Any]:
    return {"type": "image", "image": image}

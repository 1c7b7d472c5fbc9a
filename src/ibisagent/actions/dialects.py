"""Dialects: how each family of models writes a turn.

Every dialect frames a turn in tags, ``<think>…</think><action>…</action>``, with
``<answer>…</answer>`` after a Terminate. They differ in what stands inside ``<action>``
(:mod:`ibisagent.actions.syntax`) and in which actions exist.

Strictness: anything outside the tags but white space is rejected, so are repeated, missing or
misspelt tags, and coordinates without exactly four decimals or outside [0, 1]. Lenience, all of it
normalised away: white space around the reply, around tags and around their content, spaces inside
parentheses, and the letter case of the verdict word.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, get_args

from pydantic import ValidationError

from ibisagent.actions.model import KINDS, TAG, Action, ClickAction, TerminateAction, Turn, Verdict
from ibisagent.actions.syntax import SYNTAXES
from ibisagent.errors import ActionError

__all__ = ["DIALECTS", "WITHOUT_THOUGHT", "Dialect"]

MAX_REPLY_CHARS = 100_000

WITHOUT_THOUGHT = "<think></think><action>"
"""How a reply begins that a model must not think in; the model goes on with the action itself. It reaches into the
action because tokenizers join "><" to one token: after a bare "</think>" a model would meet a cut that it never saw."""

_VERDICT = re.compile(r"(found|absent|uncertain)(?:[.:](.*))?", re.IGNORECASE | re.DOTALL)
_LOOKS_NEGATIVE = re.compile(r"(absent|uncertain)\b", re.IGNORECASE)
_ORDER = ("<think>", "</think>", "<action>", "</action>", "<answer>", "</answer>")


@dataclass(frozen=True)
class Dialect:
    """One way to write turns, and the actions that it may use.

    Parameters
    ----------
    name
        Name in records: ``"plain"``, ``"ibis-paper"``, ``"json"``.
    syntax
        What stands inside ``<action>``: ``"plain"`` text or ``"json"``.
    kinds
        The action kinds that may be written, a subset of :data:`~ibisagent.actions.KINDS`.
    max_clicks
        Most clicks in one action; plain text can say one.
    free_answer
        Whether an answer without a verdict word (or no answer) is allowed and means found, as the
        published weights were taught. An answer that begins with "absent" or "uncertain" but goes on without ``:`` or
        ``.`` is rejected even then: it must never count as found.
    """

    name: str
    syntax: Literal["plain", "json"]
    kinds: frozenset[str]
    max_clicks: int = 1
    free_answer: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", frozenset(self.kinds))
        if not self.kinds or not self.kinds <= set(KINDS):
            raise ValueError(f"kinds must be some of {KINDS}, not {sorted(self.kinds)}")
        if self.max_clicks < 1 or (self.syntax == "plain" and self.max_clicks != 1):
            raise ValueError("max_clicks must be at least 1, and 1 in plain syntax")

    def restrict(self, kinds: Collection[str]) -> Dialect:
        """The same dialect with only those of its actions that are in `kinds`.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        return replace(self, kinds=self.kinds & frozenset(kinds))

    def parse(self, text: str) -> Turn:
        """Read a reply.

        Raises
        ------
        ActionError
            With a stable code and a reason, for every text that is not a turn of this dialect. No
            string raises anything else.
        """
        if len(text) > MAX_REPLY_CHARS:
            raise ActionError("too_long", f"the reply has {len(text)} characters, at most {MAX_REPLY_CHARS} are read")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ActionError("not_unicode", "the reply is not valid Unicode text") from None
        thought, body, answer = _split(text)
        if body == "Terminate" and answer is None and self.free_answer:
            answer = "Found."  # the published weights may stop without a word
        action = self._check(SYNTAXES[self.syntax].parse(body, answer is not None))
        try:
            if isinstance(action, TerminateAction):
                verdict, rest = self._parse_answer(answer or "")
                action = TerminateAction(verdict=verdict, answer=rest)
            return Turn(thought=thought, action=action)
        except ValidationError as error:
            raise ActionError("malformed", _first_message(error)) from None

    def format(self, turn: Turn) -> str:
        """Write a turn; :meth:`parse` gives it back.

        Raises
        ------
        ActionError
            If the dialect cannot say it.
        """
        action = self._check(turn.action)
        text = f"<think>{turn.thought}</think><action>{SYNTAXES[self.syntax].format(action)}</action>"
        if isinstance(action, TerminateAction):
            text += f"<answer>{self._format_answer(action)}</answer>"
        return text

    def describe(self) -> str:
        """The grammar in words, as system prompts quote it."""
        lines = ["Reply with exactly one thought and one action:", "<think>your reasoning</think><action>…</action>"]
        lines.append("The action is one of:")
        lines += SYNTAXES[self.syntax].describe(self.kinds, self.max_clicks)
        if "terminate" in self.kinds:
            form = "a short answer" if self.free_answer else "Found: …, Absent: … or Uncertain: …"
            lines.append(f"After Terminate add <answer>…</answer> with {form}.")
            if self.free_answer:
                lines.append("Begin the answer with Absent: or Uncertain: if the target is not there or in doubt.")
        lines.append(
            "Coordinates are fractions of the image's width and height, from 0.0000 (left, top) to 1.0000 "
            "(right, bottom), always with four decimals."
        )
        lines.append("Write nothing outside the tags.")
        return "\n".join(lines)

    def _check(self, action: Action) -> Action:
        """Reject what the syntax could say but this dialect does not allow."""
        if action.kind not in self.kinds:
            allowed = ", ".join(k for k in KINDS if k in self.kinds)
            raise ActionError("action_not_allowed", f"the action '{action.kind}' is not available, only {allowed}")
        if isinstance(action, ClickAction) and len(action.clicks) > self.max_clicks:
            raise ActionError(
                "too_many_clicks", f"{len(action.clicks)} clicks in one action, at most {self.max_clicks} are allowed"
            )
        return action

    def _parse_answer(self, text: str) -> tuple[Verdict, str]:
        match = _VERDICT.fullmatch(text)
        if match:
            word = match[1].lower()
            verdict = next(v for v in get_args(Verdict) if v == word)
            return verdict, (match[2] or "").strip()
        if self.free_answer and not _LOOKS_NEGATIVE.match(text):
            return "found", text
        raise ActionError("answer_verdict", "the answer must begin with 'Found:', 'Absent:' or 'Uncertain:'")

    def _format_answer(self, action: TerminateAction) -> str:
        if self.free_answer and action.verdict == "found" and action.answer:
            try:
                if self._parse_answer(action.answer) == ("found", action.answer):
                    return action.answer
            except ActionError:
                pass  # it begins like another verdict, so the verdict has to be written
        word = action.verdict.capitalize()
        return f"{word}: {action.answer}" if action.answer else f"{word}."


def _split(text: str) -> tuple[str, str, str | None]:
    """Cut a reply into thought, action body and answer, each stripped."""
    text = text.strip()
    tags = list(TAG.finditer(text))
    found = tuple(tag[0] for tag in tags)
    if found not in (_ORDER, _ORDER[:4]):
        raise _tag_error(found)
    outside = [text[: tags[0].start()], text[tags[-1].end() :]]
    outside += [text[tags[i].end() : tags[i + 1].start()] for i in range(1, len(tags) - 1, 2)]
    if any(part.strip() for part in outside):
        raise ActionError("junk", "there is text outside the tags")
    parts = [text[tags[i].end() : tags[i + 1].start()].strip() for i in range(0, len(tags), 2)]
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None


def _tag_error(found: tuple[str, ...]) -> ActionError:
    for tag in _ORDER[:4]:
        if tag not in found:
            return ActionError("missing_tag", f"the tag {tag} is missing")
    for tag in _ORDER:
        if found.count(tag) > 1:
            return ActionError("repeated_tag", f"the tag {tag} occurs more than once")
    return ActionError("tag_order", "the order is <think>…</think><action>…</action>, then <answer>…</answer> if any")


def _first_message(error: ValidationError) -> str:
    return error.errors(include_url=False, include_input=False, include_context=False)[0]["msg"]


DIALECTS: dict[str, Dialect] = {
    "plain": Dialect("plain", "plain", frozenset(KINDS)),
    "ibis-paper": Dialect("ibis-paper", "plain", frozenset({"click", "terminate"}), free_answer=True),
    "json": Dialect("json", "json", frozenset(KINDS), max_clicks=8),
}
"""The dialects by name: ours, the published weights', and JSON."""

"""A chat model that writes more instruction templates, and the checks that each must pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ibisagent.engine.language.instructions import CATEGORIES, all_templates, fill
from ibisagent.engine.language.naming import Phrase
from ibisagent.engine.language.ontology import MODALITIES, mentions
from ibisagent.engine.language.templates import HISTORY_PLACEHOLDERS, PLACEHOLDERS, near_duplicate, placeholders

__all__ = ["ChatClient", "Rejected", "WrittenTemplates", "check_template", "write_templates"]

MAX_CHARACTERS = 200
MAX_ROUNDS = 8

_MEANING: dict[str, str] = {
    "direct": "a plain order to segment the target",
    "goal_oriented": "says what the mask is for, or what the result must be like",
    "initialization_intent": "says that a new segmentation begins and that there is no mask yet",
    "mixed_conversational": "casual talk around the request, as to a colleague",
    "polite": "a courteous request",
    "question": "a question that a mask answers",
    "concise_technical": "a terse technical note of a few words",
    "whats_next": "asks what the next click or step should be, given the mask on screen",
    "error_hint": "says that the mask on screen has an error, without saying where",
    "concise": "a terse note of a few words that the mask must be refined",
    "improve_correct": "an order to improve or correct the mask on screen",
    "check_verify": "asks to check the mask on screen, and to correct it where it is wrong",
    "polite_conversational": "a courteous, casual request to improve the mask on screen",
}

_WORDING = (
    "{the} the target with its article, as in 'the left lung' or 'the cell nuclei'; {name} without the article; "
    "{Name} the same with a capital letter; {image} the kind of picture without an article, as in 'CT scan'; "
    "{an_image} with 'a' or 'an'; {it} it or them; {its} its or their; {is} is or are; {has} has or have; "
    "{does} does or do; {s} the ending of a verb whose subject is the target, as in 'end{s}'."
)


class ChatClient(Protocol):
    """Any chat server, asked once."""

    def complete(self, messages: list[dict[str, Any]], *, temperature: float, max_tokens: int, seed: int) -> str:
        """The text of one reply."""
        ...


@dataclass(frozen=True)
class Rejected:
    """A line that is no template, and why."""

    text: str
    reason: str


@dataclass(frozen=True)
class WrittenTemplates:
    """What a model wrote.

    Parameters
    ----------
    category
        Of all of them.
    accepted
        Ready for ``draw_instruction(..., extra={category: accepted})``.
    rejected
        The other lines, in the order of writing.
    """

    category: str
    accepted: tuple[str, ...]
    rejected: tuple[Rejected, ...]


# What stands after the target must agree with it, so a fixed verb is wrong for half of the targets. In "the mask of
# {the} is", the verb is the mask's.
_FIXED_VERB = re.compile(r"(?<!of )\{(?:the|name|Name)\} (?:is|are|has|have|does|was|were)\b")
_VERB_BEFORE = re.compile(
    r"(?:^|[,;:.?!] |\b(?:where|what|how|how \w+|why) )(?:is|are|has|have|does|do) \{(?:the|name|Name)\}",
    re.IGNORECASE,
)
_MODALITY = re.compile(
    r"\b(?:" + "|".join(re.escape(m) for m in (*MODALITIES, "MR", "radiograph", "tomography", "sonography")) + r")\b",
    re.IGNORECASE,
)
_SAMPLES = (
    (Phrase("left lung", False), "CT"),
    (Phrase("cell nuclei", True), "Histology"),
    (Phrase("both lungs", True), "MRI"),
    (Phrase("CSF", False), None),
)


def _stage(category: str) -> str:
    for stage, names in CATEGORIES.items():
        if category in names:
            return stage
    everything = (*CATEGORIES["start"], *CATEGORIES["refine"])
    raise ValueError(f"no category {category!r}; choose from {', '.join(everything)}")


def _library(category: str) -> list[str]:
    """All templates of a category, and the held-out ones of the others."""
    held_out = [t for name, templates in all_templates(None, "test").items() if name != category for t in templates]
    return [*all_templates()[category], *held_out]


def check_template(text: str, category: str, known: Iterable[str] | None = None) -> str | None:
    """Why a line is no template for a category, or None if it is one.

    Parameters
    ----------
    text
        The line.
    category
        One of the 13.
    known
        Templates that it must not resemble. None is those of the category and all held-out ones: what is measured
        with must not come into training by another hand.

    Raises
    ------
    ValueError
        If there is no such category.
    """
    allowed = PLACEHOLDERS | (HISTORY_PLACEHOLDERS if _stage(category) == "refine" else frozenset())
    if not text or len(text) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS} characters" if text else "empty"
    try:
        used = placeholders(text)
    except (ValueError, IndexError) as err:
        return f"braces: {err}"
    if not used <= allowed:
        return f"unknown placeholder: {', '.join(sorted(used - allowed))}"
    if not used & {"the", "name", "Name"}:
        return "does not name the target"
    if re.search(r"\b(?:the|a|an|this) \{the\}", text, re.IGNORECASE) or re.search(r"\b[Aa]n? \{image\}", text):
        return "an article before {the} or a/an before {image}"
    if _FIXED_VERB.search(text) or _VERB_BEFORE.search(text):
        return "a verb that does not follow the target's number"
    plain = re.sub(r"\{\w+\}", "", text)
    found = mentions(plain)
    if found:
        return f"names a structure: {found[0].name}"
    if _MODALITY.search(plain):
        return f"names a modality: {_MODALITY.findall(plain)[0]}"
    for phrase, modality in _SAMPLES:
        sentence = fill(text, phrase, modality)
        if re.search(r"[{}\n]|\s\s|^\W", sentence) or sentence[-1] not in ".?!":
            return "not a sentence that begins with a word and ends with . ? or !"
    twin = near_duplicate(text, _library(category) if known is None else known)
    return None if twin is None else f"nearly the same as: {twin}"


def _messages(category: str, count: int, examples: Sequence[str]) -> list[dict[str, Any]]:
    refine = _stage(category) == "refine"
    history = (
        " A mask is already on screen as a green overlay. You may also use {mask}, a noun phrase as in 'the {mask}' "
        "for 'the mask after two clicks', and {Done}, a clause that begins a sentence, as in 'Two clicks have been "
        "made so far'."
    )
    system = (
        "You write instruction templates for software that segments medical images. A template is one line of natural "
        "English, what a doctor or researcher would type. Placeholders: "
        + _WORDING
        + (history if refine else " There is no mask yet.")
        + " Never name a structure, a disease or a kind of image yourself. Every template has the target once or more "
        "and must read well for one structure and for several. Write one template a line, without numbers or quotes."
    )
    user = (
        f"Category: {category.replace('_', ' ')}, that is, {_MEANING[category]}.\nExamples:\n"
        + "\n".join(examples)
        + f"\nWrite {count} new templates of this category. Vary words and sentence structure as much as you can."
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _lines(reply: str) -> list[str]:
    """Lines of a reply without bullets, numbers and quotes around them; fences and blank lines are dropped."""
    lines = []
    for raw in reply.splitlines():
        line = re.sub(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s+", "", raw).strip().rstrip(",")
        if len(line) > 1 and line[0] in "\"'“`" and line[-1] in "\"'”`":
            line = line[1:-1].strip()
        if line and not raw.lstrip().startswith("```"):
            lines.append(line)
    return lines


def write_templates(
    client: ChatClient,
    category: str,
    count: int,
    rng_or_seed: np.random.Generator | int,
    *,
    known: Sequence[str] = (),
    temperature: float = 1.0,
) -> WrittenTemplates:
    """Ask a chat model for new templates until there are enough, or it has nothing new to say.

    Parameters
    ----------
    client
        Asked at most eight times; its errors are the caller's.
    category
        One of the 13.
    count
        How many are wanted; fewer come back if the model does not deliver them.
    rng_or_seed
        Draws the examples and the seeds of the requests.
    known
        Templates of earlier calls, which must not be repeated; the library's own, also held-out ones, never are.
    temperature
        Of the requests.

    Raises
    ------
    ValueError
        If there is no such category, or count is less than one.
    """
    _stage(category)
    if count < 1:
        raise ValueError("count must be at least 1")
    rng = rng_or_seed if isinstance(rng_or_seed, np.random.Generator) else np.random.default_rng(rng_or_seed)
    # The examples are of the train split: a model that saw held-out ones would write their like into training.
    shown = all_templates(None, "train")[category]
    taken = [*(t for templates in all_templates().values() for t in templates), *known]
    accepted: list[str] = []
    rejected: list[Rejected] = []
    for _ in range(MAX_ROUNDS):
        examples = [shown[int(i)] for i in rng.choice(len(shown), min(5, len(shown)), replace=False)]
        messages = _messages(category, count - len(accepted), examples)
        reply = client.complete(
            messages, temperature=temperature, max_tokens=60 * count + 200, seed=int(rng.integers(2**31))
        )
        before = len(accepted)
        for line in _lines(reply):
            reason = check_template(line, category, (*taken, *accepted))
            if reason is not None:
                rejected.append(Rejected(line, reason))
            elif len(accepted) < count:
                accepted.append(line)
        if len(accepted) >= count or len(accepted) == before:
            break
    return WrittenTemplates(category, tuple(accepted), tuple(rejected))

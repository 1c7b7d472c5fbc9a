"""Refuses reasoning that no agent could have: leaks, contradictions, other targets, bad form, claims without ground.

The same text always gets the same answer. Rules name the words that caused a refusal; where they find no leak, a small
linear model has a second look (:mod:`.leak_score`).
A violation's ``code`` is one of :data:`CODES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ibisagent.engine.language.naming import target_phrases
from ibisagent.engine.moments import Intent
from ibisagent.engine.reasoning.claims import contradictions, ungrounded
from ibisagent.engine.reasoning.facts import measure
from ibisagent.engine.reasoning.leak_score import leak_score
from ibisagent.engine.reasoning.leaks import find_leaks
from ibisagent.engine.reasoning.wording import plain, sentences

if TYPE_CHECKING:
    from ibisagent.engine.moments import Moment

__all__ = ["CODES", "MAX_WORDS", "Violation", "verify"]

CODES: tuple[str, ...] = ("leak", "contradiction", "other_target", "form", "ungrounded")

MAX_WORDS = 120
"""Longest thought, in words: an agent's context pays for every one."""


class Violation(NamedTuple):
    """What is wrong with a text.

    Parameters
    ----------
    code
        One of :data:`CODES`.
    excerpt
        The words, in plain lower-case letters.
    message
        One sentence for whoever writes again.
    """

    code: str
    excerpt: str
    message: str


def verify(text: str, moment: Moment, *, with_picture: bool = True) -> list[Violation]:
    """Check a thought, or the answer's text, of a step. An empty list lets it pass.

    Parameters
    ----------
    text
        What a teacher wrote.
    moment
        The step. Its target is not read: the verifier judges by what the agent sees.
    with_picture
        False leaves out the claims that need facts measured on the picture (for texts whose picture is not at hand).

    Returns
    -------
    list of Violation
        ``leak`` speaks of what only the Oracle view shows; ``contradiction`` does not go with the action;
        ``other_target`` names another structure as what is segmented; ``form`` is no plain short paragraph;
        ``ungrounded`` states what the facts of the Agent view clearly deny.
    """
    found = list(_form(text))
    letters = plain(text)
    action = moment.action
    clicks: tuple[tuple[float, float], ...] = ()
    if action.kind == "click":
        clicks = tuple((click.x, click.y) for click in action.clicks)
    elif action.kind == "box":
        clicks = ((action.x0, action.y0), (action.x1, action.y1))
    facts = measure(moment) if with_picture else None
    leaks = find_leaks(
        text,
        is_gray=facts.image.gray if facts is not None else _is_gray(moment),
        has_hue=lambda family: _has_hue(moment, family),
        clicks=clicks,
        is_wrong=moment.intent is Intent.WRONG,
        names=tuple(phrase.text for phrase in target_phrases(moment.name)),
    )
    for leak in leaks:
        found.append(Violation("leak", leak.excerpt, f"only the Oracle view tells this ({leak.family})"))
    if not leaks and leak_score(text) > 0:
        worst = max(sentences(letters), key=leak_score, default=letters)
        found.append(Violation("leak", worst, "this reads as if the writer had seen more than the agent"))
    found.extend(Violation("contradiction", *claim) for claim in contradictions(letters, moment, facts))
    if facts is not None:
        found.extend(Violation("ungrounded", *claim) for claim in ungrounded(letters, moment, facts))
    found.extend(_other_target(text, moment))
    return found


def _is_gray(moment: Moment) -> bool:
    pixels = moment.pixels
    return bool(np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2]))


_HUE_RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "red": ((0, 20), (340, 360)), "orange": ((10, 45),), "yellow": ((30, 75),), "blue": ((180, 260),),
    "cyan": ((160, 200),), "magenta": ((250, 345),),
}  # fmt: skip


def _has_hue(moment: Moment, family: str) -> bool:
    """Whether a hundredth of the image's pixels have the hue, with some saturation."""
    import cv2

    pixels = moment.pixels
    step = max(1, max(pixels.shape[:2]) // 128)
    hsv = cv2.cvtColor(np.ascontiguousarray(pixels[::step, ::step]), cv2.COLOR_RGB2HSV)
    hue, lively = hsv[..., 0].astype(int) * 2, (hsv[..., 1] > 40) & (hsv[..., 2] > 30)
    hit = np.zeros_like(lively)
    for low, high in _HUE_RANGES[family]:
        hit |= (hue >= low) & (hue <= high)
    return bool((hit & lively).mean() > 0.01)


_TAGS = re.compile(r"</?\s*\w+[^>]*>|[{}]|```|\|\s*-{3}|^\s*[-*#]\s", re.MULTILINE)
_PAIR = re.compile(r"[(\[]\s*-?\d*\.?\d+\s*[,;]\s*-?\d*\.?\d+")


def _form(text: str) -> Iterator[Violation]:
    words = text.split()
    if not any(c.isalpha() for c in text):
        yield Violation("form", text[:40], "there is no sentence")
    if len(words) > MAX_WORDS:
        yield Violation("form", " ".join(words[:8]), f"{len(words)} words; at most {MAX_WORDS}")
    if match := _TAGS.search(text):
        yield Violation("form", match.group(), "a thought is plain text without tags, braces or lists")
    pairs = _PAIR.findall(text)
    if len(pairs) > 1:
        yield Violation("form", pairs[0], "a list of coordinates is no thought")


# What is segmented is the object of these; whatever else is named is a neighbour, a container or where it comes from.
_SEGMENTING = re.compile(
    r"(?:\b(?:segment(?:s|ing)?|outlin(?:e|es|ing)|delineat(?:e|es|ing)|search(?:ing)? for|look(?:ing)? for"
    r"|target is|aim(?:ing)? (?:at|for)|mask (?:\w+ )?(?:misses|fits|follows|captures|lacks)|masks? of|mask for"
    r"|(?:rest|remainder) of|click(?:ing)? (?:in|on|into|inside)|start (?:in|on|with)|whole|complete)"
    r"|\bsegmentation of) (?:(?:only|all|all of|both|the|this|that|a|an|whole|entire|its|rest of|part of|piece of"
    r"|middle of|centre of|end of|tip of) )*$"
)
_BARE = re.compile(
    r"^(?: \w+){0,2}? (?:is|are|remains?|stays?) (?:still |not |yet |also |all |partly |completely )*"
    r"(?:missing|bare|uncovered|incomplete|not covered|without green|open)\b"
)
_GENERIC = frozenset(
    """head neck tail body bodies gland glands vessel vessels wall walls lobe lobes skull tumor tumour tumors tumours
    nucleus nuclei cell cells muscle muscles skin bone bones fat tissue lesion lesions rim cavity duct ducts artery
    arteries vein veins blood fluid cortex shaft trunk branch mass masses nodule node nodes cyst organ membrane
    stroma lumen background spine brain chest abdomen eye retina mucosa bowel""".split()
)
"""Parts, tissues and kinds of things: what they mean is told by the structure that is asked for."""


def _other_target(text: str, moment: Moment) -> Iterator[Violation]:
    from ibisagent.engine.language.ontology import mentions, related

    named = mentions(text)
    others = [m for m in named if text[m.start : m.end].lower() not in _GENERIC and not related(m.name, moment.name)]
    if not others:
        return
    names = {moment.name.lower(), *(w for w in moment.name.lower().split() if len(w) > 3)}
    kept = {(m.start, m.end) for m in others}
    for sentence in sentences(text):
        at = text.find(sentence)
        low = sentence.lower()
        owns = any(name in low for name in names) or any(
            at <= m.start < at + len(sentence) for m in named if (m.start, m.end) not in kept
        )
        if owns or re.search(r"\b(?:user|instruction|request|asked|looks? like|not|discard|instead|given)\b", low):
            continue
        for mention in others:
            if not at <= mention.start < at + len(sentence):
                continue
            before, after = low[: mention.start - at], low[mention.end - at :]
            match = _SEGMENTING.search(before)
            bare = None if moment.intent is not Intent.MISSED else _BARE.search(after)
            if (match or (bare and not before.strip(" the"))) and not _negative_role(match, moment):
                words = (match.group() if match else "") + text[mention.start : mention.end].lower()
                yield Violation("other_target", words, f"the target is the {moment.name}")
                return


def _negative_role(match: re.Match[str] | None, moment: Moment) -> bool:
    """A negative click, a drop or an undo may name what the mask wrongly lies on."""
    if moment.intent in (Intent.DISCARD, Intent.UNDO, Intent.ABSENT):
        return True
    negative = moment.action.kind == "click" and not moment.action.clicks[0].positive
    aims = match and re.search(r"\b(?:segment|outlin|delineat|search|look|target|aim|misses|fits)", match.group())
    return negative and not aims

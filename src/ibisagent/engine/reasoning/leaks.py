"""Finds what only the Oracle view shows: words for the reference, its colours and numbers, and knowledge of the run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from ibisagent.engine.reasoning.leak_words import HUES, MISSPELT, hue_pattern, innocent, leak_families, macros
from ibisagent.engine.reasoning.wording import plain, readings, sentences

__all__ = ["Leak", "find_leaks"]


@dataclass(frozen=True)
class Leak:
    """One finding: the family of the pattern, and the words that gave it away (in plain letters)."""

    family: str
    excerpt: str


def find_leaks(
    text: str,
    *,
    is_gray: bool = True,
    has_hue: Callable[[str], bool] = lambda family: True,
    clicks: tuple[tuple[float, float], ...] = (),
    is_wrong: bool = False,
    names: tuple[str, ...] = (),
) -> list[Leak]:
    """All leaks of a text, each family once.

    Parameters
    ----------
    text
        A thought or an answer.
    is_gray
        Whether the image has no colours of its own: then every hue but green is the Oracle view's.
    has_hue
        For an image in colour: whether it shows a family of hues (``"red"`` …).
    clicks
        (x, y) in [0, 1] that the action clicks: the only coordinates that a text may carry.
    is_wrong
        Whether the action is wrong on purpose: then no word may say that it is.
    names
        Ways to say the target: their words ("true lumen", "ground-glass opacity") are no leaks.
    """
    found: dict[str, Leak] = {}

    def note(family: str, excerpt: str) -> None:
        found.setdefault(family, Leak(family, " ".join(excerpt.split())))

    if names:
        # "The true tumour" must stay one: the name gives way to another noun, not to nothing.
        text = _own_names(names).sub("anatomy", plain(text))
    for reading in readings(text):
        stripped = innocent().sub(" ", _without_own_clicks(reading, clicks))
        for family, pattern in leak_families():
            match = pattern.search(stripped)
            if match:
                note(family, match.group())
        for sentence in sentences(stripped):
            for family, excerpt in _in_sentence(sentence):
                note(family, excerpt)
        for excerpt in _other_masks(stripped):
            note("reference", excerpt)
        for excerpt in _hues(stripped, is_gray, has_hue):
            note("colour", excerpt)
    if is_wrong and (match := _OWNS_UP.search(plain(text))):
        note("insider", match.group())
    for word in _misspelt(plain(text)):
        note("reference", word)
    return list(found.values())


@lru_cache(maxsize=256)
def _own_names(names: tuple[str, ...]) -> re.Pattern[str]:
    # Sorted by their letters too: a set's order differs from run to run.
    known = sorted({plain(name) for name in names}, key=lambda name: (-len(name), name))
    return re.compile("|".join(rf"(?<!true )(?<!false )\b{re.escape(name)}\b" for name in known))


_OWNS_UP = re.compile(
    r"\b(?:wrong|bad|poor|incorrect|mistaken|false|erroneous|unsuitable) (?:click|point|place|spot|choice|move"
    r"|sign|side"
    r"|decision|action|step)s?\b|\b(?:mistakes?|anyway|blunder|nevertheless|regardless|errors?|damag\w*|hurt\w*"
    r"|wrong(?:ly)?|incorrect\w*|slip|on record|knowing|undo\w*|undone|revert\w*"
    r"|even though|harm\w*|spoil\w*|ruin\w*|worsen\w*)\b|\bmakes? (?:it|the mask|things) worse|\btak(?:e|en) (?:it"
    r" )?back\b"
)

_COORDINATES = re.compile(r"[(\[]? ?(?:x ?= ?)?(0?\.\d+|[01]\.?\d*) ?[,;] ?(?:y ?= ?)?(0?\.\d+|[01]\.?\d*) ?[)\]]?")


def _without_own_clicks(text: str, clicks: tuple[tuple[float, float], ...]) -> str:
    """Blank coordinates that say no more than the action does."""
    if not clicks:
        return text

    def blank(match: re.Match[str]) -> str:
        x, y = float(match[1]), float(match[2])
        own = any(abs(x - cx) < 0.006 and abs(y - cy) < 0.006 for cx, cy in clicks)
        return " " if own else match.group()

    return _COORDINATES.sub(blank, text)


@cache
def _percent() -> re.Pattern[str]:
    number = macros()["NUMBER"]
    return re.compile(rf"(?<![\w.]){number} ?-?(?:%|percent|per cent|pct|percentage points?|percentile)")


_GROWTH = re.compile(
    r"\b(?:gr[eo]w\w*|shr[aiu]nk\w*|enlarg\w+|larger|smaller|bigger|gain\w*|lost|los(?:es|ing)|increas\w+|decreas\w+"
    r"|reduc\w+|add(?:ed|s)?|expand\w*|chang\w+|cut|swell\w*|swollen|swelled|took|went|came|trimm\w+|more area"
    r"|less area)\b"
)
_OF_IMAGE = re.compile(
    r"^\W*(?:(?:of|in) (?:the |this |its |our )?(?:whole |entire |full )?(?:image|picture|frame|field|view|scan"
    r"|slice|"
    r"photograph|radiograph)|of (?:its|the mask's|the green|the mask|its own|the previous|the old|the former)"
    r"(?: (?:former|previous|old|own|earlier))? ?(?:area|size|extent)?|larger|smaller|bigger|$|[.,;]|by the last"
    r"|after|with|in (?:area|size)|more area|and|but|when|so)"
)
_ESTIMATE = re.compile(
    r"\b(?:about|around|roughly|some|perhaps|maybe|nearly|almost|approximately) \w+ ?(?:%|percent|per cent)[^.]*"
    r"\b(?:seems?|looks?|appears?|i guess|i would say|i'd say|by eye|i estimate)\b"
)
_JUDGED = re.compile(
    r"\b(?:agree\w*|accura\w+|errors?|match\w*|similar\w*|quality|coverage|remain\w*|missing|missed|correct\w*"
    r"|wrong\w*|complete\w*|done|finished|overlap\w*|uncovered|too (?:much|large|big|little|small)|excess"
    r"|captur\w+|found|includ\w+|exclud\w+|belong\w*|short|better|worse|target|structure|organ"
    r"|left out|leaves? out|of the way|to go|hit|certain\w*|sure|confiden\w*)\b"
)

# Verbs of saying need a subject that the agent can hear or see.
_SAYS = (
    r"(says?|said|states|stated|tells?|told|dictates?|declares?|declared|specif(?:y|ies|ied)|certif(?:y|ies|ied)"
    r"|attests?|prescribes?|prescribed|decrees?|insists?|assures?|proclaims?|testif(?:y|ies)|spells? out|stipulates?"
    r"|wants?|wanted|needs (?=me|us|the click|a click)|expects?|prefers?|suggests? (?=i |that i |a click|clicking)"
    r"|discloses?|disclosed|knows?|knew|demands?|reads? out|has it that|betrays?|divulges?|lists)\b(?! me\b)"
)
_SAYING = re.compile(rf"((?:[\w'-]+ ){{0,5}}?[\w'-]+) (?:\w+ly )?{_SAYS}")
# Most sentences have no such verb: that is told much sooner than that no subject is followed by one.
_ANY_SAYS = re.compile(rf" {_SAYS}")
_HEARD = re.compile(
    r"\b(?:users?|instructions?|requests?|sentences?|text|questions?|images?|pictures?|scan|photograph|radiograph"
    r"|task|"
    r"query|pixels?|intensit\w+|brightness|texture|contrast|greys?|grays?|anatomy|person|it|this|that|nothing|they"
    r"|message|wording|words?|asker|tone|edge|border|signal|shape|symmetry|which|what|appearance|density|attenuation"
    r"|echo\w*|i|mask|you|she|he|client|one|description|command|shadow|location|position|side|sides|level|tissue)$"
)


# An error is the user's word, or one that is looked for in vain; else it is known from a comparison.
_ERROR = re.compile(r"\berrors?\b")
_USERS_ERROR = re.compile(
    r"\b(?:users?|request\w*|instruction|asked|speak\w*|mention\w*|claim\w*|complain\w*|question|believes?|thinks?"
    r"|says?"
    r"|(?:see|find|notice|spot|detect|discover)\w* (?:\w+ )?(?:no|not|nothing|any|none|one)|cannot (?:see|find)"
    r"|(?:no|any) (?:\w+ )?errors? (?:that i|i)|fix|(?:i|to|and|can|will) (?:now )?correct|(?:was|made|is) (?:an"
    r"|my|in) error|by error|in error|my (?:own )?error|no errors? (?:in|of) (?:it|the mask|this mask))\b"
)


@lru_cache(maxsize=4096)  # texts share sentences
def _in_sentence(sentence: str) -> tuple[tuple[str, str], ...]:
    return tuple(_found_in_sentence(sentence))


def _found_in_sentence(sentence: str) -> Iterator[tuple[str, str]]:
    if (match := _ERROR.search(sentence)) and not _USERS_ERROR.search(sentence):
        yield "errors", match.group()
    for match in _percent().finditer(sentence):
        after = sentence[match.end() :]
        clause = sentence[sentence.rfind(",", 0, match.start()) + 1 :].split(", ")[0]
        growth = _GROWTH.search(clause)
        if _ESTIMATE.search(sentence) and int(re.sub(r"\D", "", match.group()) or 1) % 5 == 0:
            continue
        plain_number = "." not in match.group() and not _JUDGED.search(clause)
        if not (
            plain_number and (growth or re.match(r"^\W*(?:of|in) (?:the |this )?", after)) and _OF_IMAGE.match(after)
        ):
            yield "number", match.group()
            break
    if not _ANY_SAYS.search(sentence):
        return
    for match in _SAYING.finditer(sentence):
        if not _HEARD.search(match[1]) and not re.search(r"\b(?:user|i|instruction|request|question)\b", match[1]):
            yield "source", match.group()


# Another mask than the one on the picture has a name of its own: only these words may stand before "mask".
_MASK = re.compile(r"\b([a-z']+) (?:(?:binary|segmentation|whole|entire|first|new|second) )?(masks?|segmentations?)\b")
_OF_THIS_MASK = frozenset(
    """a an the this that these those its it my our your his her their no any each every one some another whose which
    what such same single little bit green given current present existing shown visible displayed drawn first
    new newer latest last old older previous former earlier initial starting start started begun beginning
    original final approximate preliminary provisional sloppy satisfactory plausible acceptable reasonable
    bloated leaky spotty oversized undersized enlarged reduced stray resulting result updated refined improved
    fresh next empty rough coarse good better best bad worse poor fair decent fine clean tidy loose tight small
    smaller large larger big bigger tiny huge thin wide narrow broad thick generous smooth ragged jagged patchy
    scattered fragmented solid compact round oval long short whole entire rest remaining upper lower left right
    top bottom middle central outer inner main separate complete incomplete partial full half wrong unsuitable
    useless misplaced mismatched user's user users provided supplied proposed uploaded loaded transparent
    translucent green's greenish coloured image's of with without from to into in on onto at by as for over
    under above below inside outside beyond within across through between around along near past behind and or
    but nor is are was were be been has have had does do did if when while where so than then not now still yet
    already makes make made let leave leaves keep keeps kept drop drops discard discards refine refines improve
    improves extend extends shrink shrinks grow grows cut cuts trim correct corrects fix change changes see call
    accept get gets got give gives need needs want show starts because since until though although both all most
    much more less only just also even simply current's second-hand anatomy how why binary segmented
    segmentation uncertain tentative""".split()
)


def _other_masks(text: str) -> Iterator[str]:
    for match in _MASK.finditer(text):
        if match[1] in _OF_THIS_MASK or match[1].endswith("ly"):
            continue
        from ibisagent.engine.language.ontology import mentions

        before = text[: match.end(1)]
        if not any(m.end == len(before) for m in mentions(before[-80:].rjust(len(before)))):
            yield match.group()


_ERROR_WORDS = (
    r"(?:false|errors?|mistakes?|excess|surplus|overshoot|superfluous|missed|missing|negatives|positives"
    r"|(?:false|true) (?:negative|positive))"
)
# Colour that means something: of an overlay, or together with a word for an error.
_COLOUR_OF_MARKS = re.compile(
    rf"\b(?:mark|shad|tint|paint|highlight|outlin|hatch|flag|overlai|indicat|denot|circl|display|colou?red|signall"
    rf"|drawn|shown|printed)\w* (?:\w+ ){{0,3}}?{hue_pattern()}"
    rf"|{hue_pattern()}(?:[- ]\w+){{0,2}}?[- ](?:overlay|outlines?|contours?|hatch\w*|stripes?|marks|marking|mask"
    rf"|pixels?|tints?|shading|highlight\w*|masks|label|lines? drawn|warning|flag|code|legend|arrow)\b"
    rf"|{hue_pattern()} (?:\w+ ){{0,5}}?{_ERROR_WORDS}\b"
    rf"|\b{_ERROR_WORDS} (?!click)(?:\w+ ){{0,5}}?{hue_pattern()}"
)
# The same without a word for a mark: told of a picture in colour, it may be tissue, dye or flow.
_COLOUR_ALONE = re.compile(
    rf"\b(?:seen|given|appear\w*|visible|left) in (?:\w+ )?{hue_pattern()}"
    rf"|\b(?:red|blue|yellow|orange|magenta|cyan) (?:areas?|regions?|zones?|sections?|cross|parts? (?:is|are|was))\b"
    rf"|\b(?:turns?|turned|still|remains?|is all|lights? up|appears? in|shown in|any|no|more) (?:\w+ )?"
    r"(?:red|blue|yellow|orange|magenta|cyan)(?= ?(?:[.,;:]|$|anywhere|left|remain|there|here|now))"
    r"|\bin (?:red|blue|yellow|orange|magenta|cyan)(?= ?(?:[.,;:]|$|anywhere|there|here|now))"
)
_NATURAL = re.compile(
    r"\b(?:doppler|flow|stain\w*|dye\w*|dapi|h ?& ?e|channel|fluoresc\w+|blood\w*|mucosa\w*|tissue|inflam\w+|ink"
    r"|bile|slough|bleed\w*|h(?:a)?emorrhag\w+|oxygen\w*)\b"
)


def _hues(text: str, is_gray: bool, has_hue: Callable[[str], bool]) -> Iterator[str]:
    if match := _COLOUR_OF_MARKS.search(text):
        yield match.group()
    if (is_gray or not _NATURAL.search(text)) and (match := _COLOUR_ALONE.search(text)):
        yield match.group()
    for family in HUES:
        match = re.search(hue_pattern(family), text)
        if match and (is_gray or not has_hue(family)):
            yield match.group()


def _misspelt(text: str) -> Iterator[str]:
    for word in re.findall(r"[a-z]{6,}", text):
        if _is_misspelt(word):
            yield word


@lru_cache(maxsize=4096)
def _is_misspelt(word: str) -> bool:
    if word in _REAL_WORDS or word in MISSPELT:
        return False
    return any(abs(len(word) - len(known)) <= 1 and _one_edit(word, known) for known in MISSPELT)


_REAL_WORDS = frozenset(
    "answers answered swerve preference deference conference inference coordinated reverence labeled annotating".split()
)


def _one_edit(a: str, b: str) -> bool:
    """Whether one letter put in, left out, changed, or two neighbours swapped, make b of a."""
    if a == b:
        return True
    start = next((i for i, (p, q) in enumerate(zip(a, b, strict=False)) if p != q), min(len(a), len(b)))
    if len(a) == len(b):
        swapped = a[:start] + a[start + 1 : start + 2] + a[start : start + 1] + a[start + 2 :]
        return a[start + 1 :] == b[start + 1 :] or swapped == b
    short, long = sorted((a, b), key=len)
    return short[start:] == long[start + 1 :]

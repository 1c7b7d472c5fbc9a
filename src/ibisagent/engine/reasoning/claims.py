"""Holds what a text claims against the action and the facts: contradictions, and statements that no one can see.

Rules speak only where the case is clear. A sentence that compares, recalls an earlier step or repeats the user is not
a claim about the present action.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ibisagent.engine.moments import Intent
from ibisagent.engine.reasoning.wording import plain, sentences

if TYPE_CHECKING:
    from ibisagent.engine.moments import Moment
    from ibisagent.engine.reasoning.facts import Facts

__all__ = ["Claim", "contradictions", "ungrounded"]


class Claim(NamedTuple):
    """A claim that does not hold: the words, and why not."""

    excerpt: str
    message: str


_NEGATION = re.compile(
    r"\b(?:not|no|nothing|none|never|nowhere|without|neither|nor|hardly|cannot|if|whether|would|nobody)\b|n't\b"
)
_PAST = re.compile(
    r"\b(?:last|previous|earlier|former|before|first) (?:\w+ )?(?:click|step|box|action|correction|point|one)\b"
)
_YOU_SAY = re.compile(
    r"\b(?:you|users?|request|question|message|instruction) (?:\w+ )?"
    r"(?:fear|suspect|thought|think|wrote|write|said|say|mention|worr|believ|claim|assum|expect"
    r"|report|complain|notic|suggest|wonder|guess|point|told|speak|spoke|saw|ask|felt|feel|note|warn)\w*\b"
)
_HEARSAY = re.compile(r"\b(?:user|instruction|request|asked|asks|question|speaks|supposed|points? to|description)\b")


def _asserted(pattern: re.Pattern[str], text: str) -> str | None:
    """The first match with no negation in the few words before it, in its own clause."""
    for match in pattern.finditer(text):
        before = re.split(r"[,;:.!?]", text[: match.start()])[-1]
        if not _NEGATION.search(" ".join(before.split()[-5:])):
            return match.group()
    return None


_MISSED = re.compile(
    r"\b(?:misses|missed|missing|(?:seems? to|to) miss"
    r"|(?<!request )(?<!user )(?<!instruction )(?<!to )leaves? out|left out|lacks|lacking|uncovered"
    r"|falls? short|stops? short"
    r"|ends? too early"
    r"|stops? too early|too small(?! to)|too narrow|too tight|incomplete|not (?:yet )?(?:covered|included|green"
    r"|part of the mask)"
    r"|not (?:\w+ )?(?:cover|reach|include) (?:all|the whole|it|enough)|should be (?:added|included)"
    r"|has to be (?:added|included)|extend (?:it|the mask|the green)|needs to grow|add (?:it|this|that) to the"
    r" mask)\b"
)
_EXCESS = re.compile(
    r"\b(?:spills?|spilled|spilling|leaks?|leaked|leaking|overshoots?|covers? (?:too much|more than(?! half| a"
    r" (?:third|quarter|tenth)))|too much green|too generous"
    r"|too (?:large|big|wide)|(?:extends?|reaches|goes|runs|ran|went|bulges) (?:past|beyond|over|into)"
    r"|(?:does not|doesn't) belong|(?:has|have|needs|need|ought|must|should) (?:to )?(?:be removed|be cut|come off"
    r"|come out|go)\b"
    r"|(?:remove|exclude|trim|subtract) (?:it|this|that|the)|take (?:it|this|that|\w+ \w+) away|cut (?:it|this|that) "
    r"(?:off|away|back)|swallow(?:s|ed)|too much is green|excess|surplus)\b"
)
_SIGNED = {
    True: re.compile(r"\bpositive(?: \w+)? (?:click|point|prompt)\b"),
    False: re.compile(r"\bnegative(?: \w+)? (?:click|point|prompt)\b"),
}
_STOP = re.compile(
    r"\b(?:i|we) (?:\w+ )?(?:stop|finish|terminate|conclude)\b|\b(?:i am|i'm|we are|we're) (?:\w+ )?(?:done"
    r"|finished)\b"
    r"|\b(?:can|should|may|must) stop\b(?! (?:it|this|that|them|at|before|short|where|the (?:mask|green|spread|leak)))"
    r"|\bnothing (?:\w+ ){0,2}?(?:left|remains) to (?:correct|do|add|change)"
    r"|\bno (?:further|more) clicks? (?:is|are)\b|\bno (?:change|correction)s? (?:is|are) (?:\w+ )?needed"
    r"|\bi (?:keep|leave|accept) (?:it|the mask) as it is\b"
)
_FITS = re.compile(
    r"\b(?:mask|green|green area|outline|segmentation|contour) (?:\w+ )?(?:fits|is complete|is right|is correct|is"
    r" perfect"
    r"|is good|is finished|matches)\b|\b(?:fits|covers) (?:\w+ )*(?:exactly|perfectly|completely|entirely|and"
    r" nothing else)"
    r"|\b(?:nothing is missing|nothing is too much|no error)\b"
)
# What lies bare because it is no part of the target.
_BARE = r"(?:uncovered|left out|not covered|leaves out)"
_SPARED = re.compile(
    rf"\bwith (?:only|just|nothing but) [^.;]*\b{_BARE}\b|\b(?:rightly|correctly|properly) (?:\w+ ){{0,4}}?{_BARE}\b"
    rf"|\b{_BARE}\b[^.;]*\bas (?:it|they) should\b"
)
_CONTRAST = re.compile(
    r"\b(?:but|except|however|only|yet|still|although|though|apart|otherwise|almost|nearly|instead|what)\b"
)
_ABSENT = re.compile(
    r"\b(?:is|are) (?:not|n't) (?:\w+ )?(?:present |visible |shown |contained |to be (?:seen|found) )?(?:in|on"
    r"|part of) (?:this|the)"
    r" (?:image|picture|scan|slice|photograph|view)|\b(?:is|are|seems?) (?:completely |entirely )?absent\b|\bi"
    r" (?:refuse|decline)\b"
    r"|\b(?:see|find|there (?:is|are)) no (?:\w+ ){1,4}?(?:in|on) (?:this|the) (?:image|picture|scan|slice"
    r"|photograph)"
    r"|\b(?:does not|doesn't) (?:show|contain) (?:an? |any |the )?(?!mask)\w+"
)
_UNDO = re.compile(
    r"\b(?:i|we|i'll|i will) (?:\w+ )?(?:undo|revert|withdraw|(?:take|pull|go) (?:it |this |that |the \w+ click "
    r"|the click )?back)"
    r"|(?:^|[.;,] )undo\b"
)
_DISCARD = re.compile(
    r"\b(?:i|we|i'll|i will) (?:\w+ )?(?:discard|drop|throw (?:it |the mask |this mask )?away|reject) (?:it|the"
    r"|this|that)"
    r"|\b(?:i|we) (?:\w+ )?start (?:over|from (?:scratch|nothing))"
)
_CLICKS = re.compile(
    r"(?<!whatever )(?<!wherever )(?<!way )(?<!where )(?<!however )"
    r"\b(?:i|we|i'll|i will) (?:now )?(?:click\b(?! was)|add (?:a|another|one) (?:\w+ )?click|(?:place|put|set"
    r"|give) (?:a|another|one)"
    r" (?:\w+ )?(?:click|point|box))|\b(?:a|another) (?:positive|negative) click (?:there|here|on|at|in|near"
    r"|should|will)\b"
)
_NO_MASK = re.compile(
    r"\b(?:there is no mask|no mask (?:yet|so far|is shown|exists)|no green (?:yet|so far|is shown)|nothing is"
    r" (?:green|segmented))\b"
)
_MASK_IS = re.compile(
    r"(?<!old )(?<!previous )(?<!dropped )(?<!discarded )(?<!given )(?<!first )(?<!no )\b(?:mask|green area)"
    r" (?:\w+ )?"
    r"(?:covers|misses|fits|ends|reaches|spills|lies|leaves|includes|stops|overshoots|follows)\b"
)


def contradictions(text: str, moment: Moment, facts: Facts | None) -> Iterator[Claim]:
    """Claims in plain lower-case text that the action denies; ``facts`` None leaves out what needs the picture."""
    text = _without_names(text, moment.name)
    action, kind = moment.action, moment.action.kind
    acts = kind in ("click", "box")
    now = " ".join(s for s in sentences(text) if not (_PAST.search(s) or _YOU_SAY.search(s)))
    own = " ".join(s for s in sentences(text) if not _HEARSAY.search(s))
    missed, excess = _asserted(_MISSED, now), _asserted(_EXCESS, now)
    if action.kind == "click" and moment.intent is not Intent.START and len({c.positive for c in action.clicks}) == 1:
        positive = action.clicks[0].positive
        if positive and excess and not missed:
            yield Claim(excess, "speaks of too much mask, but the click is positive")
        if not positive and missed and not excess:
            yield Claim(missed, "speaks of a missing part, but the click is negative")
    if action.kind == "click" and len({c.positive for c in action.clicks}) == 1:
        positive = action.clicks[0].positive
        if (said := _asserted(_SIGNED[not positive], now)) and not _asserted(_SIGNED[positive], now):
            yield Claim(said, f"the click is {'positive' if positive else 'negative'}")
    if kind != "terminate":
        if said := _asserted(_STOP, own):
            yield Claim(said, f"speaks of stopping, but the action is {kind}")
        elif acts and (said := _asserted(_FITS, now)) and not (missed or excess or _CONTRAST.search(now)):
            yield Claim(said, "says that the mask fits, but acts")
        if (said := _absence(own, moment)) and kind != "discard":
            yield Claim(said, f"says that the target is absent, but the action is {kind}")
    for pattern, name in ((_UNDO, "undo"), (_DISCARD, "discard")):
        # "Start over" is also said of an undone first click.
        if kind not in (name, "undo") and (said := _asserted(pattern, text)):
            yield Claim(said, f"speaks of {name}, but the action is {kind}")
    if not acts and (said := _asserted(_CLICKS, text)) and not re.search(r"\bthen\b|\bstart again\b", text):
        yield Claim(said, f"speaks of a click, but the action is {kind}")
    if action.kind == "terminate":
        yield from _ending(own, now, moment, missed, excess)
    yield from _about_mask(text, moment)
    if facts is not None:
        yield from _places(text, moment, facts)


_OWN = "thetarget"
"""Stands for the target's name, whose own words (left, upper) say nothing of the picture's sides."""


def _without_names(text: str, name: str) -> str:
    from ibisagent.engine.language.naming import target_phrases

    names = sorted((plain(phrase.text) for phrase in target_phrases(name)), key=len, reverse=True)
    return re.sub("|".join(rf"\b{re.escape(word)}\b" for word in names), _OWN, text)


def _absence(text: str, moment: Moment) -> str | None:
    match = _ABSENT.search(text)  # here the negation is the claim itself
    said = match.group() if match else None
    if said is None or re.search(r"\b(?:upper|lower|left|right|there|corner|side|half)\b", text):
        return None
    return said


def _ending(own: str, now: str, moment: Moment, missed: str | None, excess: str | None) -> Iterator[Claim]:
    verdict = moment.action.verdict if moment.action.kind == "terminate" else ""
    if verdict == "found":
        contrast = re.search(r"\b(?:no longer|anymore|any more|closed|was|were|filled|first|user|gone)\b", now)
        spared = not excess and (_SPARED.search(now) or (missed == "left out" and _FITS.search(now)))
        if (missed or excess) and not contrast and not spared:
            yield Claim(missed or excess or "", "names an error of the mask, but stops with found")
        if said := _absence(own, moment):
            yield Claim(said, "says that the target is absent, but stops with found")
    if verdict == "absent" and (said := _asserted(_FITS, now)):
        yield Claim(said, "says that the mask fits, but refuses")


def _about_mask(text: str, moment: Moment) -> Iterator[Claim]:
    shown = moment.mask is not None and moment.mask.any()
    if shown and (match := _NO_MASK.search(text)):
        yield Claim(match.group(), "a mask is shown")
    if moment.mask is None:
        own = " ".join(s for s in sentences(text) if not _HEARSAY.search(s))
        if said := _asserted(_MASK_IS, own):
            yield Claim(said, "no mask is shown")


_ROWS = {"upper": "upper", "top": "upper", "lower": "lower", "bottom": "lower"}
_PLACE = re.compile(
    r"\b(?:in|at|on|near|towards?) the (?:(upper|lower|top|bottom|middle)[- ]?)?(?:(left|right|centre|center)[- ]?)?"
    r"(?:hand )?(?:(?:part|side|half|third|corner|edge|area|portion|quadrant|quarter|border)s? )?"
    r"(?:of the (?:image|picture|frame|scan|view|photograph)\b|(?=[.;,:]|$))"
)


def _places(text: str, moment: Moment, facts: Facts) -> Iterator[Claim]:
    """Places of the image in sentences about the click, against where it is."""
    at = facts.click or None
    if at is None:
        return
    for sentence in sentences(text):
        seen = moment.intent is Intent.START and _OWN in sentence and not _NEGATION.search(sentence)
        about = seen or _ABOUT_CLICK.search(sentence)
        if not about or _HEARSAY.search(sentence) or _PAST.search(sentence):
            continue
        wrong = None
        for match in _PLACE.finditer(sentence):
            row, column = _ROWS.get(match[1] or "", ""), match[2] or ""
            if not row and column not in ("left", "right"):
                continue
            clash = (
                (column == "left" and at.x > 0.55) or (column == "right" and at.x < 0.45)
                or (row == "upper" and at.y > 0.6) or (row == "lower" and at.y < 0.4)
            )  # fmt: skip
            if not clash:
                wrong = None
                break
            wrong = match.group()
        if wrong:
            yield Claim(wrong, f"the click lies in the {at.place} of the image")


_ABOUT_CLICK = re.compile(
    r"\b(?:click|clicks|clicking|start|begin|point|misses|missing|uncovered|spills?|too much|remove|add)\b"
)

_SIDE = re.compile(
    r"\b(?:(to the (left|right) of|above|below|on the (left|right) of|left of|right of) (?:the )?(?:mask|green)(?:"
    r" area| part)?)\b"
)
_SHARES = tuple(
    (re.compile(rf"\b{words} (?:of )?(?:the )?(?:image|picture|frame)\b(?!'s)"), low, high)
    for words, low, high in (
        (r"(?<!left )(?<!right )(?<!upper )(?<!lower )half", 0.3, 0.7),
        ("a third", 0.2, 0.5),
        ("a quarter", 0.14, 0.4),
        ("a fifth", 0.1, 0.33),
        ("a tenth", 0.05, 0.2),
        ("most", 0.45, 1.0),
        (r"(?:tiny|very small|only a small) (?:part|share|portion)", 0.0, 0.12),
    )
)
"""Words for a share of the image, and between which shares they are no untruth."""
_HOLE = re.compile(
    r"\b(?:mask|green(?: area)?) (?:\w+ )?(?:has|shows) (?:a|an|\w+) (?:\w+ )?holes?\b|\bhole in the (?:mask|green)\b"
)
_REACHES = re.compile(
    r"\b(?:mask|green(?: area)?) (?:\w+ )?(?:reaches|touches) the (left|right|upper|lower) (?:edge|border) of the "
    r"(?:image|picture|frame)"
)
_GREW = re.compile(
    r"\bmask (?:\w+ )?(?:grew|has grown|became (?:\w+ )?(?:larger|bigger)|got (?:\w+ )?(?:larger|bigger)"
    r"|gained)\b(?: by (?:about |roughly |some |around |nearly )?(\d+) ?%)?"
)
_SHRANK = re.compile(
    r"\bmask (?:\w+ )?(?:shrank|has shrunk|became (?:\w+ )?smaller|got (?:\w+ )?smaller|lost)\b(?: (?:by"
    r" )?(?:about |roughly |some |around |nearly )?(\d+) ?%)?"
)
_HELPED = re.compile(
    r"\blast (?:click|step|correction|box|one) (?:\w+ )?(?:helped|worked|improved|was good|did (?:its|the) job|did"
    r" what i wanted)"
)
_UNCHANGED = re.compile(
    r"\blast (?:click|step|box|clicks) (?:\w+ )?(?:hardly|barely|scarcely|did not|didn't) (?:change|move|alter)\w*"
    r"|\bmask (?:has |is )?(?:hardly|barely|scarcely|not) (?:changed|moved)\b"
)
_PIECES = re.compile(
    r"\b(?:in|of|has|have|into|is|are|as) (one|two|three|four|five|six|1|2|3|4|5|6) (?:separate |single "
    r"|disconnected )?(?:green )?(?:pieces?|parts|islands|patches)\b"
)
_COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}


def ungrounded(text: str, moment: Moment, facts: Facts) -> Iterator[Claim]:
    """Claims in plain lower-case text that the measured facts clearly deny."""
    mask, click, change = facts.mask, facts.click, facts.change
    own = " ".join(s for s in sentences(text) if not _HEARSAY.search(s))
    if mask is not None:
        for pattern, low, high in _SHARES:
            if (
                (match := pattern.search(own))
                and re.search(r"\b(?:mask|green)\b", own)
                and not low <= mask.share <= high
            ):
                yield Claim(match.group(), f"the mask covers {mask.share:.0%} of the image")
        if (match := _PIECES.search(own)) and "mask" in own:
            count = _COUNTS.get(match[1]) or int(match[1])
            if (count == 1) != (mask.pieces == 1) or abs(count - mask.pieces) > 1:
                yield Claim(match.group(), f"the mask is in {mask.pieces} pieces")
        in_hole = click is not None and click.in_hole
        if (match := _HOLE.search(own)) and mask.holes == 0 and not in_hole and not _NEGATION.search(match.group()):
            yield Claim(match.group(), "the mask has no hole")
        if (match := _REACHES.search(own)) and match[1] not in mask.borders:
            yield Claim(match.group(), f"the mask does not touch the image's {match[1]} edge")
    if mask is not None and click is not None:
        if click.inside is False and (match := _SIDE.search(own)) and not _PAST.search(own):
            words = match[1]
            said = next(w for w in ("left", "right", "above", "below") if w in words)
            opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}[said]
            if opposite in click.side.split() and said not in click.side.split():
                yield Claim(words, f"the click lies {click.side} of the mask")
        inside = re.search(
            r"\b(?:point|click|spot) (?:\w+ )?(?:is|lies) (in|inside|within|outside|beyond) the (?:mask|green)", own
        )
        if inside and (inside[1] in ("outside", "beyond")) == bool(click.inside):
            yield Claim(inside.group(), f"the click lies {'inside' if click.inside else 'outside'} the mask")
    if change is not None:
        yield from _changes(text, change.kind, change.percent)


def _changes(text: str, kind: str, percent: int) -> Iterator[Claim]:
    about_last = " ".join(
        s for s in sentences(text) if _PAST.search(s) or re.search(r"\bmask (?:has |grew|shrank|lost)", s)
    )
    if not about_last:
        return
    told = f"the last step changed the mask's area by {percent} %" if kind not in ("first", "gone") else kind
    grew, shrank = _GREW.search(about_last), _SHRANK.search(about_last)
    if grew and (kind in ("shrank", "gone") or (kind == "hardly" and not _NEGATION.search(about_last))):
        yield Claim(grew.group(), told)
    if shrank and kind in ("grew", "first"):
        yield Claim(shrank.group(), told)
    for match in (grew, shrank):
        if match and match[1] and kind not in ("first", "gone"):
            said = int(match[1])
            if abs(said - abs(percent)) > max(8, 0.3 * abs(percent)):
                yield Claim(match.group(), told)
    if (match := _UNCHANGED.search(about_last)) and kind in ("first", "gone", "grew", "shrank") and abs(percent) > 15:
        yield Claim(match.group(), told)
    if (match := _HELPED.search(about_last)) and kind in ("hardly", "gone"):
        yield Claim(match.group(), told)

"""A small ontology of what medical images show: how a structure is called, what it belongs to, where it can be seen.

    >>> concept("windpipe").name
    'trachea'
    >>> [m.name for m in mentions("The left lung lies beside the heart.")]
    ['left lung', 'heart']
    >>> possible_in("cell nuclei", "CT")
    False

The facts are in ``assets/ontology.json``. They serve sentences and the choice of questions, not diagnosis.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from ibisagent.engine.language.words import GAP, TOKEN, other_numbers, spell, words_of

__all__ = [
    "MODALITIES",
    "Concept",
    "Description",
    "Mention",
    "concept",
    "concepts",
    "contains",
    "mentions",
    "modality_name",
    "possible_beside",
    "possible_in",
    "related",
]

Aspect = Literal["place", "function", "disease"]

MODALITIES = (
    *("CT", "MRI", "PET", "X-ray", "Mammography", "Ultrasound", "Endoscopy", "Dermoscopy", "Fundus photography"),
    *("OCT", "Histology", "Fluorescence microscopy"),
)
"""Kinds of pictures that the ontology speaks of, spelt as ``data/mini`` and the phantoms do."""

_MODALITY_WORDS: dict[str, str] = {
    **{"".join(c for c in name.lower() if c.isalnum()): name for name in MODALITIES},
    **dict.fromkeys(("computedtomography", "cbct", "ctscan", "cta", "cect"), "CT"),
    **dict.fromkeys(("mr", "mrt", "t1", "t1w", "t2", "t2w", "flair", "dwi", "mra", "cmr", "magneticresonance"), "MRI"),
    **dict.fromkeys(("pt", "positronemissiontomography"), "PET"),
    **dict.fromkeys(("cr", "dx", "cxr", "radiograph", "radiography", "fluoroscopy", "angiography", "xa"), "X-ray"),
    **dict.fromkeys(("mg", "mammogram"), "Mammography"),
    **dict.fromkeys(("us", "sonography", "echocardiography", "ultrasonography"), "Ultrasound"),
    **dict.fromkeys(("endoscope", "colonoscopy", "gastroscopy", "laparoscopy", "surgicalvideo"), "Endoscopy"),
    **dict.fromkeys(("dermatoscopy",), "Dermoscopy"),
    **dict.fromkeys(("fundus", "fundusphotograph", "cfp", "colorfundusphotography"), "Fundus photography"),
    **dict.fromkeys(("opticalcoherencetomography",), "OCT"),
    **dict.fromkeys(("pathology", "histopathology", "he", "wsi"), "Histology"),
    **dict.fromkeys(("fluorescence", "immunofluorescence"), "Fluorescence microscopy"),
}

_QUALIFIERS = frozenset(
    "largest biggest smallest tiniest leftmost rightmost uppermost topmost lowest lowermost bottommost central "
    "brightest darkest longest widest roundest first second third".split()
)
"""Words that pick one of several: the rest of the name says what it is."""

# A phrase is not meant where one of these words follows: "the body of the mask", "a lung window".
_NEVER_BEFORE = frozenset(("window", "windows", "windowing", "kernel"))
_NOT_BEFORE = {phrase: frozenset(("of",)) for phrase in ("body", "head", "mass", "heart", "instrument", "appendix")}

# The word has other uses ("round bodies"), and means the patient only after one of these, or as the first word.
_BODY_AFTER = frozenset(
    "the of whole entire human patient patients s and in from with for to this is are see show target mask "
    "segmentation refine".split()
)


@dataclass(frozen=True)
class Description:
    """A noun phrase, without its article, that means a structure and does not name it.

    Parameters
    ----------
    text
        ``"organ that pumps blood through the body"``; it may begin with *both* or *all*.
    aspect
        Whether it speaks of place, function or disease.
    modalities
        Pictures that it is right for; empty is all.
    """

    text: str
    aspect: Aspect
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Concept:
    """A structure.

    Parameters
    ----------
    name
        As case lists of public data sets have it, lower case but for abbreviations.
    synonyms, lay
        What else it is called, by doctors and by others; each is right wherever the name is.
    narrower
        Names of special forms, parts or single ones (``"kidney"`` of *kidneys*): a text that says one speaks of this
        structure, but nobody would call the structure so without knowing more.
    adjectives
        ``"renal"``: gives the structure away without naming it.
    part_of, kind_of
        Names of concepts that contain it, and of more general ones.
    modalities
        Pictures that may show it.
    unsure
        Pictures of which this is not known, or that show it seldom.
    regions
        Of the body: ``"head"``, ``"neck"``, ``"chest"``, ``"abdomen"``, ``"pelvis"``, ``"limb"``, ``"eye"``,
        ``"skin"``, ``"tissue"`` (under a microscope); empty is anywhere.
    ambiguous
        Pictures in which the bare name may mean another structure (*ventricles* of the heart in an echocardiogram).
    laterality
        ``"left"`` or ``"right"`` (the patient's), else None.
    plural
        Whether it takes *are*; None leaves it to the name's ending.
    implicit
        Aspect -> descriptions.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    lay: tuple[str, ...] = ()
    narrower: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()
    kind_of: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    laterality: Literal["left", "right"] | None = None
    plural: bool | None = None
    implicit: Mapping[Aspect, tuple[Description, ...]] = field(default_factory=dict, hash=False)

    def descriptions(self, modality: str | None = None) -> tuple[Description, ...]:
        """Descriptions that are right for a modality, by place, function, disease; of None, those right for all."""
        known = modality_name(modality)
        everything = (d for aspect in self.implicit.values() for d in aspect)
        return tuple(d for d in everything if not d.modalities or known in d.modalities)

    def is_ambiguous(self, name: str, modality: str | None) -> bool:
        """Whether this name of the concept may mean another structure in a picture of this modality."""
        return modality_name(modality) in self.ambiguous and words_of(name) == words_of(self.name)


@dataclass(frozen=True)
class Mention:
    """A structure that a text names, at ``text[start:end]``."""

    name: str
    start: int
    end: int


def _concept(row: Mapping[str, Any]) -> Concept:
    lists = "synonyms lay narrower adjectives part_of kind_of modalities unsure regions ambiguous".split()
    implicit: dict[Aspect, tuple[Description, ...]] = {}
    for aspect, items in row.get("implicit", {}).items():
        implicit[aspect] = tuple(
            Description(item, aspect)
            if isinstance(item, str)
            else Description(item["text"], aspect, tuple(item["modalities"]))
            for item in items
        )
    return Concept(
        name=row["name"],
        laterality=row.get("laterality"),
        plural=row.get("plural"),
        implicit=implicit,
        **{key: tuple(row.get(key, ())) for key in lists},
    )


@lru_cache(maxsize=1)
def concepts() -> Mapping[str, Concept]:
    """All concepts by name, in the file's order."""
    text = resources.files("ibisagent.engine.language").joinpath("assets/ontology.json").read_text(encoding="utf-8")
    return {row["name"]: _concept(row) for row in json.loads(text)}


@lru_cache(maxsize=1)
def _phrases() -> tuple[dict[tuple[str, ...], str], dict[str, int]]:
    """Words of every phrase -> its concept, and first word -> number of words of the longest phrase that it opens."""
    table: dict[tuple[str, ...], str] = {}
    everything = concepts().values()
    # A concept's own name is its own, whatever others list; a form that is only derived yields to every listed one.
    for one in everything:
        table[words_of(one.name)] = one.name
    for one in everything:
        for phrase in (*one.synonyms, *one.lay, *one.narrower):
            table.setdefault(words_of(phrase), one.name)
    for words, name in list(table.items()):
        for form in other_numbers(words):
            table.setdefault(form, name)
    longest: dict[str, int] = {}
    for words in table:
        longest[words[0]] = max(longest.get(words[0], 0), len(words))
    return table, longest


def concept(name: str) -> Concept | None:
    """The concept that a name means, by any of its phrases, in either number and spelling; None if unknown.

    Parameters
    ----------
    name
        ``"left lung"``, ``"Left_Lung"``, ``"windpipe"``, ``"the kidneys"``.
    """
    words = words_of(name)
    found = _phrases()[0].get(words)
    return None if found is None else concepts()[found]


def mentions(text: str) -> list[Mention]:
    """Which structures a text names, in the order of the text.

    The longest phrase wins (*left lung*, not *lung*), only whole words count, and plurals and British spellings are
    known. Spans do not overlap.

    Parameters
    ----------
    text
        Any text.
    """
    table, longest = _phrases()
    tokens = [(m.start(), m.end(), spell(m.group())) for m in TOKEN.finditer(text)]
    found: list[Mention] = []
    at = 0
    while at < len(tokens):
        reach = longest.get(tokens[at][2], 0)
        matched = 0
        if reach:
            stop = at + 1
            while stop < min(len(tokens), at + reach) and GAP.fullmatch(text, tokens[stop - 1][1], tokens[stop][0]):
                stop += 1
            for end in range(stop, at, -1):
                words = tuple(token[2] for token in tokens[at:end])
                name = table.get(words)
                following = tokens[end][2] if end < len(tokens) else ""
                if name is None or _is_other(words, tokens[at - 1][2] if at else "", following):
                    continue
                found.append(Mention(name, tokens[at][0], tokens[end - 1][1]))
                matched = end - at
                break
        at += matched or 1
    return found


def _is_other(words: tuple[str, ...], before: str, following: str) -> bool:
    """Whether the words around a phrase give it another meaning."""
    if words in (("body",), ("bodies",)) and before and before not in _BODY_AFTER:
        return True
    return following in _NEVER_BEFORE or following in _NOT_BEFORE.get(" ".join(words), ())


@lru_cache(maxsize=4096)
def _above(name: str) -> frozenset[str]:
    """Names of all concepts that contain or generalise one."""
    found: set[str] = set()
    todo = [name]
    while todo:
        one = concepts()[todo.pop()]
        for other in (*one.part_of, *one.kind_of):
            if other not in found:
                found.add(other)
                todo.append(other)
    return frozenset(found)


def _known(name: str) -> tuple[str, ...]:
    """Concepts of a name: its own, or, of a name that is not listed, those that it mentions."""
    own = concept(name)
    return (own.name,) if own is not None else tuple(m.name for m in mentions(name))


@lru_cache(maxsize=4096)
def related(name_a: str, name_b: str) -> bool:
    """Whether a text about one may rightly name the other: the same, a part, a whole, or a more general one.

    *Left lung* is related to *lungs* and to *lung tumor*, not to *right lung*. A name that the ontology does not know
    is taken for the structures that it mentions.

    Parameters
    ----------
    name_a, name_b
        In any order.
    """
    if words_of(name_a) == words_of(name_b):
        return True
    return any(a == b or a in _above(b) or b in _above(a) for a in _known(name_a) for b in _known(name_b))


@lru_cache(maxsize=4096)
def contains(whole: str, part: str) -> bool:
    """Whether one name is another's, or that of something that contains or generalises it; not the other way round.

    *Lungs* contain the *left lung*, and *brain* the *brain tumor*; *left lung* contains neither *lungs* nor *right
    lung*. A name that the ontology does not know is taken for the structures that it mentions, as in :func:`related`,
    so that one contained structure is enough.

    Parameters
    ----------
    whole, part
        Names in any usual form.
    """
    if words_of(whole) == words_of(part):
        return True
    return any(outer == inner or outer in _above(inner) for inner in _known(part) for outer in _known(whole))


def modality_name(modality: str | None) -> str | None:
    """One of :data:`MODALITIES`, whatever the spelling; None where it is not known."""
    if modality is None:
        return None
    return _MODALITY_WORDS.get("".join(c for c in modality.lower() if c.isalnum()))


def _without_qualifier(name: str) -> Concept | None:
    own = concept(name)
    if own is not None:
        return own
    words = words_of(name)
    if len(words) > 1 and words[0] in _QUALIFIERS:
        return concept(" ".join(words[1:]))
    return None


def possible_in(name: str, modality: str | None) -> bool | None:
    """Whether a picture of this modality may show this structure.

    Only False allows to call it absent unseen.

    Parameters
    ----------
    name
        A structure, also with a word that picks one of several: ``"largest gland"``.
    modality
        In any usual spelling.

    Returns
    -------
    bool or None
        None where name or modality is unknown, or where it is a matter of the picture.
    """
    one, kind = _without_qualifier(name), modality_name(modality)
    if one is None or kind is None or kind in one.unsure:
        return None
    return kind in one.modalities


def _is_unborn(one: Concept) -> bool:
    return not _UNBORN.isdisjoint((one.name, *_above(one.name)))


_CHAIN = ("head", "neck", "chest", "abdomen", "pelvis")
_SECTIONAL = ("CT", "MRI", "PET")
# Not X-ray: films of a whole infant or a whole spine are common.
_NARROW = ("Ultrasound", "Endoscopy", "Mammography")
_UNBORN = frozenset(("fetus", "placenta"))


def possible_beside(name: str, shown: Iterable[str], modality: str | None, view: str | None = None) -> bool | None:
    """Whether a structure may be in a picture that shows certain others: no kidney in an axial slice of the brain.

    Parameters
    ----------
    name
        The structure asked for.
    shown
        Structures that the picture is known to show.
    modality, view
        Of the picture. Sections count as one region only where the view is ``"axial"``. X-ray pictures may show a whole
        body, and those of an unborn child its whole body beside its mother's: there only the modality counts.

    Returns
    -------
    bool or None
        False where the modality, or the distance in the body, rules it out. None where nothing is known, True where
        nothing speaks against it.
    """
    by_modality = possible_in(name, modality)
    one, kind = _without_qualifier(name), modality_name(modality)
    if by_modality is False or one is None or kind is None:
        return by_modality
    if not (kind in _NARROW or (kind in _SECTIONAL and view == "axial")):
        return by_modality
    places = {place for place in one.regions if place in _CHAIN}
    if not places or len(places) < len(one.regions) or len(places) > 2:
        return by_modality
    if one.is_ambiguous(name, modality):
        return by_modality
    beside = [
        there
        for there, other in ((_without_qualifier(other), other) for other in shown)
        if there is not None and not there.is_ambiguous(other, modality)
    ]
    if any(_is_unborn(there) for there in (one, *beside)):
        # A child in the womb has a brain and a heart of its own.
        return by_modality
    for there in beside:
        # Structures that are found in many places tell nothing of where the picture was taken.
        if not there.regions or len(there.regions) > 2 or not set(there.regions) <= set(_CHAIN):
            continue
        gap = min(abs(_CHAIN.index(a) - _CHAIN.index(b)) for a in places for b in there.regions)
        if gap >= 2:
            return False
    return by_modality

"""Instructions drawn from templates: one sentence for a target, deterministic by seed.

    >>> draw_instruction("left lung", "CT", 0, library="core").text
    'Please outline the left lung in this CT scan.'

Starting instructions name what to find; refining ones speak of a mask that is there already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ibisagent.engine.language.history import History
from ibisagent.engine.language.naming import Phrase, modality_phrase, target_phrases, with_article
from ibisagent.engine.language.templates import CORE_TEST, CORE_TRAIN, REFINE, START, Library

__all__ = [
    "CATEGORIES",
    "Instruction",
    "Library",
    "Split",
    "Stage",
    "all_templates",
    "draw_instruction",
    "draw_phrase",
    "fill",
]

Stage = Literal["start", "refine"]
Split = Literal["train", "test"]

CATEGORIES: dict[str, tuple[str, ...]] = {"start": tuple(START), "refine": tuple(REFINE)}
"""The 13 categories by stage."""

_CANONICAL_SHARE = 0.5  # half of the instructions say the target's own name, the others a synonym


@dataclass(frozen=True)
class Instruction:
    """A sentence and where it comes from.

    Parameters
    ----------
    text
        What the agent is told.
    category
        One of the 13 categories, ``"implicit"``, or the hint of a deceptive one.
    """

    text: str
    category: str


def all_templates(
    stage: Stage | None = None, split: Split | None = None, library: Library = "full"
) -> dict[str, tuple[str, ...]]:
    """Templates by category.

    Parameters
    ----------
    stage
        ``"start"`` or ``"refine"``; None is both.
    split
        ``"train"`` (three quarters of each category) or ``"test"`` (the others); None is both, train first.
    library
        ``"full"``, or ``"core"``: the eight a category that the shipped models were made with.

    Raises
    ------
    ValueError
        If `stage`, `split` or `library` is another word.
    """
    if stage is not None and stage not in CATEGORIES:
        raise ValueError(f"stage must be 'start' or 'refine', not {stage!r}")
    if split not in (None, "train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    if library not in ("core", "full"):
        raise ValueError(f"library must be 'core' or 'full', not {library!r}")
    everything = {**START, **REFINE} if stage is None else START if stage == "start" else REFINE
    result = {}
    for name, lists in everything.items():
        train, test = lists["train"], lists["test"]
        if library == "core":
            train, test = train[:CORE_TRAIN], test[:CORE_TEST]
        result[name] = train + test if split is None else train if split == "train" else test
    return result


def fill(
    template: str,
    phrase: Phrase,
    modality: str | None,
    *,
    history: History | None = None,
    place: str | None = None,
    library: Library = "full",
) -> str:
    """Put a target and a modality into a template, with article, number and first letter right.

    Parameters
    ----------
    template
        With the placeholders of :mod:`ibisagent.engine.language.templates`.
    phrase, modality
        What to say; a modality of None gives "image".
    history
        For ``{mask}`` and ``{Done}``; None says only that there is a mask.
    place
        For ``{place}``, without an article: ``"upper left of the image"``.
    library
        ``"core"`` says the modality as the core library always did.

    Raises
    ------
    KeyError
        If the template has another placeholder, or ``{place}`` and no place is given.
    """
    plural = phrase.plural
    image = modality_phrase(modality, core=library == "core")
    words = {
        "the": phrase.definite,
        "name": phrase.text,
        "Name": phrase.text[0].upper() + phrase.text[1:],
        "image": image,
        "an_image": with_article(image),
        "is": "are" if plural else "is",
        "has": "have" if plural else "has",
        "does": "do" if plural else "does",
        "it": "them" if plural else "it",
        "its": "their" if plural else "its",
        "s": "" if plural else "s",
        "mask": "current mask" if history is None else history.mask,
        "Done": "A mask is on screen" if history is None else history.done,
    }
    if place is not None:
        words["place"] = place
    text = template.format_map(words)
    return text[0].upper() + text[1:]


def draw_phrase(phrases: Sequence[Phrase], share: float, at: float) -> Phrase:
    """One of several phrases, by two numbers in [0, 1): as often the first as any other."""
    own, others = phrases[0], phrases[1:]
    return own if share < _CANONICAL_SHARE or not others else others[int(at * len(others))]


def draw_instruction(
    target: str,
    modality: str | None,
    rng_or_seed: np.random.Generator | int,
    *,
    stage: Stage = "start",
    category: str | None = None,
    split: Split = "train",
    library: Library = "full",
    extended: bool = False,
    history: History | None = None,
    extra: Mapping[str, Sequence[str]] | None = None,
) -> Instruction:
    """Draw one instruction.

    Parameters
    ----------
    target
        Name of the structure, for example ``"left lung"``.
    modality
        ``"CT"``, ``"MRI"`` …, or None (the sentence then says "image").
    rng_or_seed
        A generator, which advances, or a seed: equal seeds give equal instructions.
    stage
        ``"start"``, or ``"refine"`` where a mask is given.
    category
        One category of the stage; None draws one, all equally likely.
    split
        ``"train"`` or ``"test"``; their templates do not overlap.
    library
        ``"full"``, or ``"core"``: the templates that the shipped models were made with.
    extended
        Whether the target may be called by all phrases of the ontology, lay ones too.
    history
        What happened before, for refining templates that speak of it; None is a mask that was given, and no click yet
        (the core library, which knows no history, says only that there is a mask).
    extra
        More templates by category (see :func:`~ibisagent.engine.language.template_writer.write_templates`), for
        ``split="train"`` only; categories that `stage` has not are left out.

    Raises
    ------
    ValueError
        If the target is empty, or stage, category, split or library is not known.
    """
    templates = all_templates(stage, split, library)
    if extra is not None and split == "train":
        templates = {name: (*own, *extra.get(name, ())) for name, own in templates.items()}
    if category is not None and category not in templates:
        raise ValueError(f"no category {category!r} in stage {stage!r}; choose from {', '.join(templates)}")
    phrases = target_phrases(target, extended=extended, modality=modality)
    rng = rng_or_seed if isinstance(rng_or_seed, np.random.Generator) else np.random.default_rng(rng_or_seed)
    # Always the same number of draws, so that a generator shared by many calls stays in step.
    which, template_at, share, synonym_at = rng.random(4)
    name = category or list(templates)[int(which * len(templates))]
    template = templates[name][int(template_at * len(templates[name]))]
    phrase = draw_phrase(phrases, share, synonym_at)
    if history is None and stage == "refine" and library == "full":
        history = History(clicks=0, given=True)
    return Instruction(fill(template, phrase, modality, history=history, library=library), name)

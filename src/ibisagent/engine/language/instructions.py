"""Instructions drawn from templates: one sentence for a target, deterministic by seed.

    >>> draw_instruction("left lung", "CT", 0).text
    'Please outline the left lung in this CT scan.'

Starting instructions name what to find; refining ones speak of a mask that is there already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ibisagent.engine.language.naming import Phrase, modality_phrase, target_phrases
from ibisagent.engine.language.templates import REFINE_CATEGORIES, START_CATEGORIES, TEMPLATES

__all__ = ["CATEGORIES", "Instruction", "Split", "Stage", "all_templates", "draw_instruction", "fill"]

Stage = Literal["start", "refine"]
Split = Literal["train", "test"]

CATEGORIES: dict[str, tuple[str, ...]] = {"start": START_CATEGORIES, "refine": REFINE_CATEGORIES}
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
        One of the 13 categories.
    """

    text: str
    category: str


def all_templates(stage: Stage | None = None, split: Split | None = None) -> dict[str, tuple[str, ...]]:
    """Templates by category.

    Parameters
    ----------
    stage
        ``"start"`` or ``"refine"``; None is both.
    split
        ``"train"`` (the first three quarters of each category) or ``"test"`` (the rest); None is both.

    Raises
    ------
    ValueError
        If `stage` or `split` is another word.
    """
    if stage is not None and stage not in CATEGORIES:
        raise ValueError(f"stage must be 'start' or 'refine', not {stage!r}")
    if split not in (None, "train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    names = tuple(TEMPLATES) if stage is None else CATEGORIES[stage]
    result = {}
    for name in names:
        templates = TEMPLATES[name]
        cut = len(templates) * 3 // 4
        result[name] = templates if split is None else templates[:cut] if split == "train" else templates[cut:]
    return result


def fill(template: str, phrase: Phrase, modality: str | None) -> str:
    """Put a target and a modality into a template, with article, number and first letter right."""
    plural = phrase.plural
    text = template.format(
        the=phrase.definite,
        name=phrase.text,
        Name=phrase.text[0].upper() + phrase.text[1:],
        image=modality_phrase(modality),
        **{"is": "are" if plural else "is"},
        it="them" if plural else "it",
        does="do" if plural else "does",
    )
    return text[0].upper() + text[1:]


def draw_instruction(
    target: str,
    modality: str | None,
    rng_or_seed: np.random.Generator | int,
    *,
    stage: Stage = "start",
    category: str | None = None,
    split: Split = "train",
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

    Raises
    ------
    ValueError
        If the target is empty, or stage, category or split is not known.
    """
    templates = all_templates(stage, split)
    if category is not None and category not in templates:
        raise ValueError(f"no category {category!r} in stage {stage!r}; choose from {', '.join(templates)}")
    phrases = target_phrases(target)
    rng = rng_or_seed if isinstance(rng_or_seed, np.random.Generator) else np.random.default_rng(rng_or_seed)
    # Always the same number of draws, so that a generator shared by many calls stays in step.
    which, template_at, share, synonym_at = rng.random(4)
    name = category or list(templates)[int(which * len(templates))]
    template = templates[name][int(template_at * len(templates[name]))]
    own, others = phrases[0], phrases[1:]
    phrase = own if share < _CANONICAL_SHARE or not others else others[int(synonym_at * len(others))]
    return Instruction(fill(template, phrase, modality), name)

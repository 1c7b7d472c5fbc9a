"""Deceptive instructions: the user says something that the picture does not bear out.

The structure is really there, and an agent should trust its eyes: look elsewhere, keep a mask that fits, or begin
where no mask is shown.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ibisagent.engine.language.instructions import Instruction, Split, draw_phrase, fill
from ibisagent.engine.language.naming import target_phrases
from ibisagent.engine.language.templates import DECEPTIVE

__all__ = ["HINTS", "Hint", "draw_deceptive"]

Hint = Literal["wrong_place", "false_error", "false_mask"]

HINTS: tuple[Hint, ...] = ("wrong_place", "false_error", "false_mask")
"""``wrong_place``: the target is said to be where it is not. ``false_error``: a given mask that fits is said to be
wrong. ``false_mask``: a good mask is said to be there, though none is shown."""


def draw_deceptive(
    target: str,
    modality: str | None,
    rng_or_seed: np.random.Generator | int,
    hint: Hint,
    place: str | None = None,
    *,
    split: Split = "train",
    extended: bool = False,
) -> Instruction:
    """Draw an instruction that deceives.

    Parameters
    ----------
    target
        Name of the structure, which is in the image.
    modality
        Of the picture, or None.
    rng_or_seed
        A generator, which advances by the same amount whatever is drawn, or a seed.
    hint
        What is false; it becomes the instruction's category.
    place
        Where the target is said to be, for example ``"upper left quarter of the image"``: the caller has made sure that
        it is false. Needed for ``wrong_place``; the other hints name none.
    split
        ``"train"`` or ``"test"``; their templates do not overlap.
    extended
        Whether the target may be called by all phrases of the ontology.

    Raises
    ------
    ValueError
        If hint or split is not known, the target is empty, or a place is needed and not given.
    """
    if hint not in DECEPTIVE:
        raise ValueError(f"no hint {hint!r}; choose from {', '.join(DECEPTIVE)}")
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    where = None if place is None else " ".join(place.split()).removeprefix("the ")
    if hint == "wrong_place" and not where:
        raise ValueError("a wrong place has to be given")
    phrases = target_phrases(target, extended=extended, modality=modality)
    rng = rng_or_seed if isinstance(rng_or_seed, np.random.Generator) else np.random.default_rng(rng_or_seed)
    template_at, share, synonym_at = rng.random(3)
    templates = DECEPTIVE[hint][split]
    template = templates[int(template_at * len(templates))]
    phrase = draw_phrase(phrases, share, synonym_at)
    return Instruction(fill(template, phrase, modality, place=where or None), hint)

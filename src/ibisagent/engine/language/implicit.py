"""Implicit queries: a target described by place, function or disease, never named.

    >>> draw_implicit("windpipe", "CT", 0).text
    'Can you show me the air-filled tube in front of the esophagus in this CT scan?'

An agent must know what the description means before it can look for it (reasoning segmentation).
"""

from __future__ import annotations

import numpy as np

from ibisagent.engine.language.instructions import Instruction, Split, fill
from ibisagent.engine.language.naming import Phrase, is_plural
from ibisagent.engine.language.ontology import Concept, Description, concept, concepts, mentions
from ibisagent.engine.language.templates import IMPLICIT
from ibisagent.engine.language.words import TOKEN, other_numbers, spell, words_of

__all__ = ["descriptions", "draw_implicit", "gives_away"]


def gives_away(text: str, target: str) -> bool:
    """Whether a text names a target that it should only describe.

    Its name, a synonym, a more general or a narrower name, its adjective (*renal*) and its head noun count; that of
    an organ around it does not.

    Parameters
    ----------
    text
        A description or a whole instruction.
    target
        Name of the structure.
    """
    one = concept(target)
    words = {spell(token) for token in TOKEN.findall(text)}
    own = words_of(target)
    if one is None:
        return bool(own) and set(own) <= words
    forbidden = {one.name, *_kinds(one.name)}
    if one.laterality is not None:
        # "the lungs" would give away the left lung.
        forbidden.update(one.part_of)
    if any(m.name in forbidden for m in mentions(text)):
        return True
    head = words_of(one.name)[-1:]
    hints = {head[0], *(form[0] for form in other_numbers(head)), *(spell(a) for a in one.adjectives)}
    return bool(hints & words)


def _kinds(name: str) -> set[str]:
    found: set[str] = set()
    todo = [name]
    while todo:
        for kind in concepts()[todo.pop()].kind_of:
            if kind not in found:
                found.add(kind)
                todo.append(kind)
    return found


def _held_out(one: Concept) -> frozenset[Description]:
    """Descriptions that only the test split uses: the last of every aspect that has several for the same pictures."""
    everything = [d for aspect in one.implicit.values() for d in aspect]
    groups: dict[tuple[str, tuple[str, ...]], list[Description]] = {}
    for d in everything:
        groups.setdefault((d.aspect, d.modalities), []).append(d)
    held = frozenset(group[-1] for group in groups.values() if len(group) > 1)
    return held or frozenset(everything[-1:] if len(everything) > 2 else ())


def descriptions(target: str, modality: str | None, split: Split) -> tuple[Description, ...]:
    """Descriptions of a target that one split uses.

    Where a split would have none (structures with one or two descriptions), it uses those of the other, and only
    the frames around them are held out.

    Parameters
    ----------
    target
        Name of the structure; by its own name or a synonym, since a narrower name needs a description of its own.
    modality
        Of the picture; of None, only descriptions that are right for all.
    split
        ``"train"`` or ``"test"``.
    """
    one = concept(target)
    if one is None or words_of(target) in {words_of(n) for n in one.narrower}:
        return ()
    fitting = one.descriptions(modality)
    held = _held_out(one)
    chosen = tuple(d for d in fitting if (d in held) == (split == "test"))
    return chosen or fitting


def draw_implicit(
    target: str, modality: str | None, rng_or_seed: np.random.Generator | int, split: Split = "train"
) -> Instruction | None:
    """Draw an instruction that describes a target without naming it.

    Parameters
    ----------
    target
        Name of the structure.
    modality
        Of the picture, or None.
    rng_or_seed
        A generator, which advances by the same amount for every target, or a seed.
    split
        ``"train"`` or ``"test"``: frames never overlap, descriptions only where there are no others.

    Returns
    -------
    Instruction or None
        Category ``"implicit"``; None where the ontology has no description of the target that fits the modality.

    Raises
    ------
    ValueError
        If split is not known.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    rng = rng_or_seed if isinstance(rng_or_seed, np.random.Generator) else np.random.default_rng(rng_or_seed)
    template_at, description_at = rng.random(2)
    choices = descriptions(target, modality, split)
    one = concept(target)
    if not choices or one is None:
        return None
    frames = IMPLICIT[split]
    description = choices[int(description_at * len(choices))]
    plural = is_plural(one.name) if one.plural is None else one.plural
    template = frames[int(template_at * len(frames))]
    return Instruction(fill(template, Phrase(description.text, plural), modality), "implicit")

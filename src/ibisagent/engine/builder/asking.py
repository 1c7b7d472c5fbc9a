"""Which sentence asks for a target, and which structures an image surely does not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ibisagent.engine.language.hints import Hint, draw_deceptive
from ibisagent.engine.language.implicit import draw_implicit
from ibisagent.engine.language.instructions import Instruction, Split, Stage, draw_instruction
from ibisagent.engine.language.ontology import contains, possible_beside, related

if TYPE_CHECKING:
    import numpy as np

    from ibisagent.engine.builder.config import SynthesisConfig
    from ibisagent.engine.sources.sample import Sample

__all__ = ["AbsentNames", "Asker", "absent_names", "pick_name"]


NEUTRAL = ("check_verify", "whats_next")
"""Categories of refining instructions that do not claim that the mask is wrong."""


@dataclass(frozen=True)
class Asker:
    """Draws instructions for one sample.

    Parameters
    ----------
    sample
        Its own sentences are used now and then.
    modality
        Of the image.
    config
        The shares.
    split
        Whose templates.
    """

    sample: Sample
    modality: str | None
    config: SynthesisConfig
    split: Split

    def ask(
        self,
        name: str,
        rng: np.random.Generator,
        given: bool,
        fits: bool = False,
        hint: Hint | None = None,
        place: str | None = None,
    ) -> Instruction:
        """An instruction for a target.

        Parameters
        ----------
        name
            The structure.
        rng
            The only source of randomness.
        given
            Whether a mask is given to start from.
        fits
            Whether that mask is good: then nobody claims that it is not, which would be a deception.
        hint, place
            What it is to say falsely, if anything.
        """
        if hint is not None:
            where = None if place is None else f"{place} of the image"
            return draw_deceptive(name, self.modality, rng, hint, where, split=self.split, extended=True)
        if given:
            category = NEUTRAL[int(rng.integers(len(NEUTRAL)))] if fits else None
            return self._draw(name, rng, "refine", category)
        implicit, own = rng.random(2)
        sentences = self.sample.instructions.get(name, ())
        if sentences and own < self.config.own_share:
            return Instruction(sentences[int(rng.integers(len(sentences)))], "own")
        if implicit < self.config.implicit_share:
            found = draw_implicit(name, self.modality, rng, split=self.split)
            if found is not None:
                return found
        return self._draw(name, rng, "start")

    def _draw(self, name: str, rng: np.random.Generator, stage: Stage, category: str | None = None) -> Instruction:
        return draw_instruction(
            name, self.modality, rng, stage=stage, category=category, split=self.split, extended=True,
            extra=self.config.templates,
        )  # fmt: skip


@dataclass(frozen=True)
class AbsentNames:
    """Structures that are not in an image: said so by the data set, or not possible in its modality."""

    known: list[str]
    foreign: list[str]


def absent_names(
    said: Sequence[str],
    modality: str | None,
    view: str | None,
    present: Sequence[str],
    names_by_modality: Mapping[str, tuple[str, ...]],
) -> AbsentNames:
    """Structures that may rightly be called absent from an image.

    Parameters
    ----------
    said
        Names of which the data set says so.
    modality, view
        Of the image; without a modality only those are left.
    present
        Structures that it has masks of; what is related to one of them (a part, the whole, a synonym) is not absent.
    names_by_modality
        Structures that the data sets of this build name.
    """
    # The whole of something that is there is there; a part of it, or a lesion in it, need not be.
    known = [name for name in said if not any(contains(name, other) for other in present)]
    foreign: list[str] = []
    if modality is not None:
        names = sorted({name for group in names_by_modality.values() for name in group})
        foreign = [
            name
            for name in names
            if name not in said
            and possible_beside(name, present, modality, view) is False
            and not any(related(name, other) for other in present)
        ]
    return AbsentNames(known, foreign)


def pick_name(names: Sequence[str], rng: np.random.Generator) -> str:
    """One of some names, drawn by their last word first: eight kinds of nucleus do not crowd out one aorta."""
    nouns = sorted({name.split()[-1] for name in names})
    noun = nouns[int(rng.integers(len(nouns)))]
    members = [name for name in names if name.split()[-1] == noun]
    return members[int(rng.integers(len(members)))]

"""Phantoms as a data set: ``phantoms:1000?seed=0&size=256&kinds=chest_ct,nuclei``.

Kinds take turns, so that every beginning of the list has about the same mix. Which structures a drawing shows is known
only once it is drawn: ``Sample.names`` is empty, the reader's masks are the names, and :meth:`PhantomSource.vocabulary`
says what there may be. Masks are exact, so a structure of :func:`may_lack` without a mask is absent from the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ibisagent import phantoms
from ibisagent.engine.sources.options import CommonOptions, Options
from ibisagent.engine.sources.sample import Fault, LabelledImage, Sample
from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.io.files import one_line
from ibisagent.types import Image

__all__ = ["PhantomReader", "PhantomSource", "may_lack"]

_BRAIN = ("brain", "brain tumor", "cerebrospinal fluid", "gray matter", "ventricles", "white matter")

_SOMETIMES: dict[str, tuple[str, ...]] = {"chest_ct": ("lung tumor",), "brain_mri": ("brain tumor",)}
"""Structures that some drawings of a kind have and others surely have not. (Others may be missing only because too
little of them is drawn to be asked for, which does not make them absent.)"""

_NEVER: dict[str, tuple[str, ...]] = {"brain_mri": ("breast lesion",), "breast_mri": _BRAIN}
"""Structures of the same modality that no drawing of a kind has."""

_SHOWN: dict[str, tuple[str, ...]] = {
    "nuclei": (
        "cell nuclei",
        "largest nucleus",
        "smallest nucleus",
        "leftmost nucleus",
        "rightmost nucleus",
        "uppermost nucleus",
        "lowest nucleus",
        "brightest nucleus",
    ),
    "chest_ct": ("aorta", "body", "bone", "heart", "left lung", "lung tumor", "lungs", "right lung"),
    "brain_mri": _BRAIN,
    "breast_mri": ("breast lesion",),
    "histology": ("dermis", "epidermis", "stratum corneum"),
    "ultrasound": ("cyst", "lesion"),
    "dermoscopy": ("skin lesion",),
    "fundus": ("optic disc", "vessels"),
    "endoscopy": ("polyp",),
    "xray": ("heart", "left lung", "lungs", "right lung"),
    "oct": ("retina", "retinal pigment epithelium"),
}
"""Every structure that a drawing of a kind may show; the tests hold it against drawings."""

_STRIDE = 2**32
"""Seeds of two data sets never meet: each takes its own range."""


def may_lack(kind: str) -> tuple[str, ...]:
    """Structures of its modality that a phantom of a kind may lack: where there is no mask of one, it is absent.

    Parameters
    ----------
    kind
        One of :data:`ibisagent.phantoms.KINDS`.
    """
    return _SOMETIMES.get(kind, ()) + _NEVER.get(kind, ())


@dataclass(frozen=True)
class PhantomReader:
    """Draws one phantom.

    Parameters
    ----------
    kind, seed, size
        As for :func:`ibisagent.phantoms.generate`.
    modality
        Instead of the phantom's own, or None.
    """

    kind: str
    seed: int
    size: int
    modality: str | None = None

    def __call__(self) -> LabelledImage:
        """Draw it; see :class:`ibisagent.engine.sources.sample.Reader`."""
        drawn = phantoms.generate(self.kind, self.seed, self.size)
        masks = dict(sorted(drawn.masks.items()))
        if {"cerebrospinal fluid", "ventricles"} <= masks.keys():
            # As in data/mini, where the name means the fluid outside the ventricles: one name, one meaning.
            masks["cerebrospinal fluid"] = masks["cerebrospinal fluid"] & ~masks["ventricles"]
            if masks["cerebrospinal fluid"].sum() < phantoms.MIN_PIXELS * (self.size / 256) ** 2:
                del masks["cerebrospinal fluid"]
        image = Image(drawn.pixels, Geometry.plane_2d(), modality=self.modality or drawn.modality)
        absent = tuple(name for name in may_lack(self.kind) if name not in drawn.masks)
        return LabelledImage(image, masks, absent=absent)


@dataclass(frozen=True)
class PhantomSource:
    """So many phantoms.

    Parameters
    ----------
    count
        How many.
    kinds
        Which, in turn.
    seed
        Other seeds give other phantoms.
    size
        Side in pixels.
    options
        What the user says of all of them.
    """

    count: int
    kinds: tuple[str, ...]
    seed: int
    size: int
    options: CommonOptions

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> PhantomSource:
        """Open ``phantoms:COUNT?seed=0&size=256&kinds=chest_ct,nuclei&split=train``.

        The split is ``train`` where none is given, and the name ``phantoms``, with the seed if it is not 0.

        Raises
        ------
        InputError
            If the count is no number from 1 on, or an option is wrong.
        """
        common = ("name", "modality", "licence", "split")
        given = Options("phantoms", options, extra=("seed", "size", "kinds"), common=common)
        if not path.isascii() or not path.isdigit() or not 0 < int(path) <= _STRIDE:
            raise InputError(f"phantoms:{one_line(path, 40)} is no number of phantoms; write for example phantoms:1000")
        seed = given.integer("seed", 0)
        size = given.integer("size", 256, least=64)
        if size > 4096:
            raise InputError(f"phantoms: option size={size} is too large; at most 4096 pixels")
        kinds = given.words("kinds", phantoms.KINDS, tuple(phantoms.KINDS))
        return cls(int(path), kinds, seed, size, given.common("phantoms" if seed == 0 else f"phantoms-{seed}"))

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.options.name

    def vocabulary(self) -> dict[str, tuple[str, ...]]:
        """Structures by modality that its images may show."""
        names: dict[str, set[str]] = {}
        for kind in self.kinds:
            names.setdefault(self.options.modality or phantoms.MODALITIES[kind], set()).update(_SHOWN[kind])
        return {modality: tuple(sorted(found)) for modality, found in sorted(names.items())}

    def samples(self) -> Iterator[Sample | Fault]:
        """Samples keyed ``phantom/chest_ct/000123``, each a group of its own; nothing is drawn here."""
        for index in range(self.count):
            number, turn = divmod(index, len(self.kinds))
            kind = self.kinds[turn]
            key = f"phantom/{kind}/{number:06d}"
            reader = PhantomReader(kind, self.seed * _STRIDE + number, self.size, self.options.modality)
            yield self.options.sample(
                key,
                reader,
                (),
                stem=key,
                modality=phantoms.MODALITIES[kind],
                split=self.options.split or "train",
                licence="Apache-2.0",
            )

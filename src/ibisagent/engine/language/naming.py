"""How a target and a modality are said in a sentence: article, number, synonyms.

A target is a name as case lists carry it (``"left lung"``, ``"cell nuclei"``); a phrase is what a sentence
makes of it (``"the left lung"`` … *is*, ``"the cell nuclei"`` … *are*).
"""

from __future__ import annotations

from dataclasses import dataclass

from ibisagent.engine.language.ontology import concept

__all__ = ["SYNONYMS", "Phrase", "is_plural", "modality_phrase", "target_phrases", "with_article"]


_NO_ARTICLE = ("both ", "all ", "each ", "every ", "any ", "this ", "these ")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase without its article, and its grammatical number."""

    text: str
    plural: bool

    @property
    def definite(self) -> str:
        """With the definite article: ``"the left lung"``; ``"both lungs"`` takes none."""
        return self.text if self.text.lower().startswith(_NO_ARTICLE) else f"the {self.text}"


SYNONYMS: dict[str, tuple[str, ...]] = {
    "body": ("patient's body", "whole body"),
    "bone": ("bones", "bony structures", "skeleton"),
    "brain": ("whole brain", "brain tissue"),
    "brain tumor": ("brain tumour", "tumor in the brain", "tumor"),
    "breast lesion": ("lesion in the breast", "breast mass", "lesion"),
    "cell nuclei": ("nuclei", "nuclei of the cells", "cell nuclei in this field"),
    "cerebrospinal fluid": ("CSF", "cerebrospinal fluid spaces"),
    "gray matter": ("grey matter", "cortical and deep gray matter"),
    "largest nucleus": ("biggest nucleus", "largest cell nucleus"),
    "left lung": ("lung on the patient's left", "patient's left lung"),
    "leftmost nucleus": ("nucleus farthest to the left", "leftmost cell nucleus"),
    "lung tumor": ("lung tumour", "tumor in the lung", "pulmonary tumor"),
    "lungs": ("both lungs", "left and right lungs", "lung fields"),
    "right lung": ("lung on the patient's right", "patient's right lung"),
    "stratum corneum": ("horny layer of the skin", "cornified layer"),
    "uppermost nucleus": ("topmost nucleus", "uppermost cell nucleus"),
    "white matter": ("white matter of the brain", "cerebral white matter"),
}
"""Other ways to say the targets of the mini data set; each is equally right on any image of it.

The shipped models know these; :func:`target_phrases` gives those of the ontology too, where it is asked for them.
"""

# Words whose ending misleads: the first look plural and are not, the second are plural without an s.
_SINGULAR_IN_S = frozenset(
    "abscess ascites atlas axis biceps caries deferens dens diabetes gas herpes iliopsoas iris lens mass os pancreas "
    "pelvis penis plexus pons process psoas pus quadriceps sinus stapes stenosis thrombus thymus triceps uterus vas "
    "anus bronchus calculus corpus fundus hippocampus "
    "hypothalamus thalamus humerus meniscus nucleus radius rectus sarcoidosis virus".split()
)
_PLURAL_ELSE = frozenset(
    "alveoli atria bronchi bacteria calculi corpora diverticula drusen feet foci fungi ganglia gyri hippocampi lacunae "
    "larvae menisci metastases mitochondria nuclei ova septa sulci teeth thalami vertebrae villi viscera".split()
)
# The noun that carries the number stands before these words: "nuclei of the cells", "tumor in the lung".
_LINKS = (" of ", " in ", " on ", " at ", " from ", " with ", " farthest ", " near ", " within ", " around ")


def is_plural(name: str) -> bool:
    """Whether a noun phrase takes *are*: judged by its head noun, the last word before ``of``, ``in`` and the like.

    Examples
    --------
    >>> is_plural("lungs"), is_plural("tumor in the lungs"), is_plural("largest nucleus"), is_plural("cell nuclei")
    (True, False, False, True)
    """
    text = f" {name.strip().lower()} "
    for link in _LINKS:
        text = text.split(link, 1)[0] + " "
    words = text.split()
    if not words:
        return False
    if "and" in words[1:-1] and not words[-1].endswith("matter"):
        return True
    head = words[-1].strip(".,;:()")
    if head in _PLURAL_ELSE:
        return True
    if head in _SINGULAR_IN_S or head.endswith(("ss", "us", "is")):
        return False
    return head.endswith("s")


def _without_article(name: str) -> str:
    text = " ".join(name.split())
    for article in ("the ", "a ", "an "):
        if text.lower().startswith(article) and len(text) > len(article):
            return text[len(article) :]
    return text


def target_phrases(target: str, *, extended: bool = False, modality: str | None = None) -> tuple[Phrase, ...]:
    """All ways to say a target, its own name first.

    Parameters
    ----------
    target
        Name as a case list carries it; a leading article is dropped. Names that the table does not know have
        one phrase, themselves.
    extended
        Whether to add the synonyms and lay terms of the ontology to those of :data:`SYNONYMS`.
    modality
        Of the picture, if known: a name that may mean another structure there gets none of the ontology's.

    Raises
    ------
    ValueError
        If `target` is empty.
    """
    name = _without_article(target)
    if not name:
        raise ValueError("a target needs a name")
    phrases = [Phrase(text, is_plural(text)) for text in (name, *SYNONYMS.get(name.lower(), ()))]
    known = concept(name) if extended else None
    if known is not None and known.is_ambiguous(name, modality):
        known = None
    if known is not None and name.lower() in (known.name.lower(), *(p.lower() for p in (*known.synonyms, *known.lay))):
        # A narrower name ("kidney" of "kidneys") keeps to itself: its concept's phrases may say more.
        said = {p.text.lower() for p in phrases}
        for text in (known.name, *known.synonyms, *known.lay):
            if text.lower() not in said:
                said.add(text.lower())
                own = known.plural if text == known.name else None
                phrases.append(Phrase(text, is_plural(text) if own is None else own))
    return tuple(phrases)


_MODALITIES: dict[str, str] = {
    "ct": "CT scan",
    "mr": "MR image",
    "mri": "MRI scan",
    "pet": "PET scan",
    "us": "ultrasound image",
    "ultrasound": "ultrasound image",
    "xray": "X-ray image",
    "cr": "X-ray image",
    "dx": "X-ray image",
    "oct": "OCT image",
    "histology": "histology image",
    "pathology": "pathology image",
    "dermoscopy": "dermoscopy image",
    "endoscopy": "endoscopy image",
    "fundus": "fundus photograph",
    "fluorescencemicroscopy": "fluorescence microscopy image",
}


# Better words than those that the core library was drawn with, which stay as they were.
_MODALITIES_SINCE: dict[str, str] = {
    "fundusphotography": "fundus photograph",
    "fundusphotograph": "fundus photograph",
    "mammography": "mammogram",
    "mg": "mammogram",
    "radiography": "X-ray image",
}


def modality_phrase(modality: str | None, *, core: bool = False) -> str:
    """What kind of picture it is, without an article: ``"CT scan"``; ``"image"`` where it is not known.

    Parameters
    ----------
    modality
        In any usual spelling, or None.
    core
        Whether to use only the words that the core library was drawn with ("Fundus photography image").
    """
    if modality is None or not modality.strip():
        return "image"
    key = "".join(c for c in modality.lower() if c.isalnum())
    known = _MODALITIES.get(key) or (None if core else _MODALITIES_SINCE.get(key))
    if known is not None:
        return known
    text = " ".join(modality.split())
    return text if text.lower().endswith(("image", "scan", "photograph", "slide")) else f"{text} image"


# Letters whose names begin with a vowel: "an MRI scan".
_VOWEL_LETTERS = frozenset("AEFHILMNORSX")
# Abbreviations that are read as words: "a SPECT scan".
_READ_AS_WORDS = frozenset(("SPECT", "FLAIR", "HASTE", "MIP", "SPAIR", "STIR"))


def with_article(phrase: str) -> str:
    """A noun phrase with its indefinite article: ``"an MRI scan"``, ``"a CT scan"``, ``"an image"``."""
    first = phrase.split()[0].replace("/", "-").split("-")[0]
    spelt = first.isupper() and first not in _READ_AS_WORDS  # of one letter, too: X-ray
    vowel = first[0] in _VOWEL_LETTERS if spelt else first[0].lower() in "aeiou"
    return f"{'an' if vowel else 'a'} {phrase}"

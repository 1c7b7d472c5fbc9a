"""Named windows for CT, and the rule that picks one from what is asked for and what was examined.

The numbers are those that public models and viewers use most; others use others, so what made a picture is recorded
with it. The rule reads words: the first part of the body that the instruction names decides, then the part that was
examined, and soft tissue serves everything else.
"""

from __future__ import annotations

import re

__all__ = ["CT_WINDOWS", "ct_preset"]

CT_WINDOWS: dict[str, tuple[float, float]] = {
    "soft-tissue": (-160.0, 240.0),  # level 40, width 400
    "lung": (-910.0, 590.0),  # level -160, width 1500
    "brain": (0.0, 80.0),  # level 40, width 80
    "bone": (-500.0, 1300.0),  # level 400, width 1800
}
"""Named windows in Hounsfield units: (low, high)."""

# Beginnings of words, parted by semicolons; the rest of a word is free unless \b ends it. The order counts where two
# begin at the same word: an artery of the lung is a vessel full of blood, not air.
_WORDS = {
    "soft-tissue": (
        r"pulmonary (?:arter|vein|venous|trunk|embol|valv|vessel); pleural; effusion; spinal (?:cord|canal); "
        r"soft tissue; mediastin; lymph; muscle; fat(?:ty)?\b; skin\b; breast(?! ?bone); heart; cardiac; "
        r"atri(?:um|a)\b; (?:left|right) ventric; myocard; pericard; aort; arter; vein; vena; vessel; thyroid; "
        r"thymus; o?esophag; liver; hepat; gall ?bladder; spleen; splen; pancrea; kidney; renal; adrenal; "
        r"stomach; gastric; duoden; bowel; colon\b; rectum; bladder; prostat; uter(?:us|ine); ovar; psoas; glute"
    ),
    "lung": (
        r"lungs?\b; pulmonary; bronch; trachea; airway; emphysem; pneumothora; pneumoni; covid; atelecta; "
        r"ground glass; alveol; (?:upper|middle|lower) lobe"
    ),
    "brain": (
        r"brain; cerebr; cerebell; intracranial; intracerebral; subdural; subarachnoid; stroke; midbrain; pons\b; "
        r"thalam; hypothalam; hippocamp; putamen; basal ganglia; corpus callosum; (?:white|gray|grey) matter; "
        r"(?:lateral|third|fourth) ventric; (?:frontal|temporal|parietal|occipital) lobe; gliom; glioblastom; "
        r"meningiom; hydrocephal"
    ),
    "bone": (
        r"bon(?:e|es|y)\b; breast ?bone; osseous; osteo; skelet; fractur; ribs?\b; vertebra; spine\b; skull; "
        r"crani(?:um|al)\b; mandib; maxill(?:a|ae)\b; jaw; tooth; teeth; zygom; clavic; scapul; stern(?:um|al)\b; "
        r"humer; ulna\b; femur; femora\b; femoral (?:head|neck|shaft|condyl); tibia\b; fibula\b; patella; sacrum; "
        r"coccyx; ilium; hips?\b; acetabul; calcane; talus"
    ),
}

_FIRST = re.compile(
    "|".join(f"(?P<{name.replace('-', '_')}>\\b(?:{words.replace('; ', '|')}))" for name, words in _WORDS.items())
)

_BODY_PARTS = {
    "lung": ("lung", "lungs"),
    "brain": ("brain", "head"),
    "bone": (
        *("skull", "jaw", "maxilla", "mandible", "spine", "cspine", "tspine", "lspine", "sspine", "sacrum", "coccyx"),
        *("clavicle", "scapula", "shoulder", "humerus", "elbow", "forearm", "wrist", "hand", "finger", "arm", "rib"),
        *("hip", "femur", "thigh", "knee", "patella", "leg", "tibia", "ankle", "foot", "calcaneus", "toe", "extremity"),
    ),
}
_PRESET_OF_PART = {part: preset for preset, parts in _BODY_PARTS.items() for part in parts}


def ct_preset(target: str | None = None, body_part: str | None = None) -> tuple[str, str]:
    """The window for a CT.

    Parameters
    ----------
    target
        An instruction or a target's name, in English, or None.
    body_part
        What was examined, as the source says, or None.

    Returns
    -------
    tuple of str
        A key of :data:`CT_WINDOWS`, and what decided: ``"target"``, ``"body part"`` or ``""`` (nothing did).

    Examples
    --------
    >>> ct_preset("the tumour in the left lung"), ct_preset("lung_vessels"), ct_preset("the pulmonary artery")
    (('lung', 'target'), ('lung', 'target'), ('soft-tissue', 'target'))
    >>> ct_preset("the lesion", "HEAD"), ct_preset("the lesion", "CHEST")
    (('brain', 'body part'), ('soft-tissue', ''))
    """
    found = _FIRST.search(" ".join(re.sub(r"[\W_]+", " ", (target or "").lower()).split()))
    if found is not None and found.lastgroup is not None:
        return found.lastgroup.replace("_", "-"), "target"
    preset = _PRESET_OF_PART.get(re.sub(r"[^a-z]", "", (body_part or "").lower()))
    return (preset, "body part") if preset is not None else ("soft-tissue", "")

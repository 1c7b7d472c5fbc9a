"""Display windows: which stored values become black and white, by rule, and always recorded.

The rule, when the user names no window: CT is shown in the window of its target, else of the part of the body that was
examined, else of soft tissue (:mod:`ibisagent.io.window_presets`); everything else between the 0.5th and 99.5th
percentile. A policy may want its own for CT. Sources disagree about window numbers, so the numbers that made an image
travel with it (:class:`ibisagent.types.Window`).

Three windows joined by ``+`` are shown in one picture: ``lung+soft-tissue+bone`` as red, green and blue.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.files import one_line
from ibisagent.io.window_presets import CT_WINDOWS, ct_preset
from ibisagent.types import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CT_WINDOWS",
    "WindowChoice",
    "apply_window",
    "canonical_modality",
    "choose_window",
    "finite_or_fail",
    "parse_window",
]

_PERCENTILES = (0.5, 99.5)
_CHOICES = (
    f"{', '.join(CT_WINDOWS)}, percentile, header (DICOM) or LOW,HIGH, or three of them as in lung+soft-tissue+bone"
)

WindowChoice = str | tuple[float, float]
"""A name (a key of :data:`CT_WINDOWS`, ``"percentile"`` or ``"header"``), or (low, high)."""

# a plus between windows, not that of a number (1e+3, +40)
_JOINT = re.compile(r"(?<![0-9.][eE])(?<=[^,+])\+")

_MODALITIES = {
    "MR": "MRI",
    "MRI": "MRI",
    "CT": "CT",
    "PT": "PET",
    "PET": "PET",
    "US": "Ultrasound",
    "CR": "X-ray",
    "DX": "X-ray",
    "XA": "X-ray",  # angiography
    "RF": "X-ray",  # fluoroscopy
    "PX": "X-ray",  # panoramic, of the jaws
    "IO": "X-ray",  # intra-oral
    "MG": "Mammography",
    "OP": "Fundus photography",
    "OPT": "OCT",
    "XC": "Photography",
    "SM": "Histology",
    "ES": "Endoscopy",
}


def canonical_modality(name: str | None) -> str | None:
    """Turn DICOM's modality codes into the words that instructions use; other names pass unchanged.

    Examples
    --------
    >>> canonical_modality("MR"), canonical_modality(" ct "), canonical_modality("Histology"), canonical_modality("")
    ('MRI', 'CT', 'Histology', None)
    """
    text = one_line(name or "")
    return _MODALITIES.get(text.upper(), text) or None


def parse_window(option: str) -> tuple[WindowChoice, ...]:
    """Read a ``--window`` option.

    Returns
    -------
    tuple
        One choice, or three for red, green and blue.

    Raises
    ------
    InputError
        If it is neither.

    Examples
    --------
    >>> parse_window("Soft Tissue"), parse_window("-160, 240")
    (('soft-tissue',), ((-160.0, 240.0),))
    >>> parse_window("lung+soft-tissue+-500,1300")
    ('lung', 'soft-tissue', (-500.0, 1300.0))
    """
    parts = _JOINT.split(re.sub(r"\s*([,+])\s*", r"\1", option.strip()))
    if len(parts) not in (1, 3):
        raise InputError(
            f"window '{one_line(option)}': {len(parts)} windows in one picture; name one, or three for red, green and "
            "blue as in lung+soft-tissue+bone"
        )
    return tuple(_parse_one(part, option) for part in parts)


def _parse_one(part: str, option: str) -> WindowChoice:
    name = part.lower().replace("_", "-").replace(" ", "-")
    if name in CT_WINDOWS or name in ("percentile", "header"):
        return name
    ends = part.split(",")
    if len(ends) == 2:
        try:
            low, high = float(ends[0]), float(ends[1])
        except ValueError:
            pass
        else:
            if math.isfinite(low) and math.isfinite(high) and low < high:
                return low, high
            raise InputError(f"window '{one_line(option)}': LOW must be below HIGH, as in -160,240")
    raise InputError(f"window '{one_line(option)}' is unknown; use {_CHOICES}")


def finite_or_fail(values: NDArray[np.generic], where: str) -> None:
    """Refuse an image in which no value is finite; single NaN or infinite values are allowed."""
    if not np.isfinite(values).any():
        raise InputError(f"{where}: no finite value in the image; check how the file was made")


def choose_window(
    values: NDArray[np.generic],
    option: str | None,
    modality: str | None,
    *,
    header: tuple[float, float] | None = None,
    hounsfield: bool = False,
    guess_ct: bool = False,
    target: str | None = None,
    body_part: str | None = None,
    preferred: str | None = None,
    where: str = "image",
) -> Window:
    """Pick the window for one slice or volume and name it for the record.

    Parameters
    ----------
    values
        Stored values after rescaling, any numeric dtype; those that are not finite are ignored.
        Pass only the values that count (no padding).
    option
        What the user asked for (see :func:`parse_window`), or None for the rule.
    modality
        Canonical modality, or None if unknown.
    header
        (low, high) that the file itself proposes, if any.
    hounsfield
        Whether the source stores Hounsfield units when the modality is CT (so that the rule may use a CT window).
    guess_ct
        Whether to take values of an unknown modality for CT where they look like Hounsfield units
        (at least one value from -4096 to -500 as the minimum, and one above zero).
    target, body_part
        What is asked for and what was examined, for the rule on CT (:func:`ibisagent.io.window_presets.ct_preset`).
    preferred
        The option that a policy wants for CT where the user named none (:class:`ibisagent.policies.protocol.Policy`).
    where
        File name for messages.

    Raises
    ------
    InputError
        If the option is unknown or cannot serve this image, or no value is finite.
    """
    finite_or_fail(values, where)
    finite = values[np.isfinite(values)]
    guessed = False
    if option is None:
        guessed = bool(modality is None and guess_ct and -4096 <= finite.min() <= -500 and finite.max() > 0)
        if not (guessed or (modality == "CT" and hounsfield)):
            return _percentile(finite)
        option = preferred
        try:
            parse_window(option or "percentile")
        except InputError as error:
            raise InputError(f"the policy wants CT otherwise than there is: {error}") from None
    if option is not None:
        chosen = [_chosen(choice, finite, modality, header, where) for choice in parse_window(option)]
        window = chosen[0] if len(chosen) == 1 else Window.of_channels(*chosen)
    else:
        preset, reason = ct_preset(target, body_part)
        name = preset.replace("-", " ") + (f" ({reason})" if reason else "")
        window = Window(*CT_WINDOWS[preset], name=name)
    return replace(window, name=f"guessed CT: {window.name}") if guessed else window


def _chosen(
    choice: WindowChoice,
    finite: NDArray[np.generic],
    modality: str | None,
    header: tuple[float, float] | None,
    where: str,
) -> Window:
    if isinstance(choice, tuple):
        return Window(*choice, name="user")
    if choice == "percentile":
        return _percentile(finite)
    if choice == "header":
        if header is None:
            raise InputError(f"{where}: the file proposes no usable window; use another one: {_CHOICES}")
        return Window(*header, name="header")
    if modality not in (None, "CT"):
        raise InputError(
            f"{where}: window '{choice}' is in Hounsfield units, but the modality is {modality}; "
            "use percentile or LOW,HIGH"
        )
    return Window(*CT_WINDOWS[choice], name=choice.replace("-", " "))


def _percentile(finite: NDArray[Any]) -> Window:
    low, high = (float(v) for v in np.percentile(finite, _PERCENTILES))
    name = f"percentile {_PERCENTILES[0]:g}-{_PERCENTILES[1]:g}"
    if low == high:  # nearly constant: what little varies must stay visible
        low, high, name = float(finite.min()), float(finite.max()), "min-max"
    if low == high:
        high, name = low + 1.0, "constant"
    return Window(low, high, name)


def apply_window(values: NDArray[np.generic], window: Window) -> NDArray[np.uint8]:
    """Map values to 8-bit gray: ``low`` and below is 0, ``high`` and above 255, linear and rounded between.

    A window with ``low > high`` shows an inverted image (DICOM ``MONOCHROME1``). NaN becomes 0.

    Parameters
    ----------
    values
        Numeric array of any shape.

    Returns
    -------
    NDArray of uint8
        Same shape; one more axis of size 3 (red, green, blue) at the end where the window has channels.
    """
    if window.channels:
        return np.stack([apply_window(values, channel) for channel in window.channels], axis=-1)
    out = np.empty(values.shape, np.uint8)
    # halves keep the span of very wide float windows from overflowing
    half_span = window.high / 2 - window.low / 2
    with np.errstate(all="ignore"):
        for i in range(len(values)):  # by rows: a large image needs no float64 copy of itself
            share = (values[i].astype(np.float64) / 2 - window.low / 2) / half_span
            gray = np.floor(np.clip(share, 0.0, 1.0) * 255.0 + 0.5)
            out[i] = np.nan_to_num(gray, nan=0.0).astype(np.uint8)
    return out

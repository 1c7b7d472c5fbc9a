"""Display windows: which stored values become black and white, by rule, and always recorded.

The rule, when the user names no window: CT is shown in the soft tissue window; everything else between
the 0.5th and 99.5th percentile of the slice. Sources disagree about window numbers, so the numbers that
made an image travel with it (:class:`ibisagent.types.Window`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.files import one_line
from ibisagent.types import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CT_WINDOWS", "apply_window", "canonical_modality", "choose_window", "finite_or_fail", "parse_window"]

CT_WINDOWS: dict[str, tuple[float, float]] = {
    "soft-tissue": (-160.0, 240.0),  # level 40, width 400
    "lung": (-910.0, 590.0),  # level -160, width 1500
    "brain": (0.0, 80.0),  # level 40, width 80
    "bone": (-500.0, 1300.0),  # level 400, width 1800
}
"""Named windows in Hounsfield units: (low, high)."""

_PERCENTILES = (0.5, 99.5)
_CHOICES = f"{', '.join(CT_WINDOWS)}, percentile, header (DICOM) or LOW,HIGH"

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


def parse_window(option: str) -> str | tuple[float, float]:
    """Read a ``--window`` option.

    Returns
    -------
    str or tuple of float
        A name (a key of :data:`CT_WINDOWS`, ``"percentile"`` or ``"header"``), or (low, high).

    Raises
    ------
    InputError
        If it is neither.
    """
    text = option.strip().lower().replace("_", "-").replace(" ", "-")
    if text in CT_WINDOWS or text in ("percentile", "header"):
        return text
    parts = option.split(",")
    if len(parts) == 2:
        try:
            low, high = float(parts[0]), float(parts[1])
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
    where: str = "image",
) -> Window:
    """Pick the window for one slice and name it for the record.

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
    where
        File name for messages.

    Raises
    ------
    InputError
        If the option is unknown or cannot serve this image, or no value is finite.
    """
    finite_or_fail(values, where)
    choice = None if option is None else parse_window(option)
    if isinstance(choice, tuple):
        return Window(*choice, name="user")
    if choice == "header":
        if header is None:
            raise InputError(f"{where}: the file proposes no usable window; use another one: {_CHOICES}")
        return Window(*header, name="header")
    if choice is not None and choice != "percentile":
        if modality not in (None, "CT"):
            raise InputError(
                f"{where}: window '{choice}' is in Hounsfield units, but the modality is {modality}; "
                "use percentile or LOW,HIGH"
            )
        return Window(*CT_WINDOWS[choice], name=choice.replace("-", " "))
    finite = values[np.isfinite(values)]
    if choice is None:
        if modality == "CT" and hounsfield:
            return Window(*CT_WINDOWS["soft-tissue"], name="soft tissue")
        if modality is None and guess_ct and -4096 <= finite.min() <= -500 and finite.max() > 0:
            return Window(*CT_WINDOWS["soft-tissue"], name="guessed CT: soft tissue")
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
        Same shape.
    """
    out = np.empty(values.shape, np.uint8)
    # halves keep the span of very wide float windows from overflowing
    half_span = window.high / 2 - window.low / 2
    with np.errstate(all="ignore"):
        for i in range(len(values)):  # by rows: a large image needs no float64 copy of itself
            share = (values[i].astype(np.float64) / 2 - window.low / 2) / half_span
            gray = np.floor(np.clip(share, 0.0, 1.0) * 255.0 + 0.5)
            out[i] = np.nan_to_num(gray, nan=0.0).astype(np.uint8)
    return out

"""Single elements of DICOM headers: numbers, vectors and windows out of whatever a file says, or nothing."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

__all__ = ["first_item", "header_window", "is_deflated", "number", "vector", "words"]

_DEFLATED = "1.2.840.10008.1.2.1.99"


def number(ds: Any, keyword: str, default: Any = None) -> Any:
    """A numeric element's (first) value as float; `default` where it is absent or empty."""
    value = ds.get(keyword)
    if isinstance(value, (list, tuple)) or (hasattr(value, "__getitem__") and not isinstance(value, str)):
        value = value[0] if len(value) else None
    return default if value is None or value == "" else float(value)


def vector(ds: Any, keyword: str, size: int) -> tuple[float, ...] | None:
    """An element of `size` finite numbers, or None where it is absent or something else."""
    value = ds.get(keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != size:
        return None
    numbers = tuple(float(v) for v in value)
    return numbers if np.isfinite(numbers).all() else None


def words(ds: Any, keyword: str) -> tuple[str, ...]:
    """An element of text values, upper case; empty where it is absent."""
    value = ds.get(keyword)
    if value is None or value == "":
        return ()
    return tuple(str(v).strip().upper() for v in ([value] if isinstance(value, str) else value))


def first_item(ds: Any, keyword: str) -> Any:
    """The first item of a sequence, or an empty data set."""
    items = ds.get(keyword)
    if not items:
        from pydicom.dataset import Dataset

        return Dataset()
    return items[0]


def header_window(ds: Any) -> tuple[float, float] | None:
    """(low, high) of the first WindowCenter and WindowWidth, by the standard's linear functions (PS3.3 C.11.2.1)."""
    center, width = number(ds, "WindowCenter"), number(ds, "WindowWidth")
    if center is None or width is None or not np.isfinite([center, width]).all():
        return None
    exact = str(ds.get("VOILUTFunction") or "LINEAR").upper() != "LINEAR"  # a sigmoid is shown by its linear span
    low, high = (center - width / 2, center + width / 2) if exact else (center - width / 2, center + width / 2 - 1)
    return (float(low), float(high)) if low < high else None


def is_deflated(f: BinaryIO) -> bool:
    """Whether an open file with a preamble says that it is deflated; the position is left anywhere.

    To be asked before pydicom reads the file: it inflates it whole, however large it gets.
    """
    from pydicom.filereader import read_dataset

    f.seek(132)
    meta = read_dataset(f, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    return str(meta.get("TransferSyntaxUID") or "") == _DEFLATED

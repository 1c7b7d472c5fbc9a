"""What the numbers in a label volume mean: a JSON of our own, or nnU-Net's ``dataset.json``, old or new."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibisagent.engine.sources.names import clean_name
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, read_bytes
from ibisagent.io.windows import canonical_modality

__all__ = ["LabelMap", "read_label_map"]

LARGEST_LABEL = 2**16 - 1
"""Labels are whole numbers up to this."""

_EXAMPLE = 'write {"1": "liver"} or {"labels": {"liver": 1}}'
_MRI_CHANNELS = ("T1", "T2", "FLAIR", "DWI", "ADC", "PD", "MR", "SWI", "LGE", "BSSFP")


@dataclass(frozen=True)
class LabelMap:
    """Structures of a label volume, and what else its description says of the data set.

    Parameters
    ----------
    structures
        Name -> the labels that belong to it, ascending. Regions may overlap: ``{"tumour": (1, 2), "necrosis": (2,)}``.
    ignore
        Label of voxels that nobody annotated (nnU-Net's ``"ignore"``), or None.
    unnamed
        Labels whose name is null: known, and no structure.
    channels
        Modality of each image channel, None where its name does not say.
    name, licence
        Of the data set, or None.
    """

    structures: Mapping[str, tuple[int, ...]]
    ignore: int | None = None
    unnamed: tuple[int, ...] = ()
    channels: tuple[str | None, ...] = ()
    name: str | None = None
    licence: str | None = None

    @property
    def labels(self) -> tuple[int, ...]:
        """All labels that some structure or ``ignore`` uses, ascending."""
        used = {label for labels in self.structures.values() for label in labels}
        return tuple(sorted(used if self.ignore is None else used | {self.ignore}))


def read_label_map(path: Path) -> LabelMap:
    """Read a label map.

    Accepted are ``{"1": "liver"}``, ``{"liver": 1}``, ``{"liver": [1, 2]}``, and nnU-Net's ``dataset.json``, which
    has such a table under ``"labels"``. Label 0 (background) and labels whose name is null are left out; labels of
    one name are one structure.

    Raises
    ------
    InputError
        If the file cannot be read, is no label map, or has no structure.
    """
    shown = display_name(path)
    try:
        document: Any = json.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{shown}: not JSON ({one_line(exc, 80)}); {_EXAMPLE}") from None
    table = document.get("labels", document) if isinstance(document, dict) else None
    if not isinstance(table, dict):
        raise InputError(f"{shown}: not a label map; {_EXAMPLE}")
    structures: dict[str, set[int]] = {}
    ignore: int | None = None
    for name, label in _entries(table, shown):
        if name.lower() == "ignore" and table is not document:
            ignore = label
        elif label != 0:
            structures.setdefault(name, set()).add(label)
    if not structures:
        raise InputError(f"{shown}: no structure but the background in it; {_EXAMPLE}")
    is_described = table is not document
    nulls = (int(key) for key, value in table.items() if key.strip().isdecimal() and value is None)
    return LabelMap(
        unnamed=tuple(sorted(nulls)),
        structures={name: tuple(sorted(labels)) for name, labels in sorted(structures.items())},
        ignore=ignore,
        channels=_channels(document) if is_described else (),
        name=_text(document.get("name")) if is_described else None,
        licence=_text(document.get("licence", document.get("license"))) if is_described else None,
    )


def _entries(table: Mapping[str, Any], shown: str) -> Iterator[tuple[str, int]]:
    """(name, label) of every entry, whichever way round the table is written."""
    for key, value in table.items():
        by_number = key.strip().isdecimal() and (value is None or isinstance(value, str))
        if by_number and value is None:
            continue
        name = clean_name(value if by_number else key)
        labels = [int(key)] if by_number else (value if isinstance(value, list) else [value])
        if not name or not labels:
            raise InputError(f"{shown}: entry '{one_line(key, 40)}' has no name or no label; {_EXAMPLE}")
        for label in labels:
            if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label <= LARGEST_LABEL:
                raise InputError(
                    f"{shown}: '{one_line(label, 40)}' in entry '{one_line(key, 40)}' is no label from 0 to "
                    f"{LARGEST_LABEL}; {_EXAMPLE}"
                )
            yield name, label


def _channels(document: Mapping[str, Any]) -> tuple[str | None, ...]:
    table = document.get("channel_names", document.get("modality"))
    if not isinstance(table, dict):
        return ()
    channels = {int(key): _modality(name) for key, name in table.items() if key.isdecimal() and isinstance(name, str)}
    return tuple(channels.get(index) for index in range(len(channels)))


def _modality(channel: str) -> str | None:
    """Modality that a channel's name says; names like "zscore", which only ask for a normalisation, say none."""
    name = channel.strip().upper()
    if name.startswith(_MRI_CHANNELS):
        return "MRI"
    return canonical_modality(name) if name in ("CT", "PET", "PT", "US") else None


def _text(value: Any) -> str | None:
    return one_line(value, 80) or None if isinstance(value, str) else None

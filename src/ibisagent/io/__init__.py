"""Readers and writers: images, volumes and masks on disk, case lists.

Every reader treats its file as untrusted and raises nothing but :class:`ibisagent.errors.InputError`.
"""

from __future__ import annotations

from ibisagent.io.datasets import CaseRow, RowError, load_case, read_cases
from ibisagent.io.images import read_image
from ibisagent.io.labels import read_label_volume
from ibisagent.io.masks import mask_filename, read_mask, write_mask
from ibisagent.io.studies import open_volume

__all__ = [
    "CaseRow",
    "RowError",
    "load_case",
    "mask_filename",
    "open_volume",
    "read_cases",
    "read_image",
    "read_label_volume",
    "read_mask",
    "write_mask",
]

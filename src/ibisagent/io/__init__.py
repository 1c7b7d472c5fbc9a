"""Readers and writers: images and masks on disk, case lists.

Every reader treats its file as untrusted and raises nothing but :class:`ibisagent.errors.InputError`.
"""

from __future__ import annotations

from ibisagent.io.datasets import CaseRow, RowError, load_case, read_cases
from ibisagent.io.images import read_image
from ibisagent.io.masks import mask_filename, read_mask, write_mask

__all__ = ["CaseRow", "RowError", "load_case", "mask_filename", "read_cases", "read_image", "read_mask", "write_mask"]

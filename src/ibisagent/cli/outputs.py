"""Output folders; what :mod:`ibisagent.batch.folders` has, for the commands."""

from __future__ import annotations

from ibisagent.batch.folders import check_out, fill_folder, hold_folder

__all__ = ["check_out", "fill_folder", "hold_folder"]

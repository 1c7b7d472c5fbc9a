"""The record of a run on a volume: every look, run and carried mask in its order, and the final mask.

Masks of visits lie on the display of their slice (what the agent saw); the final mask lies on the source's grid.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ibisagent.episode import Episode, Outcome, PolicyRecord, SegmenterRecord, WindowRecord, write_json
from ibisagent.errors import InputError
from ibisagent.grid import Grid
from ibisagent.rle import Rle, decode_mask, encode_mask
from ibisagent.volume.config import Plane, VolumeConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["StudyRecord", "Visit", "VolumeEpisode", "VolumeMask"]

SCHEMA_VERSION = 1


class _Record(BaseModel):
    # Unknown fields are ignored: a newer minor version may have added them.
    model_config = ConfigDict(extra="ignore")


class StudyRecord(_Record):
    """What was read, without identifiers."""

    source: str = ""
    """Name of the file or folder, without the folders above it; empty for DICOM, whose names often name patients."""
    sha256: str = ""
    """Hash of the grid and of the middle slice as displayed: it tells volumes apart without reading all of one."""
    kind: str
    modality: str | None = None
    body_part: str | None = None
    grid: dict[str, Any]
    """As :meth:`ibisagent.grid.Grid.to_json` writes it: shape and affine (index to RAS mm)."""
    has_world: bool = True
    window: WindowRecord
    notes: list[str] = Field(default_factory=list)


class Visit(_Record):
    """One slice, visited once."""

    kind: Literal["scan", "key", "carry", "revisit"]
    plane: Plane
    index: int
    """Voxel index along the source axis nearest to the plane's normal."""
    carried_from: int | None = None
    """Index of the neighbour whose mask came along; None for scan and key slices."""
    mask: Rle | None = None
    """``bool`` on the slice's display after the visit; None if there is none (absent, or nothing drawn yet)."""
    score: float | None = None
    """The segmenter's own estimate for `mask`."""
    agreement: float | None = None
    """Dice with the mask it was carried from."""
    is_absent: bool = False
    """Whether the target was said not to be here, or a carried mask was given up."""
    accepted: bool = True
    """Whether `mask` is part of the plane's mask: scans and doubted masks that a revisit replaced are not."""
    note: str = ""
    """Why it was visited or what was decided, in words."""
    episode: Episode | None = None
    """The run on this slice, where the policy was asked."""
    seconds: float = 0.0

    @property
    def has_acted(self) -> bool:
        """Whether clicks or a box of the policy were carried out here."""
        steps = self.episode.steps if self.episode is not None else []
        return any(step.pixels_xy and step.invalid is None for step in steps)


class VolumeMask(_Record):
    """A ``bool`` (ni, nj, nk) mask as one RLE a slice along an axis; slices without foreground are left out."""

    shape: tuple[int, int, int]
    axis: int = 2
    slices: dict[int, Rle] = Field(default_factory=dict)

    @classmethod
    def encode(cls, mask: NDArray[np.bool_], axis: int = 2) -> VolumeMask:
        """Encode a ``bool`` (ni, nj, nk) mask."""
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        slices = {int(i): encode_mask(np.ascontiguousarray(np.take(mask, i, axis=axis))) for i in found}
        ni, nj, nk = mask.shape
        return cls(shape=(ni, nj, nk), axis=axis, slices=slices)

    def decode(self) -> NDArray[np.bool_]:
        """The ``bool`` (ni, nj, nk) mask."""
        mask = np.zeros(self.shape, bool)
        for index, rle in self.slices.items():
            mask[(slice(None),) * self.axis + (index,)] = decode_mask(rle)
        return mask


class VolumeEpisode(_Record):
    """One run on one volume."""

    schema_version: int = SCHEMA_VERSION
    ibisagent_version: str = ""
    case_id: str = ""
    instruction: str
    study: StudyRecord
    policy: PolicyRecord = Field(default_factory=PolicyRecord)
    segmenter: SegmenterRecord = Field(default_factory=SegmenterRecord)
    config: VolumeConfig = Field(default_factory=VolumeConfig)
    visits: list[Visit] = Field(default_factory=list)
    """In the order in which they were made."""
    outcome: Outcome | None = None
    """None while the run goes on. ``absent``: the target never showed; the mask is all zero."""
    end_reason: str | None = None
    answer: str = ""
    error: str | None = None
    final_mask: VolumeMask | None = None
    """On the source's grid; None if the run failed."""
    seconds_total: float = 0.0

    @property
    def is_unfinished(self) -> bool:
        """Whether the same run may go on: a server was away, or the time was over."""
        return self.outcome is Outcome.ERROR or self.end_reason == "max_seconds"

    @property
    def grid(self) -> Grid:
        """Shape and place of the voxels."""
        return Grid.from_json(self.study.grid)

    @property
    def clicked_slices(self) -> list[tuple[str, int]]:
        """(plane, index) of every slice on which the policy's clicks or boxes were carried out, each once."""
        return list(dict.fromkeys((visit.plane, visit.index) for visit in self.visits if visit.has_acted))

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically: a reader sees the old file or the whole new one."""
        write_json(path, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, path: str | Path) -> VolumeEpisode:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged or of an unknown schema version.
        """
        try:
            data = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise InputError(f"cannot read the volume record {path}: {error.strerror or error}") from None
        except (ValueError, RecursionError):
            raise InputError(f"{path} is not a volume record: it is not valid JSON") from None
        if not isinstance(data, dict) or "visits" not in data or data.get("schema_version") != SCHEMA_VERSION:
            raise InputError(f"{path} is not a volume record of schema version {SCHEMA_VERSION}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path} is a damaged volume record: {where}: {first['msg']}") from None

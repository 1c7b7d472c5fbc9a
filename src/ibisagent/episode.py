"""The episode: one finished run as a versioned JSON artefact.

It stores raw facts (messages, raw text, actions, masks, scores of the segmenter, seconds, hashes) and
derives nothing from a target, so that it can be re-scored, replayed and branched at any step.
"""

from __future__ import annotations

import json
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ibisagent.actions import Action
from ibisagent.errors import InputError
from ibisagent.rle import Rle, decode_mask, encode_mask
from ibisagent.types import Window

__all__ = [
    "SCHEMA_VERSION",
    "Budget",
    "Episode",
    "ImageRecord",
    "Invalid",
    "Outcome",
    "PolicyRecord",
    "Rle",
    "Seconds",
    "SegmenterRecord",
    "Step",
    "WindowRecord",
    "decode_mask",
    "encode_mask",
    "write_json",
]

SCHEMA_VERSION = 1
"""Major version of the schema. Added fields keep it; renamed, removed or reinterpreted ones raise it."""


class Outcome(StrEnum):
    """How a run ended."""

    DONE = "done"
    """The policy stopped and said that it found the target."""
    ABSENT = "absent"
    """The policy said that the target is not in the image; the final mask is all zero."""
    UNCERTAIN = "uncertain"
    """The policy stopped and left it open."""
    OUT_OF_STEPS = "out_of_steps"
    """A budget ended the run (see ``end_reason``); the best mask is kept."""
    ERROR = "error"
    """The segmenter or the policy failed; there is no final mask."""
    STOPPED = "stopped"
    """A person stopped the run; the best mask is kept."""


class _Record(BaseModel):
    # Unknown fields are ignored: a newer minor version may have added them.
    model_config = ConfigDict(extra="ignore")


class Invalid(_Record):
    """Why a reply was not carried out."""

    code: str
    reason: str


class Seconds(_Record):
    """Wall-clock seconds that a step took."""

    policy: float = 0.0
    segmenter: float = 0.0


class Step(_Record):
    """One reply and what came of it."""

    index: int
    messages: list[dict[str, Any]] = Field(default_factory=list)
    """Chat messages that were new in this request; images by hash."""
    raw_text: str = ""
    thought: str | None = None
    action: Action | None = None
    """The parsed action, None if the reply was no action. It was carried out unless `invalid` is set."""
    invalid: Invalid | None = None
    pixels_xy: list[tuple[int, int]] = Field(default_factory=list)
    """Pixels of the clicks, or the two corners of the box."""
    world_mm: list[tuple[float, float, float]] | None = None
    """The same in RAS millimetres where the source has a world."""
    mask: Rle | None = None
    """Mask after the step, None while there is none."""
    segmenter_score: float | None = None
    """The segmenter's own estimate for `mask` where this step made it."""
    changed_pixels: int | None = None
    """Number of pixels that the step changed, None where nothing was carried out."""
    seconds: Seconds = Field(default_factory=Seconds)
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None

    @property
    def counts(self) -> bool:
        """Whether the step counts against ``max_steps``: all but a Terminate that was carried out."""
        return not (self.action is not None and self.action.kind == "terminate" and self.invalid is None)

    @property
    def failed(self) -> bool:
        """Whether the segmenter failed while it carried the action out."""
        return self.counts and self.action is not None and self.invalid is None and self.changed_pixels is None


class WindowRecord(_Record):
    """Display window that made the pixels (:class:`ibisagent.types.Window`)."""

    low: float
    high: float
    name: str
    channels: list[WindowRecord] = Field(default_factory=list)
    """Of a picture whose red, green and blue show three windows; `low` and `high` are then their span."""

    @classmethod
    def of(cls, window: Window) -> WindowRecord:
        """The record of a window."""
        channels = [cls.of(channel) for channel in window.channels]
        return cls(low=window.low, high=window.high, name=window.name, channels=channels)

    def window(self) -> Window:
        """The window that was recorded.

        Raises
        ------
        ValueError
            If the record is damaged: the channels are not three.
        """
        return Window(self.low, self.high, self.name, tuple(channel.window() for channel in self.channels))

    def option(self) -> str:
        """The ``--window`` that shows the same again; a reader inverts what is to be inverted by itself."""
        ends = (sorted((shown.low, shown.high)) for shown in self.channels or [self])
        return "+".join(f"{low!r},{high!r}" for low, high in ends)

    def __str__(self) -> str:
        """For people: ``-160 … 240 (soft tissue)``, channels one after the other."""
        return "; ".join(f"{shown.low:g} … {shown.high:g} ({shown.name})" for shown in self.channels or [self])


class ImageRecord(_Record):
    """What the agent looked at."""

    sha256: str
    source: str = ""
    """Name of the file, without its folder: paths may name patients or people."""
    width: int
    height: int
    modality: str | None = None
    window: WindowRecord | None = None
    geometry: dict[str, Any] | None = None
    png: str | None = None
    """The pixels as PNG in base64, where the record is to be replayed without its source (``ibisagent segment``)."""


class PolicyRecord(_Record):
    """Who wrote the replies."""

    name: str = ""
    weights_sha256: str | None = None
    dialect: str = "plain"
    action_kinds: list[str] | None = None
    system_prompt_sha256: str | None = None


class SegmenterRecord(_Record):
    """Which segmenter made the masks."""

    name: str = ""
    weights_sha256: str | None = None


class Budget(_Record):
    """Limits other than ``max_steps``."""

    max_repeated_actions: int | None = None
    max_seconds: float | None = None


class Episode(_Record):
    """One run: case, policy, segmenter, steps, outcome, final mask."""

    schema_version: int = SCHEMA_VERSION
    ibisagent_version: str = ""
    case_id: str = ""
    target: str | None = None
    group: str | None = None
    instruction: str
    image: ImageRecord
    initial_mask: Rle | None = None
    policy: PolicyRecord = Field(default_factory=PolicyRecord)
    segmenter: SegmenterRecord = Field(default_factory=SegmenterRecord)
    seed: int = 0
    max_steps: int = 8
    budget: Budget = Field(default_factory=Budget)
    history: bool = True
    thoughts: bool = True
    overlay: bool = True
    """As in :class:`ibisagent.config.RolloutConfig`; what a policy was shown and might write."""
    steps: list[Step] = Field(default_factory=list)
    outcome: Outcome | None = None
    """None while the run goes on."""
    end_reason: (
        Literal["terminate", "max_steps", "repeated_actions", "max_seconds", "max_tokens", "error", "stopped"] | None
    ) = None
    answer: str = ""
    error: str | None = None
    unused_reply: str | None = None
    """Reply to the offer to stop after the last step, where it was no valid Terminate (or why there was none)."""
    final_mask: Rle | None = None
    final_step: int | None = None
    """Index of the step whose mask is the final one; None for the given mask or an all-zero one."""
    best_mask_rule: str = ""
    """In words, how the final mask was chosen."""
    seconds_total: float = 0.0

    @property
    def num_steps(self) -> int:
        """Steps taken: invalid replies count, Terminate does not."""
        return sum(step.counts for step in self.steps)

    @property
    def current_mask_rle(self) -> Rle | None:
        """Mask after the last step, the given mask before any, None while there is none."""
        return self.steps[-1].mask if self.steps else self.initial_mask

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically: a reader sees the old file or the whole new one."""
        write_json(path, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, path: str | Path) -> Episode:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged, of an unknown schema version, or a mask in it does not fit.
        """
        try:
            data = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise InputError(f"cannot read the episode {path}: {error.strerror or error}") from None
        except (ValueError, RecursionError):
            raise InputError(f"{path} is not an episode: it is not valid JSON") from None
        if not isinstance(data, dict) or "schema_version" not in data:
            raise InputError(f"{path} is not an episode: it has no schema_version")
        if data["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema version {str(data['schema_version'])[:20]}, this ibisagent reads {SCHEMA_VERSION}"
            )
        try:
            episode = cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path} is a damaged episode: {where}: {first['msg']}") from None
        size = (episode.image.height, episode.image.width)
        for rle in (episode.initial_mask, episode.final_mask, *(step.mask for step in episode.steps)):
            if rle is not None and rle.size != size:
                raise InputError(f"{path} is a damaged episode: a mask is {rle.size}, the image {size} (height, width)")
        return episode


def write_json(path: str | Path, text: str) -> None:
    """Write a record's JSON `text`, atomically: a reader sees the old file or the whole new one."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp is private; an artefact is like any other file
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

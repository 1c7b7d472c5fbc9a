"""A mask for a volume from a sentence: who plays with what, and what comes out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.episode import Outcome
from ibisagent.errors import InputError
from ibisagent.hashing import pixel_hash
from ibisagent.io.files import display_name
from ibisagent.io.labels import read_label_volume
from ibisagent.io.studies import open_volume
from ibisagent.io.volume import Volume
from ibisagent.registry import SEES_TARGETS, make_segmenter, parse_spec, resolve_policy
from ibisagent.types import check_instruction
from ibisagent.volume.config import VolumeConfig
from ibisagent.volume.record import VolumeEpisode
from ibisagent.volume.run import run_volume
from ibisagent.volume.targets import SliceTargets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.policies.protocol import Policy
    from ibisagent.segmenters.protocol import Segmenter
    from ibisagent.types import Window

    StudyLike = str | os.PathLike[str] | Volume
    VolumeMaskLike = str | os.PathLike[str] | NDArray[Any]

__all__ = ["VolumeSegmentation", "as_volume", "as_volume_mask", "segment_volume"]


@dataclass(frozen=True, eq=False)
class VolumeSegmentation:
    """What a run on a volume gives.

    Attributes
    ----------
    mask
        ``bool`` (ni, nj, nk) on the volume's grid; None if the run failed.
    record
        The whole record.
    volume
        What it ran on.
    window
        The window in which the agent saw it.
    """

    mask: NDArray[np.bool_] | None
    record: VolumeEpisode
    volume: Volume
    window: Window

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        assert self.record.outcome is not None
        return self.record.outcome

    @property
    def answer(self) -> str:
        """What the policy said at the end."""
        return self.record.answer


def segment_volume(
    study: StudyLike,
    instruction: str,
    mask: VolumeMaskLike | None = None,
    policy: str | Policy = "nano",
    segmenter: str | Segmenter = "litemedsam",
    device: str = "cpu",
    *,
    target: VolumeMaskLike | None = None,
    series: str | None = None,
    window: str | None = None,
    modality: str | None = None,
    system_prompt: str | None = None,
    base_url: str | None = None,
    config: VolumeConfig | None = None,
    journal: Path | None = None,
    on_visit: Callable[[VolumeEpisode], None] | None = None,
    case_id: str = "",
    **policy_options: Any,
) -> VolumeSegmentation:
    """Segment a whole volume from a plain sentence.

    Parameters
    ----------
    study
        Path of a DICOM folder or file, a NIfTI, NRRD or MetaImage file or a TIFF stack; or a Volume.
    instruction
        What to segment, in plain words. "Left" and "right" are the patient's.
    mask
        Mask to refine: a path, or a bool or integer array (ni, nj, nk) on the volume's grid.
    policy, segmenter
        A spec such as ``"vlm:/models/qwen"``, or an object that keeps the protocol (reuse one over many calls to load
        it once).
    device
        Where models run.
    target
        Reference mask, as `mask`; only ``policy="oracle"`` may see one.
    series, modality
        See :func:`ibisagent.io.studies.open_volume`.
    window
        See :meth:`ibisagent.io.volume.Volume.window`.
    system_prompt, base_url
        For policies that take them.
    config
        Budgets and switches.
    journal
        File that keeps what is done while the run goes on; one of the same run is gone on with.
    on_visit
        Called with the record after every visit.
    case_id
        Name for the record.
    **policy_options
        Further options of the policy's factory.

    Raises
    ------
    InputError
        If something given cannot be used. A model that fails raises nothing: it is the outcome ``error``.
    """
    check_instruction(instruction)
    volume = as_volume(study, series=series, modality=modality)
    sees = isinstance(policy, str) and parse_spec(policy)[0] in SEES_TARGETS
    if target is not None and not sees:
        raise InputError("a target mask serves the policy 'oracle' alone")
    wanted = as_volume_mask(target, volume) if target is not None else None
    targets = SliceTargets(wanted, volume.grid) if wanted is not None else None
    given = as_volume_mask(mask, volume) if mask is not None else None
    player = (
        resolve_policy(
            policy, device=device, system_prompt=system_prompt, base_url=base_url, targets=targets, **policy_options
        )
        if isinstance(policy, str)
        else policy
    )
    tool = make_segmenter(segmenter, device) if isinstance(segmenter, str) else segmenter
    record = run_volume(
        volume,
        instruction,
        player,
        tool,
        config or VolumeConfig(),
        window=window,
        initial_mask=given,
        journal=journal,
        on_visit=on_visit,
        case_id=case_id,
        journal_key="" if wanted is None else pixel_hash(wanted),
    )
    final = record.final_mask.decode() if record.final_mask is not None else None
    return VolumeSegmentation(final, record, volume, record.study.window.window())


def as_volume(study: StudyLike, *, series: str | None = None, modality: str | None = None) -> Volume:
    """A volume from a path or a volume.

    Raises
    ------
    InputError
        If it cannot be read, or is a 2-D picture.
    """
    if isinstance(study, Volume):
        return study
    volume = open_volume(study, series=series, modality=modality)
    if volume is None:
        raise InputError(f"{display_name(study)}: this is a 2-D image, not a volume; use ibisagent.segment")
    return volume


def as_volume_mask(mask: VolumeMaskLike, volume: Volume) -> NDArray[np.bool_]:
    """A ``bool`` (ni, nj, nk) mask on the volume's grid, from a path or an array of bool or integers.

    Raises
    ------
    InputError
        If it cannot be read or does not fit.
    """
    if isinstance(mask, (str, os.PathLike)):
        return read_label_volume(mask, volume)
    array = np.asarray(mask)
    if array.shape != volume.grid.shape or array.dtype.kind not in "bui":
        raise InputError(
            f"a mask array must be bool or integer of shape {volume.grid.shape}, not {array.dtype} {array.shape}"
        )
    return np.ascontiguousarray(array != 0)

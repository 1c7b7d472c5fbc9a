"""A run on a volume: plane by plane, within its budget, recorded visit by visit, taken up again where it was left."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent import __version__
from ibisagent.episode import Outcome, PolicyRecord, SegmenterRecord, WindowRecord
from ibisagent.errors import InputError, PolicyError, ToolError
from ibisagent.hashing import pixel_hash, text_hash
from ibisagent.io.volume import Volume, place_slice
from ibisagent.messages import default_system_prompt
from ibisagent.policies.protocol import Policy
from ibisagent.registry import wanted_windows
from ibisagent.segmenters.protocol import Segmenter, video_segmenter
from ibisagent.slices import mask_to_source
from ibisagent.types import Window
from ibisagent.volume.config import VolumeConfig
from ibisagent.volume.journal import Journal
from ibisagent.volume.plane_run import OutOfTime, PlaneRun
from ibisagent.volume.record import StudyRecord, Visit, VolumeEpisode, VolumeMask
from ibisagent.volume.slices_seen import SliceImages
from ibisagent.volume.targets import SliceTargets

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["run_volume"]


def run_volume(
    volume: Volume,
    instruction: str,
    policy: Policy,
    segmenter: Segmenter,
    config: VolumeConfig | None = None,
    *,
    window: str | None = None,
    initial_mask: NDArray[np.bool_] | None = None,
    journal: Path | None = None,
    on_visit: Callable[[VolumeEpisode], None] | None = None,
    case_id: str = "",
    journal_key: str = "",
) -> VolumeEpisode:
    """Segment a volume from a plain sentence.

    Parameters
    ----------
    volume
        What to segment.
    instruction
        The plain sentence of the user.
    policy, segmenter
        Who plays with what. The oracle is made with :class:`ibisagent.volume.targets.SliceTargets`.
    config
        Budgets and switches; None is :class:`VolumeConfig`'s defaults.
    window
        ``--window`` option, or None for the rule.
    initial_mask
        ``bool`` (ni, nj, nk) mask to refine; the policy then corrects its key slices and those that agree least with
        their neighbours, and nothing is carried on.
    journal
        File that keeps visits while the run goes on; where it holds visits of the same run they are not made again.
    on_visit
        Called with the record after every visit.
    case_id
        Name for the record.
    journal_key
        What else two starts must have in common to share a journal, for what the run itself never sees: a hash of the
        oracle's target.

    Returns
    -------
    VolumeEpisode
        The record, with the final mask on the volume's grid. A policy or segmenter that fails is the outcome ``error``,
        without a mask.

    Raises
    ------
    InputError
        If the volume cannot be read, the window or a slice range cannot serve it, policy and segmenter share no action,
        the segmenter lacks the memory that `config` asks for, or the journal is another run's.
    """
    config = config if config is not None else VolumeConfig()
    _check_range(volume, config)
    if config.carry == "video" and video_segmenter(segmenter) is None:
        raise InputError(f"the segmenter '{segmenter.name}' has no memory for video; use carry 'prompt' or 'auto'")
    if initial_mask is not None:
        volume.grid.check_mask(initial_mask, "initial_mask")
    started = time.perf_counter()
    chosen = volume.window(window, target=instruction, preferred=wanted_windows(policy))
    record = _new_record(volume, instruction, policy, segmenter, config, chosen, case_id)
    kept = Journal(journal, {**_identity(record, initial_mask), "key": journal_key})

    def on_one(visit: Visit) -> None:
        """Put a visit into the record, and show the record."""
        record.visits.append(visit)
        record.seconds_total = time.perf_counter() - started
        if on_visit is not None:
            on_visit(record)

    deadline = started + config.max_seconds if config.max_seconds is not None else None
    votes: list[NDArray[np.bool_]] = []
    runs: list[PlaneRun] = []
    is_late = False
    try:
        for plane in config.planes:
            images = SliceImages(volume, plane, chosen)
            given = _given_slices(initial_mask, volume, plane)
            run = PlaneRun(images, instruction, policy, segmenter, config, kept, on_one, deadline, given)
            runs.append(run)
            try:
                run.play()
            except OutOfTime:
                is_late = True
            votes.append(_on_grid(run, volume, plane))
            if is_late:
                break
        _finish(record, runs, votes, is_late)
    except (PolicyError, ToolError) as error:
        record.outcome, record.end_reason = Outcome.ERROR, "error"
        record.error = f"{type(error).__name__}: {error}"
    except InputError:  # a slice is damaged: nothing of the run stays
        kept.discard()
        raise
    finally:
        kept.close()
    record.seconds_total = time.perf_counter() - started
    return record


def _finish(record: VolumeEpisode, runs: list[PlaneRun], votes: list[NDArray[np.bool_]], is_late: bool) -> None:
    """Put the planes' masks together, and say how the run ended."""
    if is_late and len(votes) > 1:  # a plane that was broken off has no vote: it would take the others' masks away
        votes = votes[:-1]
    needed = len(votes) // 2 + 1
    mask = np.asarray(votes[0] if len(votes) == 1 else np.sum(votes, axis=0, dtype=np.uint8) >= needed)
    record.final_mask = VolumeMask.encode(mask)
    showing = [run for run in runs if run.outcome is not Outcome.ABSENT]
    record.end_reason = "max_seconds" if is_late else "terminate"
    if is_late:
        record.outcome = Outcome.OUT_OF_STEPS
        record.answer = "the time was over before the run was" + ("" if mask.any() else "; nothing is drawn yet")
    elif len(showing) < needed:
        record.outcome = Outcome.ABSENT
        looked = {(visit.plane, visit.index) for visit in record.visits if visit.kind == "scan"}
        said = f"the target never showed on {len(looked)} slices that were looked at"
        if not looked:  # a mask to refine: its broadest slices were shown, and nothing was scanned
            said = "the target was said not to be on the slices of the given mask that were looked at"
        record.answer = said if not showing else f"{said} in most planes"
        record.final_mask = VolumeMask.encode(np.zeros_like(mask))
    else:
        record.outcome, record.answer = showing[0].outcome, showing[0].answer
        if not mask.any():
            record.outcome, record.answer = Outcome.UNCERTAIN, "the planes' masks have nothing in common"
        elif record.outcome is Outcome.OUT_OF_STEPS:
            record.end_reason = "max_steps"


def _on_grid(run: PlaneRun, volume: Volume, plane: str) -> NDArray[np.bool_]:
    """The masks of a plane's slices on the source's grid, ``bool`` (ni, nj, nk)."""
    mask = np.zeros(volume.grid.shape, bool)
    for index, shown in run.masks.items():
        geometry = volume.grid.view(plane, index)
        place_slice(mask, mask_to_source(shown, geometry), geometry)
    return mask


def _given_slices(mask: NDArray[np.bool_] | None, volume: Volume, plane: str) -> dict[int, NDArray[np.bool_]] | None:
    """A given mask's slices on their displays, those without foreground left out."""
    if mask is None:
        return None
    shown = SliceTargets(mask, volume.grid)
    return {
        index: shown[f"{plane}:{index}"]
        for index in np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != volume.grid.view_axes(plane)[0])))
        .astype(int)
        .tolist()
    }


def _check_range(volume: Volume, config: VolumeConfig) -> None:
    first, last = config.first_slice, config.last_slice
    if first is None and last is None:
        return
    if len(config.planes) > 1:
        raise InputError("a range of slices goes with one plane; choose one, or leave the range out")
    plane = config.planes[0]
    for index in (first, last):
        if index is not None:
            volume.check_slice(plane, index)
    if first is not None and last is not None and first > last:
        raise InputError(f"the range of slices {first}:{last} is empty; write the lower number first")


def _new_record(
    volume: Volume,
    instruction: str,
    policy: Policy,
    segmenter: Segmenter,
    config: VolumeConfig,
    window: Window,
    case_id: str,
) -> VolumeEpisode:
    dialect = policy.dialect
    prompt = getattr(policy, "system_prompt", None)
    # What a DICOM folder is called is often whose it is.
    name = "" if volume.kind == "DICOM" else Path(volume.source).name.encode("utf-8", "replace").decode()
    plane = config.planes[0]
    middle = volume.image(plane, volume.check_slice(plane, None), window)
    grid = volume.grid.to_json()
    return VolumeEpisode(
        ibisagent_version=__version__,
        case_id=case_id,
        instruction=instruction,
        study=StudyRecord(
            source=name,
            sha256=hashlib.sha256(json.dumps([grid, middle.sha256]).encode()).hexdigest(),
            kind=volume.kind,
            modality=volume.modality,
            body_part=volume.body_part,
            grid=grid,
            has_world=volume.has_world,
            window=WindowRecord.of(window),
            notes=list(volume.notes),
        ),
        policy=PolicyRecord(
            name=policy.name,
            weights_sha256=policy.weights_sha256,
            dialect=dialect.name,
            action_kinds=sorted(dialect.kinds),
            system_prompt_sha256=text_hash(prompt if isinstance(prompt, str) else default_system_prompt(dialect)),
        ),
        segmenter=SegmenterRecord(name=segmenter.name, weights_sha256=segmenter.weights_sha256),
        config=config,
    )


def _identity(record: VolumeEpisode, initial_mask: NDArray[np.bool_] | None) -> dict[str, Any]:
    """What two starts of one run have in common; a time budget may be raised between them."""
    facts = record.model_dump(mode="json", include={"instruction", "study", "policy", "segmenter", "config"})
    facts["config"].pop("max_seconds")
    facts["ibisagent_version"] = record.ibisagent_version  # another version may decide otherwise on the same visits
    if initial_mask is not None:
        facts["initial_mask"] = pixel_hash(initial_mask)
    return facts

"""What a worker does: load the models once, then run study after study and write what comes out."""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.batch.folders import fill_folder, hold_folder
from ibisagent.batch.results import JOURNAL, OWNED, segment_label, write_image_results, write_volume_results
from ibisagent.errors import IbisError, InputError
from ibisagent.volume.config import VolumeConfig

if TYPE_CHECKING:
    from ibisagent.batch.study import Study
    from ibisagent.io.volume import Volume

__all__ = ["Job"]


@dataclass
class Job:
    """How studies are worked on. Picklable until it is loaded.

    Parameters
    ----------
    out
        Folder of the batch; a study's results go into a folder of its id.
    policy, segmenter, device
        See :mod:`ibisagent.registry`.
    config
        Budgets and switches; those of one slice serve 2-D images, too.
    formats
        As ``--format``; None is the source's own.
    window, modality
        Where a study does not say.
    options
        Further options of the policy's factory. They are no part of the record: one may be a key.
    threads
        Threads of models on the CPU; None leaves them as they are.
    """

    out: str
    policy: str = "nano"
    segmenter: str = "litemedsam"
    device: str = "cpu"
    config: VolumeConfig = field(default_factory=VolumeConfig)
    formats: str | None = None
    window: str | None = None
    modality: str | None = None
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    threads: int | None = None
    _models: tuple[Any, Any] | None = field(default=None, init=False, repr=False)

    def load(self) -> dict[str, Any]:
        """Load policy and segmenter, and say what results depend on.

        Raises
        ------
        InputError
            If one cannot be made, or the policy needs to see targets.
        """
        from ibisagent.evaluate.player import player_facts, set_threads
        from ibisagent.registry import SEES_TARGETS, make_segmenter, parse_spec, resolve_policy

        if parse_spec(self.policy)[0] in SEES_TARGETS:
            raise InputError(f"the policy '{self.policy}' sees targets, and a batch has none; choose another")
        policy = resolve_policy(self.policy, device=self.device, **self.options)
        segmenter = make_segmenter(self.segmenter, self.device)
        if self.threads is not None:
            set_threads(self.threads)
        self._models = policy, segmenter
        return player_facts(policy, segmenter)

    def do(self, study: Study) -> dict[str, Any]:
        """Run one study and write its folder; whatever happens to it is in the row that comes back.

        Returns
        -------
        dict
            ``outcome`` (of the run; ``failed`` if the study cannot be used), ``answer``, ``error``, ``files`` by kind
            (relative to the batch's folder), ``voxels``, ``volume_ml``, ``visits``, ``clicked_slices``, ``seconds``.
            What is not defined is None.
        """
        begun = time.monotonic()
        row: dict[str, Any] = dict.fromkeys(("answer", "error", "voxels", "volume_ml", "visits", "clicked_slices"))
        row["files"] = {}
        try:
            row.update(self._done(study))
        except InputError as error:
            row.update(outcome="failed", error=str(error))
        except Exception as error:  # one study's surprise must not end the batch
            if os.environ.get("IBISAGENT_DEBUG", "") not in ("", "0"):
                traceback.print_exc()
            known = isinstance(error, IbisError)
            row.update(outcome="error", error=str(error) if known else f"unexpected {type(error).__name__}: {error}")
        if row["error"]:
            row["error"] = " ".join(str(row["error"]).split())
        row["seconds"] = round(time.monotonic() - begun, 2)
        return row

    def _done(self, study: Study) -> dict[str, Any]:
        from ibisagent.io.studies import open_volume

        if self._models is None:
            self.load()
        if not study.instruction.strip():
            raise InputError("the instruction is empty")
        modality = study.modality or self.modality
        volume = open_volume(study.path, series=study.series, modality=modality)
        if volume is not None and study.slice is None and volume.grid.num_slices(self.config.planes[0]) > 1:
            return self._volume(study, volume)
        return self._image(study, volume, modality)

    def _volume(self, study: Study, volume: Volume) -> dict[str, Any]:
        from ibisagent.io.writers import chosen_formats
        from ibisagent.volume.segment import segment_volume
        from ibisagent.volume.shown import has_scale

        assert self._models is not None
        policy, segmenter = self._models
        formats, folder = chosen_formats(self.formats, volume), Path(self.out, study.id)
        with hold_folder(folder):
            result = segment_volume(
                volume,
                study.instruction,
                mask=study.mask,
                policy=policy,
                segmenter=segmenter,
                window=study.window or self.window,
                config=self.config,
                journal=folder / JOURNAL,
                case_id=study.id,
            )
            record = result.record
            label = segment_label(study.instruction, study.label, record.policy.name, record.segmenter.name)
            # a server that was away may be back for a --retry: what was done is kept then
            with fill_folder(folder, [*OWNED, *([] if record.is_unfinished else [JOURNAL])]) as scratch:
                files = write_volume_results(result, scratch, formats, label)
        voxels = None if result.mask is None else int(np.count_nonzero(result.mask))
        known = voxels is not None and has_scale(volume)
        return {
            "outcome": str(result.outcome),
            "answer": result.answer,
            "error": record.error,
            "voxels": voxels,
            "volume_ml": round((voxels or 0) * volume.grid.voxel_ml, 4) if known else None,
            "visits": len(record.visits),
            "clicked_slices": len(record.clicked_slices),
            "files": {kind: f"{study.id}/{name}" for kind, name in files.items()},
        }

    def _image(self, study: Study, volume: Volume | None, modality: str | None) -> dict[str, Any]:
        from ibisagent.batch.slices import read_slice, read_slice_mask
        from ibisagent.io.writers import chosen_formats
        from ibisagent.registry import wanted_windows
        from ibisagent.rle import decode_mask
        from ibisagent.rollout import run_episode
        from ibisagent.types import Case

        assert self._models is not None
        policy, segmenter = self._models
        formats, folder = chosen_formats(self.formats, volume), Path(self.out, study.id)
        window = study.window or self.window
        wanted = wanted_windows(policy)
        image = read_slice(
            study.path, volume, study.slice, window, modality, study.instruction, preferred_window=wanted
        )
        given = None if study.mask is None else read_slice_mask(study.mask, image, volume)
        config = self.config.rollout.model_copy(update={"max_seconds": self.config.max_seconds})
        episode = run_episode(Case(image, study.instruction, given, case_id=study.id), policy, segmenter, config)
        mask = decode_mask(episode.final_mask) if episode.final_mask is not None else None
        label = segment_label(study.instruction, study.label, episode.policy.name, episode.segmenter.name)
        with fill_folder(folder, OWNED) as scratch:
            files = write_image_results(episode, image, mask, scratch, formats, label, volume=volume)
        return {
            "outcome": str(episode.outcome),
            "answer": episode.answer,
            "error": episode.error,
            "voxels": None if mask is None else int(np.count_nonzero(mask)),
            "files": {kind: f"{study.id}/{name}" for kind, name in files.items()},
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": None}  # models do not travel

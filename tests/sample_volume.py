"""A small volume with a bright ball, and a record of a run on it, as the agent on volumes writes them."""

from __future__ import annotations

import numpy as np

from ibisagent.actions import Click, ClickAction, TerminateAction, Turn
from ibisagent.config import RolloutConfig
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode, Outcome, PolicyRecord, SegmenterRecord, WindowRecord
from ibisagent.geometry import pixel_to_norm
from ibisagent.grid import Grid
from ibisagent.io.volume import ArrayVoxels, Volume
from ibisagent.policies.protocol import Reply
from ibisagent.rle import encode_mask
from ibisagent.segmenters.fake import FakeSegmenter
from ibisagent.slices import mask_to_display, slice_axes
from ibisagent.types import Case, Image, Prediction, Window
from ibisagent.volume.config import VolumeConfig
from ibisagent.volume.record import StudyRecord, Visit, VolumeEpisode, VolumeMask

WINDOW = Window(-200.0, 300.0, "soft tissue")


def ball_volume(shape: tuple[int, int, int] = (40, 36, 14), *, source: str = "ball.nii.gz") -> Volume:
    """A CT with a body, a bright ball off its centre, and voxels of 2 x 2 x 5 mm that grow to L, P, S."""
    affine = ((-2.0, 0, 0, 40.0), (0, -2.0, 0, 36.0), (0, 0, 5.0, -30.0), (0, 0, 0, 1.0))
    values = np.full(shape, -1000, np.int16)
    i, j, _ = (2.0 * (a - n // 2) / n for a, n in zip(np.indices(shape), shape, strict=True))
    values[(i**2 + j**2) < 0.8] = 40
    values[(i**2 + j**2) < 0.6] += (np.random.default_rng(0).normal(0, 12, shape))[(i**2 + j**2) < 0.6].astype(np.int16)
    values[ball_mask(shape)] += 160
    return Volume(Grid(shape, affine), ArrayVoxels(values), source, "NIfTI", "CT", hounsfield=True)


def ball_mask(shape: tuple[int, int, int] = (40, 36, 14)) -> np.ndarray:
    """The ball, ``bool`` (ni, nj, nk)."""
    i, j, k = np.indices(shape)
    middle = (shape[0] * 0.62, shape[1] * 0.45, shape[2] * 0.55)
    return ((i - middle[0]) * 2) ** 2 + ((j - middle[1]) * 2) ** 2 + ((k - middle[2]) * 5) ** 2 < 14.0**2


def slice_episode(image: Image, mask: np.ndarray, instruction: str, thought: str = "It is bright here.") -> Episode:
    """A run of one click in a mask's middle (or of no click where there is none) and a stop."""
    env = SegmentationEnv(FakeSegmenter([Prediction(mask=mask, score=0.91)]), RolloutConfig(max_steps=4))
    env.reset(Case(image, instruction))
    rows, columns = np.nonzero(mask)
    if rows.size:
        middle = rows.size // 2
        click = Click(
            x=pixel_to_norm(int(columns[middle]), image.width),
            y=pixel_to_norm(int(rows[middle]), image.height),
            positive=True,
        )
        env.step(Reply(env.dialect.format(Turn(thought=thought, action=ClickAction(clicks=(click,))))))
    verdict = "found" if rows.size else "absent"
    stop = TerminateAction(verdict=verdict, answer="the ball")
    env.step(Reply(env.dialect.format(Turn(thought="That is all.", action=stop))))
    return env.episode


def volume_record(
    volume: Volume,
    mask: np.ndarray,
    *,
    instruction: str = "Segment the bright ball.",
    answer: str = "the ball lies left of the middle",
    thought: str = "It is bright here.",
    scan_slices: int = 4,
) -> VolumeEpisode:
    """A run that scans, works on the largest slice, carries its mask both ways, and asks again on the last one."""
    grid = volume.grid

    def shown(index: int) -> np.ndarray:
        geometry = grid.view("axial", index)
        return mask_to_display(np.take(mask, index, slice_axes(geometry)[0]), geometry, grid.view_size("axial"))

    visits, count = [], grid.num_slices("axial")
    for index in np.unique(np.linspace(0, count - 1, scan_slices).round().astype(int)).tolist():
        image = volume.image("axial", index, WINDOW)
        episode = slice_episode(image, shown(index), instruction, thought)
        drawn = encode_mask(shown(index)) if shown(index).any() else None
        visits.append(
            Visit(
                kind="scan",
                plane="axial",
                index=index,
                mask=drawn,
                is_absent=drawn is None,
                episode=episode,
                score=0.8 if drawn else None,
                accepted=False,
                seconds=0.2,
            )
        )
    areas = [int(shown(index).sum()) for index in range(count)]
    key = int(np.argmax(areas)) if any(areas) else None
    if key is not None:
        image = volume.image("axial", key, WINDOW)
        visits.append(
            Visit(
                kind="key",
                plane="axial",
                index=key,
                mask=encode_mask(shown(key)),
                score=0.91,
                seconds=0.6,
                note="the largest of the scanned masks lies here",
                episode=slice_episode(image, shown(key), instruction, thought),
            )
        )
        for step in (1, -1):
            index = key + step
            while 0 <= index < count and areas[index]:
                drawn = encode_mask(shown(index))
                last = not (0 <= index + step < count and areas[index + step])
                visits.append(
                    Visit(
                        kind="carry",
                        plane="axial",
                        index=index,
                        carried_from=index - step,
                        mask=drawn,
                        score=0.85,
                        agreement=0.4 if last else 0.9,
                        accepted=not last,
                        seconds=0.1,
                    )
                )
                if last:
                    image = volume.image("axial", index, WINDOW)
                    visits.append(
                        Visit(
                            kind="revisit",
                            plane="axial",
                            index=index,
                            mask=drawn,
                            score=0.88,
                            seconds=0.3,
                            note="agreement 0.40 is under 0.50: the policy is asked again",
                            episode=slice_episode(image, shown(index), instruction, thought),
                        )
                    )
                index += step
            if 0 <= index < count:
                visits.append(
                    Visit(
                        kind="carry",
                        plane="axial",
                        index=index,
                        carried_from=index - step,
                        mask=None,
                        is_absent=True,
                        accepted=False,
                        note="the carried mask vanished: the end",
                    )
                )
    return VolumeEpisode(
        instruction=instruction,
        study=StudyRecord(
            source="ball.nii.gz",
            sha256="0" * 64,
            kind=volume.kind,
            modality=volume.modality,
            grid=grid.to_json(),
            window=WindowRecord(low=WINDOW.low, high=WINDOW.high, name=WINDOW.name),
            notes=["the file has no qform; its sform counts"],
        ),
        policy=PolicyRecord(name="scripted"),
        segmenter=SegmenterRecord(name="fake"),
        config=VolumeConfig(scan_slices=scan_slices),
        visits=visits,
        outcome=Outcome.DONE if key is not None else Outcome.ABSENT,
        end_reason="done",
        answer=answer if key is not None else "no ball",
        final_mask=VolumeMask.encode(mask, axis=2),
        seconds_total=3.2,
    )

"""Replay: carry out a recorded episode's actions again and compare every mask."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from ibisagent.actions import BoxAction, ClickAction, DiscardAction, TerminateAction, UndoAction
from ibisagent.episode import Episode, Step
from ibisagent.errors import ActionError, InputError, ToolError
from ibisagent.geometry import Geometry
from ibisagent.rle import Rle, decode_mask, encode_mask
from ibisagent.segmenters.protocol import Segmenter
from ibisagent.segmenters.session import Session
from ibisagent.types import Image

__all__ = ["ReplayReport", "recorded_image", "replay", "with_image"]

MAX_PNG_BYTES = 2**24
"""Largest picture that is kept inside a record."""


@dataclass(frozen=True)
class ReplayReport:
    """What came out.

    Attributes
    ----------
    num_steps
        Recorded steps, invalid replies and Terminate included.
    num_matched
        Steps from the first on whose masks came out the same.
    first_mismatch
        Position of the first step whose mask differs, or None.
    num_pixels
        Pixels that differ there; None if one of the two masks does not exist.
    same_final
        Whether the final mask is that of the step which the record names for it (or the given or an empty one).
    same_image, same_segmenter
        Whether the image and the segmenter (name and weights) are the recorded ones.
    detail
        One line for people.
    """

    num_steps: int
    num_matched: int
    first_mismatch: int | None
    num_pixels: int | None
    same_final: bool
    same_image: bool
    same_segmenter: bool
    detail: str

    @property
    def matches(self) -> bool:
        """Whether every mask came out the same."""
        return self.first_mismatch is None and self.same_final


def with_image(episode: Episode, image: Image) -> Episode:
    """The episode with its image's pixels inside, so that it replays where the source is not at hand.

    A picture of more than :data:`MAX_PNG_BYTES` is left out.
    """
    from ibisagent.rendering.png import png_bytes

    data = png_bytes(image.pixels)
    if len(data) > MAX_PNG_BYTES:
        return episode
    record = episode.image.model_copy(update={"png": base64.b64encode(data).decode("ascii")})
    return episode.model_copy(update={"image": record})


def recorded_image(episode: Episode) -> Image | None:
    """The image inside a record; None if there is none, or it is not the one that was segmented."""
    record = episode.image
    if record.png is None:
        return None
    import PIL.Image

    try:
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(record.png, validate=True)), formats=("PNG",))
        if picture.size != (record.width, record.height):  # before anything of that size is allocated
            return None
        image = Image(np.array(picture.convert("RGB")), Geometry.plane_2d(), modality=record.modality)
    except Exception:  # a record is a file like any other: damaged base64, damaged PNG
        return None
    return image if image.sha256 == record.sha256 else None


def replay(episode: Episode, image: Image, segmenter: Segmenter) -> ReplayReport:
    """Re-run an episode's actions on `image` with `segmenter`.

    Another image of the same size, or other weights, are allowed and reported: to see what differs is
    the use of a replay.

    Raises
    ------
    InputError
        If the image has another size than the recorded one.
    ToolError
        If the segmenter fails at a step where it did not fail before.
    """
    if (image.width, image.height) != (episode.image.width, episode.image.height):
        raise InputError(
            f"the image is {image.width} x {image.height}, the episode's {episode.image.width} x {episode.image.height}"
        )
    same_image = image.sha256 == episode.image.sha256
    recorded = episode.segmenter
    same_segmenter = (segmenter.name, segmenter.weights_sha256) == (recorded.name, recorded.weights_sha256)
    initial = decode_mask(episode.initial_mask) if episode.initial_mask is not None else None
    mismatch, pixels, detail = None, None, ""
    if episode.steps:
        session = Session(segmenter, image, initial)
        for position, step in enumerate(episode.steps):
            detail = _carry_out(session, step)
            now = encode_mask(session.mask) if session.mask is not None else None
            if not detail and not step.failed and now != step.mask:
                pixels = _num_different(now, step.mask)
                detail = f"{pixels} pixels differ" if pixels is not None else "one of the two masks does not exist"
            if detail:
                mismatch = position
                break
    matched = len(episode.steps) if mismatch is None else mismatch
    same_final = _final_fits(episode)
    notes = [f"{matched} of {len(episode.steps)} steps gave the same mask"]
    if mismatch is not None:
        notes.append(f"step {mismatch}: {detail}")
    if not same_final:
        notes.append("the final mask is not the one of its step")
    if not same_image:
        notes.append("the image is not the recorded one")
    if not same_segmenter:
        notes.append("the segmenter or its weights are not the recorded ones")
    return ReplayReport(
        num_steps=len(episode.steps),
        num_matched=matched,
        first_mismatch=mismatch,
        num_pixels=pixels,
        same_final=same_final,
        same_image=same_image,
        same_segmenter=same_segmenter,
        detail="; ".join(notes),
    )


def _carry_out(session: Session, step: Step) -> str:
    """Do what the step did; in words where that went another way than recorded, else empty."""
    action = step.action
    if step.invalid is not None or action is None or isinstance(action, TerminateAction):
        return ""
    height, width = session.shape
    try:
        if isinstance(action, ClickAction):
            session.add_clicks([click.to_pixel(width, height) for click in action.clicks])
        elif isinstance(action, BoxAction):
            session.set_box(action.to_pixels(width, height))
        elif isinstance(action, UndoAction):
            session.undo()
        elif isinstance(action, DiscardAction):
            session.discard()
    except ActionError as error:
        return f"not carried out: {error.reason}"
    except ToolError:
        if step.failed:
            return ""
        raise
    return "the segmenter failed then and did not fail now" if step.failed else ""


def _final_fits(episode: Episode) -> bool:
    final, position = episode.final_mask, episode.final_step
    if final is None:
        return True
    if position is not None:
        return 0 <= position < len(episode.steps) and final == episode.steps[position].mask
    return final == episode.initial_mask or not decode_mask(final).any()


def _num_different(now: Rle | None, recorded: Rle | None) -> int | None:
    if now is None or recorded is None:
        return None
    return int(np.count_nonzero(decode_mask(now) != decode_mask(recorded)))

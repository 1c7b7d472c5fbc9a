"""What every promptable segmenter promises: encode once, prompt many; and what one with a memory for video adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ibisagent.types import Image, Prediction, Prompt

__all__ = ["Capabilities", "Segmenter", "Track", "VideoSegmenter", "video_segmenter"]


@dataclass(frozen=True)
class Capabilities:
    """Which prompts a segmenter understands; the environment offers no others to the policy."""

    clicks: bool
    negative_clicks: bool
    boxes: bool
    prior_mask: bool
    max_clicks: int | None = None
    video: bool = False
    """Whether it is a :class:`VideoSegmenter`: it can follow a target through a stack of images."""


@runtime_checkable
class Segmenter(Protocol):
    """A promptable segmenter.

    Attributes
    ----------
    name
        How ``--segmenter`` names it, for example ``"litemedsam"`` or ``"sam:/models/sam-b"``.
    capabilities
        The prompts it understands.
    weights_sha256
        Hash of its weights, or None if it has none (rule-based).
    """

    name: str
    capabilities: Capabilities
    weights_sha256: str | None

    def encode(self, image: Image) -> Any:
        """Compute what depends on the image alone. The result is opaque and reusable."""
        ...

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
        """Answer a batch of prompts on one embedding, in order.

        Raises
        ------
        ibisagent.errors.ToolError
            If it fails, or is asked something outside its capabilities.
        """
        ...


class Track(Protocol):
    """One target, followed through one stack of images by a segmenter's memory.

    The memory is one for the whole stack: what was prompted or carried on an image counts on the images that come
    after it, in either direction.
    """

    def prompt(self, index: int, prompt: Prompt) -> Prediction:
        """Say what the target is on one image; it may be said on several, and again on the same.

        Parameters
        ----------
        index
            Of the image in the stack. What was prompted or carried there before is forgotten.
        prompt
            Clicks and a box mean what they mean to :meth:`Segmenter.predict`. A prior without clicks or box is taken
            for the truth on this image; all false, it says that the target is not there. A prior with clicks or a
            box is refined by them first, as ``predict`` does, and the refined mask is taken for the truth.

        Raises
        ------
        ibisagent.errors.ToolError
            If there is no such image, the prompt is empty or outside the capabilities, or the segmenter fails; the
            track stays as it was.
        """
        ...

    def carry(self, start: int, *, reverse: bool = False) -> Iterator[tuple[int, Prediction]]:
        """Carry the target from one image to its neighbours, one after the other.

        Parameters
        ----------
        start
            Image to set out from: one that was prompted, or where an earlier run stopped.
        reverse
            Towards lower indices.

        Yields
        ------
        tuple of int and Prediction
            ``start + 1``, ``start + 2`` … to the end of the stack, or ``start - 1`` … to 0. An image is asked for
            when its turn comes, so that a caller who stops early reads no more. The mask is all false where the
            target is judged not to be; the score is None there. A prompted image on the way answers as its prompt
            did.

        Raises
        ------
        ibisagent.errors.ToolError
            If nothing was prompted yet, there is no such image, the images differ in size or the segmenter fails.
        """
        ...


@runtime_checkable
class VideoSegmenter(Segmenter, Protocol):
    """A segmenter that follows a target through neighbouring images; ``capabilities.video`` says so."""

    def track(self, images: Sequence[Image]) -> Track:
        """Begin to follow a target; nothing is read or computed yet.

        Parameters
        ----------
        images
            Neighbouring slices or frames of one size, in order. Only ``len`` and indexing are used, an image is asked
            for at most once a visit and not kept, so that a sequence may make its images on demand.
        """
        ...


def video_segmenter(segmenter: Segmenter) -> VideoSegmenter | None:
    """Return the segmenter as one that can :meth:`~VideoSegmenter.track`, or None if it declares no such thing."""
    return segmenter if segmenter.capabilities.video and isinstance(segmenter, VideoSegmenter) else None

"""The agent from Python: ``ibisagent.segment(image, "instruction")``. The command line calls the same."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from ibisagent.config import RolloutConfig
from ibisagent.episode import Episode, Outcome
from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.policies.protocol import Policy
from ibisagent.registry import make_segmenter, resolve_policy, wanted_windows
from ibisagent.rle import decode_mask
from ibisagent.rollout import OnStep, run_episode
from ibisagent.segmenters.protocol import Segmenter
from ibisagent.types import Case, Image, check_instruction
from ibisagent.volume.segment import VolumeSegmentation, segment_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    ImageLike = str | os.PathLike[str] | NDArray[np.uint8] | Image
    MaskLike = str | os.PathLike[str] | NDArray[Any]

__all__ = [
    "Segmentation", "VolumeSegmentation", "as_image", "as_mask", "resolve_policy", "segment", "segment_volume",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a run gives.

    Attributes
    ----------
    mask
        ``bool`` (H, W) on the image's grid; None if the run failed.
    episode
        The whole record.
    outcome
        How it ended.
    answer
        What the policy said at the end.
    image
        The image as the agent saw it.
    """

    mask: NDArray[np.bool_] | None
    episode: Episode
    outcome: Outcome
    answer: str
    image: Image


def segment(
    image: ImageLike,
    instruction: str,
    mask: MaskLike | None = None,
    policy: str | Policy = "nano",
    segmenter: str | Segmenter = "litemedsam",
    max_steps: int = 8,
    seed: int = 0,
    device: str = "cpu",
    *,
    target: MaskLike | None = None,
    slice_spec: str | None = None,
    window: str | None = None,
    modality: str | None = None,
    region: str | None = None,
    mpp: float | None = None,
    system_prompt: str | None = None,
    base_url: str | None = None,
    config: RolloutConfig | None = None,
    on_step: OnStep | None = None,
    case_id: str = "",
    target_name: str | None = None,
    **policy_options: Any,
) -> Segmentation:
    """Segment one image from a plain sentence.

    Parameters
    ----------
    image
        Path of a PNG, JPEG, TIFF, DICOM or NIfTI file; a ``uint8`` array (H, W) or (H, W, 3); an Image.
    instruction
        What to segment, in plain words.
    mask
        Mask to refine: a path, or a bool or 0/255 array (H, W).
    policy, segmenter
        A spec such as ``"vlm:/models/qwen"``, or an object that keeps the protocol (reuse one over many
        calls to load it once).
    max_steps, seed
        Budget and seed; `config` replaces both, and sets the other budgets.
    device
        Where models run.
    target
        Reference mask; only ``policy="oracle"`` may see one.
    slice_spec, window, modality, region, mpp
        How to read a volume or a slide; see :func:`ibisagent.io.read_image`.
    system_prompt, base_url
        For policies that take them.
    on_step
        Called after every step, for progress.
    case_id, target_name
        Names for the record.
    **policy_options
        Further options of the policy's factory.

    Raises
    ------
    InputError
        If something given cannot be used. A model that fails raises nothing: it is the outcome ``error``.
    """
    check_instruction(instruction)
    picture = as_image(
        image,
        slice_spec=slice_spec,
        window=window,
        modality=modality,
        region=region,
        mpp=mpp,
        target=instruction,
        preferred_window=wanted_windows(policy),
    )
    if target is not None and policy != "oracle":
        raise InputError("a target mask serves the policy 'oracle' alone")
    targets = {case_id: as_mask(target, picture)} if target is not None else None
    given = as_mask(mask, picture) if mask is not None else None
    case = Case(picture, instruction, given, case_id=case_id, target=target_name)
    player = (
        resolve_policy(
            policy, device=device, system_prompt=system_prompt, base_url=base_url, targets=targets, **policy_options
        )
        if isinstance(policy, str)
        else policy
    )
    tool = make_segmenter(segmenter, device) if isinstance(segmenter, str) else segmenter
    settings = config if config is not None else _config(max_steps, seed)
    episode = run_episode(case, player, tool, settings, progress=on_step)
    assert episode.outcome is not None
    final = decode_mask(episode.final_mask) if episode.final_mask is not None else None
    return Segmentation(final, episode, episode.outcome, episode.answer, picture)


def _config(max_steps: int, seed: int) -> RolloutConfig:
    try:
        return RolloutConfig(max_steps=max_steps, seed=seed)
    except ValidationError:
        raise InputError(f"max_steps must be at least 1 and seed at least 0, not {max_steps!r} and {seed!r}") from None


def as_image(
    image: ImageLike,
    *,
    slice_spec: str | None = None,
    window: str | None = None,
    modality: str | None = None,
    region: str | None = None,
    mpp: float | None = None,
    target: str | None = None,
    preferred_window: str | None = None,
) -> Image:
    """An Image from a path (read as :func:`ibisagent.io.read_image` does), a ``uint8`` array or an Image.

    Raises
    ------
    InputError
        If the file or the array is not an image.
    """
    if isinstance(image, Image):
        return image
    if isinstance(image, (str, os.PathLike)):
        from ibisagent.io import read_image

        return read_image(
            image,
            slice_spec=slice_spec,
            window=window,
            modality=modality,
            region=region,
            mpp=mpp,
            target=target,
            preferred_window=preferred_window,
        )
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise InputError(
            f"an image array must be uint8 (H, W) or (H, W, 3), not {array.dtype} {array.shape}: window it to 0..255"
        )
    pixels = np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array
    return Image(np.ascontiguousarray(pixels), Geometry.plane_2d(), modality=modality)


def as_mask(mask: MaskLike, image: Image) -> NDArray[np.bool_]:
    """A ``bool`` (H, W) mask on the image's grid, from a path or a bool, 0/1 or 0/255 array.

    Raises
    ------
    InputError
        If it cannot be read or does not fit.
    """
    if isinstance(mask, (str, os.PathLike)):
        from ibisagent.io import read_mask

        return read_mask(mask, image)
    array = np.asarray(mask)
    if array.shape != (image.height, image.width) or array.dtype.kind not in "bui":
        raise InputError(
            f"a mask array must be bool or integer of shape {(image.height, image.width)}, "
            f"not {array.dtype} {array.shape}"
        )
    return np.ascontiguousarray(array != 0)

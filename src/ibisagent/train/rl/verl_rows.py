"""Rows that ``ibisagent data convert --to verl`` wrote, as verl's ``RLHFDataset`` hands them to an agent loop."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.episode import Rle, decode_mask
from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.train.rl.prompts import RlPrompt
from ibisagent.types import Case, Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["prompt_of_row"]


def prompt_of_row(row: Mapping[str, Any]) -> RlPrompt:
    """The prompt of a row; the one that :class:`~ibisagent.train.rl.prompts.CorpusPrompts` gives for its origin.

    Parameters
    ----------
    row
        ``source_image`` (``{"bytes": PNG}``), ``extra_info`` and ``reward_model``; other columns are not looked at.

    Raises
    ------
    InputError
        If a column is missing or damaged, the row is a visual question, or the picture is not the one it names.
    """
    info = row.get("extra_info") or {}
    name = str(info.get("id") or "a row")
    try:
        truth = json.loads(row["reward_model"]["ground_truth"])
        if truth["kind"] != "mask":
            raise InputError(f"{name}: this loop plays segmentation; give visual questions to verl's single_turn_agent")
        png, said, given = row["source_image"]["bytes"], info["instruction"], info["initial_mask"]
        target = None if truth["mask"] is None else decode_mask(Rle.model_validate(truth["mask"]))
        initial = decode_mask(Rle.model_validate_json(given)) if given else None
        pixels = _pixels(png)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{name}: no row of 'ibisagent data convert --to verl' ({type(error).__name__}: {error})"
        ) from None
    spacing = info.get("spacing_mm")
    geometry = Geometry.plane_2d((float(spacing[0]), float(spacing[1])) if spacing else None)
    image = Image(pixels, geometry, info.get("modality"), source=info.get("sample") or "")
    if image.sha256 != info.get("image_id", image.sha256):
        raise InputError(f"{name}: its picture is not the one that it names; convert the corpus again")
    for what, mask in (("target", target), ("given mask", initial)):
        if mask is not None and mask.shape != (image.height, image.width):
            raise InputError(f"{name}: the {what} is not of the image's size; build the corpus again")
    case = Case(image, said, initial, case_id=name, target=info.get("target"), group=info.get("group"))
    return RlPrompt(case, target, name)


def _pixels(png: bytes) -> NDArray[np.uint8]:
    import PIL.Image

    return np.array(PIL.Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGB"))

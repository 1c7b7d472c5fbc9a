"""SAM and MedSAM through transformers' ``SamModel``."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from ibisagent.errors import InputError
from ibisagent.segmenters.preprocess import IMAGENET, MINMAX
from ibisagent.segmenters.pretrained import (
    load_model,
    model_folder,
    pick_device,
    read_normalisation,
    require,
    weights_hash,
)
from ibisagent.segmenters.prompting import PromptedSegmenter

if TYPE_CHECKING:
    import torch

__all__ = ["SamSegmenter", "make"]


class SamSegmenter(PromptedSegmenter):
    """A ``SamModel``: ViT encoder, prompt encoder, two-way mask decoder."""

    def _encode(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self._model.get_image_embeddings(pixel_values),)

    def _arrange(self, features: tuple[torch.Tensor, ...]) -> Any:
        return features[0]


def make(
    arg: str | None,
    device: str = "cpu",
    preprocessing: Literal["auto", "sam", "medsam"] = "auto",
    batch_size: int = 16,
) -> SamSegmenter:
    """Load SAM or MedSAM.

    Parameters
    ----------
    arg
        Folder written by transformers, or hub id (``facebook/sam-vit-base``, ``wanglab/medsam-vit-base``).
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``.
    preprocessing
        ``"sam"``: aspect ratio kept, padded, ImageNet mean and deviation (or the folder's own).
        ``"medsam"``: stretched to the square and to 0..1 by the image's extremes, as MedSAM was
        trained. ``"auto"``: ``"medsam"`` where the last part of ``arg`` contains that word.
    batch_size
        Most prompts decoded at once.

    Raises
    ------
    ibisagent.errors.MissingExtraError
        If torch or transformers is not installed.
    ibisagent.errors.InputError
        If the model, the device or an option cannot be used.
    """
    require("sam")
    arg = arg or ""  # a spec without a colon, for which the search below has a message
    if preprocessing not in ("auto", "sam", "medsam"):
        raise InputError(f"preprocessing must be auto, sam or medsam, not {preprocessing!r}")
    chosen = pick_device(device)
    folder = model_folder(arg, "sam")
    model = load_model("SamModel", folder, frozenset({"sam"}))
    medsam = preprocessing == "medsam" or (preprocessing == "auto" and "medsam" in PurePath(arg).name.lower())
    return SamSegmenter(
        model,
        name=f"sam:{arg}",
        weights_sha256=weights_hash(folder),
        layout="stretch" if medsam else "pad",
        normalisation=MINMAX if medsam else read_normalisation(folder, IMAGENET),
        device=chosen,
        batch_size=batch_size,
    )

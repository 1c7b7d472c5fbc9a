"""A frozen vision tower looks at every picture once an update.

Siblings begin with the same picture, and what acted is scored again by the update and by the reference: all of them
ask one and the same tower, whose weights do not change, for the same features.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ibisagent.policies.nano_model import NanoForConditionalGeneration

__all__ = ["remember_vision"]

_Seen = tuple[Tensor, list[Tensor]]


def remember_vision(model: NanoForConditionalGeneration, most: int = 1024) -> bool:
    """Let NanoVLM's vision tower keep what it computed, if nothing of the tower is trained.

    Copies of the model made afterwards share the memory. An image's features take 0.8 MB in bfloat16.

    Parameters
    ----------
    model
        Changed in place; its state dict and its outputs are as before.
    most
        Images to remember; the ones not asked for the longest are forgotten.

    Returns
    -------
    bool
        Whether the tower is frozen; otherwise nothing was changed.
    """
    tower = model.vision
    if any(parameter.requires_grad for parameter in tower.parameters()):
        return False
    look = tower.forward
    known: OrderedDict[tuple[bytes, bool], _Seen] = OrderedDict()

    def forward(pixels: Tensor) -> _Seen:
        """(N, 3, S, S) pixels -> as the tower itself gives."""
        low = torch.is_autocast_enabled(pixels.device.type)
        keys = [(_digest(image), low) for image in pixels]
        missing = list(dict.fromkeys(key for key in keys if key not in known))
        if missing:
            with torch.no_grad():
                tokens, features = look(pixels[[keys.index(key) for key in missing]])
            for place, key in enumerate(missing):
                known[key] = tokens[place].clone(), [level[place].clone() for level in features]
        found = []
        for key in keys:
            known.move_to_end(key)
            found.append(known[key])
        while len(known) > most:
            known.popitem(last=False)
        levels = [torch.stack(level) for level in zip(*(features for _, features in found), strict=True)]
        return torch.stack([tokens for tokens, _ in found]), levels

    tower.forward = forward  # type: ignore[method-assign]
    return True


def _digest(image: Any) -> bytes:
    return hashlib.blake2b(image.detach().float().cpu().contiguous().numpy().tobytes(), digest_size=16).digest()

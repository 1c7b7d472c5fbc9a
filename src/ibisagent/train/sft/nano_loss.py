"""NanoVLM's loss, computed at learnt tokens only: its scores of all coordinates at all tokens would fill the memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ibisagent.train.sft.collator import IGNORED

__all__ = ["nano_loss"]


def nano_loss(model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Negative log-likelihood of the learnt tokens, as a sum.

    A coordinate's probability is that of the word "coordinate" times that of the cell.

    Parameters
    ----------
    model
        NanoVLM, with or without wrappers (DDP, peft).
    inputs
        A batch; every learnt token must follow an image.

    Returns
    -------
    loss, right, entropy
        Scalars: the sum; how many tokens were the likeliest; the sum of the words' entropies.
    """
    core = getattr(model, "module", model)
    core = core.get_base_model() if hasattr(core, "get_base_model") else core
    config = core.config
    labels = inputs["labels"]
    out = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        pixel_values=inputs.get("pixel_values"),
        return_states=True,
        use_cache=False,
    )
    row, column = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    goal, hidden = labels[:, 1:][row, column], out.hidden[row, column]
    if out.image_of is None:
        words = core.base_logits(hidden).float().log_softmax(-1)
        image = None
    else:
        image = out.image_of[row, column]
        words = core.base_logits(hidden, out.pooled[image]).float().log_softmax(-1)
    is_cell = goal >= config.vocab_size
    word = torch.where(is_cell, config.coordinate_token_id, goal)
    loss = F.nll_loss(words, word, reduction="sum")
    hit = words.argmax(-1) == word
    with torch.no_grad():
        entropy = -(words.exp() * words).sum()
    if bool(is_cell.any()) and image is not None:
        at = is_cell.nonzero()[:, 0]
        cells = core.pointer.score(hidden[at], out.pointer_keys[image[at]], out.belief[image[at]]).float()
        cells = cells.log_softmax(-1)
        cell = goal[at] - config.vocab_size
        loss = loss + F.nll_loss(cells, cell, reduction="sum")
        hit = hit.index_put((at,), hit[at] & (cells.argmax(-1) == cell))
    return loss, hit.sum(), entropy

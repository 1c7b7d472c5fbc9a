"""Operations (a multiplication and an addition are two) of forward and backward passes.

A matrix of ``n`` weights costs ``2 n`` a token forward. Backward, the gradient of its input costs as much again, and
of its weights once more if they are trained: 3 x forward in all (Kaplan et al. 2020, arXiv 2001.08361, "6 N"), 2 x
for frozen weights through which a gradient passes, 1 x where none passes (a frozen tower before everything trained).
Attention of a token over a context of ``s`` costs ``4 s q`` a layer (scores and weighted sum; ``q`` = heads x head
size; Chowdhery et al. 2022, arXiv 2204.02311, appendix B), 2 x that backward; a causal kernel that skips hidden
blocks needs half. Checkpointing adds one more forward pass of the layers. Norms, rotations and activations are left
out (< 1 %).

The tests compare these with ``torch.utils.flop_counter.FlopCounterMode`` on the real classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibisagent.train.plan.images import ImageSize
from ibisagent.train.plan.models import ModelSizes

__all__ = ["Passes", "attention_flops", "decode_flops", "head_flops", "linear_flops", "train_flops", "vision_flops"]


def linear_flops(sizes: ModelSizes) -> float:
    """Forward operations per token in the matrices of all layers of the language model, attention and head apart."""
    return 2.0 * sizes.layers * sum(linear.num_weights for linear in sizes.linears)


def head_flops(sizes: ModelSizes) -> float:
    """Forward operations per scored token in the output head."""
    return 2.0 * sizes.hidden * sizes.vocabulary


def attention_flops(sizes: ModelSizes, tokens: float, *, skips: bool = True) -> float:
    """Forward operations of causal self-attention over a sequence of `tokens`, all layers."""
    return 4.0 * sizes.layers * sizes.query_width * tokens**2 * (0.5 if skips else 1.0)


def vision_flops(sizes: ModelSizes, image: ImageSize) -> float:
    """Forward operations of the vision tower on one image."""
    merger = 2.0 * sizes.vision_mergers * _merger_weights(sizes) * image.tokens
    return _blocks_flops(sizes, image) + merger + _patch_flops(sizes, image)


def _blocks_flops(sizes: ModelSizes, image: ImageSize) -> float:
    blocks = sizes.vision_depth
    linear = 2.0 * blocks * sum(part.num_weights for part in sizes.vision_linears) * image.patches
    pairs = sizes.full_blocks * image.patches**2 + (blocks - sizes.full_blocks) * image.window_pairs
    return linear + 4.0 * sizes.vision_hidden * pairs


def _patch_flops(sizes: ModelSizes, image: ImageSize) -> float:
    return 2.0 * sizes.patch_inputs * sizes.vision_hidden * image.patches


def _merger_weights(sizes: ModelSizes) -> float:
    wide = sizes.vision_hidden * sizes.merge**2
    return wide * wide + wide * sizes.vision_out


@dataclass(frozen=True)
class Passes:
    """Operations of one training step on one sequence, parts apart; `again` is what checkpointing adds."""

    text: float
    vision: float
    head: float
    again: float

    @property
    def model(self) -> float:
        """What the mathematics needs: the numerator of MFU."""
        return self.text + self.vision + self.head

    @property
    def total(self) -> float:
        """What is carried out."""
        return self.model + self.again


def train_flops(
    sizes: ModelSizes,
    *,
    tokens: float,
    scored: float,
    images: float,
    image: ImageSize,
    weights: bool,
    vision: bool,
    checkpointing: bool,
    tower_graph: bool = False,
    num_adapter: int = 0,
    skips: bool = True,
) -> Passes:
    """Operations of a forward and a backward pass over one sequence.

    Parameters
    ----------
    sizes
        The model.
    tokens, scored
        Tokens of the sequence, and those with logits.
    images, image
        Number of images and the size of one.
    weights, vision
        Whether the language model's weights and the vision tower are trained.
    checkpointing
        Whether layers are computed again.
    tower_graph
        Whether checkpointing goes back through a frozen tower.
    num_adapter
        Parameters of the adapters; 0 for none.
    skips
        Whether attention skips what the mask hides.
    """
    linear = linear_flops(sizes) * tokens
    adapter = 2.0 * num_adapter * tokens
    attention = attention_flops(sizes, tokens, skips=skips)
    seen = vision_flops(sizes, image) * images
    text = linear * (3 if weights else 2) + 3 * adapter + 3 * attention
    again = 0.0
    if checkpointing:
        again = linear + adapter + attention
        if weights:  # recomputation stops at the last value that is needed, which is the last matrix's input
            again -= 2.0 * sizes.layers * sizes.linears[-1].num_weights * tokens
        last = 2.0 * sizes.vision_depth * sizes.vision_linears[-1].num_weights * image.patches
        if vision:
            again += images * (_blocks_flops(sizes, image) - last)
        elif tower_graph:
            again += images * _blocks_flops(sizes, image) + seen  # computed again, and gradients of inputs, for nothing
    head = head_flops(sizes) * scored * (3 if weights else 2)
    # Pixels need no gradient, so the patch embedding has only its weights'.
    tower = seen * 3 - _patch_flops(sizes, image) * images if vision else seen
    return Passes(text, tower, head, again)


def decode_flops(sizes: ModelSizes, context: float) -> float:
    """Operations of writing one token after `context` others."""
    return linear_flops(sizes) + head_flops(sizes) + 4.0 * sizes.layers * sizes.query_width * context

"""Bytes that autograd keeps for the backward pass, derived operation by operation from transformers' classes.

Notation: ``c`` bytes of the computing dtype, ``f`` = 4 bytes (fp32), ``h`` hidden, ``q`` = heads x head size, ``k`` =
key-value heads x head size, ``i`` intermediate, all per token and layer. What each operation saves:

==================  =========================================================================================
RMSNorm             its input in fp32 ``f h`` and 1/rms ``f``; if its weight is trained also the normalised ``c h``
q, k, v             their shared input ``c h`` (for the weights' gradients, or for LoRA's A)
q- and k-norm       Qwen3 only: ``(f + c)(q + k)`` and ``f`` a head
rotation            nothing of its own: cosines and sines are shared by all layers
attention           rotated q and k, v, output ``c (2 q + 2 k)`` and log-sum-exp ``f`` a head; no s x s matrix
                    (flash or memory-efficient kernel, no padding, so grouped keys are not expanded)
o                   its input is the attention's output: shared
gate, up            their shared input ``c h``
SwiGLU, down        gate, silu(gate), up and their product: ``4 c i``
==================  =========================================================================================

The vision blocks differ: one matrix gives q, k, v, whose whole output stays alive behind v (``3 c h``) beside rotated
q and k (``2 c h``); the attention's output is saved once by each window and once when joined (``2 c h``); Qwen3-VL has
LayerNorm (input ``c h`` and two statistics) and a plain MLP with GELU (``2 c i``).

A frozen matrix needs no input saved, but LoRA's A on it does. With fp32 adapters under bf16 autocast peft casts the
input for each adapter apart, and each copy is kept: ``c (5 h + q)`` in place of the two shared ``c h``.

With checkpointing each layer keeps its input, ``c h``, and one layer at a time is computed again. transformers'
``gradient_checkpointing_enable`` also makes the output of the embeddings require gradients, the patch embedding's of
Qwen2.5-VL's tower too, even if it is frozen: its blocks then keep their inputs, are computed again and gone back
through for nothing, until ``model.disable_input_require_grads()`` is called (only reentrant checkpointing needs those
gradients; call it before peft wraps the model, and after: peft hangs up hooks of its own). ``tower_graph`` is that
case.

The tests compare these formulas with ``torch.autograd.graph.saved_tensors_hooks`` on the real classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibisagent.train.plan.models import ModelSizes

__all__ = ["Activations", "Kept", "activations", "layer_bytes", "logit_bytes", "vision_block_bytes"]

FP32 = 4


@dataclass(frozen=True)
class Kept:
    """What is trained, as far as it decides what must be kept.

    Parameters
    ----------
    compute_bytes
        Bytes of an activation: 2 for bf16.
    weights
        Whether the language model's own weights are trained; if not, adapters are.
    adapter_rank
        Rank of the LoRA; 0 for none.
    adapter_copies
        Whether every adapter keeps a cast copy of its input (adapters in fp32 under bf16 autocast).
    vision
        Whether the vision tower is trained.
    checkpointing
        Whether only the inputs of layers are kept.
    tower_graph
        Whether a frozen tower is gone back through all the same (see above).
    """

    compute_bytes: int = 2
    weights: bool = True
    adapter_rank: int = 0
    adapter_copies: bool = False
    vision: bool = False
    checkpointing: bool = True
    tower_graph: bool = False


@dataclass(frozen=True)
class Activations:
    """Bytes of one forward and backward pass, parts apart."""

    text: float
    """Kept by the language model's layers."""
    vision: float
    """Kept by the vision tower; 0 where it is frozen."""
    ends: float
    """Embeddings, final norm, inputs of the head."""
    logits: float
    """Logits and what their loss makes of them, at its peak."""
    working: float
    """With checkpointing one layer computed again; and gradients of the layer under way."""
    tower: float
    """The same of the vision tower, a frozen one's forward pass included."""

    @property
    def peak(self) -> float:
        """The largest of three moments: the loss, the last layer's backward pass, a vision block's."""
        return max(self.text + self.vision + self.ends + max(self.logits, self.working), self.vision + self.tower)


def layer_bytes(sizes: ModelSizes, kept: Kept) -> float:
    """Bytes per token that one layer of the language model keeps without checkpointing."""
    c, h, q, k, i = kept.compute_bytes, sizes.hidden, sizes.query_width, sizes.kv_width, sizes.intermediate
    scaled = c if kept.weights else 0  # the normalised values, for the gradient of the norm's weight
    norms = 2 * ((FP32 + scaled) * h + FP32)
    if sizes.query_key_norm:
        norms += (FP32 + scaled) * (q + k) + FP32 * (sizes.heads + sizes.kv_heads)
    attention = c * (2 * q + 2 * k) + FP32 * sizes.heads
    total = norms + attention + 4 * c * i
    if kept.adapter_copies:
        total += c * (5 * h + q)
    else:
        total += 2 * c * h  # inputs of q, k, v and of gate, up
    return total + c * kept.adapter_rank * len(sizes.linears)


def vision_block_bytes(sizes: ModelSizes, compute_bytes: int) -> float:
    """Bytes per patch that one trained block of the vision tower keeps without checkpointing."""
    c, h, i = compute_bytes, sizes.vision_hidden, sizes.vision_intermediate
    if sizes.vision_layer_norm:
        norms = 2 * (c * h + 2 * c)
    else:
        norms = 2 * ((FP32 + c) * h + FP32)
    inputs = 2 * c * h
    attention = c * 7 * h + FP32 * sizes.vision_heads
    return norms + inputs + attention + (4 if sizes.vision_gated else 2) * c * i


def merger_bytes(sizes: ModelSizes, compute_bytes: int) -> float:
    """Bytes per patch that the merger (all of them, for Qwen3-VL) and the patch embedding keep when trained."""
    c, h = compute_bytes, sizes.vision_hidden
    norm = c * h + c * 2 if sizes.vision_layer_norm else (FP32 + c) * h + FP32
    return c * sizes.patch_inputs + sizes.vision_mergers * (norm + 3 * c * h)


def logit_bytes(sizes: ModelSizes, tokens: float, compute_bytes: int) -> float:
    """Peak bytes of the loss over `tokens` scored tokens.

    The logits (kept by the model's output), and in fp32 the log-softmax, its gradient and the gradient it comes from.
    """
    return tokens * sizes.vocabulary * (compute_bytes + 3 * FP32)


def activations(sizes: ModelSizes, kept: Kept, tokens: float, patches: float, scored: float) -> Activations:
    """Bytes for a micro batch of `tokens` tokens and `patches` patches, with `scored` of its tokens scored.

    Parameters
    ----------
    sizes
        The model.
    kept
        What is trained and whether layers are checkpointed.
    tokens, patches
        All of the micro batch.
    scored
        Tokens with logits.
    """
    c = kept.compute_bytes
    layer = layer_bytes(sizes, kept) * tokens
    block = vision_block_bytes(sizes, c) * patches
    seen = kept.vision or (kept.tower_graph and kept.checkpointing)
    working = _under_way(sizes.hidden, sizes.intermediate, c) * tokens
    if kept.checkpointing:
        text = c * sizes.hidden * sizes.layers * tokens
        vision = c * sizes.vision_hidden * sizes.vision_depth * patches if seen else 0.0
        working += layer
    else:
        text = layer * sizes.layers
        vision = block * sizes.vision_depth if seen else 0.0
    if kept.vision:
        vision += merger_bytes(sizes, c) * patches
    # At the tower's turn the language model's part is gone already (backward) or not there yet (forward).
    tower = (block if kept.checkpointing or not seen else 0.0) + patches * _under_way(
        sizes.vision_hidden, sizes.vision_intermediate, c
    )
    ends = FP32 * sizes.hidden * tokens  # the final norm; frozen, it and the head keep no more
    if kept.weights:
        ends += c * sizes.hidden * (tokens + scored)
    return Activations(text, vision, ends, logit_bytes(sizes, scored, c), working, tower)


def _under_way(hidden: int, intermediate: int, compute_bytes: int) -> float:
    """Bytes per row of a layer's backward pass beyond what was kept, at its peak.

    That is in the MLP: gradients of two of the wide values, the layer's output and its gradient, the normalised
    input's, and the residual stream's two.
    """
    return compute_bytes * (2 * intermediate + 5 * hidden)

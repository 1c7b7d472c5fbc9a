"""The models that can be planned for: published configurations, and sizes counted on the real classes.

No weights are read: transformers builds the class on torch's meta device, where a tensor has a shape and no memory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ibisagent.errors import InputError

__all__ = ["PUBLISHED", "Linear", "ModelSizes", "load_config", "measure_model", "model_sizes"]


def _qwen2_5_vl(text: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    """Qwen2.5-VL: all sizes share a vision tower but for its last width."""
    return {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": tied,
        "text_config": {
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1000000.0},
            "tie_word_embeddings": tied,
            **text,
        },
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "out_hidden_size": text["hidden_size"],
        },
    }


def _qwen3_vl(text: dict[str, Any], vision: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": tied,
        "text_config": {
            "vocab_size": 151936,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_theta": 5000000.0,
            },
            "tie_word_embeddings": tied,
            **text,
        },
        "vision_config": {
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": text["hidden_size"],
            **vision,
        },
    }


_QWEN2_5_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
_QWEN2_5_3B = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
}
_VISION_8B = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]}
_VISION_4B = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}

PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen2.5-vl-7b": _qwen2_5_vl(_QWEN2_5_7B, tied=False),
    "qwen2.5-vl-3b": _qwen2_5_vl(_QWEN2_5_3B, tied=True),
    "qwen3-vl-8b": _qwen3_vl({"hidden_size": 4096, "intermediate_size": 12288}, _VISION_8B, tied=False),
    "qwen3-vl-4b": _qwen3_vl({"hidden_size": 2560, "intermediate_size": 9728}, _VISION_4B, tied=True),
}
"""The size-giving entries of the published ``config.json`` files, by short name."""


@dataclass(frozen=True)
class Linear:
    """A weight matrix of the class: name inside its block, inputs, outputs."""

    name: str
    num_in: int
    num_out: int

    @property
    def num_weights(self) -> int:
        """Entries of the matrix."""
        return self.num_in * self.num_out


@dataclass(frozen=True)
class ModelSizes:
    """What the formulas need of a model, all of it read from the built class or its configuration.

    Text sizes have no prefix, the vision tower's begin with ``vision_``. Linears are those of one layer or block.
    """

    name: str
    class_name: str
    num_parameters: int
    num_vision: int
    num_embedding: int
    num_head: int
    """Weights of the output head of its own; 0 where it is the embedding's."""
    num_largest_unit: int
    """Parameters of the largest layer, embedding or head: what FSDP gathers at once."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    query_key_norm: bool
    linears: tuple[Linear, ...]
    vision_depth: int
    vision_hidden: int
    vision_intermediate: int
    vision_heads: int
    vision_out: int
    vision_gated: bool
    vision_layer_norm: bool
    vision_linears: tuple[Linear, ...]
    vision_mergers: int
    patch: int
    temporal_patch: int
    merge: int
    window: int
    """Side of an attention window in pixels; 0 where every block attends to the whole image."""
    full_blocks: int
    """Vision blocks that attend to the whole image."""
    vision_hooked: bool
    """Whether transformers' checkpointing makes the tower's first values require gradients, frozen or not."""

    @property
    def query_width(self) -> int:
        """Channels of all queries."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Channels of all keys, and of all values."""
        return self.kv_heads * self.head_dim

    @property
    def num_text(self) -> int:
        """Parameters of the language model, its embedding and head included."""
        return self.num_parameters - self.num_vision

    @property
    def patch_inputs(self) -> int:
        """Numbers of a patch: colours x frames x pixels."""
        return 3 * self.temporal_patch * self.patch**2

    def num_lora(self, rank: int, *, vision: bool = False) -> int:
        """Parameters of a LoRA of `rank` on every linear layer of the blocks (not head, embedding, mergers)."""
        text = self.layers * sum(rank * (linear.num_in + linear.num_out) for linear in self.linears)
        seen = self.vision_depth * sum(rank * (linear.num_in + linear.num_out) for linear in self.vision_linears)
        return text + (seen if vision else 0)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


def load_config(name_or_folder: str | Path) -> Any:
    """The transformers configuration of a published model, or of a folder with a ``config.json``.

    Raises
    ------
    InputError
        If it is neither, or no model that can be planned for.
    """
    from transformers import AutoConfig

    name = str(name_or_folder)
    path = Path(name).expanduser()
    if name.lower() in PUBLISHED:
        values = dict(PUBLISHED[name.lower()])
    elif (path / "config.json").is_file():
        try:
            values = json.loads((path / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path / 'config.json'} is not JSON: {error}") from None
    else:
        raise InputError(f"'{name}' is no folder with a config.json and none of {', '.join(PUBLISHED)}")
    kind = values.pop("model_type", None) if isinstance(values, dict) else None
    if kind not in ("qwen2_5_vl", "qwen3_vl"):
        raise InputError(f"the plan's formulas hold for qwen2_5_vl and qwen3_vl, not for '{kind}'")
    return AutoConfig.for_model(kind, **values)


def model_sizes(name_or_folder: str | Path) -> ModelSizes:
    """The sizes of a published model or of a folder's, counted on the class built on the meta device."""
    import torch
    from transformers import AutoModelForImageTextToText

    config = load_config(name_or_folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return measure_model(model, Path(str(name_or_folder)).name.lower())


def measure_model(model: Any, name: str) -> ModelSizes:
    """Read the sizes off a built Qwen2.5-VL or Qwen3-VL, on any device."""
    from torch import nn

    text, vision = model.config.get_text_config(), model.config.vision_config
    language, tower = model.model.language_model, model.model.visual
    layer, block = language.layers[0], tower.blocks[0]
    embedding = language.embed_tokens.weight.numel()
    head = 0 if model.lm_head.weight is language.embed_tokens.weight else model.lm_head.weight.numel()
    full = getattr(vision, "fullatt_block_indexes", None)
    return ModelSizes(
        name=name,
        class_name=type(model).__name__,
        num_parameters=_count(model),
        num_vision=_count(tower),
        num_embedding=embedding,
        num_head=head,
        num_largest_unit=max(_count(layer), embedding, head),
        layers=len(language.layers),
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocabulary=text.vocab_size,
        query_key_norm=hasattr(layer.self_attn, "q_norm"),
        linears=_linears(layer),
        vision_depth=len(tower.blocks),
        vision_hidden=vision.hidden_size,
        vision_intermediate=vision.intermediate_size,
        vision_heads=vision.num_heads,
        vision_out=vision.out_hidden_size,
        vision_gated=hasattr(block.mlp, "gate_proj"),
        vision_layer_norm=isinstance(block.norm1, nn.LayerNorm),
        vision_linears=_linears(block),
        vision_mergers=1 + len(getattr(tower, "deepstack_merger_list", ())),
        patch=vision.patch_size,
        temporal_patch=vision.temporal_patch_size,
        merge=vision.spatial_merge_size,
        window=vision.window_size if full is not None else 0,
        full_blocks=len(full) if full is not None else len(tower.blocks),
        vision_hooked=_has_embeddings(tower),
    )


def _has_embeddings(tower: Any) -> bool:
    """As transformers' ``enable_input_require_grads`` asks it (Qwen2.5-VL has them, Qwen3-VL has not)."""
    try:
        return tower.get_input_embeddings() is not None
    except NotImplementedError:
        return False


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _linears(module: Any) -> tuple[Linear, ...]:
    from torch import nn

    found = ((name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear))
    return tuple(Linear(name, part.in_features, part.out_features) for name, part in found)

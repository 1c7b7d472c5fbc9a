"""NanoVLM: a 6.1 M-parameter image-text-to-text model, trained by ``ibisagent train nano``.

A convolutional vision tower gives 8 x 8 tokens an image to a small Llama; text comes out. It reads
and writes plain text like any chat model: its vocabulary merely contains the strings of a 64 x 64
grid of coordinates (``"0.5078, 0.2578"``) as single entries.

The output layer of those entries is tied to the picture instead of to a table: the score of a
coordinate is the product of the language state with a feature map of the last image at that
place (a pointer network, Vinyals et al. 2015). The map mixes the tower's fine features with the
language model's states at the image's tokens, so it knows what was asked. It yields words, never a
mask.

Loaded through ``AutoModelForImageTextToText`` and ``AutoProcessor`` after :func:`register`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationMixin,
    LlamaConfig,
    LlamaModel,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from ibisagent.policies.nano_processor import NanoProcessor, load_processor
from ibisagent.policies.processors import BUILDERS

__all__ = ["NanoConfig", "NanoForConditionalGeneration", "NanoOutput", "NanoProcessor", "load_processor", "register"]


class NanoConfig(PretrainedConfig):
    """Sizes of a NanoVLM.

    Parameters
    ----------
    vocab_size
        Entries of the plain vocabulary; the coordinates follow it.
    grid
        Cells a side of the coordinate vocabulary (``grid * grid`` entries).
    image_tokens_side
        Tokens a side that an image becomes.

    Notes
    -----
    The tower's strides bind three of the sizes: ``image_size == 32 * image_tokens_side`` and
    ``grid == 8 * image_tokens_side``. The rest are widths and depths of the two towers.
    """

    model_type = "ibis_nano"

    def __init__(
        self,
        vocab_size: int = 1024,
        hidden_size: int = 256,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 4,
        intermediate_size: int = 640,
        max_position_embeddings: int = 4096,
        image_size: int = 256,
        grid: int = 64,
        image_tokens_side: int = 8,
        key_size: int = 96,
        image_token_id: int = 3,
        coordinate_token_id: int = 4,
        vision_widths: tuple[int, ...] = (32, 64, 96, 160, 256),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.image_size = image_size
        self.grid = grid
        self.image_tokens_side = image_tokens_side
        self.key_size = key_size
        self.image_token_id = image_token_id
        self.coordinate_token_id = coordinate_token_id
        self.vision_widths = list(vision_widths)
        self.dropout = dropout
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)


def _conv(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.a = _conv(c, c)
        self.b = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.b(self.a(x)))


class _Vision(nn.Module):
    """(N, 3, S, S) -> features at strides 4, 8, 16 and tokens at stride 32."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        w = config.vision_widths
        self.stages = nn.ModuleList(
            [
                nn.Sequential(_conv(3, w[0], 2)),
                nn.Sequential(_conv(w[0], w[1], 2), _Residual(w[1])),
                nn.Sequential(_conv(w[1], w[2], 2), _Residual(w[2])),
                nn.Sequential(_conv(w[2], w[3], 2), _Residual(w[3])),
                nn.Sequential(_conv(w[3], w[4], 2)),
            ]
        )
        n = config.image_tokens_side
        self.position = nn.Parameter(torch.randn(1, n * n, w[4]) * 0.02)
        self.mixer = nn.TransformerEncoderLayer(w[4], 4, 2 * w[4], 0.0, "gelu", batch_first=True, norm_first=True)
        self.out = nn.Linear(w[4], config.hidden_size)

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        x = pixels
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        tokens = self.mixer(x.flatten(2).transpose(1, 2) + self.position)
        return self.out(tokens), features[1:4]


def pool(keys: Tensor) -> Tensor:
    """What a map says as a whole: (N, key_size, cells) -> (N, 2 key_size), mean and maximum over the cells."""
    return torch.cat([keys.mean(-1), keys.amax(-1)], -1)


class _Summary(nn.Module):
    """Adds to a language state what the image's map says as a whole, seen in the light of that state.

    Whether anything is missed, or anything of the target is there at all, need not be found by attention alone then.
    """

    def __init__(self, config: NanoConfig, width: int = 96) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * config.key_size)
        self.image = nn.Linear(2 * config.key_size, width)
        self.state = nn.Linear(config.hidden_size, width, bias=False)
        self.out = nn.Linear(width, config.hidden_size)

    def forward(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        return self.out(F.gelu(self.image(self.norm(pooled)) + self.state(hidden)))


class _Pointer(nn.Module):
    """Feature map of one image at the coordinate grid, aware of the language states at its tokens."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        w = config.vision_widths
        self.side = config.image_tokens_side
        self.from_language = nn.Conv2d(config.hidden_size, w[3], 1)
        self.mid = nn.Sequential(_Residual(w[3]), nn.Conv2d(w[3], w[2], 1))
        self.low = nn.Sequential(_Residual(w[2]), nn.Conv2d(w[2], w[1], 1))
        self.fine = _conv(w[1], w[1])
        self.key = nn.Conv2d(w[1], config.key_size, 1)
        self.position = nn.Parameter(torch.zeros(1, config.key_size, config.grid // 4, config.grid // 4))
        self.query = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size), nn.GELU(), nn.Linear(config.hidden_size, config.key_size)
        )
        self.scale = config.key_size**-0.5

    def keys(self, states: Tensor, features: list[Tensor]) -> Tensor:
        """(N, tokens, d) states and features at strides 4, 8, 16 -> keys (N, key_size, grid * grid)."""
        n = states.shape[0]
        x = self.from_language(states.transpose(1, 2).reshape(n, -1, self.side, self.side))
        x = self.mid(F.relu(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) + features[2]))
        x = self.low(F.relu(F.interpolate(x, scale_factor=2, mode="nearest") + features[1]))
        x = self.fine(F.relu(F.interpolate(x, scale_factor=2, mode="nearest") + features[0]))
        k = self.key(x)
        return (k + F.interpolate(self.position, size=k.shape[-2:], mode="bilinear", align_corners=False)).flatten(2)


@dataclass
class NanoOutput(CausalLMOutputWithPast):
    """Adds what generation must remember, and what training needs.

    Parameters
    ----------
    pointer_keys
        (B, key_size, cells) of every row's last image; with ``return_states``, (N, key_size, cells) of all images.
    hidden
        (B, T, hidden_size) language states; with ``return_states`` only.
    image_of
        (B, T) index among the N images of the last one up to each position, -1 before the first; likewise.
    """

    pointer_keys: Tensor | None = None
    hidden: Tensor | None = None
    image_of: Tensor | None = None


class NanoForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """The model. ``pixel_values`` holds the images of all rows one after another: (N, 3, S, S)."""

    config_class = NanoConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _supports_sdpa = True
    _tied_weights_keys: dict[str, str] = {}

    def __init__(self, config: NanoConfig) -> None:
        super().__init__(config)
        self.vision = _Vision(config)
        self.language = LlamaModel(
            LlamaConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                num_key_value_heads=config.num_attention_heads,
                intermediate_size=config.intermediate_size,
                max_position_embeddings=config.max_position_embeddings,
                attention_dropout=config.dropout,
                use_cache=True,
            )
        )
        self.column = nn.Embedding(config.grid, config.hidden_size)
        self.row = nn.Embedding(config.grid, config.hidden_size)
        self.pointer = _Pointer(config)
        self.summary = _Summary(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.04)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.04)

    def get_input_embeddings(self) -> nn.Module:
        """The plain vocabulary's table (coordinates are embedded by column and row)."""
        return self.language.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the plain vocabulary's table."""
        self.language.embed_tokens = value

    def _embed(self, ids: Tensor) -> Tensor:
        cell = (ids - self.config.vocab_size).clamp_min(0)
        at = self.column(cell % self.config.grid) + self.row(cell // self.config.grid)
        plain = self.language.embed_tokens(ids.clamp_max(self.config.vocab_size - 1))
        return torch.where((ids >= self.config.vocab_size)[..., None], at, plain)

    def base_logits(self, hidden: Tensor, pooled: Tensor | None = None) -> Tensor:
        """(M, d) states, and (M, 2 key_size) of each one's image -> (M, vocab_size) scores of the plain vocabulary.

        Entry ``coordinate_token_id`` stands for all coordinates. ``pooled`` comes from :func:`pool`; None where there
        is no image.
        """
        if pooled is not None:
            hidden = hidden + self.summary(hidden, pooled)
        return F.linear(hidden, self.language.embed_tokens.weight)

    def cell_logits(self, hidden: Tensor, keys: Tensor) -> Tensor:
        """(M, d) states and (M, key_size, cells) keys -> (M, cells) scores of the coordinates."""
        return torch.einsum("mk,mkc->mc", self.pointer.query(hidden) * self.pointer.scale, keys)

    def full_logits(self, hidden: Tensor, keys: Tensor | None) -> Tensor:
        """(M, d) states -> (M, vocab_size + cells) scores, normalised so that softmax gives probabilities."""
        base = self.base_logits(hidden, None if keys is None else pool(keys)).float().log_softmax(-1)
        gate = base[:, self.config.coordinate_token_id]
        if keys is None:
            cells = base.new_full((base.shape[0], self.config.grid**2), float("-inf"))
        else:
            cells = gate[:, None] + self.cell_logits(hidden, keys).float().log_softmax(-1)
        base = base.clone()
        base[:, self.config.coordinate_token_id] = torch.finfo(base.dtype).min
        base[:, self.config.image_token_id] = torch.finfo(base.dtype).min
        return torch.cat([base, cells.clamp_min(torch.finfo(base.dtype).min)], -1)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        pointer_keys: Tensor | None = None,
        return_states: bool = False,
        **kwargs: Any,
    ) -> NanoOutput:
        """Score the next token at every position.

        Parameters
        ----------
        input_ids
            (B, T), with ``image_tokens_side ** 2`` placeholders for every image.
        pixel_values
            (N, 3, S, S) images in the order of their placeholders, row after row.
        labels
            (B, T), -100 where nothing is to be learnt; gives ``loss``.
        logits_to_keep
            Score only so many last positions; 0 for all.
        pointer_keys
            (B, key_size, cells) of each row's last image, as an earlier call returned them.
        return_states
            Skip the logits and return the hidden states, all keys, and each position's image (training).

        Raises
        ------
        ValueError
            If the placeholders do not match the images.
        """
        if input_ids is None:
            raise ValueError("NanoVLM needs input_ids: coordinates are embedded by their ids")
        embeds = self._embed(input_ids) if inputs_embeds is None else inputs_embeds
        is_image = input_ids == self.config.image_token_id
        per_image = self.config.image_tokens_side**2
        features: list[Tensor] = []
        num_images = 0
        if pixel_values is not None or bool(is_image.any()):
            num_images = 0 if pixel_values is None else pixel_values.shape[0]
            if int(is_image.sum()) != num_images * per_image:
                raise ValueError(f"{int(is_image.sum())} image placeholders for {num_images} images of {per_image}")
            assert pixel_values is not None
            tokens, features = self.vision(
                pixel_values.to(embeds.dtype) if pixel_values.dtype != embeds.dtype else pixel_values
            )
            embeds = embeds.masked_scatter(is_image[..., None], tokens.to(embeds.dtype))
        if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -input_ids.shape[1] :]
        out = self.language(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )
        hidden = out.last_hidden_state
        image_of = None
        keys_all = None
        if num_images:
            states = hidden[is_image].reshape(num_images, per_image, -1)
            keys_all = self.pointer.keys(states, features)
            seen = is_image.long().cumsum(1) // per_image
            before = F.pad(is_image.long().sum(1) // per_image, (1, 0)).cumsum(0)[:-1]
            image_of = torch.where(seen > 0, seen - 1 + before[:, None], -1)
            pointer_keys = keys_all[image_of[:, -1].clamp_min(0)]
        if return_states:
            return NanoOutput(
                pointer_keys=keys_all, hidden=hidden, image_of=image_of, past_key_values=out.past_key_values
            )
        last = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
        b, t, d = last.shape
        if keys_all is not None and image_of is not None and t > 1:
            which = image_of[:, -t:]
            logits = last.new_empty((b, t, self.config.vocab_size + self.config.grid**2), dtype=torch.float32)
            for r in range(b):
                # Row by row: the keys of a whole batch at every position would not fit in memory.
                for i in which[r].unique().tolist():
                    at = which[r] == i
                    k = keys_all[i].expand(int(at.sum()), -1, -1) if i >= 0 else None
                    logits[r, at] = self.full_logits(last[r, at], k)
        else:
            keys = None if pointer_keys is None else pointer_keys.repeat_interleave(t, 0)
            logits = self.full_logits(last.reshape(b * t, d), keys).reshape(b, t, -1)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return NanoOutput(loss=loss, logits=logits, past_key_values=out.past_key_values, pointer_keys=pointer_keys)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        is_first_iteration: bool | None = False,
        pixel_values: Tensor | None = None,
        pointer_keys: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Send the images with the prompt only; afterwards one token at a time and the remembered keys."""
        if next_sequence_length is not None:
            input_ids = input_ids[:, -next_sequence_length:]
        first = past_key_values is None or past_key_values.get_seq_length() == 0
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": kwargs.get("use_cache"),
            "pixel_values": pixel_values if first else None,
            "pointer_keys": None if first else pointer_keys,
            "logits_to_keep": 1,
        }

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        model_kwargs["pointer_keys"] = outputs.pointer_keys
        return model_kwargs


def register() -> None:
    """Make the Auto classes of transformers know this model. Safe to call twice."""
    AutoConfig.register("ibis_nano", NanoConfig, exist_ok=True)
    AutoModelForImageTextToText.register(NanoConfig, NanoForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(NanoConfig, NanoProcessor, exist_ok=True)
    BUILDERS["ibis_nano"] = load_processor

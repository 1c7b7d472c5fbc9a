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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from ibisagent.policies.nano_parts import NanoConfig, Pointer, Summary, Vision
from ibisagent.policies.nano_processor import NanoProcessor, load_processor
from ibisagent.policies.nano_scores import nano_token_scores
from ibisagent.policies.processors import BUILDERS

__all__ = ["NanoConfig", "NanoForConditionalGeneration", "NanoOutput", "NanoProcessor", "load_processor", "register"]


@dataclass
class NanoOutput(CausalLMOutputWithPast):
    """Adds what generation must remember, and what training needs.

    Parameters
    ----------
    pointer_keys
        (B, key_size, cells) of every row's last image; with ``return_states``, (N, key_size, cells) of all images.
    pooled
        (B, size) what that image says as a whole; with ``return_states``, (N, size).
    belief
        (B, 2 or 3, cells) maps of :meth:`~ibisagent.policies.nano_parts.Pointer.keys`: logits of the target's and the
        shown mask's place in it, and what was chosen; with ``return_states``, (N, 2 or 3, cells).
    hidden
        (B, T, hidden_size) language states; with ``return_states`` only.
    image_of
        (B, T) index among the N images of the last one up to each position, -1 before the first; likewise.
    log_probs, entropy
        ``float32`` (B, T) of the tokens of ``wanted``, 0 elsewhere; with ``wanted`` only.
    place_log_probs
        ``float32`` (B, T, K) of ``places``, given that a coordinate is written there; 0 where there is none.
    """

    pointer_keys: Tensor | None = None
    pooled: Tensor | None = None
    belief: Tensor | None = None
    hidden: Tensor | None = None
    image_of: Tensor | None = None
    log_probs: Tensor | None = None
    entropy: Tensor | None = None
    place_log_probs: Tensor | None = None


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
        self.vision = Vision(config)
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
        self.pointer = Pointer(config)
        self.summary = Summary(config)
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

    def embed(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, d), coordinates by their column and row."""
        cell = (ids - self.config.vocab_size).clamp_min(0)
        at = self.column(cell % self.config.grid) + self.row(cell // self.config.grid)
        plain = self.language.embed_tokens(ids.clamp_max(self.config.vocab_size - 1))
        return torch.where((ids >= self.config.vocab_size)[..., None], at, plain)

    def base_logits(self, hidden: Tensor, pooled: Tensor | None = None) -> Tensor:
        """(M, d) states, and (M, size) of each one's image -> (M, vocab_size) scores of the plain vocabulary.

        Entry ``coordinate_token_id`` stands for all coordinates. ``pooled`` comes from
        :meth:`~ibisagent.policies.nano_parts.Summary.pool`; None where there is no image.
        """
        if pooled is not None:
            hidden = hidden + self.summary(hidden, pooled)
        return F.linear(hidden, self.language.embed_tokens.weight)

    def full_logits(self, hidden: Tensor, seen: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        """(M, d) states -> (M, vocab_size + cells) scores, normalised so that softmax gives probabilities.

        ``seen`` holds keys, belief and pooled of each state's image; None where there is no image.
        """
        base = self.base_logits(hidden, None if seen is None else seen[2].to(hidden.dtype)).float().log_softmax(-1)
        gate = base[:, self.config.coordinate_token_id]
        if seen is None:
            cells = base.new_full((base.shape[0], self.config.grid**2), float("-inf"))
        else:
            cells = gate[:, None] + self.pointer.score(hidden, seen[0], seen[1]).float().log_softmax(-1)
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
        belief: Tensor | None = None,
        pooled: Tensor | None = None,
        return_states: bool = False,
        wanted: Tensor | None = None,
        temperature: float = 1.0,
        forbidden: Sequence[int] = (),
        places: Tensor | None = None,
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
        pointer_keys, belief, pooled
            Of each row's last image, as an earlier call returned them.
        return_states
            Skip the logits and return the hidden states, all keys, and each position's image (training).
        wanted
            ``bool`` (B, T): score these tokens and no others, and return nothing else (training on what was sampled).
        temperature
            With ``wanted``: at which they were sampled; see :func:`~ibisagent.policies.nano_scores.nano_token_scores`.
        forbidden
            With ``wanted``: ids that could not be drawn; likewise.
        places
            With ``wanted``: ``int64`` (B, T, K) ids of coordinates to score in place of a wanted one; -1 for none.

        Raises
        ------
        ValueError
            If the placeholders do not match the images.
        """
        if input_ids is None:
            raise ValueError("NanoVLM needs input_ids: coordinates are embedded by their ids")
        embeds = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
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
        device = embeds.device.type
        # On a CPU, bfloat16 makes matrix products several times as fast, and the fused attention slower than float32's.
        plain = device == "cpu" and torch.is_autocast_enabled(device)
        with _attention(self.language, "eager" if plain else None):
            out = self.language(
                inputs_embeds=embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
            )
        hidden = out.last_hidden_state
        image_of = None
        seen_all: tuple[Tensor, Tensor, Tensor] | None = None
        if num_images:
            states = hidden[is_image].reshape(num_images, per_image, -1)
            keys_all, belief_all = self.pointer.keys(states, features)
            so_far = is_image.long().cumsum(1) // per_image
            count = is_image.long().sum(1) // per_image
            before = F.pad(count, (1, 0)).cumsum(0)[:-1]
            image_of = torch.where(so_far > 0, so_far - 1 + before[:, None], -1)
            follows = torch.ones(num_images, dtype=torch.bool, device=hidden.device)
            follows[before[count > 0]] = False
            seen_all = keys_all, belief_all, self.summary.pool(keys_all, belief_all, follows)
            newest = image_of[:, -1].clamp_min(0)
            pointer_keys, belief, pooled = (v[newest] for v in seen_all)
        if return_states or wanted is not None:
            states = NanoOutput(
                pointer_keys=None if seen_all is None else seen_all[0],
                belief=None if seen_all is None else seen_all[1],
                pooled=None if seen_all is None else seen_all[2],
                hidden=hidden,
                image_of=image_of,
                past_key_values=out.past_key_values,
            )
            if wanted is None:
                return states
            with torch.autocast(device, enabled=False):  # small products that decide what a token was worth
                found = nano_token_scores(self, states, input_ids, wanted, temperature, forbidden, places)
            return NanoOutput(log_probs=found.log_probs, entropy=found.entropy, place_log_probs=found.places)
        last = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
        b, t, d = last.shape
        if seen_all is not None and image_of is not None and t > 1:
            which = image_of[:, -t:]
            logits = last.new_empty((b, t, self.config.vocab_size + self.config.grid**2), dtype=torch.float32)
            for r in range(b):
                # Row by row: the keys of a whole batch at every position would not fit in memory.
                for i in which[r].unique().tolist():
                    at = which[r] == i
                    m = int(at.sum())
                    k, e, p = (v[i].expand(m, *v.shape[1:]) for v in seen_all)
                    logits[r, at] = self.full_logits(last[r, at], (k, e, p) if i >= 0 else None)
        else:
            seen = None
            if pointer_keys is not None and belief is not None and pooled is not None:
                k, e, p = (v.repeat_interleave(t, 0) for v in (pointer_keys, belief, pooled))
                seen = k, e, p
            logits = self.full_logits(last.reshape(b * t, d), seen).reshape(b, t, -1)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return NanoOutput(
            loss=loss,
            logits=logits,
            past_key_values=out.past_key_values,
            pointer_keys=pointer_keys,
            belief=belief,
            pooled=pooled,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        is_first_iteration: bool | None = False,
        pixel_values: Tensor | None = None,
        pointer_keys: Tensor | None = None,
        belief: Tensor | None = None,
        pooled: Tensor | None = None,
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
            "belief": None if first else belief,
            "pooled": None if first else pooled,
            "logits_to_keep": 1,
        }

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        model_kwargs.update({k: getattr(outputs, k) for k in ("pointer_keys", "belief", "pooled")})
        return model_kwargs


@contextmanager
def _attention(language: LlamaModel, implementation: str | None) -> Iterator[None]:
    """The language model with another implementation of attention (a name of transformers'), and then as it was.

    None changes nothing.
    """
    before = language.config._attn_implementation
    language.config._attn_implementation = implementation or before
    try:
        yield
    finally:
        language.config._attn_implementation = before


def register() -> None:
    """Make the Auto classes of transformers know this model. Safe to call twice."""
    AutoConfig.register("ibis_nano", NanoConfig, exist_ok=True)
    AutoModelForImageTextToText.register(NanoConfig, NanoForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(NanoConfig, NanoProcessor, exist_ok=True)
    BUILDERS["ibis_nano"] = load_processor

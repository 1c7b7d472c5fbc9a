"""A sampler for NanoVLM that computes nothing twice: the language model's cache and the maps of the newest image stay
between turns, and the pointer is asked only where a coordinate was drawn.

At temperature 1 a coordinate's probability is that of the word "coordinate" times that of the cell, so that the word
is drawn first, and the cell where the word says so: the same distribution as over the whole vocabulary at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ibisagent.errors import InputError
from ibisagent.policies.nano_scores import unwritten
from ibisagent.train.rl.growing_cache import growing_cache
from ibisagent.train.rl.sampler import Sample, evaluating

if TYPE_CHECKING:
    from ibisagent.policies.nano_model import NanoForConditionalGeneration
    from ibisagent.train.rl.contexts import Context
    from ibisagent.train.tokens import Renderer

__all__ = ["NanoSampler"]


class NanoSampler:
    """Samples from NanoVLM, token by token, many runs at a time.

    Parameters
    ----------
    model
        In the weights that are to act; left as it is found.
    renderer
        Of its processor; what it forbids is not drawn.
    temperature
        0 takes the likeliest. Otherwise the scores of words and those of cells are divided by it, each before their
        own softmax: at 1 that is the model's own distribution over its whole vocabulary, below 1 a sharper one, by
        which the update scores too.
    max_new_tokens
        Most tokens of a reply.
    batch_size
        Most runs in one forward pass.
    bf16
        Whether to compute in bfloat16 where that is safe, as the update does then.
    num_places
        Further places to draw for every coordinate, see :mod:`ibisagent.train.rl.places`.
    """

    def __init__(
        self,
        model: NanoForConditionalGeneration,
        renderer: Renderer,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = 96,
        batch_size: int = 32,
        bf16: bool = False,
        num_places: int = 0,
    ) -> None:
        if temperature < 0 or max_new_tokens < 1 or batch_size < 1:
            raise InputError("temperature must not be negative, max_new_tokens and batch_size at least 1")
        self.model, self.renderer = model, renderer
        self.temperature, self.max_new_tokens, self.batch_size = temperature, max_new_tokens, batch_size
        self.bf16, self.num_places = bf16, num_places

    def session(self, seed: int) -> _NanoSession:
        """See :class:`~ibisagent.train.rl.sampler.Sampler`."""
        return _NanoSession(self, seed)


class _NanoSession:
    """Blocks of runs, made at the first call and thinned out as runs end."""

    def __init__(self, sampler: NanoSampler, seed: int) -> None:
        self._sampler = sampler
        device = next(sampler.model.parameters()).device
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._blocks: list[_Block] | None = None

    def sample(self, contexts: Sequence[Context]) -> list[Sample]:
        """See :class:`~ibisagent.train.rl.sampler.SamplerSession`; contexts of like length share a block."""
        own = self._sampler
        by_key = {context.key: context for context in contexts}
        if self._blocks is None:
            order = sorted(by_key, key=lambda key: len(by_key[key].ids))
            self._blocks = [_Block(own, order[i : i + own.batch_size]) for i in range(0, len(order), own.batch_size)]
        found: dict[str, Sample] = {}
        with evaluating(own.model), torch.no_grad():
            for block in self._blocks:
                part = [by_key[key] for key in block.keys if key in by_key]
                if part:
                    found.update(zip((c.key for c in part), block.sample(part, self._generator), strict=True))
        return [found[context.key] for context in contexts]


class _Block:
    """Runs that share the forward passes."""

    def __init__(self, sampler: NanoSampler, keys: Sequence[str]) -> None:
        self.keys = list(keys)
        self._sampler, self._model = sampler, sampler.model
        self._device = next(sampler.model.parameters()).device
        self._cache: Any = growing_cache(self._model.config.num_hidden_layers)
        self._mask = torch.zeros(len(self.keys), 0, dtype=torch.long, device=self._device)
        self._read = [0] * len(self.keys)
        self._images = [0] * len(self.keys)
        # Of every run's newest image: keys, belief, what it says as a whole.
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def sample(self, contexts: Sequence[Context], generator: torch.Generator) -> list[Sample]:
        """The next replies of some of the block's runs, in order; the others are dropped from its cache for good."""
        self._keep([self.keys.index(context.key) for context in contexts])
        return self._draw(self._show(contexts), generator)

    def _keep(self, rows: list[int]) -> None:
        if len(rows) == len(self.keys):
            return
        at = torch.tensor(rows, device=self._device)
        self.keys = [self.keys[i] for i in rows]
        self._read, self._images = [self._read[i] for i in rows], [self._images[i] for i in rows]
        self._mask = self._mask[at]
        self._cache.batch_select_indices(at)
        if self._seen is not None:
            self._seen = tuple(part[at] for part in self._seen)  # type: ignore[assignment]

    def _show(self, contexts: Sequence[Context]) -> Tensor:
        """Feed what is new of every context; (B, d) states at their ends."""
        config = self._model.config
        new = [context.ids[read:] for context, read in zip(contexts, self._read, strict=True)]
        images = [context.images[seen:] for context, seen in zip(contexts, self._images, strict=True)]
        if max(len(part) for part in images) > 1:
            raise InputError("nano is shown one image a turn")
        longest = max(len(ids) for ids in new)
        ids = torch.full((len(new), longest), config.pad_token_id, dtype=torch.long)
        mask = torch.zeros(len(new), longest, dtype=torch.long)
        for row, part in enumerate(new):
            ids[row, : len(part)] = torch.tensor(part)
            mask[row, : len(part)] = 1
        with_image = [row for row, part in enumerate(images) if part]
        pixels = self._sampler.renderer.pixels([images[row][0] for row in with_image]) if with_image else None
        out = self._forward(ids, mask, pixels)
        if with_image:
            with self._precision():
                self._remember(out, torch.tensor(with_image, device=self._device), len(new))
        self._read = [len(context.ids) for context in contexts]
        self._images = [len(context.images) for context in contexts]
        ends = (mask.sum(1) - 1).to(self._device)
        hidden: Tensor = out.hidden[torch.arange(len(new), device=self._device), ends]
        return hidden

    def _remember(self, out: Any, rows: Tensor, count: int) -> None:
        """Take up the maps of new images; facts of the image before go into what they say as a whole."""
        pool = self._model.summary.pool
        keys, belief = out.pointer_keys, out.belief
        if self._seen is None:
            pooled = pool(keys, belief, torch.zeros(len(rows), dtype=torch.bool, device=rows.device))
            assert len(rows) == count, "every run begins with an image"
            self._seen = keys.float(), belief, pooled
            return
        # Pairs of (the image before, this one): `pool` carries the facts of the first over to the second.
        pairs = torch.stack([self._seen[1][rows], belief], 1).flatten(0, 1)
        follows = torch.tensor([False, True], device=rows.device).repeat(len(rows))
        pooled = pool(keys.repeat_interleave(2, 0), pairs, follows)[1::2]
        kept = [part.clone() for part in self._seen]
        for part, value in zip(kept, (keys, belief, pooled), strict=True):
            part[rows] = value.to(part.dtype)
        self._seen = kept[0], kept[1], kept[2]

    def _forward(self, ids: Tensor, mask: Tensor, pixels: Tensor | None = None) -> Any:
        self._mask = torch.cat([self._mask, mask.to(self._device)], 1)
        with self._precision():
            out = self._model(
                input_ids=ids.to(self._device),
                attention_mask=self._mask,
                pixel_values=None if pixels is None else pixels.to(self._device),
                past_key_values=self._cache,
                use_cache=True,
                return_states=True,
            )
        return out

    def _precision(self) -> Any:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._sampler.bf16)

    def _draw(self, hidden: Tensor, generator: torch.Generator) -> list[Sample]:
        model, config = self._model, self._model.config
        assert self._seen is not None
        keys, belief, pooled = self._seen
        count, end = len(hidden), config.eos_token_id
        drawn: list[list[int]] = [[] for _ in range(count)]
        said: list[list[float]] = [[] for _ in range(count)]
        places: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in range(count)]
        live = torch.ones(count, dtype=torch.bool, device=self._device)
        warm = self._sampler.temperature or 1.0
        never = unwritten(config, self._sampler.renderer.forbidden_ids)
        for position in range(self._sampler.max_new_tokens):
            words = model.base_logits(hidden.float(), pooled.float()).float() / warm
            words[:, never] = float("-inf")
            words = words.log_softmax(-1)
            token = self._pick(words, generator)
            log_prob = words.gather(1, token[:, None])[:, 0]
            at = (token == config.coordinate_token_id) & live
            if bool(at.any()):
                rows = at.nonzero()[:, 0]
                cells = model.pointer.score(hidden[rows].float(), keys[rows], belief[rows]).float() / warm
                cells = cells.log_softmax(-1)
                cell = self._pick(cells, generator)
                token[rows] = config.vocab_size + cell
                log_prob[rows] += cells.gather(1, cell[:, None])[:, 0]
                if self._sampler.temperature == 0:  # a word may be likelier than the likeliest of the cells
                    others = words[rows]
                    others[:, config.coordinate_token_id] = float("-inf")
                    best, word = others.max(-1)
                    is_word = best > log_prob[rows]
                    token[rows] = torch.where(is_word, word, token[rows])
                    log_prob[rows] = torch.where(is_word, best, log_prob[rows])
                if self._sampler.num_places:
                    more = torch.multinomial(cells.exp(), self._sampler.num_places, True, generator=generator)
                    for row, drawn_too in zip(rows.tolist(), (more + config.vocab_size).tolist(), strict=True):
                        if token[row] >= config.vocab_size:
                            places[row].append((position, tuple(drawn_too)))
            ids, log_probs = token.tolist(), log_prob.tolist()
            for row in live.nonzero()[:, 0].tolist():
                drawn[row].append(ids[row])
                said[row].append(log_probs[row])
                self._read[row] += position > 0
            live = live & (token != end)
            if not bool(live.any()) or position + 1 == self._sampler.max_new_tokens:
                break
            mask = live.long()[:, None]
            fed = torch.where(live, token, torch.full_like(token, config.pad_token_id))[:, None]
            hidden = self._forward(fed, mask).hidden[:, -1]
        return [
            Sample(tuple(row), row[-1] == end, tuple(scores), tuple(more))
            for row, scores, more in zip(drawn, said, places, strict=True)
        ]

    def _pick(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        if self._sampler.temperature == 0:
            return logits.argmax(-1)
        noise = torch.empty_like(logits).exponential_(generator=generator).log().neg()
        return (logits + noise).argmax(-1)

"""Who writes the next reply: samplers of tokens, given contexts.

A sampler opens a session for every set of runs that are played together; the contexts of a session only grow, so that
a sampler may keep what it computed for the tokens that it has seen. Weights do not change within a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ibisagent.errors import InputError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ibisagent.train.rl.contexts import Context
    from ibisagent.train.tokens import Renderer

__all__ = ["GenerateSampler", "Sample", "Sampler", "SamplerSession", "evaluating"]


@dataclass(frozen=True)
class Sample:
    """One reply as it was drawn.

    Parameters
    ----------
    ids
        Token ids, the end of the turn included where it was reached.
    ended
        Whether it was reached within the budget.
    log_probs
        Log-probability of every id under the sampler's weights and temperature, or None if it does not say.
    places
        Of every id that is a place: its position in `ids`, and the ids of further places that were drawn for it.
    """

    ids: tuple[int, ...]
    ended: bool
    log_probs: tuple[float, ...] | None = None
    places: tuple[tuple[int, tuple[int, ...]], ...] = ()


class SamplerSession(Protocol):
    """Samples for runs that are played together."""

    def sample(self, contexts: Sequence[Context]) -> list[Sample]:
        """The next reply of every context, in order.

        Contexts are those of the first call or some of them, each longer than before.
        """
        ...


class Sampler(Protocol):
    """Opens sessions."""

    def session(self, seed: int) -> SamplerSession:
        """A session whose draws depend on `seed` and on what is asked, and on nothing else."""
        ...


class GenerateSampler:
    """Any image-text-to-text model of transformers, by its own ``generate``; the reference.

    Every turn is encoded anew, and sampling is an argmax over logits / temperature + Gumbel noise, so that no warper
    of ``generation_config`` (top-k, top-p, penalties) can make what is drawn differ from what the update scores.

    Parameters
    ----------
    model
        In the weights that are to act; left as it is found.
    renderer
        Of its processor.
    temperature
        Above 0; 0 takes the likeliest token.
    max_new_tokens
        Most tokens of a reply.
    batch_size
        Most contexts in one call of ``generate``.
    """

    def __init__(
        self, model: Any, renderer: Renderer, *, temperature: float, max_new_tokens: int, batch_size: int = 16
    ) -> None:
        if temperature < 0 or max_new_tokens < 1 or batch_size < 1:
            raise InputError("temperature must not be negative, max_new_tokens and batch_size at least 1")
        self.model, self.renderer = model, renderer
        self.temperature, self.max_new_tokens, self.batch_size = temperature, max_new_tokens, batch_size

    def session(self, seed: int) -> _GenerateSession:
        """See :class:`Sampler`."""
        return _GenerateSession(self, seed)


class _GenerateSession:
    def __init__(self, sampler: GenerateSampler, seed: int) -> None:
        self._sampler = sampler
        device = next(sampler.model.parameters()).device
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def sample(self, contexts: Sequence[Context]) -> list[Sample]:
        """See :class:`SamplerSession`; every call reads its contexts from their beginning."""
        own = self._sampler
        # Contexts of like length share a batch, or most of it would be padding.
        order = sorted(range(len(contexts)), key=lambda i: len(contexts[i].ids))
        out: dict[int, Sample] = {}
        for start in range(0, len(order), own.batch_size):
            part = order[start : start + own.batch_size]
            out.update(zip(part, self._generate([contexts[i] for i in part]), strict=True))
        return [out[i] for i in range(len(contexts))]

    def _generate(self, contexts: list[Context]) -> list[Sample]:
        from transformers import GenerationConfig, LogitsProcessorList

        own = self._sampler
        model, renderer = own.model, own.renderer
        inputs = renderer.tensors([c.ids for c in contexts], [c.images for c in contexts], padding="left")
        inputs = {k: v.to(model.device, model.dtype if v.is_floating_point() else v.dtype) for k, v in inputs.items()}
        config = GenerationConfig(
            max_new_tokens=own.max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=[renderer.end_id],
            pad_token_id=renderer.pad_id,
        )
        noise = LogitsProcessorList([_Noise(own.temperature, self._generator, renderer.forbidden_ids)])
        with evaluating(model), torch.no_grad():
            # Not in step with other processes, whose runs take other numbers of turns: all weights are here.
            output = model.generate(**inputs, generation_config=config, logits_processor=noise, synced_gpus=False)
        if not torch.is_tensor(output):
            raise PolicyError("generate gave no tensor of ids")
        width = inputs["input_ids"].shape[1]
        samples = []
        for row in output[:, width:].tolist():
            end = next((k + 1 for k, token in enumerate(row) if token == renderer.end_id), None)
            ids = row if end is None else row[:end]
            samples.append(Sample(tuple(ids), end is not None))
        return samples


class _Noise:
    """Logits -> logits / temperature + Gumbel noise, without ids that the model must not write."""

    def __init__(self, temperature: float, generator: torch.Generator, forbidden: Sequence[int]) -> None:
        self.temperature, self.generator, self.forbidden = temperature, generator, list(forbidden)

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        if self.forbidden:
            scores[:, self.forbidden] = float("-inf")
        if self.temperature == 0:
            return scores
        noise = torch.empty_like(scores).exponential_(generator=self.generator).log().neg()
        return scores / self.temperature + noise


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model in evaluation mode, without gradient checkpointing, and afterwards as it was."""
    was_training = model.training
    checkpointing = bool(getattr(model, "is_gradient_checkpointing", False))
    model.eval()
    if checkpointing:
        model.gradient_checkpointing_disable()
    try:
        yield
    finally:
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train(was_training)

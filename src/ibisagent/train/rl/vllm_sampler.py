"""Replies from a vLLM server, token in and token out.

What is sent are the ids of the context with one place for a picture, and the pictures as the training model sees them.
The server widens the places by its own rule and tells the ids that it then drew after. If they are not the context's,
to the token, nothing it drew is used: the update would score other tokens, or other pictures, than were drawn from.

Probabilities are not bent: temperature alone, no top-k, top-p or penalty, whatever the model's ``generation_config``
says. Control tokens are not forbidden, as the update does not forbid them either; a reply ends before the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError, PolicyError
from ibisagent.hashing import pixel_hash
from ibisagent.policies.endpoint import data_uri
from ibisagent.train.rl.sampler import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.train.rl.contexts import Context
    from ibisagent.train.rl.vllm_server import Drawn, VllmServer
    from ibisagent.train.tokens import Renderer

__all__ = ["VllmSampler", "as_shown", "one_place_each"]


class VllmSampler:
    """A vLLM server that holds the weights that are to act.

    Parameters
    ----------
    server
        Up and checked.
    renderer
        Of the training model's processor.
    temperature
        Above 0.
    max_new_tokens
        Most tokens of a reply.
    """

    def __init__(self, server: VllmServer, renderer: Renderer, *, temperature: float, max_new_tokens: int) -> None:
        if temperature <= 0 or max_new_tokens < 1:
            raise InputError("temperature must be above 0, max_new_tokens at least 1")
        self.server, self.renderer = server, renderer
        # `ignore_eos`: what ends a reply stands here alone, and not in the served folder's generation_config.
        self.sampling: dict[str, Any] = {
            "temperature": temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "max_tokens": max_new_tokens,
            "stop_token_ids": [renderer.end_id, *renderer.forbidden_ids],
            "ignore_eos": True,
        }

    def session(self, seed: int) -> _VllmSession:
        """See :class:`~ibisagent.train.rl.sampler.Sampler`."""
        return _VllmSession(self, seed)


class _VllmSession:
    """Keeps the pictures of its runs, each encoded once."""

    def __init__(self, sampler: VllmSampler, seed: int) -> None:
        self._sampler, self._seed = sampler, seed
        self._pictures: dict[str, tuple[str, int]] = {}

    def sample(self, contexts: Sequence[Context]) -> list[Sample]:
        """See :class:`~ibisagent.train.rl.sampler.SamplerSession`.

        Raises
        ------
        PolicyError
            If the server fails, or was shown something else than the context.
        """
        if not contexts:
            return []
        tasks = [self._task(context) for context in contexts]
        with ThreadPoolExecutor(max_workers=min(self._sampler.server.at_once, len(tasks))) as threads:
            futures = [threads.submit(task) for task in tasks]
            try:
                return [future.result() for future in futures]
            except BaseException:
                for future in futures:  # of a server that is lost, or at Ctrl-C, nobody waits for the rest
                    future.cancel()
                raise

    def _task(self, context: Context) -> Callable[[], Sample]:
        """What a thread does for a context; pictures are encoded before, in one thread."""
        own = self._sampler
        shown = [self._picture(picture) for picture in context.images]
        ids = one_place_each(context.ids, own.renderer.image_id, [length for _, length in shown], context.key)
        sampling = {**own.sampling, "seed": _seed(self._seed, context.key, context.num_turns)}
        urls = [url for url, _ in shown]

        def task() -> Sample:
            drawn = own.server.draw(ids, urls, sampling)
            _same(drawn.prompt_ids, context, own.renderer.image_id)
            return _sample(drawn, own.renderer)

        return task

    def _picture(self, picture: NDArray[np.uint8]) -> tuple[str, int]:
        """A picture's data URL, and how many image tokens it becomes here."""
        name = pixel_hash(picture)
        if name not in self._pictures:
            renderer = self._sampler.renderer
            (length,) = renderer.image_lengths([picture])
            self._pictures[name] = data_uri(as_shown(picture, renderer)), length
        return self._pictures[name]


def as_shown(picture: NDArray[np.uint8], renderer: Renderer) -> NDArray[np.uint8]:
    """A picture in the size in which the training model's processor shows it.

    The processor was told a limit (``max_pixels``) that the served folder's may lack. Made smaller here, by the same
    rule, a picture needs no resizing there, and every pixel is the same.
    """
    worker = renderer.processor.image_processor
    grid = renderer.image_inputs([picture]).get("image_grid_thw")
    patch = getattr(worker, "patch_size", None)
    if grid is None or not isinstance(patch, int):
        return picture
    height, width = int(grid[0, 1]) * patch, int(grid[0, 2]) * patch
    if picture.shape[:2] == (height, width):
        return picture
    from PIL import Image as pil

    resample = getattr(worker, "resample", None)
    how = pil.Resampling(int(resample)) if isinstance(resample, int) else pil.Resampling.BICUBIC
    return np.asarray(pil.fromarray(np.ascontiguousarray(picture)).resize((width, height), how))


def one_place_each(ids: Sequence[int], image_id: int, lengths: Sequence[int], key: str = "") -> list[int]:
    """Ids with one placeholder for every picture instead of one for each of its tokens.

    Parameters
    ----------
    ids
        Of a context.
    image_id
        The placeholder.
    lengths
        Tokens of every picture, in reading order.
    key
        Names the context in an error.

    Raises
    ------
    PolicyError
        If pictures and placeholders do not agree.
    """
    out: list[int] = []
    at, picture = 0, 0
    while at < len(ids):
        out.append(int(ids[at]))
        if ids[at] != image_id:
            at += 1
            continue
        length = lengths[picture] if picture < len(lengths) else 0
        if length == 0 or any(i != image_id for i in ids[at : at + length]) or at + length > len(ids):
            places = sum(i == image_id for i in ids)
            raise PolicyError(f"run {key}: {places} image tokens for {len(lengths)} pictures of {sum(lengths)}")
        at, picture = at + length, picture + 1
    if picture != len(lengths):
        raise PolicyError(f"run {key}: {len(lengths)} pictures, and places for {picture}")
    return out


def _same(prompt: Sequence[int], context: Context, image_id: int) -> None:
    """Refuse a reply to anything but the context."""
    if list(prompt) == context.ids:
        return
    here, there = (sum(i == image_id for i in ids) for ids in (context.ids, prompt))
    if here != there:
        raise PolicyError(
            f"run {context.key}: the server makes {there} image tokens of {len(context.images)} pictures, the training "
            f"model {here}: other limits of pixels (serve with --mm-processor-kwargs), another model, or lost pictures"
        )
    pairs = zip(prompt, context.ids, strict=False)
    at = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(prompt), len(context.ids)))
    raise PolicyError(
        f"run {context.key}: the server was shown {len(prompt)} tokens, the run has {len(context.ids)}, and they "
        f"differ from token {at} on: another tokenizer or another rule for pictures than the training model's"
    )


def _sample(drawn: Drawn, renderer: Renderer) -> Sample:
    """A reply up to the end of the turn; cut before any other control token, which would pose as a picture."""
    ids, ended = drawn.ids, False
    for place, token in enumerate(ids):
        if token == renderer.end_id or token in renderer.forbidden_ids:
            ended = token == renderer.end_id
            ids = ids[: place + ended]
            break
    return Sample(tuple(ids), ended, tuple(drawn.log_probs[: len(ids)]))


def _seed(session: int, key: str, turn: int) -> int:
    """Of one reply: the same run asks for the same draws, whatever else is under way."""
    return int.from_bytes(hashlib.sha256(f"{session}|{key}|{turn}".encode()).digest()[:4], "big") >> 1

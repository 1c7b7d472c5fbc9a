"""What the runs of one verl worker share: segmenter, embeddings, renderer, rubric. Knows nothing of verl."""

from __future__ import annotations

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ibisagent.actions import dialect_for
from ibisagent.config import RolloutConfig
from ibisagent.errors import InputError
from ibisagent.policies.vlm import told
from ibisagent.rewards import load_rubric
from ibisagent.scoring import score_episode
from ibisagent.segmenters.cache import EmbeddingCache
from ibisagent.train.rl.run_state import Rollout, Run, RunRules
from ibisagent.train.runs import read_prompt
from ibisagent.train.tokens import Renderer

if TYPE_CHECKING:
    from ibisagent.train.rl.prompts import RlPrompt

__all__ = ["VerlOptions", "VerlWorker", "worker_for"]


class VerlOptions(BaseModel):
    """The key ``options`` of ``recipes/verl/agent.yaml``; what the settings of ``train rl`` of the same names mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    segmenter: str = "litemedsam"
    """The tool that the model steers; one for each worker."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the segmenter runs. Ray gives workers of agent loops no GPU."""
    threads: int | None = Field(default=1, ge=1)
    """Threads of a worker's networks; null leaves them. Workers are many, and share a node's cores."""
    reward: str = "paper"
    """Rubric."""
    dialect: str = "ibis-paper"
    """Grammar of the replies."""
    system_prompt: Path | None = None
    """File with the fixed system prompt; none: the model folder's system_prompt.txt, else the dialect's."""
    max_steps: int = Field(default=20, ge=1)
    """Most actions of a run."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Most tokens of a reply."""
    max_context: int = Field(default=32_768, ge=64)
    """Most tokens of a run."""
    max_pixels: int | None = Field(default=512 * 512, ge=28 * 28)
    """Images with more pixels are shown smaller."""
    max_embeddings: int = Field(default=32, ge=1)
    """Embeddings of images that a worker keeps (2 MB each with litemedsam, and up to 15 more with clicks and boxes)."""
    seed: int = Field(default=0, ge=0)
    """Of the records; sampling is the server's."""
    log_folder: Path | None = None
    """Where every worker writes a line for each run: parts of the reward, IoU, steps, how it ended."""

    @classmethod
    def of(cls, given: Any) -> VerlOptions:
        """From what Hydra hands over: a mapping or None.

        Raises
        ------
        InputError
            If there is no such option, or a value is wrong.
        """
        try:
            return cls.model_validate({str(k): v for k, v in dict(given or {}).items()})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"agent loop option '{where}': {first['msg']}") from None


class VerlWorker:
    """Tools of one process, used from its one thread (:attr:`executor`): neither tokenizers nor segmenters are shared
    between threads.

    Parameters
    ----------
    options
        Settings.
    processor
        Of the model.
    model
        Its folder or hub id, for the record and for its ``system_prompt.txt``.

    Attributes
    ----------
    renderer, rubric, cache, rules
        Shared by its runs.
    executor
        The thread.

    Raises
    ------
    InputError
        If there is no such dialect, segmenter or reward, or a file cannot be read.
    """

    def __init__(self, options: VerlOptions, processor: Any, model: str | None = None) -> None:
        import torch

        from ibisagent.memory import keep_freed_memory
        from ibisagent.registry import make_segmenter

        if options.threads is not None:
            torch.set_num_threads(options.threads)
            keep_freed_memory()
        prompt = told("system_prompt", model) if model else None
        if options.system_prompt is not None:
            prompt = read_prompt(options.system_prompt)
        dialect = dialect_for(options.dialect, prompt, told("dialect", model) if model else None)
        self.options, self.processor = options, processor
        self.renderer = Renderer(processor, options.max_pixels)
        self.rubric = load_rubric(options.reward)
        self.segmenter = make_segmenter(options.segmenter, device=options.device)
        self.cache = EmbeddingCache(self.segmenter, options.max_embeddings)
        self.rules = RunRules(
            self.renderer,
            RolloutConfig(max_steps=options.max_steps, seed=options.seed),
            dialect,
            prompt,
            options.max_context,
            model or "rl",
        )
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="ibisagent")

    def begin(self, prompt: RlPrompt, sibling: int) -> Run:
        """A run before its first reply; its image is encoded, unless its embedding is kept."""
        return Run.begin(self.rules, prompt, sibling, f"{prompt.key}/{sibling}", self.segmenter, cache=self.cache)

    def note(self, rollout: Rollout, update: Any = None) -> None:
        """Write the line of a finished run, if lines are wanted."""
        folder = self.options.log_folder
        if folder is None:
            return
        scores = score_episode(rollout.episode, rollout.prompt.target)
        outcome = rollout.episode.outcome
        line = {
            "update": None if update is None else int(update),
            "case": rollout.prompt.key,
            "sibling": rollout.sibling,
            "reward": rollout.breakdown.total,
            "excluded": rollout.breakdown.excluded,
            "parts": rollout.breakdown.parts,
            "iou": scores.iou,
            "steps": scores.num_steps,
            "valid": scores.num_valid,
            "replies": scores.num_replies,
            "ended": None if outcome is None else outcome.value,
            "truncated": rollout.context.truncated,
            "tokens": len(rollout.context.ids),
            "own_tokens": sum(rollout.context.own),
            "images": len(rollout.context.images),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{socket.gethostname()}-{os.getpid()}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


_WORKERS: dict[tuple[VerlOptions, int, str | None], VerlWorker] = {}


def worker_for(options: VerlOptions, processor: Any, model: str | None = None) -> VerlWorker:
    """The tools of this process for these settings, made at the first call; raises as :class:`VerlWorker`.

    verl makes an agent loop for every run; a segmenter for every run would be one too many.
    """
    key = options, id(processor), model  # a worker keeps its processor alive, so that no id comes twice
    if key not in _WORKERS:
        _WORKERS[key] = VerlWorker(options, processor, model)
    return _WORKERS[key]

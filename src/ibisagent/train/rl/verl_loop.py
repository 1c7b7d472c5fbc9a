"""verl's agent loop: one run beside verl's servers, token in and token out. The path to several nodes.

Environment, tokens and rewards are those of the other path (:mod:`~ibisagent.train.rl.run_state`); here is only what
verl wants: replies from its servers instead of a sampler, and its output instead of a batch. Named in
``actor_rollout_ref.rollout.agent.agent_loop_config_path`` (``recipes/verl/agent.yaml``); verl then makes one of these
objects for every run, in Ray workers that each keep one segmenter.

Written for verl 0.9.1 with its trainer "v1", which lets a run come to nothing: one whose tool failed gives no output,
and is no part of its group's mean.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import (  # type: ignore[import-not-found]
    AgentLoopBase,
    AgentLoopOutput,
    register,
)

from ibisagent.errors import InputError, PolicyError
from ibisagent.policies.conversation import to_pil
from ibisagent.scoring import score_episode
from ibisagent.train.rl.run_state import Rollout, Run
from ibisagent.train.rl.sampler import Sample
from ibisagent.train.rl.verl_rows import prompt_of_row
from ibisagent.train.rl.verl_worker import VerlOptions, VerlWorker, worker_for

__all__ = ["AGENT_NAME", "SegmentationAgentLoop"]

AGENT_NAME = "ibisagent"
"""As the rows' column ``agent_name`` has it."""

_Found = TypeVar("_Found")


@register(AGENT_NAME)
class SegmentationAgentLoop(AgentLoopBase):
    """Plays a row of the converted tables ``rl`` or ``test``.

    Parameters
    ----------
    options
        Fields of :class:`~ibisagent.train.rl.verl_worker.VerlOptions`.
    name, tools
        verl's; not used.
    rest
        For verl's base class.

    Raises
    ------
    InputError
        If an option is wrong, replies do not fit into ``data.max_response_length``, or verl runs its older trainer.
    """

    def __init__(self, *args: Any, options: Any = None, name: str = AGENT_NAME, tools: Any = None, **rest: Any) -> None:
        super().__init__(*args, **rest)
        trainer = self.config.get("trainer") or {}
        if not trainer.get("use_v1", True):
            raise InputError("verl's older trainer cannot leave a failed run out; set trainer.use_v1=true")
        self._options = VerlOptions.of(options)
        if self.rollout_config.response_length <= self._options.max_new_tokens:
            raise InputError(
                f"data.max_response_length ({self.rollout_config.response_length}) holds all replies and observations "
                f"of a run; it must be above max_new_tokens ({self._options.max_new_tokens})"
            )
        model = (self.config.actor_rollout_ref.get("model") or {}).get("path")
        self._worker: VerlWorker = worker_for(self._options, self.processor, model)

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **row: Any) -> Any:
        """Play one run to its end.

        Parameters
        ----------
        sampling_params
            For the server.
        priority
            Of its requests.
        row
            The dataset's columns, and of verl's ``session_id`` (the sibling's number) and ``global_steps``.

        Returns
        -------
        AgentLoopOutput
            Or, for a run whose tool failed, an empty list: verl's trainer leaves it out.

        Raises
        ------
        InputError
            If the row is not one of ours, or its prompt is longer than ``data.max_prompt_length``.
        PolicyError
            If images and their placeholders do not agree.
        """
        worker, sibling = self._worker, int(row.get("session_id", 0))
        run = await self._work(lambda: self._begin(row, sibling))
        request = f"det-{int(priority)}" if self._deterministic else uuid4().hex
        params = self._params(sampling_params)
        seconds = {"generate_sequences": 0.0, "tool_calls": 0.0}
        preempted = -1
        extra: dict[str, Any] = {}
        log_probs: list[float] | None = []
        pictures: list[Any] = []
        while not run.env.done:
            pictures += [to_pil(p, self._options.max_pixels) for p in run.context.images[len(pictures) :]]
            asked = time.perf_counter()
            output = await self.server_manager.generate(
                request_id=request,
                prompt_ids=list(run.context.ids),
                sampling_params=dict(params),  # a server may change what it is given
                image_data=list(pictures),
                priority=int(priority),
            )
            seconds["generate_sequences"] += time.perf_counter() - asked
            if output.num_preempted is not None:
                preempted = max(preempted, 0) + output.num_preempted
            # Of the weights' versions that wrote it: the first reply's, and the last one's as the newest.
            newest = output.extra_fields.get("max_global_steps")
            extra = extra or dict(output.extra_fields)
            if newest is not None:
                extra["max_global_steps"] = newest
            sample = _sample(output, worker.renderer.end_id, worker.renderer.forbidden_ids)
            before = len(run.context.ids)
            seconds["tool_calls"] += await self._step(run, sample)
            if log_probs is not None and sample.log_probs is not None:
                shown = len(run.context.ids) - before - len(sample.ids)
                log_probs += [*sample.log_probs, *[0.0] * shown]
            else:
                log_probs = None
        pictures += [to_pil(p, self._options.max_pixels) for p in run.context.images[len(pictures) :]]
        scored = time.perf_counter()
        rollout = await self._work(lambda: run.finish(worker.rubric))
        worker.note(rollout, row.get("global_steps"))
        if rollout.breakdown.total is None:
            return []
        metrics = {**seconds, "compute_score": time.perf_counter() - scored, "num_preempted": preempted}
        return self._output(rollout, pictures, log_probs, metrics, extra)

    # -- parts -------------------------------------------------------------------------------

    @property
    def _deterministic(self) -> bool:
        return bool(self.rollout_config.get("full_determinism", False))

    async def _work(self, task: Callable[[], _Found]) -> _Found:
        """Do something in the worker's one thread: other runs go on talking to the servers meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._worker.executor, task)

    async def _step(self, run: Run, sample: Sample) -> float:
        """Take a reply; the seconds that it took, without the wait for other runs."""

        def task() -> float:
            started = time.perf_counter()
            run.step(sample)
            return time.perf_counter() - started

        return await self._work(task)

    def _begin(self, row: Mapping[str, Any], sibling: int) -> Run:
        run = self._worker.begin(prompt_of_row(row), sibling)
        length = run.context.num_prompt
        if length > self.rollout_config.prompt_length:
            raise InputError(
                f"{run.prompt.key}: a prompt of {length} tokens; data.max_prompt_length is "
                f"{self.rollout_config.prompt_length}"
            )
        # verl would cut what does not fit, pictures' places with it: after an observation a whole reply must fit.
        room = length + self.rollout_config.response_length - self._options.max_new_tokens - 1
        run.max_context = min(run.max_context, room)
        return run

    def _params(self, given: Mapping[str, Any]) -> dict[str, Any]:
        renderer = self._worker.renderer
        params = {**given, "max_tokens": self._options.max_new_tokens, "stop_token_ids": [renderer.end_id]}
        if self.rollout_config.get("name") == "vllm" and renderer.forbidden_ids:
            params["logit_bias"] = dict.fromkeys(renderer.forbidden_ids, -100.0)
        return params

    def _output(
        self,
        rollout: Rollout,
        pictures: Sequence[Any],
        log_probs: list[float] | None,
        metrics: dict[str, Any],
        extra: dict[str, Any],
    ) -> Any:
        context, renderer, rubric = rollout.context, self._worker.renderer, self._worker.rubric
        places, wanted = context.ids.count(renderer.image_id), sum(renderer.image_lengths(context.images))
        if places != wanted:
            raise PolicyError(f"{rollout.prompt.key}: {places} image tokens for {wanted} image features")
        start = context.num_prompt
        extra |= {
            "turn_scores": list(rubric.turn_rewards(rollout.breakdown)),
            "tool_rewards": [],
            "reward_extra_info": _figures(rollout),
        }
        return AgentLoopOutput(
            prompt_ids=context.ids[:start],
            response_ids=context.ids[start:],
            response_mask=[int(own) for own in context.own[start:]],
            response_logprobs=log_probs,
            multi_modal_data={"images": list(pictures)},
            reward_score=rollout.breakdown.total,
            num_turns=2 * context.num_turns,
            metrics=metrics,
            extra_fields=extra,
        )


def _sample(output: Any, end_id: int, forbidden: Sequence[int]) -> Sample:
    """What a server wrote, up to the end of the turn; cut before a control token, which would pose as a picture."""
    ids, ended = [int(i) for i in output.token_ids], False
    for place, token in enumerate(ids):
        if token == end_id or token in forbidden:
            ended = token == end_id
            ids = ids[: place + ended]
            break
    scores = output.log_probs
    return Sample(tuple(ids), ended, tuple(map(float, scores[: len(ids)])) if scores else None)


def _figures(rollout: Rollout) -> dict[str, float | None]:
    """What verl's validation averages; the same names for every run, None where one does not apply."""
    scores = score_episode(rollout.episode, rollout.prompt.target)
    parts = {f"reward/{name}": value for name, value in rollout.breakdown.parts.items()}
    valid = scores.num_valid / scores.num_replies if scores.num_replies else None
    return {"score": rollout.breakdown.total, "iou": scores.iou, "steps": scores.num_steps, "validity": valid, **parts}

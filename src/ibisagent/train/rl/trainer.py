"""trl's ``GRPOTrainer`` with our rollouts: groups are played by :class:`~ibisagent.train.rl.play.Player`, and what trl
gets is tokens, masks, images and advantages. Losses, clipping, KL, optimiser, distribution, logging and checkpoints are
trl's and transformers' own.

Where it departs from ``GRPOTrainer(environment_factory=…)``: trl's own tool loop calls the tools one after another,
rolls an observation back that does not fit while the environment has acted already, drops all images of a batch in
silence if one does not match, and knows no credit by turn. So ``_generate_and_score_completions`` is replaced, a
private method; trl's minor version is pinned for that reason.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from trl import GRPOConfig, GRPOTrainer

from ibisagent.errors import IbisError
from ibisagent.train.careful import CarefulTrainer
from ibisagent.train.guards import FailureWatch, not_finite
from ibisagent.train.models import is_nano, same_parameters_learn, without_input_gradients
from ibisagent.train.rl.advantages import episode_advantages, turn_advantages
from ibisagent.train.rl.batch import to_tensors, token_advantages, trimmed
from ibisagent.train.rl.images import check_images, num_features
from ibisagent.train.rl.measures import measure
from ibisagent.train.rl.parity import Agreement
from ibisagent.train.rl.places import place_measures, place_tensors
from ibisagent.train.rl.returns import return_advantages, rewarded_turns
from ibisagent.train.rl.run_state import Rollout
from ibisagent.train.rl.sharded import whole_model
from ibisagent.train.rl.trl_parts import in_order, reference_like

if TYPE_CHECKING:
    from torch import Tensor

    from ibisagent.train.rl.config import RlConfig
    from ibisagent.train.rl.play import Played, Player
    from ibisagent.train.rl.prompts import Prompts
    from ibisagent.train.rl.sampler import Sampler
    from ibisagent.train.rl.vllm_weights import ServedWeights

__all__ = ["AgentGrpoTrainer"]


class AgentGrpoTrainer(CarefulTrainer, GRPOTrainer):
    """GRPO over multi-turn, multi-image runs.

    Parameters
    ----------
    model
        The policy, LoRA or not.
    args
        Of trl; see :func:`ibisagent.train.rl.setup.grpo_arguments`.
    config
        Our settings.
    prompts
        What is asked.
    player
        Plays groups.
    make_sampler
        From the model in its present weights to a sampler.
    on_rollouts
        Called with the number of updates so far and the runs of a batch, before they are learnt from.
    served
        Keeps the weights of a server up to date that writes the replies; None where this process does.
    options
        For ``GRPOTrainer``: processing_class, peft_config, callbacks.
    """

    def __init__(
        self,
        model: Any,
        args: GRPOConfig,
        config: RlConfig,
        prompts: Prompts,
        player: Player,
        make_sampler: Callable[[Any], Sampler],
        on_rollouts: Callable[[int, Sequence[Played]], None] | None = None,
        served: ServedWeights | None = None,
        **options: Any,
    ) -> None:
        from datasets import Dataset

        self._config, self._prompts, self._player = config, prompts, player
        self._make_sampler, self._on_rollouts, self._served = make_sampler, on_rollouts, served
        self._is_nano = is_nano(model)
        # trl only counts them (see `_numbers`), and would train on nothing if they were fewer than a batch.
        rows = Dataset.from_dict({"prompt": [""] * max(len(prompts), args.generation_batch_size or 0)})
        with reference_like(model):
            super().__init__(model=model, reward_funcs=_unused_reward, args=args, train_dataset=rows, **options)
        # trl's loss then weighs every token by `importance_sampling_ratio`; its own rollouts are not used.
        self._corrected = served is not None and config.vllm_correction != "none"
        self.use_vllm = self.vllm_importance_sampling_correction = self._corrected
        self._agreement = Agreement()
        self._failures = FailureWatch(Path(args.output_dir))
        self._places: Tensor | None = None
        self._place_scores: Tensor | None = None
        # Of the time split: the last update's end, this one's first pass, and what it spent before learning.
        self._clock: float | None = None
        self._begun: float | None = None
        self._away = 0.0

    # -- rollouts ----------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        size = self._config.group_size
        if len(inputs) % size:
            raise IbisError("a process got part of a group; its runs must be a multiple of group_size")
        began = time.perf_counter()
        before = self._player.seconds.__dict__.copy()
        prompts = [self._prompts[number] for number in self._numbers(len(inputs) // size)]
        with whole_model(self) if self._served is None else self._served.current(self) as model:
            rollouts = self._player.play(prompts, size, self._make_sampler(model), self._seed(mode))
        if self._on_rollouts is not None and mode == "train":
            self._on_rollouts(self.state.global_step, rollouts)
        self._away += time.perf_counter() - began
        batch = self._batch(rollouts, size)
        self._note(mode, rollouts, batch, before)
        return batch

    def _numbers(self, count: int) -> list[int]:
        """This process's prompts of a batch, by run, update and process alone.

        trl's own order is drawn anew for every round of the prompts by a generator that no checkpoint holds: after a
        resume the second round would be in the order of the first.
        """
        batch = self.state.global_step // self._config.updates_per_batch
        first = (batch * self.accelerator.num_processes + self.accelerator.process_index) * count
        numbers = []
        for place in range(first, first + count):
            around, at = divmod(place, len(self._prompts))
            numbers.append(int(np.random.default_rng([self.args.seed, 41, around]).permutation(len(self._prompts))[at]))
        return numbers

    def _seed(self, mode: str) -> int:
        """Of a batch's sampling, by run, update and process: a resume repeats it."""
        text = f"{self.args.seed}|{mode}|{self.state.global_step}|{self.accelerator.process_index}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        # Rows of a batch that is learnt from in one update need no shuffling: in order of length, little is padding.
        with in_order(self._config.updates_per_batch == 1):
            return trimmed(super()._prepare_inputs(generation_batch))

    def _batch(self, rollouts: Sequence[Played], size: int) -> dict[str, Any]:
        config = self._config
        breakdowns = [rollout.breakdown for rollout in rollouts]
        whole = episode_advantages([b.total for b in breakdowns], size, config.scale_rewards)
        turns = None
        if config.credit == "turn":
            rubric = self._player.rubric
            rewards = [None if b.excluded is not None else rubric.turn_rewards(b) for b in breakdowns]
            turns = turn_advantages(rewards, size, config.scale_rewards)
        elif config.credit == "return":
            earned = [rewarded_turns(rollout, self._player.rubric) for rollout in rollouts]
            whole, turns = np.zeros_like(whole), return_advantages(earned, size, config.return_decay)
        weight = config.turn_weight if config.credit == "turn" else 1.0
        advantages = token_advantages(rollouts, whole, turns, weight)
        order = sorted(range(len(rollouts)), key=lambda place: len(rollouts[place].context.ids))
        batch = to_tensors(
            [rollouts[place] for place in order],
            [advantages[place] for place in order],
            self._player.renderer,
            self.accelerator.device,
        )
        if config.num_places:
            batch.update(place_tensors([rollouts[place] for place in order], batch))
        own = (batch["completion_mask"] * batch["tool_mask"]).sum()
        batch["num_items_in_batch"] = self.accelerator.gather(own).sum()
        with torch.no_grad():
            # On-policy updates compare the weights with themselves; later cuts of a batch need those it was drawn with.
            later = self.args.gradient_accumulation_steps % (self.args.steps_per_generation * self.num_iterations) != 0
            if later or self._corrected:
                batch["old_per_token_logps"] = self.scored(batch)
            if self._corrected:
                # Where a server's arithmetic finds a token too likely, it is drawn too often, and counts less.
                gap = batch["old_per_token_logps"] - batch["sampling_per_token_logps"]
                batch["importance_sampling_ratio"] = gap.nan_to_num(0.0).exp().clamp(max=self._config.vllm_cap)
            if self.beta != 0.0:
                batch["ref_per_token_logps"] = self._reference(batch)
        return batch

    def _reference(self, batch: dict[str, Any]) -> Tensor:
        if self.ref_model is not None:
            return self._score(self.ref_model, batch)
        from trl.models.utils import disable_gradient_checkpointing
        from trl.trainer.utils import use_adapter

        model = self.accelerator.unwrap_model(self.model)
        name = "ref" if "ref" in model.peft_config else None
        checkpointing = self.args.gradient_checkpointing_kwargs
        try:
            with (
                same_parameters_learn(model),
                use_adapter(model, adapter_name=name),
                disable_gradient_checkpointing(self.model, checkpointing),
            ):
                return self._score(self.model, batch)
        finally:
            without_input_gradients(model, self.args)

    def played_and_scored(self, count: int, word: str) -> tuple[dict[str, Any], Tensor, list[str]]:
        """Play prompts of this update once each, and score what was drawn; nothing is learnt. All processes call this.

        Parameters
        ----------
        count
            How many, of this process.
        word
            Seeds the draws.

        Returns
        -------
        tuple
            The batch, log-probabilities (B, C) of its tokens after the prompts, and the names of the runs.
        """
        seconds = dict(self._player.seconds.__dict__)
        prompts = [self._prompts[number] for number in self._numbers(count)]
        runs = self._player.play(prompts, 1, self._make_sampler(self.model), self._seed(word))
        self._player.seconds.__dict__.update(seconds)  # of the updates' own rollouts alone
        nothing = token_advantages(runs, np.zeros(count, np.float32), None, 0.0)
        batch = to_tensors(runs, nothing, self._player.renderer, self.accelerator.device)
        return batch, self.scored(batch), [run.context.key for run in runs]

    def scored(self, batch: dict[str, Any]) -> Tensor:
        """Log-probabilities (B, C) of a batch's tokens under the weights as they are, as the update computes them."""
        with torch.no_grad():
            return self._score(self.model, batch)

    def _score(self, model: Any, batch: dict[str, Any]) -> Tensor:
        names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids", "image_sizes")
        self._own = batch["completion_mask"] * batch["tool_mask"]
        scores, _, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
            batch["completion_ids"].shape[1],
            batch_size=self.args.per_device_train_batch_size,
            **{name: batch[name] for name in names if name in batch},
        )
        return scores

    # -- the update --------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._own = inputs["completion_mask"] * inputs["tool_mask"]
        self._places = inputs.get("place_ids")
        loss: Tensor = super()._compute_loss(model, inputs)
        if self._places is not None:
            loss = loss + self._config.place_weight * self._place_loss(inputs)
            self._places = self._place_scores = None
        drawn, before = inputs["sampling_per_token_logps"], inputs.get("old_per_token_logps", self._scores)
        self._agreement.add(before, drawn, self._own)
        return loss

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        pixels, num_images = kwargs.get("pixel_values"), kwargs.get("num_images")
        renderer = self._player.renderer
        placeholders = int((input_ids == renderer.image_id).sum())
        shown = sum(num_images) if num_images else 0
        check_images(placeholders, num_features(renderer, kwargs), shown, pixels is not None)
        # Batch norms keep their statistics, as in acting: what is scored must be what was drawn.
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        if not self._is_nano:
            found = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
            self._scores = found[0].detach()
            return found
        assert pixels is not None
        assert num_images is not None
        starts = [0]
        for number in num_images:
            starts.append(starts[-1] + number)
        size = kwargs.get("batch_size") or len(input_ids)
        # Only what the model drew: nano gives what it was shown (image tokens) no probability at all.
        wanted = torch.zeros_like(input_ids, dtype=torch.bool)
        wanted[:, -logits_to_keep:] = self._own.bool()
        width = input_ids.shape[1]
        places = self._places
        if places is not None:
            places = F.pad(places, (0, 0, width - logits_to_keep, 0), value=-1)
        scores, entropies, of_places = [], [], []
        for at in range(0, len(input_ids), size):
            until = min(len(input_ids), at + size)
            used = attention_mask[at:until].any(0).nonzero()
            first, last = int(used[0]), int(used[-1]) + 1  # columns beyond are padding in all of these rows
            with self.accelerator.autocast():
                out = model(
                    input_ids=input_ids[at:until, first:last],
                    attention_mask=attention_mask[at:until, first:last],
                    pixel_values=pixels[starts[at] : starts[until]],
                    wanted=wanted[at:until, first:last],
                    temperature=self.temperature,
                    forbidden=renderer.forbidden_ids,
                    places=None if places is None else places[at:until, first:last],
                )
            whole = (first, width - last)
            if places is not None:
                of_places.append(F.pad(out.place_log_probs, (0, 0, *whole))[:, -logits_to_keep:])
            scores.append(F.pad(out.log_probs, whole)[:, -logits_to_keep:])
            entropies.append(F.pad(out.entropy, whole)[:, -logits_to_keep:])
        self._scores = torch.cat(scores).detach()
        if self._places is not None:
            self._place_scores = torch.cat(of_places)
        return torch.cat(scores), torch.cat(entropies), None

    def _place_loss(self, inputs: dict[str, Any]) -> Tensor:
        """Minus the log-probabilities of tried places, weighed by what they were worth; as a part of the token loss.

        Divided as trl divides the sum over tokens of ``dapo`` and ``cispo``. One batch is one update here, so no ratio
        is needed.
        """
        total = -(inputs["place_advantages"] * self._place_scores).sum()
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        part = self.current_gradient_accumulation_steps / self.args.steps_per_generation
        loss: Tensor = total / (tokens * part if self.model.training else tokens)
        return loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward pass; a loss that is no number ends the run before it reaches the weights.

        Raises
        ------
        TrainingError
            If it is not; the checkpoints before it are whole.
        """
        now = time.perf_counter()
        self._clock, self._begun = self._clock or now, self._begun or now
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not math.isfinite(float(loss)):
            raise not_finite(self.state.global_step + 1, Path(self.args.output_dir))
        return loss

    # -- measures ----------------------------------------------------------------------------

    def _note(self, mode: str, rollouts: Sequence[Played], batch: dict[str, Any], before: dict[str, float]) -> None:
        values = measure(rollouts, self._player.rubric, self._config.group_size)
        after = self._player.seconds.__dict__
        spent = {name: after[name] - before[name] for name in after}
        spent["rest"] = max(0.0, spent["total"] - spent["policy"] - spent["segmenter"])
        values |= {f"seconds/{name if name != 'total' else 'rollout'}": value for name, value in spent.items()}
        if self._config.num_places:
            values |= place_measures([tried for run in rollouts for tried in run.context.tried])
        values["images_per_batch"] = float(sum(batch["num_images"]))
        values["tokens/own"] = float((batch["completion_mask"] * batch["tool_mask"]).sum())
        values["tokens/all"] = float(batch["prompt_mask"].sum() + batch["completion_mask"].sum())
        names = sorted(values)
        mine = torch.tensor([values[name] for name in names], device=self.accelerator.device, dtype=torch.float32)
        everyone = self.accelerator.gather(mine[None])
        found = dict(zip(names, everyone.nanmean(0).tolist(), strict=True))
        for name, value in found.items():
            self._metrics[mode][name].append(value)
        self._failures.note(found["failed"], (run.episode.error for run in rollouts if isinstance(run, Rollout)))
        if mode == "train":
            total = int(self.accelerator.gather(batch["prompt_mask"].sum() + batch["completion_mask"].sum()).sum())
            self.state.num_input_tokens_seen += total
        self._metrics[mode]["num_tokens"] = [self.state.num_input_tokens_seen]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Hand figures to whoever keeps them; of an update, with where its time went.

        ``seconds/update`` is the time since the update before. Of it, ``seconds/rollout`` went into playing (policy,
        segmenter and the rest: environment, rendering, rewards), and ``seconds/optimizer`` into learning: batch,
        scores of older or reference weights, forward and backward passes, the optimiser, waiting for other
        processes. What is left made prompts, wrote pages and saved the last checkpoint.
        """
        mode = "train" if self.model.training else "eval"
        if mode == "train" and "loss" in logs and self._begun is not None and self._clock is not None:
            now = time.perf_counter()
            mine = torch.tensor([now - self._clock, now - self._begun - self._away], device=self.accelerator.device)
            update, optimizer = self.accelerator.gather(mine[None]).mean(0).tolist()
            self._metrics[mode]["seconds/update"].append(update)
            self._metrics[mode]["seconds/optimizer"].append(optimizer)
            self._clock, self._begun, self._away = now, None, 0.0
            found, self._agreement = self._agreement.figures(self.accelerator), Agreement()
            if found is not None:
                for name in ("mean", "max", "ratio", "kl"):
                    self._metrics[mode][f"sampler/{name}"].append(getattr(found, name))
        for name in [n for n, values in self._metrics[mode].items() if all(map(math.isnan, values))]:
            del self._metrics[mode][name]  # nothing that it applies to: trackers take no None
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: our own stands beside the exported model."""

    def _send_telemetry(self) -> None:
        """Nothing: what is trained here is nobody else's business."""


def _unused_reward(**_: Any) -> list[float]:
    raise IbisError("rewards come from the rubric; trl was asked to compute one")

"""``ibisagent train rl``: from settings to a model folder.

The loop: groups of siblings play cases in the environment (:mod:`~ibisagent.train.rl.play`), a rubric scores them, and
the weights follow what did better than its siblings (GRPO). Where it departs from the textbook: runs whose tool failed
are left out; a context is one growing conversation of the very tokens that were drawn; with ``credit: turn`` every
reply is also held against its siblings' replies of the same turn.

Several processes (one for each GPU, or one for each CPU core)::

    accelerate launch --num_processes 8 -m ibisagent train rl --preset ibis --model Qwen/Qwen2.5-VL-7B-Instruct …
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ibisagent.train.config import load_config, write_config
from ibisagent.train.rl.config import RlConfig
from ibisagent.train.runs import CONFIG, check_out, disband, read_prompt, restore_on_numbered_cpus, say, write_model

if TYPE_CHECKING:
    from ibisagent.train.models import Start
    from ibisagent.train.vqa_probe import VqaProbe

__all__ = ["main", "train"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibisagent train rl``.

    Parameters
    ----------
    argv
        Options without the program's name; None takes those of the process.

    Returns
    -------
    int
        0, or 130 if it was stopped by Ctrl-C (a checkpoint is saved).

    Raises
    ------
    InputError
        If a setting, the prompts, the segmenter or the model cannot be used.
    TrainingError
        If memory does not suffice or the loss is not finite.
    """
    code = train(load_config(RlConfig, argv, "ibisagent train rl", "Multi-turn reinforcement learning."))
    disband()
    return code


def train(config: RlConfig) -> int:
    """Train, and write ``OUT/model``; returns and raises as :func:`main`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from accelerate import PartialState

    from ibisagent.rendering.png import write_atomic
    from ibisagent.train.guards import StopOnSignal, last_checkpoint, one_line_errors
    from ibisagent.train.watch.trackers import check_trackers

    check_trackers(config.report_to)
    state = PartialState(cpu=config.device == "cpu" or not torch.cuda.is_available())
    checkpoints = config.out / "checkpoints"
    newest = last_checkpoint(checkpoints)
    check_out(config, newest)
    smaller = "--sampler-batch, or in another --out a smaller --micro-batch, --max-pixels or --max-context"
    with one_line_errors(checkpoints, smaller, config.gradient_checkpointing):
        trainer, start, told, probe = _build(config, state.num_processes)
        if state.is_main_process:
            config.out.mkdir(parents=True, exist_ok=True)
            write_config(config, config.out / CONFIG)
        stop = StopOnSignal(config.updates_per_batch)
        trainer.add_callback(stop)
        restore_on_numbered_cpus()
        began = time.perf_counter()
        try:
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        finally:
            stop.close()
        if stop.stopped and trainer.state.global_step < trainer.state.max_steps:
            if state.is_main_process:
                say(f"ibisagent: stopped at update {trainer.state.global_step}, saved; --resume goes on")
            return 130
        seconds = time.perf_counter() - began
        if probe is not None:
            seconds -= probe.seconds
            probe.finish()
        folder = config.out / "model"
        write_model(trainer, start, folder, told, config.dialect)
        if state.is_main_process:
            result = _result(trainer, config, seconds)
            (folder / "README.md").write_text(_card(config, result, start), encoding="utf-8")
            # Last and at once: where it stands, the run is whole.
            write_atomic((json.dumps(result, indent=1) + "\n").encode(), config.out / "result.json")
            say(f"{result['updates']} updates; the model is in {folder} (--policy vlm:{folder})")
        state.wait_for_everyone()
    return 0


def _build(config: RlConfig, num_processes: int) -> tuple[Any, Start, str, VqaProbe | None]:
    import torch
    from accelerate import PartialState

    from ibisagent.engine.questions import open_questions
    from ibisagent.errors import InputError
    from ibisagent.messages import default_system_prompt
    from ibisagent.train.models import Lora, load_start
    from ibisagent.train.rl.frozen_vision import remember_vision
    from ibisagent.train.rl.prompts import open_mix
    from ibisagent.train.rl.setup import NO_PLACES, grpo_arguments, make_player, sampler_maker, serve
    from ibisagent.train.rl.trainer import AgentGrpoTrainer
    from ibisagent.train.tokens import Renderer
    from ibisagent.train.vqa_probe import attach_probe
    from ibisagent.train.watch.log import RL_NAMES, LogFile, own_lines_only
    from ibisagent.train.watch.pages import PageWriter
    from ibisagent.train.watch.trackers import tensorboard_callback

    args = grpo_arguments(config, num_processes)
    prompts = open_mix(config.prompts, config.vqa_share, config.seed)
    questions = open_questions(config.vqa_probe) if config.vqa_probe else None
    if PartialState().is_main_process:
        for note in prompts.notes:
            say(note)
    lora = Lora(config.lora_rank, config.lora_alpha, 0.0, config.lora_targets) if config.lora_rank else None
    start = load_start(
        config.model,
        dtype="bfloat16" if config.low_precision and lora is not None else "float32",
        lora=lora,
        freeze_vision=config.freeze_vision,
        random_weights=config.random_weights,
        max_pixels=config.max_pixels,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
    )
    told = start.system_prompt
    if config.system_prompt is not None:
        told = read_prompt(config.system_prompt)
    if start.nano:
        start.model.to(memory_format=torch.channels_last)  # its tower is convolutions
        # As many pictures as a process's part of a batch can show: older ones are not asked for again.
        runs = config.prompts_per_update * config.updates_per_batch * config.group_size // num_processes
        remember_vision(start.model, most=runs * (config.max_steps + 1))
    elif config.num_places:
        raise InputError(NO_PLACES)
    renderer = Renderer(start.processor)
    served = serve(config, start.nano)
    player = make_player(config, renderer, told, start.dialect)
    pages = None
    if config.page_updates and PartialState().is_main_process:
        number, scale = config.num_pages, config.scale_rewards
        pages = PageWriter(config.out / "pages", config.page_updates, number, player.rubric, scale)
    trainer = AgentGrpoTrainer(
        start.model,
        args,
        config,
        prompts,
        player,
        sampler_maker(config, renderer, served.server if served is not None else None),
        on_rollouts=pages,
        served=served,
        processing_class=start.processor,
        callbacks=[
            LogFile(config.out / "log.jsonl", RL_NAMES, "update"),
            *tensorboard_callback(config.report_to, config.out / "tensorboard"),
        ],
    )
    own_lines_only(trainer)
    probe = attach_probe(questions, config.out, renderer, trainer)
    return trainer, start, told if told is not None else default_system_prompt(player.dialect), probe


def _result(trainer: Any, config: RlConfig, seconds: float) -> dict[str, Any]:
    """What a program wants to know of a run that ended."""
    from ibisagent import __version__

    last = [line for line in trainer.state.log_history if "loss" in line][-10:]
    names = ("reward", "iou", "steps", "validity", "refusal/right", "refusal/false", "reward/vqa", "entropy")
    mean = {n: [line[n] for line in last if line.get(n) is not None] for n in names}
    return {
        "ibisagent_version": __version__,
        "updates": trainer.state.global_step,
        "runs": trainer.state.global_step * config.prompts_per_update * config.group_size // config.updates_per_batch,
        "seconds": round(seconds, 1),
        "last_updates": {n: round(sum(v) / len(v), 4) for n, v in mean.items() if v},
        "config": config.model_dump(mode="json"),
    }


def _card(config: RlConfig, result: dict[str, Any], start: Start) -> str:
    figures = "\n".join(f"- {name}: {value}" for name, value in result["last_updates"].items())
    asked = ", ".join(f"`{spec}`" for spec in config.prompts)
    return f"""# {config.out.name}

Trained by `ibisagent train rl` (ibisagent {result["ibisagent_version"]}) from `{start.base}`:
{result["updates"]} updates, {result["runs"]} runs on {asked} with the segmenter `{config.segmenter}` and
the reward `{config.reward}`. All settings: `config.yaml` beside this folder.

Means over the last updates, of sampled runs on the prompts that it trained on (no measure of quality; for that,
`ibisagent evaluate`):

{figures}

Not for clinical use.
"""


if __name__ == "__main__":
    sys.exit(main())

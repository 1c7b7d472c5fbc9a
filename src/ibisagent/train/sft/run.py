"""``ibisagent train sft``: from settings to a model folder."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.actions import dialect_for
from ibisagent.errors import InputError
from ibisagent.train.config import load_config, read_yaml, write_config
from ibisagent.train.runs import CONFIG, check_out, disband, read_prompt, restore_on_numbered_cpus, say, write_model
from ibisagent.train.sft.config import SftConfig

if TYPE_CHECKING:
    from ibisagent.train.models import Start
    from ibisagent.train.vqa_probe import VqaProbe

__all__ = ["main", "train"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibisagent train sft``.

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
        If a setting, the corpus or the model cannot be used.
    TrainingError
        If memory does not suffice, the loss is not finite, or images do not reach the model.
    """
    code = train(load_config(SftConfig, argv, "ibisagent train sft", "Supervised fine-tuning on trajectories."))
    disband()
    return code


def train(config: SftConfig) -> int:
    """Train, and write ``OUT/model``; returns and raises as :func:`main`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from accelerate import PartialState

    from ibisagent.rendering.png import write_atomic
    from ibisagent.train.guards import StopOnSignal, last_checkpoint, one_line_errors
    from ibisagent.train.watch.trackers import check_trackers

    check_trackers(config.report_to)
    bf16 = _bf16(config)
    state = PartialState(cpu=config.device == "cpu")
    accumulation = config.accumulation(state.num_processes)
    checkpoints = config.out / "checkpoints"
    newest = last_checkpoint(checkpoints)
    config = _in_its_order(config, state.num_processes)
    check_out(config, newest)
    smaller = "--per-device-batch, or in another --out a smaller --max-pixels or --max-length"
    with one_line_errors(checkpoints, smaller, config.gradient_checkpointing):
        trainer, start, facts, probe = _build(config, bf16, accumulation, checkpoints)
        if state.is_main_process:
            config.out.mkdir(parents=True, exist_ok=True)
            write_config(config, config.out / CONFIG)
            say(_opening(trainer, facts, newest))
        stop = next(c for c in trainer.callback_handler.callbacks if isinstance(c, StopOnSignal))
        restore_on_numbered_cpus()
        began = time.perf_counter()
        try:
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        finally:
            stop.close()
        if stop.stopped and trainer.state.global_step < trainer.state.max_steps:
            if state.is_main_process:
                say(f"ibisagent: stopped at step {trainer.state.global_step}, saved; --resume goes on")
            return 130
        if trainer.eval_dataset is not None:
            trainer.evaluate()
        seconds = time.perf_counter() - began
        if probe is not None:
            seconds -= probe.seconds
            probe.finish()
        folder = config.out / "model"
        write_model(trainer, start, folder, facts["system_prompt"], facts["dialect"])
        if state.is_main_process:
            result = _result(trainer, config, facts, seconds)
            (folder / "README.md").write_text(_card(config, result, start.base), encoding="utf-8")
            # Last and at once: where it stands, the run is whole.
            write_atomic((json.dumps(result, indent=1) + "\n").encode(), config.out / "result.json")
            say(f"{result['steps']} steps, loss {result['loss']}; the model is in {folder} (--policy vlm:{folder})")
        state.wait_for_everyone()
    return 0


def _in_its_order(config: SftConfig, num_processes: int) -> SftConfig:
    """The settings with the number that the order of the rows hangs on: as the run began, where it goes on."""
    if config.length_group is not None:
        return config
    known = config.out / CONFIG
    begun = read_yaml(known) if config.resume and known.is_file() else {}
    # Runs of before this setting took what went through all devices at a time.
    group = begun.get("length_group") or begun.get("per_device_batch", config.per_device_batch) * num_processes
    return config.model_copy(update={"length_group": group})


def _build(
    config: SftConfig, bf16: bool, accumulation: int, checkpoints: Path
) -> tuple[Any, Start, dict[str, Any], VqaProbe | None]:
    import torch
    from datasets import Dataset
    from trl import SFTConfig as TrlConfig

    from ibisagent.engine.questions import open_questions
    from ibisagent.train.guards import StopOnSignal
    from ibisagent.train.models import Lora, load_start
    from ibisagent.train.sft.collator import SftCollator
    from ibisagent.train.sft.conversations import open_conversations
    from ibisagent.train.sft.nano_batch import NanoCollator
    from ibisagent.train.sft.trainer import SftTrainer
    from ibisagent.train.tokens import Renderer
    from ibisagent.train.vqa_probe import attach_probe
    from ibisagent.train.watch.log import LogFile, own_lines_only
    from ibisagent.train.watch.trackers import tensorboard_callback, tracker_arguments

    questions = open_questions(config.vqa_probe) if config.vqa_probe else None
    lora = None
    if config.lora_rank:
        lora = Lora(config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_targets)
    dtype = config.dtype if config.dtype != "auto" else "bfloat16" if bf16 and lora is not None else "float32"
    start = load_start(
        config.model,
        dtype=dtype,
        lora=lora,
        freeze_vision=config.freeze_vision,
        random_weights=config.random_weights,
        max_pixels=config.max_pixels,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
    )
    prompt = start.system_prompt
    if config.system_prompt is not None:
        prompt = read_prompt(config.system_prompt)
    learnt, measured = open_conversations(config, prompt, start.grid)
    renderer = Renderer(start.processor)
    parts = [learnt] if measured is None else [learnt, measured]
    told = _system_prompt(learnt) if prompt is None else prompt
    facts = {
        "system_prompt": told,
        "dialect": _dialect(learnt.dialects(), told, start.dialect),
        "conversations": len(learnt),
        "questions": sum(place.table == "vqa" for place in learnt.places),
        "measured": 0 if measured is None else len(measured),
    }
    sets = []
    for number, part in enumerate(parts):
        lengths = [40 * place.turns + place.pixels // 784 for place in part.places]
        rows = list(range(len(part)))
        sets.append(Dataset.from_dict({"part": [number] * len(rows), "row": rows, "length": lengths}))
    args = TrlConfig(
        output_dir=str(checkpoints),
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=config.device == "cpu",
        bf16=bf16,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=0 if config.schedule == "constant" else config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.per_device_batch,
        per_device_eval_batch_size=config.per_device_batch,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=config.gradient_checkpointing,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=torch.cuda.is_available() and config.device != "cpu",
        **tracker_arguments(config.report_to, config.out),
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=config.keep_checkpoints,
        eval_strategy="steps" if measured is not None else "no",
        eval_steps=config.eval_steps or config.save_steps,
        prediction_loss_only=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        disable_tqdm=not sys.stderr.isatty(),
    )
    collator: SftCollator
    if start.grid is not None and config.nano_places:
        collator = NanoCollator(parts, renderer, config.max_length, start.grid)
    else:
        collator = SftCollator(parts, renderer, config.max_length, torch.bfloat16 if bf16 else None)
    trainer = SftTrainer(
        start.model,
        args,
        train_dataset=sets[0],
        eval_dataset=sets[1] if measured is not None else None,
        processing_class=start.processor,
        collator=collator,
        callbacks=[
            StopOnSignal(),
            LogFile(config.out / "log.jsonl"),
            *tensorboard_callback(config.report_to, config.out / "tensorboard"),
        ],
        length_group=config.length_group if config.group_by_length else None,
        still_norms=config.freeze_vision or not config.random_weights,
    )
    own_lines_only(trainer)
    return trainer, start, facts, attach_probe(questions, config.out, renderer, trainer)


def _bf16(config: SftConfig) -> bool:
    import torch

    if config.bf16 is not None:
        return config.bf16
    return config.device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def _dialect(fitting: Sequence[str], told: str, before: str | None) -> str:
    """The grammar that is learnt: of those that the corpus's replies fit, the one that the model knows or is told.

    Raises
    ------
    InputError
        If the prompt quotes none of them, but another.
    """
    meant = dialect_for(None, told).name
    known = [name for name in (before, meant) if name is not None and (name in fitting or not fitting)]
    name = known[0] if known else fitting[0]
    try:
        dialect_for(name, told)
    except InputError:
        raise InputError(
            f"the corpus's replies are in the dialect '{name}', but the system prompt that is learnt with offers "
            f"'{meant}': take another corpus, or give a prompt of that dialect with --system-prompt"
        ) from None
    return name


def _system_prompt(learnt: Any) -> str:
    """The prompt of the corpus: that of its first trajectory."""
    messages = next(learnt[i] for i, p in enumerate(learnt.places) if p.table == "sft").messages
    return messages[0]["content"][0]["text"] if messages[0]["role"] == "system" else ""


def _opening(trainer: Any, facts: dict[str, Any], newest: Path | None) -> str:
    count = sum(p.numel() for p in trainer.model.parameters())
    tuned = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    text = f"{facts['conversations']} conversations"
    if facts["questions"]:
        text += f", {facts['questions']} of them visual questions"
    if facts["measured"]:
        text += f"; {facts['measured']} to measure on"
    text += f"; {tuned / 1e6:.2f} M of {count / 1e6:.2f} M parameters are trained"
    return text + (f"; resuming from {newest.name}" if newest else "")


def _result(trainer: Any, config: SftConfig, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    logged = [row for row in trainer.state.log_history if "loss" in row]
    measured = [row for row in trainer.state.log_history if "eval_loss" in row]
    return {
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "loss": logged[-1]["loss"] if logged else None,
        "token_accuracy": logged[-1].get("mean_token_accuracy") if logged else None,
        "eval_loss": measured[-1]["eval_loss"] if measured else None,
        "seconds": round(seconds, 1),
        **{k: v for k, v in facts.items() if k != "system_prompt"},
        "seed": config.seed,
    }


def _card(config: SftConfig, result: dict[str, Any], base: str) -> str:
    from ibisagent import __version__

    lines = [
        "# A segmentation agent, fine-tuned",
        "",
        f"Made by `ibisagent train sft` {__version__} from `{Path(base).name if Path(base).is_dir() else base}` on "
        f"{result['conversations']} conversations of {', '.join(f'`{Path(c).name}`' for c in config.corpus)}: "
        f"{result['steps']} steps, last training loss {result['loss']}.",
        "",
        "```bash",
        'ibisagent segment IMAGE "INSTRUCTION" --policy vlm:FOLDER',
        "```",
        "",
        "`system_prompt.txt` is the prompt it was trained with. It has not been evaluated by this run: see "
        "`ibisagent evaluate`. Not a medical device.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())

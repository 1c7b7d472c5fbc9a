"""Train nano, the embedded policy: supervised fine-tuning on simulated experts' episodes.

How to run::

    ibisagent train nano --out runs/nano --minutes 50

It first writes trajectories (``--num-trajectories``, by the embedded segmenter, on mini's train split and
on phantoms) into ``OUT/trajectories``, resuming where shards are there already; then it trains, resuming
from ``OUT/last.pt``; last it exports the averaged weights in fp16 to ``OUT/model``, which ``--policy
nano:OUT/model`` runs. ``--minutes`` counts training time over all parts of a run.

Where it departs from textbook SFT: a coordinate is learnt from a soft target over all cells where the
click would have been right (:func:`ibisagent.train.nano_data.soft_cells`), because the expert's one cell is
an arbitrary choice among many; wrong actions and everything that the model did not write are masked.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from ibisagent.engine.instructions import draw_instruction
from ibisagent.engine.reasoning import answer_text, thought_text, where_text
from ibisagent.engine.sources import POSSIBLE, SceneSource
from ibisagent.engine.trajectories import read_shard, synthesize, write_shard
from ibisagent.policies.nano_model import NanoConfig, NanoForConditionalGeneration, pool
from ibisagent.policies.nano_processor import NanoProcessor, load_processor
from ibisagent.train.nano_data import NanoSamples
from ibisagent.train.vocabulary import build_processor, save_processor

__all__ = ["SYSTEM_PROMPT", "export", "main"]

SYSTEM_PROMPT = "Segment the target by clicks. Look, think, act, and stop when the mask fits."
"""Short on purpose: every token of it is read at every step."""

SHARD = 25
"""Trajectories a file: what is lost at most when the writing is interrupted."""

GROUP = 24
"""Trajectories that are drawn together, then cut into batches of like length."""


def _corpus(source: SceneSource) -> list[str]:
    """Texts that the tokenizer is trained on: instructions, thoughts, answers, observations."""
    rng = np.random.default_rng(0)
    texts = [SYSTEM_PROMPT] * 20
    observations = [
        "The new mask is shown in green.",
        "The mask did not change.",
        "There is no mask now.",
        "The mask is empty now.",
        "The given mask is shown in green.",
        "The reply was not carried out: there is nothing to undo.",
    ]
    for name, homes in sorted(source.homes.items()):
        for i in range(60):
            modality = sorted(homes)[i % len(homes)]
            texts.append(draw_instruction(name, modality, rng, stage="refine" if i % 3 == 0 else "start").text)
        for kind in ("start", "missed", "excess", "undo", "discard", "fits", "rough", "absent"):
            for _ in range(3):
                thought = thought_text(kind, name, where_text(float(rng.random()), float(rng.random())))
                texts.append(f"<think>{thought}</think><action>Positive Point (0.5000, 0.5000)</action>")
                texts.append(f"<think>{thought}</think><action>Negative Point (0.5000, 0.5000)</action>")
        for verdict in ("found", "absent", "uncertain"):
            answer = f"{verdict.capitalize()}: {answer_text(verdict, name)}"
            texts.append(f"</think><action>Terminate</action><answer>{answer}</answer>")
        texts += ["</think><action>Undo</action>", "</think><action>Discard</action>"]
    return texts + observations * 60


def _synthesize(a: argparse.Namespace, folder: Path, part: int, parts: int) -> None:
    """Write this process's share of the trajectory shards."""
    from ibisagent.segmenters.litemedsam import LiteMedSamSegmenter
    from ibisagent.train.segmenter import load_checkpoint

    torch.set_num_threads(1)
    segmenter = LiteMedSamSegmenter(clicknet=load_checkpoint(a.segmenter_weights) if a.segmenter_weights else None)
    source = SceneSource(a.cases, seed=a.seed)
    for shard in range(part, math.ceil(a.num_trajectories / SHARD), parts):
        path = folder / f"{shard:05d}.jsonl"
        if path.exists():
            continue
        started = time.perf_counter()
        items = [
            synthesize(source.scene(i), segmenter, np.random.default_rng([a.seed, 3, i]))
            for i in range(shard * SHARD, (shard + 1) * SHARD)
        ]
        write_shard(path, items)
        print(
            f"shard {shard}: {(time.perf_counter() - started) / SHARD:.2f} s a trajectory", file=sys.stderr, flush=True
        )


def _loss(
    model: NanoForConditionalGeneration, batch: dict[str, Tensor], cell_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy over the words, and over the cells where the word is a coordinate."""
    config = model.config
    out = model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"], return_states=True, use_cache=False)
    hidden = out.hidden
    at = batch["loss_mask"][:, 1:].nonzero(as_tuple=True)
    goal = batch["input_ids"][:, 1:][at]
    goal = torch.where(goal >= config.vocab_size, config.coordinate_token_id, goal)
    logits = model.base_logits(hidden[:, :-1][at], pool(out.pointer_keys)[out.image_of[:, :-1][at]]).float()
    # The sum over a turn, not the mean over tokens: one or two words of a turn decide (missed, excess, fits, absent),
    # the other thirty follow from them, and a mean over all would leave the decisions unlearnt.
    turns = (goal == config.eos_token_id).sum().clamp_min(1)
    words = F.cross_entropy(logits, goal, reduction="sum") / turns
    accuracy = (logits.argmax(-1) == goal).float().mean()
    row, column = batch["cell_row"], batch["cell_at"] - 1
    states = hidden[row, column]
    images = out.image_of[row, column]
    keys = out.pointer_keys[images]
    cells = model.cell_logits(states, keys).float().log_softmax(-1)
    weights = batch["cell_weights"]
    cross = -(weights * cells).sum(-1)
    entropy = -(weights * weights.clamp_min(1e-9).log()).sum(-1)
    divergence = (cross - entropy).mean() if len(cross) else words * 0
    # Share of probability on cells where a click would have been right.
    hit = (cells.exp() * (weights > 1e-6)).sum(-1).mean() if len(cross) else words * 0
    loss = words + cell_weight * divergence
    return loss, {
        "words": float(words.detach()),
        "accuracy": float(accuracy),
        "divergence": float(divergence.detach()),
        "right_place": float(hit.detach()),
    }


def _freeze_norms(model: NanoForConditionalGeneration, average: NanoForConditionalGeneration) -> None:
    """From now on the batch norms use the averaged statistics, in training as at inference.

    A batch holds conversations of one length, so its own statistics say something about how they end.
    """
    buffers = dict(average.named_buffers())
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def export(model: NanoForConditionalGeneration, processor: NanoProcessor, folder: Path) -> None:
    """Write an fp16 model folder that the policies load: weights, processor and ``system_prompt.txt``.

    Parameters
    ----------
    model
        On the CPU, in ``float32``; it is copied, not changed.
    processor
        The one that the model was trained with.
    folder
        Made if need be; files in it are replaced.
    """
    half = NanoForConditionalGeneration(model.config).eval()
    half.load_state_dict(model.state_dict())
    half.to(torch.float16).save_pretrained(folder)
    save_processor(processor, folder)
    (folder / "system_prompt.txt").write_text(SYSTEM_PROMPT + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibisagent train nano``.

    Parameters
    ----------
    argv
        Options without the program's name; None takes those of the process.

    Returns
    -------
    int
        0, or 5 if the trajectories could not be written or the loss is not finite (the last checkpoint is kept).
    """
    p = argparse.ArgumentParser(prog="ibisagent train nano", description=__doc__.split("\n")[0])
    p.add_argument("--cases", type=Path, default=Path("data/mini/cases.jsonl"))
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--num-trajectories", type=int, default=3000)
    p.add_argument("--segmenter-weights", type=Path, help="ClickNet checkpoint (.pt); default: the embedded one")
    p.add_argument("--processes", type=int, default=2, help="for the trajectories")
    p.add_argument("--part", help=argparse.SUPPRESS)
    p.add_argument("--only-trajectories", action="store_true")
    p.add_argument("--minutes", type=float, default=50.0)
    p.add_argument("--batch-images", type=int, default=32, help="most images in a batch")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--cell-weight", type=float, default=1.0)
    p.add_argument("--freeze-after", type=float, default=0.5, help="share of the time until batch norms are frozen")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--device", default="cpu")
    a = p.parse_args(argv)
    shards = a.out / "trajectories"
    shards.mkdir(parents=True, exist_ok=True)
    if a.part:
        part, parts = (int(v) for v in a.part.split("/"))
        _synthesize(a, shards, part, parts)
        return 0
    own = list(argv if argv is not None else sys.argv[1:])
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "ibisagent.train.nano", *own, "--part", f"{k}/{a.processes}"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for k in range(a.processes)
    ]
    if any(w.wait() for w in workers):
        print("ibisagent: error: writing the trajectories failed; see above", file=sys.stderr)
        return 5
    if a.only_trajectories:
        return 0
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    return _train(a, shards)


def _train(a: argparse.Namespace, shards: Path) -> int:
    """Train on the shards until the time is spent, then export."""
    last, folder = a.out / "last.pt", a.out / "model"
    count = math.ceil(a.num_trajectories / SHARD)
    trajectories = [t for path in sorted(shards.glob("*.jsonl"))[:count] for t in read_shard(path)]
    # Shards of an earlier version may hold refusals that are not sure.
    unsure = {(m, name) for m, names in POSSIBLE.items() for name in names}
    trajectories = [t for t in trajectories if t.target is not None or (t.modality, t.target_name) not in unsure]
    if folder.exists() and last.exists():
        processor = load_processor(folder)
    else:
        processor = build_processor(_corpus(SceneSource(a.cases, seed=a.seed)), size=1024)
        save_processor(processor, folder)
    tokenizer = processor.tokenizer
    config = NanoConfig(
        vocab_size=len(tokenizer) - 64 * 64,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        coordinate_token_id=tokenizer.convert_tokens_to_ids("<|coordinate|>"),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    model, average = NanoForConditionalGeneration(config), NanoForConditionalGeneration(config)
    average.load_state_dict(model.state_dict())
    model.to(a.device, memory_format=torch.channels_last).train()
    average.to(a.device)
    decay = [q for n, q in model.named_parameters() if q.dim() > 1 and "embed" not in n]
    rest = [q for n, q in model.named_parameters() if not (q.dim() > 1 and "embed" not in n)]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=a.lr, betas=(0.9, 0.98)
    )
    seconds, drawn, steps = 0.0, 0, 0
    if last.exists():
        state = torch.load(last, map_location="cpu", weights_only=True)
        model.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        seconds, drawn, steps = state["seconds"], state["samples"], state["steps"]
        print(f"resumed at {seconds / 60:.1f} min, {drawn} samples", file=sys.stderr)
    print(
        f"{len(trajectories)} trajectories, {sum(q.numel() for q in model.parameters()) / 1e6:.2f} M parameters, "
        f"vocabulary {config.vocab_size} + {64 * 64}",
        file=sys.stderr,
        flush=True,
    )
    data = NanoSamples(
        trajectories,
        processor,
        SYSTEM_PROMPT,
        seed=a.seed,
        length=10_000_000,
        start=drawn // GROUP,
        group=GROUP,
        max_batch_images=a.batch_images,
    )
    loader = DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=2)
    budget, warm = a.minutes * 60, min(90.0, a.minutes * 60 * 0.04)
    clock = saved = shown = time.perf_counter()
    frozen = False
    running: list[dict[str, float]] = []

    def save() -> None:
        temporary = last.with_suffix(".tmp")
        torch.save(
            {
                "net": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "seconds": seconds,
                "samples": drawn,
                "steps": steps,
            },
            temporary,
        )
        temporary.replace(last)

    with (a.out / "log.jsonl").open("a", encoding="utf-8") as log:
        for batch in (b for group in loader for b in group):
            elapsed = seconds + time.perf_counter() - clock
            lr = (
                a.lr
                * min(1.0, (elapsed + 1) / warm)
                * max(0.02, 0.5 * (1 + math.cos(math.pi * min(1.0, elapsed / budget))))
            )
            for g in optimizer.param_groups:
                g["lr"] = lr
            if not frozen and elapsed >= a.freeze_after * budget:
                _freeze_norms(model, average)
                frozen = True
            batch = {k: v.to(a.device) for k, v in batch.items()}
            pixels = batch["pixel_values"].permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
            batch["pixel_values"] = pixels.contiguous(memory_format=torch.channels_last)
            with torch.autocast(torch.device(a.device).type, dtype=torch.bfloat16):
                loss, parts = _loss(model, batch, a.cell_weight)
            if not math.isfinite(float(loss.detach())):
                print("ibisagent: error: the loss is not finite; the last checkpoint is kept", file=sys.stderr)
                return 5
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps += 1
            drawn += len(batch["input_ids"])
            with torch.no_grad():
                keep = min(0.998, (steps + 1) / (steps + 20))
                for mine, other in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                    if mine.dtype.is_floating_point:
                        mine.lerp_(other, 1 - keep)
                    else:
                        mine.copy_(other)
            running.append(parts)
            now = time.perf_counter()
            elapsed = seconds + now - clock
            if now - shown > 20:
                shown = now
                record = {"minutes": round(elapsed / 60, 2), "samples": drawn, "steps": steps, "lr": round(lr, 6)}
                record |= {k: round(float(np.mean([r[k] for r in running])), 4) for k in running[0]}
                running.clear()
                log.write(json.dumps(record) + "\n")
                log.flush()
                print(record, file=sys.stderr, flush=True)
            if now - saved > 90 or elapsed >= budget:
                seconds += now - clock
                clock = saved = now
                save()
            if elapsed >= budget:
                break
    export(average.cpu(), processor, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Train nano, the embedded policy: supervised fine-tuning on simulated experts' episodes.

How to run::

    ibisagent train nano --out runs/nano

It first writes trajectories (``--num-trajectories``, by the embedded segmenter, on mini's train split without the
development split, and on phantoms) into ``OUT/trajectories``, resuming where shards are there already. Then it trains,
resuming from ``OUT/last.pt``: first to read (``--read-minutes``, sentences alone), then on images. After
``--correct-after`` of the time it lets what it has learnt act on such scenes, and the expert go on from where that led
(``OUT/corrections``); the rest of the time it learns from those too. It exports the averaged weights in fp16 to
``OUT/model``, which ``--policy nano:OUT/model`` runs. ``--minutes`` counts the time on images over all parts of a run;
reading and writing come on top.

Where it departs from textbook SFT: a coordinate is learnt from a soft target over all cells where the
click would have been right (:func:`ibisagent.train.nano_data.soft_cells`), because the expert's one cell is
an arbitrary choice among many; wrong actions and everything that the model did not write are masked.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from ibisagent.errors import InputError
from ibisagent.policies.nano_model import NanoConfig, NanoForConditionalGeneration
from ibisagent.policies.nano_parts import CHOICE_WEIGHT, choice_loss
from ibisagent.policies.nano_processor import NanoProcessor, load_processor
from ibisagent.segmenters.precision import fast_dtype
from ibisagent.train import nano_corpus
from ibisagent.train.nano_corpus import SYSTEM_PROMPT
from ibisagent.train.nano_data import NanoSamples
from ibisagent.train.nano_reading import learn_to_read
from ibisagent.train.sft.nano_loss import maps_loss
from ibisagent.train.vocabulary import build_processor, save_processor

__all__ = ["SYSTEM_PROMPT", "export", "main"]

GROUP = 24
"""Trajectories that are drawn together, then cut into batches of like length."""


def _loss(
    model: NanoForConditionalGeneration, batch: dict[str, Tensor], cell_weight: float, belief_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy over the words, over the cells where the word is a coordinate, and of the belief."""
    config = model.config
    out = model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"], return_states=True, use_cache=False)
    hidden = out.hidden
    at = batch["loss_mask"][:, 1:].nonzero(as_tuple=True)
    goal = batch["input_ids"][:, 1:][at]
    goal = torch.where(goal >= config.vocab_size, config.coordinate_token_id, goal)
    logits = model.base_logits(hidden[:, :-1][at], out.pooled[out.image_of[:, :-1][at]]).float()
    # The sum over a turn, not the mean over tokens: one or two words of a turn decide (missed, excess, fits, absent),
    # the other thirty follow from them, and a mean over all would leave the decisions unlearnt.
    turns = (goal == config.eos_token_id).sum().clamp_min(1)
    words = F.cross_entropy(logits, goal, reduction="sum") / turns
    row, column = batch["cell_row"], batch["cell_at"] - 1
    states = hidden[row, column]
    images = out.image_of[row, column]
    cells = model.pointer.score(states, out.pointer_keys[images], out.belief[images]).float().log_softmax(-1)
    weights = batch["cell_weights"]
    cross = -(weights * cells).sum(-1)
    entropy = -(weights * weights.clamp_min(1e-9).log()).sum(-1)
    divergence = (cross - entropy).mean() if len(cross) else words * 0
    # Share of probability on cells where a click would have been right.
    hit = (cells.exp() * (weights > 1e-6)).sum(-1).mean() if len(cross) else words * 0
    truth = torch.stack([batch["target_maps"], batch["shown_maps"]], 1).float() / 255
    belief, overlap = maps_loss(out.belief[:, :2], truth)
    choice = words * 0  # of weights that choose nothing
    if model.pointer.choice is not None:
        choice = choice_loss(out.belief[:, 2], truth[:, 0] * batch["ones"][:, None])
    decided = _decisions(logits, goal, batch["loss_mask"], at)
    loss = words + cell_weight * divergence + belief_weight * belief + CHOICE_WEIGHT * choice
    return loss, {
        "words": float(words.detach()),
        "decided": decided,
        "divergence": float(divergence.detach()),
        "right_place": float(hit.detach()),
        "belief": float(belief.detach()),
        "belief_dice": float(overlap.detach()),
        "choice": float(choice.detach()),
    }


def _decisions(logits: Tensor, goal: Tensor, loss_mask: Tensor, at: tuple[Tensor, ...]) -> float:
    """Share of turns whose first ten tokens are all predicted right: what was decided, not how it was said."""
    row, column = at
    first = loss_mask[:, 1:].clone()
    first[:, 1:] &= ~loss_mask[:, 1:-1]
    turn = first.long().cumsum(1)[row, column] + row * (loss_mask.shape[1] + 1)
    starts = torch.cat([torch.ones(1, dtype=torch.bool, device=turn.device), turn[1:] != turn[:-1]])
    begin = starts.nonzero()[:, 0]
    place = torch.arange(len(turn), device=turn.device) - begin[starts.long().cumsum(0) - 1]
    wrong = (logits.argmax(-1) != goal) & (place < 10)
    bad = torch.zeros(len(begin), device=turn.device).index_add_(0, starts.long().cumsum(0) - 1, wrong.float())
    return float((bad == 0).float().mean())


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
        0, or 5 if trajectories or corrections could not be written, or the loss is not finite (the last checkpoint
        is kept).

    Raises
    ------
    InputError
        If the case list cannot be read, or ``--out`` belongs to a run with other options.
    """
    p = argparse.ArgumentParser(prog="ibisagent train nano", description=__doc__.split("\n")[0])
    p.add_argument("--cases", type=Path, default=Path("data/mini/cases.jsonl"))
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--start", type=Path, help="model folder to go on from (default: none; it learns to read first)")
    p.add_argument("--num-trajectories", type=int, default=2500)
    p.add_argument("--num-corrections", type=int, default=500, help="trajectories that begin with nano's own turns")
    p.add_argument("--correct-after", type=float, default=0.7, help="share of the time until those are made")
    p.add_argument("--segmenter-weights", type=Path, help="ClickNet checkpoint (.pt); default: the embedded one")
    p.add_argument("--processes", type=int, default=2, help="for the trajectories")
    p.add_argument("--part", help=argparse.SUPPRESS)
    p.add_argument("--kind", default="trajectories", help=argparse.SUPPRESS)
    p.add_argument("--only-trajectories", action="store_true")
    p.add_argument("--minutes", type=float, default=68.0)
    p.add_argument("--read-minutes", type=float, default=3.0, help="sentences without images, before all else")
    p.add_argument("--batch-images", type=int, default=32, help="most images in a batch")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--cell-weight", type=float, default=1.0)
    p.add_argument("--belief-weight", type=float, default=1.0)
    p.add_argument("--question-batches", type=int, default=4, help="batches of single questions in a group")
    p.add_argument("--instances", type=float, default=1.0, help="how often one nucleus among many is asked for")
    p.add_argument("--all-images", action="store_true", help="train on the development split too")
    p.add_argument("--freeze-after", type=float, default=0.5, help="share of the time until batch norms are frozen")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--device", default="cpu")
    a = p.parse_args(argv)
    if a.part:
        nano_corpus.write_part(a)
        return 0
    nano_corpus.claim(a)
    own = list(argv if argv is not None else sys.argv[1:])
    if not nano_corpus.write(own, a.processes, "trajectories"):
        return 5
    if a.only_trajectories:
        return 0
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    if a.num_corrections:
        code = _train(a, a.correct_after)
        if code or not nano_corpus.write(own, a.processes, "corrections"):
            return code or 5
    return _train(a, 1.0)


def _begin(a: argparse.Namespace, folder: Path, resumed: bool) -> tuple[NanoForConditionalGeneration, NanoProcessor]:
    """The model and its processor: new ones, or what ``--start`` names, given a choice among many if it has none."""
    if a.start is not None:
        from ibisagent.policies.checkpoints import load_checkpoint

        found = load_checkpoint(a.start, device="cpu", dtype="float32")
        if not isinstance(found.model, NanoForConditionalGeneration):
            raise InputError(f"--start: {a.start} is no nano model")
        processor = found.processor
        config = NanoConfig(**{**found.model.config.to_dict(), "chooses": True})
    else:
        known = resumed and folder.exists()
        processor = (
            load_processor(folder) if known else build_processor(nano_corpus.texts(nano_corpus.source(a)), size=1024)
        )
        tokenizer = processor.tokenizer
        config = NanoConfig(
            vocab_size=len(tokenizer) - 64 * 64,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            coordinate_token_id=tokenizer.convert_tokens_to_ids("<|coordinate|>"),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
            chooses=True,
        )
    save_processor(processor, folder)
    model = NanoForConditionalGeneration(config)
    if a.start is not None:
        model.load_state_dict({**model.state_dict(), **found.model.state_dict()})
    return model, processor


def _train(a: argparse.Namespace, share: float) -> int:
    """Train on the shards until this share of the time is spent, then export."""
    last, folder = a.out / "last.pt", a.out / "model"
    trajectories = nano_corpus.read(a.out, a.num_trajectories, a.num_corrections if share == 1 else 0)
    model, processor = _begin(a, folder, last.exists())
    config = model.config
    average = NanoForConditionalGeneration(config)
    average.load_state_dict(model.state_dict())
    model.to(a.device, memory_format=torch.channels_last).train()
    average.to(a.device)
    decay = [q for n, q in model.named_parameters() if q.dim() > 1 and "embed" not in n]
    rest = [q for n, q in model.named_parameters() if not (q.dim() > 1 and "embed" not in n)]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=a.lr, betas=(0.9, 0.98)
    )
    seconds, drawn, steps = 0.0, 0, 0

    def save() -> None:
        """Write ``OUT/last.pt``: all that a resumed run needs, whole or not at all."""
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

    if last.exists():
        state = torch.load(last, map_location="cpu", weights_only=True)
        model.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        seconds, drawn, steps = state["seconds"], state["samples"], state["steps"]
        print(f"resumed at {seconds / 60:.1f} min, {drawn} samples", file=sys.stderr)
    elif a.read_minutes and a.start is None:
        source = nano_corpus.source(a)
        known = learn_to_read(
            model, processor, source, SYSTEM_PROMPT, minutes=a.read_minutes, lr=1.5 * a.lr, seed=a.seed
        )
        print(f"reading: {known:.1%} of the names are known", file=sys.stderr, flush=True)
        average.load_state_dict(model.state_dict())
        save()
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
        pictures=nano_corpus.source(a, real_share=0.65),
        question_batches=a.question_batches,
    )
    loader = DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=2)
    budget, warm = a.minutes * 60, min(90.0, a.minutes * 60 * 0.04)
    until = share * budget
    clock = saved = shown = time.perf_counter()
    frozen, low = False, fast_dtype(a.device) is torch.bfloat16
    running: list[dict[str, float]] = []

    with (a.out / "log.jsonl").open("a", encoding="utf-8") as log:
        for batch in (b for group in loader for b in group) if seconds < until else ():
            elapsed = seconds + time.perf_counter() - clock
            lr = (
                a.lr
                * min(1.0, (elapsed + 1) / warm)
                * max(0.02, 0.5 * (1 + math.cos(math.pi * min(1.0, elapsed / budget))))
            )
            for g in optimizer.param_groups:
                g["lr"] = lr
            if not frozen and (a.start is not None or elapsed >= a.freeze_after * budget):
                _freeze_norms(model, average)
                frozen = True
            batch = {k: v.to(a.device) for k, v in batch.items()}
            pixels = batch["pixel_values"].permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
            batch["pixel_values"] = pixels.contiguous(memory_format=torch.channels_last)
            with torch.autocast(torch.device(a.device).type, torch.bfloat16, enabled=low):
                loss, parts = _loss(model, batch, a.cell_weight, a.belief_weight)
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
            if now - saved > 90 or elapsed >= until:
                seconds += now - clock
                clock = saved = now
                save()
            if elapsed >= until:
                break
    export(average.cpu(), processor, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

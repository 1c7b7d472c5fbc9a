"""Hold the plan's figures against a machine: one SFT step and one batch of rollouts with random weights.

    python benchmarks/plan_check.py --model qwen2.5-vl-7b --method lora          # on a CUDA machine
    python benchmarks/plan_check.py --model FOLDER --device cpu --actions 2      # a tiny config.json, on the CPU

It builds the class from its configuration (no weights, no download), in bf16 with bf16 gradients and moments so that
all weights of a 7B train on one GPU of 141 GB, runs a training step on one episode of ``--actions`` actions and
``--live`` episodes in lock step, and prints one JSON object: measured, planned, and their ratio. The shares of the
peaks that were reached are what ``speeds.*`` of the plan should be set to for this machine and this software.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from ibisagent.train.plan.config import MACHINES, Machine, PlanConfig, RlRecipe, Speeds, TokenCounts, Training
from ibisagent.train.plan.episode import episode_tokens
from ibisagent.train.plan.images import image_size
from ibisagent.train.plan.measure import PeakBytes, measure_rollout, training_loss, write_episode
from ibisagent.train.plan.memory import GIB, kv_bytes, step_activations, train_state
from ibisagent.train.plan.models import ModelSizes, load_config, measure_model
from ibisagent.train.plan.timing import episode_passes, read_flops, rollout_time

PROJECTIONS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
CPU = Machine(name="cpu", memory_gib=8, peak_tflops=0.05, bandwidth_tbytes=0.01, link_gbytes=1)
"""A stand-in: on a CPU only the bytes mean something."""


def machine_here(device: str) -> Machine:
    """The data sheet of the GPU that is there."""
    if device == "cpu":
        return CPU
    name = torch.cuda.get_device_name().lower()
    for key, machine in MACHINES.items():
        if key.split("-")[0] in name:
            return machine
    raise SystemExit(f"no data sheet for '{name}': add it to MACHINES")


def build(config: PlanConfig, method: str, device: str) -> tuple[Any, Any, ModelSizes]:
    """The model, what is trained around it, and its sizes."""
    from transformers import AutoModelForImageTextToText

    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(load_config(config.model), dtype=torch.bfloat16)
    sizes = measure_model(model, config.model)
    model.model.visual.requires_grad_(False)
    if config.training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.disable_input_require_grads()
    net = model
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        net = get_peft_model(model, LoraConfig(r=config.training.lora_rank, target_modules=PROJECTIONS))
        model.disable_input_require_grads()
    return model, net, sizes


def check_training(config: PlanConfig, method: Any, device: str, actions: int) -> dict[str, Any]:
    """One step (forward, backward, AdamW) on one episode, after one to warm up."""
    model, net, sizes = build(config, method, device)
    net.train()
    text = config.tokens
    image = image_size(sizes, text.image_height, text.image_width, text.max_pixels)
    tokens = episode_tokens(config, image, actions)
    episode = write_episode(model, sizes, config, image, actions, device, torch.bfloat16)
    optimizer = torch.optim.AdamW([part for part in net.parameters() if part.requires_grad], lr=1e-6)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=method == "lora"):
            loss, _logits = training_loss(net, episode, own_only=config.training.scored == "own")
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # gradients stay allocated, as they do while they are accumulated

    step()
    state = train_state(sizes, config, method, 1)
    planned = state.total + step_activations(sizes, config, method, image, tokens).peak
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds, measured = time.perf_counter() - started, torch.cuda.max_memory_allocated()
    else:
        started = time.perf_counter()
        step()
        seconds = time.perf_counter() - started
        held = sum(part.nbytes + (part.grad.nbytes if part.grad is not None else 0) for part in net.parameters())
        held += sum(v.nbytes for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v))
        autocast = torch.autocast(device, torch.bfloat16, enabled=method == "lora")
        with autocast, PeakBytes() as peak:
            loss, _logits = training_loss(net, episode, own_only=config.training.scored == "own")
            loss.backward()
        measured = held + peak.peak
    passes = episode_passes(sizes, config, method, image, tokens)
    rate = config.machine.peak_tflops * 1e12
    planned_seconds = passes.total / (rate * config.speeds.train_utilisation)
    return {
        "tokens": tokens.context,
        "images": tokens.images,
        "memory_gib": _ratio(measured / GIB, planned / GIB),
        "seconds": _ratio(seconds, planned_seconds),
        "train_utilisation": passes.total / seconds / rate,
        "mfu": passes.model / seconds / rate,
    }


def check_rollout(config: PlanConfig, device: str, actions: int, live: int) -> dict[str, Any]:
    """`live` equal episodes with transformers' own cache; no segmenter and no stragglers."""
    model, _, sizes = build(config, "full", device)
    model.eval()
    text = config.tokens
    image = image_size(sizes, text.image_height, text.image_width, text.max_pixels)
    tokens = episode_tokens(config, image, actions)
    episode = write_episode(model, sizes, config, image, actions, device, torch.bfloat16)
    measure_rollout(model, write_episode(model, sizes, config, image, 0, device, torch.bfloat16), live)
    measured = measure_rollout(model, episode, live)
    planned = rollout_time(sizes, config, 1, image, tokens, live, live)
    read = planned.read_seconds + planned.see_seconds
    rate = config.machine.peak_tflops * 1e12
    operations, _ = read_flops(sizes, config, tokens)
    bytes_share = config.speeds.bandwidth_utilisation * planned.write_seconds / measured.write
    return {
        "live": live,
        "cache_gib": _ratio(measured.cache_bytes / GIB, live * measured.tokens * kv_bytes(sizes) / GIB),
        "read_seconds": _ratio(measured.read, read),
        "write_seconds": _ratio(measured.write, planned.write_seconds),
        "tokens_a_second": live * tokens.own / measured.write,
        "prefill_utilisation": live * operations / measured.read / rate,
        "bandwidth_utilisation": bytes_share,
    }


def _ratio(measured: float, planned: float) -> dict[str, float]:
    return {"measured": measured, "planned": planned, "measured_over_planned": measured / planned}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="qwen2.5-vl-7b")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--actions", type=int, default=8, help="actions of the episode")
    parser.add_argument("--live", type=int, default=16, help="episodes at once in the rollout")
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--score-all", action="store_true", help="logits for every token, not the model's own alone")
    parser.add_argument("--image", type=int, default=512, help="side of an image in pixels")
    parser.add_argument("--reply", type=int, default=128, help="tokens of a reply")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    config = PlanConfig(
        model=args.model,
        machine=machine_here(args.device),
        tokens=TokenCounts(image_height=args.image, image_width=args.image, reply=args.reply),
        training=Training(
            master="bf16",
            moment_bytes=2 if args.method == "full" else 4,
            gradient_checkpointing=not args.no_checkpointing,
            scored="all" if args.score_all else "own",
        ),
        speeds=Speeds(straggler=1.0, segmenter_seconds=0.0),
        rl=RlRecipe(share_prompt=False),
    )
    out = {
        "model": args.model,
        "machine": config.machine.name,
        "torch": torch.__version__,
        "training": {"method": args.method} | check_training(config, args.method, args.device, args.actions),
    }
    if args.device == "cuda":
        torch.cuda.empty_cache()
    out["rollout"] = check_rollout(config, args.device, args.actions, args.live)
    print(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

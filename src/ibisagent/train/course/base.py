"""The base model of the gym: it reads, writes and keeps to the grammar, and clicks anywhere.

A course begins with a general model that was never shown where anything is. No such model is of this size, so one is
made: from random weights, it learns the conversations of the corpus with every action drawn at random. What it learns
is to name what was asked for, the form of a reply, and that a click described as "upper left" lies there; pictures and
actions have nothing to do with each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.actions import DIALECTS, Click, ClickAction, TerminateAction, Turn
from ibisagent.engine.reasoning.terse import answer_text, thought_text, where_text
from ibisagent.train.course.gym import SYSTEM_PROMPT, gym_model, gym_processor
from ibisagent.train.runs import say

if TYPE_CHECKING:
    from ibisagent.train.course.config import GymConfig
    from ibisagent.train.sft.conversations import Conversations

__all__ = ["make_base", "scrambled"]

_ABSENT = 0.1
"""Share of the conversations that end in a refusal, whatever the picture shows."""


def scrambled(
    messages: Sequence[dict[str, Any]], name: str, grid: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The conversation with its replies replaced by random ones: clicks anywhere, and a verdict at the end.

    Parameters
    ----------
    messages
        Ending with a reply.
    name
        What is asked for.
    grid
        Cells a side that clicks are drawn from.
    rng
        The only source of randomness.
    """
    dialect = DIALECTS["plain"]
    out, replies = [], 0
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            out.append(message)
            continue
        if number + 1 == len(messages):
            verdict: Any = "absent" if rng.random() < _ABSENT else "found"
            turn = Turn(
                thought=thought_text("fits" if verdict == "found" else "absent", name),
                action=TerminateAction(verdict=verdict, answer=answer_text(verdict, name)),
            )
        else:
            cell = int(rng.integers(grid * grid))
            x, y = round((cell % grid + 0.5) / grid, 4), round((cell // grid + 0.5) / grid, 4)
            positive = replies == 0 or bool(rng.random() < 0.5)
            kind = "start" if replies == 0 else "missed" if positive else "excess"
            turn = Turn(
                thought=thought_text(kind, name, where_text(x, y)),
                action=ClickAction(clicks=(Click(x=x, y=y, positive=positive),)),
            )
        replies += 1
        out.append({**message, "content": [{"type": "text", "text": dialect.format(turn)}]})
    return out


def make_base(config: GymConfig, seed: int, folder: Path) -> dict[str, float]:
    """Train a base model from random weights and write it to `folder`.

    Returns
    -------
    dict
        ``parameters`` in millions, ``loss`` a turn and ``accuracy`` on tokens over the last tenth of the steps.
    """
    import torch

    from ibisagent.train.nano import export
    from ibisagent.train.sft.config import SftConfig
    from ibisagent.train.sft.conversations import open_conversations
    from ibisagent.train.tokens import Renderer

    processor = gym_processor(config)
    model = gym_model(config, processor, seed)
    corpus = SftConfig(model="", corpus=(str(config.corpora / "train"),), out=folder, scenarios=("plain", "absent"))
    conversations, _ = open_conversations(corpus, SYSTEM_PROMPT, config.grid)
    rng = np.random.default_rng([seed, 41])
    renderer = Renderer(processor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.base_learning_rate, betas=(0.9, 0.98))
    model.to(memory_format=torch.channels_last).train()
    told: list[tuple[float, float]] = []
    for step in range(config.base_steps):
        share = step / max(1, config.base_steps)
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 20)
            group["lr"] = config.base_learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))
        loss, right = _loss(model, _batch(conversations, renderer, config, rng))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        told.append((float(loss.detach()), right))
        if step % 50 == 49:
            say(f"base: step {step + 1}/{config.base_steps}, loss {told[-1][0]:.2f}, tokens right {right:.3f}")
    export(model.to(memory_format=torch.contiguous_format), processor, folder)
    last = np.mean(told[-max(1, len(told) // 10) :], axis=0) if told else (math.nan, math.nan)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    return {"parameters": round(size, 3), "loss": round(float(last[0]), 4), "accuracy": round(float(last[1]), 4)}


def _batch(conversations: Conversations, renderer: Any, config: GymConfig, rng: np.random.Generator) -> dict[str, Any]:
    import torch

    from ibisagent.train.sft.collator import IGNORED

    rows = []
    for index in rng.integers(len(conversations), size=config.batch).tolist():
        found = conversations[index]
        messages = scrambled(found.messages, found.row["target"], config.grid, rng)
        rows.append(renderer.conversation(messages))
    batch = renderer.tensors([row.ids for row in rows], [row.images for row in rows])
    labels = torch.full_like(batch["input_ids"], IGNORED)
    for number, row in enumerate(rows):
        labels[number, : len(row.ids)] = torch.from_numpy(np.where(row.loss_mask, row.ids, IGNORED))
    return {**batch, "labels": labels, "turns": sum(int(row.turn.max()) + 1 for row in rows)}


def _loss(model: Any, batch: dict[str, Any]) -> tuple[Any, float]:
    from ibisagent.train.sft.collator import IGNORED
    from ibisagent.train.sft.nano_loss import nano_loss

    found = nano_loss(model, batch)
    return found.likelihood / batch["turns"], float(found.right / (batch["labels"] != IGNORED).sum())

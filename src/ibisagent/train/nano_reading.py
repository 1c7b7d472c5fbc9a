"""Nano's first minutes: its language model learns to read before it sees anything.

From scratch, what a sentence names is learnt slowly beside the images, and until it is, the images teach little:
nobody knows what was asked for. Sentences alone cost a tenth of what images cost. The rows are conversations as
always, with placeholders that no image fills; the model writes the name in its reply, and the state at the last
placeholder, from which the image will be questioned, must know it too.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ibisagent.actions import DIALECTS, Action, DiscardAction, TerminateAction, Turn
from ibisagent.engine.language.instructions import Stage, draw_instruction
from ibisagent.engine.reasoning.terse import answer_text, thought_text
from ibisagent.episode import Episode, ImageRecord
from ibisagent.geometry import Geometry
from ibisagent.messages import build_messages
from ibisagent.policies.nano_model import NanoForConditionalGeneration
from ibisagent.policies.protocol import View
from ibisagent.segmenters.precision import fast_dtype
from ibisagent.train.nano_scenes import SceneSource
from ibisagent.train.nano_trajectories import GRID, cell_click
from ibisagent.train.tokens import render
from ibisagent.types import Case, Image

__all__ = ["learn_to_read", "sentences"]

NUM_ROWS = 8000
BATCH = 64

SHORT = 0.7
"""Share of the rows with only a few placeholders: as much to read in half the time."""


def _reply(name: str, refine: bool, rng: np.random.Generator) -> Turn:
    """A turn that may follow; which one does depends on the image, so it is drawn."""
    action: Action
    kind = str(rng.choice(["missed", "excess", "fits", "discard"] if refine else ["start", "absent"]))
    if kind in ("fits", "absent"):
        verdict: Any = "found" if kind == "fits" else "absent"
        action = TerminateAction(verdict=verdict, answer=answer_text(verdict, name))
    elif kind == "discard":
        action = DiscardAction()
    else:
        action = cell_click(int(rng.integers(GRID * GRID)), kind != "excess")
    return Turn(thought=thought_text(kind, name), action=action)


def sentences(
    source: SceneSource, processor: Any, system_prompt: str, rng: np.random.Generator, count: int
) -> list[tuple[NDArray[np.int64], NDArray[np.bool_], int]]:
    """Rows of (ids, loss mask, index of the name in ``sorted(source.homes)``); the image's placeholders stay empty.

    Parameters
    ----------
    source
        Knows the names and the modalities that show them.
    processor, system_prompt
        Render the conversations.
    rng
        The only source of randomness.
    count
        Number of rows.
    """
    names = sorted(source.homes)
    placeholder = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    # Nobody looks at the picture; it is there because messages are made of one.
    blank, given = Image(np.zeros((2, 2, 3), np.uint8), Geometry.plane_2d()), np.ones((2, 2), bool)
    episode = Episode(instruction="", image=ImageRecord(sha256="", height=2, width=2))
    rows = []
    for _ in range(count):
        which = int(rng.integers(len(names)))
        name, refine = names[which], bool(rng.random() < 0.4)
        modality = str(rng.choice(sorted(source.homes[name])))
        stage: Stage = "refine" if refine else "start"
        text = draw_instruction(name, modality, rng, stage=stage, library="core").text
        reply = DIALECTS["plain"].format(_reply(name, refine, rng))
        view = View(Case(blank, text, given if refine else None), episode, None)
        messages = build_messages(view, system_prompt)
        messages.append({"role": "assistant", "content": [{"type": "text", "text": reply}]})
        done = render(messages, processor)
        keep = np.ones(len(done.ids), bool)
        places = np.flatnonzero(done.ids == placeholder)
        if rng.random() < SHORT:
            keep[places[int(rng.integers(1, 8)) :]] = False
        rows.append((done.ids[keep], done.loss_mask[keep], which))
    return rows


def learn_to_read(
    model: NanoForConditionalGeneration,
    processor: Any,
    source: SceneSource,
    system_prompt: str,
    *,
    minutes: float,
    lr: float,
    seed: int,
) -> float:
    """Train the language model on sentences, in place, on the model's device.

    Parameters
    ----------
    model, processor, source, system_prompt
        Of the recipe.
    minutes
        Training time.
    lr, seed
        Peak learning rate, and of all draws.

    Returns
    -------
    float
        Share of the last hundred batches' names that the state at the last placeholder knew.
    """
    config = model.config
    rng = np.random.default_rng([seed, 17])
    rows = sentences(source, processor, system_prompt, rng, NUM_ROWS)
    lengths = np.array([(ids == config.image_token_id).sum() for ids, _, _ in rows])
    short, full = np.flatnonzero(lengths < processor.image_tokens), np.flatnonzero(lengths == processor.image_tokens)
    device = next(model.parameters()).device
    head = nn.Linear(config.hidden_size, len(source.homes)).to(device)
    language = [*model.language.parameters(), *model.column.parameters(), *model.row.parameters()]
    optimizer = torch.optim.AdamW([*language, *head.parameters()], lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    started, known, steps = time.perf_counter(), [0.0], 0
    model.train()
    low = fast_dtype(device) is torch.bfloat16
    while (elapsed := time.perf_counter() - started) < minutes * 60:
        share = elapsed / (minutes * 60)
        for g in optimizer.param_groups:
            g["lr"] = lr * min(1.0, (steps + 1) / 50) * (0.3 + 0.7 * 0.5 * (1 + math.cos(math.pi * share)))
        pool = short if rng.random() < SHORT else full
        batch = [rows[int(i)] for i in rng.choice(pool, BATCH)]
        longest = max(len(ids) for ids, _, _ in batch)
        ids = torch.full((BATCH, longest), int(config.pad_token_id or 0))
        learnt = torch.zeros(BATCH, longest, dtype=torch.bool)
        for b, (row, mask, _) in enumerate(batch):
            ids[b, : len(row)], learnt[b, : len(row)] = torch.from_numpy(row), torch.from_numpy(mask)
        names = torch.tensor([which for _, _, which in batch], device=device)
        ids, learnt = ids.to(device), learnt.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            hidden = model.language(inputs_embeds=model.embed(ids), use_cache=False).last_hidden_state
            at = learnt[:, 1:].nonzero(as_tuple=True)
            goal = ids[:, 1:][at]
            goal = torch.where(goal >= config.vocab_size, config.coordinate_token_id, goal)
            logits = model.base_logits(hidden[:, :-1][at]).float()
            places = torch.arange(longest, device=device)
            last = ((ids == config.image_token_id) * places).amax(1)
            said = head(hidden[torch.arange(BATCH, device=device), last]).float()
        loss = F.cross_entropy(logits, goal, reduction="sum") / BATCH + F.cross_entropy(said, names)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(language, 1.0)
        optimizer.step()
        steps += 1
        known = [*known[-99:], float((said.argmax(-1) == names).float().mean())]
        if steps % 50 == 0:
            print(
                f"reading: {steps} steps, {elapsed / 60:.1f} min, loss {float(loss.detach()):.2f}, "
                f"names known {np.mean(known):.3f}",
                file=sys.stderr,
                flush=True,
            )
    return float(np.mean(known))

"""Fits the nets of ``ibisagent.engine.reasoning.leak_reader`` with torch; for ``train_leak_classifier.py``."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ibisagent.engine.reasoning.leak_reader import EDGE, SPECIAL, WINDOWS, net_score, table, tokens, word_ids

HIDDEN, CHANNELS = 64, 80
EPOCHS, BATCH, RATE, DECAY = 10, 64, 2e-3, 1e-4
DROP_WORDS, DROP_HIDDEN, DROP_HEARD = 0.15, 0.2, 0.5


class Net(nn.Module):
    """Word vectors (fixed), a projection, detectors of several widths, their loudest answer, a logit."""

    def __init__(self) -> None:
        super().__init__()
        vectors, _ = table()
        self.register_buffer("vectors", torch.tensor(vectors))
        size = vectors.shape[1]
        self.special = nn.Parameter(torch.randn(len(SPECIAL), size) * 0.3)
        self.proj = nn.Linear(size, HIDDEN)
        self.convs = nn.ModuleList(nn.Conv1d(HIDDEN, CHANNELS, width, padding=width // 2) for width in WINDOWS)
        self.out = nn.Linear(CHANNELS * len(WINDOWS), 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits, shape (batch,), of word ids, shape (batch, words)."""
        read = torch.cat([self.vectors, self.special])[ids]
        if self.training:
            read = read * (torch.rand(ids.shape) > DROP_WORDS)[..., None]
        hidden = functional.dropout(torch.relu(self.proj(read)), DROP_HIDDEN, self.training).transpose(1, 2)
        heard = torch.cat([torch.relu(conv(hidden)).amax(-1) for conv in self.convs], 1)
        return self.out(functional.dropout(heard, DROP_HEARD, self.training))[:, 0]


def fit_net(texts: list[str], leaks: np.ndarray, weights: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Weights of one net as ``net_score`` takes them.

    Parameters
    ----------
    texts
        What it learns from.
    leaks
        bool, one a text.
    weights
        How much each text counts.
    seed
        Of the start and of the order.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = Net()
    ids = [word_ids(tokens(text)) for text in texts]
    blank, sizes = ids[0][0], np.array([len(one) for one in ids])
    wanted, counts = torch.tensor(leaks, dtype=torch.float32), torch.tensor(weights, dtype=torch.float32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * -(-len(ids) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    net.train()
    for _ in range(EPOCHS):
        # Texts of like lengths go together: less is spent on blanks.
        order = np.argsort(sizes + rng.random(len(ids)) * 8)
        for at in rng.permutation(range(0, len(ids), BATCH)):
            chosen = order[at : at + BATCH]
            longest = sizes[chosen].max()
            batch = torch.tensor([ids[i] + [blank] * int(longest - sizes[i]) for i in chosen])
            losses = functional.binary_cross_entropy_with_logits(net(batch), wanted[chosen], reduction="none")
            optimizer.zero_grad()
            (losses * counts[chosen]).mean().backward()
            optimizer.step()
            schedule.step()
    state = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    found = {"special": state["special"], "proj_w": state["proj.weight"], "proj_b": state["proj.bias"]}
    for at, width in enumerate(WINDOWS):
        # torch's (channels, hidden, width) becomes (width * hidden, channels).
        found[f"conv{width}_w"] = state[f"convs.{at}.weight"].transpose(2, 1, 0).reshape(width * HIDDEN, CHANNELS)
        found[f"conv{width}_b"] = state[f"convs.{at}.bias"]
    return {**found, "out_w": state["out.weight"][0], "out_b": state["out.bias"]}


def net_scores(texts: list[str], net: dict[str, np.ndarray]) -> np.ndarray:
    """Logits of texts, shape (texts,)."""
    assert max(WINDOWS) <= EDGE
    return np.array([net_score(text, net) for text in texts])

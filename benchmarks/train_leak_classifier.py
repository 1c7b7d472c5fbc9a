"""Trains what decides whether a text leaks, and says how it does on authors that it has not read.

    python benchmarks/train_leak_classifier.py            # held-out authors, then weights into the package
    python benchmarks/train_leak_classifier.py --check    # held-out authors only

Planted leaks are ``data/leaks_dev.jsonl`` and ``leaks_authors.jsonl``, clean thoughts ``clean_dev.jsonl``,
``clean_authors.jsonl`` and ``clean_teacher.txt.gz`` (the template teacher's); ``leak_turns.jsonl`` holds turns of
phrase that are joined with clean thoughts. First the linear model and the nets learn, then the weights of evidence.

The rules were written against the dev sets, so that their findings there say nothing of new texts: only the authors of
``*_authors.jsonl`` (``outside-a`` …), whom the rules never saw, are held out in turn; the weights of evidence come
from their held-out scores alone, and so does the threshold: the score that ``FALSE_ALARMS`` of their clean thoughts
in which no rule finds anything pass when an author is held out of the weighing, too.
Needs scipy and torch; the result is the same every time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

sys.path.insert(0, str(Path(__file__).parent))

from leak_net import fit_net, net_scores
from leak_verifier import moment_of

from ibisagent.engine.reasoning.leak_score import ASSET, BUCKETS, FEWEST, NETS, SURE, evidence, families, features
from ibisagent.engine.reasoning.verifier import rule_findings

DATA = Path(__file__).parent / "data"
PACKAGE = Path(__file__).parents[1] / "src/ibisagent/engine/reasoning"
L2 = 0.05
L2_OF_EVIDENCE = 1.0
FALSE_ALARMS = 0.015
"""Of clean thoughts in which no rule finds anything; where one does, the weighing refuses from even odds on."""
JOINED = 3
"""Clean thoughts that each turn of phrase is joined with."""
TEACHER_EVERY = 6
WEIGHT_OF_OUTSIDE = 1.5
WEIGHT_OF_JOINED = 0.5


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="write nothing")
    a = p.parse_args()
    rows = [row for name in ("dev", "authors") for row in _rows(name)]
    outside = sorted({row["batch"] for row in rows if row["batch"].startswith("outside")})
    seen = {id(row): i for i, row in enumerate(r for r in rows if r["batch"] in outside)}
    labels, batches, proof = np.zeros(len(seen)), np.zeros(len(seen), dtype="U16"), [np.zeros(0)] * len(seen)
    for batch in outside:
        model = _fit_models([row for row in rows if row["batch"] != batch])
        held = [row for row in rows if row["batch"] == batch]
        linear, net = _scores(model, [row["text"] for row in held])
        for row, one, two in zip(held, linear, net, strict=True):
            at = seen[id(row)]
            labels[at], batches[at] = row["label"], batch
            proof[at] = evidence(one, two, {leak.family for leak in rule_findings(row["text"], moment_of(row))})
    table = np.array(proof)

    held_out = np.zeros(len(table))
    for batch in outside:
        own = batches == batch
        held_out[own] = table[own] @ _weigh(table[~own], labels[~own])
    silent = table[:, -3] == 0
    threshold = float(np.quantile(held_out[silent & (labels < 0)], 1 - FALSE_ALARMS))
    sure = table[:, [2 + families().index(name) for name in SURE if name in families()]].any(axis=1)
    refused = sure | (held_out > np.where(silent, threshold, 0.0))
    for batch in outside:
        own = batches == batch
        recall, alarms = (np.mean(refused[own & (labels == sign)]) for sign in (1, -1))
        print(f"{batch}: recall {recall:.3f}, false alarms {alarms:.3f}, {own.sum()} texts, held out", flush=True)
    if a.check:
        return 0

    linear, nets = _fit_models(rows)
    # The template teacher's own sentences must pass.
    scores = zip(*_scores((linear, nets), _teacher()), strict=True)
    weighed = _weigh(table, labels)
    threshold = max(threshold, 0.06 + max(float(evidence(one, two, ()) @ weighed) for one, two in scores))
    scale = float(np.abs(linear).max() / 127)
    stored = {f"net{at}_{name}": value.astype(np.float16) for at, net in enumerate(nets) for name, value in net.items()}
    np.savez_compressed(
        PACKAGE / ASSET,
        linear=np.round(linear / scale).astype(np.int8),
        linear_scale=np.float64(scale),
        weights=weighed,
        threshold=np.float64(threshold),
        threshold_found=np.float64(0),
        **stored,
    )
    print(f"threshold {threshold:.3f}; {(PACKAGE / ASSET).stat().st_size} bytes")
    return 0


def _rows(name: str) -> list[dict[str, Any]]:
    found = []
    for role, label in (("leaks", 1), ("clean", -1)):
        for line in (DATA / f"{role}_{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.append({**row, "label": label, "batch": row.get("batch", "author-1")})
    return found


def _teacher() -> list[str]:
    return gzip.decompress((DATA / "clean_teacher.txt.gz").read_bytes()).decode().splitlines()


def _fit_models(rows: list[dict[str, Any]]) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """The linear model and the nets, of these rows, the teacher's thoughts and joined turns of phrase."""
    teacher = _teacher()[::TEACHER_EVERY]
    texts = [row["text"] for row in rows] + teacher
    labels = [row["label"] for row in rows] + [-1] * len(teacher)
    weights = [WEIGHT_OF_OUTSIDE if row["batch"].startswith("outside") else 1.0 for row in rows] + [0.5] * len(teacher)
    bodies = [text for text, label in zip(texts, labels, strict=True) if label < 0]
    rng = np.random.default_rng(0)
    for line in (DATA / "leak_turns.jsonl").read_text(encoding="utf-8").splitlines():
        turn = json.loads(line)
        for _ in range(JOINED):
            body = bodies[rng.integers(len(bodies))]
            if not turn["text"].endswith("."):
                texts.append(f"{turn['text']} {body[0].lower()}{body[1:]}")
            else:
                texts.append(" ".join((turn["text"], body) if rng.random() < 0.5 else (body, turn["text"])))
            labels.append(1 if turn["leak"] else -1)
            weights.append(WEIGHT_OF_JOINED)
    signs, parts = np.array(labels, float), np.array(weights)
    nets = [fit_net(texts, signs > 0, parts, seed) for seed in range(NETS)]
    return _fit_linear(_matrix(texts), signs, parts), nets


def _scores(model: tuple[np.ndarray, list[dict[str, np.ndarray]]], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    linear, nets = model
    return _matrix(texts) @ linear, np.mean([net_scores(texts, net) for net in nets], axis=0)


def _matrix(texts: list[str]) -> csr_matrix:
    places = [features(text) for text in texts]
    sizes = np.array([len(one) for one in places])
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, FEWEST)), sizes)
    return csr_matrix((values, np.concatenate(places), np.r_[0, np.cumsum(sizes)]), shape=(len(texts), BUCKETS))


def _fit_linear(matrix: Any, labels: np.ndarray, weights: np.ndarray, penalty: Any = L2) -> np.ndarray:
    """Logistic regression with an L2 penalty, one weight a column. No bias: a text that says nothing scores nothing."""

    def loss(model: np.ndarray) -> tuple[float, np.ndarray]:
        margin = labels * (matrix @ model)
        slope = -labels * weights / (1 + np.exp(margin))
        value = float((weights * np.logaddexp(0, -margin)).sum() + 0.5 * (penalty * model**2).sum())
        return value, matrix.T @ slope + penalty * model

    start = np.zeros(matrix.shape[1])
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x)


def _weigh(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of the evidence; its last column is the bias and goes unpunished."""
    penalty = np.r_[np.full(table.shape[1] - 1, L2_OF_EVIDENCE), 0.0]
    return _fit_linear(table, labels, np.ones(len(labels)), penalty)


if __name__ == "__main__":
    raise SystemExit(main())

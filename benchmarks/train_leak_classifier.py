"""Trains the second look of the leak verifier, and says what it adds to the rules.

    python benchmarks/train_leak_classifier.py            # cross-validation, then weights into the package
    python benchmarks/train_leak_classifier.py --check    # cross-validation only

Planted leaks are ``data/leaks_dev.jsonl``. Clean are ``data/clean_dev.jsonl`` and ``data/clean_teacher.txt.gz``,
thoughts of the template teacher. Each ``batch`` (texts of one author and day) is held out in turn; the threshold is
the score that one held-out clean text in a hundred passes. Needs scipy; the result is the same every time.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from ibisagent.engine.reasoning.leak_score import ASSET, BUCKETS, FEWEST, features

DATA = Path(__file__).parent / "data"
PACKAGE = Path(__file__).parents[1] / "src/ibisagent/engine/reasoning"
L2 = 0.3
TEACHER_WEIGHT = 1.0
FALSE_ALARMS = 0.01


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="write nothing")
    a = p.parse_args()
    planted, clean = _rows("leaks_dev.jsonl"), _rows("clean_dev.jsonl")
    teacher = gzip.decompress((DATA / "clean_teacher.txt.gz").read_bytes()).decode().splitlines()
    texts = [text for text, _ in planted + clean] + teacher
    batches = np.array([batch for _, batch in planted + clean] + ["teacher"] * len(teacher))
    matrix = _matrix(texts)
    labels = np.r_[np.ones(len(planted)), -np.ones(len(clean) + len(teacher))]
    weights = np.r_[np.ones(len(planted) + len(clean)), np.full(len(teacher), TEACHER_WEIGHT)]

    held_out = np.full(len(texts), np.nan)
    for batch in sorted(set(batches) - {"teacher"}):
        own = batches == batch
        model = fit(matrix[~own], labels[~own], weights[~own])
        held_out[own] = matrix[own] @ model
    known = ~np.isnan(held_out)
    threshold = float(np.quantile(held_out[known & (labels < 0)], 1 - FALSE_ALARMS))
    for batch in sorted(set(batches) - {"teacher"}):
        own = batches == batch
        recall, alarms = (np.mean(held_out[own & (labels == sign)] > threshold) for sign in (1, -1))
        print(f"{batch}: recall {recall:.3f}, false alarms {alarms:.3f}, {own.sum()} texts, held out")
    if a.check:
        return 0

    model = fit(matrix, labels, weights)
    scale = float(np.abs(model).max() / 127)
    np.savez_compressed(
        PACKAGE / ASSET,
        weights=np.round(model / scale).astype(np.int8),
        scale=np.float64(scale),
        threshold=np.float64(threshold),
    )
    print(f"threshold {threshold:.3f}; {(PACKAGE / ASSET).stat().st_size} bytes")
    return 0


def _rows(name: str) -> list[tuple[str, str]]:
    rows = (json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines() if line.strip())
    return [(row["text"], row.get("batch", "author-1")) for row in rows]


def _matrix(texts: list[str]) -> csr_matrix:
    places = [features(text) for text in texts]
    sizes = np.array([len(one) for one in places])
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, FEWEST)), sizes)
    return csr_matrix((values, np.concatenate(places), np.r_[0, np.cumsum(sizes)]), shape=(len(texts), BUCKETS))


def fit(matrix: csr_matrix, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Logistic regression with an L2 penalty, shape (BUCKETS,). No bias: a text that says nothing scores nothing."""

    def loss(model: np.ndarray) -> tuple[float, np.ndarray]:
        margin = labels * (matrix @ model)
        slope = -labels * weights / (1 + np.exp(margin))
        value = float((weights * np.logaddexp(0, -margin)).sum() + 0.5 * L2 * (model**2).sum())
        return value, matrix.T @ slope + L2 * model

    start = np.zeros(BUCKETS)
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x)


if __name__ == "__main__":
    raise SystemExit(main())

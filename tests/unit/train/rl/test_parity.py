"""Figures of how far two sets of log-probabilities are apart, against figures by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from ibisagent.train.rl.parity import Agreement, Figures, Limits  # noqa: E402

NAN = float("nan")
LIMITS = Limits(mean=0.05, max=1.0, ratio=0.05, kl=0.02)
FINE = Figures(tokens=200, unknown=2, mean=0.05, max=1.0, ratio=0.96, kl=0.02)


def test_figures_are_those_by_hand() -> None:
    scores = torch.tensor([[-1.0, -2.0, -3.0, 9.0], [-0.5, 9.0, -1.0, 9.0]])
    drawn = torch.tensor([[-1.5, -2.0, NAN, NAN], [-0.25, 9.0, -1.0, NAN]])
    own = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 0]])
    agreement = Agreement()
    assert agreement.figures() is None
    agreement.add(scores[:1], drawn[:1], own[:1])
    agreement.add(scores[1:], drawn[1:], own[1:])
    found = agreement.figures()
    gaps = [0.5, 0.0, -0.25, 0.0]
    assert found is not None and (found.tokens, found.unknown, found.max) == (4, 1, 0.5)
    assert found.mean == pytest.approx(0.75 / 4)
    assert found.ratio == pytest.approx(sum(math.exp(g) for g in gaps) / 4)
    assert found.kl == pytest.approx(sum(math.exp(g) - 1 - g for g in gaps) / 4)


def test_nothing_told_is_nothing_found() -> None:
    agreement = Agreement()
    agreement.add(torch.zeros(1, 2), torch.full((1, 2), NAN), torch.ones(1, 2))
    assert agreement.figures() is None


def test_each_limit_counts() -> None:
    assert not FINE.beyond(LIMITS)
    worse = [{"mean": 0.051}, {"max": 1.01}, {"ratio": 1.06}, {"ratio": 0.94}, {"kl": 0.021}, {"unknown": 3}]
    for change in [*worse, {"mean": NAN}, {"kl": NAN}]:
        assert replace(FINE, **change).beyond(LIMITS), change


def test_a_model_s_own_draws_have_ratio_one_and_another_s_a_divergence() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 50)
    trained, other = (row.log_softmax(0) for row in logits)
    ids = torch.multinomial(other.exp(), 200_000, replacement=True)[None]
    agreement = Agreement()
    agreement.add(trained[ids], other[ids], torch.ones_like(ids))
    found = agreement.figures()
    assert found is not None
    assert found.ratio == pytest.approx(1.0, abs=0.02)
    assert found.kl == pytest.approx(float((other.exp() * (other - trained)).sum()), rel=0.05)

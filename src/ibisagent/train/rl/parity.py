"""How far the probabilities of who drew the tokens are from those of who learns from them.

Of one token with log-probability p under the training model and q under the sampler: the difference d = p - q, the
ratio e^d, by which an unbiased estimate would weigh it (mean 1 where both are one distribution), and e^d - 1 - d,
whose mean estimates the KL divergence of the two (Schulman's k3: never negative, of low variance).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Agreement", "Figures", "Limits"]

_MOST_UNKNOWN = 0.01
"""Share of tokens of which a sampler may tell nothing; vLLM knows them all but for rare numerical failures."""


@dataclass(frozen=True)
class Limits:
    """What is still one distribution.

    Parameters
    ----------
    mean
        Of \\|d\\|.
    max
        Of \\|d\\|.
    ratio
        Of \\|mean ratio - 1\\|.
    kl
        Of the mean of k3.
    """

    mean: float
    max: float
    ratio: float
    kl: float


@dataclass(frozen=True)
class Figures:
    """What was found.

    Parameters
    ----------
    tokens
        Compared.
    unknown
        Tokens whose probability the sampler did not tell.
    mean, max, ratio, kl
        See :class:`Limits`; the ratio itself, not its distance from 1.
    """

    tokens: int
    unknown: int
    mean: float
    max: float
    ratio: float
    kl: float

    def beyond(self, limits: Limits) -> bool:
        """Whether one of them is; not a number counts as beyond, and so does a sampler that tells too little."""
        return not (
            self.unknown <= _MOST_UNKNOWN * (self.tokens + self.unknown)
            and self.mean <= limits.mean
            and self.max <= limits.max
            and abs(self.ratio - 1) <= limits.ratio
            and self.kl <= limits.kl
        )

    def said(self, limits: Limits) -> str:
        """In words, each with its limit."""
        untold = f" (of {self.unknown} more nothing is told)" if self.unknown else ""
        return (
            f"log-probabilities of {self.tokens} tokens{untold} differ by {self.mean:.3g} on average "
            f"(limit {limits.mean:g}) and {self.max:.3g} at most ({limits.max:g}); mean ratio {self.ratio:.4g} "
            f"(1 ± {limits.ratio:g}), KL {self.kl:.3g} ({limits.kl:g})"
        )

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return asdict(self)


class Agreement:
    """Adds figures up over batches."""

    def __init__(self) -> None:
        self._tokens = self._unknown = 0
        self._mean = self._max = self._ratio = self._kl = 0.0

    def add(self, scores: Tensor, drawn: Tensor, own: Tensor) -> None:
        """Add a batch.

        Parameters
        ----------
        scores
            ``float`` (B, C), log-probabilities under the training model.
        drawn
            ``float`` (B, C), under the sampler; NaN where it tells none.
        own
            (B, C), not 0 where the model drew the token and learns from it.
        """
        import torch

        mine = own.bool()
        known = mine & ~torch.isnan(drawn)
        self._unknown += int(mine.sum() - known.sum())
        if not known.any():
            return
        gap = (scores.detach().double() - drawn.double())[known]
        ratio = gap.exp()
        self._tokens += gap.numel()
        self._mean += float(gap.abs().sum())
        self._max = max(self._max, float(gap.abs().max()))
        self._ratio += float(ratio.sum())
        self._kl += float((ratio - 1 - gap).sum())

    def figures(self, accelerator: Any = None) -> Figures | None:
        """Of all processes, if an accelerator is given; all of them must call this. None if nothing was compared."""
        import torch

        mine = [self._tokens, self._unknown, self._mean, self._max, self._ratio, self._kl]
        rows = torch.tensor([mine], dtype=torch.float32)
        if accelerator is not None:
            rows = accelerator.gather(rows.to(accelerator.device)).cpu()
        tokens, unknown, mean, _, ratio, kl = rows.double().sum(0).tolist()
        if not tokens:
            return None
        return Figures(int(tokens), int(unknown), mean / tokens, float(rows[:, 3].max()), ratio / tokens, kl / tokens)

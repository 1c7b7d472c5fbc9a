"""What a client asked, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["CostReport"]


@dataclass(frozen=True)
class CostReport:
    """Counts of one client since it was made.

    Parameters
    ----------
    requests
        Questions that a server answered.
    cached
        Questions that the cache answered.
    retries
        Further tries after a failed one.
    failures
        Questions that ended without an answer.
    prompt_tokens, completion_tokens
        Tokens of the answered questions, estimated where a server does not count.
    cost
        By the budget's prices, 0 without.
    seconds
        Time spent waiting for the server; those of parallel questions add up.
    """

    requests: int = 0
    cached: int = 0
    retries: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: CostReport) -> CostReport:
        return CostReport(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> CostReport:
        """The inverse of :meth:`to_json`; further keys are ignored."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    @classmethod
    def merge(cls, reports: Iterable[CostReport]) -> CostReport:
        """The sum over the clients of several processes."""
        return sum(reports, cls())

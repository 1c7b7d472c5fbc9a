"""Evaluation: play a case list, score it, say how sure the figures are."""

from __future__ import annotations

from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.run import evaluate
from ibisagent.evaluate.statistics import bootstrap_ci95
from ibisagent.evaluate.summary import summarise

__all__ = ["CaseResult", "bootstrap_ci95", "evaluate", "summarise"]

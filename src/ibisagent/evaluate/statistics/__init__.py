"""How sure a figure is, and how sure a difference: intervals, tests and what could have been found at all.

A figure is a sum of numbers over a sum of weights (:mod:`ibisagent.evaluate.figures`), or the mean of that over
targets. Cases come in clusters (a patient, an image) that are independent of one another; the cases of one are not.
``docs/evaluation/statistics.md`` says what was measured to choose the methods.
"""

from __future__ import annotations

from ibisagent.evaluate.statistics.estimates import Estimate, estimate, macro_estimate
from ibisagent.evaluate.statistics.paired import Difference, paired
from ibisagent.evaluate.statistics.percentile import NUM_RESAMPLES, bootstrap_ci95, grouped_ci95
from ibisagent.evaluate.statistics.testing import LEVEL, holm, is_claimed, minimum_detectable, sign_flip
from ibisagent.evaluate.statistics.units import Clusters, cluster_unit

__all__ = [
    "LEVEL",
    "NUM_RESAMPLES",
    "Clusters",
    "Difference",
    "Estimate",
    "bootstrap_ci95",
    "cluster_unit",
    "estimate",
    "grouped_ci95",
    "holm",
    "is_claimed",
    "macro_estimate",
    "minimum_detectable",
    "paired",
    "sign_flip",
]

"""Results and masks by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ibisagent.episode import Outcome
from ibisagent.evaluate.result import CaseResult
from ibisagent.rle import encode_mask
from ibisagent.scoring import Scores


def scored(iou: float, **facts: Any) -> CaseResult:
    """A present case of which only the overlap is known."""
    scores = Scores(
        iou=iou, dice=2 * iou / (1 + iou), iou_by_step=(0.0, iou), outcome=Outcome.DONE, is_error=False,
        right_refusal=None, false_refusal=False, num_steps=1, num_replies=2, num_valid=2, num_refinements=0,
        num_improvements=0,
    )  # fmt: skip
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    known = {"target": "liver", "modality": "CT", "absent": False, **facts}
    return CaseResult(scores=scores, target_mask=encode_mask(mask), **known)


@pytest.fixture
def result() -> Callable[..., CaseResult]:
    return scored

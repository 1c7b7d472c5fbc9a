from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.metrics import (
    IOU_THRESHOLDS,
    EntityCounts,
    Overlap,
    entity_counts,
    entity_f1,
    mean_iou,
    pooled_iou,
    share_at,
)

GOOD = Overlap(both=90, prediction=100, target=100)  # IoU 90 / 110
POOR = Overlap(both=10, prediction=20, target=40)  # IoU 10 / 50
SILENT = Overlap(both=0, prediction=0, target=30)
INVENTED = Overlap(both=0, prediction=5, target=0)
REFUSED = Overlap(both=0, prediction=0, target=0)


@st.composite
def overlaps(draw: st.DrawFn) -> Overlap:
    both, more, missed = (draw(st.integers(0, 50)) for _ in range(3))
    return Overlap(both, both + more, both + missed)


def test_pooled_iou_weighs_by_size_and_mean_iou_by_case() -> None:
    assert pooled_iou([GOOD, POOR]) == 100 / 160
    assert mean_iou([GOOD, POOR]) == pytest.approx((90 / 110 + 10 / 50) / 2)
    # A mask on an absent target costs both; silence there is a right case for gIoU and nothing for cIoU.
    assert pooled_iou([GOOD, INVENTED]) == 90 / 115 and mean_iou([GOOD, INVENTED]) == pytest.approx(45 / 110)
    assert pooled_iou([GOOD, REFUSED]) == 90 / 110 and mean_iou([REFUSED, INVENTED]) == 0.5
    assert pooled_iou([REFUSED]) == mean_iou([REFUSED]) == 1.0


def test_share_above_a_threshold_counts_the_bound() -> None:
    assert [share_at([0.5, 0.65, 0.9, 0.2], t) for t in IOU_THRESHOLDS] == [0.75, 0.5, 0.25, 0.25, 0.25]


def test_entities_of_one_case() -> None:
    assert entity_counts(GOOD) == EntityCounts(found=1)
    assert entity_counts(POOR) == EntityCounts(invented=1, missed=1)
    assert entity_counts(SILENT) == EntityCounts(missed=1)
    assert entity_counts(INVENTED) == EntityCounts(invented=1)
    assert entity_counts(REFUSED) == EntityCounts()
    assert entity_counts(GOOD, 0.9) == EntityCounts(invented=1, missed=1)
    assert entity_counts(Overlap(5, 5, 10), 0.5) == EntityCounts(found=1)


def test_f1_over_entities() -> None:
    assert entity_f1([GOOD, POOR, SILENT, INVENTED, REFUSED]) == 2 / (2 + 2 + 2)
    assert entity_f1([GOOD, REFUSED]) == entity_f1([REFUSED]) == 1.0
    assert entity_f1([INVENTED]) == entity_f1([SILENT]) == 0.0


@given(st.lists(overlaps(), min_size=1, max_size=12), st.floats(0.05, 1))
def test_bounds_and_pooling(cases: list[Overlap], threshold: float) -> None:
    ious = [case.iou for case in cases]
    assert min(ious) <= mean_iou(cases) + 1e-12 and mean_iou(cases) <= max(ious) + 1e-12
    assert 0 <= pooled_iou(cases) <= 1
    counts = [entity_counts(case, threshold) for case in cases]
    total = sum(counts, EntityCounts())
    assert total.found + total.missed == sum(case.target > 0 for case in cases)
    assert total.found + total.invented == sum(case.prediction > 0 for case in cases)
    weight = sum(count.weight for count in counts)
    if weight:  # F1 is a ratio of sums, as every figure of an evaluation is
        assert entity_f1(cases, threshold) == pytest.approx(sum(count.f1 * count.weight for count in counts) / weight)


def test_no_case_has_no_number() -> None:
    for number in (mean_iou, pooled_iou, entity_f1):
        with pytest.raises(ValueError, match="one case"):
            number([])
    with pytest.raises(ValueError, match="one case"):
        share_at([], 0.5)
    for threshold in (0.0, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            entity_counts(GOOD, threshold)

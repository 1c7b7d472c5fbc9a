from __future__ import annotations

from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.statistics import cluster_unit


def results(patients: int, images: int, cases: int = 40) -> list[CaseResult]:
    return [
        CaseResult(
            f"c{i}",
            patient=f"p{i % patients}" if patients else None,
            image=f"i{i % images}.png" if images else None,
        )
        for i in range(cases)
    ]


def test_ten_patients_are_enough() -> None:
    found = cluster_unit(results(10, 20))
    assert (found.unit, found.number, found.warning) == ("patient", 10, None)


def test_fewer_give_way_to_images_and_that_is_said() -> None:
    found = cluster_unit(results(9, 20))
    assert (found.unit, found.number) == ("image", 20)
    assert "9 patients known, fewer than 10: images are drawn instead" in str(found.warning)
    assert "not what other patients would give" in str(found.warning)
    assert "1 patient known" in str(cluster_unit(results(1, 20)).warning)


def test_without_images_cases_are_all_there_is() -> None:
    found = cluster_unit(results(2, 0))
    assert (found.unit, found.number) == ("case", 40) and "too short" in str(found.warning)


def test_a_row_that_says_nothing_is_a_cluster_of_its_own() -> None:
    found = cluster_unit([*results(12, 12), CaseResult(None, line=7), CaseResult(None, line=8)])
    assert found.unit == "patient" and found.number == 14
    assert cluster_unit([]).number == 0

from __future__ import annotations

import json
from pathlib import Path

from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.statistics import cluster_unit

ROOT = Path(__file__).resolve().parents[4]


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
    assert (found.unit, found.number) == ("patient", 10) and "images are drawn instead" not in str(found.warning)


def test_below_thirty_the_measured_coverage_is_quoted() -> None:
    assert cluster_unit(results(30, 30)).warning is None
    text = str(cluster_unit(results(29, 29)).warning)
    assert text.startswith("29 patients: where 6% of the cases fail altogether")
    rows = json.loads((ROOT / "docs" / "results" / "coverage.json").read_text(encoding="utf-8"))["intervals"]
    for clusters in (50, 20, 10, 5):
        assert f"{100 * rows[str(clusters)]['failing']['coverage']:.0f}%" in text


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
    assert found.unit == "patient" and found.number == 14 and "2 of 42 cases name no patient" in str(found.warning)
    assert cluster_unit([]).number == 0


def test_a_case_of_unknown_patient_stands_with_its_image() -> None:
    lost = [CaseResult(f"x{i}", image="new.png") for i in range(5)] + [CaseResult("y", image="i3.png")]
    found = cluster_unit([*results(12, 12), *lost])
    assert found.number == 13 and found.labels[-1] == "p3"  # the image is known to be of that patient
    assert "5 of 46 cases name no patient: each of their images counts as one" in str(found.warning)

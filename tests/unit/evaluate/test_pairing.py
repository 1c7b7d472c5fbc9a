from __future__ import annotations

from dataclasses import replace

import pytest

from ibisagent.errors import InputError
from ibisagent.evaluate.pairing import Side, pair_cases
from ibisagent.evaluate.result import CaseResult
from ibisagent.rle import encode_mask
from sample_comparison import memory_run, memory_side
from sample_results import first, run_of


def case(name: str, size: int = 30, **changes: object) -> CaseResult:
    return replace(run_of([size]), **{"case_id": name, "instruction": "Segment it.", **changes})  # type: ignore[arg-type]


def test_cases_go_by_their_id_in_any_order() -> None:
    a = memory_side("A", [case("x", 10), case("y", 20)])
    b = memory_side("B", [case("y", 40), case("x", 30), case("z")])
    found = pair_cases(a, b)
    assert found.keys == ("x", "y")
    assert [r.iou for r in found.a[0]] == [0.2, 0.4] and [r.iou for r in found.b[0]] == [0.6, 0.8]
    assert found.only_a == () and found.only_b == ("z",)
    assert found.notes == ()


def test_a_case_in_several_wordings_goes_by_its_words() -> None:
    a = memory_side("A", [case("x", 10, instruction="one"), case("x", 20, instruction="two")])
    b = memory_side("B", [case("x", 30, instruction="two"), case("x", 40, instruction="three")])
    found = pair_cases(a, b)
    assert found.keys == ("x (two)",) and found.a[0][0].iou == 0.4 and found.b[0][0].iou == 0.6
    assert found.only_a == ("x (one)",) and found.only_b == ("x (three)",)


def test_words_that_differ_are_said_where_ids_suffice() -> None:
    found = pair_cases(memory_side("A", [case("x")]), memory_side("B", [case("x", instruction="Other.")]))
    assert found.keys == ("x",) and any("1 of 1 cases were asked with other words" in note for note in found.notes)


def test_rows_that_could_not_be_read_go_by_their_line() -> None:
    broken = CaseResult(None, error="not JSON", line=7)
    found = pair_cases(memory_side("A", [case("x"), broken]), memory_side("B", [case("x"), broken]))
    assert found.keys == ("x", "line 7")
    assert "errors by run, scored as failures: 1, 1" in found.notes


def test_a_case_must_be_in_every_seed() -> None:
    a = memory_side("A", [case("x"), case("y")])
    b = Side("B", (memory_run([case("x"), case("y")], "b0"), memory_run([case("y")], "b1")))
    found = pair_cases(a, b)
    assert found.keys == ("y",) and found.only_a == ("x",) and found.only_b == ("x",)
    assert len(found.b) == 2


def test_other_references_are_no_pair() -> None:
    moved = case("x", target_mask=encode_mask(first(40)))
    with pytest.raises(InputError, match="x: the runs of A and B were scored against different reference masks"):
        pair_cases(memory_side("A", [case("x")]), memory_side("B", [moved]))
    absent = replace(case("x"), absent=True, target_mask=None)
    with pytest.raises(InputError, match="absent in some of the runs"):
        pair_cases(memory_side("A", [case("x")]), memory_side("B", [absent]))


def test_an_error_is_no_other_reference() -> None:
    lost = CaseResult("x", "g", "t", absent=False, error="the image is missing")
    assert pair_cases(memory_side("A", [case("x")]), memory_side("B", [lost])).keys == ("x",)


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(InputError, match="A and B have no case in common"):
        pair_cases(memory_side("A", [case("x")]), memory_side("B", [case("y")]))


def test_what_differs_between_the_runs_is_said() -> None:
    a = memory_side("A", [case("x")], cases_sha256="1", max_steps=8, num_rows=3)
    b = memory_side("B", [case("x")], cases_sha256="2", max_steps=4)
    notes = pair_cases(a, b).notes
    assert "case lists differ (their hashes do)" in notes and "budgets of steps differ: 4, 8" in notes
    assert "A is not finished: it has 1 of 3 rows" in notes
    run = memory_run([case("x")])
    twice = pair_cases(Side("A", (run, run)), b).notes
    assert any("A names one folder more than once" in note for note in twice)


def test_other_pixels_are_said() -> None:
    other = case("x")
    assert other.episode is not None
    image = other.episode.image.model_copy(update={"sha256": "1"})
    other = replace(other, episode=other.episode.model_copy(update={"image": image}))
    notes = pair_cases(memory_side("A", [case("x")]), memory_side("B", [other])).notes
    assert any("1 of 1 cases were not played on the same pixels" in note for note in notes)

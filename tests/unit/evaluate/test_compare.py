from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ibisagent.episode import Episode, Outcome
from ibisagent.errors import InputError
from ibisagent.evaluate.compare import Tally, compare, figure_of
from ibisagent.evaluate.compare_text import cautions, finding, how_to_read, line_texts, markdown, terminal
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.statistics import holm
from ibisagent.web.compare_page import render_compare_page
from sample_comparison import memory_side
from sample_results import run_of


def results(sizes: list[int], targets: str = "t") -> list[CaseResult]:
    runs = [run_of([size]) for size in sizes]
    names = [targets[i % len(targets)] for i in range(len(sizes))]
    return [
        replace(r, case_id=f"c{i}", image=f"i{i}.png", patient=f"p{i}", target=name)
        for i, (r, name) in enumerate(zip(runs, names, strict=True))
    ]


def replace_mask(result: CaseResult) -> Episode | None:
    """The episode without any mask."""
    return None if result.episode is None else result.episode.model_copy(update={"final_mask": None})


BEFORE = [10, 20, 30, 40, 50, 10, 20, 30, 40, 50, 25, 25]
AFTER = [20, 30, 40, 45, 50, 5, 30, 40, 45, 50, 35, 30]


def test_values_and_tallies() -> None:
    (found,) = compare([memory_side("A", results(BEFORE)), memory_side("B", results(AFTER))], ["iou", "steps"])
    line, steps = found.lines
    assert line.difference.value_a == pytest.approx(sum(BEFORE) / 600)
    assert line.difference.value_b == pytest.approx(sum(AFTER) / 600)
    assert line.tally == Tally(9, 2, 1) and steps.tally == Tally(0, 12, 0)
    assert found.clusters.unit == "patient" and line.difference.num_clusters == 12
    assert finding(line) == "better" and line.p_holm == pytest.approx(2 * line.difference.p)  # type: ignore[operator]


def test_where_less_is_better_less_wins() -> None:
    wrong = [replace(run_of([10], Outcome.ABSENT), case_id=f"c{i}", image=f"i{i}", patient=f"p{i}") for i in range(12)]
    (found,) = compare([memory_side("A", wrong), memory_side("B", results([40] * 12))], ["false_refusals", "iou"])
    line = found.lines[0]
    assert line.difference.difference == -1.0 and line.tally == Tally(12, 0, 0) and finding(line) == "better"


def test_targets_are_told_of_the_first_figure() -> None:
    sides = [memory_side("A", results(BEFORE, "ab")), memory_side("B", results(AFTER, "ab"))]
    (found,) = compare(sides, ["target_mean_iou", "dice"])
    assert [line.target for line in found.by_target] == ["g/a", "g/b"]
    assert {line.figure.name for line in found.by_target} == {"iou"}
    a, b = (line.difference.difference for line in found.by_target)
    assert found.lines[0].difference.difference == pytest.approx((a + b) / 2)  # type: ignore[operator]
    assert [line.p_holm for line in found.by_target] == holm([line.difference.p for line in found.by_target])


def test_holm_is_over_all_comparisons() -> None:
    sides = [memory_side(name, results(sizes)) for name, sizes in (("A", BEFORE), ("B", AFTER), ("C", AFTER[::-1]))]
    found = compare(sides, ["iou", "dice"])
    assert [(one.a.name, one.b.name) for one in found] == [("A", "B"), ("A", "C")]
    p = [line.difference.p for one in found for line in one.lines]
    assert [line.p_holm for one in found for line in one.lines] == holm(p)
    assert {line.difference.tests for one in found for line in one.lines} == {4}


def test_changes_are_the_largest_first_and_seeds_show_the_nearest() -> None:
    a = memory_side("A", results([10, 20, 30]))
    b = memory_side("B", results([10, 50, 20]), results([10, 10, 40]), results([10, 32, 20]))
    (found,) = compare([a, b], ["iou"])
    assert [change.key for change in found.changes] == ["c1", "c2"]  # c0 stayed
    change = found.changes[0]
    assert change.value_b == pytest.approx((50 + 10 + 32) / 150) and change.run_b == 2 and change.b.iou == 0.64
    assert "seeds: 1 of A, 3 of B" in terminal(found)
    assert any("of images and of seeds, both crossed" in text for text in how_to_read(found))


def test_figures_nobody_has_are_left_out_unless_asked_for() -> None:
    sides = [memory_side("A", results(BEFORE)), memory_side("B", results(AFTER))]
    assert "right_refusals" not in [line.figure.name for line in compare(sides)[0].lines]
    (asked,) = compare(sides, ["iou", "right_refusals"])
    assert asked.lines[1].difference.n == 0 and finding(asked.lines[1]) == "nothing to compare"


def test_a_difference_is_over_the_cases_that_both_sides_have_the_figure_of() -> None:
    # B goes on to draw the hard half, which A gives up: that is no worse distance on the cases that both drew.
    easy, hard = results([40] * 12), results([5] * 24)[12:]
    given_up = [replace(r, scores=None, episode=None, error="it broke") for r in hard]
    sides = [memory_side("A", [*easy, *given_up]), memory_side("B", [*easy, *hard])]
    (found,) = compare(sides, ["steps", "iou"])
    steps, iou = found.lines
    assert (steps.difference.n, steps.difference.difference, steps.tally) == (12, 0.0, Tally(0, 12, 0))
    assert "12 cases are left out: not every run has the figure there" in str(steps.difference.warning)
    assert iou.difference.n == 24 and iou.tally.wins == 12 and "left out" not in str(iou.difference.warning)
    assert any("12 cases are left out" in text for text in cautions(found))


def test_a_figure_that_only_one_side_has_is_no_difference() -> None:
    errors = [replace(r, scores=None, episode=None, error="it broke") for r in results([5] * 12)]
    (found,) = compare([memory_side("A", errors), memory_side("B", results([5] * 12))])
    (line,) = [line for line in found.lines if line.figure.name == "steps"]
    assert line.difference.difference is None and finding(line) == "nothing to compare"
    assert "12 cases are left out" in str(line.difference.warning)


def test_marks_where_nothing_is_count_against_the_side_that_made_them() -> None:
    present = results([40] * 12)
    absent = [replace(r, absent=True, case_id=f"a{i}") for i, r in enumerate(results([30] * 12))]
    silent = [replace(r, episode=replace_mask(r)) for r in absent]
    sides = [memory_side("A", [*present, *silent]), memory_side("B", [*present, *absent])]
    (found,) = compare(sides, ["ciou_all"])
    assert found.lines[0].difference.difference == pytest.approx(480 / (600 + 360) - 480 / 600)


def test_unknown_figures_are_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no figure is called 'iuo'; there are iou, dice"):
        figure_of("iuo")
    with pytest.raises(InputError, match="target_mean_x"):
        figure_of("target_mean_x")
    with pytest.raises(InputError, match="needs two sides"):
        compare([memory_side("A", results(BEFORE))])


def test_json_says_it_all() -> None:
    (found,) = compare([memory_side("A", results(BEFORE)), memory_side("B", results(AFTER[:10]))])
    told = json.loads(json.dumps(found.to_json()))
    assert told["only_a"] == ["c10", "c11"] and told["only_b"] == [] and told["num_cases"] == 10
    assert {"figure", "difference", "ci95", "p", "p_holm", "wins", "minimum_detectable", "test"} <= set(
        told["figures"][0]
    )
    assert "without a partner, left out of the comparison: 2 of A (c10, c11)" in cautions(found)


def test_words() -> None:
    (found,) = compare([memory_side("A", results(BEFORE, "ab")), memory_side("B|x", results(AFTER, "ab"))])
    text = terminal(found)
    assert text.startswith("B|x against A: 12 cases played by both, of 12 patients") and "by target" in text
    written = markdown([found], [[(found.changes[0], "changes/1.png"), (found.changes[1], None)]])
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert all(row.replace("\\|", "").count("|") == 12 for row in rows) and len(rows) > 6
    assert "B\\|x" in written and "![c" in written and "(no picture was kept)" in written
    assert "one run a side" in written


def test_targets_of_few_clusters_are_marked_and_said_once() -> None:
    # Three images a target, the same change in each: no interval, and no word of certainty.
    sides = [memory_side("A", results([10] * 12, "abcd")), memory_side("B", results([20] * 12, "abcd"))]
    (found,) = compare(sides, ["iou"])
    line = found.by_target[0]
    assert line.difference.ci95 is not None and line.difference.num_clusters == 3
    texts = line_texts(line, found.clusters.unit)
    assert (texts.difference, texts.interval, texts.of) == ("+20.0", "", "3 cases, 3 patients (few)")
    (said,) = [text for text in cautions(found) if text.startswith("by target: ")]
    assert said.startswith("by target: 4 of 4 targets rest on fewer than 10 patients each (marked)")
    page = render_compare_page([found], [([], [])])
    for text in (terminal(found), markdown([found], [[]]), page):
        assert text.count("3 cases, 3 patients (few)") == 4 and text.count("4 of 4 targets") == 1


def test_a_claim_needs_the_interval_and_the_test() -> None:
    (found,) = compare([memory_side("A", results(BEFORE)), memory_side("B", results(AFTER))], ["iou"])
    line = found.lines[0]
    assert finding(line) == "better"
    assert finding(replace(line, p_holm=0.06)) == "no difference found"
    wide = replace(line.difference, ci95=(-0.01, 0.3))
    assert finding(replace(line, difference=wide)) == "no difference found"
    assert finding(replace(line, p_holm=None)) == "too few to test"

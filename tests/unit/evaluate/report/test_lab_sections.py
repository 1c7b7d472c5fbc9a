"""Arms, runs and protocols beside the agent."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ibisagent.evaluate.report.appendix import leakage_text, run_facts
from ibisagent.evaluate.report.lab_sections import lab_findings, lab_remarks, lab_sections
from ibisagent.evaluate.report.model import Forest, Section, Table, Value
from ibisagent.evaluate.report.numbers import cell_text
from ibisagent.evaluate.report.plots import write_plots
from ibisagent.evaluate.report.protocol_section import protocol_section, protocol_sections
from sample_report import make_report


def figure(value: float, spread: float = 0.05, n: int = 24, clusters: int = 12) -> dict[str, Any]:
    return {"value": value, "ci95": [value - spread, value + spread], "n": n, "num_clusters": clusters, "warning": None}


def gap(value: float, p: float, against: str = "agent") -> dict[str, Any]:
    told = {"difference": value, "ci95": [value - 0.1, value + 0.1], "p": p / 2, "p_holm": p, "n": 24}
    return {"against": against, "iou": {**told, "num_clusters": 12, "minimum_detectable": 0.08, "warning": None}}


def arm(
    kind: str, title: str, iou: float | None, difference: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    figures = {} if iou is None else {"iou": figure(iou), "steps": figure(4.0, 9.0)}
    told = {"kind": kind, "title": title, "figures": figures, "complete": True, "num_cases": 24, **more}
    return told if difference is None else {**told, "difference": difference}


@pytest.fixture
def summary() -> dict[str, Any]:
    recovery = {"success": 0.5, "tolerance": 0.05, "n": 24, "recovery": figure(0.6), "given_iou": figure(0.4)}
    return {
        "clusters": {"unit": "image", "number": 12, "warning": "4 patients known"},
        "arms": {
            "agent": arm("agent", "Agent", 0.72, target_mean_iou=figure(0.7)),
            "oracle": arm("ceiling", "Oracle clicks", 0.86, gap(0.14, 0.2)),
            "no-look": arm("baseline", "No look", 0.3, gap(-0.42, 0.0004)),
            "corrupted": arm("robustness", "Corrupted mask", 0.6, gap(-0.12, 0.01), recovery=recovery),
            "false-error": arm("robustness", "False error", 0.7, gap(-0.02, 1.0, "corrupted")),
            "absent-near": arm("robustness", "Absent", None, figures={"right_refusals": figure(0.9)}),
            "wording-start-a": arm("wording", "Wording: a", 0.71, gap(-0.01, 1.0), left_out={"no synonym": 3}),
            "segmenter-sam": arm("segmenter", "sam", None, skipped="no weights", complete=False),
        },
        "ceiling": {
            "agent_over_oracle": {"cases": figure(0.84), "targets": figure(0.82)},
            "share_of_ceiling": {"cases": figure(0.75), "targets": {"value": None}},
            "agent_over_oracle_best": {"cases": figure(0.81), "targets": figure(0.8)},
            "share_of_ceiling_best": {"cases": figure(0.7), "targets": {"value": None}},
        },
        "absent": {
            "right_refusals": {"absent-near": figure(0.9)},
            "specificity": {"absent-near": figure(0.92)},
            "false_refusals": figure(0.03),
            "sensitivity": figure(0.98),
        },
        "wording": {
            "start": {"categories": {"a": {}, "b": {}}, "within_case_sd": figure(0.06), "largest_difference": 0.1}
        },
    }


def block(sections: list[Section], key: str) -> Any:
    return next(b for s in sections for b in s.blocks if b.key == key)


def test_every_kind_of_arm_has_its_section(summary: dict[str, Any]) -> None:
    sections = lab_sections(summary)
    assert [s.key for s in sections] == ["baselines", "robustness", "wording", "segmenters"]
    assert all("4 patients known." in s.cautions for s in sections)
    iou: Forest = block(sections, "baselines-iou")
    assert [(row.label, row.group, row.strong) for row in iou.rows] == [
        ("The agent", "", True),
        ("No look", "Baselines", False),
        ("Oracle clicks", "Ceiling", False),
    ]
    keys = [b.key for s in sections for b in s.blocks]
    assert len(keys) == len(set(keys))


def test_differences_that_hold_are_filled(summary: dict[str, Any]) -> None:
    sections = lab_sections(summary)
    rows = block(sections, "baselines-difference").rows
    assert [(row.label, row.strong, row.note) for row in rows] == [
        ("No look", True, "p < 0.001"),
        ("Oracle clicks", False, "p = 0.20"),
    ]
    robust = {row.label: row for row in block(sections, "robustness-difference").rows}
    assert robust["Corrupted mask"].strong and robust["False error"].detail == "less corrupted mask"
    # Both are needed: a p below 5% beside an interval that holds 0 is no claim.
    summary["arms"]["oracle"]["difference"]["iou"] |= {"p_holm": 0.01, "ci95": [-0.01, 0.29]}
    rows = block(lab_sections(summary), "baselines-difference").rows
    assert [(row.strong, row.note) for row in rows] == [(True, "p < 0.001"), (False, "p = 0.010")]


def test_a_cell_of_other_cases_than_its_row_keeps_its_mark(summary: dict[str, Any]) -> None:
    summary["arms"]["no-look"]["figures"]["right_refusals"] = figure(0.5, n=4, clusters=4)
    table: Table = block(lab_sections(summary), "baselines-figures")
    row = next(cells for cells in table.rows if cells[0] == "No look")
    marked = [cell_text(cell) for cell in row[1:]]
    assert marked[0] == "24 cases, 12 images" and marked[-2] == "50.0% [45.0, 55.0] (few)"
    assert not any("few" in text for text in marked[:-2])
    summary["arms"]["no-look"]["figures"] = {"iou": figure(0.3, n=4, clusters=4)}
    row = next(cells for cells in block(lab_sections(summary), "baselines-figures").rows if cells[0] == "No look")
    assert row[1] == "4 cases, 4 images (few)" and cell_text(row[2]) == "30.0% [25.0, 35.0]"  # its row says so


def test_what_is_missing_is_said(summary: dict[str, Any]) -> None:
    sections = {s.key: s for s in lab_sections(summary)}
    assert "Sam, not played: no weights." in sections["segmenters"].cautions and not sections["segmenters"].blocks
    assert "Wording: a, left out: 3 cases, no synonym." in sections["wording"].cautions
    table: Table = block([sections["wording"]], "wording-spread")
    assert table.rows[0][:2] == ("Nothing drawn yet", 2) and table.rows[0][3] == "10.0"


def test_rates_of_robustness(summary: dict[str, Any]) -> None:
    sections = lab_sections(summary)
    assert block(sections, "recovery").rows[0].value.value == 0.6
    assert block(sections, "given-masks").rows[0][2][0].value == 0.4
    refused = block(sections, "absent-targets").rows
    assert [(row.label, row.group, row.value.value) for row in refused] == [
        ("Absent", "Absent targets that were called absent", 0.9),
        ("Absent", "Absent targets of which nothing was marked (specificity)", 0.92),
        ("The agent", "Present targets that were called absent", 0.03),
        ("The agent", "Present targets of which something was marked (sensitivity)", 0.98),
    ]
    rows = block(sections, "ceiling-share").rows
    assert [(row.value.value, row.group) for row in rows] == [
        *((v, "Against the oracle's last mask") for v in (0.84, 0.82, 0.75)),
        *((v, "Against the best mask of the oracle's run") for v in (0.81, 0.8, 0.7)),
    ]


def test_findings_name_figure_interval_and_chance(summary: dict[str, Any]) -> None:
    told = lab_findings(summary)
    assert told[0] == "Looking adds +42.0 [+32.0, +52.0] points of IoU to one click that never looks, p < 0.001."
    assert "84.0% [79.0, 89.0]" in told[1] and "81.0% [76.0, 86.0] of the best one" in told[1]
    assert [text for text in told if text.startswith("Corrupted mask: −12.0")] and len(told) == 3
    assert lab_remarks(summary) == {"iou": "+42.0 points over no look"}
    assert lab_findings({**summary, "arms": {}, "ceiling": None}) == [] and lab_remarks({"arms": {}}) == {}


def test_nothing_is_found_that_is_not_claimed(summary: dict[str, Any]) -> None:
    look = summary["arms"]["no-look"]["difference"]["iou"]
    look["p_holm"] = 0.2
    assert lab_findings(summary)[0].startswith("That looking adds anything was not found: +42.0 [")
    assert lab_remarks(summary) == {}
    look |= {"p_holm": 0.01, "difference": 0.42, "ci95": [0.32, 0.52]}
    assert lab_findings(summary)[0].startswith("Looking harms: −42.0 [")
    summary["arms"]["corrupted"]["difference"]["iou"]["ci95"] = [-0.2, 0.01]
    assert not any(text.startswith("Corrupted mask") for text in lab_findings(summary))


def test_an_interval_without_width_is_left_out() -> None:
    assert Value.of({"value": 0.5, "ci95": [0.5, 0.5], "n": 3}).ci95 is None
    assert Value.of({"value": 0.5, "ci95": [0.4, 0.6]}).ci95 == (0.4, 0.6) and Value.of(None).value is None


def test_protocols_have_their_tables(tmp_path: Path) -> None:
    side = {"in": figure(0.8), "out": figure(0.6, clusters=4), "drop": {"value": 0.2, "ci95": [0.05, 0.3]}}
    told = {
        "protocol": "domains",
        "title": "In and out",
        "about": "Two sides.",
        "conventions": ["One.", "Two."],
        "figures": {"iou": {"title": "IoU"}, "auc": {"title": "Area", "percent": False, "unit": ""}},
        "clusters": {"unit": "image", "warning": None},
        "left_out": {"no side": 2},
        "overall": {"iou": side},
        "by_modality": {"CT": {"iou": side}, "MRI": {"iou": {**side, "drop": {"value": None, "ci95": None}}}},
        "by_group": {"lung1": {"iou": figure(0.7), "auc": figure(3.5)}},
    }
    section = protocol_section(told)
    assert section.cautions == ("Left out: 2 (no side).",)
    drops, by_modality, by_group, conventions = section.blocks
    assert drops.rows[0][2] == "24 cases, 4 images (few)" and drops.rows[0][5][0].value == 0.2  # type: ignore[union-attr]
    assert [row.label for row in by_modality.rows] == ["CT"]  # type: ignore[union-attr]
    assert by_group.columns == ("", "Of", "IoU, %", "Area") and conventions.kind == "facts"  # type: ignore[union-attr]
    (tmp_path / "protocol-domains.json").write_text(json.dumps(told))
    (tmp_path / "protocol-broken.json").write_text("{}")
    assert [s.key for s in protocol_sections(tmp_path)] == ["protocol-domains"]


def test_a_protocol_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    side = {"in": figure(0.8), "out": figure(0.6), "drop": {"value": 0.2, "ci95": [0.05, 0.3]}}
    told = {
        "protocol": "../../up/and away",
        "title": "Out",
        "figures": {"iou": {"title": "IoU"}},
        "clusters": {"unit": "image", "warning": None},
        "conventions": ["One."],
        "overall": {"iou": side},
        "by_modality": {"CT": {"iou": side}},
        "by_group": {"lung1": {"iou": figure(0.7)}},
    }
    section = protocol_section(told)
    keys = [section.key, *(block.key for block in section.blocks)]
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", key) for key in keys) and len(set(keys)) == len(keys)
    assert keys[0] == "protocol-up-and-away"
    report = make_report()
    bad = replace(report.sections[0].blocks[0], key="../outside")
    section = replace(section, blocks=(*section.blocks, bad))
    (tmp_path / "plots").mkdir()
    with pytest.raises(ValueError, match="no name for a file"):
        write_plots(replace(report, sections=(section,)), tmp_path / "plots")
    assert [path.name for path in tmp_path.rglob("*")] == ["plots"]


def test_the_record_says_whether_images_were_seen_in_training() -> None:
    found = {"images": 3, "cases": 5, "examples": []}
    none = {"images": 0, "cases": 0, "examples": []}
    leak = {"checked": True, "about": "nano", "num_images": 9, "equal": found, "similar": none, "same_group": none}
    assert leakage_text(leak).startswith("Of 9 images 3 were in the policy's training data")
    assert leakage_text({**leak, "equal": none}) == "" and leakage_text(None) == "" and leakage_text({}) == ""
    assert "is not known" in leakage_text({"checked": False, "reason": "no list"})
    groups = dict(run_facts({"policy": "nano", "leakage": {**leak, "equal": none}, "odd_one": [1, 2]}))
    assert dict(groups["Training data"])["seen in training"].startswith("none of the images")
    assert ("odd one", "1, 2") in groups["Settings"]

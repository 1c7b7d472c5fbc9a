"""What conditions do to a case: drawn by seed and case, and as strong as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ibisagent.engine.language.instructions import CATEGORIES, all_templates, draw_instruction, fill
from ibisagent.engine.language.naming import target_phrases
from ibisagent.evaluate.arms.arm import Arm
from ibisagent.evaluate.arms.conditions import BANDS, ELSEWHERE, NEUTRAL, apply_condition
from ibisagent.evaluate.arms.rows import ArmRows, arm_rows
from ibisagent.evaluate.arms.scene import Scene
from ibisagent.evaluate.arms.wording import is_told
from ibisagent.evaluate.case_list import CaseList
from ibisagent.evaluate.run import instruction_seed
from ibisagent.io import CaseRow
from ibisagent.metrics import iou


def under(cases: CaseList, folder: Path, condition: str, seed: int = 0, number: int | None = None) -> ArmRows:
    arm = Arm("x", "robustness", "X", "x", condition=condition)
    return arm_rows(arm, cases, number, folder, seed, "core", 2)


def facts(row: CaseRow) -> dict:
    assert row.model_extra is not None
    return row.model_extra["condition"]


@pytest.mark.parametrize("name", ["wrong-place", "true-place", "false-error", "good-mask", "mismatched-mask",
                                  "corrupted-light", "corrupted-heavy", "absent-foreign",
                                  "wording:start:polite"])  # fmt: skip
def test_the_same_seed_gives_the_same_rows_whatever_else_is_played(cases: CaseList, tmp_path: Path, name: str) -> None:
    first, again = under(cases, tmp_path / "a", name), under(cases, tmp_path / "b", name)
    assert first.sha256 == again.sha256 and first.rows
    masks = [[rows.load(r)[2] for r in rows.rows] for rows in (first, again)]
    assert all(a is b is None or np.array_equal(a, b) for a, b in zip(*masks, strict=True))
    if name.startswith(("wording", "absent")):
        return  # these are spread over the cases that are played
    fewer = {r.case_id: r for r in under(cases, tmp_path / "c", name, number=3).rows}
    assert len(fewer) == 3 and all(r == fewer[r.case_id] for r in first.rows if r.case_id in fewer)
    assert under(cases, tmp_path / "d", name, seed=1).sha256 != first.sha256 or name == "good-mask"


def test_the_place_said_is_false_and_the_sentence_is_a_deceptive_one(cases: CaseList, tmp_path: Path) -> None:
    rows = under(cases, tmp_path, "wrong-place")
    assert len(rows.rows) == 10
    for row in rows.rows:
        place = facts(row)["place"]
        assert place in row.instruction and row.model_extra["category"] == "wrong_place"
        target = rows.load(row)[1]
        height, width = target.shape
        part = 2 if "corner" not in place else 3
        ys = slice(0, height // part) if "upper" in place else slice(height - height // part, None)
        xs = slice(0, width // part) if "left" in place else slice(width - width // part, None)
        assert not target[ys, xs].any()
    assert {"brain"} == {r.target for r in rows.rows if "corner" in facts(r)["place"]}, "it reaches into all quarters"


def test_a_target_that_is_everywhere_has_no_wrong_place(cases: CaseList, tmp_path: Path) -> None:
    class Everywhere(CaseList):
        def load(self, row: CaseRow):
            image, target, initial = super().load(row)
            return image, np.ones_like(target), initial

    full = Everywhere(cases.name, cases.sha256, cases.rows[:2], cases.root)
    rows = under(full, tmp_path, "wrong-place")
    assert rows.rows == () and rows.left_out == {"the target reaches into every corner": 2}


@pytest.mark.parametrize("strength", sorted(BANDS))
def test_damage_is_as_strong_as_it_says(cases: CaseList, tmp_path: Path, strength: str) -> None:
    rows = under(cases, tmp_path, f"corrupted-{strength}")
    assert len(rows.rows) >= 8
    low, high = BANDS[strength]
    for row in rows.rows:
        _, target, given = rows.load(row)
        score = iou(given, target)
        assert low <= score < high and facts(row)["given_iou"] == pytest.approx(score, abs=1e-6)
        assert row.instruction is None, "told as any case with a mask to refine"


def test_a_mismatched_mask_shows_a_neighbour_or_another_place(cases: CaseList, tmp_path: Path) -> None:
    rows = under(cases, tmp_path, "mismatched-mask")
    shown = {}
    for row in rows.rows:
        _, target, given = rows.load(row)
        assert given.any() and iou(given, target) < ELSEWHERE
        shown[row.target] = facts(row)["shows"]
    assert shown["heart"] == "liver" and shown["liver"] == "heart"
    assert shown.get("brain", "another place") == "another place"
    assert len(rows.rows) + sum(rows.left_out.values()) == 10


def test_a_good_mask_is_the_same_whether_or_not_it_is_called_wrong(cases: CaseList, tmp_path: Path) -> None:
    good, said = under(cases, tmp_path / "a", "good-mask"), under(cases, tmp_path / "b", "false-error")
    for a, b in zip(good.rows, said.rows, strict=True):
        mask = good.load(a)[2]
        assert np.array_equal(mask, said.load(b)[2]) and iou(mask, good.load(a)[1]) >= 0.92
        assert a.model_extra["category"] in NEUTRAL and b.model_extra["category"] == "false_error"
        assert a.instruction in all_neutral(a.target) and "rror" not in a.instruction
    assert {r.model_extra["category"] for r in good.rows} == set(NEUTRAL)


def all_neutral(target: str) -> set[str]:
    templates = all_templates("refine", "test", "core")
    phrases = target_phrases(target)
    modalities = ("CT", "MRI")
    return {
        fill(t, phrase, modality, library="core")
        for c in NEUTRAL for t in templates[c] for phrase in phrases for modality in modalities
    }  # fmt: skip


def test_what_is_said_of_the_case_has_the_plain_runs_phrase(cases: CaseList, tmp_path: Path) -> None:
    names = ("wrong-place", "true-place", "false-error", "good-mask")
    for rows in zip(*(under(cases, tmp_path / name, name).rows for name in names), strict=True):
        seed = instruction_seed(0, rows[0].case_id)
        plain = draw_instruction(rows[0].target, rows[0].modality, seed, split="test", library="core").text.lower()
        phrase = max((p.text for p in target_phrases(rows[0].target) if p.text.lower() in plain), key=len)
        assert all(phrase.lower() in row.instruction.lower() for row in rows), phrase
        wrong, true = (row.instruction.replace(facts(row)["place"], "there") for row in rows[:2])
        assert wrong == true, "the place is all that differs"


def test_the_true_place_holds_the_target(cases: CaseList, tmp_path: Path) -> None:
    rows = under(cases, tmp_path, "true-place")
    assert len(rows.rows) == 10
    for row in rows.rows:
        place, target = facts(row)["place"], rows.load(row)[1]
        height, width = target.shape
        if place == "middle":
            assert row.target == "brain" and target[height // 2, width // 2]
            continue
        ys = slice(0, height // 2) if "upper" in place else slice(height // 2, None)
        xs = slice(0, width // 2) if "left" in place else slice(width // 2, None)
        assert target[ys, xs].sum() >= target.sum() / 2
    assert {"heart", "liver"} == {r.target for r in rows.rows if facts(r)["place"] != "middle"}


def test_absent_targets_are_impossible_in_the_modality_and_asked_once(cases: CaseList, tmp_path: Path) -> None:
    rows = under(cases, tmp_path, "absent-foreign")
    assert len(rows.rows) == 10
    assert len({(r.image, r.target) for r in rows.rows}) == 10
    for row in rows.rows:
        image, target, initial = rows.load(row)
        assert target is None and initial is None and image.width == 80
        assert row.mask is None and row.instruction is None and facts(row)["instead_of"] != row.target
        assert row.target not in ("heart", "liver", "brain", "kidney")
        assert row.case_id == f"{facts(row)['of']}__absent-{row.target.replace(' ', '-')}"


def test_near_absent_targets_lie_in_another_part_of_the_body(cases: CaseList, tmp_path: Path) -> None:
    rows = under(cases, tmp_path, "absent-near")
    asked = {(r.modality, r.target) for r in rows.rows}
    assert ("MRI", "liver") in asked or ("MRI", "kidney") in asked or ("MRI", "heart") in asked or asked
    assert not asked & {("CT", "heart"), ("CT", "liver"), ("MRI", "brain"), ("MRI", "gray matter")}


@pytest.mark.parametrize("stage", ["start", "refine"])
@pytest.mark.parametrize("wordings", [1, 2, 3, 20])
def test_wordings_are_spread_evenly(stage, wordings: int) -> None:
    names = CATEGORIES[stage]
    told = {name: sum(is_told(rank, name, stage, wordings) for rank in range(24)) for name in names}
    each = min(wordings, len(names))
    assert sum(told.values()) == 24 * each
    assert max(told.values()) - min(told.values()) <= 1
    for rank in range(24):
        assert sum(is_told(rank, name, stage, wordings) for name in names) == each


def test_a_wording_changes_the_sentence_and_not_the_phrase(cases: CaseList, tmp_path: Path) -> None:
    scene = Scene(cases, tmp_path, 0)
    rows = [r for r in cases.rows if isinstance(r, CaseRow)]
    for stage in ("start", "refine"):
        texts: dict[str, set[str]] = {}
        for category in CATEGORIES[stage]:
            told, _ = apply_condition(f"wording:{stage}:{category}", scene, rows, wordings=9)
            assert len(told) == 10
            for row in told:
                assert row.model_extra["category"] == category and (row.initial_mask is None) == (stage == "start")
                texts.setdefault(row.case_id, set()).add(row.instruction)
        assert all(len(found) == len(CATEGORIES[stage]) for found in texts.values())
    assert set(all_templates("start", "test", "core")) == set(CATEGORIES["start"])

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ibisagent.config import RolloutConfig
from ibisagent.engine.splits import development_images
from ibisagent.errors import InputError
from ibisagent.evaluate import evaluate
from ibisagent.evaluate.case_list import CaseList, open_case_list
from ibisagent.evaluate.leakage import (
    LIST_NAME,
    check_leakage,
    leakage_warning,
    list_images,
    main,
    note_leakage,
    training_images_of,
)
from ibisagent.evaluate.store import RunFolder
from ibisagent.io import CaseRow
from ibisagent.policies.scripted import ScriptedPolicy
from ibisagent.segmenters.rules import RulesSegmenter

MINI = Path(__file__).parents[3] / "data" / "mini" / "cases.jsonl"


def rows_of(cases: CaseList) -> list[CaseRow]:
    return [row for row in cases.rows if isinstance(row, CaseRow)]


@pytest.fixture(scope="module")
def learnt() -> CaseList:
    return open_case_list("phantoms:6?seed=3&size=96&kinds=chest_ct,oct", limit=40)


def played(cases: CaseList) -> list:
    stop = ScriptedPolicy(["<think>x</think><action>Terminate</action><answer>Uncertain</answer>"])
    return evaluate(cases.rows, "", stop, RulesSegmenter(), RolloutConfig(), load=cases.load)


def test_equal_similar_and_of_the_same_patient(learnt: CaseList) -> None:
    training = list_images(learnt, "phantoms")
    results = played(learnt)
    pixels = {
        r.episode.image.sha256: learnt.load(row)[0].pixels for r, row in zip(results, rows_of(learnt), strict=True)
    }

    def image_of(result):
        return pixels.get(result.episode.image.sha256)

    found = check_leakage(results, image_of, training)
    assert found["checked"] and found["equal"]["images"] == found["num_images"] == found["same_group"]["images"]
    assert found["equal"]["cases"] == len(results) and found["similar"]["images"] == 0 == found["num_unseen"]
    assert "were in the policy's training data" in leakage_warning(found)

    # a copy with other contrast is not equal, but looks the same; its name tells nothing
    def brighter(result):
        return np.clip(image_of(result) * 1.1 + 4, 0, 255).astype(np.uint8)

    renamed = [
        replace(r, patient="other", episode=r.episode.model_copy(
            update={"image": r.episode.image.model_copy(update={"sha256": r.episode.image.sha256[::-1]})}
        ))
        for r in results
    ]  # fmt: skip
    backwards = {sha256[::-1]: p for sha256, p in pixels.items()}
    pixels |= backwards
    copies = check_leakage(renamed, brighter, training)
    assert copies["equal"]["images"] == copies["same_group"]["images"] == 0
    assert copies["similar"]["images"] >= 0.9 * copies["num_images"]
    unseen = check_leakage(renamed, lambda result: None, training)
    assert unseen["num_unseen"] == unseen["num_images"] and leakage_warning(unseen) is None


def test_other_images_are_clean(learnt: CaseList) -> None:
    training = list_images(learnt, "phantoms")
    others = open_case_list("phantoms:4?seed=8&size=96&kinds=dermoscopy,fundus", limit=6)
    by_id = {row.case_id: row for row in rows_of(others)}
    results = [replace(r, patient=f"new {number}") for number, r in enumerate(played(others))]
    found = check_leakage(results, lambda r: others.load(by_id[r.case_id])[0].pixels, training)
    assert found["equal"]["images"] == found["similar"]["images"] == 0 and leakage_warning(found) is None


def test_patients_are_compared_and_not_data_sets(tmp_path: Path, learnt: CaseList) -> None:
    row = rows_of(learnt)[0]
    whose = [row.model_copy(update={"group": "hospital", "patient": patient}) for patient in ("p1", None)]
    known, unknown = (list_images(replace(learnt, rows=(one,)), "x") for one in whose)
    assert known.groups == ("p1",) and unknown.groups == ("hospital",)
    result = replace(played(learnt)[-1], group="hospital")
    for patient, number in (("p1", 1), ("set/p1", 1), ("p2", 0), (None, 0)):
        found = check_leakage([replace(result, patient=patient)], lambda r: None, known)
        assert found["same_group"]["images"] == number, patient


def test_it_is_noted_in_run_json_and_no_other_setting(tmp_path: Path, learnt: CaseList) -> None:
    list_images(learnt, "phantoms").save(tmp_path / LIST_NAME)
    facts = {"num_rows": len(learnt.rows), "max_steps": 8}
    stop = ScriptedPolicy(["<think>x</think><action>Terminate</action><answer>Uncertain</answer>"])

    def play(out: Path, keep_images: bool) -> tuple[str | None, dict]:
        with RunFolder.open(out, facts, keep_images=keep_images) as run:
            evaluate(learnt.rows, "", stop, RulesSegmenter(), RolloutConfig(), load=learnt.load, record=run)
            warning = note_leakage(run, f"vlm:{tmp_path}")
            run.finish({})
        return warning, json.loads((out / "run.json").read_text())["leakage"]

    warning, found = play(tmp_path / "run", True)
    assert warning and found["equal"]["images"] == found["num_images"] and found["num_unseen"] == 0
    assert play(tmp_path / "run", True) == (warning, found)  # the same settings go on with it
    assert play(tmp_path / "bare", False)[1]["equal"] == found["equal"]  # hashes need no pictures


def test_without_a_list_nothing_is_claimed() -> None:
    assert training_images_of("oracle") is None and training_images_of("vlm:nowhere") is None
    found = check_leakage([], lambda result: None, None)
    assert found == {"checked": False, "reason": "the policy's weights come with no list of training images"}
    assert leakage_warning(found) is None


def test_nanos_list_is_that_of_its_training_images() -> None:
    shipped = training_images_of("nano")
    assert shipped is not None
    cases = open_case_list(MINI, split="train")
    apart = development_images((row.image, row.group or "", row.target) for row in rows_of(cases))
    made = list_images(cases, shipped.about, without=apart)
    assert (made.sha256, made.fingerprints, made.groups) == (shipped.sha256, shipped.fingerprints, shipped.groups)
    path = Path(__file__).parents[3] / "src/ibisagent/weights/nano" / LIST_NAME
    assert path.stat().st_size < 100_000


def test_lists_are_written_beside_weights_and_damage_is_said(tmp_path: Path) -> None:
    source = "phantoms:2?seed=3&size=96&kinds=oct"
    assert main([source, "--out", str(tmp_path), "--about", "two"]) == 0
    found = training_images_of(f"vlm:{tmp_path}")
    assert found is not None and len(found.sha256) == 2 and found.about == "two"
    assert main(["nothing.jsonl", "--out", str(tmp_path)]) == 2
    path = tmp_path / LIST_NAME
    document = json.loads(path.read_text())
    for damage in ("{", "[]", json.dumps({**document, "images": [{"sha256": "a", "fingerprint": "b", "group": "c"}]})):
        path.write_text(damage)
        with pytest.raises(InputError, match="damaged"):
            training_images_of(f"vlm:{tmp_path}")
    path.write_text(json.dumps({**document, "schema_version": 2}))
    with pytest.raises(InputError, match="schema version 2"):
        training_images_of(f"nano:{tmp_path}")

"""What each protocol plays and reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ibisagent.config import RolloutConfig
from ibisagent.engine.language.implicit import gives_away
from ibisagent.errors import InputError
from ibisagent.evaluate import evaluate
from ibisagent.evaluate.case_list import open_case_list
from ibisagent.evaluate.figures import FIGURES
from ibisagent.evaluate.protocols import PROTOCOLS, make_protocol, protocol_of
from ibisagent.evaluate.result import CaseResult
from ibisagent.io import CaseRow, RowError
from ibisagent.policies.oracle import OraclePolicy
from ibisagent.registry import make_policy
from ibisagent.segmenters.rules import RulesSegmenter

Make = Callable[..., CaseResult]

SPECS = {**{name: name for name in PROTOCOLS}, "domains": "domains?groups=a,b"}


def row(name: str, **facts: object) -> CaseRow:
    return CaseRow(**{"case_id": name, "image": f"{name}.png", "mask": "m.png", "target": "liver", **facts})


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_says_what_it_is_and_comes_back_from_its_facts(name: str, result: Make) -> None:
    protocol = make_protocol(SPECS[name])
    assert protocol.name == name and protocol.title and protocol.about and len(protocol.conventions) >= 3
    facts = json.loads(json.dumps(protocol.facts()))
    results = [result(iou, case_id=f"c{n}", group="ab"[n % 2], image=f"i{n}") for n, iou in enumerate((0.5, 0.9, 0.7))]
    table = protocol.summarise(results, {"some reason": 2})
    assert json.loads(json.dumps(table))["left_out"]["some reason"] == 2
    assert table["num_cases"] == 3 and set(table["overall"]) <= set(table["figures"]) == set(protocol.figures)
    assert protocol_of(facts).summarise(results, {"some reason": 2}) == table


def test_specs(tmp_path: Path) -> None:
    for spec, told in (
        ("nothing", "there is no protocol 'nothing'"),
        ("cvpr25?blue=1", "the protocol 'cvpr25' has no option 'blue'"),
        ("cvpr25?clicks=1", "2 or more"),
        ("cvpr25?box", "is not option=value"),
        ("domains", "must be told what is in domain"),
        ("domains?of=nobody", "there are nano"),
        ("domains?of=nano&groups=a", "one of of=NAME"),
        ("domains?groups=,", "a list is empty"),
    ):
        with pytest.raises(InputError, match=told):
            make_protocol(spec)
    with pytest.raises(InputError, match="damaged"):
        protocol_of({"name": 3})
    path = tmp_path / "mine.yaml"
    path.write_text("in_domain: [{modality: CT}]")
    facts = make_protocol(f"domains?file={path}").facts()
    path.unlink()  # the run knows the description itself
    assert protocol_of(facts).facts() == facts


def test_selection_of_rows() -> None:
    rows = [
        row("a"),
        row("b", mask=None),
        RowError(3, "c", "broken"),
        row("d", initial_mask="x.png", instruction="Fix it."),
    ]
    for name, kept, left in (
        ("domains", 4, {}),
        ("biomedparse", 3, {"the target is absent": 1}),
        ("noc", 3, {"the target is absent": 1}),
    ):
        chosen = make_protocol(SPECS[name]).select(rows, 0)
        assert len(chosen.rows) == kept and chosen.left_out == left
    last = make_protocol("cvpr25").select(rows, 0).rows[-1]
    assert last.initial_mask is None and last.instruction is None  # from nothing


def test_mecovqa_asks_questions(result: Make) -> None:
    rows = [row("a"), row("b", instruction="Where is it?")]
    protocol = make_protocol("mecovqa-g")
    first, second = protocol.select(rows, 3).rows
    assert (
        "liver" in first.instruction and first.instruction.endswith("?") and first.model_extra["category"] == "question"
    )
    assert second == rows[1] and protocol.select(rows, 3).rows[0] == first
    assert protocol.sentences == "all"


def test_reasonseg_never_names_the_target() -> None:
    rows = [row(f"{n}", target=t, modality="CT") for n, t in enumerate(("liver", "bone", "lungs", "frobnicator"))]
    chosen = make_protocol("reasonseg").select(rows, 0)
    assert len(chosen.rows) == 3 and chosen.left_out == {"no description of frobnicator": 1}
    for one in chosen.rows:
        assert one.instruction and not gives_away(one.instruction, one.target)
        assert one.model_extra["category"] == "implicit"


def test_biomedparse_figures_by_modality(result: Make) -> None:
    ious = [0.95, 0.55, 0.2, 0.8]
    results = [
        result(iou, case_id=f"c{n}", image=f"i{n}", modality="CT" if n < 2 else "MRI") for n, iou in enumerate(ious)
    ]
    table = make_protocol("biomedparse").summarise([*results, replace(results[0], absent=True)])
    overall = {name: one["value"] for name, one in table["overall"].items()}
    assert overall["iou"] == pytest.approx(np.mean(ious)) and overall["p_at_80"] == 0.5 and overall["p_at_90"] == 0.25
    assert table["by_modality"]["MRI"]["iou"]["value"] == pytest.approx(0.5)
    assert table["overall"]["iou"]["n"] == 4  # the absent one is none of them
    named = make_protocol("biomedparse").summarise([*results, replace(results[0], case_id="d", target="spleen")])
    assert named["target_name_mean"]["iou"]["value"] == pytest.approx((np.mean(ious) + ious[0]) / 2)
    assert table["clusters"]["unit"] == "image" and table["overall"]["iou"]["ci95"] is not None
    assert set(table["figures"]) <= set(FIGURES)


def test_domains(result: Make) -> None:
    results = [
        result(0.8, case_id="a", image="1", group="a"),
        result(0.6, case_id="b", image="2", group="a"),
        result(0.5, case_id="c", image="3", group="c"),
        result(0.3, case_id="d", image="4", group="c", modality="MRI"),
    ]
    table = make_protocol("domains?groups=a").summarise(results)
    assert (table["num_in"], table["num_out"], table["num_open"]) == (2, 2, 0)
    iou = table["overall"]["iou"]
    assert iou["in"]["value"] == pytest.approx(0.7) and iou["out"]["value"] == pytest.approx(0.4)
    assert iou["drop"]["value"] == pytest.approx(0.3) and iou["drop"]["ci95"][0] < 0.3 < iou["drop"]["ci95"][1]
    assert table["by_modality"]["CT"]["iou"]["drop"]["value"] == pytest.approx(0.2)
    assert table["by_modality"]["MRI"]["iou"]["drop"]["value"] is None
    assert table["by_target"]["liver"]["iou"]["drop"]["value"] == pytest.approx(0.3)
    broken = make_protocol("domains?groups=a").summarise([*results, CaseResult(None, error="line 9: not JSON")])
    assert (broken["num_out"], broken["num_open"], broken["num_errors"]) == (2, 1, 1)
    assert broken["overall"] == table["overall"] and list(broken["left_out"].values()) == [1]
    assert table["by_group"]["c (out of domain)"]["iou"]["value"] == pytest.approx(0.4)


def layout(root: Path) -> Path:
    """Six images of BiomedParseData's layout: a square each, of two modalities, one also with a vessel."""
    for number in range(6):
        mask = np.zeros((40, 40), np.uint8)
        mask[8 : 20 + number, 6:24] = 255
        stem = f"p{number}_{'CT' if number % 2 else 'MRI'}_abdomen"
        save(root / "test" / f"{stem}.png", np.where(mask, 190, 40).astype(np.uint8))
        save(root / "test_mask" / f"{stem}_liver.png", mask)
        if number == 0:
            vessel = np.zeros_like(mask)
            vessel[30:34, 2:38] = 255
            save(root / "test_mask" / f"{stem}_hepatic+vessel.png", vessel)
    return root


def test_biomedparse_end_to_end(tmp_path: Path) -> None:
    protocol = make_protocol("biomedparse")
    cases = open_case_list(f"biomedparse:{layout(tmp_path)}", sentences=protocol.sentences)
    chosen = protocol.select(cases.rows, 0)
    targets: dict = {}
    results = evaluate(
        chosen.rows, "", OraclePolicy(targets), RulesSegmenter(), RolloutConfig(), targets=targets, load=cases.load
    )
    table = protocol.summarise(results, chosen.left_out)
    assert table["num_cases"] == 7 and table["num_errors"] == 0
    assert set(table["by_modality"]) == {"CT", "MRI"} and set(table["by_target"]) == {"liver", "hepatic vessel"}
    assert table["overall"]["ciou"]["value"] > 0.5


@pytest.mark.parametrize("spec", ["cvpr25", "noc?clicks=4"])
def test_segmenter_protocols_end_to_end(tmp_path: Path, spec: str) -> None:
    protocol = make_protocol(spec)
    cases = open_case_list(f"biomedparse:{layout(tmp_path)}", sentences=protocol.sentences)
    targets: dict = {}
    results = evaluate(
        protocol.select(cases.rows, 0).rows, "", make_policy(protocol.policy, targets=targets), RulesSegmenter(),
        protocol.config(RolloutConfig(max_repeated_actions=2)), targets=targets, load=cases.load,
    )  # fmt: skip
    assert not any(r.error for r in results) and {r.episode.end_reason for r in results} == {"terminate"}
    table = protocol.summarise(results)
    assert table["overall"]
    if spec == "cvpr25":
        kinds = {r.target: [s.action.kind for s in r.episode.steps][:2] for r in results}
        boxes = "box" in results[0].episode.policy.action_kinds
        assert kinds["hepatic vessel"][0] == "click"
        assert (kinds["liver"][0] == "box") == boxes
        assert max(r.episode.num_steps for r in results) <= 5 + boxes
    else:
        assert 1 <= table["overall"]["noc_80"]["value"] <= 4
        told = table["figures"]["noc_80"]
        assert told["unit"] == "clicks" and not told["percent"] and "; 4 where that is never" in told["about"]
        assert not any(name.startswith("noc") for name in FIGURES), "an agent's budget is no cap of NoC"

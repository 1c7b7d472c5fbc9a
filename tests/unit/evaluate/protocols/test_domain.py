from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ibisagent.errors import InputError
from ibisagent.evaluate.protocols.domain import SHIPPED, Domain, Rule, load_domain
from ibisagent.evaluate.result import CaseResult

Make = Callable[..., CaseResult]


def test_rules(result: Make) -> None:
    rule = Rule({"modality": ("CT", "mri"), "group": ("lung*",)})
    assert rule.fits(result(0.5, case_id="a", group="Lung1", modality="MRI"))
    assert not rule.fits(result(0.5, case_id="a", group="brain", modality="CT"))
    assert rule.fits(result(0.5, case_id="a", group=None, modality="CT")) is None
    assert rule.fits(result(0.5, case_id="a", group=None, modality="OCT")) is False


def test_what_is_not_known_is_on_no_side(result: Make) -> None:
    domain = Domain("d", (Rule({"modality": ("CT",)}),))
    assert domain.side(CaseResult("a", error="line 3: not JSON")) is None
    assert domain.side(CaseResult("a", modality="OCT", error="no such image")) == "out"
    shipped = load_domain(SHIPPED / "nano.yaml")
    assert shipped.side(CaseResult("a", error="line 3: not JSON")) is None
    assert shipped.side(CaseResult("a", group="lung1", error="no such image")) == "in"
    assert shipped.side(result(0.5, case_id="k", group=None, source="amos")) == "out"


def test_sides(result: Make) -> None:
    inside, outside = (Rule({"group": ("a",)}),), (Rule({"group": ("b",)}),)
    sides = [result(0.5, case_id=g, group=g) for g in "abc"]
    assert [Domain("d", inside).side(one) for one in sides] == ["in", "out", "out"]
    assert [Domain("d", inside, outside).side(one) for one in sides] == ["in", "out", None]


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_files(tmp_path: Path, suffix: str, result: Make) -> None:
    document = {"in_domain": [{"group": ["a", 7], "modality": "CT"}], "out_of_domain": {"source": ["x*"]}}
    path = tmp_path / f"mine.{suffix}"
    yaml = "in_domain:\n- {group: [a, 7], modality: CT}\nout_of_domain: {source: ['x*']}\n"
    path.write_text(json.dumps(document) if suffix == "json" else yaml)
    domain = load_domain(path)
    assert domain.name == "mine" and domain.inside == (Rule({"group": ("a", "7"), "modality": ("CT",)}),)
    assert domain.side(result(0.5, case_id="k", group="7")) == "in"
    assert domain.side(result(0.5, case_id="k", group="8", source="Xray")) == "out"
    assert domain.side(result(0.5, case_id="k", group="8")) is None
    (tmp_path / "again.json").write_text(json.dumps(domain.to_json()))
    assert load_domain(tmp_path / "again.json") == domain


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "neither YAML nor JSON"),
        ("{", "neither YAML nor JSON"),
        ("- 1", "no in_domain"),
        ("in_domain: []", "not empty"),
        ("in_domain: [3]", "is no rule"),
        ("in_domain: [{organ: liver}]", "cases have no 'organ'"),
        ("in_domain: [{group: []}]", "a word or a list of words"),
        ("in_domain: [{group: [[a]]}]", "a word or a list of words"),
        ("in_domain: [{group: a}]\nwhere: here", "there is no 'where'"),
    ],
)
def test_what_is_no_domain(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "d.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        load_domain(path)


def test_shipped_description_fits_the_mini_data_set(result: Make) -> None:
    domain = load_domain(SHIPPED / "nano.yaml")
    cases = Path(__file__).parents[4] / "data" / "mini" / "cases.jsonl"
    groups = {json.loads(line)["group"] for line in cases.read_text().splitlines()}
    assert all(domain.side(result(0.5, case_id="k", group=group)) == "in" for group in groups)
    assert domain.side(result(0.5, case_id="k", group="phantom/oct/000001")) == "in"
    assert domain.side(result(0.5, case_id="k", group="amos_0001")) == "out"

"""A protocol put to use on a list, and its table beside a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ibisagent.config import RolloutConfig
from ibisagent.errors import InputError
from ibisagent.evaluate import evaluate
from ibisagent.evaluate.case_list import open_case_list
from ibisagent.evaluate.protocols import make_protocol
from ibisagent.evaluate.protocols.apply import under_protocol, write_table
from ibisagent.evaluate.store import RunFolder, read_run
from ibisagent.registry import make_policy
from ibisagent.segmenters.rules import RulesSegmenter

PHANTOMS = "phantoms:4?size=64&kinds=chest_ct,brain_mri&seed=2"


def play(out: Path, spec: str, limit: int = 8) -> None:
    protocol = make_protocol(spec)
    cases = open_case_list(PHANTOMS, limit=limit, sentences=protocol.sentences)
    under = under_protocol(protocol, cases, RolloutConfig(), "oracle")
    targets: dict = {}
    facts = {"num_rows": len(under.cases), "max_steps": under.config.max_steps, "protocol": under.facts}
    with RunFolder.open(out, facts) as run:
        policy = make_policy(under.policy, targets=targets)
        rows, load = under.cases.rows, under.cases.load
        evaluate(rows, "", policy, RulesSegmenter(), under.config, targets=targets, load=load, record=run)
        run.finish({})


def test_who_plays_what() -> None:
    cases = open_case_list(PHANTOMS, limit=8)
    under = under_protocol(make_protocol("noc"), cases, RolloutConfig(seed=4), "nano")
    assert under.policy.startswith("clicks:deepest-error") and under.config.max_steps == 20 and under.config.seed == 4
    assert all(row.mask is not None for row in under.cases.rows) and under.facts["name"] == "noc"
    usual = under_protocol(make_protocol("biomedparse"), cases, RolloutConfig(), "nano")
    assert usual.policy == "nano" and usual.config == RolloutConfig()
    absent = open_case_list(PHANTOMS)
    absent = type(absent)(absent.name, "", tuple(r for r in absent.rows if r.mask is None), absent.root)
    with pytest.raises(InputError, match=r"no case in it \(the target is absent: "):
        under_protocol(make_protocol("cvpr25"), absent, RolloutConfig(), "nano")


def test_table_is_made_again_from_the_folder_alone(tmp_path: Path) -> None:
    play(tmp_path, "cvpr25?clicks=2")
    run = read_run(tmp_path)
    table = write_table(tmp_path, run.facts, run.results)
    assert table is not None and table["overall"]["cvpr25_dice_auc"]["value"] <= 1.0  # one trapezoid
    assert json.loads((tmp_path / "protocol-cvpr25.json").read_text()) == json.loads(json.dumps(table))
    assert write_table(tmp_path, read_run(tmp_path).facts, run.results) == table
    assert write_table(tmp_path, run.facts, run.results, "cvpr25?clicks=2") == table
    for spec, told in (
        ("noc", "was not played under the protocol 'noc'"),
        ("cvpr25?clicks=3", "was not played under the protocol 'cvpr25"),
        ("domains?groups=phantom/*", "was played under the protocol 'cvpr25'"),
    ):
        with pytest.raises(InputError, match=told):
            write_table(tmp_path, run.facts, run.results, spec)


def test_tables_are_read_off_a_run_only_where_it_told_the_agent_the_same(tmp_path: Path) -> None:
    play(tmp_path, "domains?groups=phantom/*", limit=12)
    run = read_run(tmp_path)
    num_absent = sum(bool(r.absent) for r in run.results)
    assert 0 < num_absent < len(run.results)
    for facts in (run.facts, {**run.facts, "protocol": None}):
        for spec in ("reasonseg", "mecovqa-g", "noc", "cvpr25"):
            with pytest.raises(InputError, match=f"was not played under the protocol '{spec}'"):
                write_table(tmp_path, facts, run.results, spec)
        table = write_table(tmp_path, facts, run.results, "biomedparse")
        assert table is not None and table["left_out"] == {"the target is absent": num_absent}
        assert table["num_cases"] == len(run.results) - num_absent
        other = write_table(tmp_path, facts, run.results, "domains?groups=elsewhere")
        assert other is not None and other["num_out"] == len(run.results) and not other["left_out"]


def test_a_run_of_no_protocol_has_no_table(tmp_path: Path) -> None:
    assert write_table(tmp_path, {"protocol": None}, []) is None and not list(tmp_path.iterdir())

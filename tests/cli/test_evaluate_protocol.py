"""``ibisagent evaluate --protocol``: the table beside an ordinary run, made again from the folder alone; refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_samples import Ran, save
from run_folders import contents

Cli = Callable[..., Ran]

PHANTOMS = "phantoms:2?size=64&kinds=chest_ct,oct&seed=4"
QUICK = ("--segmenter", "rules", "--processes", 1)


def table(folder: Path, name: str) -> dict:
    return json.loads((folder / f"protocol-{name}.json").read_text())


def test_segmenter_under_simulated_clicks(cli: Cli, folder: Path) -> None:
    words = ("evaluate", PHANTOMS, "--protocol", "cvpr25?clicks=3&box=never", *QUICK, "--out", "run")
    ran = cli(*words)
    assert ran.code == 0, ran.err
    assert "CVPR25 interactive" in ran.err and "Dice AUC: " in ran.err
    run = json.loads((folder / "run/run.json").read_text())
    assert run["policy"] == "clicks:largest-component?clicks=3&box=never" and run["max_steps"] == 4
    assert run["protocol"]["name"] == "cvpr25" and run["leakage"]["checked"] is False
    written = table(folder / "run", "cvpr25")
    assert 0 < written["overall"]["cvpr25_dice_auc"]["value"] <= 2
    before = contents(folder / "run"), written
    (folder / "run/protocol-cvpr25.json").unlink()
    assert cli("evaluate", "--rescore", "run").code == 0
    assert (contents(folder / "run"), table(folder / "run", "cvpr25")) == before
    assert cli(*words).code == 0 and "going on with" in cli(*words).err  # the same settings play nothing again
    other = cli("evaluate", PHANTOMS, "--protocol", "noc", *QUICK, "--out", "run")
    assert other.code == 2 and "holds a run with" in other.err
    assert cli("evaluate", PHANTOMS, "--protocol", "noc?clicks=2", *QUICK, "--out", "run", "--overwrite").code == 0
    assert not (folder / "run/protocol-cvpr25.json").exists() and table(folder / "run", "noc")["overall"]


def test_domains_over_two_lists_and_read_off_a_stored_run(cli: Cli, folder: Path) -> None:
    save(folder / "mask.png", np.eye(48, 64, dtype=np.uint8) * 255)
    row = {"case_id": "a", "image": "image.png", "mask": "target.png", "target": "square", "group": "new"}
    (folder / "cases.jsonl").write_text(json.dumps(row) + "\n")
    ran = cli(
        "evaluate", PHANTOMS, "--also", folder / "cases.jsonl", "--policy", "oracle", *QUICK,
        "--protocol", "domains?of=nano", "--out", "run",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = table(folder / "run", "domains")
    assert found["num_out"] == 1 and found["num_in"] > 5 and "drop" in found["overall"]["iou"]
    assert "IoU: in " in ran.err and "drop " in ran.err
    assert cli("evaluate", "--rescore", "run", "--protocol", "biomedparse").code == 0
    assert table(folder / "run", "biomedparse")["overall"]["ciou"]["value"] > 0
    refused = cli("evaluate", "--rescore", "run", "--protocol", "noc")
    assert refused.code == 2 and "was not played under the protocol 'noc'" in refused.err


def test_grounding_sentences_of_mecovqa_are_cases_under_a_protocol(cli: Cli, folder: Path) -> None:
    name = "ct_00--AMOS2022--amos_0001--x_0020"
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    save(folder / "images" / f"{name}.png", np.where(mask, 200, 30).astype(np.uint8))
    save(folder / "masks" / f"{name}--0006_000.png", mask)
    rows = [
        {"id": str(n), "image": f"images/{name}.png", "conversations": [
            {"from": "human", "value": f"<image>\n{question}"},
            {"from": "gpt", "value": f"<SEG><mask>masks/{name}--0006_000.png</mask>"},
        ]}
        for n, question in enumerate(("Where is the liver?", "Please segment the liver."))
    ]  # fmt: skip
    (folder / "MeCoVQA_Grounding_test.json").write_text(json.dumps(rows))
    spec = f"mecovqa:{folder / 'MeCoVQA_Grounding_test.json'}"
    ran = cli(
        "evaluate", spec, "--protocol", "mecovqa-g", "--policy", "oracle", *QUICK, "--split", "test", "--out", "run"
    )
    assert ran.code == 0, ran.err
    found = table(folder / "run", "mecovqa-g")
    assert found["num_cases"] == 2 and found["overall"]["entity_f1"]["value"] == 1.0
    told = [json.loads(line)["instruction"] for line in (folder / "run/results.jsonl").read_text().splitlines()]
    assert told == ["Where is the liver?", "Please segment the liver."]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--protocol", "fast"), "there is no protocol 'fast'"),
        (("--protocol", "domains"), "must be told what is in domain"),
        (("--protocol", "noc", "--arms", "all"), "means nothing to a lab"),
        (("--also", PHANTOMS, "--arms", "all"), "--also is for a run of one policy"),
        (("--protocol", "reasonseg", "--split", "val"), "no row of the split 'val'"),
    ],
)
def test_refusals_write_nothing(cli: Cli, folder: Path, words: tuple[str, ...], told: str) -> None:
    ran = cli("evaluate", PHANTOMS, *words, "--policy", "oracle", "--out", "run")
    assert ran.code == 2 and told in ran.err and not (folder / "run").exists()


def test_a_list_of_which_nothing_is_left(cli: Cli, folder: Path) -> None:
    row = {"case_id": "a", "image": "image.png", "mask": None, "target": "square"}
    (folder / "cases.jsonl").write_text(json.dumps(row) + "\n")
    ran = cli("evaluate", "cases.jsonl", "--protocol", "biomedparse", "--policy", "oracle", "--out", "run")
    assert ran.code == 2 and "has no case in it (the target is absent: 1)" in ran.err

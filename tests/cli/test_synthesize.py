from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from cli_samples import Ran

from ibisagent.engine.corpus.reader import Corpus

Cli = Callable[..., Ran]
FAST = ("--segmenter", "rules", "--teacher", "terse", "--processes", "1")


def test_a_corpus_and_its_report(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    config = tmp_path / "config.yaml"
    config.write_text("filters: {min_final_dice: 0.5}\nproportions: {self_correction: 1.0}\n")
    ran = cli("synthesize", "phantoms:4?size=96", "--out", out, "--config", config, "--json", *FAST)
    assert ran.code == 0, ran.err
    assert ran.json["num_images"] == 4 and ran.json["config"]["proportions"]["self_correction"] == 1.0
    assert ran.json["config"]["proportions"]["plain"] == 1.0, "what the file does not name stays"
    assert ran.json["num_trajectories"] == Corpus(out).count("sft", "train") > 4
    assert f"{ran.json['num_trajectories']} trajectories from 4 images" in ran.err and "not kept" in ran.err
    again = cli("synthesize", "phantoms:4?size=96", "--out", out, "--config", config, *FAST)
    assert again.code == 0 and "nothing was left to do" in again.err


def test_num_phantoms_adds_a_source(cli: Cli, tmp_path: Path) -> None:
    ran = cli("synthesize", "--num-phantoms", 2, "--out", tmp_path / "out", "--json", *FAST)
    assert ran.code == 0 and ran.json["config"]["sources"] == ["phantoms:2"]


def test_bad_arguments_are_one_line_and_write_nothing(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = tmp_path / "config.yaml"
    for words, said in (
        ((), "no data set"),
        (("nonsense:x",), "nonsense"),
        (("mini:nowhere.jsonl",), "nowhere.jsonl"),
        (("phantoms:3", "--preset", "best"), "best"),
        (("phantoms:3", "--segmenter", "unet"), "unet"),
        (("phantoms:3", "--teacher", "socrates"), "socrates"),
        (("phantoms:3", "--teacher", "chat"), "chat:MODEL"),
        (("phantoms:3", "--config", tmp_path / "none.yaml"), "none.yaml"),
        (("phantoms:3", "phantoms:4"), "phantoms"),
        (("phantoms:3", "--splits", "test"), "nothing to work on"),
    ):
        cli("synthesize", *words, "--out", out).assert_refused(said)
        assert not out.exists(), words
    for text, said in (
        ("colour: red", "colour"),
        ("- a list", "mapping"),
        ("seed: [", "YAML"),
        ("proportions: {plain: 2}", "plain"),
        ("expert: nobody", "nobody"),
        ("dialect: ibis-paper", "undo"),
        ("templates: {direct: ['Segment the {organ}.']}", "placeholder"),
    ):
        config.write_text(text)
        cli("synthesize", "phantoms:3", "--config", config, "--out", out).assert_refused(said)
    assert not out.exists()


def test_a_leak_fails_loudly_and_can_be_allowed(cli: Cli, tmp_path: Path) -> None:
    mini = Path(__file__).parents[2] / "data" / "mini" / "cases.jsonl"
    cli("synthesize", f"mini:{mini}", "--out", tmp_path / "out", *FAST).assert_refused("split")
    kept = tmp_path / "cases.jsonl"
    rows = [json.loads(line) for line in mini.read_text().splitlines()]
    rows = [row for row in rows if row["group"] == "brain1"][:12]
    for row in rows:
        row["image"], row["mask"] = str(mini.parent / row["image"]), str(mini.parent / row["mask"])
    assert {row["split"] for row in rows} == {"train", "val"}
    kept.write_text("\n".join(json.dumps(row) for row in rows))
    ran = cli("synthesize", f"mini:{kept}?name=mini", "--out", tmp_path / "out", "--allow-group", "mini", *FAST)
    assert ran.code == 0, ran.err
    corpus = Corpus(tmp_path / "out")
    assert set(corpus.splits("images")) == {"train", "val"}
    assert list(corpus.splits("sft")) == ["train"] and list(corpus.splits("test")) == ["val"]

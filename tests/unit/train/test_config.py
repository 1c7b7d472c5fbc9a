"""Settings from presets, files and flags: which wins, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from ibisagent.cli.main import main
from ibisagent.errors import InputError
from ibisagent.train.config import Settings, load_config, write_config
from ibisagent.train.sft.config import SftConfig


class Inner(BaseModel, extra="forbid"):
    rank: int = 0
    names: tuple[str, ...] = ()


class Toy(Settings):
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"small": {"rate": 0.5, "inner": {"rank": 3}}}

    rate: float = Field(default=1.0, gt=0)
    """How fast, 100% of it."""
    steps: int | None = None
    """How long."""
    quick: bool = True
    """Whether."""
    inner: Inner = Inner()


def load(*argv: str) -> Toy:
    return load_config(Toy, argv, "toy")


def test_the_later_of_preset_file_set_and_flag_wins(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("rate: 1e-5\nsteps: 7\ninner: {names: [x]}\n")
    assert load() == Toy()
    assert load("--preset", "small").rate == 0.5
    found = load("--preset", "small", "--config", str(file))
    assert (found.rate, found.steps, found.inner) == (1e-5, 7, Inner(rank=3, names=("x",)))
    assert load("--config", str(file), "--set", "rate=2e-3").rate == 2e-3
    found = load("--config", str(file), "--set", "steps=8", "--steps", "9", "--no-quick", "--inner.names", "a", "b")
    assert (found.steps, found.quick, found.inner.names) == (9, False, ("a", "b"))
    assert load("--config", str(file), "--steps", "none").steps is None
    assert load("--set", "inner.rank=4").inner.rank == 4


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--rate", "fast"], "settings: rate: .*number"),
        (["--rate", "-1"], "rate: .*greater than 0"),
        (["--set", "rat=1"], "rat: there is no such setting; is 'rate' meant"),
        (["--set", "rate"], "NAME=VALUE"),
        (["--preset", "huge"], "no preset 'huge'; there are small"),
        (["--what"], "unrecognized arguments: --what .*toy --help"),
        (["--config", "missing.yaml"], "cannot read missing.yaml"),
    ],
)
def test_what_does_not_fit_is_named_in_a_line(argv: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        load(*argv)
    assert "\n" not in str(error.value)


def test_files_that_are_no_settings_are_refused(tmp_path: Path) -> None:
    for text in ("[1, 2]", "a: b: c", "\x00"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError, match=r"bad\.yaml"):
            load("--config", str(tmp_path / "bad.yaml"))


@settings(max_examples=30, deadline=None)
@example(rate=1.0, steps=None, names=["\x85", "é"])
@given(
    rate=st.floats(1e-12, 1e6), steps=st.none() | st.integers(-9, 9), names=st.lists(st.text(max_size=5), max_size=3)
)
def test_what_is_written_is_read_back(tmp_path_factory: Any, rate: float, steps: int | None, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("yaml") / "c.yaml"
    toy = Toy(rate=rate, steps=steps, inner=Inner(names=tuple(names)))
    write_config(toy, path)
    assert load("--config", str(path)) == toy


def test_every_field_has_a_sentence_that_becomes_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(field.description for field in SftConfig.model_fields.values())
    with pytest.raises(SystemExit) as stop:
        load_config(SftConfig, ["--help"], "ibisagent train sft")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--learning-rate RATE Highest learning rate. (default: 1e-05)" in shown
    assert "--no-reflection" in shown


def test_the_paper_s_recipe() -> None:
    config = load_config(SftConfig, ["--preset", "paper", "--model", "m", "--corpus", "c", "--out", "o"], "x")
    assert (config.learning_rate, config.global_batch, config.epochs, config.lora_rank) == (1e-5, 256, 10, 8)
    assert (config.lora_targets, config.freeze_vision, config.max_pixels) == (("all-linear",), True, 262144)
    assert (config.schedule, config.warmup) == ("cosine", 0.1)
    assert config.accumulation(1) == 256 and config.accumulation(8) == 32
    with pytest.raises(InputError, match="256 is no multiple of 7 devices x 1"):
        config.accumulation(7)


@pytest.mark.parametrize("name", sorted(SftConfig.PRESETS))
def test_presets_are_whole(name: str) -> None:
    words = ["--preset", name, "--corpus", "c", "--out", "o", *(["--model", "m"] if name != "nano" else [])]
    assert load_config(SftConfig, words, "x").corpus == ("c",)


def test_the_command_line_refuses_bad_settings_with_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sft", "--preset", "paper", "--learning-rate", "quick"]) == 2
    first = capsys.readouterr().err
    assert main(["train", "sft", "--model", "m", "--out", "o"]) == 2
    second = capsys.readouterr().err
    assert first.count("\n") == second.count("\n") == 1
    assert "learning_rate" in first or "has to be given" in first
    assert "--corpus: has to be given" in second

"""Settings of reinforcement learning: presets, values that do not fit in one line, trl's arguments."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ibisagent.errors import InputError
from ibisagent.train.config import load_config
from ibisagent.train.rl.config import RlConfig


def load(*words: object) -> RlConfig:
    return load_config(RlConfig, ["--out", "runs/a", *map(str, words)], "train rl")


def test_the_paper_s_recipe_is_a_preset() -> None:
    config = load("--preset", "paper")
    assert (config.group_size, config.prompts_per_update * config.group_size, config.learning_rate) == (4, 256, 1e-6)
    assert (config.beta, config.max_steps, config.max_context) == (0.0, 20, 32_768)
    assert (config.loss, config.reward, config.dialect) == ("grpo", "paper", "ibis-paper")


@pytest.mark.parametrize("preset", list(RlConfig.PRESETS))
def test_presets_are_whole(preset: str) -> None:
    config = load("--preset", preset)
    assert config.accumulation(1) * config.micro_batch == config.prompts_per_update * config.group_size


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float32])
def test_none_leaves_the_precision_to_the_machine(monkeypatch: pytest.MonkeyPatch, fast: torch.dtype) -> None:
    monkeypatch.setattr("ibisagent.segmenters.precision.fast_dtype", lambda device: fast)
    nano = load("--preset", "nano", "--device", "cpu")
    assert nano.bf16 is None and nano.low_precision == (fast is torch.bfloat16)
    assert load("--preset", "paper").low_precision is True
    assert load("--device", "cpu").low_precision is False


def test_yaml_and_command_line(tmp_path: Path) -> None:
    (tmp_path / "rl.yaml").write_text("learning_rate: 2e-5\nloss: grpo\n")
    config = load("--config", tmp_path / "rl.yaml", "--loss", "dapo", "--report-to", "none", "--max-pixels", "none")
    assert (config.learning_rate, config.loss, config.report_to, config.max_pixels) == (2e-5, "dapo", (), None)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--group-size", "1"], "group_size"),
        (["--temperature", "0"], "temperature"),
        (["--loss", "ppo"], "loss"),
        (["--beta", "-1"], "beta"),
        (["--set", "learning_rte=1"], "is 'learning_rate' meant?"),
        (["--micro-batch", "3"], "prompts_per_update x group_size = 32 runs cannot be cut into micro batches of 3"),
        (["--updates-per-batch", "2", "--save-updates", "5"], "save_updates (5) must be a multiple"),
        (["--updates-per-batch", "2", "--num-updates", "5"], "num_updates (5) must be a multiple"),
        (["--preset", "huge"], "there is no preset 'huge'"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(words: list[str], reason: str) -> None:
    with pytest.raises(InputError) as error:
        load(*words)
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_runs_are_shared_out_in_whole_groups() -> None:
    config = load("--prompts-per-update", 8, "--group-size", 4, "--micro-batch", 4)
    assert [config.accumulation(n) for n in (1, 2, 4, 8)] == [8, 4, 2, 1]
    for processes in (3, 16):
        with pytest.raises(InputError, match=f"cannot be shared by {processes} processes"):
            config.accumulation(processes)


def test_what_a_resumed_run_must_share() -> None:
    one = load()
    other = load("--num-updates", 999, "--resume", "--save-updates", 1, "--device", "cpu")
    assert one.what_is_learnt == other.what_is_learnt
    for words in (("--seed", 1), ("--reward", "paper"), ("--micro-batch", 4), ("--credit", "turn"), ("--beta", 0.1)):
        assert load(*words).what_is_learnt != one.what_is_learnt
    falling = load("--schedule", "cosine").what_is_learnt
    assert load("--schedule", "cosine", "--num-updates", 999).what_is_learnt != falling


def test_trl_is_told_what_was_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from ibisagent.train.rl.setup import grpo_arguments

    config = load("--out", tmp_path, "--updates-per-batch", 2, "--save-updates", 4, "--prompts-per-update", 8,
                  "--group-size", 4, "--micro-batch", 4, "--loss", "dr_grpo", "--max-context", 1000, "--device", "cpu",
                  "--epsilon-high", 0.28, "--report-to", "none")  # fmt: skip
    args = grpo_arguments(config)
    assert (args.gradient_accumulation_steps, args.steps_per_generation, args.num_generations) == (8, 16, 4)
    assert (args.loss_type, args.max_completion_length, args.epsilon_high) == ("dr_grpo", 1000, 0.28)
    assert (args.top_k, args.top_p, args.beta, args.logging_nan_inf_filter) == (0, 1.0, 0.0, False)

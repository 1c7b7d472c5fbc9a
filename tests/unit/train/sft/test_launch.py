"""The launcher's configurations can be read, and two processes learn what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from killed_runs import kill_at_random

RECIPES = Path(__file__).parents[4] / "recipes" / "accelerate"


@pytest.mark.parametrize("name", ["one", "ddp", "fsdp"])
def test_accelerate_reads_the_configurations(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(RECIPES / f"{name}.yaml"))
    kind = {"one": "NO", "ddp": "MULTI_GPU", "fsdp": "FSDP"}[name]
    assert str(getattr(config.distributed_type, "value", config.distributed_type)) == kind
    assert config.mixed_precision == "bf16" and config.num_machines == 1
    if name == "fsdp":
        from accelerate.utils import FullyShardedDataParallelPlugin

        known = set(FullyShardedDataParallelPlugin.__dataclass_fields__) | {"fsdp_version", "activation_checkpointing"}
        for key in config.fsdp_config:
            assert key.removeprefix("fsdp_") in known or key in known, key


def command(corpus: Path, model: Path, out: Path, *words: Any) -> list[str]:
    head = ["-m", "ibisagent", "train", "sft", "--preset", "tiny", "--device", "cpu", "--corpus", str(corpus)]
    return [*head, "--model", str(model), "--out", str(out), *map(str, words)]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
def test_two_processes_learn_what_one_does(
    corpus: Path, tiny: Any, tmp_path: Path, losses: Callable[[Path], dict[int, float]]
) -> None:
    words = ("--per-device-batch", 1, "--global-batch", 2, "--max-steps", 2, "--no-group-by-length",
             "--vqa-probe", f"corpus:{corpus}?split=train")  # fmt: skip
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1", "--mixed_precision",
              "no", "--dynamo_backend", "no", "--num_processes"]  # fmt: skip
    for count in (1, 2):
        arguments = command(corpus, tiny("qwen2_5_vl"), tmp_path / str(count), *words)
        done = subprocess.run([*launch, str(count), *arguments], env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert two == pytest.approx(one, rel=1e-4)
    assert (tmp_path / "2" / "model" / "model.safetensors").is_file()
    asked = [json.loads((tmp_path / str(count) / "vqa.json").read_text()) for count in (1, 2)]
    assert asked[0]["before"]["num"] == asked[1]["after"]["num"] == 2  # shared out, and put together again
    assert [line["before"] for line in asked[0]["answers"]] == [line["before"] for line in asked[1]["answers"]]


@pytest.mark.slow
def test_a_run_that_is_killed_at_a_random_moment_goes_on_with_the_same_losses(
    corpus: Path, tiny: Any, tmp_path: Path, losses: Callable[[Path], dict[int, float]]
) -> None:
    words = ("--max-steps", 12, "--epochs", 9, "--save-steps", 2)
    model = tiny("qwen3_vl")
    whole = [sys.executable, *command(corpus, model, tmp_path / "whole", *words)]
    subprocess.run(whole, env=ENVIRONMENT, check=True, capture_output=True)
    arguments = [sys.executable, *command(corpus, model, tmp_path / "cut", *words)]
    kill_at_random(arguments, tmp_path / "cut" / "checkpoints" / "checkpoint-2", ENVIRONMENT)
    subprocess.run([*arguments, "--resume"], env=ENVIRONMENT, check=True, capture_output=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 12
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("cut", "whole")]
    assert results[0]["loss"] == results[1]["loss"]

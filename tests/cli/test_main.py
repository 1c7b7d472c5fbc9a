from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_samples import CLICK, Ran, stop

import ibisagent
from ibisagent import memory

Cli = Callable[..., Ran]
Script = Callable[..., str]


def spawn(*argv: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ibisagent", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_help_names_every_command(cli: Cli) -> None:
    ran = cli("--help")
    assert ran.code == 0 and ran.err == ""
    for command in ("segment", "evaluate", "replay", "doctor", "train"):
        assert command in ran.out
        assert cli(command, "--help").code == 0


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"ibisagent {ibisagent.__version__}\n"


def test_usage_errors_are_one_line(cli: Cli) -> None:
    cli().assert_refused("COMMAND")
    cli("dance").assert_refused("dance")
    cli("segment").assert_refused("STUDY")
    cli("train").assert_refused("recipe")
    cli("train", "everything").assert_refused("everything")


def test_defaults_are_the_contract() -> None:
    from ibisagent.cli.parser import build_parser

    options = build_parser().parse_args(["segment", "i.png", "x"])
    assert (options.policy, options.segmenter, options.max_steps, options.seed) == ("nano", "litemedsam", 8, 0)
    options = build_parser().parse_args(["evaluate", "c.jsonl"])
    assert (options.policy, options.segmenter, options.max_steps, options.seed) == ("nano", "litemedsam", 8, 0)


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, ibisagent.cli; ibisagent.cli.main(['--help']);"
        "heavy = {'torch', 'transformers', 'numpy', 'cv2', 'scipy', 'pydantic', 'PIL'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_train_hands_its_arguments_over(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def recipe(argv: list[str]) -> int:
        seen.append(argv)
        return 3

    for name in ("segmenter", "nano"):
        monkeypatch.setitem(sys.modules, f"ibisagent.train.{name}", types.SimpleNamespace(main=recipe))
        assert cli("train", name, "--out", "x", "--help").code == 3
    assert seen == [["--out", "x", "--help"]] * 2


def test_train_knows_its_recipes() -> None:
    from importlib.util import find_spec

    from ibisagent.cli.main import _TRAIN
    from ibisagent.cli.parser import build_parser

    for name, module in _TRAIN.items():
        assert build_parser().parse_args(["train", name]).recipe == name
        assert find_spec(module) is not None
    assert {"sft", "rl", "plot", "plan"} <= set(_TRAIN)


def test_doctor(cli: Cli) -> None:
    ran = cli("doctor", "--json")
    found = ran.json
    assert ran.code == (0 if found["ok"] else 1) and found["ok"] == (not found["problems"])
    assert re.match(r"\d+\.\d+", found["packages"]["numpy"]) and found["ibisagent"] == ibisagent.__version__
    assert any(name.startswith("cpu") for name in found["devices"])
    assert all(len(f["sha256"]) == 64 for files in found["weights"].values() for f in files)
    text = cli("doctor").out
    assert found["packages"]["torch"] in text and "device: cpu" in text


def test_doctor_says_what_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ibisagent.cli.doctor._NEEDED", ("numpy", "no-such-package"))
    monkeypatch.setattr("ibisagent.cli.doctor._weights_root", lambda: tmp_path)
    ran = cli("doctor", "--json")
    assert ran.code == 1
    assert any("no-such-package" in line for line in ran.json["problems"])
    assert any("nano" in line for line in ran.json["problems"])


def test_debugging_shows_where(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBISAGENT_DEBUG", "1")
    ran = cli("segment", "gone.png", "x")
    assert ran.code == 2 and "Traceback" in ran.err and ran.err.rstrip().splitlines()[-1].startswith("ibisagent: error")


def test_as_a_process(folder: Path, script: Script) -> None:
    policy = script(CLICK, stop("Found."))
    args = ("segment", "image.png", "Square.", "--policy", policy, "--segmenter", "rules", "--out", "o", "--json")
    done = spawn(*args, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and '"outcome": "done"' in done.stdout
    assert (folder / "o/mask.png").is_file()
    missing = spawn("segment", "gone.png", "x", cwd=folder)
    assert missing.returncode == 2 and missing.stdout == "" and missing.stderr.count("\n") == 1
    assert spawn(cwd=folder).returncode == 2


def test_a_reader_that_leaves_is_no_crash(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ibisagent", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_kept_unless_the_user_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IBISAGENT_MALLOC", "GLIBC_TUNABLES", "LD_PRELOAD", *memory._OWN_SETTINGS):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        ("IBISAGENT_MALLOC", "0"),
        ("MALLOC_TRIM_THRESHOLD_", "1"),
        ("GLIBC_TUNABLES", "glibc.malloc.check=1"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2"),
    ):
        with monkeypatch.context() as m:
            m.setenv(name, value)
            assert memory.keep_freed_memory() is False, name


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_kept_measurably() -> None:
    code = (
        "import resource, sys\n"
        "from ibisagent.memory import keep_freed_memory\n"
        "done = keep_freed_memory() if sys.argv[1] == 'keep' else False\n"
        "def work():\n"
        "    for _ in range(8):\n"
        "        block = bytearray(64 << 20)\n"  # larger than the largest dynamic threshold of glibc
        "        del block\n"
        "work(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; work()\n"
        "print(int(done), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    env = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k not in ("GLIBC_TUNABLES", "LD_PRELOAD")}

    def faults(mode: str) -> tuple[int, int]:
        done = subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True, env=env)
        was_set, count = map(int, done.stdout.split())
        return was_set, count

    done, kept = faults("keep")
    if not done:
        pytest.skip("another C library")
    assert kept * 10 < faults("plain")[1] or kept < 1000

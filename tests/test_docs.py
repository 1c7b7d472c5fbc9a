"""The documents say what the code does: commands parse, figures come from files, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ibisagent.cli.parser import build_parser

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[str]:
    found = []
    for path in DOCS:
        for block in re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
            lines = re.sub(r"\\\n\s*", "", block).splitlines()
            found += [line.split("  #")[0].strip() for line in lines if line.startswith("ibisagent ")]
    return found


def test_readme_shows_commands() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("command", commands())
def test_documented_commands_parse(command: str) -> None:
    words = shlex.split(command)[1:]
    if words[0] == "train":
        from importlib import import_module

        from ibisagent.cli.main import _TRAIN

        recipe = import_module(_TRAIN[words[1]])
        with pytest.raises(SystemExit) as ended:
            recipe.main([*words[2:], "--help"])
        assert ended.value.code == 0
        return
    assert build_parser().parse_args(words) is not None


def test_readme_figures_come_from_the_result_files() -> None:
    command = [sys.executable, "benchmarks/write_results.py", "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_relative_links_exist(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing

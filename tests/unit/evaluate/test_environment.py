from __future__ import annotations

import getpass
import json
import platform
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.evaluate import environment
from ibisagent.evaluate.environment import describe_environment, differences, git_state
from ibisagent.hashing import text_hash


def test_what_is_told() -> None:
    told = describe_environment("cpu")
    assert told["python"] == platform.python_version() and told["packages"]["numpy"] == np.__version__
    assert told["device"] == "cpu" and told["device_name"] is None and told["cores"] >= 1
    text = json.dumps(told)
    assert str(Path.home()) not in text
    for private in (socket.gethostname(), getpass.getuser()):
        assert len(private) < 5 or private not in text


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_git_state_of_a_repository_and_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src/ibisagent/evaluate"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))

    def git(*words: str) -> str:
        name = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *name, *words], check=True, capture_output=True, text=True
        ).stdout

    assert git_state() is None, "there is no repository"
    git("init")
    assert git_state() is None, "the repository is somebody's own, and the package no part of it"
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()
    clean = {"commit": commit, "dirty": False, "diff_sha256": None}
    assert git_state() == clean
    (tmp_path / "elsewhere.txt").write_text("")
    assert git_state() == clean
    (package / "new.py").write_text("")
    new = git_state()
    assert new is not None and new["dirty"] and new["diff_sha256"] == text_hash("")
    told = []
    for text in ("a = 1\n", "a = 2\n", "a = 1\n"):
        (package.parent / "__init__.py").write_text(text)
        told.append({"git": git_state()})
    assert told[0] == told[2] and differences(told[0], told[2]) == ""
    assert differences(told[0], told[1]) == "other changes since the commit"


def test_differences_that_may_change_a_digit() -> None:
    first: dict[str, Any] = {"python": "3.11", "packages": {"torch": "2.1"}, "threads": 1, "git": None, "workers": 1}
    assert differences(first, {**first, "workers": 8}) == ""
    other = {**first, "packages": {"torch": "2.2"}, "threads": 2, "git": {"commit": "abcdef0123", "dirty": False}}
    assert differences(first, other) == "torch 2.1, now 2.2; threads 1, now 2; commit None, now abcdef01"

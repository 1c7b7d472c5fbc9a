"""The same folder from a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_samples import Ran
from run_folders import contents, write_list

Cli = Callable[..., Ran]
pytest.importorskip("ray")


@pytest.mark.slow
def test_ray_gives_the_same_folder(cli: Cli, folder: Path) -> None:
    words = (write_list(folder, 12), "--policy", "oracle", "--segmenter", "rules")
    assert cli("evaluate", *words, "--out", "here", "--processes", 1).code == 5
    assert cli("evaluate", *words, "--out", "ray", "--executor", "ray", "--processes", 2).code == 5
    assert contents(folder / "here") == contents(folder / "ray")
    ran = cli("evaluate", words[0], "--policy", "nobody", "--out", "x", "--executor", "ray")
    ran.assert_refused("nobody")
    assert not (folder / "x").exists()

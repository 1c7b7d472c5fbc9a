from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.registry import (
    NEEDS_ARGUMENT,
    POLICIES,
    SEGMENTERS,
    make_policy,
    make_segmenter,
    parse_spec,
    wanted_windows,
)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [("nano", ("nano", None)), ("vlm:/a:b", ("vlm", "/a:b")), ("api:org/model", ("api", "org/model"))],
)
def test_specs(spec: str, parts: tuple[str, str | None]) -> None:
    assert parse_spec(spec) == parts


@pytest.mark.parametrize("spec", ["", ":", ":x", "vlm:"])
def test_bad_specs(spec: str) -> None:
    with pytest.raises(InputError, match="NAME"):
        parse_spec(spec)


def test_unknown_names_say_what_exists() -> None:
    with pytest.raises(InputError, match=r"no policy 'gpt'; there are nano, vlm:PATH_OR_ID, api:MODEL"):
        make_policy("gpt")
    with pytest.raises(InputError, match=r"no segmenter 'x'; there are litemedsam, sam:PATH_OR_ID"):
        make_segmenter("x:y")


@pytest.mark.parametrize("kind", sorted(NEEDS_ARGUMENT))
def test_missing_arguments_are_asked_for(kind: str) -> None:
    make = make_policy if kind in POLICIES else make_segmenter
    with pytest.raises(InputError, match=f"needs an argument: {kind}:"):
        make(kind)


def test_made_things_carry_their_names() -> None:
    assert make_segmenter("rules").name == "rules"
    policy = make_policy("oracle", targets={"": np.ones((2, 2), bool)}, device=None)
    assert policy.name == "oracle"
    with pytest.raises(InputError, match="takes no argument"):
        make_segmenter("rules:x")


def test_names_of_the_contract_exist() -> None:
    assert set(POLICIES) == {"nano", "vlm", "api", "scripted", "oracle", "clicks"}
    assert {"litemedsam", "sam", "sam2", "medsam2", "rules"} <= set(SEGMENTERS)


def test_registry_loads_nothing() -> None:
    code = (
        "import sys, ibisagent.registry as r; print([m for m in sys.modules if 'policies' in m or 'segmenters' in m])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("kind", ["vlm", "nano"])
def test_a_model_folder_says_which_windows_it_wants(kind: str, tmp_path: Path) -> None:
    assert wanted_windows(f"{kind}:{tmp_path}") is None
    (tmp_path / "windows.txt").write_text(" lung+soft-tissue+bone\n", encoding="utf-8")
    assert wanted_windows(f"{kind}:{tmp_path}") == "lung+soft-tissue+bone"
    (tmp_path / "windows.txt").write_bytes(b"\xff\xfe")
    assert wanted_windows(f"{kind}:{tmp_path}") is None


def test_most_policies_do_not_mind_their_windows() -> None:
    assert wanted_windows("nano") == "-1000,400"  # as it saw chest CT in training
    for policy in ("oracle", "vlm:some-org/some-model", "api:model", "no-such-kind", object()):
        assert wanted_windows(policy) is None
    assert wanted_windows(SimpleNamespace(windows="bone")) == "bone"

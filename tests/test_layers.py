"""The layers of the house, read from the source: imports go downward only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "ibisagent"

LAYERS: list[set[str]] = [
    {"types", "geometry", "grid", "actions", "episode", "errors", "config", "hashing", "rle", "memory"},
    {"metrics", "rendering", "messages", "clicks", "error_clicks", "registry", "slices"},
    {"io", "segmenters", "policies", "phantoms"},
    {"environment", "rollout", "rewards", "scoring", "replay", "volume"},
    {"engine", "train", "evaluate", "web", "batch"},
    {"api", "cli", "server", "__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
NEVER_EACH_OTHER = LAYERS[2]

HEAVY = {"torch", "torchvision", "transformers", "peft", "accelerate", "safetensors"}
MODEL_POLICIES = ("vlm", "nano", "processors", "checkpoints", "weights")
"""Prefixes of the modules in policies/ that run models."""

FILES = sorted(SRC.rglob("*.py"))


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(SRC).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, those inside functions and type checks included."""
    package = ("ibisagent", *path.relative_to(SRC).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            prefix = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                yield node.lineno, f"{prefix}.{alias.name}"


def ours(path: Path) -> Iterator[tuple[int, str]]:
    """(line, first name below ibisagent) of every import of our own."""
    for line, name in imports(path):
        parts = name.split(".")
        if parts[0] != "ibisagent":
            continue
        # `from ibisagent import __version__` takes a name of the package itself, which imports nothing.
        first = parts[1] if len(parts) > 1 else "__init__"
        if first in LEVEL or (SRC / first).is_dir() or (SRC / f"{first}.py").is_file():
            yield line, first


def test_the_walk_finds_imports() -> None:
    found = dict.fromkeys(name for _, name in ours(SRC / "environment.py"))
    assert {"actions", "episode", "segmenters", "policies", "messages"} <= set(found)
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_go_downward(path: Path) -> None:
    here = module_of(path)[0]
    assert here in LEVEL, f"{here} has no layer: name it in tests/test_layers.py"
    if here == "__init__":
        return  # the package's face; that it loads nothing is tested below
    for line, there in ours(path):
        assert there in LEVEL, f"line {line}: {there} has no layer"
        assert LEVEL[there] <= LEVEL[here], f"line {line}: {here} (L{LEVEL[here]}) imports {there} (L{LEVEL[there]})"
        if here in NEVER_EACH_OTHER and there in NEVER_EACH_OTHER:
            assert here == there, f"line {line}: {here}/ imports {there}/; what both need belongs below"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_models_are_imported_only_where_models_are(path: Path) -> None:
    module = module_of(path)
    if module[0] in ("segmenters", "train"):
        return
    if module[0] == "policies" and len(module) > 1 and module[1].startswith(MODEL_POLICIES):
        return
    if module[0] == "cli" and "doctor" in path.stem:
        return  # it reports which of them are installed
    for line, name in imports(path):
        assert name.split(".")[0] not in HEAVY, f"line {line}: imports {name}"


# Rendering is apart: it draws letters with Pillow, and is loaded only where something is drawn.
CORE = [p for p in FILES if LEVEL.get(module_of(p)[0], 9) <= 1 and module_of(p)[0] != "rendering"]


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(SRC)))
def test_the_core_loads_numpy_and_pydantic_at_most(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "pydantic", "ibisagent"}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:  # the top level only: functions may load more
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for name in names:
            assert name.split(".")[0] in allowed, f"line {node.lineno}: imports {name}"


def test_targets_never_reach_the_environment() -> None:
    """Ground truth reaches only the oracle, rewards and scoring: the loop has no name for it."""
    for name in ("environment.py", "rollout.py", "policies/vlm.py", "policies/api.py", "policies/conversation.py"):
        tree = ast.parse((SRC / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                assert node.arg not in ("target", "targets", "target_mask", "ground_truth"), f"{name}:{node.lineno}"
        assert not any(there in ("scoring", "rewards", "clicks", "error_clicks") for _, there in ours(SRC / name)), name


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_loads_no_model_library() -> None:
    names = "['torch', 'transformers', 'cv2', 'scipy', 'skimage', 'PIL']"
    assert run(f"import sys, ibisagent; print([m for m in {names} if m in sys.modules])") == "[]"


def test_the_loop_loads_no_model_library() -> None:
    code = "import sys, ibisagent.api, ibisagent.replay, ibisagent.scoring, ibisagent.policies.scripted;"
    assert run(code + "print([m for m in ('torch', 'transformers', 'cv2', 'scipy') if m in sys.modules])") == "[]"

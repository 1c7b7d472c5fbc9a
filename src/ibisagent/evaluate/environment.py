"""Where a run was made: interpreter, machine, packages, device and git, for its record."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ibisagent import __version__
from ibisagent.evaluate.player import num_cores
from ibisagent.hashing import text_hash

__all__ = ["PACKAGES", "describe_environment", "differences", "git_state", "package_versions"]

PACKAGES = ("numpy", "scipy", "opencv-python-headless", "pillow", "torch", "torchvision", "transformers")
"""Distributions whose version can change a mask or a figure."""


def describe_environment(device: str | None = None) -> dict[str, Any]:
    """Facts of this process's surroundings. Nothing in it names the machine, its user or a path.

    Parameters
    ----------
    device
        ``--device`` as it was given; a GPU's name is looked up where torch is loaded already and runs on one.

    Returns
    -------
    dict
        ``ibisagent``, ``python``, ``platform``, ``cores`` (that this process may use), ``packages`` (version by
        name, None where not installed), ``device``, ``device_name`` and ``git`` (see :func:`git_state`).
    """
    return {
        "ibisagent": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": num_cores(),
        "packages": package_versions(),
        "device": device,
        "device_name": _device_name(device),
        "git": git_state(),
    }


def package_versions() -> dict[str, str | None]:
    """Versions of :data:`PACKAGES` by name, None where one is not installed."""
    return {name: _version(name) for name in PACKAGES}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In a few words, what of two environments differs that may change a digit; empty if nothing does."""
    found = []
    packages = [f"{name} {(before.get('packages') or {}).get(name)}, now {version}"
                for name, version in (now.get("packages") or {}).items()
                if (before.get("packages") or {}).get(name) != version]  # fmt: skip
    for name in ("python", "platform", "device_name", "batch", "threads"):
        if before.get(name) != now.get(name):
            found.append(f"{name} {before.get(name)}, now {now.get(name)}")
    commits = [(place.get("git") or {}).get("commit") for place in (before, now)]
    if commits[0] != commits[1]:
        found.append(f"commit {str(commits[0])[:8]}, now {str(commits[1])[:8]}")
    elif len({(place.get("git") or {}).get("diff_sha256") for place in (before, now)}) > 1:
        found.append("other changes since the commit")
    return "; ".join([*packages, *found])


def git_state() -> dict[str, Any] | None:
    """Commit of the repository that this package is run from, and whether its files differ from it.

    Returns
    -------
    dict or None
        ``commit``, ``dirty`` (changes to tracked files, or untracked ones, in the package's own folder) and, if so,
        ``diff_sha256``, the hash of what ``git diff`` says of the tracked ones; None where the package is installed
        elsewhere, or there is no git.
    """
    package = Path(__file__).resolve().parents[1]
    # A package that is installed into an environment may lie inside somebody's repository without being part of it.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")
    if commit is None:
        return None
    dirty = bool(changes and changes.strip())
    diff = _git(package, "diff", "HEAD", "--", ".") if dirty else None
    return {"commit": commit.strip(), "dirty": dirty, "diff_sha256": None if diff is None else text_hash(diff)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device_name(device: str | None) -> str | None:
    import sys

    torch = sys.modules.get("torch")
    if torch is None or device is None or not (device.startswith("cuda") or device == "auto"):
        return None
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None

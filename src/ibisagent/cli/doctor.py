"""``ibisagent doctor``: what is installed, which weights and devices are found."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ibisagent import __version__

__all__ = ["examine", "run"]

_NEEDED = (
    *("numpy", "pydantic", "pillow", "scipy", "opencv-python-headless", "nibabel", "pydicom", "tifffile"),
    *("safetensors", "tokenizers", "torch", "transformers", "jinja2", "tqdm"),
)
_EXTRAS = {
    "api": ("openai",),
    "train": ("accelerate", "datasets", "peft", "scikit-image", "tensorboard", "trl"),
    "optional": ("torchvision",),
}
_DEFAULTS = {"nano": "policy nano", "litemedsam": "segmenter litemedsam", "clicknet": "segmenter litemedsam"}
"""Folders of ``ibisagent/weights``, and which default needs each."""


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 if the defaults have what they need, else 1."""
    found = examine()
    if options.json:
        print(json.dumps(found), flush=True)
    else:
        print(_text(found), flush=True)
    return 0 if found["ok"] else 1


def examine() -> dict[str, Any]:
    """Everything that the report says, as plain data.

    Returns
    -------
    dict
        ``ibisagent``, ``python``, ``platform``, ``packages`` (version or None by name), ``extras`` (the same by extra),
        ``devices``, ``weights`` (by folder: files with bytes and sha256), ``problems`` (lines), ``ok``.
    """
    packages = {name: _version(name) for name in _NEEDED}
    weights = _weights()
    missing = [name for name, version in packages.items() if version is None]
    problems = [f"package {name} is missing: pip install {name}" for name in missing]
    problems += [
        f"the default {what} lacks weights: no {folder} in {_weights_root()}"
        for folder, what in _DEFAULTS.items()
        if folder not in weights
    ]
    devices, trouble = _devices()
    problems += trouble
    return {
        "ibisagent": __version__,
        "location": str(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "extras": {extra: {name: _version(name) for name in names} for extra, names in _EXTRAS.items()},
        "devices": devices,
        "weights": weights,
        "problems": problems,
        "ok": not problems,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _weights_root() -> Path:
    return Path(__file__).parents[1] / "weights"


def _weights() -> dict[str, list[dict[str, Any]]]:
    from ibisagent.hashing import file_hash

    root = _weights_root()
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(root.rglob("*.safetensors")) if root.is_dir() else []:
        entry = {"file": path.name, "bytes": path.stat().st_size, "sha256": file_hash(path)}
        found.setdefault(path.parent.relative_to(root).as_posix(), []).append(entry)
    return found


def _devices() -> tuple[list[str], list[str]]:
    """Names of the devices that torch sees, and what is wrong with it."""
    if find_spec("torch") is None:
        return [], []
    try:
        import torch

        names = [f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads)"]
        names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            names.append("mps")
    except Exception as error:  # a broken installation raises what it likes; that it is broken is the finding
        return [], [f"torch cannot be used: {type(error).__name__}: {' '.join(str(error).split())}"]
    return names, []


def _text(found: dict[str, Any]) -> str:
    def table(packages: dict[str, str | None]) -> str:
        return ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items())

    lines = [
        f"ibisagent {found['ibisagent']} in {found['location']}",
        f"Python {found['python']} on {found['platform']}, {Path(sys.executable)}",
        f"packages: {table(found['packages'])}",
    ]
    lines += [f"extra {extra}: {table(packages)}" for extra, packages in found["extras"].items()]
    lines += [f"device: {name}" for name in found["devices"]]
    for folder, files in found["weights"].items():
        for file in files:
            size = f"{file['bytes'] / 2**20:.1f} MiB"
            lines.append(f"weights: {folder}/{file['file']}, {size}, sha256 {file['sha256'][:12]}")
    lines += [f"problem: {line}" for line in found["problems"]] or ["everything that the defaults need is here"]
    return "\n".join(lines)

"""Find a pretrained model on the disk or the hub, load it, hash it; every failure is one line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError, MissingExtraError
from ibisagent.hashing import file_hash

if TYPE_CHECKING:
    import torch

    from ibisagent.segmenters.preprocess import Normalisation

__all__ = [
    "device_of_worker",
    "is_hub_id",
    "load_model",
    "model_folder",
    "model_type",
    "pick_device",
    "read_normalisation",
    "require",
    "weights_hash",
]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def require(feature: str) -> None:
    """Check that torch and transformers can be imported.

    Parameters
    ----------
    feature
        Name of the backend that needs them.

    Raises
    ------
    ibisagent.errors.MissingExtraError
        If one of them is not installed.
    """
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        # Both come with any extra, as they do with the bare package.
        raise MissingExtraError(f"the segmenter {feature!r}", "train") from error


def pick_device(device: str) -> torch.device:
    """Turn ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"`` into a device that is there.

    Raises
    ------
    ibisagent.errors.InputError
        If the name means nothing or the device is not present.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is not known: use cpu, cuda, cuda:0, mps or auto") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device!r} is not present on this machine: use cpu or auto")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {device!r} is not present on this machine: use cpu or auto")
    return chosen


def device_of_worker(device: str, number: int) -> str:
    """The device of one of several workers, ``"auto"`` resolved: where any GPU may be taken, they take turns at them.

    Parameters
    ----------
    device
        As :func:`pick_device` takes it.
    number
        Of the worker, from 0.
    """
    if device == "auto":
        device = str(pick_device(device))
    if device != "cuda":
        return device
    import torch

    return f"cuda:{number % max(1, torch.cuda.device_count())}"


def is_hub_id(arg: str) -> bool:
    """Whether ``arg`` has the form ``owner/name`` and is nothing on this disk."""
    return _HUB_ID.fullmatch(arg) is not None and not Path(arg).exists()


def model_folder(arg: str, kind: str) -> Path:
    """Return the local folder of a transformers model, fetching it from the hub if ``arg`` is an id.

    Parameters
    ----------
    arg
        Folder, or hub id ``owner/name``.
    kind
        Name of the backend, for messages.

    Raises
    ------
    ibisagent.errors.InputError
        If there is no such folder, it holds no ``config.json``, or the hub does not have it.
    """
    if not arg:
        raise InputError(f"{kind} needs a folder or a hub id, for example {kind}:/models/{kind}")
    path = Path(arg).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{arg}: no config.json here; {kind} needs a model folder written by transformers")
        return path
    if path.exists():
        raise InputError(f"{arg}: a file; {kind} needs a model folder written by transformers")
    if not is_hub_id(arg):
        raise InputError(f"{arg}: no such folder")
    return _from_hub(arg)


def _from_hub(repo: str) -> Path:
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(repo, allow_patterns=["*.json", "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(huggingface_hub.snapshot_download(repo, allow_patterns=["*.json", "*.bin"]))
    except Exception as error:  # the hub's client raises many kinds: HTTP, offline, bad id, full disk
        raise InputError(f"{repo}: no such folder, and not to be had from the hub ({type(error).__name__})") from error
    if not (folder / "config.json").is_file():
        raise InputError(f"{repo}: the hub's repository has no config.json, so it is not a transformers model")
    return folder


def weights_hash(folder: Path) -> str:
    """Hash the weights of a model folder.

    One weight file: its SHA-256, as ``sha256sum`` prints it. Several (shards): the SHA-256 of the
    lines ``name hash`` in the order of names.

    Raises
    ------
    ibisagent.errors.InputError
        If the folder has no weights.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise InputError(f"{folder}: no weights here (*.safetensors)")
    hashes = [file_hash(file) for file in files]
    if len(files) == 1:
        return hashes[0]
    lines = "".join(f"{file.name} {digest}\n" for file, digest in zip(files, hashes, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def model_type(folder: Path) -> str | None:
    """The ``model_type`` that a model folder's ``config.json`` names, or None.

    Raises
    ------
    ibisagent.errors.InputError
        If the file cannot be read.
    """
    found = _read_config(folder).get("model_type")
    return found if isinstance(found, str) else None


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: config.json cannot be read") from error
    if not isinstance(content, dict):
        raise InputError(f"{folder}: config.json cannot be read")
    return content


def load_model(
    class_name: str,
    folder: Path,
    model_types: frozenset[str],
    configure: Callable[[dict[str, Any]], Any] | None = None,
) -> Any:
    """Load a transformers model in float32, complete or not at all.

    Parameters
    ----------
    class_name
        ``"SamModel"``, ``"Sam2Model"`` or ``"Sam2VideoModel"``.
    folder
        Local model folder.
    model_types
        Values of ``model_type`` in ``config.json`` that the class can load.
    configure
        Makes the configuration from what ``config.json`` says; None leaves that to the class.

    Raises
    ------
    ibisagent.errors.InputError
        If the folder is of another model, damaged, or lacks weights: transformers would fill those
        with random numbers, and the masks would be noise.
    """
    import torch
    import transformers

    found = model_type(folder)
    if found not in model_types:
        wanted = " or ".join(sorted(model_types))
        raise InputError(f"{folder}: config.json says model_type {found!r}, not {wanted}")
    try:
        with _quiet():
            options = {} if configure is None else {"config": configure(_read_config(folder))}
            model, info = getattr(transformers, class_name).from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **options
            )
    except Exception as error:  # damaged safetensors, wrong shapes, missing files: all are the folder's fault
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{folder}: cannot be loaded ({type(error).__name__}: {first[:200]})") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(f"{folder}: {len(missing)} weights are missing, the first is {missing[0]}")
    return model


def read_normalisation(folder: Path, default: Normalisation) -> Normalisation:
    """Take mean and standard deviation from ``preprocessor_config.json`` where the folder has a usable one."""
    from dataclasses import replace

    try:
        found = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
        mean, std = (tuple(float(v) for v in found[key]) for key in ("image_mean", "image_std"))
    except (OSError, ValueError, TypeError, KeyError):
        return default
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        return default
    return replace(default, mean=mean, std=std)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' load report and progress bar off the terminal; what matters becomes an error of ours."""
    import transformers

    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

"""Loading a vision-language model: from a folder or the hub, with or without an adapter, on a device."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibisagent.errors import InputError, MissingExtraError
from ibisagent.policies.conversation import one_line
from ibisagent.policies.processors import load_processor
from ibisagent.policies.weights import weight_files, weights_hash

__all__ = ["Checkpoint", "load_checkpoint"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DTYPES = ("auto", "float32", "float16", "bfloat16")
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model ready to generate, its processor, and the hash of its weights.

    Parameters
    ----------
    model
        transformers model (or peft's around it), in evaluation mode on `device`.
    processor
        Its processor, padding on the left.
    device
        Where it is, as torch names it.
    weights_sha256
        See :func:`~ibisagent.policies.weights.weights_hash`; an adapter's files follow the base's.
    """

    model: Any
    processor: Any
    device: str
    weights_sha256: str


def load_checkpoint(
    path_or_id: str | Path,
    device: str | None = None,
    dtype: str | None = None,
    adapter: str | Path | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Load a model; the parameters are those of :class:`~ibisagent.policies.vlm.VlmPolicy`.

    Raises
    ------
    InputError
        If there is no such model, it takes no images, or an option cannot be used.
    MissingExtraError
        If there is an adapter and peft is not installed.
    """
    if dtype not in (None, *_DTYPES):
        raise InputError(f"dtype must be one of {', '.join(_DTYPES)}, not '{dtype}'")
    folder = _folder(path_or_id, local_files_only)
    if _is_adapter(folder):
        if adapter is not None:
            raise InputError(f"{path_or_id} is an adapter itself; give its base model to put another one on")
        adapter = folder
        folder = _base_of(folder, local_files_only)
    on = _folder(adapter, local_files_only) if adapter is not None else None
    if on is not None and not (on / _ADAPTER).is_file():
        raise InputError(f"{on} is no LoRA adapter: it has no {_ADAPTER}")
    model_type = _model_type(folder)
    if model_type == "ibis_nano":
        from ibisagent.policies import nano_model

        nano_model.register()
    files = weight_files(folder)
    if not files:
        raise InputError(f"{folder} holds no weights: no .safetensors and no .bin file")
    device = _device(device)
    model = _load_model(folder, model_type, dtype or ("float32" if device == "cpu" else "auto"))
    source = folder
    if on is not None:
        model = _put_adapter(model, on)
        files = [*files, *weight_files(on)]
        if (on / "tokenizer_config.json").is_file() and _has_image_settings(on):
            source = on  # training may have changed the chat template or the image size
    processor = load_processor(source, model_type)
    return Checkpoint(model.to(device).eval(), processor, device, weights_hash(files))


def _device(device: str | None) -> str:
    import torch

    if device in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(str(device)).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"the device '{device}' cannot be used: {one_line(error, 120)}") from None
    return str(device) if kind != "cpu" else "cpu"


def _folder(path_or_id: str | Path, local_files_only: bool) -> Path:
    """The folder of a local model, or of the local copy of a hub model."""
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path_or_id} is a file; a model is a folder with config.json and weights")
    if not _HUB_ID.fullmatch(str(path_or_id)):
        raise InputError(f"there is no folder {path_or_id}, and it is no hub id of the form OWNER/NAME")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]
    try:
        folder = Path(snapshot_download(str(path_or_id), allow_patterns=patterns, local_files_only=local_files_only))
        if not weight_files(folder):
            patterns = ["*.bin"]
            folder = Path(
                snapshot_download(str(path_or_id), allow_patterns=patterns, local_files_only=local_files_only)
            )
    except Exception as error:  # not found, gated, offline, no network, no disk: all for the user to mend
        reason = one_line(error, 160)
        raise InputError(f"{path_or_id} is no local folder, and the hub does not give it: {reason}") from None
    return folder


def _is_adapter(folder: Path) -> bool:
    return (folder / _ADAPTER).is_file() and not (folder / "config.json").is_file()


def _base_of(adapter: Path, local_files_only: bool) -> Path:
    """The folder of the model that an adapter was trained on."""
    base = _read_json(adapter / _ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"{adapter} does not name its base model; give the base and this folder as adapter")
    beside = adapter / base
    try:
        return _folder(beside if beside.is_dir() else base, local_files_only)
    except InputError as error:
        raise InputError(f"the base model of the adapter {adapter} is missing: {error}") from None


def _model_type(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no model: it has no config.json")
    kind = _read_json(folder / "config.json").get("model_type")
    if not isinstance(kind, str):
        raise InputError(f"{folder} is no transformers model: its config.json has no model_type")
    return kind


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error, 120)}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} cannot be read: not a JSON object")
    return data


def _has_image_settings(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))


def _load_model(folder: Path, model_type: str, dtype: str) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise InputError(f"the config.json in {folder} cannot be used: {one_line(error)}") from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise InputError(f"the '{model_type}' model in {folder} does not turn images and text into text")
    try:
        with _quiet(sum(path.stat().st_size for path in weight_files(folder))):
            model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except Exception as error:  # damaged or missing shards, shapes that do not fit, no memory
        raise InputError(f"cannot load the model in {folder}: {one_line(error)}") from error
    # A model's own settings (sampling, penalties on repeated tokens) are for chats, not for coordinates.
    ends = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=model.generation_config.pad_token_id)
    return model


@contextmanager
def _quiet(num_bytes: int) -> Iterator[None]:
    """No progress bar for what loads in a moment."""
    from transformers.utils import logging

    hide = num_bytes < 2**30 and logging.is_progress_bar_enabled()
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            logging.enable_progress_bar()


def _put_adapter(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingExtraError("a LoRA adapter", "train") from None
    try:
        return PeftModel.from_pretrained(model, adapter)
    except Exception as error:
        raise InputError(f"cannot put the adapter {adapter} on its base model: {one_line(error)}") from error

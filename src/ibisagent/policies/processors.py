"""Processors of vision-language models, with and without torchvision.

A processor turns a chat with images into a model's inputs. transformers' own factory needs torchvision
even where nothing is a video; there is no torchvision for a CPU-only torch. Without it the stock class of the model
is put together by hand: its image processor's PIL twin, its tokenizer, its chat template, no video part.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ibisagent.errors import InputError
from ibisagent.policies.conversation import one_line

__all__ = ["BUILDERS", "load_processor"]

BUILDERS: dict[str, Callable[[Path], Any]] = {}
"""Our own model types put a function here that makes a processor from a folder."""

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def load_processor(folder: str | Path, model_type: str) -> Any:
    """The processor of the model in `folder`, padding on the left as generation needs.

    Raises
    ------
    InputError
        If the folder has none, or it cannot be made without torchvision.
    """
    from transformers import AutoProcessor
    from transformers.utils import is_torchvision_available

    folder = Path(folder)
    if not any((folder / name).is_file() for name in _VOCABULARIES):  # transformers would make an empty one
        raise InputError(f"the model in {folder} has no tokenizer")
    try:
        if model_type in BUILDERS:
            processor = BUILDERS[model_type](folder)
        elif is_torchvision_available():
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        else:
            processor = _by_hand(folder, model_type)
    except InputError:
        raise
    except Exception as error:  # transformers raises everything from OSError to AttributeError here
        raise InputError(f"cannot load the processor in {folder}: {one_line(error)}") from error
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not hasattr(processor, "apply_chat_template"):
        raise InputError(f"the model in {folder} has no processor for text with images")
    if processor.chat_template is None:
        processor.chat_template = tokenizer.chat_template
    if processor.chat_template is None:
        raise InputError(f"the model in {folder} has no chat template, so it cannot hold a conversation")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def _by_hand(folder: Path, model_type: str) -> Any:
    """The stock processor class of a model type over (PIL image processor, tokenizer)."""
    from transformers import AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

    name = PROCESSOR_MAPPING_NAMES.get(model_type)
    stock = processor_class_from_name(name) if name else None
    try:
        parts = stock.get_attributes() if stock else []
    except ImportError:
        parts = []
    if [p for p in parts if p != "video_processor"] != ["image_processor", "tokenizer"] or parts[:1] != [
        "image_processor"
    ]:
        raise InputError(
            f"a '{model_type}' model needs torchvision for its images: install the one made for your torch"
        )
    assert stock is not None
    images = _pil_image_processor(folder, model_type).from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    settings, _ = stock.get_processor_dict(folder, local_files_only=True)
    settings.setdefault("chat_template", tokenizer.chat_template)
    cls = stock if len(parts) == 2 else _without_video(stock)
    return cls.from_args_and_dict([images, tokenizer], settings)


def _without_video(stock: Any) -> Any:
    """A subclass of a stock processor that has two parts.

    ``ProcessorMixin`` reads the parts off the signature of ``__init__``, and drops the third that the
    stock one passes on. It keeps the stock name, under which it is saved and can be loaded elsewhere.
    """

    def __init__(self: Any, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        stock.__init__(self, image_processor, tokenizer, None, chat_template=chat_template)

    return type(stock.__name__, (stock,), {"__init__": __init__, "__doc__": _without_video.__doc__})


def _pil_image_processor(folder: Path, model_type: str) -> Any:
    """The PIL class of the image processor that a folder names, or that its model type has."""
    import transformers
    from transformers.models.auto.auto_mappings import IMAGE_PROCESSOR_MAPPING_NAMES

    names = []
    for file in ("preprocessor_config.json", "processor_config.json"):
        if (folder / file).is_file():
            settings = json.loads((folder / file).read_text(encoding="utf-8"))
            settings = settings.get("image_processor", settings)
            named = str(settings.get("image_processor_type") or "")
            if named:
                names.append(named.removesuffix("Fast").removesuffix("Pil") + "Pil")
    pair = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)
    if pair and pair.get("pil"):
        names.append(str(pair["pil"]))
    for name in names:
        cls = getattr(transformers, name, None)
        if cls is not None:
            return cls
    raise InputError(f"a '{model_type}' model needs torchvision for its images: install the one made for your torch")

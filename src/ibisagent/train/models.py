"""What a training starts from: a model, its processor, its system prompt, what of it is learnt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibisagent.errors import InputError, MissingExtraError
from ibisagent.policies.conversation import one_line

__all__ = [
    "Lora",
    "Start",
    "export_model",
    "freeze",
    "is_nano",
    "limit_pixels",
    "load_start",
    "same_parameters_learn",
    "vision_parts",
    "without_input_gradients",
    "write_told",
]

_VISION = ("visual", "vision_tower", "vision_model", "vision", "multi_modal_projector", "connector")
"""Attributes that hold the vision tower and its projector: Qwen, LLaVA and Gemma, Idefics, nano."""


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter.

    Parameters
    ----------
    rank, alpha, dropout
        As LoRA names them.
    targets
        Names of layers; ``all-linear`` are all but the output layer.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("all-linear",)


@dataclass(frozen=True, eq=False)
class Start:
    """A model to train.

    Parameters
    ----------
    model
        In training mode on the CPU; peft's wrapper where there is an adapter.
    processor
        Its processor.
    system_prompt
        The prompt that its folder names, or None.
    base
        Folder or hub id of the weights below an adapter, for the adapter's own record.
    dialect
        The grammar that its folder says it learnt (``dialect.txt``), or None.
    """

    model: Any
    processor: Any
    system_prompt: str | None
    base: str
    dialect: str | None = None

    @property
    def nano(self) -> bool:
        """Whether it is NanoVLM, with or without an adapter."""
        return is_nano(self.model)

    @property
    def grid(self) -> int | None:
        """Cells a side of the only coordinates that the model can say; None where it says any."""
        return int(self.model.config.grid) if self.nano else None


def load_start(
    spec: str,
    *,
    dtype: str = "float32",
    lora: Lora | None = None,
    freeze_vision: bool = False,
    random_weights: bool = False,
    max_pixels: int | None = None,
    gradient_checkpointing: bool = False,
    seed: int = 0,
) -> Start:
    """Load a model to train it.

    Parameters
    ----------
    spec
        ``nano``, a folder, a hub id, or the folder of a LoRA adapter. With `lora`, which must name its rank and alpha,
        such an adapter is trained on, on the layers that it has; without, it is merged into its base.
    dtype
        ``float32`` or ``bfloat16``: of the weights.
    lora
        Adapter to put on; None trains the weights themselves.
    freeze_vision
        Whether vision tower and projector stay as they are, without adapters.
    random_weights
        Draw the weights anew in the same shape.
    max_pixels
        Larger images are shown smaller, by the processor itself.
    gradient_checkpointing
        Whether the training will ask for it; not every model has it.
    seed
        Of random weights and adapters.

    Raises
    ------
    InputError
        If there is no such model, it has no gradient checkpointing where that is asked for, an adapter fits nothing in
        it, or has another rank or alpha than `lora`.
    MissingExtraError
        If peft is needed and not installed.
    """
    import torch
    from transformers import set_seed

    from ibisagent.policies.checkpoints import load_checkpoint
    from ibisagent.policies.nano import WEIGHTS_DIR
    from ibisagent.policies.vlm import told

    where = str(WEIGHTS_DIR) if spec == "nano" else spec
    set_seed(seed)
    checkpoint = load_checkpoint(where, device="cpu", dtype=dtype)
    model, processor = checkpoint.model, checkpoint.processor
    if gradient_checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        raise InputError(f"{type(model).__name__} has no gradient checkpointing; use --no-gradient-checkpointing")
    adapted = hasattr(model, "peft_config")
    base = str(model.peft_config["default"].base_model_name_or_path) if adapted else where
    if random_weights:
        if adapted:
            raise InputError("random weights and an adapter do not go together; name the base model")
        model = type(model)(model.config).to(getattr(torch, dtype))
        model.generation_config = checkpoint.model.generation_config
    if adapted and lora is None:
        model = model.merge_and_unload().requires_grad_(True)  # below an adapter, weights are not learnt
    elif adapted and lora is not None:
        known = model.peft_config["default"]
        for name, own, asked in (("rank", known.r, lora.rank), ("alpha", known.lora_alpha, lora.alpha)):
            if own != asked:
                raise InputError(f"the adapter in {where} has {name} {own}, not {asked}: train it on with its own")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
    if freeze_vision:
        freeze(model)
    if lora is not None and not adapted:
        model = _with_lora(model, lora, freeze_vision)
    if lora is not None and Path(base).expanduser().is_dir():
        base = str(Path(base).expanduser().resolve())
    if max_pixels is not None:
        limit_pixels(processor, max_pixels)
    if getattr(model.config, "use_cache", None):
        model.config.use_cache = False
    return Start(model.train(), processor, told("system_prompt", where), base, told("dialect", where))


def is_nano(model: Any) -> bool:
    """Whether a model is NanoVLM, with or without wrappers."""
    return getattr(getattr(model, "config", None), "model_type", "") == "ibis_nano"


def vision_parts(model: Any) -> list[str]:
    """Names of the modules that turn images into tokens, the outermost of each.

    Raises
    ------
    InputError
        If there is none by a known name.
    """
    found = [name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in _VISION]
    outer = [n for n in found if not any(n.startswith(other + ".") for other in found)]
    if not outer:
        raise InputError(f"no vision tower is found in {type(model).__name__}; use --no-freeze-vision")
    return outer


def freeze(model: Any) -> None:
    """Make vision tower and projector parameters that are not learnt; errors as in :func:`vision_parts`."""
    for name in vision_parts(model):
        for parameter in model.get_submodule(name).parameters():
            parameter.requires_grad_(False)


def limit_pixels(processor: Any, max_pixels: int) -> bool:
    """Have a processor show larger images smaller, so that what is saved with the model does it, too.

    Returns
    -------
    bool
        False where the processor has one fixed size, which stays.
    """
    worker = processor.image_processor
    size = getattr(worker, "size", None)
    if size is None or "longest_edge" not in size or not hasattr(worker, "merge_size"):
        return False
    # Qwen counts pixels here, not edges.
    most = min(int(size["longest_edge"]), max_pixels)
    worker.size = {"shortest_edge": min(int(size["shortest_edge"]), most), "longest_edge": most}
    for name, value in (("max_pixels", most), ("min_pixels", worker.size["shortest_edge"])):
        if getattr(worker, name, None) is not None:
            setattr(worker, name, value)
    return True


def export_model(start: Start, model: Any, folder: Path, system_prompt: str, dialect: str) -> None:
    """Write a folder that ``--policy vlm:FOLDER`` loads: weights or adapter, processor, and :func:`write_told`'s files.

    Parameters
    ----------
    start
        What the training began with.
    model
        The trained model, without wrappers of the launcher. Of NanoVLM a half-precision copy is written.
    folder
        Made if need be; files in it are replaced.
    system_prompt, dialect
        The prompt that was trained with, and the name of the grammar that was learnt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if getattr(model.config, "use_cache", None) is False:
        model.config.use_cache = True  # it was off for training alone; who generates wants it
    adapted = hasattr(model, "peft_config")
    if adapted:
        model.peft_config["default"].base_model_name_or_path = start.base
    if start.nano and not adapted:
        from ibisagent.train.nano import export

        export(model.cpu(), start.processor, folder)
    else:
        # An adapter's frozen copy, which the KL term is held to, is no part of the result.
        model.save_pretrained(folder, **({"selected_adapters": ["default"]} if adapted else {}))
        start.processor.save_pretrained(folder)
    write_told(folder, system_prompt, dialect)


def write_told(folder: Path, system_prompt: str, dialect: str) -> None:
    """Write what the policies read beside the weights: ``system_prompt.txt`` and ``dialect.txt``.

    Parameters
    ----------
    folder
        Of the trained model; it exists.
    system_prompt, dialect
        The prompt that was trained with, and the name of the grammar that was learnt.
    """
    (folder / "system_prompt.txt").write_text(system_prompt + "\n", encoding="utf-8")
    (folder / "dialect.txt").write_text(dialect + "\n", encoding="utf-8")


def without_input_gradients(model: Any, args: Any) -> None:
    """Spare a frozen vision tower the way back; call it whenever gradient checkpointing was switched on.

    For checkpointing, trl and transformers make the embeddings' output require gradients, that of Qwen2.5-VL's patches
    too. Only reentrant checkpointing needs it. Every switching on adds hooks and forgets those before.

    Parameters
    ----------
    model
        With or without an adapter.
    args
        Of transformers' trainer.
    """
    reentrant = (args.gradient_checkpointing_kwargs or {}).get("use_reentrant", False)
    if args.gradient_checkpointing and not reentrant and hasattr(model, "disable_input_require_grads"):
        model.disable_input_require_grads()


@contextmanager
def same_parameters_learn(model: Any) -> Iterator[None]:
    """What is learnt stays what is learnt: peft makes all of an adapter trainable whenever it is chosen."""
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before.get(name, False))


def _with_lora(model: Any, lora: Lora, freeze_vision: bool) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtraError("LoRA", "train") from None
    targets = _targets(model, lora, freeze_vision)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        # Adapters stay in float32 on frozen bfloat16 weights: small steps would be rounded away.
        return get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"the adapter does not fit {type(model).__name__}: {one_line(error)}") from None


def _targets(model: Any, lora: Lora, freeze_vision: bool) -> list[str]:
    """Full names of the layers with an adapter."""
    from torch import nn

    head = model.get_output_embeddings()
    left_out = vision_parts(model) if freeze_vision else []
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and not any(name == part or name.startswith(part + ".") for part in left_out)
    ]
    if lora.targets != ("all-linear",):
        wanted = re.compile("|".join(rf"(?:.*\.)?{re.escape(target)}" for target in lora.targets))
        linear = [name for name in linear if wanted.fullmatch(name)]
    if not linear:
        raise InputError(f"no layer of {type(model).__name__} is called {' or '.join(lora.targets)}")
    return linear

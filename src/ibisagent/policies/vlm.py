"""A policy that is a vision-language model on this machine, through transformers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ibisagent.actions import Dialect
from ibisagent.errors import IbisError, InputError, PolicyError
from ibisagent.policies.checkpoints import load_checkpoint
from ibisagent.policies.conversation import (
    Conversation,
    control_words,
    defused,
    folds_system,
    known_options,
    one_line,
    to_pil,
    view_seed,
    with_folded_system,
)
from ibisagent.policies.protocol import Reply, View

__all__ = ["VlmPolicy", "make", "told", "windows", "with_what_is_told"]


class VlmPolicy:
    """Any transformers image-text-to-text model, from a folder or from the Hugging Face hub.

    Greedy decoding by default. Where `temperature` is above 0, the noise of each reply comes from a seed of
    its own (:func:`~ibisagent.policies.conversation.view_seed`). So a reply does not depend on the views
    that it is batched with, up to the rounding of the device: exactly in practice in float32, not always
    in bfloat16.

    Parameters
    ----------
    path_or_id
        Folder of a model, folder of a LoRA adapter (its base is found through ``adapter_config.json``), or
        a hub id such as ``"Qwen/Qwen2.5-VL-3B-Instruct"``. Code in a repository is never run.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"`` …; None or ``"auto"`` takes CUDA where there is one.
    dtype
        ``"float32"``, ``"float16"``, ``"bfloat16"`` or ``"auto"`` (as stored); None is ``"auto"`` on a GPU
        and ``"float32"`` on a CPU.
    adapter
        Folder of a LoRA adapter to put on the model.
    dialect, system_prompt, history, max_images
        See :class:`~ibisagent.policies.conversation.Conversation`.
    max_new_tokens
        Most tokens of a reply; a reply cut off there breaks the grammar, and the model is told so.
    temperature
        0 is greedy.
    batch_size
        Most views in one forward pass.
    max_pixels
        Images with more pixels are shown smaller; None leaves the size to the model's own processor.
    local_files_only
        Take hub models from the local cache only, as ``HF_HUB_OFFLINE=1`` also does.
    name
        Name in records; ``"vlm:…"`` by default.
    windows
        The ``--window`` option that CT is shown in to it where the user names none; None is the rule.

    Raises
    ------
    InputError
        If there is no such model, it takes no images, or an option cannot be used.
    """

    can_skip_thoughts = True

    def __init__(
        self,
        path_or_id: str | Path,
        device: str | None = None,
        dtype: str | None = None,
        adapter: str | Path | None = None,
        dialect: Dialect | str | None = None,
        system_prompt: str | None = None,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        batch_size: int = 8,
        max_images: int | None = None,
        history: bool | None = None,
        max_pixels: int | None = None,
        local_files_only: bool = False,
        name: str | None = None,
        windows: str | None = None,
    ) -> None:
        if max_new_tokens < 1 or batch_size < 1 or temperature < 0:
            raise InputError("max_new_tokens and batch_size must be at least 1, and temperature not negative")
        self.name = name or f"vlm:{path_or_id}"
        self.conversation = Conversation(dialect, system_prompt, history, max_images)
        self.dialect = self.conversation.dialect
        self.system_prompt = system_prompt
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.windows = windows
        checkpoint = load_checkpoint(path_or_id, device, dtype, adapter, local_files_only)
        self.device = checkpoint.device
        self.model = checkpoint.model
        self.processor = checkpoint.processor
        self.weights_sha256: str | None = checkpoint.weights_sha256
        self._fold_system = folds_system(self.processor, self.name)

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        """Write the next reply of every view, ``batch_size`` at a time.

        Raises
        ------
        PolicyError
            If the model fails, or its processor loses an image.
        """
        replies: dict[int, Reply] = {}
        # Conversations of like length share a batch, or most of it would be padding.
        order = sorted(range(len(views)), key=lambda i: len(views[i].episode.steps))
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            try:
                replies.update(zip(part, self._generate([views[i] for i in part], seed), strict=True))
            except IbisError:
                raise
            except Exception as error:  # torch and transformers raise whatever they like
                raise PolicyError(f"{self.name}: {type(error).__name__}: {one_line(error)}") from error
        return [replies[i] for i in range(len(views))]

    def chat(self, conversations: Sequence[list[dict[str, Any]]], seed: int = 0) -> list[str]:
        """Reply to conversations that are no episodes (a visual question), without a system prompt of ours.

        Parameters
        ----------
        conversations
            Messages as :func:`ibisagent.messages.build_messages` makes them, ending with the user's.
        seed
            Of the draws, where `temperature` is above 0.

        Raises
        ------
        PolicyError
            As :meth:`act`.
        """
        texts: list[str] = []
        for start in range(0, len(conversations), self.batch_size):
            part = list(conversations[start : start + self.batch_size])
            try:
                written = self._write(part, [seed + start + i for i in range(len(part))])
            except IbisError:
                raise
            except Exception as error:
                raise PolicyError(f"{self.name}: {type(error).__name__}: {one_line(error)}") from error
            texts += [text for text, _, _ in written]
        return texts

    def _generate(self, views: list[View], seed: int) -> list[Reply]:
        conversations = [self.conversation.messages(view) for view in views]
        openings = [self.conversation.opening(view) for view in views]
        written = self._write(conversations, [view_seed(seed, view) for view in views], openings)
        return [
            Reply(opening + text, num_prompt_tokens, num_tokens, self.conversation.record(view, messages))
            for view, messages, opening, (text, num_prompt_tokens, num_tokens) in zip(
                views, conversations, openings, written, strict=True
            )
        ]

    def _write(
        self, conversations: list[list[dict[str, Any]]], seeds: list[int], openings: Sequence[str] = ()
    ) -> list[tuple[str, int, int]]:
        """What follows each opening (``""`` without), with the numbers of tokens that were read and written."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        inputs = self.encode(conversations, openings)
        width = inputs["input_ids"].shape[1]
        tokenizer = self.processor.tokenizer
        ends = self.model.generation_config.eos_token_id
        ends = [e for e in (ends if isinstance(ends, list) else [ends]) if e is not None] or [tokenizer.eos_token_id]
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )
        noise = LogitsProcessorList()
        if self.temperature > 0:
            noise.append(_sampler(self.temperature, seeds))
        with torch.inference_mode():
            output = self.model.generate(**inputs, generation_config=config, logits_processor=noise)
        written = []
        for i in range(len(conversations)):
            tokens = output[i, width:].tolist()
            end = next((k + 1 for k, token in enumerate(tokens) if token in ends), len(tokens))
            text = tokenizer.decode(tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            written.append((text, int(inputs["attention_mask"][i].sum()), end))
        return written

    def encode(self, conversations: list[list[dict[str, Any]]], openings: Sequence[str] = ()) -> dict[str, Any]:
        """Conversations as the model's inputs, padded on the left, on its device.

        Parameters
        ----------
        conversations
            Each ends with the user's message.
        openings
            How each reply begins, as if the model had written it; none by default.

        Raises
        ------
        PolicyError
            If image tokens and image features do not agree.
        """
        chats = [self._chat(messages) for messages in conversations]
        if any(openings):
            inputs = self._begun(chats, openings)
        else:
            inputs = self.processor.apply_chat_template(
                chats,
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        counts = [sum(part["type"] == "image" for m in chat for part in m["content"]) for chat in chats]
        self._check_images(inputs, counts)
        inputs = inputs.to(self.device, dtype=self.model.dtype)  # casts floating tensors only
        known = inspect.signature(self.model.forward).parameters
        # Llama-like tokenizers write token_type_ids that their models refuse.
        return {k: v for k, v in inputs.items() if k != "token_type_ids" or k in known}

    def _begun(self, chats: list[list[dict[str, Any]]], openings: Sequence[str]) -> Any:
        """As the processor's own way from chats to tensors, with replies that have begun.

        Its ``continue_final_message`` would do, but for templates that drop thoughts from the assistant's turns.
        """
        texts = self.processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        images = [[part["image"] for m in chat for part in m["content"] if part["type"] == "image"] for chat in chats]
        bos = self.processor.tokenizer.bos_token
        # A template that writes the first token itself must not get a second one.
        twice = bos is not None and any(text.startswith(bos) for text in texts)
        return self.processor(
            text=[text + opening for text, opening in zip(texts, openings, strict=True)],
            images=images,
            padding=True,
            return_tensors="pt",
            **({"add_special_tokens": False} if twice else {}),
        )

    def _chat(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Messages as a processor wants them: PIL images, and text without the tokenizer's control words."""
        chat = defused(messages, control_words(self.processor))
        for message in chat:
            message["content"] = [
                {"type": "image", "image": to_pil(part["image"], self.max_pixels)} if part["type"] == "image" else part
                for part in message["content"]
            ]
        return with_folded_system(chat) if self._fold_system else chat

    def _check_images(self, inputs: Any, counts: list[int]) -> None:
        """Every image must have reached the model: some stacks drop images without a word."""
        if sum(counts) and not any(key.startswith("pixel_values") for key in inputs):
            raise PolicyError(f"{self.name}: the processor dropped the images of the conversation")
        token = getattr(self.model.config, "image_token_id", None)
        grid = inputs.get("image_grid_thw")
        if token is None or grid is None:
            return
        if len(grid) != sum(counts):
            raise PolicyError(f"{self.name}: {sum(counts)} images were given, {len(grid)} were processed")
        features = (grid.prod(dim=1) // self.processor.image_processor.merge_size**2).tolist()
        tokens = (inputs["input_ids"] == token).sum(dim=1).tolist()
        start = 0
        for row, count in enumerate(counts):
            wanted = int(sum(features[start : start + count]))
            start += count
            if tokens[row] != wanted:
                raise PolicyError(f"{self.name}: {tokens[row]} image tokens for {wanted} image features")


def make(arg: str | None, **options: Any) -> VlmPolicy:
    """``--policy vlm:PATH_OR_ID``; `options` are those of :class:`VlmPolicy`, None meaning the default.

    A folder that our training wrote says in ``system_prompt.txt`` which prompt it was trained with, and in
    ``dialect.txt`` which grammar it learnt; they hold unless others are given, and an adapter's before its base's.
    ``windows.txt`` says in the same way which windows CT was shown in.
    """
    if not arg:
        raise InputError("the policy vlm needs a folder or a hub id: vlm:PATH_OR_ID")
    return VlmPolicy(arg, **known_options("vlm", VlmPolicy, with_what_is_told(options, arg)))


def with_what_is_told(options: dict[str, Any], *folders: str | Path) -> dict[str, Any]:
    """Options of a policy, with what its folders say where the user says nothing.

    Parameters
    ----------
    options
        Those given; ``adapter`` may name one more folder, which comes first.
    folders
        Of the model.
    """
    adapter = options.get("adapter")
    where = (*([adapter] if adapter else []), *folders)
    found = {name: told(name, *where) for name in ("system_prompt", "dialect", "windows") if options.get(name) is None}
    return {**options, **found}


def told(name: str, *folders: str | Path) -> str | None:
    """What the first of model folders that has ``NAME.txt`` says there; None where no one does.

    Parameters
    ----------
    name
        ``system_prompt``, ``dialect`` or ``windows``.
    folders
        Folders; hub ids have none.

    Raises
    ------
    InputError
        If the file is there and cannot be read: what a model was trained with is not to be guessed then.
    """
    for folder in folders:
        try:
            return (Path(folder).expanduser() / f"{name}.txt").read_text(encoding="utf-8").strip()
        except (PermissionError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {Path(folder) / name}.txt: {one_line(error)}") from None
        except (OSError, RuntimeError, ValueError):  # a hub id, no such file, no such home
            continue
    return None


def windows(arg: str | None) -> str | None:
    """The ``--window`` option in a model folder's ``windows.txt``, or None if there is none (or it is no text)."""
    try:
        return told("windows", arg) if arg else None
    except InputError:
        return None


def _sampler(temperature: float, seeds: list[int]) -> Any:
    """Sampling as an argmax: logits / temperature + Gumbel noise, each row with a generator of its own."""
    import torch
    from transformers import LogitsProcessor

    class Sampler(LogitsProcessor):
        """Logits (rows, vocabulary) made noisy, so that the greedy choice among them is a draw; a generator a row."""

        def __init__(self) -> None:
            self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            # Drawn on the CPU: the same seed gives the same noise on every device.
            rows = [torch.empty(scores.shape[1]).exponential_(generator=g).log().neg() for g in self.generators]
            return scores.float() / temperature + torch.stack(rows).to(scores.device)

    return Sampler()

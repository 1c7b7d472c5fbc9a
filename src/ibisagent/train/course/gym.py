"""The gym: a corpus of phantoms or real cases, held-out prompts, and a NanoVLM that is trained in minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.train.nano_trajectories import SYSTEM_PROMPT

if TYPE_CHECKING:
    from ibisagent.policies.nano_processor import NanoProcessor
    from ibisagent.train.course.config import GymConfig
    from ibisagent.train.rl.prompts import RlPrompt

__all__ = ["PHRASES", "Exam", "gym_model", "gym_processor", "open_exam", "write_corpora"]

PHRASES = (
    "<think>",
    "</think><action>Positive Point (",
    "</think><action>Negative Point (",
    ")</action>",
    "</think><action>Undo</action>",
    "</think><action>Discard</action>",
    "</think><action>Terminate</action><answer>",
    "</answer>",
    "Found: the mask shows the ",
    "Absent: no ",
    "There is no mask yet. I see the ",
    " and start in the ",
    "The mask misses a part of the ",
    "The mask covers more than the ",
    "The mask fits the ",
    " in the ",
    " in this image",
    "The new mask is shown in green.",
    "The given mask is shown in green.",
    SYSTEM_PROMPT,
)
"""What stands in nearly every conversation, one token each: a click is then some ten tokens."""

Exam = dict[str, "list[RlPrompt]"]
"""Held-out prompts: ``present``, ``absent``, ``given``."""

_TRAIN = {"plain": 1.0, "self_correction": 0.3, "mismatched_mask": 0.1, "corrupted_mask": 0.2, "right_stop": 0.1,
          "absent": 0.5, "deceptive": 0.0}  # fmt: skip
_ASK = {"plain": 1.0, "mismatched_mask": 0.05, "corrupted_mask": 0.1, "right_stop": 0.05, "absent": 0.5,
        "deceptive": 0.0}  # fmt: skip
_EXAM = {"plain": 1.0, "mismatched_mask": 0.2, "corrupted_mask": 0.3, "right_stop": 0.0, "absent": 1.0,
         "deceptive": 0.0}  # fmt: skip


def write_corpora(config: GymConfig, num_workers: int | None = None) -> None:
    """Make what all cells share, ``train`` and ``exam`` in their folder; what is there stays.

    Phantoms of the two have different seeds, real cases are of different splits, and instructions come from different
    templates.

    Raises
    ------
    InputError
        If a setting cannot be used.
    """
    from ibisagent.engine.builder.build import synthesize
    from ibisagent.engine.builder.config import load_config

    kinds, size, seed = ",".join(config.kinds), config.image_size, config.data_seed
    common: dict[str, Any] = {
        "segmenter": config.segmenter,
        "teacher": "terse",
        "system_prompt": SYSTEM_PROMPT,
        "min_pixels": config.min_pixels,
        "implicit_share": 0.0,
        "filters": {"max_clicks": config.max_steps},
    }
    for name, count, split, shares, first in (
        ("train", config.train_images, "train", _ASK, 2 * seed + 1),
        ("exam", config.test_images, "test", _EXAM, 2 * seed + 2),
    ):
        source, splits = f"phantoms:{count}?size={size}&seed={first}&kinds={kinds}&split={split}", None
        if config.cases is not None:
            source, splits = f"mini:{config.cases}", ("val" if name == "exam" else "train",)
        settings = load_config(
            (source,), "paper", seed=seed, splits=splits, proportions=_TRAIN, prompts=shares, **common
        )
        synthesize(settings, config.corpora / name, num_workers=num_workers)


def open_exam(config: GymConfig) -> Exam:
    """The held-out prompts, the same for all cells.

    Raises
    ------
    InputError
        If the corpora are not there, or hold fewer prompts than are asked for.
    """
    from ibisagent.train.rl.prompts import CorpusPrompts

    prompts = CorpusPrompts(config.corpora / "exam", "test")
    wanted = {"present": config.num_present, "absent": config.num_absent, "given": config.num_given}
    found: Exam = {name: [] for name in wanted}
    for number in range(len(prompts)):
        prompt = prompts[number]
        given = prompt.case.initial_mask is not None
        kind = "given" if given else "present" if prompt.target is not None else "absent"
        if given and prompt.target is None:
            continue
        if len(found[kind]) < wanted[kind]:
            found[kind].append(prompt)
    short = [f"{len(found[name])} {name}" for name, count in wanted.items() if len(found[name]) < count]
    if short:
        raise InputError(f"the exam holds only {' and '.join(short)}; raise --test-images")
    return found


def gym_processor(config: GymConfig) -> NanoProcessor:
    """Tokenizer of the corpus's texts, for images and coordinates of the gym's size."""
    from ibisagent.engine.corpus.reader import Corpus
    from ibisagent.train.vocabulary import build_processor

    texts = []
    for row in Corpus(config.corpora / "train").rows("sft", columns=["messages"]):
        for message in row["messages"]:
            said = "".join(part["text"] or "" for part in message["content"] if part["type"] == "text")
            for phrase in PHRASES:  # they have entries of their own already
                said = said.replace(phrase, "\n")
            texts.append(said)
    return build_processor(
        texts,
        size=config.vocabulary,
        grid=config.grid,
        image_tokens=config.image_tokens_side**2,
        image_size=config.image_size,
        phrases=PHRASES,
    )


def gym_model(config: GymConfig, processor: NanoProcessor, seed: int) -> Any:
    """A NanoVLM with random weights in the gym's size."""
    import torch

    from ibisagent.policies.nano_model import NanoConfig, NanoForConditionalGeneration, register

    register()
    torch.manual_seed(seed)
    tokenizer = processor.tokenizer
    return NanoForConditionalGeneration(
        NanoConfig(
            vocab_size=len(tokenizer) - config.grid**2,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=4,
            intermediate_size=2 * config.hidden_size,
            max_position_embeddings=2048,
            image_size=config.image_size,
            grid=config.grid,
            image_tokens_side=config.image_tokens_side,
            key_size=config.key_size,
            vision_widths=config.vision_widths,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            coordinate_token_id=tokenizer.convert_tokens_to_ids("<|coordinate|>"),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
    )

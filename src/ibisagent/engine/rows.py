"""Rows of the corpora (:mod:`ibisagent.engine.corpus.schema`) from samples, walks and episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ibisagent.actions import BoxAction, ClickAction
from ibisagent.engine.corpus.schema import NO_MASK
from ibisagent.messages import build_messages
from ibisagent.metrics import dice, iou
from ibisagent.policies.protocol import View
from ibisagent.rendering.png import png_bytes
from ibisagent.rle import Rle, decode_mask, encode_mask

if TYPE_CHECKING:
    from ibisagent.engine.language.instructions import Instruction
    from ibisagent.engine.sources.sample import Sample
    from ibisagent.engine.walk import Subject, Walk
    from ibisagent.episode import Episode
    from ibisagent.types import Case, Image

__all__ = ["image_row", "prompt_row", "question_rows", "sft_row", "stable_id"]

_DIGITS = 6
"""Decimals of scores in rows."""


def stable_id(*parts: object) -> str:
    """Sixteen hex digits that stand for some values; equal values give equal digits on any machine."""
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()[:16]


class _Masks:
    """The masks of a row, each once."""

    def __init__(self) -> None:
        self.rles: list[dict[str, Any]] = []
        self._index: dict[str, int] = {}

    def add(self, mask: Rle | NDArray[np.bool_] | None) -> int:
        """Number of a mask in the row, :data:`NO_MASK` for None."""
        if mask is None:
            return NO_MASK
        rle = mask if isinstance(mask, Rle) else encode_mask(mask)
        if rle.counts not in self._index:
            self._index[rle.counts] = len(self.rles)
            self.rles.append(_rle(rle))
        return self._index[rle.counts]


def _rle(rle: Rle) -> dict[str, Any]:
    return {"size": list(rle.size), "counts": rle.counts}


def _origin(sample: Sample, split: str, image: Image) -> dict[str, Any]:
    return {
        "image_id": image.sha256,
        "sample": sample.key,
        "source": sample.source,
        "group": sample.group,
        "split": split,
        "licence": sample.licence,
        "modality": image.modality,
        "view": sample.view,
    }


def image_row(sample: Sample, split: str, image: Image) -> dict[str, Any]:
    """Row of the table ``images``."""
    spacing = image.geometry.spacing_mm
    return {
        **_origin(sample, split, image),
        "width": image.width,
        "height": image.height,
        "spacing_mm": None if spacing is None else [float(v) for v in spacing],
        "image": {"bytes": png_bytes(image.pixels), "path": f"{image.sha256[:16]}.png"},
    }


def _asked(subject: Subject, scenario: str, instruction: Instruction) -> dict[str, Any]:
    return {
        "target": subject.name,
        "scenario": scenario,
        "instruction": instruction.text,
        "instruction_category": instruction.category,
        "target_mask": None if subject.target is None else _rle(encode_mask(subject.target)),
    }


def _messages(case: Case, episode: Episode, system_prompt: str, masks: _Masks) -> list[dict[str, Any]]:
    """All messages, ending with the last reply; a picture is the number of the mask on it."""

    def draw(_pixels: Any, mask: Any) -> dict[str, Any]:
        return {"type": "image", "text": None, "mask": masks.add(mask)}

    messages = build_messages(View(case, episode, None), system_prompt, draw=draw)
    if episode.steps:
        del messages[-1]  # what the run answers to a Terminate is for nobody
    for message in messages:
        message["content"] = [
            part if part["type"] == "image" else {"type": "text", "text": part["text"], "mask": NO_MASK}
            for part in message["content"]
        ]
    return messages


def sft_row(
    sample: Sample,
    split: str,
    subject: Subject,
    scenario: str,
    instruction: Instruction,
    case: Case,
    walk: Walk,
    episode: Episode,
    system_prompt: str,
    expert: str,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Row of the table ``sft``: one recorded trajectory.

    ``loss_spans`` are the characters of assistant messages that are to be learnt: all of a right reply. What is in no
    span (prompts, tool output, wrong actions) carries no loss.
    """
    masks = _Masks()
    initial = masks.add(case.initial_mask)
    messages = _messages(case, episode, system_prompt, masks)
    replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    steps, spans = [], []
    for reply, move, step in zip(replies, walk.moves, episode.steps, strict=True):
        mask = None if step.mask is None else decode_mask(step.mask)
        steps.append(
            {
                "intent": move.intent.value,
                "thought": step.thought,
                "action": step.action.model_dump_json() if step.action is not None else None,
                "learn": move.learn,
                "mask": masks.add(step.mask),
                "changed_pixels": step.changed_pixels,
                "segmenter_score": _rounded(step.segmenter_score),
                **_scores(mask, subject.target),
            }
        )
        if move.learn:
            spans.append({"message": reply, "start": 0, "end": len(step.raw_text)})
    final = None if walk.final_mask is None else walk.final_mask
    outcome = episode.outcome
    assert outcome is not None
    scores = _scores(final, subject.target)
    return {
        "trajectory_id": stable_id(sample.source, sample.key, subject.name, scenario),
        **_origin(sample, split, case.image),
        **_asked(subject, scenario, instruction),
        "masks": masks.rles,
        "initial_mask": initial,
        "expert": expert,
        "messages": messages,
        "loss_spans": spans,
        "steps": steps,
        "outcome": outcome.value,
        "answer": episode.answer,
        "final_iou": scores["iou"],
        "final_dice": scores["dice"],
        "num_steps": episode.num_steps,
        "num_clicks": sum(isinstance(m.action, ClickAction | BoxAction) for m in walk.moves),
        "provenance": dict(provenance),
    }


def prompt_row(
    sample: Sample,
    split: str,
    subject: Subject,
    scenario: str,
    instruction: Instruction,
    case: Case,
    episode: Episode,
    system_prompt: str,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Row of the tables ``rl`` and ``test``: the first messages and the reference mask; `episode` has no steps yet."""
    masks = _Masks()
    initial = masks.add(case.initial_mask)
    return {
        "prompt_id": stable_id(sample.source, sample.key, subject.name, scenario, "prompt"),
        **_origin(sample, split, case.image),
        **_asked(subject, scenario, instruction),
        "masks": masks.rles,
        "initial_mask": initial,
        "messages": _messages(case, episode, system_prompt, masks),
        "provenance": dict(provenance),
    }


def question_rows(sample: Sample, split: str, image: Image, provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table ``vqa``."""
    return [
        {
            "question_id": stable_id(sample.source, sample.key, number, question.text),
            **_origin(sample, split, image),
            "question": question.text,
            "answer": question.answer,
            "closed": question.closed,
            "provenance": dict(provenance),
        }
        for number, question in enumerate(sample.questions)
    ]


def _scores(mask: NDArray[np.bool_] | None, target: NDArray[np.bool_] | None) -> dict[str, float | None]:
    if target is None:
        return {"iou": None, "dice": None}
    if mask is None:
        return {"iou": 0.0, "dice": 0.0}
    return {"iou": _rounded(iou(mask, target)), "dice": _rounded(dice(mask, target))}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), _DIGITS)

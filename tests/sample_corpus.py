"""A tiny corpus made by the real environment: discs on gray that the rule-based segmenter finds.

Two images (one gray, one in colour), four sft rows (plain clicks; a wrong click that is undone; a given mask that is
discarded; an absent target), three rl rows, two test rows, two visual questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibisagent import __version__
from ibisagent.actions import Click, ClickAction, DiscardAction, TerminateAction, Turn, UndoAction
from ibisagent.actions.model import Action
from ibisagent.config import RolloutConfig
from ibisagent.engine.corpus.schema import NO_MASK
from ibisagent.engine.corpus.writer import shard_path, write_table
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Rle, encode_mask
from ibisagent.geometry import Geometry
from ibisagent.messages import build_messages, default_system_prompt
from ibisagent.metrics import dice, iou
from ibisagent.policies.protocol import View
from ibisagent.rendering.png import png_bytes
from ibisagent.rle import decode_mask
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Case, Image, PixelClick

Mask = NDArray[np.bool_]
SHAPE = (40, 56)

PROVENANCE = {
    "ibisagent_version": __version__,
    "segmenter": "rules",
    "segmenter_sha256": None,
    "teacher": "template",
    "config_sha256": "0" * 64,
    "seed": 0,
}


@dataclass(frozen=True, eq=False)
class Run:
    """A live run, and the row that was made from it."""

    view: View
    system_prompt: str
    row: dict[str, Any]


def disc(x: int, y: int, radius: int) -> Mask:
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (cols - x) ** 2 + (rows - y) ** 2 <= radius**2


LIVER, CYST, LESION = disc(20, 20, 12), disc(44, 12, 6), disc(30, 18, 10)


def ct_image() -> Image:
    gray = np.full(SHAPE, 40, np.uint8)
    gray[LIVER], gray[CYST] = 200, 120
    return Image(np.repeat(gray[..., None], 3, axis=2), Geometry.plane_2d((0.7, 0.7)), "CT", source="ct_1.png")


def skin_image() -> Image:
    pixels = np.full((*SHAPE, 3), (220, 170, 150), np.uint8)
    pixels[LESION] = (90, 60, 50)
    return Image(pixels, Geometry.plane_2d(), "dermoscopy", source="skin_1.png")


def origin(image: Image, split: str = "train") -> dict[str, Any]:
    name = image.source.removesuffix(".png")
    return {
        "image_id": image.sha256,
        "sample": f"images/{image.source}",
        "source": "toy",
        "group": name,
        "split": split,
        "licence": "CC0-1.0",
        "modality": image.modality,
        "view": "axial" if image.modality == "CT" else None,
    }


def image_row(image: Image, split: str = "train") -> dict[str, Any]:
    spacing = image.geometry.spacing_mm
    return {
        **origin(image, split),
        "width": image.width,
        "height": image.height,
        "spacing_mm": None if spacing is None else list(spacing),
        "image": {"bytes": png_bytes(image.pixels), "path": f"{image.sha256}.png"},
    }


def rle(mask: Mask | None) -> dict[str, Any] | None:
    return None if mask is None else encode_mask(mask).model_dump(mode="json")


class Masks:
    """Numbers masks, each once."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def number(self, mask: Rle | None) -> int:
        if mask is None:
            return NO_MASK
        row = mask.model_dump(mode="json")
        if row not in self.rows:
            self.rows.append(row)
        return self.rows.index(row)


def click(image: Image, x: int, y: int, positive: bool = True) -> ClickAction:
    return ClickAction(clicks=(Click.at_pixel(PixelClick(x, y, positive), image.width, image.height),))


def play(
    name: str,
    image: Image,
    target: str,
    target_mask: Mask | None,
    scenario: str,
    plan: list[tuple[str, Action, str]],
    initial: Mask | None = None,
    split: str = "train",
) -> Run:
    """Carry out (intent, action, thought) and write the row down."""
    env = SegmentationEnv(RulesSegmenter(), RolloutConfig(max_steps=8))
    case = Case(image, f"Segment the {target}.", initial, case_id=name, target=target, group=image.source[:-4])
    env.reset(case)
    for _, action, thought in plan:
        env.step(Turn(thought=thought, action=action))
    episode, masks = env.episode, Masks()
    assert episode.outcome is not None and all(step.invalid is None for step in episode.steps)
    prompt = default_system_prompt(env.dialect)
    messages, current, steps = [], [masks.number(episode.initial_mask)], []
    reference = target_mask if target_mask is not None else np.zeros(SHAPE, bool)
    for (intent, action, _), step in zip(plan, episode.steps, strict=True):
        after = decode_mask(step.mask) if step.mask is not None else np.zeros(SHAPE, bool)
        current.append(masks.number(step.mask))
        steps.append(
            {
                "intent": intent,
                "thought": step.thought,
                "action": action.model_dump_json(),
                "learn": intent != "wrong",
                "mask": current[-1],
                "changed_pixels": step.changed_pixels,
                "segmenter_score": step.segmenter_score,
                "iou": iou(after, reference),
                "dice": dice(after, reference),
            }
        )
    shown = iter(current)
    live = build_messages(env.view, prompt)[:-1]  # nothing is asked after the last reply
    for message in live:
        content = []
        for part in message["content"]:
            if part["type"] == "image":
                content.append({"type": "image", "text": None, "mask": next(shown)})
            else:
                content.append({"type": "text", "text": part["text"], "mask": NO_MASK})
        messages.append({"role": message["role"], "content": content})
    replies = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    spans = [
        {"message": n, "start": 0, "end": len(messages[n]["content"][0]["text"])}
        for n, step in zip(replies, steps, strict=True)
        if step["learn"]
    ]
    assert episode.final_mask is not None
    final = decode_mask(episode.final_mask)
    row = {
        "trajectory_id": name,
        **origin(image, split),
        "target": target,
        "scenario": scenario,
        "instruction": case.instruction,
        "instruction_category": "direct",
        "masks": masks.rows,
        "initial_mask": masks.number(episode.initial_mask),
        "target_mask": rle(target_mask),
        "expert": "paper",
        "messages": messages,
        "loss_spans": spans,
        "steps": steps,
        "outcome": str(episode.outcome),
        "answer": episode.answer,
        "final_iou": iou(final, reference),
        "final_dice": dice(final, reference),
        "num_steps": episode.num_steps,
        "num_clicks": sum(isinstance(action, ClickAction) for _, action, _ in plan),
        "provenance": PROVENANCE,
    }
    return Run(env.view, prompt, row)


def sft_runs() -> list[Run]:
    ct, skin = ct_image(), skin_image()
    found = TerminateAction(verdict="found", answer="the mask fits")
    return [
        play(
            "toy-0-liver", ct, "liver", LIVER, "plain",
            [("start", click(ct, 20, 20), "The bright disc is the liver."), ("fits", found, "The edge is followed.")],
        ),
        play(
            "toy-1-lesion", skin, "skin lesion", LESION, "self_correction",
            [
                ("wrong", click(skin, 2, 2), "I click in the corner."),
                ("undo", UndoAction(), "All the skin is green now; I take it back."),
                ("start", click(skin, 30, 18), "The dark patch is the lesion."),
                ("fits", found, "It fits."),
            ],
        ),
        play(
            "toy-2-cyst", ct, "cyst", CYST, "mismatched_mask",
            [
                ("discard", DiscardAction(), "The given mask shows the liver."),
                ("start", click(ct, 44, 12), "The small gray disc is the cyst."),
                ("fits", found, "It fits."),
            ],
            initial=LIVER,
        ),
        play(
            "toy-3-spleen", skin, "spleen", None, "absent",
            [("absent", TerminateAction(verdict="absent", answer="this is skin"), "No organ is in this picture.")],
        ),
    ]  # fmt: skip


def prompt_row(
    name: str, image: Image, target: str, target_mask: Mask | None, initial: Mask | None = None, split: str = "train"
) -> dict[str, Any]:
    run = SegmentationEnv(RulesSegmenter(), RolloutConfig())
    case = Case(image, f"Segment the {target}.", initial, case_id=name, target=target)
    run.reset(case)
    masks = Masks()
    first = masks.number(run.episode.initial_mask)
    messages = []
    for message in build_messages(run.view, default_system_prompt(run.dialect)):
        content = [
            {"type": "image", "text": None, "mask": first}
            if part["type"] == "image"
            else {"type": "text", "text": part["text"], "mask": NO_MASK}
            for part in message["content"]
        ]
        messages.append({"role": message["role"], "content": content})
    return {
        "prompt_id": name,
        **origin(image, split),
        "target": target,
        "scenario": "absent" if target_mask is None else "plain" if initial is None else "refine",
        "instruction": case.instruction,
        "instruction_category": "direct",
        "masks": masks.rows,
        "initial_mask": first,
        "target_mask": rle(target_mask),
        "messages": messages,
        "provenance": PROVENANCE,
    }


def question_row(name: str, image: Image, question: str, answer: str, closed: bool) -> dict[str, Any]:
    return {
        "question_id": name,
        **origin(image),
        "question": question,
        "answer": answer,
        "closed": closed,
        "provenance": PROVENANCE,
    }


def write_sample_corpus(folder: Path) -> list[Run]:
    """Write the corpus, two shards of sft and one of everything else; returns the live runs of the sft rows."""
    ct, skin = ct_image(), skin_image()
    held_out = Image(ct.pixels[:, ::-1], ct.geometry, "CT", source="ct_2.png")
    runs = sft_runs()
    tables: dict[tuple[str, str], list[list[dict[str, Any]]]] = {
        ("images", "train"): [[image_row(image) for image in (ct, skin)]],
        ("images", "test"): [[image_row(held_out, "test")]],
        ("sft", "train"): [[run.row for run in runs[:2]], [run.row for run in runs[2:]]],
        ("rl", "train"): [
            [
                prompt_row("toy-rl-0", ct, "liver", LIVER),
                prompt_row("toy-rl-1", skin, "skin lesion", LESION, initial=disc(30, 18, 7)),
                prompt_row("toy-rl-2", skin, "spleen", None),
            ]
        ],
        ("test", "test"): [
            [
                prompt_row("toy-test-0", held_out, "liver", LIVER[:, ::-1].copy(), split="test"),
                prompt_row("toy-test-1", held_out, "brain tumor", None, split="test"),
            ]
        ],
        ("vqa", "train"): [
            [
                question_row("toy-vqa-0", ct, "Is there a cyst?", "yes", True),
                question_row("toy-vqa-1", skin, "What is dark here?", "the lesion", False),
            ]
        ],
    }
    for (table, split), shards in tables.items():
        for index, rows in enumerate(shards):
            write_table(shard_path(folder, table, split, index, len(shards)), table, rows)
    return runs

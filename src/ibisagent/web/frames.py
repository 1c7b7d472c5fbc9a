"""An episode as a reader steps through it: the start, every step, the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ibisagent.messages import observation_text
from ibisagent.rendering.figure import OUTCOME_WORDS, area_text
from ibisagent.rendering.prompts import StandingPrompts, final_prompts, standing_prompts
from ibisagent.rle import decode_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibisagent.episode import Episode, Rle, Step
    from ibisagent.types import Image

__all__ = ["Frame", "build_frames", "describe_action"]


@dataclass
class Frame:
    """One stop of the page: what is drawn, and what is said beside it."""

    label: str
    heading: str
    kind: str
    """``start``, an action's kind, ``invalid``, ``failed`` or ``result``; it picks the icon."""
    mask: Rle | None = None
    mask_is_given: bool = False
    """Whether the mask is still the one that the user gave."""
    prompts: StandingPrompts = field(default_factory=StandingPrompts)
    thought: str = ""
    points: list[str] = field(default_factory=list)
    """Where the action lies: text coordinates, pixels, millimetres."""
    observation: str = ""
    raw_text: str = ""
    messages: list[tuple[str, str]] = field(default_factory=list)
    """(role, text) of the chat messages that were new in the request."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    segmenter_score: float | None = None
    iou: float | None = None
    is_final: bool = False
    """Whether the final mask is this step's."""

    @property
    def dice(self) -> float | None:
        """Dice, which follows from the IoU of the same two masks."""
        return None if self.iou is None else 2 * self.iou / (1 + self.iou)


def build_frames(episode: Episode, image: Image, iou_by_step: Sequence[float | None] | None = None) -> list[Frame]:
    """List the start, every step and the result.

    Parameters
    ----------
    episode
        The run; it may still go on, then there is no result.
    image
        The image it ran on, for areas.
    iou_by_step
        IoU after k counted steps from k = 0, if a reference is known; the last value is carried on.
    """
    prompts = standing_prompts(episode)
    start = Frame("Start", "Given mask" if episode.initial_mask else "No mask yet", "start", mask=episode.initial_mask)
    start.mask_is_given = episode.initial_mask is not None
    start.facts = _mask_facts(episode.initial_mask, image)
    start.iou = _at(iou_by_step, 0)
    frames = [start]
    counted = 0
    for step, standing in zip(episode.steps, prompts[1:], strict=True):
        counted += step.counts
        frame = _step_frame(step, standing, image, is_final=episode.final_step == step.index)
        frame.mask_is_given = episode.initial_mask is not None and step.mask == episode.initial_mask
        frame.iou = _at(iou_by_step, counted)
        frames.append(frame)
    if episode.outcome is not None:
        frames.append(_result_frame(episode, image))
    return frames


def describe_action(step: Step) -> str:
    """Name what a step did, in a few words."""
    action = step.action
    if step.invalid is not None:
        return "Reply not carried out"
    if step.failed:
        return "Segmenter failed"
    if action is None:
        return "No action"
    if action.kind == "click":
        if len(action.clicks) == 1:
            return "Click inside" if action.clicks[0].positive else "Click outside"
        inside = sum(click.positive for click in action.clicks)
        return f"{len(action.clicks)} clicks ({inside} inside, {len(action.clicks) - inside} outside)"
    if action.kind == "terminate":
        return f"Stop: {action.verdict}"
    return {"box": "Box", "undo": "Undo", "discard": "Discard the given mask"}[action.kind]


def _step_frame(step: Step, standing: StandingPrompts, image: Image, is_final: bool) -> Frame:
    kind: str = step.action.kind if step.action is not None else "invalid"
    if step.invalid is not None:
        kind = "invalid"
    elif step.failed:
        kind = "failed"
    elif step.action is not None and step.action.kind == "click":
        kind = "positive" if all(click.positive for click in step.action.clicks) else "negative"
    facts = _mask_facts(step.mask, image)
    if step.changed_pixels is not None:
        facts.append(("Changed", f"{step.changed_pixels:,} px"))
    facts.append(("Policy", _seconds(step.seconds.policy)))
    facts.append(("Segmenter", _seconds(step.seconds.segmenter)))
    if step.num_tokens is not None:
        prompt = "" if step.num_prompt_tokens is None else f" ({step.num_prompt_tokens:,} read)"
        facts.append(("Tokens", f"{step.num_tokens:,} written{prompt}"))
    observation = "The segmenter failed; the run ended here." if step.failed else observation_text(step)
    if kind == "terminate":
        observation = ""
    return Frame(
        label=str(step.index + 1),
        heading=describe_action(step),
        kind=kind,
        mask=step.mask,
        prompts=standing,
        thought=step.thought or "",
        points=_points(step),
        observation=observation,
        raw_text=step.raw_text,
        messages=[(str(m.get("role", "")), _message_text(m)) for m in step.messages],
        facts=facts,
        segmenter_score=step.segmenter_score,
        is_final=is_final,
    )


def _result_frame(episode: Episode, image: Image) -> Frame:
    outcome = str(episode.outcome)
    observation = {
        "absent": "The agent says that the target is not in this image. Nothing is marked.",
        "error": "The run failed. There is no mask, which is not the same as an empty one.",
    }.get(outcome, "")
    return Frame(
        label="Result",
        heading=OUTCOME_WORDS.get(outcome, outcome),
        kind="result",
        mask=episode.final_mask,
        prompts=final_prompts(episode),
        observation=observation,
        facts=[*_mask_facts(episode.final_mask, image), ("Total", _seconds(episode.seconds_total))],
    )


def _mask_facts(mask: Rle | None, image: Image) -> list[tuple[str, str]]:
    if mask is None:
        return [("Mask", "none")]
    pixels = decode_mask(mask)
    return [("Mask", area_text(pixels, image) if pixels.any() else "empty")]


def _points(step: Step) -> list[str]:
    action = step.action
    if action is None or action.kind not in ("click", "box"):
        return []
    if action.kind == "click":
        texts = [f"{'+' if c.positive else '−'} ({c.x:.4f}, {c.y:.4f})" for c in action.clicks]
    else:
        texts = [f"from ({action.x0:.4f}, {action.y0:.4f})", f"to ({action.x1:.4f}, {action.y1:.4f})"]
    lines = []
    for number, text in enumerate(texts):
        if number < len(step.pixels_xy):
            x, y = step.pixels_xy[number]
            text += f" · pixel ({x}, {y})"
        if step.world_mm is not None and number < len(step.world_mm):
            names = ("RL", "AP", "SI")
            text += " · " + " ".join(
                f"{name[0] if v >= 0 else name[1]}\u00a0{abs(v):.1f}"
                for name, v in zip(names, step.world_mm[number], strict=True)
            )
            text += "\u00a0mm"
        lines.append(text)
    return lines


def _message_text(message: dict[str, Any]) -> str:
    content = message.get("content", "")
    if isinstance(content, str):
        return content
    parts = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and part.get("type") == "text":
            parts.append(str(part.get("text", "")))
        elif isinstance(part, dict) and part.get("type") == "image":
            parts.append(f"[image {str(part.get('sha256', ''))[:12]}]")
    return "\n".join(parts)


def _at(values: Sequence[float | None] | None, index: int) -> float | None:
    return values[min(index, len(values) - 1)] if values else None


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"

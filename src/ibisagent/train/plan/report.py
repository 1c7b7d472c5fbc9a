"""A plan in tables: for a terminal, or for a Markdown page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from ibisagent.train.plan.config import PlanConfig
from ibisagent.train.plan.flops import attention_flops, linear_flops, vision_flops
from ibisagent.train.plan.memory import GIB, usable_bytes
from ibisagent.train.plan.planner import Case, Plan
from ibisagent.train.plan.timing import Rollout, Step

__all__ = ["assumptions", "render", "sections"]


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and a table whose first row is its head."""

    title: str
    note: str
    rows: tuple[tuple[str, ...], ...]


def _gib(number: float) -> str:
    return f"{number / GIB:.1f}" if number >= 0.05 * GIB else f"{number / GIB:.3f}"


def _hours(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _seconds(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def _of(part: Rollout | Step | None, name: str) -> float | None:
    """A figure of a part that may not be there."""
    return None if part is None else float(getattr(part, name))


def _head(plan: Plan, first: str) -> tuple[str, ...]:
    return (first, *(f"{case.method}, {case.gpus} GPU{'s' if case.gpus > 1 else ''}" for case in plan.cases))


def _rows(plan: Plan, first: str, parts: Sequence[tuple[str, Callable[[Case], str]]]) -> tuple[tuple[str, ...], ...]:
    return (_head(plan, first), *((name, *(show(case) for case in plan.cases)) for name, show in parts))


def _model(plan: Plan) -> Section:
    sizes, image = plan.sizes, plan.image
    skips = plan.config.training.causal_attention_skips
    rows = [
        ("Quantity", "Value"),
        ("class", sizes.class_name),
        ("parameters", f"{sizes.num_parameters:,}"),
        ("of which vision tower", f"{sizes.num_vision:,}"),
        ("of which embedding, and head of its own", f"{sizes.num_embedding:,} + {sizes.num_head:,}"),
        ("LoRA parameters", f"{sizes.num_lora(plan.config.training.lora_rank):,}"),
        ("image as the model sees it", f"{image.width} x {image.height} pixels, {image.patches:,} patches"),
        ("tokens of an image", f"{image.tokens}"),
        ("keys and values", f"{plan.kv_per_token / 1024:.0f} KiB a token"),
        ("forward, language model", f"{linear_flops(sizes) / 1e9:.1f} GFLOP a token, without attention and head"),
        (
            "forward, attention",
            f"{attention_flops(sizes, plan.longest.context, skips=skips) / 1e12:.1f} TFLOP over the longest episode",
        ),
        ("forward, vision tower", f"{vision_flops(sizes, image) / 1e12:.2f} TFLOP an image"),
    ]
    return Section("The model", "Counted on the class, built without weights.", tuple(rows))


def _episodes(plan: Plan) -> Section:
    head = ("Episode", "Actions", "Images", "Context", "Own tokens", "Read, with reuse", "Read, without", "KV, GiB")
    rows: list[tuple[str, ...]] = [head]
    for name, each in (("mean", plan.mean), ("longest", plan.longest), ("token budget", plan.budget)):
        counts = (each.context, each.own, each.read, each.read_again)
        shown = (f"{each.actions:g}", f"{each.images:g}", *(f"{count:,.0f}" for count in counts))
        rows.append((name, *shown, f"{each.context * plan.kv_per_token / GIB:.2f}"))
    note = (
        "Tokens of one episode. The longest has the most actions; the budget's has replies so long that it fills the "
        "token budget. With reuse, keys and values are kept between turns; without, each turn reads everything again."
    )
    return Section("Episodes", note, tuple(rows))


def _memory(plan: Plan) -> Section:
    parts: list[tuple[str, Callable[[Case], str]]] = [
        ("trained parameters, M", lambda case: f"{case.state.trained / 1e6:,.0f}"),
        ("weights", lambda case: _gib(case.state.weights)),
        ("gradients", lambda case: _gib(case.state.gradients)),
        ("optimizer", lambda case: _gib(case.state.optimizer)),
        ("gathered layers", lambda case: _gib(case.state.gathered)),
        ("language model's activations", lambda case: _gib(case.activations.text + case.activations.ends)),
        ("vision tower's activations", lambda case: _gib(case.activations.vision)),
        ("logits and loss", lambda case: _gib(case.activations.logits)),
        ("the same if all tokens were scored", lambda case: _gib(case.logits_all)),
        ("or one layer at work", lambda case: _gib(case.activations.working)),
        ("peak", lambda case: _gib(case.state.total + case.activations.peak)),
        ("peak without checkpointing", lambda case: _gib(case.state.total + case.activations_unchecked.peak)),
        ("missing", lambda case: _gib(case.short_bytes) if case.short_bytes else "-"),
        ("micro batch: SFT, mean episodes", lambda case: str(case.micro_batch_sft)),
        ("micro batch: RL, longest episodes", lambda case: str(case.micro_batch_longest)),
        ("micro batch: RL, token budget", lambda case: str(case.micro_batch_budget)),
    ]
    note = (
        f"GiB per GPU, of which {usable_bytes(plan.config) / GIB:.1f} may be filled, for one longest episode. Logits "
        "and a layer at work do not meet: the larger counts. A micro batch of 0 does not fit."
    )
    return Section("Memory of a training step", note, _rows(plan, "GiB", parts))


def _rooms(plan: Plan) -> Section:
    parts: list[tuple[str, Callable[[Case], str]]] = [
        ("trainer's share that stays", lambda case: _gib(case.room.trainer)),
        ("engine's weights", lambda case: _gib(case.room.engine)),
        ("segmenter and reading", lambda case: _gib(case.room.work)),
        ("free for keys and values", lambda case: _gib(case.room.free)),
        ("one longest episode", lambda case: _gib(case.room.per_episode)),
        ("longest episodes at once", lambda case: f"{case.room.live:,}"),
        ("episodes at once in an update", lambda case: "-" if case.rollout is None else str(case.rollout.live)),
        ("waves in an update", lambda case: "-" if case.rollout is None else str(case.rollout.waves)),
    ]
    return Section("Memory of rollouts", "GiB per GPU.", _rows(plan, "GiB", parts))


def _times(plan: Plan) -> Section:
    rl, sft = plan.config.rl, plan.config.sft
    sample, other = "whole episodes", "single replies"
    if sft.unit == "reply":
        sample, other = other, sample
    parts: list[tuple[str, Callable[[Case], str]]] = [
        ("SFT: PFLOP an update", lambda case: "-" if case.sft is None else f"{case.sft.flops / 1e15:,.0f}"),
        ("SFT: seconds an update", lambda case: "-" if case.sft is None else _seconds(case.sft.seconds)),
        ("SFT: MFU", lambda case: "-" if case.sft is None else f"{case.sft.mfu:.2f}"),
        ("SFT: updates", lambda case: f"{case.sft_updates:,}"),
        ("SFT: hours", lambda case: _hours(case.sft_hours)),
        (f"SFT: hours if samples were {other}", lambda case: _hours(case.sft_hours_other)),
        ("RL: reading, s", lambda case: _seconds(_of(case.rollout, "read_seconds"))),
        ("RL: seeing, s", lambda case: _seconds(_of(case.rollout, "see_seconds"))),
        ("RL: writing, s", lambda case: _seconds(_of(case.rollout, "write_seconds"))),
        ("RL: segmenter, s", lambda case: _seconds(_of(case.rollout, "segment_seconds"))),
        ("RL: old log-probabilities, s", lambda case: _seconds(None if case.rollout is None else case.old_seconds)),
        ("RL: training, s", lambda case: "-" if case.update is None else _seconds(case.update.seconds)),
        (
            "RL: weights on the way, s",
            lambda case: _seconds(_of(case.update, "travel_seconds")),
        ),
        ("RL: PFLOP of training", lambda case: "-" if case.update is None else f"{case.update.flops / 1e15:,.0f}"),
        ("RL: seconds an update", lambda case: _seconds(case.rl_seconds)),
        ("RL: updates", lambda case: f"{case.rl_updates:,}"),
        ("RL: hours", lambda case: _hours(case.rl_hours)),
        ("RL: GPU hours", lambda case: _hours(None if case.rl_hours is None else case.rl_hours * case.gpus)),
        ("RL: hours if all episodes were longest", lambda case: _hours(case.rl_hours_longest)),
        ("RL: hours without reuse between turns", lambda case: _hours(case.rl_hours_no_reuse)),
        ("RL: hours on top for the VQA pairs", lambda case: _hours(case.rl_hours_vqa)),
    ]
    note = (
        f"SFT: batch {sft.batch} ({sample}), {sft.epochs:g} epochs, {sft.conversations:,} episodes of {sft.actions:g} "
        f"actions. RL: {rl.batch} prompts x {rl.group} episodes, {rl.epochs:g} epochs, {rl.prompts:,} prompts, "
        f"{rl.actions:g} actions in the mean. Presets `paper` and `ibis` of `train rl` take a batch for its runs, and "
        "play 256 of them an update; their rollouts by transformers' generate read each turn again, what is reckoned "
        "here supposes an engine that keeps keys and values. A dash: it does not fit."
    )
    return Section("Time", note, _rows(plan, "Time", parts))


def assumptions(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, value, what it means) of every field, nested ones too."""
    docs = _docstrings(type(model))
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from assumptions(value, f"{prefix}{name}.")
            continue
        if isinstance(value, dict):
            shown = ", ".join(f"{key}: {item}" for key, item in value.items())
        elif isinstance(value, tuple):
            shown = ", ".join(str(item) for item in value)
        else:
            shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        yield f"{prefix}{name}", shown, docs.get(name, "")


def _docstrings(cls: type[BaseModel]) -> dict[str, str]:
    """The string under each field of a model's class body."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def sections(plan: Plan) -> list[Section]:
    """All tables, the assumptions last."""
    rows = (("Assumption", "Value", "Meaning"), *assumptions(plan.config))
    told = Section("Assumptions", "Each can be changed: `--set NAME=VALUE`, or a YAML file (`--config`).", rows)
    return [_model(plan), _episodes(plan), _memory(plan), _rooms(plan), _times(plan), told]


def render(plan: Plan, *, markdown: bool = False) -> str:
    """The whole plan as text, ending in a newline."""
    config: PlanConfig = plan.config
    title = f"Memory and time of {config.model} on {config.machine.name}"
    parts = [f"# {title}\n" if markdown else f"{title}\n{'=' * len(title)}\n"]
    for section in sections(plan):
        parts.append(f"## {section.title}\n" if markdown else f"{section.title}\n{'-' * len(section.title)}")
        if section.note:
            parts.append(section.note + ("\n" if markdown else ""))
        parts.append(_markdown(section.rows) if markdown else _columns(section.rows))
    return "\n".join(parts).rstrip("\n") + "\n"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    number = len(rows[0]) > 3
    lines.insert(1, "|---|" + ("--:|" if number else "---|") * (len(rows[0]) - 1))
    return "\n".join(lines) + "\n"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    numbers = len(rows[0]) > 3
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if numbers and at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"

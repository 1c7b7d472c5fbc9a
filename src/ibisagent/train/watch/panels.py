"""What is drawn of a run, in which order, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.train.watch.history import History

__all__ = ["SECTIONS", "TIME", "Panel", "Section", "chosen_sections", "present_sections"]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Parameters
    ----------
    title
        What people read.
    metrics
        Drawn in it: the first as a solid line, a second dashed. ``reward/*`` stands for a panel of each part.
    names
        Of the two, where there are two.
    bounds
        Lowest and highest value that can be; the axis shows no less of it than is needed.
    scale
        ``"log"`` where values may span orders of magnitude.
    idle
        Whether it is left out where it is nil throughout.
    """

    title: str
    metrics: tuple[str, ...]
    names: tuple[str, ...] = ()
    bounds: tuple[float | None, float | None] = (None, None)
    scale: str = "linear"
    idle: bool = False


@dataclass(frozen=True)
class Section:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


SHARE = (0.0, 1.0)
FROM_0 = (0.0, None)

TIME: tuple[tuple[str, str, str], ...] = (
    ("seconds/policy", "policy", "#332288"),
    ("seconds/segmenter", "segmenter", "#88CCEE"),
    ("seconds/optimizer", "optimizer", "#CC6677"),
    ("rest", "rest", "#c4c4c4"),
)
"""Parts of an update's time: metric, name, colour. The rest is environment, rendering, rewards, pages, checkpoints."""

SECTIONS: tuple[Section, ...] = (
    Section(
        "Reward, and its parts before their weights",
        (
            Panel("Reward", ("reward",)),
            Panel("Deviation of the reward", ("reward_std",), bounds=FROM_0),
            Panel("Groups without a difference", ("groups_alike",), bounds=SHARE),
            Panel("", ("reward/*",)),
        ),
    ),
    Section(
        "What the agent does",
        (
            Panel("IoU (present targets)", ("iou",), bounds=SHARE),
            Panel("Steps", ("steps",), bounds=FROM_0),
            Panel("Valid actions", ("validity",), bounds=SHARE),
            Panel("Refusals", ("refusal/right", "refusal/false"), ("right", "false"), SHARE),
            Panel("Refinements that help", ("refinement_success",), bounds=SHARE),
            Panel("Visual questions answered right", ("vqa/accuracy",), bounds=SHARE),
            Panel("Out of steps", ("ended/out_of_steps",), bounds=SHARE),
            Panel("Tool failed", ("failed",), bounds=SHARE),
        ),
    ),
    Section(
        "What the model learns",
        (
            Panel("Loss", ("loss", "eval_loss"), ("training", "held out")),
            Panel("Token accuracy", ("mean_token_accuracy", "eval_mean_token_accuracy"), ("training", "held out")),
            Panel("Words, by turn (nano)", ("words",)),
            Panel("Places of clicks (nano)", ("places",)),
            Panel("Maps (nano)", ("maps",)),
            Panel("Entropy", ("entropy",), bounds=FROM_0),
            Panel("KL to the start", ("kl",), idle=True),
            Panel("Log-probabilities, sampler to update", ("sampler/mean", "sampler/max"), ("mean", "most"), FROM_0),
            Panel("KL of sampler and update", ("sampler/kl",), bounds=FROM_0),
            Panel("Clipped ratios", ("clip_ratio/region_mean",), bounds=FROM_0, idle=True),
            Panel("Gradient norm", ("grad_norm",), bounds=FROM_0, scale="log"),
            Panel("Learning rate", ("learning_rate",), bounds=FROM_0),
        ),
    ),
    Section(
        "What it costs",
        (
            Panel("Tokens written", ("tokens/own",), bounds=FROM_0),
            Panel("Tokens in all", ("tokens/all",), bounds=FROM_0),
            Panel("Tokens learnt from", ("learnt_tokens",), bounds=FROM_0),
            Panel("Images in a batch", ("images_per_batch", "images"), bounds=FROM_0),
            Panel("Seconds of an update", ("seconds_per_step",), bounds=FROM_0),
        ),
    ),
)


def present_sections(histories: Sequence[History]) -> list[Section]:
    """The sections with what at least one of the runs logged; empty ones are left out."""
    logged = {name for history in histories for name in history.values}
    parts = sorted(name for name in logged if name.startswith("reward/"))
    found = []
    for section in SECTIONS:
        kept: list[Panel] = []
        for panel in section.panels:
            if panel.metrics == ("reward/*",):
                kept += [Panel(_words(name.removeprefix("reward/")), (name,)) for name in parts]
                continue
            both = [(m, n) for m, n in zip(panel.metrics, panel.names or panel.metrics, strict=True) if m in logged]
            if both and not (panel.idle and _is_nil(histories, both[0][0])):
                alone = both[0][1] if len(both) == 1 and panel.names else ""
                title = f"{panel.title}: {alone}" if alone not in ("", "training") else panel.title
                names = tuple(n for _, n in both) if len(both) > 1 and panel.names else ()
                kept.append(replace(panel, title=title, metrics=tuple(m for m, _ in both), names=names))
        if kept:
            found.append(Section(section.title, tuple(kept)))
    return found


def _is_nil(histories: Sequence[History], metric: str) -> bool:
    return not any(value for history in histories for value in history.values.get(metric, {}).values())


def chosen_sections(histories: Sequence[History], wanted: Sequence[str]) -> list[Section]:
    """One section with a panel for every metric that is asked for; ``*`` and ``?`` stand for anything.

    Raises
    ------
    InputError
        If no run logged one of them.
    """
    logged = sorted({name for history in histories for name in history.values})
    known = {p.metrics[0]: p for s in SECTIONS for p in s.panels if len(p.metrics) == 1}
    panels: dict[str, Panel] = {}
    for pattern in wanted:
        found = [name for name in logged if fnmatchcase(name, pattern)]
        if not found:
            raise InputError(f"no run logged '{pattern}'; there are {', '.join(logged)}")
        for name in found:
            panels[name] = known.get(name) or Panel(name, (name,))
    return [Section("", tuple(panels.values()))]


def _words(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]

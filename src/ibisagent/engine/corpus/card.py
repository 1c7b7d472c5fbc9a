"""The data card: what is in a corpus, how it was made, how good it is, and what it is not for."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibisagent.engine.corpus.figures import write_figures
from ibisagent.engine.corpus.front_matter import front_matter
from ibisagent.engine.corpus.markdown import code_block, counts_table, facts_table, number, table
from ibisagent.engine.corpus.statistics import PAPER, statistics
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line
from ibisagent.rendering.png import write_atomic

__all__ = ["write_card"]

_KNOWN = ("name", "summary", "command", "config", "segmenter", "teacher", "run", "drops", "faults", "reasoning")
_ALL_KNOWN = (*_KNOWN, "audit", "sources", "limits")

_WHAT = {
    "images": "every image once, as PNG",
    "sft": "trajectories for supervised fine-tuning",
    "rl": "prompts for reinforcement learning, with the reference mask and without a trajectory",
    "test": "like rl, of splits that are not trained on, with held-out instruction templates",
    "vqa": "visual questions",
}

_LIMITS = (
    "The expert knows the answer. Its clicks come from the reference mask, so final IoU says how far the segmenter "
    "goes with the best clicks, not how well a model will do.",
    "Masks are as good as the data sets that they come from; nobody looked at them again for this corpus.",
    "Every image is one 2-D picture. Neighbouring slices of a volume, other sequences and earlier examinations, "
    "which a reader of such images would look at, are not shown.",
    "Thoughts are written for a chosen action, not the other way round. They are checked against what the picture "
    "shows, which does not make them a clinician's reasoning.",
    "Targets, modalities and patients are not a sample of any clinic; the counts above say what there is much of "
    "and what hardly at all.",
)

_PHANTOMS = (
    "Images of the source `{}` are drawn, not taken: their masks are exact and their anatomy is invented. They serve "
    "training and tests of the loop, and say nothing about any patient."
)


def write_card(folder: str | os.PathLike[str], facts: Mapping[str, Any] | None = None) -> None:
    """Write ``README.md``, ``figures/*.png`` and ``statistics.json`` into a corpus.

    Figures of the corpus are counted from its tables, so that the card can be written again from the folder. The
    front matter makes ``datasets.load_dataset(folder, "sft")`` find every table without code.

    Parameters
    ----------
    folder
        The corpus.
    facts
        What the tables cannot tell. Sections that are known: ``name``, ``summary`` and ``command`` (texts), ``config``
        (a dict, shown as JSON), ``segmenter``, ``teacher``, ``run``, ``audit`` (dicts of names and values, or a text),
        ``faults`` (code -> count), ``drops`` (``"reason"`` or ``"scenario: reason"`` -> count), ``reasoning``
        (counts of :class:`ibisagent.engine.record.Reasoner`), ``sources`` (name -> anything to say of it), ``limits``
        (a list of texts, added to the general ones). Anything else is shown too: a number or short text with how it was
        made, the rest under its own name.

    Raises
    ------
    InputError
        If there is no corpus, a shard is damaged, or a file cannot be written.
    """
    facts, place = dict(facts or {}), Path(folder)
    counted = statistics(place)
    try:
        figures = write_figures(place / "figures", counted)
        both = {"statistics": counted, "facts": facts}
        text = json.dumps(both, indent=1, ensure_ascii=False, default=str) + "\n"
        write_atomic(text.encode("utf-8", "replace"), place / "statistics.json")
        write_atomic(_card(counted, facts, figures).encode("utf-8", "replace"), place / "README.md")
    except OSError as error:
        what = one_line(error.strerror or error)
        raise InputError(f"{display_name(folder)}: cannot be written ({what}); choose a writable folder") from error


def _card(counted: Mapping[str, Any], facts: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    name = one_line(facts.get("name") or "Trajectories for interactive medical image segmentation")
    parts = [front_matter(counted, name), f"# {name}"]
    parts.append(
        str(facts["summary"]).strip()
        if facts.get("summary")
        else "Conversations in which an agent segments a medical image by steering an interactive segmentation tool: "
        "it looks, writes a thought, acts, and looks at the new mask. Made by the data engine of `ibisagent`, which "
        "follows the method of IBISAgent (arXiv 2601.03054)."
    )
    parts.append("**Not for clinical use.** Research data; no output of it or of a model trained on it may guide care.")
    parts += _contents(counted)
    parts += _making(counted, facts)
    if counted.get("sft", {}).get("num"):
        parts += _trajectories(counted["sft"], figures)
    parts += _prompts(counted)
    parts += _left_out(facts)
    parts += _reasoning(facts)
    parts += _section("## Audit of the splits", facts.get("audit"))
    for key, value in facts.items():
        if key not in _ALL_KNOWN and not _is_plain(value):
            parts += _section(f"## {one_line(key).replace('_', ' ').capitalize()}", value)
    parts += _licences(counted, facts)
    parts += _limits(counted, facts)
    return "\n\n".join(part for part in parts if part) + "\n"


def _contents(counted: Mapping[str, Any]) -> list[str]:
    splits = sorted({split for by in counted["tables"].values() for split in by})
    rows = [
        [f"{name}: {_WHAT[name]}", *(by.get(split) for split in splits), sum(by.values())]
        for name, by in counted["tables"].items()
    ]
    load = (
        "from datasets import load_dataset\n\n"
        'sft = load_dataset("PATH/TO/THIS/FOLDER", "sft")          # or images, rl, test, vqa\n'
        'images = load_dataset("PATH/TO/THIS/FOLDER", "images")    # a PIL picture each; rows name it by image_id'
    )
    reading = (
        "Masks are COCO RLE on the image's grid; a row lists them in `masks`, and everything else points there by "
        "number (-1: no mask). An image in a message is the row's image with mask number `mask` laid over it in "
        "half-transparent green. `loss_spans` name the characters of replies that are learnt; all else (prompts, "
        "observations, wrong actions on purpose) is context. `ibisagent.engine.corpus.reader.Corpus` gives the "
        "messages with their pictures, and `ibisagent data convert` writes trl, LLaMA-Factory, verl and mini."
    )
    images = counted.get("images")
    seen = ""
    if images and images["num"]:
        sides = images["sides"]
        patients = f" of {number(images['num_groups'])} patients or specimens" if images["num_groups"] else ""
        seen = f"{number(images['num'])} images{patients}; sides of {sides['min']:.0f} to {sides['max']:.0f} pixels."
    by = counts_table("modality", images["by"]["modality"], "images") if images else ""
    return ["## What is in it", table(["table", *splits, "all"], rows), seen, by, code_block(load, "python"), reading]


def _making(counted: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    made = counted.get("sft", {}).get("made_with", {})
    parts = ["## How it was made"]
    if facts.get("command"):
        parts.append(code_block(str(facts["command"]), "console"))
    for name in ("segmenter", "teacher", "run"):
        parts += _section(f"### {name.capitalize()}", facts.get(name))
    plain = {key: value for key, value in facts.items() if key not in _ALL_KNOWN and _is_plain(value)}
    if plain:
        parts.append(facts_table(plain))
    if made:
        parts += ["Written in every trajectory's provenance:", facts_table(made)]
    if facts.get("config"):
        parts += ["<details><summary>Configuration</summary>", code_block(facts["config"], "json"), "</details>"]
    return parts


def _trajectories(sft: Mapping[str, Any], figures: Mapping[str, str]) -> list[str]:
    parts = ["## Trajectories", _beside_the_paper(sft)]
    parts.append(
        f"{number(sft['num'])} trajectories with {number(sft['num_replies'])} replies, of which "
        f"{number(sft['num_learnt_replies'])} are learnt. In {number(sft['num_absent'])} the target is not in the "
        "image: to refuse is right there by definition, so they are left out of IoU, Dice and the comparison above. "
        "Length counts actions without the one that stops."
    )
    for file, caption in figures.items():
        parts.append(f"![{caption}](figures/{file})\n\n*{caption}*")
    parts += ["### Final IoU and length", _quantiles(sft)]
    rows: list[list[Any]] = [
        [
            row["modality"],
            row["target"],
            row["num_present"],
            *(_of(row["final_iou"], key) for key in ("mean", "median", "q05")),
            _of(row["num_steps"], "mean", 2),
        ]
        for row in sft["by_modality_and_target"]
        if row["num_present"]
    ]
    header = ["modality", "target", "trajectories", "mean IoU", "median IoU", "5% below", "mean length"]
    parts += ["### By target", table(header, rows, left=2)]
    if sft["num_absent"]:
        absent: Counter[str] = Counter()
        for row in sft["by_modality_and_target"]:
            absent[row["target"]] += row["num"] - row["num_present"]
        ranked = dict(sorted(((k, n) for k, n in absent.items() if n), key=lambda item: (-item[1], item[0])))
        parts += ["Asked for where it is absent:", counts_table("target", ranked, limit=20)]
    parts.append("### By scenario")
    scored = sft["by_scenario"]
    rows = [
        [
            name.replace("_", " "),
            count,
            f"{100 * count / sft['num']:.1f}%",
            _of(scored.get(name, {}).get("final_iou"), "mean"),
            _of(scored.get(name, {}).get("num_steps"), "mean", 2),
        ]
        for name, count in sft["by"]["scenario"].items()
    ]
    parts.append(table(["scenario", "trajectories", "share", "mean IoU", "mean length"], rows))
    for title, key in (("Outcome", "outcome"), ("Modality", "modality"), ("Expert", "expert")):
        parts += [f"### {title}", counts_table(title.lower(), _words(sft["by"][key]))]
    parts += ["### Instructions", counts_table("category", _words(sft["by"]["instruction_category"]))]
    parts += ["### Replies", counts_table("intent", _words(sft["intents"]), "replies")]
    lengths: Counter[int] = Counter()
    for by in sft["lengths"].values():
        lengths.update({int(length): count for length, count in by.items()})
    ordered = {str(length): lengths[length] for length in sorted(lengths)}
    return [*parts, "### Lengths", counts_table("actions", ordered)]


def _beside_the_paper(sft: Mapping[str, Any]) -> str:
    mine, plain = sft["with_target"], sft["by_scenario"].get("plain", {})
    rows = [
        [
            f"mean {words}",
            _of(mine[key], "mean", digits),
            _of(plain.get(key), "mean", digits),
            f"{PAPER[key]:.{digits}f}",
        ]
        for words, key, digits in (
            ("final IoU", "final_iou", 4),
            ("final Dice", "final_dice", 4),
            ("length", "num_steps", 2),
        )
    ]
    return table(["", "this corpus", "its plain trajectories", "kept set of the paper"], rows)


def _quantiles(sft: Mapping[str, Any]) -> str:
    keys = ("mean", "median", "min", "q05", "q25", "q75", "q95", "max")
    mine = sft["with_target"]
    rows = []
    for title, summary, digits in (
        ("final IoU", mine["final_iou"], 4),
        ("final Dice", mine["final_dice"], 4),
        ("length", mine["num_steps"], 2),
        ("length, absent targets too", sft["num_steps"], 2),
        ("clicks, absent targets too", sft["num_clicks"], 2),
    ):
        if summary is not None:
            rows.append([title, summary["num"], *(_of(summary, key, digits) for key in keys)])
    return table(["", "trajectories", "mean", "median", "least", "5%", "25%", "75%", "95%", "most"], rows)


def _prompts(counted: Mapping[str, Any]) -> list[str]:
    parts: list[str] = []
    for name, title in (("rl", "Prompts for reinforcement learning"), ("test", "Test set")):
        section = counted.get(name)
        if section and section["num"]:
            parts.append(f"## {title}")
            parts.append(
                f"{number(section['num'])} prompts. With an absent target: {number(section['num_absent'])}; "
                f"with a given mask: {number(section['num_given_mask'])}."
            )
            for key in ("modality", "target", "scenario"):
                counts = _words(section["by"][key]) if key == "scenario" else section["by"][key]
                parts.append(counts_table(key, counts, "prompts", limit=40))
    questions = counted.get("vqa")
    if questions and questions["num"]:
        parts += [
            "## Visual questions",
            f"{number(questions['num'])}, of which {number(questions['num_closed'])} closed.",
        ]
        parts.append(counts_table("source", questions["by"]["source"], "questions"))
    return parts


def _left_out(facts: Mapping[str, Any]) -> list[str]:
    drops, faults = facts.get("drops"), facts.get("faults")
    if drops is None and faults is None:
        return []
    parts = ["## Left out"]
    if isinstance(drops, Mapping):
        rows = [[*_dropped(name), count] for name, count in _flat(drops)]
        parts.append("### Trajectories and prompts that were dropped")
        parts.append(table(["of", "reason", "number"], rows, left=2) or "None.")
    if faults is not None:
        parts.append("### Items that could not be used")
        if isinstance(faults, Mapping):
            flat = {str(code).replace("_", " "): n for code, n in faults.items()}
            parts.append(table(["fault", "items"], list(flat.items())) or "None.")
        else:
            parts += _section("", faults) or ["None."]
    return parts


def _flat(drops: Mapping[str, Any]) -> list[tuple[str, int]]:
    """``{"scenario: reason": n}`` of counts that may be nested by scenario."""
    found = []
    for name, inner in drops.items():
        if isinstance(inner, Mapping):
            found += [(f"{name}: {reason}", count) for reason, count in inner.items()]
        else:
            found.append((str(name), inner))
    return found


def _dropped(name: str) -> tuple[str | None, str]:
    of, _, reason = name.rpartition(": ")
    return of.replace("_", " ") or None, reason.replace("_", " ")


def _reasoning(facts: Mapping[str, Any]) -> list[str]:
    counts = facts.get("reasoning")
    if not isinstance(counts, Mapping) or not counts:
        return []
    written = counts.get("written") or 0

    def share(count: Any) -> Any:
        return f"{100 * count / written:.2f}%" if written and isinstance(count, int) else None

    names = {
        "asked": "thoughts wanted",
        "written": "texts written",
        "rejected": "of those, rejected",
        "given_up": "thoughts that never passed",
    }
    rows = []
    for key, count in sorted(counts.items(), key=lambda item: ([*names, item[0]].index(item[0]), item[0])):
        of_written = key.startswith("rejected")
        rows.append([names.get(key, str(key).replace("_", " ")), count, share(count) if of_written else None])
    words = "A text may be rejected for several reasons at once."
    return ["## Reasoning and its verifier", table(["", "number", "of the texts"], rows), words]


def _licences(counted: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    said = facts.get("sources")
    rows = [
        [source, licence, sum(splits.values()), splits, said.get(source) if isinstance(said, Mapping) else None]
        for source, by in counted["licences"].items()
        for licence, splits in by.items()
    ]
    words = (
        "Images and masks stay under the licences of the data sets that they come from, as those state them. Whoever "
        "passes this corpus on passes them on with it."
    )
    parts = ["## Sources and their licences", words]
    header = ["source", "licence", "images", "by split", "notes"]
    return [*parts, table(header, rows, left=2), "" if isinstance(said, Mapping) else "\n\n".join(_section("", said))]


def _limits(counted: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    limits = [*_LIMITS, *(_PHANTOMS.format(source) for source in counted["licences"] if "phantom" in source.lower())]
    more = facts.get("limits") or ()
    limits += [more] if isinstance(more, str) else [str(item) for item in more]
    words = "This is research data. It is not a medical device, was not made with one, and is not for clinical use."
    return ["## Limits", "\n".join(f"- {' '.join(limit.split())}" for limit in limits), words]


def _section(title: str, value: Any) -> list[str]:
    """A section of any content: a text, a dict of values, a list of dicts or of texts."""
    if value is None or value == "" or value == {} or value == []:
        return []
    if isinstance(value, Mapping):
        body = facts_table(value)
    elif isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
        header = list(dict.fromkeys(key for item in value for key in item))
        body = table([str(key) for key in header], [[item.get(key) for key in header] for item in value])
    elif isinstance(value, list | tuple):
        body = "\n".join(f"- {one_line(item, 500)}" for item in value)
    else:
        body = str(value).strip()
    return [title, body] if title else [body]


def _words(counts: Mapping[str, int]) -> dict[str, int]:
    """The same counts with names of our own in words; names from data sets stay as they are."""
    return {name.replace("_", " "): count for name, count in counts.items()}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | None) and len(str(value)) <= 100


def _of(summary: Mapping[str, float] | None, key: str, digits: int = 4) -> str | None:
    return None if summary is None else f"{summary[key]:.{digits}f}"

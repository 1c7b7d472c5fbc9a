"""The README's figures, out of the files in docs/results (:mod:`write_results` puts them in)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ibisagent.train.course.report import paired_difference, read_cells

Load = Callable[[str], dict | None]
Row = tuple[str, str, str, str]

ARMS = {
    "agent": "the agent",
    "oracle": "perfect clicks (the ceiling)",
    "no-look": "one click where such targets usually are",
    "random-clicks": "random clicks",
    "box-oracle": "a perfect box, once",
    "one-shot": "the agent's first click alone",
    "wrong-place": "told a wrong place",
    "true-place": "told the right place",
    "mismatched-mask": "given another structure's mask",
    "corrupted-light": "given a mask of IoU 0.6–0.8",
    "corrupted-heavy": "given a mask of IoU 0.2–0.5",
    "good-mask": "given a mask that fits",
    "no-history": "without history",
    "no-overlay": "without seeing its mask",
    "no-thought": "without thoughts",
}


def span(interval: list[float] | None) -> str:
    """An interval; empty where there is none."""
    return "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def told(figure: dict[str, Any], bold: bool = True) -> str:
    """A figure with its interval."""
    value = f"{figure['value']:.3f}"
    return f"{f'**{value}**' if bold else value} {span(figure['ci95'])}".strip()


def results(load: Load) -> str:
    """How good it is."""
    lines = [
        "Measured on 2 CPU cores by the scripts in [benchmarks](benchmarks); 95% intervals in brackets. "
        "`target_mean_iou` is the mean over (group, target) pairs of the pair's mean IoU.",
        "",
        "| what | figure | n | bar |",
        "|---|---|---|---|",
    ]
    rows = [*_segmenter(load), *_agent(load), *_timings(load)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    found = load("lab_val")
    if found:
        lines += ["", *_by_target(found)]
    lines += [
        "",
        "Mini's val slices come from the same patients as its train slices: these figures measure fit, not "
        "generalisation to a new patient. Intervals of the agent's figures draw images, since there are five patients: "
        "they say how much the choice of images matters. The network of the left-out rows was trained on procedural "
        "shapes alone, so every real group is left out.",
    ]
    return "\n".join(lines)


def _segmenter(load: Load) -> list[Row]:
    rows: list[Row] = []
    oracle = load("oracle_val")
    if oracle:
        figure = f"target_mean_iou **{oracle['target_mean_iou']:.3f}** {span(oracle['ci95'])}"
        rows.append(("Oracle clicks, 6, embedded segmenter, mini val", figure, f"n = {oracle['num_cases']}", "≥ 0.80"))
    left = {group: load(f"leave_out_{group}") for group in ("icbm152", "lung1", "dsb2018")}
    found = {group: d for group, d in left.items() if d}
    for group, d in found.items():
        what = f"The same, by a network that saw no real image (stage `base`, 22 minutes), all cases of {group}"
        rows.append((what, f"{d['target_mean_iou']:.3f} {span(d['ci95'])}", f"n = {d['num_cases']}", ""))
    if len(found) == 3:
        mean = sum(d["target_mean_iou"] for d in found.values()) / 3
        rows.append(("Mean of the three groups, each left out", f"**{mean:.3f}**", "", "≥ 0.60"))
    return rows


def _agent(load: Load) -> list[Row]:
    lab = load("lab_val")
    if not lab:
        return []
    agent, figures, n = lab["target_mean"]["agent"]["iou"], lab["arms"]["agent"]["figures"], ""
    n = f"n = {agent['n']}"
    ceiling, floor = lab["target_mean"]["oracle"]["iou"], lab["arms"]["no-look"]["target_mean_iou"]
    share, best = (lab["ceiling"][key]["targets"] for key in ("agent_over_oracle", "agent_over_oracle_best"))
    rows = [
        ("`nano` + `litemedsam`, mini val, 8 steps", f"target_mean_iou {told(agent)}", n, "≥ 0.70"),
        ("… perfect clicks, and no look", f"{told(ceiling, False)}, {told(floor, False)}", n, ""),
        ("… share of what perfect clicks end with", told(share), n, "≥ 0.85"),
        ("… share of the best mask on their way", told(best), n, ""),
        (
            "… share of the way from no look to perfect clicks",
            told(lab["ceiling"]["share_of_ceiling"]["targets"]),
            n,
            "≥ 0.50",
        ),
        ("… action validity", told(figures["action_validity"]), f"{n} runs", "≥ 0.99"),
        (
            "… refinement success, mean steps",
            f"{figures['refinement_success']['value']:.2f}, {figures['steps']['value']:.2f}",
            n,
            "",
        ),
        ("… false refusals", told(figures["false_refusals"]), n, "≤ 0.05"),
    ]
    for name, text, bar in (
        ("absent-other-modality", "right refusals, target of another modality", "≥ 0.95"),
        ("absent-same-modality", "right refusals, absent target of the same modality", "reported"),
        ("absent-near", "right refusals, structure of another part of the body", "reported"),
    ):
        if name in lab["arms"]:
            right = lab["arms"][name]["figures"]["right_refusals"]
            rows.append((f"… {text}", told(right), f"n = {right['n']}", bar))
    return rows


def _timings(load: Load) -> list[Row]:
    rows: list[Row] = []
    times, encoder = load("timings"), load("encoder")
    if times:
        warm = f"{times['warm_case_s']:.2f} s ({times['warm_case_steps']} steps)"
        rows += [
            ("A warm case, `nano` + `litemedsam`, median of five", warm, "", "≤ 5 s"),
            ("A click's mask", f"{times['click_mask_s']:.3f} s", "", "≤ 0.15 s"),
            (
                "`import ibisagent`, `ibisagent --help`",
                f"{times['import_s']:.2f} s, {times['help_s']:.2f} s",
                "",
                "≤ 0.3, 0.5 s",
            ),
        ]
    if encoder:
        wall, kept = (encoder[k]["ours_over_plain"]["wall"] for k in ("as_it_comes", "memory_kept"))
        figure = f"**{wall:.2f} x** ({kept:.2f} x against a plain encoder with glibc's memory tuned)"
        rows.append(("LiteMedSAM image encoding / the released encoder's plain time, one run", figure, "", "≤ 0.3 x"))
    return rows


def _by_target(lab: dict[str, Any]) -> list[str]:
    pairs, top = lab["per_target"]["agent"], lab["per_target"]["oracle"]
    return [
        "<details><summary>By target, mini val</summary>",
        "",
        "| target | n | nano IoU | nano Dice | oracle IoU |",
        "|---|---|---|---|---|",
        *(f"| {k} | {v['n']} | {v['iou']:.3f} | {v['dice']:.3f} | {top[k]['iou']:.3f} |" for k, v in pairs.items()),
        "",
        "</details>",
    ]


def questioned(load: Load) -> str:
    """What the arms of the lab on mini val came to."""
    lab = load("lab_val")
    if not lab:
        return ""
    settings, arms = lab["settings"], lab["arms"]
    lines = [
        f"`{settings['policy']}` with `{settings['segmenter']}` on all {arms['agent']['figures']['iou']['n']} cases of "
        "mini val (`--arms all`; seen patients, see below). Differences are paired by case; recovered: at most 0.05 "
        "below its own plain run. Where validity is low, nano lost the grammar in a conversation that it was never "
        "trained for, and the IoU says nothing of what was taken away.",
        "",
        "| played | IoU | difference | recovered | action validity | n |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in ARMS.items():
        if name not in arms or "iou" not in arms[name]["figures"]:
            continue
        about = arms[name]
        iou, difference = about["figures"]["iou"], about.get("difference")
        gap = ""
        if difference:
            low, high = difference["iou"]["ci95"]
            gap = f"{difference['iou']['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
            if difference["against"] != "agent":
                gap += f" (from: {ARMS.get(difference['against'], difference['against'])})"
        back = ((about.get("recovery") or {}).get("recovery") or {}).get("value")
        recovered = "" if back is None else f"{back:.2f}"
        valid = about["figures"].get("action_validity")
        cells = [title, told(iou, name == "agent"), gap, recovered, f"{valid['value']:.2f}" if valid else "", iou["n"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def volumes(load: Load) -> str:
    """Volumes, and masks that lie where they should."""
    found, large, places = load("volumes"), load("large_volume"), load("geometry")
    if not (found and large and places):
        return ""
    lines = ["| what | figure | n | bar |", "|---|---|---|---|"]
    bars = {"oracle, clicks on 2, trained without brain1": "≥ 0.75"}
    for name, row in found["brain1"].items():
        lines.append(
            f"| 3-D Dice, brain tumor of `brain1`: {name} | **{row['dice']:.3f}** | 1 | {bars.get(name, '')} |"
        )
    for name, row in found["phantoms, oracle, clicks on 2"].items():
        figure = f"{row['dice']:.3f} {span(row['ci95'])}, worst {row['worst']:.3f}"
        who = f"phantom {name.replace('_', ' ')}: oracle, clicks on 2, trained without brain1"
        lines.append(f"| … {who} | {figure} | {row['n']} | |")
    worst = max(v for readers in places["largest_offset_mm"].values() for v in readers.values())
    lines.append(
        "| Centroid of a written mask against the analytic one: 48 orientations × isotropic, anisotropic, oblique × "
        f"NIfTI, NRRD, DICOM | {len(places['failures'])} failures, at most {worst:.0e} mm | {places['cases']} | "
        f"≤ {places['tolerance_mm']} mm |"
    )
    for name, row in large["formats"].items():
        seconds = f"{row['beyond_seconds']:.1f} s beyond SimpleITK's {row['simpleitk_seconds']:.1f} s"
        shape = " × ".join(str(n) for n in large["shape"])
        limits = f"≤ {large['bars']['beyond_seconds']:.0f} s, {large['bars']['use_peak_gib']:.0f} GiB"
        lines.append(f"| CT of {shape} as {name} | {seconds}, peak {row['use_peak_gib']:.2f} GiB | 3 runs | {limits} |")
    return "\n".join(lines)


def reinforcement(load: Load, folder: Path) -> str:
    """What RL adds to the SFT that it begins with: nano from two starts, and the course's small model by preset.

    `folder` holds the cells of the course.
    """
    lines = [
        "| RL against its own start, 3 seeds | exam | n | IoU | actions | right refusals, start and after |",
        "|---|---|---|---|---|---|",
    ]
    for name, who in (("nano_rl", "nano, the shipped one's start"), ("speedrun", "nano of the speedrun")):
        found = load(name)
        if not found:
            return ""
        for exam, row in found.items():
            parts = [(row[what]["difference"], *row[what]["ci95"]) for what in ("iou", "steps")]
            refused = row.get("right_refusals")
            rates = "" if refused is None else f"{refused['before']:.2f}, {np.mean(refused['after']):.2f}"
            lines.append(f"| {who} | {exam} | {row['n']} | {_differences(parts)} | {rates} |")
    small = (
        ("ablation", "a 0.93 M model, 32 updates", "the gym"),
        ("ablation-places", "a 0.93 M model, 80 updates, places", "the gym"),
        ("ablation-mini", "a 0.93 M model, 24 updates", "mini val"),
    )
    for name, who, exam in small:
        made, _ = read_cells(folder / name)
        if not {"all", "reflection"} <= made.keys():
            return ""
        after, before = made["all"], made["reflection"]
        parts = [paired_difference(after, before, what) for what in ("iou", "steps")]
        first, last = (
            np.mean([cell["figures"]["right_refusals"]["value"] for cell in row.values()]) for row in (before, after)
        )
        number = len(after[0]["runs"]["iou"])
        lines.append(f"| {who} | {exam} | {number} | {_differences(parts)} | {first:.2f}, {last:.2f} |")
    return "\n".join(lines)


def _differences(parts: Sequence[tuple[float, float, float]]) -> str:
    """Of IoU and of actions: mean, low, high."""
    return " | ".join(
        f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
        for (mean, low, high), digits in zip(parts, (3, 2), strict=True)
    )

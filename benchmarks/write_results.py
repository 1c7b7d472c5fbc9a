"""Fill the documents' figures from JSON files, so that none is typed by hand.

    python benchmarks/write_results.py          # write
    python benchmarks/write_results.py --check  # exit 1 if a document is out of date (a test runs this)

docs/results holds what the other benchmarks printed: ``bars.json`` (agent_bars.py), ``oracle_val.json``
and ``leave_out_GROUP.json`` (oracle_clicks.py), ``timings.json``, ``encoder.json``, ``synthesis_PRESET.json``
(synthesis.py), ``leak_verifier.json`` (leak_verifier.py), ``nano_rl.json`` (nano_rl.py), ``corpus_paper.json``
(statistics.json of a corpus of that preset), ``metrics.json`` (metrics.py). docs/corpus holds the data card of the
corpus that docs/data-engine.md speaks of.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"


def _load(name: str) -> dict | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _span(interval: list[float]) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def section() -> str:
    """The markdown between the markers."""
    lines = [
        "Measured on 2 CPU cores by the scripts in [benchmarks](benchmarks); 95% intervals in brackets. "
        "`target_mean_iou` is the mean over (group, target) pairs of the pair's mean IoU.",
        "",
    ]
    bars, oracle = _load("bars"), _load("oracle_val")
    rows: list[tuple[str, str, str, str]] = []
    if oracle:
        rows.append(
            (
                "Oracle clicks, 6, embedded segmenter, mini val",
                f"target_mean_iou **{oracle['target_mean_iou']:.3f}** {_span(oracle['ci95'])}",
                f"n = {oracle['num_cases']}",
                "≥ 0.80",
            )
        )
    left = {g: _load(f"leave_out_{g}") for g in ("icbm152", "lung1", "dsb2018")}
    found = {g: d for g, d in left.items() if d}
    for group, d in found.items():
        rows.append(
            (
                f"The same, by a network that saw no real image (stage `base`, 22 minutes), all cases of {group}",
                f"{d['target_mean_iou']:.3f} {_span(d['ci95'])}",
                f"n = {d['num_cases']}",
                "",
            )
        )
    if len(found) == 3:
        mean = sum(d["target_mean_iou"] for d in found.values()) / 3
        rows.append(("Mean of the three groups, each left out", f"**{mean:.3f}**", "", "≥ 0.60"))
    if bars:
        nano, ceiling, blind = bars["nano"], bars["oracle"], bars["no_look"]
        rows += [
            (
                "`nano` + `litemedsam`, mini val, 8 steps",
                f"target_mean_iou **{nano['target_mean_iou']:.3f}** {_span(nano['target_mean_iou_ci95'])}",
                f"n = {nano['num_cases']}",
                "≥ 0.70",
            ),
            (
                "… its ceiling (oracle clicks, 8 steps) and floor (no look)",
                f"{ceiling['target_mean_iou']:.3f} / {blind['target_mean_iou']:.3f}",
                f"n = {nano['num_cases']}",
                "",
            ),
            (
                "… share of its ceiling",
                f"**{nano['target_mean_iou'] / ceiling['target_mean_iou']:.2f}**",
                "",
                "≥ 0.85",
            ),
            ("… share of the way from floor to ceiling", f"**{bars['share_of_ceiling']:.2f}**", "", "≥ 0.50"),
            (
                "… action validity",
                f"**{nano['action_validity']:.3f}** {_span(nano['action_validity_ci95'])}",
                f"n = {nano['num_cases']} runs",
                "≥ 0.99",
            ),
            ("… refinement success, mean steps", f"{nano['refinement_success']:.2f}, {nano['mean_steps']:.2f}", "", ""),
            (
                "… false refusals",
                f"**{nano['false_refusals']:.3f}** {_span(nano['false_refusals_ci95'])}",
                f"n = {nano['num_cases']}",
                "≤ 0.05",
            ),
        ]
        for key, text, bar in (
            ("refusals_other_modality", "right refusals, target of another modality", "≥ 0.95"),
            ("refusals_same_modality", "right refusals, absent target of the same modality", "reported"),
        ):
            if key in bars:
                d = bars[key]
                rows.append((f"… {text}", f"**{d['right']:.3f}** {_span(d['ci95'])}", f"n = {d['n']}", bar))
    times, encoder = _load("timings"), _load("encoder")
    if times:
        rows += [
            (
                "A warm case, `nano` + `litemedsam`, median of five",
                f"{times['warm_case_s']:.2f} s ({times['warm_case_steps']} steps)",
                "",
                "≤ 5 s",
            ),
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
    lines += ["| what | figure | n | bar |", "|---|---|---|---|"] + [f"| {' | '.join(r)} |" for r in rows]
    if bars:
        pairs = bars["nano"]["per_target"]
        top = bars["oracle"]["per_target"]
        lines += [
            "",
            "<details><summary>By target, mini val</summary>",
            "",
            "| target | n | nano IoU | nano Dice | oracle IoU |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {k} | {v['n']} | {v['iou']:.3f} | {v['dice']:.3f} | {top[k]['iou']:.3f} |" for k, v in pairs.items()
        ]
        lines += ["", "</details>"]
    lines += [
        "",
        "Mini's val slices come from the same patients as its train slices: these figures measure fit, not "
        "generalisation to a new patient. The network of the left-out rows was trained on procedural shapes alone, so "
        "every real group is left out.",
    ]
    return "\n".join(lines)


def corpus() -> str:
    """What the corpus in docs/corpus came to, beside the paper's figures."""
    folder = ROOT / "docs/corpus"
    if not (folder / "statistics.json").exists():
        return ""
    facts = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    counts, report = facts["statistics"], facts["facts"]
    plain, everything = counts["sft"]["by_scenario"]["plain"], counts["sft"]["with_target"]
    paper = _load("corpus_paper")
    rate = run["samples"] / run["seconds"]
    lines = [
        f"The first command made {counts['sft']['num']:,} trajectories and {counts['rl']['num']:,} prompts from "
        f"{counts['images']['num']:,} images in {run['seconds'] / 60:.0f} minutes on 2 CPU cores ({rate:.1f} images, "
        f"{rate * counts['sft']['num'] / counts['images']['num']:.1f} trajectories a second). Its "
        "[data card](corpus/README.md) has all counts and plots.",
        "",
        "| trajectories with a target | n | mean final IoU | mean Dice | mean length |",
        "|---|---|---|---|---|",
    ]

    def row(name: str, part: dict) -> str:
        iou, dice, length = (part[key]["mean"] for key in ("final_iou", "final_dice", "num_steps"))
        return f"| {name} | {part['final_iou']['num']:,} | {iou:.4f} | {dice:.4f} | {length:.2f} |"

    lines += [row("preset `ibis`, plain", plain), row("preset `ibis`, all scenarios", everything)]
    if paper:
        lines.append(row("preset `paper`, plain, mini train alone", paper["statistics"]["sft"]["by_scenario"]["plain"]))
    lines.append("| the paper's kept set | | 0.9427 | 0.9703 | 8.69 |")
    thoughts, drops = report["reasoning"], report["drops"]
    first = ", ".join(f"{number:,} *{name}*" for name, number in list(drops.items())[:4])
    lines += [
        "",
        f"Not kept: {sum(drops.values()):,}, first of all {first}. Of {thoughts['written']:,} thoughts written, the "
        f"verifier rejected {thoughts['rejection_rate']:.1%}.",
    ]
    return "\n".join(lines)


def verifier() -> str:
    """How many planted leaks it missed when it first saw them."""
    found = _load("leak_verifier")
    if not found:
        return ""
    lines = [
        "Language models who had not seen the verifier wrote thoughts with a planted leak, and clean ones; the authors "
        "of *outside* sets were asked for clean ones that use a leak's words innocently. At first sight, judged by "
        "their words and without pictures:",
        "",
        "| set | leaks missed | clean thoughts refused |",
        "|---|---|---|",
    ]
    lines += [
        f"| {look['set']} (at commit {look['commit']}) | {look['missed']} of {look['planted']} | "
        f"{look['refused']} of {look['clean']} |"
        for look in found["first_looks"]
    ]
    lines += [
        "",
        "It has learnt from the first three sets (it misses none of their 600 now) and from none of the others: expect "
        "one slip in ten of an ordinary teacher to pass, one in five of a devious one, and look at samples. "
        "Weighing the rules by small nets over word vectors (commit 0e6a780) missed 25 and refused 14 of reviewer-4's; "
        "that was not worth its size and was taken out again.",
    ]
    return "\n".join(lines)


def speed() -> str:
    """The engine against a straightforward loop."""
    rows = [_load(f"synthesis_{name}") for name in ("ibis", "paper", "box_first", "paper_plain")]
    lines = [
        "| diet, embedded segmenter, 2 cores | straightforward loop | the same, memory tuned | engine | speed-up |",
        "|---|---|---|---|---|",
    ]
    for found in rows:
        if found:
            seconds = found["seconds"]
            words = f"preset `{found['preset']}`" + (", plain only" if found["plain"] else "")
            lines.append(
                f"| {words}, {found['trajectories']} trajectories | {seconds['straightforward']:.0f} s | "
                f"{seconds['tuned']:.0f} s | {seconds['engine']:.0f} s | **{found['speedup']:.1f} x** "
                f"({found['speedup_against_tuned']:.1f} x) |"
            )
    ray = next((found for found in rows if found and "ray_against_processes" in found), None)
    lines += [
        "",
        "The loop (`benchmarks/synthesis.py`) makes the same clicks in one process, reads and encodes the image for "
        "every target, asks the plain network for every click, and makes clicks only; the engine's time has the "
        "thoughts, messages and files in it, not the start of its processes. In brackets: against the loop with "
        "glibc's memory tuned as the engine's is.",
    ]
    if ray:
        lines.append(f"Two Ray workers reach {ray['ray_against_processes']:.2f} x the rate of two processes.")
    return "\n".join(lines)


def nano_rl() -> str:
    """Nano after RL beside the SFT that it began with."""
    found = _load("nano_rl")
    if not found:
        return ""
    lines = [
        "| exam | n | seeds of RL | what | SFT | after RL, each seed | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {"iou": "mean IoU", "target_mean_iou": "target_mean_iou", "steps": "mean steps"}
    for exam, told in found.items():
        for key, words in names.items():
            d, digits = told[key], 2 if key == "steps" else 3
            after = ", ".join(f"{v:.{digits}f}" for v in d["after"])
            low, high = d["ci95"]
            lines.append(
                f"| {exam} | {told['n']} | {told['seeds']} | {words} | {d['before']:.{digits}f} | {after} | "
                f"**{d['difference']:+.{digits}f}** [{low:+.{digits}f}, {high:+.{digits}f}] |"
            )
        rates = {"action validity": told["validity"], "false refusals": told["false_refusals"]}
        for words, values in rates.items():
            after = ", ".join(f"{v:.3f}" for v in values[1:])
            lines.append(f"| {exam} | {told['n']} | {told['seeds']} | {words} | {values[0]:.3f} | {after} | |")
        if "right_refusals" in told:
            d = told["right_refusals"]
            after = ", ".join(f"{v:.3f}" for v in d["after"])
            lines.append(f"| {exam} | {d['n']} | {told['seeds']} | right refusals | {d['before']:.3f} | {after} | |")
    return "\n".join(lines)


def metrics() -> str:
    """Our metrics beside the libraries they equal: largest differences, and speed."""
    found = _load("metrics")
    if not found:
        return ""
    released = "monai hd95 as released"
    rows: dict[str, list[tuple[str, float]]] = {}
    for name, value in found["largest_differences"].items():
        library, metric = name.split(" ", 1)
        if name != released:
            rows.setdefault(library, []).append((metric, value))
    lines = [
        f"| library | metrics compared | largest difference, {found['pairs']} random pairs |",
        "|---|---|---|",
    ]
    for library, values in rows.items():
        names = ", ".join(f"`{metric}`" for metric, _ in values)
        lines.append(f"| {library} {found['versions'][library]} | {names} | {max(v for _, v in values):.1e} |")
    lines += [
        "",
        "Half of the pairs are 2-D and half 3-D, all with anisotropic spacing; differences are over the size of the "
        "number where that is above 1. MONAI computes in single precision. Its HD95 is compared with the "
        "interpolation between two distances done in double precision: as released, it is up to "
        f"{found['largest_differences'][released]:.0e} away, from its own distances too.",
        "",
        "| Dice + NSD + HD95, 256³ voxels | surface elements | MONAI | ours (`voxels`, the same numbers) | speed-up | "
        "ours (`surfels`) |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["volumes"].items():
        cpu = row["cpu_seconds"]
        lines.append(
            f"| {name.replace('_', ' ')} ({row['share_of_volume']:.0%} of the voxels) | {row['surface_elements']:,} | "
            f"{cpu['monai']:.2f} s | {cpu['ours']:.2f} s | **{row['times_monai_cpu']:.1f} x** "
            f"({row['times_monai']:.1f} x by the clock) | {cpu['ours_surfels']:.2f} s |"
        )
    lines += [
        "",
        f"Medians of {found['repeats']} turns in one process, seconds of processor time, as the machine was shared.",
    ]
    return "\n".join(lines)


BLOCKS = {
    "README.md": {"results": section},
    "docs/course.md": {"nano-rl": nano_rl},
    "docs/evaluation/metrics.md": {"metrics": metrics},
    "docs/data-engine.md": {"corpus": corpus, "verifier": verifier, "speed": speed},
}
"""Generated parts of documents: file -> marker -> what stands between the markers."""


def main() -> int:
    stale = 0
    for name, blocks in BLOCKS.items():
        path = ROOT / name
        new = text = path.read_text(encoding="utf-8")
        for marker, write in blocks.items():
            begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
            head, rest = new.split(begin)
            _, tail = rest.split(end)
            content = write()
            if not content:
                print(f"{name}: the results for '{marker}' are missing", file=sys.stderr)
                stale = 1
            new = f"{head}{begin}\n{content}\n{end}{tail}"
        if "--check" not in sys.argv:
            path.write_text(new, encoding="utf-8")
        elif new != text:
            print(f"{name} is out of date: run python benchmarks/write_results.py", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    raise SystemExit(main())

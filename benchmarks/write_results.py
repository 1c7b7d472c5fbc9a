"""Fill the documents' figures from JSON files, so that none is typed by hand.

    python benchmarks/write_results.py          # write
    python benchmarks/write_results.py --check  # exit 1 if a document is out of date (a test runs this)

docs/results holds what the other benchmarks printed: ``lab_val.json`` (lab_figures.py), ``oracle_val.json``
and ``leave_out_GROUP.json`` (oracle_clicks.py), ``timings.json``, ``encoder.json``, ``synthesis_PRESET.json``
(synthesis.py), ``leak_verifier.json`` (leak_verifier.py), ``nano_rl.json`` and ``speedrun.json`` (nano_rl.py),
``corpus_paper.json`` (statistics.json of a corpus of that preset), ``metrics.json`` (metrics.py), ``volumes.json``,
``large_volume.json`` and ``geometry.json``. docs/corpus holds the data card of the
corpus that docs/data-engine.md speaks of.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from readme_results import questioned, reinforcement, results, volumes

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"


def _load(name: str) -> dict | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


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


def nano_rl(name: str = "nano_rl") -> str:
    """Nano after RL beside the SFT that it began with."""
    found = _load(name)
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
    "README.md": {
        "lab": lambda: questioned(_load),
        "volumes": lambda: volumes(_load),
        "results": lambda: results(_load),
        "rl": lambda: reinforcement(_load, RESULTS),
    },
    "docs/course.md": {"nano-rl": nano_rl, "speedrun": lambda: nano_rl("speedrun")},
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

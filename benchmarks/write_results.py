"""Fill README's results from the JSON files in docs/results, so that no figure is typed by hand.

    python benchmarks/write_results.py          # write
    python benchmarks/write_results.py --check  # exit 1 if README is out of date (a test runs this)

docs/results holds what the other benchmarks printed: ``bars.json`` (agent_bars.py), ``oracle_val.json``
and ``leave_out_GROUP.json`` (oracle_clicks.py), ``timings.json``, ``encoder.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
BEGIN, END = "<!-- results -->", "<!-- /results -->"


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
                "≥ 0.55",
            ),
            (
                "… its ceiling (oracle clicks, 8 steps) and floor (no look)",
                f"{ceiling['target_mean_iou']:.3f} / {blind['target_mean_iou']:.3f}",
                f"n = {nano['num_cases']}",
                "",
            ),
            ("… share of the way from floor to ceiling", f"**{bars['share_of_ceiling']:.2f}**", "", "≥ 0.50"),
            (
                "… action validity",
                f"**{nano['action_validity']:.3f}** {_span(nano['action_validity_ci95'])}",
                f"n = {nano['num_cases']} runs",
                "≥ 0.98",
            ),
            ("… refinement success, mean steps", f"{nano['refinement_success']:.2f}, {nano['mean_steps']:.2f}", "", ""),
            (
                "… false refusals",
                f"**{nano['false_refusals']:.3f}** {_span(nano['false_refusals_ci95'])}",
                f"n = {nano['num_cases']}",
                "≤ 0.10",
            ),
        ]
        for key, text, bar in (
            ("refusals_other_modality", "right refusals, target of another modality", "≥ 0.80"),
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


def main() -> int:
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    new = f"{head}{BEGIN}\n{section()}\n{END}{tail}"
    if "--check" in sys.argv:
        if new != text:
            print("README.md is out of date: run python benchmarks/write_results.py", file=sys.stderr)
        return int(new != text)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

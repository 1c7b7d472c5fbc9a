"""The figures of a lab that the documents show, out of its folder.

    ibisagent evaluate data/mini/cases.jsonl --split val --arms all --absent data/refusals/other_modality.jsonl \
        --absent data/refusals/same_modality.jsonl --out runs/lab
    python benchmarks/lab_figures.py runs/lab --out docs/results/lab_val.json

Nothing is computed here: it leaves out what the documents do not show.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

FIGURES = (
    "iou", "dice", "nsd_2mm", "hd95_mm", "action_validity", "refinement_success", "refinement_harm", "regret", "steps",
    "false_refusals", "right_refusals", "errors",
)  # fmt: skip
CALIBRATION = ("n", "bias", "ece", "spearman")
LEFT = ("warning", "test", "seeds", "minimum_detectable")


def rounded(value: Any) -> Any:
    """The same with six decimals and without words."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items() if name not in LEFT}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def arm(about: dict[str, Any]) -> dict[str, Any]:
    """One arm."""
    found = {name: about.get(name) for name in ("kind", "title", "num_rows", "left_out", "seconds", "target_mean_iou")}
    found["figures"] = {name: about["figures"][name] for name in FIGURES if name in about["figures"]}
    difference = about.get("difference")
    if difference:
        found["difference"] = {"against": difference["against"], "iou": difference["iou"]}
    for name in ("recovery", "given"):
        if about.get(name) is not None:
            found[name] = about[name]
    return found


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("lab", type=Path)
    p.add_argument("--out", type=Path, required=True)
    a = p.parse_args()
    lab = json.loads((a.lab / "lab_summary.json").read_text(encoding="utf-8"))
    runs = {name: a.lab / "arms" / name for name in ("agent", "oracle")}
    summaries = {name: json.loads((run / "summary.json").read_text(encoding="utf-8")) for name, run in runs.items()}
    session = json.loads((runs["agent"] / "run.json").read_text(encoding="utf-8"))["sessions"][-1]
    kept = {
        "git": session["git"],
        "settings": lab["settings"],
        "complete": lab["complete"],
        "clusters": lab["clusters"],
        "arms": {name: arm(about) for name, about in lab["arms"].items()},
        "ceiling": lab["ceiling"],
        "absent": lab["absent"],
        "calibration": {name: summaries["agent"]["calibration"][name] for name in CALIBRATION},
        "target_mean": {name: summary["target_mean"] for name, summary in summaries.items()},
        "per_target": {
            name: {pair: {k: found[k] for k in ("n", "iou", "dice")} for pair, found in summary["per_target"].items()}
            for name, summary in summaries.items()
        },
    }
    a.out.write_text(json.dumps(rounded(kept), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The development split as a case list of its own, to choose by: the images of train that training leaves out.

    python benchmarks/development_list.py --out runs/development.jsonl
    ibisagent evaluate runs/development.jsonl --policy nano:runs/nano/model --out runs/development

Paths in it are relative to its folder.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from ibisagent.engine.splits import development_images


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--cases", type=Path, default=Path("data/mini/cases.jsonl"))
    p.add_argument("--out", type=Path, required=True)
    a = p.parse_args()
    rows = [json.loads(line) for line in a.cases.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = [row for row in rows if row["split"] == "train"]
    apart = development_images((row["image"], row["group"], row["target"]) for row in rows)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in rows:
        if row["image"] in apart:
            for name in ("image", "mask"):
                if row[name] is not None:
                    row[name] = os.path.relpath(a.cases.parent / row[name], a.out.parent)
            lines.append(json.dumps(row) + "\n")
    a.out.write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} cases in {a.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

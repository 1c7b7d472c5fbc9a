"""What the folder of a run says, but for what may differ from one time to the next."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any


def write_list(folder: Path, number: int) -> Path:
    """A list of so many cases for the rules and the oracle; one in five is absent, the third cannot be read."""
    row = {"image": "image.png", "mask": "target.png", "target": "square", "group": "g", "modality": "CT"}
    rows = [{**row, "case_id": f"c{i}", "mask": None if i % 5 == 3 else "target.png"} for i in range(number)]
    rows[2]["image"] = "gone.png"
    path = folder / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def contents(path: Path) -> dict[str, Any]:
    """What a run's folder says, but for seconds, sessions and the names of workers."""
    found: dict[str, Any] = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        if file.suffix == ".png":
            found[name] = file.read_bytes()
        elif file.suffix == ".jsonl":
            found[name] = file.read_text().splitlines()
        elif file.suffix == ".csv":
            found[name] = [
                {**line, "seconds": "", "seconds_total": ""} for line in csv.DictReader(file.open(newline=""))
            ]
        elif file.suffix == ".json":
            found[name] = without_seconds(json.loads(file.read_text()))
    return found


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        timed = {name for name in value if "seconds" in name and name != "max_seconds"} | {"sessions"}
        return {name: without_seconds(item) for name, item in value.items() if name not in timed}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value

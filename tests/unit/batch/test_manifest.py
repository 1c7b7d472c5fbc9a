from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ibisagent.batch.manifest import Manifest
from ibisagent.batch.study import Study
from ibisagent.errors import InputError

STUDIES = [Study(name, f"{name}.png", f"/x/{name}.png", "the lung") for name in "abc"]


def row(outcome: str, **more: object) -> dict:
    return {"outcome": outcome, "answer": "", "error": None, "files": {"mask": "a/mask.png"}, **more}


def test_what_ended_is_kept_and_the_rest_is_left(tmp_path: Path) -> None:
    with Manifest.open(tmp_path / "o", {"policy": "nano"}) as manifest:
        assert manifest.left(STUDIES) == STUDIES
        manifest.add(STUDIES[1], row("failed", error="broken"))
        manifest.add(STUDIES[0], row("done", volume_ml=1.5))
    with (tmp_path / "o/manifest.jsonl").open("ab") as file:
        file.write(b'{"id": "c", "outco')  # killed while writing
    with Manifest.open(tmp_path / "o", {"policy": "nano"}) as manifest:
        assert manifest.left(STUDIES) == STUDIES[2:]
        assert manifest.left(STUDIES, retry=True) == STUDIES[1:]
        other = Study("a", "a.png", "/x/a.png", "the heart")  # asked something else
        assert manifest.left([other]) == [other]
        manifest.add(STUDIES[1], row("done"))
        rows = manifest.finish(STUDIES)
    assert [(r["id"], r["outcome"]) for r in rows] == [("a", "done"), ("b", "done")]
    lines = (tmp_path / "o/manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
    with (tmp_path / "o/manifest.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table[0]["volume_ml"] == "1.5" and table[0]["mask"] == "a/mask.png" and table[1]["volume_ml"] == ""


def test_other_settings_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with Manifest.open(tmp_path, {"policy": "nano"}) as manifest:
        with pytest.raises(InputError, match="another process"):
            Manifest.open(tmp_path, {"policy": "nano"})
        manifest.finish(STUDIES)
    with pytest.raises(InputError, match='policy "nano", not "vlm"'):
        Manifest.open(tmp_path, {"policy": "vlm"})
    (tmp_path / "batch.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Manifest.open(tmp_path, {"policy": "nano"})
    (tmp_path / "batch.json").unlink()
    with pytest.raises(InputError, match=r"no batch\.json"):
        Manifest.open(tmp_path, {"policy": "nano"})

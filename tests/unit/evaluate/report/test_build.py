"""From a run's folder to a report's."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.evaluate.figures import case_figures
from ibisagent.evaluate.records import read_run
from ibisagent.evaluate.report.certainty import selective_band
from ibisagent.evaluate.report.gallery import choose_failures, write_episode_pages
from ibisagent.evaluate.report.model import Gallery
from ibisagent.evaluate.report.sections import calibration_section
from ibisagent.evaluate.report.sources import open_sources
from ibisagent.evaluate.report.write import write_report
from ibisagent.evaluate.summary import summarise
from ibisagent.rle import Rle, decode_mask, encode_mask
from sample_report import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def test_the_worst_come_first(folder: Path) -> None:
    results = read_run(folder).results
    failures = choose_failures(results, 10)
    regrets = [j.regret for j in failures.by_regret]
    assert failures.by_regret[0].result.case_id == "lung" and regrets == sorted(regrets, reverse=True)  # type: ignore[type-var]
    assert all(j.regret is not None and not j.result.error for j in failures.by_regret)
    ious = [j.result.iou for j in failures.by_iou]
    assert ious == sorted(ious) and len(ious) == 6  # type: ignore[type-var]
    assert {j.result.case_id for j in failures.by_iou if j.result.iou == 0} >= {"failed", "lost"}
    assert [j.result.case_id for j in failures.marked_absent] == ["nothing"]
    assert len(choose_failures(results, 2).by_iou) == 2 and not choose_failures(results, 0).every()
    for judged in failures.by_regret:
        number, weight = case_figures(judged.result)["regret"]
        assert judged.regret == pytest.approx(number / weight)


def test_a_report_of_a_run(folder: Path, tmp_path: Path) -> None:
    source = open_sources([folder], title="A title")
    report = write_report(tmp_path, source.run, source.pages("failures"), source.build, plots=False)
    assert report.title == "A title" and "8 cases (2 of absent targets)" in report.subject
    assert report.cautions and "patient" in report.cautions[0]
    galleries = [b for s in report.sections for b in s.blocks if isinstance(b, Gallery)]
    assert [g.key for g in galleries] == ["gallery-regret", "gallery-lowest", "gallery-marked-absent"]
    lost = next(c for c in galleries[1].cards if c.case_id == "lost")
    assert lost.note == "the image lost.png is missing" and not lost.link and not lost.picture
    links = {c.link for g in galleries for c in g.cards if c.link}
    assert links and all((tmp_path / link).is_file() for link in links)
    page = (tmp_path / "index.html").read_text()
    for place in re.findall(r'href="((?:episodes|plots)/[^"]+)"', page):
        assert (tmp_path / place).is_file(), place
    assert "c0ffee, with changes that are not committed" in page
    told = json.loads((tmp_path / "report.json").read_text())
    assert {s["key"] for s in told["sections"]} >= {"targets", "steps", "failures", "all-figures", "appendix"}
    assert (tmp_path / "report.md").read_text().startswith("# A title\n")
    # How every interval was made is said by number.
    figures = next(s for s in told["sections"] if s["key"] == "all-figures")["blocks"][0]
    made = {row[0]: (row[1]["ci95"], row[1]["method"], row[3]) for row in figures["rows"]}
    assert made["IoU"][1:] == ("wilson", "Wilson")
    assert all((ends is None) == (word is None) for ends, _, word in made.values())


def test_equal_runs_give_equal_reports(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        source = open_sources([folder], number=1)
        write_report(tmp_path / name, source.run, source.pages("none"), source.build, plots=False)
    first = {p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*") if p.is_file()}
    assert first == {
        p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*") if p.is_file()
    }


def test_a_run_without_pictures_still_has_a_report(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    shutil.rmtree(bare / "images")
    source = open_sources([bare])
    assert source.build({}).pictures == {}
    (tmp_path / "episodes").mkdir()
    assert write_episode_pages(source.run, source.pages("all"), tmp_path / "episodes") == {}


def test_runs_are_held_against_the_first(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    lines = (other / "results.jsonl").read_text().splitlines(keepends=True)
    (other / "results.jsonl").write_text("".join(lines[:-1]))  # it lacks a row
    source = open_sources([folder, other])
    section = next(s for s in source.build({}).sections if s.key == "runs")
    (row,) = section.blocks[1].rows  # type: ignore[union-attr]
    assert row.value.value == 0 and not row.strong  # type: ignore[union-attr]
    assert any("left out of the comparison: 1 of" in text for text in section.cautions)
    assert any(
        "How much other seeds would differ" in text or "one run a side" in text.lower() for text in section.cautions
    )


def test_runs_are_paired_as_compare_pairs_them(folder: Path, tmp_path: Path) -> None:
    # Two wordings of a case are two cases, and rows without an id have partners, too.
    one, two = tmp_path / "one", tmp_path / "two"
    shutil.copytree(folder, one)
    rows = [json.loads(line) for line in (one / "results.jsonl").read_text().splitlines()]
    rows[1]["case_id"], rows[1]["instruction"] = rows[0]["case_id"], "In other words."
    rows[2]["case_id"] = None
    (one / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(one, two)
    section = next(s for s in open_sources([one, two]).build({}).sections if s.key == "runs")
    iou, gap, _ = section.blocks
    assert gap.rows[0].value.n == iou.rows[0].value.n == 6  # type: ignore[union-attr]
    # Scored against another reference, a run is no partner.
    rows[0]["target_mask"] = encode_mask(~decode_mask(Rle(**rows[0]["target_mask"]))).model_dump()
    (two / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="different reference masks"):
        open_sources([one, two])


def test_what_is_no_run_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        open_sources([tmp_path])
    empty = tmp_path / "empty"
    shutil.copytree(folder, empty)
    (empty / "results.jsonl").write_text("")
    with pytest.raises(InputError, match="nothing to report"):
        open_sources([empty])


def test_curves_of_calibration_have_intervals(folder: Path) -> None:
    results = read_run(folder).results
    section = calibration_section(summarise(results, max_steps=8), results)
    assert section is not None
    points = section.blocks[0].series[0].points  # type: ignore[union-attr]
    assert points and all(p.value.n == p.size and 0 <= p.value.value <= 1 for p in points)  # type: ignore[operator]
    assert all(p.value.num_clusters and p.value.unit and p.value.is_few for p in points)
    low, high = np.array(selective_band(results, [0.25, 0.5, 1.0])).T
    assert (low <= high).all() and (low >= 0).all() and (high <= 1).all()
    assert selective_band([], [0.5]) == []

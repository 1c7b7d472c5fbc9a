"""Pages of runs: which are shown, what they say, and what a resumed run does with those that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ibisagent.rewards import load_rubric
from ibisagent.train.rl.advantages import episode_advantages
from ibisagent.train.watch.pages import INDEX, PageWriter, chosen_runs
from ibisagent.types import Case
from sample_episodes import (
    HOSTILE,
    absent_episode,
    click_episode,
    failed_episode,
    mini_image,
    mini_mask,
    refine_episode,
    shifted,
)

IMAGE = mini_image("dsb2018_000_000")
TARGET = mini_mask("dsb2018_000_000__uppermost-nucleus")
RUBRIC = load_rubric("ibis")


def run(episode: Any, target: Any, sibling: int, key: str = "scene-1", instruction: str = "Outline it.") -> Any:
    prompt = SimpleNamespace(case=Case(IMAGE, instruction, case_id=key, target="nucleus"), target=target, key=key)
    breakdown = RUBRIC.score(episode, target)
    return SimpleNamespace(prompt=prompt, sibling=sibling, episode=episode, breakdown=breakdown, context=None)


@pytest.fixture(scope="module")
def rollouts() -> list[Any]:
    """Three groups of two: they differ much, not at all, a little; and one whose tool failed."""
    good = click_episode(IMAGE, TARGET, "Outline it.", "nucleus")
    off = click_episode(IMAGE, shifted(TARGET, -12), "Outline it.", "nucleus")
    near = click_episode(IMAGE, shifted(TARGET, -1), "Outline it.", "nucleus")
    broken = failed_episode(IMAGE, TARGET)
    return [
        run(absent_episode(IMAGE), None, 0, "alike"), run(absent_episode(IMAGE), None, 1, "alike"),
        run(near, TARGET, 0, "near"), run(good, TARGET, 1, "near"),
        run(good, TARGET, 0, "far"), run(off, TARGET, 1, "far"),
        run(broken, TARGET, 0, "failed"), run(broken, TARGET, 1, "failed"),
    ]  # fmt: skip


def shown(found: Sequence[Any]) -> list[tuple[str, str, int]]:
    return [(s.rollout.prompt.key, s.which, s.rollout.sibling) for s in found]


def test_the_groups_that_differ_most_come_first(rollouts: list[Any]) -> None:
    found = list(chosen_runs(rollouts, 9))
    assert shown(found) == [
        ("far", "best", 0), ("far", "worst", 1), ("near", "best", 1), ("near", "worst", 0),
        ("alike", "alike", 0), ("failed", "failed", 0),
    ]  # fmt: skip
    assert shown(list(chosen_runs(rollouts, 3))) == shown(found)[:3]
    wanted = episode_advantages([r.breakdown.total for r in rollouts], 2, "group")
    assert [s.advantage for s in found[:2]] == pytest.approx([float(a) for a in wanted[4:6]])
    assert found[-1].advantage is None and found[-2].advantage == 0.0
    assert list(chosen_runs([], 3)) == []


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)
    assert found is not None
    return json.loads(found.group(1))


def test_pages_say_what_was_earned_for_what(rollouts: list[Any], tmp_path: Path) -> None:
    PageWriter(tmp_path / "pages", 25, 3, RUBRIC)(0, rollouts)
    folder = tmp_path / "pages" / "update-000000"
    assert sorted(p.name for p in folder.iterdir()) == ["1-best.html", "1-worst.html", "2-best.html"]
    text = (folder / "1-worst.html").read_text()
    breakdown = rollouts[5].breakdown
    assert f'<dt>total</dt><dd dir="auto">{breakdown.total:.3f}</dd>' in text
    gain, weight = breakdown.parts["gain"], RUBRIC.weights["gain"]
    assert f"{gain:.3f} × {weight:.3g} = {gain * weight:.3f}" in text
    assert '<dt>false positive</dt><dd dir="auto">does not apply</dd>' in text
    for value in RUBRIC.turn_rewards(breakdown):
        assert f"<dt>Reward</dt><dd>{value:+.3f}</dd>" in text
    assert "2 of 2 (worst)" in text
    data = data_of(folder / "1-worst.html")
    from ibisagent.rle import Rle, decode_mask

    mask = decode_mask(Rle(size=TARGET.shape, counts=data["masks"][data["reference"]]))
    assert np.array_equal(mask, TARGET)
    assert 'id="reference"' in text


def test_the_index_lists_them_newest_first(rollouts: list[Any], tmp_path: Path) -> None:
    writer = PageWriter(tmp_path, 10, 2, RUBRIC)
    for update in range(0, 26, 5):
        writer(update, rollouts)
    text = (tmp_path / "index.html").read_text()
    assert [int(n) for n in re.findall(r'<section id="update-(\d+)"', text)] == [20, 10, 0]
    links = re.findall(r'href="([^"]+)"', text)
    assert len(links) == 6 and all((tmp_path / link).is_file() for link in links)
    assert not re.search(r"https?://|<script|url\(", text) and text.count("data:image/jpeg;base64,") == 6
    best = json.loads((tmp_path / INDEX).read_text())["entries"][-2]
    parts = [value for value in best["parts"].values() if value is not None]
    assert sum(parts) == pytest.approx(best["reward"])
    assert f'<td class="total">{best["reward"]:.3f}</td>' in text
    assert not list(tmp_path.rglob("*.tmp"))


def test_updates_that_come_in_strides_are_not_missed(rollouts: list[Any], tmp_path: Path) -> None:
    writer = PageWriter(tmp_path, 25, 1, RUBRIC)
    for update in range(0, 100, 4):  # four updates from each batch
        writer(update, rollouts)
    assert sorted(p.name for p in tmp_path.glob("update-*")) == [f"update-{n:06d}" for n in (0, 28, 52, 76)]


def test_a_resumed_run_goes_on_with_the_index(rollouts: list[Any], tmp_path: Path) -> None:
    first = PageWriter(tmp_path, 10, 1, RUBRIC)
    for update in range(25):
        first(update, rollouts)
    again = PageWriter(tmp_path, 10, 1, RUBRIC)
    for update in range(15, 31):  # the checkpoint was older than the last pages
        again(update, rollouts)
    entries = json.loads((tmp_path / INDEX).read_text())["entries"]
    assert [entry["update"] for entry in entries] == [0, 10, 20, 30]
    (tmp_path / INDEX).write_text("{")
    PageWriter(tmp_path, 10, 1, RUBRIC)(40, rollouts)
    assert [entry["update"] for entry in json.loads((tmp_path / INDEX).read_text())["entries"]] == [40]


def test_texts_are_escaped(tmp_path: Path) -> None:
    episode = refine_episode(IMAGE, TARGET)
    PageWriter(tmp_path, 1, 1, RUBRIC)(0, [run(episode, TARGET, 0, HOSTILE, HOSTILE + "\ud800")])
    text = (tmp_path / "index.html").read_text()
    assert "<script" not in text and "pwned" in text and "<img src=x" not in text


def test_a_full_disk_does_not_end_a_training(
    rollouts: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pages").write_text("in the way")
    writer = PageWriter(tmp_path / "pages", 1, 1, RUBRIC)
    writer(0, rollouts)
    writer(1, rollouts)
    said = capsys.readouterr().err
    assert said.startswith("ibisagent: no episode pages: ") and said.count("\n") == 1

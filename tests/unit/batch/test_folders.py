"""Output folders: all or nothing, and nothing of those who were killed."""

from __future__ import annotations

from pathlib import Path

from ibisagent.batch.folders import fill_folder


def test_scratch_of_a_process_that_was_killed_goes_and_of_one_at_work_stays(tmp_path: Path) -> None:
    left = tmp_path / ".ibisagent-killed"
    left.mkdir()
    (left / "mask.dcm").write_text("half")
    with fill_folder(tmp_path, ["a.txt"]) as first:
        assert not left.exists()
        (first / "a.txt").write_text("first")
        with fill_folder(tmp_path, ["b.txt"]) as second:
            assert first.is_dir()
            (second / "b.txt").write_text("second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]

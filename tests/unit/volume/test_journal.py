"""The journal of a run: what it gives back, and to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibisagent.errors import InputError
from ibisagent.volume.journal import Journal
from ibisagent.volume.record import Visit

RUN = {"instruction": "the tumour", "config": {"scan_slices": 3}}


def visit(kind: str, index: int, carried_from: int | None = None) -> Visit:
    return Visit(kind=kind, plane="axial", index=index, carried_from=carried_from, score=index / 8)  # type: ignore[arg-type]


def write(path: Path) -> list[Visit]:
    made = [visit("scan", 2), visit("key", 4), visit("carry", 5, 4)]
    journal = Journal(path, RUN)
    for one in made:
        assert journal.take(one.kind, "axial", one.index, one.carried_from) is None
        journal.add(one)
    journal.close()
    return made


def test_visits_come_back_in_their_order(tmp_path: Path) -> None:
    made = write(tmp_path / "j")
    again = Journal(tmp_path / "j", dict(reversed(RUN.items())))  # the order of settings means nothing
    assert again.num_kept == 3
    assert [again.take(v.kind, "axial", v.index, v.carried_from) for v in made] == made
    assert again.take("carry", "axial", 6, 5) is None
    again.add(visit("carry", 6, 5))
    again.close()
    assert Journal(tmp_path / "j", RUN).num_kept == 4


def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    write(tmp_path / "j")
    data = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(data[:-9])
    journal = Journal(tmp_path / "j", RUN)
    assert journal.num_kept == 2
    journal.add(visit("carry", 5, 4))
    journal.close()
    assert (tmp_path / "j").read_bytes() == data


def test_a_run_that_goes_another_way_uses_nothing_more(tmp_path: Path) -> None:
    write(tmp_path / "j")
    journal = Journal(tmp_path / "j", RUN)
    assert journal.take("scan", "axial", 2) is not None
    assert journal.take("key", "axial", 9) is None
    assert journal.take("carry", "axial", 5, 4) is None
    journal.add(visit("key", 9))
    journal.close()
    again = Journal(tmp_path / "j", RUN)  # what was given up is no longer between what the next start needs
    assert again.num_kept == 2
    assert again.take("scan", "axial", 2) is not None and again.take("key", "axial", 9) is not None
    again.close()


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j", RUN)
    first.add(visit("scan", 2))
    with pytest.raises(InputError, match="another process"):
        Journal(tmp_path / "j", RUN)
    first.close()
    assert Journal(tmp_path / "j", RUN).num_kept == 1


@pytest.mark.parametrize("began", [False, True])
def test_a_journal_that_this_start_began_can_be_discarded(tmp_path: Path, began: bool) -> None:
    if began:
        write(tmp_path / "j")
    journal = Journal(tmp_path / "j", RUN)
    journal.add(visit("scan", 2))
    journal.discard()
    assert (tmp_path / "j").exists() is began


def test_another_run_is_refused_and_kept(tmp_path: Path) -> None:
    write(tmp_path / "j")
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(InputError, match="another run"):
        Journal(tmp_path / "j", {**RUN, "instruction": "the lung"})
    assert (tmp_path / "j").read_bytes() == before
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path / "no" / "j", RUN)


def test_without_a_file_nothing_is_kept() -> None:
    journal = Journal(None, RUN)
    journal.add(visit("scan", 1))
    assert journal.take("scan", "axial", 1) is None
    journal.close()

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.corpus.decisions import MAX_NOTE_CHARS, Decision, Decisions, append_decision
from ibisagent.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
DECISIONS = st.builds(
    Decision,
    trajectory_id=st.sampled_from(["a", "b", "c/d:1", "ü \u2028 x"]),
    decision=st.sampled_from(["accept", "reject", "undecided"]),
    note=TEXT,
    who=TEXT,
)


def say(name: str, decision: str, note: str = "", who: str = "") -> Decision:
    return Decision.model_validate({"trajectory_id": name, "decision": decision, "note": note, "who": who})


@given(st.lists(DECISIONS, max_size=12))
def test_the_last_line_holds_and_files_come_back(tmp_path_factory: pytest.TempPathFactory, lines: list) -> None:
    path = tmp_path_factory.mktemp("decisions") / "decisions.jsonl"
    path.touch()
    for line in lines:
        append_decision(path, line)
    held = Decisions.read(path)
    expected = {line.trajectory_id: line for line in lines}
    assert {line.trajectory_id: line for line in held} == expected
    assert held.rejected_ids == {name for name, line in expected.items() if line.decision == "reject"}
    assert held.accepted_ids == {name for name, line in expected.items() if line.decision == "accept"}
    held.write(path)
    assert Decisions.read(path) == held
    assert len(path.read_bytes().splitlines()) >= len(held)


def test_a_line_is_the_documented_json(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    append_decision(path, say("t1", "reject", "mask leaks into the chest wall"))
    append_decision(path, say("t2", "accept", who="Dr A"))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == [
        {"trajectory_id": "t1", "decision": "reject", "note": "mask leaks into the chest wall"},
        {"trajectory_id": "t2", "decision": "accept", "note": "", "who": "Dr A"},
    ]


def test_undecided_takes_a_decision_back() -> None:
    held = Decisions([say("t", "reject", "blurred"), say("t", "undecided", "look again")])
    assert held.rejected_ids == frozenset() and held.accepted_ids == frozenset()
    found = held.get("t")
    assert found is not None and found.note == "look again"
    assert held.get("other") is None


def test_merge_and_conflicts() -> None:
    first = Decisions([say("a", "accept"), say("b", "reject"), say("c", "accept")])
    second = Decisions([say("a", "reject"), say("b", "reject"), say("d", "accept")])
    both = first.merge(second)
    assert both.rejected_ids == {"a", "b"} and both.accepted_ids == {"c", "d"} and len(both) == 4
    assert first.conflicts(second) == ["a"] == second.conflicts(first)
    assert first.accepted_ids == {"a", "c"}  # merging changes neither


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a decision"),
        (b'{"trajectory_id": "t"}', "decision: Field required"),
        (b'{"trajectory_id": "t", "decision": "maybe"}', "decision"),
        (b'{"trajectory_id": "", "decision": "accept"}', "trajectory_id"),
        (b'{"trajectory_id": "t", "decision": "accept", "notes": "misspelt"}', "notes"),
        (b'{"trajectory_id": "t", "decision": "accept", "note": "\xff"}', "not UTF-8"),
        (b'{"trajectory_id": "t", "decision": "accept", "note": "\\ud800"}', "note"),
        (b"[" * 100_000, "not"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"trajectory_id": "t", "decision": "accept"}\n\n' + line + b"\n")
    with pytest.raises(InputError, match="line 3") as caught:
        Decisions.read(path)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Decisions.read(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        Decisions.read(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        append_decision(tmp_path / "no" / "d.jsonl", say("t", "accept"))
    (tmp_path / "empty.jsonl").touch()
    assert len(Decisions.read(tmp_path / "empty.jsonl")) == 0


def test_a_line_without_an_end_is_not_glued_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"trajectory_id": "t", "decision": "accept"}')
    append_decision(path, say("u", "reject"))
    held = Decisions.read(path)
    assert held.accepted_ids == {"t"} and held.rejected_ids == {"u"}


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.jsonl"
    append_decision(path, say("t", "accept"))
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    with pytest.raises(InputError, match="disk is full"):
        append_decision(path, say("u", "reject"))
    assert path.read_bytes() == before


def _append_many(path: str, name: str) -> None:
    for number in range(25):
        append_decision(path, say(f"{name}{number}", "reject", "x" * MAX_NOTE_CHARS))


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(str(path), name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert Decisions.read(path).rejected_ids == {f"{name}{number}" for name in "ab" for number in range(25)}

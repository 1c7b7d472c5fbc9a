from __future__ import annotations

import os

import pytest

from ibisagent.batch.study import Study
from ibisagent.batch.workers import crew
from ibisagent.errors import InputError
from sample_jobs import DyingJob

STUDIES = [Study(name, name, name, "x") for name in "abcd"]


@pytest.mark.slow
def test_a_process_that_dies_takes_one_study_with_it() -> None:
    with crew(DyingJob("o"), num_workers=2) as workers:
        assert workers.facts == {"policy": "nano"}
        rows = {study.id: row for study, row in workers.work(STUDIES)}
    assert {name: row["outcome"] for name, row in rows.items()} == {"a": "done", "b": "error", "c": "done", "d": "done"}
    assert "exit code 9" in rows["b"]["error"] and os.getpid() not in {row.get("worker") for row in rows.values()}


@pytest.mark.slow
def test_models_that_do_not_load_end_it() -> None:
    with pytest.raises(InputError, match="no policy 'none'"), crew(DyingJob("o", policy="none"), num_workers=2):
        raise AssertionError("nobody may work")


def test_one_worker_is_this_process() -> None:
    with crew(DyingJob("o")) as workers:
        assert [row["worker"] for _, row in workers.work(STUDIES[:1])] == [os.getpid()]

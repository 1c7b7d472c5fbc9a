from __future__ import annotations

import os

import pytest

from ibisagent.errors import InputError, ToolError
from ibisagent.evaluate.ray_workers import gpus_of
from ibisagent.evaluate.workers import agreed, chunks, crew
from sample_players import Fake


def test_rows_of_an_image_stay_together_and_batches_are_filled() -> None:
    assert chunks(Fake(), range(8), 1) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert chunks(Fake(), [0, 2, 3, 8, 1], 1) == [[0, 2], [3], [8], [1]]
    assert chunks(Fake(), range(8), 4) == [[0, 1, 2, 3, 4, 5], [6, 7]]
    same = Fake()
    same.name_of_image = lambda position: "one"  # type: ignore[method-assign]
    made = chunks(same, range(40), 1)
    assert [position for part in made for position in part] == list(range(40))
    assert max(map(len, made)) == 16, "one image with many rows is shared out"


def test_this_process_alone() -> None:
    with crew(Fake()) as workers:
        assert workers.facts == {"policy": "fake"} and workers.circumstances["pid"] == os.getpid()
        ended = list(workers.play([4, 5]))
    assert [e.position for e in ended] == [4, 5] and ended[0].picture.shape == (2, 3, 3)  # type: ignore[union-attr]


def test_two_processes_play_every_row_once_and_send_each_picture_once() -> None:
    with crew(Fake(), num_workers=2) as workers:
        assert workers.facts == {"policy": "fake"} and workers.circumstances["pid"] != os.getpid()
        ended = list(workers.play(range(24)))
    assert sorted(e.position for e in ended) == list(range(24))
    by_image = {n: [e for e in ended if e.position // 3 == n] for n in range(8)}
    for together in by_image.values():
        assert len({e.result.error for e in together}) == 1, "one worker plays the rows of one image"
        assert sum(e.picture is not None for e in together) == 1
    assert all(isinstance(e.picture, bytes) and e.picture[:4] == b"\x89PNG" for e in ended if e.picture is not None)


@pytest.mark.parametrize(
    "player, error, words",
    [
        (Fake(cannot_load=True), InputError, "no such policy"),
        (Fake(own_facts=True), InputError, r"the workers differ in weights: [0-9]+ and [0-9]+; give all"),
        (Fake(fails_at=2), ToolError, "RuntimeError: a fault of the model"),
        (Fake(dies_at=2), ToolError, r"died \(exit code 7\); run the same command again"),
    ],
)
def test_a_worker_that_fails_or_dies_is_one_line(player: Fake, error: type[Exception], words: str) -> None:
    seen = []
    with pytest.raises(error, match=words), crew(player, num_workers=2) as workers:
        for ended in workers.play(range(3)):
            seen.append(ended.position)
    assert seen == ([] if error is InputError else [0, 1]), "what had ended was handed on"


def test_other_packages_are_other_workers() -> None:
    told = [({"policy": "x"}, {"batch": 1, "packages": {"torch": version}}) for version in ("2.1", "2.1", "2.2")]
    assert agreed(told[:2]) == told[0]
    with pytest.raises(InputError, match="differ in packages"):
        agreed(told)


@pytest.mark.parametrize(
    "device, gpus, needed",
    [(None, 8, 0), ("cpu", 8, 0), ("mps", 8, 0), ("cuda:1", 8, 1), ("cuda", 0, 1), ("auto", 8, 1), ("auto", 0, 0)],
)
def test_gpus_of_an_actor(device: str | None, gpus: int, needed: int) -> None:
    assert gpus_of(device, {"CPU": 4.0, "GPU": float(gpus)} if gpus else {"CPU": 4.0}) == needed

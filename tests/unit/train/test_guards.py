"""How a training is stopped."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from ibisagent.train.guards import FailureWatch, StopOnSignal, TrainingError


@pytest.mark.parametrize(("every", "stops_at"), [(1, 3), (2, 4), (4, 4)])
def test_a_stop_waits_for_the_end_of_what_several_steps_share(every: int, stops_at: int) -> None:
    stop = StopOnSignal(every)
    asked = 2
    for step in range(1, 9):
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        stop.on_step_end(None, SimpleNamespace(global_step=step), control)
        assert stop.stopped == control.should_save == control.should_training_stop == (step == stops_at)
        if stop.stopped:
            return
        if step == asked:
            stop._hear(signal.SIGINT, None)
    pytest.fail("it never stopped")


def test_a_second_signal_stops_at_once() -> None:
    stop = StopOnSignal()
    stop._hear(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop._hear(signal.SIGINT, None)


def test_only_batches_in_a_row_without_a_whole_run_end_a_training(tmp_path: Path) -> None:
    def play(*shares: float) -> None:
        watch = FailureWatch(tmp_path)
        for share in shares:
            watch.note(share, [None, "the tool\nis gone"])

    play(1.0, 1.0, 0.99, 1.0, 1.0)
    play(1.0, 1.0, math.nan, 1.0)  # nothing was acted on: a batch of questions
    with pytest.raises(TrainingError, match=r"in 3 batches in a row every run failed \(the tool is gone\); mend"):
        play(0.5, 1.0, 1.0, 1.0)
    with pytest.raises(TrainingError, match="every run failed; mend that first; there is no checkpoint yet"):
        FailureWatch(tmp_path, most=1).note(1.0, [None])

"""How a training is stopped."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from ibisagent.train.guards import StopOnSignal


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

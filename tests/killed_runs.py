"""Programs that are killed at a random moment (SIGKILL: nothing can be saved any more)."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def kill_at_random(command: Sequence[str], first_checkpoint: Path, environment: Mapping[str, str]) -> None:
    """Start a training, and kill it up to half a second after its first checkpoint is whole."""
    run = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not (first_checkpoint / "trainer_state.json").exists():
        assert run.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.02)
    delay = random.uniform(0, 0.5)
    time.sleep(delay)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, f"it ended before it was killed, {delay:.2f} s after its first checkpoint"

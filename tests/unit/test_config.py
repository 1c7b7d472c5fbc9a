from __future__ import annotations

import pytest
from pydantic import ValidationError

from ibisagent.config import RolloutConfig


def test_defaults_are_the_command_lines() -> None:
    config = RolloutConfig()
    assert (config.max_steps, config.seed, config.max_repeated_actions, config.history) == (8, 0, 3, True)


@pytest.mark.parametrize("change", [{"max_steps": 0}, {"seed": -1}, {"max_seconds": 0}, {"max_step": 3}])
def test_impossible_settings_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        RolloutConfig(**change)  # type: ignore[arg-type]

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.train.watch.history import moving_mean, read_history


def test_values_by_update(rl_run, sft_run: Path) -> None:
    history = read_history(rl_run("a", 9))
    assert history.name == "a" and history.is_rl
    steps, values = history.series("steps")
    assert steps.tolist() == list(range(1, 10)) and (values == 4.0).all()
    steps, values = history.series("refusal/right")
    assert steps.tolist() == [3, 6, 9] and values.tolist() == [1.0] * 3  # what does not apply is no nought
    assert len(history.series("never logged")[0]) == 0
    sft = read_history(sft_run / "log.jsonl")
    assert sft.name == "sft" and not sft.is_rl
    assert sft.series("eval_loss")[0].tolist() == [10, 20]


def test_half_a_last_line_is_passed_over(rl_run) -> None:
    folder = rl_run("a", 5)
    for rest in ('{"step": 6, "rew', '{"step"', '"', "7"):
        text = "".join(line + "\n" for line in (folder / "log.jsonl").read_text().splitlines()[:5])
        (folder / "log.jsonl").write_text(text + rest)
        assert read_history(folder).series("reward")[0].tolist() == [1, 2, 3, 4, 5]


def test_later_figures_of_an_update_count(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 5}\n\n{"step": 2, "loss": 4}\n{"step": 2, "loss": 3}\n')
    assert read_history(tmp_path).values == {"loss": {1: 5.0, 2: 3.0}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"step": 1, "loss": 2}\n{"step": 2, "lo\n{"step": 3, "loss": 2}\n', "line 2"),
        ('{"loss": 2}\n', "line 1"),
        ('[1]\n{"step": 3, "loss": 2}\n', "line 1"),
        ("", "no figures yet"),
        ('{"step": 1, "reward": null, "flag": true, "loss": NaN}\n', "no figures yet"),
    ],
)
def test_damage_is_said_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_history(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no log\.jsonl"):
        read_history(tmp_path)
    with pytest.raises(InputError, match="there is no run"):
        read_history(tmp_path / "nowhere")


def test_moving_mean() -> None:
    values = np.array([0.0, 3.0, 6.0, 3.0, 0.0])
    assert np.allclose(moving_mean(values, 1), values)
    assert np.allclose(moving_mean(values, 3), [1.5, 3.0, 4.0, 3.0, 1.5])
    assert np.allclose(moving_mean(values, 99), 2.4)
    constant = np.full(30, 0.7)
    assert np.allclose(moving_mean(constant, 7), constant)

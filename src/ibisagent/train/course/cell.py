"""One cell of the ablation: a row and a seed, from what is shared to a JSON file.

How to run::

    python -m ibisagent.train.course.cell --row sft+rl --seed 0

What cells share (corpora, base and SFT of a seed) is made by the first that needs it and found by the others. A cell
that is finished with these settings is left alone; one that was interrupted goes on from its newest checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from ibisagent.errors import InputError
from ibisagent.train.config import load_config
from ibisagent.train.course.config import GymConfig
from ibisagent.train.course.stages import Row, cell_name, row_named
from ibisagent.train.runs import say

__all__ = ["CellConfig", "is_finished", "main", "run_cell"]


class CellConfig(GymConfig):
    """A cell: the gym's settings, a row, a seed."""

    row: str
    """Row of a table: base, sft, reflection, rl, sft+rl, all, reward-none, reward-click …; or corpora, those alone."""
    seed: int = Field(default=0, ge=0)
    """Of weights, order and sampling."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one cell.

    Parameters
    ----------
    argv
        Options without the program's name; None takes those of the process.

    Returns
    -------
    int
        0, or 130 if it was stopped by Ctrl-C (the same command goes on).

    Raises
    ------
    InputError
        If a setting cannot be used.
    """
    return run_cell(load_config(CellConfig, argv, "cell", "One cell of the ablation at gym scale."))


def is_finished(config: GymConfig, row: str, seed: int) -> bool:
    """Whether a cell's file is there and was made with these settings."""
    path = config.results / f"{cell_name(row, seed)}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found.get("config_sha256") == config.sha256)


def run_cell(config: CellConfig) -> int:
    """Make a cell; returns and raises as :func:`main`."""
    from ibisagent.train.course.exam import figures, images_of, take_exam
    from ibisagent.train.course.gym import open_exam

    clock = _Clock()
    if config.row != "corpora" and is_finished(config, config.row, config.seed):
        say(f"{cell_name(config.row, config.seed)}: finished already")
        return 0
    maker = _Maker(config, clock)
    with clock("corpora"):
        maker.corpora()
    if config.row == "corpora":
        return 0
    row = row_named(config.row)
    try:
        model = maker.model(row)
    except _Stopped:
        return 130
    with clock("exam"):
        exam = open_exam(config)
        found, images = take_exam(config, model, exam), images_of(exam)
    told = {
        "row": row.name,
        "table": row.table,
        "seed": config.seed,
        "reward": row.reward,
        "figures": figures(found, images),
        "runs": {
            "iou": [round(float(s.iou or 0.0), 4) for s in found["present"]],
            "steps": [s.num_steps for s in found["present"]],
            "image": images["present"],
        },
        "training": maker.told,
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()},
        "seconds_own": _own(clock.seconds, maker.told[row.name].get("wall")),
        "cpu_seconds": {name: round(value, 1) for name, value in clock.cpu.items()},
        "cpu_seconds_own": _own(clock.cpu, maker.told[row.name].get("cpu")),
        "threads": _threads(),
        "commit": _commit(),
        "config_sha256": config.sha256,
        "config": config.content,
    }
    _write(config.results / f"{cell_name(row.name, config.seed)}.json", told)
    iou = told["figures"]["iou"]  # type: ignore[index]
    say(
        f"{cell_name(row.name, config.seed)}: IoU {iou['value']:.3f} {iou['ci95']}, {told['seconds_own']} s of its own "
        f"({told['cpu_seconds_own']} of all cores)"
    )
    return 0


def _own(now: dict[str, float], training: float | None) -> float | None:
    """Seconds of a cell's own training, whenever that was, and of its exam; None where they were not noted."""
    return None if training is None else round(now["exam"] + training, 1)


class _Stopped(Exception):
    """A training was stopped by a person."""


class _Clock:
    """Seconds by part, of the wall clock and of all cores together; the latter say what a cell costs on a busy machine.

    What was found and not made has no entry.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began, used = time.perf_counter(), sum(os.times()[:4])  # with children that have ended
        try:
            yield
        finally:
            self.seconds[part] = time.perf_counter() - began
            self.cpu[part] = sum(os.times()[:4]) - used


class _Maker:
    """Makes what is missing: corpora, and the model of a row after those that it begins with."""

    def __init__(self, config: CellConfig, clock: _Clock) -> None:
        self.config, self.clock = config, clock
        self.told: dict[str, Any] = {}

    def corpora(self) -> None:
        """Write the gym's corpora, unless they are there."""
        from ibisagent.train.course.gym import write_corpora

        done = self.config.corpora / "done"
        if not done.is_file():
            write_corpora(self.config)
            done.touch()

    def model(self, row: Row) -> Path:
        """Folder of the model of a row."""
        start = None if row.start is None else self.model(row_named(row.start))
        out = self.config.run_folder(row.name, row.part, self.config.seed)
        note = out / "course.json"
        if not note.is_file():
            with self.clock(row.name):
                facts = self._make(row, start, out)
            spent = {"wall": round(self.clock.seconds[row.name], 1), "cpu": round(self.clock.cpu[row.name], 1)}
            _write(note, {**facts, **spent})
        self.told[row.name] = json.loads(note.read_text(encoding="utf-8"))
        return out / "model"

    def _make(self, row: Row, start: Path | None, out: Path) -> dict[str, Any]:
        if row.part == "base":
            from ibisagent.train.course.base import make_base

            return make_base(self.config, self.config.seed, out / "model")
        if start is None:
            raise InputError(f"the row '{row.name}' names nothing to begin with")
        code = self._rl(row, start, out) if row.part == "rl" else self._sft(row, start, out)
        if code:
            raise _Stopped
        kept = ("steps", "loss", "token_accuracy", "conversations", "updates", "runs", "last_updates", "seconds")
        found = json.loads((out / "result.json").read_text(encoding="utf-8"))
        return {name: found[name] for name in kept if name in found}

    def _sft(self, row: Row, start: Path, out: Path) -> int:
        from ibisagent.train.sft.config import SftConfig
        from ibisagent.train.sft.run import train

        c = self.config
        return train(
            SftConfig(
                model=str(start),
                corpus=(str(c.corpora / "train"),),
                out=out,
                resume=True,
                reflection=row.part == "reflection",
                freeze_vision=False,
                max_pixels=None,
                max_length=2048,
                learning_rate=c.sft_learning_rate,
                warmup=0.05,
                max_steps=c.sft_steps,
                per_device_batch=c.batch,
                global_batch=c.batch,
                bf16=False,
                workers=1 if c.sft_steps > 20 else 0,
                seed=c.seed,
                device="cpu",
                report_to=(),
                save_steps=100,
                keep_checkpoints=1,
            )
        )

    def _rl(self, row: Row, start: Path, out: Path) -> int:
        from ibisagent.train.rl.config import RlConfig
        from ibisagent.train.rl.run import train

        c = self.config
        runs = c.rl_prompts * c.group_size
        return train(
            RlConfig(
                model=str(start),
                out=out,
                resume=True,
                prompts=(f"corpus:{c.corpora / 'train'}?table=rl&split=train",),
                segmenter=c.segmenter,
                reward=row.reward or "ibis",
                num_updates=c.rl_updates,
                prompts_per_update=c.rl_prompts,
                group_size=c.group_size,
                micro_batch=min(32, runs) if runs % min(32, runs) == 0 else runs,
                max_steps=c.max_steps,
                max_new_tokens=c.max_new_tokens,
                max_context=2048,
                max_pixels=None,
                sampler_batch=64,
                loss="dapo",
                epsilon_high=0.28,
                learning_rate=c.rl_learning_rate,
                schedule="linear",
                temperature=c.rl_temperature,
                beta=c.rl_beta,
                num_places=c.rl_places,
                place_weight=c.rl_place_weight,
                freeze_vision=False,
                seed=c.seed,
                device="cpu",
                save_updates=10,
                keep_checkpoints=1,
                page_updates=0,
                report_to=(),
            )
        )


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _commit() -> str | None:
    """Of the working tree that this code lies in; with a plus where the training code differs from it."""
    where = Path(__file__).parents[1]  # train/
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=where, capture_output=True, text=True)
        changed = subprocess.run(["git", "status", "--porcelain", "."], cwd=where, capture_output=True, text=True)
    except OSError:
        return None
    return None if head.returncode else head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _write(path: Path, content: dict[str, Any]) -> None:
    from ibisagent.rendering.png import write_atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic((json.dumps(content, indent=1) + "\n").encode(), path)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        sys.exit(main())
    except InputError as error:
        say(f"ibisagent: error: {error}")
        sys.exit(2)

"""What nano learns from, on disk: shards of trajectories, and of corrections of its own runs."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ibisagent.engine.language.instructions import Stage, draw_instruction
from ibisagent.engine.reasoning.terse import answer_text, thought_text, where_text
from ibisagent.engine.splits import development_images
from ibisagent.errors import InputError
from ibisagent.train.nano_expert import correct, synthesize
from ibisagent.train.nano_scenes import SceneSource
from ibisagent.train.nano_trajectories import SYSTEM_PROMPT, Trajectory, read_shards, shard_file, write_shard

__all__ = ["SHARD", "SYSTEM_PROMPT", "claim", "read", "source", "texts", "training_scenes", "write", "write_part"]

SHARD = 25
"""Trajectories a file: what is lost at most when the writing is interrupted."""


def texts(source: SceneSource) -> list[str]:
    """Texts that the tokenizer is trained on: instructions, thoughts, answers, observations."""
    rng = np.random.default_rng(0)
    said = [SYSTEM_PROMPT] * 20
    observations = [
        "The new mask is shown in green.",
        "The mask did not change.",
        "There is no mask now.",
        "The mask is empty now.",
        "The given mask is shown in green.",
        "The reply was not carried out: there is nothing to undo.",
    ]
    for name, homes in sorted(source.homes.items()):
        for i in range(60):
            modality = sorted(homes)[i % len(homes)]
            stage: Stage = "refine" if i % 3 == 0 else "start"
            said.append(draw_instruction(name, modality, rng, stage=stage, library="core").text)
        for kind in ("start", "missed", "excess", "undo", "discard", "fits", "rough", "absent"):
            for _ in range(3):
                thought = thought_text(kind, name, where_text(float(rng.random()), float(rng.random())))
                said.append(f"<think>{thought}</think><action>Positive Point (0.5000, 0.5000)</action>")
                said.append(f"<think>{thought}</think><action>Negative Point (0.5000, 0.5000)</action>")
        for verdict in ("found", "absent", "uncertain"):
            answer = f"{verdict.capitalize()}: {answer_text(verdict, name)}"
            said.append(f"</think><action>Terminate</action><answer>{answer}</answer>")
        said += ["</think><action>Undo</action>", "</think><action>Discard</action>"]
    return said + observations * 60


def _train_rows(cases: Path) -> list[tuple[str, str, str]]:
    """(image, group, target) of a case list's training rows."""
    try:
        rows = [json.loads(line) for line in cases.read_text(encoding="utf-8").splitlines()]
        return [(r["image"], r["group"], r["target"]) for r in rows if r["split"] == "train"]
    except OSError as error:
        raise InputError(f"--cases: cannot read {cases}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--cases: {cases} is no case list: {type(error).__name__}: {error}") from None


def source(a: argparse.Namespace, **options: Any) -> SceneSource:
    """The scenes of a recipe's options; see :func:`training_scenes`."""
    return training_scenes(a.cases, seed=a.seed, all_images=a.all_images, instances=a.instances, **options)


def training_scenes(cases: Path, *, seed: int, all_images: bool = False, **options: Any) -> SceneSource:
    """The scenes that training may see: those of the training split without the development split.

    Parameters
    ----------
    cases
        A mini-format case list.
    seed
        Of all draws.
    all_images
        Whether the development split may be seen too.
    options
        Of :class:`~ibisagent.train.nano_scenes.SceneSource`.

    Raises
    ------
    InputError
        If the list cannot be read.
    """
    apart = development_images(_train_rows(cases))
    return SceneSource(cases, seed=seed, leave_out=() if all_images else apart, **options)


def claim(a: argparse.Namespace) -> None:
    """Say in ``OUT/made_with.json`` what the shards of this run are made with, or check that it is the same.

    Raises
    ------
    InputError
        If the case list cannot be read, or the folder's shards were made with other options.
    """
    _train_rows(a.cases)
    cases = hashlib.sha256(a.cases.read_bytes()).hexdigest()
    now = {"seed": a.seed, "cases_sha256": cases, "all_images": a.all_images, "instances": a.instances}
    a.out.mkdir(parents=True, exist_ok=True)
    path = a.out / "made_with.json"
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(now) + "\n", encoding="utf-8")
        temporary.replace(path)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    other = [f"{k} {before.get(k)} and not {v}" for k, v in now.items() if before.get(k) != v]
    if other:
        raise InputError(f"{a.out} belongs to another run, with {', '.join(other)}: choose another --out")


def write(options: Sequence[str], processes: int, kind: str) -> bool:
    """Write all shards of a kind (``"trajectories"`` or ``"corrections"``) in processes of their own.

    Parameters
    ----------
    options
        Of the recipe's command line.
    processes
        How many.
    kind
        See above.

    Returns
    -------
    bool
        Whether all went well; if not, a line on stderr says so.
    """
    command = [sys.executable, "-m", "ibisagent.train.nano", *options, "--kind", kind]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [subprocess.Popen([*command, "--part", f"{k}/{processes}"], env=env) for k in range(processes)]
    codes = [worker.wait() for worker in workers]  # of all, so that none is left running
    if any(codes):
        print(f"ibisagent: error: writing the {kind} failed; see above", file=sys.stderr)
        return False
    return True


def write_part(a: argparse.Namespace) -> None:
    """Write one process's share of the shards; those that are there stay."""
    from ibisagent.policies.nano import make
    from ibisagent.segmenters.litemedsam import LiteMedSamSegmenter
    from ibisagent.train.segmenter import load_checkpoint

    torch.set_num_threads(1)
    part, parts = (int(v) for v in a.part.split("/"))
    own = a.kind == "corrections"
    folder = a.out / a.kind
    segmenter = LiteMedSamSegmenter(clicknet=load_checkpoint(a.segmenter_weights) if a.segmenter_weights else None)
    scenes = source(a, absent_share=0.0)
    policy = make(str(a.out / "model"), device="cpu") if own else None
    # Scenes that no trajectory was made of.
    first = math.ceil(a.num_trajectories / SHARD) * SHARD if own else 0
    for shard in range(part, math.ceil((a.num_corrections if own else a.num_trajectories) / SHARD), parts):
        if shard_file(folder, shard).exists():
            continue
        started = time.perf_counter()
        items = []
        for i in range(first + shard * SHARD, first + (shard + 1) * SHARD):
            rng = np.random.default_rng([a.seed, 3, i])
            scene = scenes.scene(i)
            items.append(
                synthesize(scene, segmenter, rng) if policy is None else correct(scene, segmenter, policy, rng)
            )
        write_shard(folder, shard, items)
        seconds = (time.perf_counter() - started) / SHARD
        print(f"{a.kind}, shard {shard}: {seconds:.2f} s each", file=sys.stderr, flush=True)


def read(out: Path, num_trajectories: int, num_corrections: int) -> list[Trajectory]:
    """Trajectories and corrections of a run; the corrections' ``kind_of_case`` says what they are.

    Parameters
    ----------
    out
        Folder of the run.
    num_trajectories, num_corrections
        How many of each, rounded up to whole shards.
    """
    wanted = (("trajectories", num_trajectories), ("corrections", num_corrections))
    return [t for kind, number in wanted for t in read_shards(out / kind, math.ceil(number / SHARD))]

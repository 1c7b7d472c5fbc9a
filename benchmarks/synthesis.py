"""How fast trajectories are made: the engine against a straightforward loop, and Ray against plain processes.

    python benchmarks/synthesis.py                       # default diet, 2 workers, 2 cores
    python benchmarks/synthesis.py --preset box_first    # a box first: the dear encoder of LiteMedSAM is in play
    python benchmarks/synthesis.py --plain               # one trajectory a target, as the paper's code makes them

*Straightforward*: one process on all cores; for each target the image is read and encoded, every click of every
trajectory is predicted by the plain network with nothing kept between clicks, and the distance transform runs over the
whole image. It makes clicks and nothing else: no thoughts, no messages, no files. It runs as plain Python runs it,
with the memory settings that ours has (``ibisagent.memory``), and once more on one thread, for the clicks to compare.
``--kept`` gives the loop the segmenter's own savings (kept click planes, weights laid out once), so that the rest
shows alone.
*Engine*: ``ibisagent synthesize`` as a user runs it, with the thoughts, the messages and the Parquet files. A build of
every third image is timed too, so that the start of its processes cancels. Clicks are compared, trajectory by
trajectory. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ibisagent.engine.builder.build import synthesize
from ibisagent.engine.builder.config import SynthesisConfig, load_config
from ibisagent.engine.builder.plan import make_plan
from ibisagent.engine.builder.unit import rng_for
from ibisagent.engine.corpus.reader import Corpus

MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Settings of glibc that keep freed memory, as :mod:`ibisagent.memory` does."""


def settings(a: argparse.Namespace) -> SynthesisConfig:
    more: dict[str, Any] = {}
    if a.plain:
        names = ("self_correction", "mismatched_mask", "corrupted_mask", "right_stop", "absent", "deceptive")
        more["proportions"] = dict.fromkeys(names, 0.0)
    sources = (f"mini:{a.cases}", f"phantoms:{a.num_phantoms}")
    return load_config(sources, a.preset, None, splits=("train",), shard_images=4, segmenter=a.segmenter, **more)


def straightforward(a: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the loop and the clicks of every trajectory, in this process."""
    from ibisagent import clicks as module
    from ibisagent.actions import ClickAction
    from ibisagent.clicks import squared_depth
    from ibisagent.engine.expert import Expert
    from ibisagent.engine.scenarios import Dropped, Stage, make_walk
    from ibisagent.engine.walk import Subject
    from ibisagent.registry import make_segmenter

    def deepest_point(region: Any) -> tuple[int, int]:
        y, x = np.unravel_index(int(np.argmax(squared_depth(region))), region.shape)
        return int(x), int(y)

    module.deepest_point = deepest_point
    config = settings(a)
    segmenter, expert = make_segmenter(config.segmenter), Expert(config.expert)
    if not a.kept and hasattr(segmenter, "_network"):
        segmenter._network = lambda count: segmenter._clicknet
    found: dict[str, Any] = {}
    samples = chosen(a, config)
    warm = samples[0].reader()
    segmenter.encode(warm.image)
    started = time.perf_counter()
    for sample in samples:
        key = f"{sample.source}/{sample.key}"
        for name in sample.reader().masks:
            labelled = sample.reader()
            mask, once = labelled.masks[name], _EncodedOnce(segmenter, labelled.image, not a.kept)
            if not config.min_pixels <= mask.sum() <= config.max_share * mask.size:
                continue
            others = tuple(m for other, m in labelled.masks.items() if other != name)
            draws = rng_for(config.seed, key, name, "sft", "scenarios").random(len(config.proportions))
            for scenario, draw in zip(sorted(config.proportions), draws, strict=True):
                if scenario == "absent" or draw >= config.proportions[scenario]:
                    continue
                subject = Subject(labelled.image, name, mask, others)
                stage = Stage(subject, expert, once, lambda k=key, n=name: rng_for(config.seed, k, n, "expert"))
                try:
                    walk = make_walk(scenario, stage, config.filters, rng_for(config.seed, key, name, scenario))
                except Dropped:
                    continue
                found[f"{key}|{name}|{scenario}"] = [
                    m.action.model_dump() for m in walk.moves if isinstance(m.action, ClickAction)
                ]
    return {"seconds": time.perf_counter() - started, "clicks": found}


class _EncodedOnce:
    """A segmenter that encodes one image once; every prompt goes through, `plain` ones with nothing kept."""

    def __init__(self, segmenter: Any, image: Any, plain: bool) -> None:
        self.name, self.capabilities = segmenter.name, segmenter.capabilities
        self.weights_sha256, self._segmenter, self._plain = segmenter.weights_sha256, segmenter, plain
        self._embedding = segmenter.encode(image)

    def predict(self, embedding: Any, prompts: Any) -> Any:
        if self._plain and hasattr(embedding, "said"):
            embedding.said = None
        return self._segmenter.predict(embedding, prompts)

    def encode(self, image: Any) -> Any:
        return self._embedding


def chosen(a: argparse.Namespace, config: SynthesisConfig) -> list[Any]:
    """Every so many-th sample of mini, and all phantoms."""
    samples = make_plan(config).samples
    return [s for s in samples if s.source == "mini"][:: a.stride] + [s for s in samples if s.source != "mini"]


def engine(a: argparse.Namespace, executor: str, workers: int) -> dict[str, Any]:
    """Seconds of a whole build without what a third of it costs as well, and the clicks of every trajectory."""
    config = settings(a)
    samples = chosen(a, config)
    few = samples[::3]  # the same mix as all of them
    folder = Path(tempfile.mkdtemp(prefix="synthesis-"))
    seconds = {}
    for name, part in (("few", few), ("all", samples)):
        started = time.perf_counter()
        with only(part):
            synthesize(config, folder / name, executor=executor, num_workers=workers)
        seconds[name] = time.perf_counter() - started
    clicks = {}
    for row in Corpus(folder / "all").rows("sft"):
        actions = [json.loads(step["action"]) for step in row["steps"]]
        key = f"{row['source']}/{row['sample']}|{row['target']}|{row['scenario']}"
        clicks[key] = [action for action in actions if action["kind"] == "click"]
    shutil.rmtree(folder)
    # What both builds pay (the start of processes, the card) cancels; the rest is by image.
    each = (seconds["all"] - seconds["few"]) / (len(samples) - len(few))
    return {
        "seconds": each * len(samples),
        "seconds_with_start": seconds["all"],
        "images": len(samples),
        "clicks": clicks,
    }


@contextmanager
def only(samples: list[Any]) -> Iterator[None]:
    """Builds plan these samples alone."""
    from ibisagent.engine.builder import build as module
    from ibisagent.engine.builder import plan as plans

    keep = {(s.source, s.key) for s in samples}
    whole = plans.make_plan

    def part(config: SynthesisConfig) -> Any:
        plan = whole(config)
        kept = [s for s in plan.samples if (s.source, s.key) in keep]
        return plans.Plan(plans._cut(kept, config.shard_images), plan.faults, plan.names_by_modality)

    module.make_plan = part
    try:
        yield
    finally:
        module.make_plan = whole


def subprocess_run(arguments: list[str], **env: str) -> dict[str, Any]:
    """This file in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env={**os.environ, **env}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cases", type=Path, default=Path("data/mini/cases.jsonl"))
    p.add_argument("--preset", default="ibis")
    p.add_argument("--plain", action="store_true", help="one trajectory a target")
    p.add_argument("--kept", action="store_true", help="the loop has the segmenter's own savings too")
    p.add_argument("--segmenter", default="litemedsam")
    p.add_argument("--stride", type=int, default=4, help="use every n-th image of mini's training split")
    p.add_argument("--num-phantoms", type=int, default=22)
    p.add_argument("--repeats", type=int, default=1)
    p.add_argument("--ray", action="store_true", help="also compare Ray with two workers to two processes")
    p.add_argument("--role", choices=["straightforward", "engine", "ray"], help=argparse.SUPPRESS)
    a = p.parse_args()
    roles: dict[str, Callable[[], dict[str, Any]]] = {
        "straightforward": lambda: straightforward(a),
        "engine": lambda: engine(a, "processes", 2),
        "ray": lambda: engine(a, "ray", 2),
    }
    if a.role:
        json.dump(roles[a.role](), sys.stdout)
        return 0
    own = sys.argv[1:]
    kept = [word for word in own if word != "--ray"]
    rounds: list[dict[str, float]] = []
    same = True
    for _ in range(a.repeats):
        plain = subprocess_run([*kept, "--role", "straightforward"])
        tuned = subprocess_run([*kept, "--role", "straightforward"], **MEMORY)
        ours = subprocess_run([*kept, "--role", "engine"])
        # On one thread, as the engine's workers run: sums in another order move a mask by a pixel now and then.
        single = subprocess_run([*kept, "--role", "straightforward"], OMP_NUM_THREADS="1", **MEMORY)
        theirs, mine = single["clicks"], {k: v for k, v in ours["clicks"].items() if "|absent" not in k}
        dropped = set(theirs) - set(mine)  # a thought that never passed the verifier
        same = same and set(mine) <= set(theirs) and all(theirs[key] == mine[key] for key in mine)
        times = {"straightforward": plain["seconds"], "tuned": tuned["seconds"], "engine": ours["seconds"]}
        times["engine_with_start"] = ours["seconds_with_start"]
        if a.ray:
            ray = subprocess_run([*kept, "--role", "ray"])
            times["ray"], times["ray_with_start"] = ray["seconds"], ray["seconds_with_start"]
            same = same and ray["clicks"] == ours["clicks"]
        rounds.append(times)
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    result = {
        "preset": a.preset,
        "plain": a.plain,
        "loop_keeps": a.kept,
        "segmenter": a.segmenter,
        "images": ours["images"],
        "trajectories": len(mine),
        "same_clicks": same,
        "without_a_thought": len(dropped),
        "seconds": {name: round(value, 1) for name, value in medians.items()},
        "speedup": round(medians["straightforward"] / medians["engine"], 2),
        "speedup_against_tuned": round(medians["tuned"] / medians["engine"], 2),
        "images_per_second": round(ours["images"] / medians["engine"], 2),
        "repeats": a.repeats,
    }
    if a.ray:
        result["ray_against_processes"] = round(medians["engine"] / medians["ray"], 3)
    print(json.dumps(result, indent=1))
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Pages of runs that a training learns from: every so many updates, the best and the worst sibling of some groups."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.rendering.png import write_atomic
from ibisagent.train.rl.advantages import Scale, episode_advantages

if TYPE_CHECKING:
    from ibisagent.rewards import Rubric
    from ibisagent.scoring import Scores
    from ibisagent.train.rl.play import Played, Rollout

__all__ = ["INDEX", "PageWriter", "chosen_runs"]

INDEX = "index.json"
"""What the index page lists, kept so that a resumed run goes on with it."""

THUMB_SIDE = 144


@dataclass(frozen=True, eq=False)
class _Shown:
    """A run that gets a page."""

    rollout: Rollout
    which: str
    group: int
    advantage: float | None
    rewards: tuple[float | None, ...]


class PageWriter:
    """Writes pages; give it to one process only.

    A page that cannot be written is no reason to end a training: the first failure is said in a line.

    Parameters
    ----------
    folder
        Where ``index.html`` and a folder for each of these updates go.
    every
        Updates between; the runs before the first update get pages too.
    number
        Most pages at a time.
    rubric
        What the runs were scored with.
    scale
        Of the advantages, as the training has it.
    """

    def __init__(self, folder: Path, every: int, number: int, rubric: Rubric, scale: Scale = "group") -> None:
        self.folder, self.every, self.number = folder, every, number
        self.rubric, self.scale = rubric, scale
        self._entries: list[dict[str, Any]] | None = None
        self._next = 0
        self._told = False

    def __call__(self, update: int, rollouts: Sequence[Played]) -> None:
        """Write pages of a batch, if it is time.

        Parameters
        ----------
        update
            Updates so far.
        rollouts
            Siblings one after another; answers to visual questions get no page.
        """
        from ibisagent.train.rl.question_run import Answered

        acted = [rollout for rollout in rollouts if not isinstance(rollout, Answered)]
        try:
            if self._entries is None:
                self._resume(update)
            if update >= self._next:
                self._next = (update // self.every + 1) * self.every
                self._write(update, acted)
        except OSError as error:
            if not self._told:
                print(f"ibisagent: no episode pages: {error}", file=sys.stderr, flush=True)
            self._told = True

    def _resume(self, update: int) -> None:
        """Keep what an interrupted run listed, up to the update that is played again now."""
        try:
            known = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))["entries"]
            self._entries = [entry for entry in known if entry["update"] < update]
        except (OSError, ValueError, KeyError, TypeError):
            self._entries = []
        last = max((entry["update"] for entry in self._entries), default=None)
        if last is not None:
            self._next = (last // self.every + 1) * self.every

    def _write(self, update: int, rollouts: Sequence[Rollout]) -> None:
        from ibisagent.scoring import score_episode
        from ibisagent.web.episode_page import write_episode_page
        from ibisagent.web.training_page import render_training_page

        assert self._entries is not None
        place = self.folder / f"update-{update:06d}"
        place.mkdir(parents=True, exist_ok=True)
        for shown in chosen_runs(rollouts, self.number, self.scale):
            run = shown.rollout
            name = f"{shown.group}-{shown.which}.html"
            scores = score_episode(run.episode, run.prompt.target)
            notes = self._notes(update, shown)
            write_episode_page(run.episode, run.prompt.case.image, place / name, scores, notes)
            self._entries.append(self._entry(update, shown, scores, f"{place.name}/{name}"))
        listing = {"schema_version": 1, "entries": self._entries}
        write_atomic((json.dumps(listing) + "\n").encode(), self.folder / INDEX)
        page = render_training_page(self._entries, self.rubric.names)
        write_atomic(page.encode("utf-8", "replace"), self.folder / "index.html")

    def _notes(self, update: int, shown: _Shown) -> Any:
        from ibisagent.web.episode_page import PageNotes

        run, found = shown.rollout, shown.rollout.breakdown
        reward = [("total", _number(found.total)), ("advantage", _number(shown.advantage, signed=True))]
        if found.excluded is not None:
            reward = [("not learnt from", found.excluded)]
        for name, value in found.parts.items():
            weight = self.rubric.weights[name]
            said = f"{value:.3f} × {weight:.3g} = {value * weight:.3f}" if value is not None else "does not apply"
            reward.append((name.replace("_", " "), said))
        others = ", ".join(_number(value) for value in shown.rewards)
        training = [
            ("updates so far", str(update)),
            ("case", run.prompt.key),
            ("sibling", f"{run.sibling + 1} of {len(shown.rewards)} ({shown.which})"),
            ("siblings' rewards", others),
        ]
        earned = self.rubric.turn_rewards(found) if found.excluded is None else ()
        by_step = [[("Reward", _number(value, signed=True))] for value in earned]
        by_step += [[]] * (len(run.episode.steps) - len(by_step))
        by_step.append([("Reward", _number(found.total)), ("Advantage", _number(shown.advantage, signed=True))])
        return PageNotes([("Reward", reward), ("Training", training)], by_step, run.prompt.target)

    def _entry(self, update: int, shown: _Shown, scores: Scores, file: str) -> dict[str, Any]:
        run, found = shown.rollout, shown.rollout.breakdown
        weights = self.rubric.weights
        return {
            "update": update,
            "file": file,
            "which": shown.which,
            "group": shown.group,
            "case": run.prompt.key,
            "target": run.prompt.case.target or "",
            "present": run.prompt.target is not None,
            "instruction": run.prompt.case.instruction,
            "reward": found.total,
            "advantage": shown.advantage,
            "parts": {name: None if value is None else value * weights[name] for name, value in found.parts.items()},
            "iou": scores.iou,
            "steps": scores.num_steps,
            "outcome": str(run.episode.outcome),
            "thumb": _thumb(run),
        }


def chosen_runs(rollouts: Sequence[Rollout], number: int, scale: Scale = "group") -> Iterator[_Shown]:
    """Best and worst sibling of the groups whose rewards differ most, at most `number` runs.

    Of a group whose siblings all earned the same one run is shown, of one whose runs all failed the first.
    """
    size = next((i for i, r in enumerate(rollouts) if i and r.sibling == 0), len(rollouts))
    totals = [rollout.breakdown.total for rollout in rollouts]
    if not rollouts:
        return
    advantages = episode_advantages(totals, size, scale)
    ranked = []
    for first in range(0, len(rollouts), size):
        known = [i for i in range(first, first + size) if totals[i] is not None]
        best = max(known, key=lambda i: totals[i] or 0.0, default=first)
        worst = min(known, key=lambda i: totals[i] or 0.0, default=first)
        spread = (totals[best] or 0.0) - (totals[worst] or 0.0) if known else -1.0
        ranked.append((-spread, first, best, worst))
    left = number
    for group, (minus, first, best, worst) in enumerate(sorted(ranked), 1):
        both = [(best, "best"), (worst, "worst")] if minus < 0 else [(best, "alike" if minus == 0 else "failed")]
        for place, which in both[:left]:
            advantage = None if totals[place] is None else float(advantages[place])
            yield _Shown(rollouts[place], which, group, advantage, tuple(totals[first : first + size]))
        left -= len(both[:left])
        if left <= 0:
            return


def _thumb(run: Rollout) -> str:
    """The image with the final mask and the reference, small, as an address that carries it."""
    import io

    import numpy as np
    import PIL.Image

    from ibisagent.rendering.marks import MASK, REFERENCE, draw_mask
    from ibisagent.rle import decode_mask
    from ibisagent.web.parts import data_uri

    image = run.prompt.case.image
    scale = THUMB_SIDE / max(image.width, image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = np.asarray(PIL.Image.fromarray(image.pixels).resize(size, PIL.Image.Resampling.LANCZOS))
    if run.prompt.target is not None:
        picture = draw_mask(picture, run.prompt.target, REFERENCE, tint=0.0, width=1.5)
    if run.episode.final_mask is not None:
        picture = draw_mask(picture, decode_mask(run.episode.final_mask), MASK, tint=0.3, width=1.2)
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, format="JPEG", quality=82)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _number(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "none"
    return f"{value:+.3f}" if signed else f"{value:.3f}"

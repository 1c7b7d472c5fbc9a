"""One plane of a volume from end to end: scan, key slices, masks carried on, slices visited again.

What follows from what: the scan says where the target shows, the best slices get whole runs, and each run's mask is
carried to its neighbours in both directions, up to half way to the next key slice. A carried mask that does not agree
with its neighbour, or no longer looks like the target, is shown to the policy (a revisit), while there are revisits
left; it may correct the mask or say that the target has ended. Without revisits a mask is given up where what it covers
looks foreign or has faded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.actions import TerminateAction
from ibisagent.config import RolloutConfig
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode, Outcome
from ibisagent.errors import ActionError, IbisError, PolicyError, ToolError
from ibisagent.metrics import dice
from ibisagent.policies.protocol import Policy
from ibisagent.rle import decode_mask, encode_mask
from ibisagent.rollout import run_episode, run_episodes
from ibisagent.segmenters.cache import EmbeddingCache
from ibisagent.segmenters.protocol import Segmenter, video_segmenter
from ibisagent.types import Case
from ibisagent.volume.carriers import Carrier, PromptCarrier, VideoCarrier
from ibisagent.volume.carrying import MIN_PIXELS, Look, doubt
from ibisagent.volume.config import Plane, VolumeConfig
from ibisagent.volume.journal import Journal
from ibisagent.volume.record import Visit
from ibisagent.volume.scan import between, key_candidates, longest_stretch, spread
from ibisagent.volume.slices_seen import SliceImages
from ibisagent.volume.targets import slice_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SCANS", "OutOfTime", "PlaneRun"]

SCANS = 4
"""How many times ``scan_slices`` are looked at before a target that did not show is absent."""
_SCAN_BATCH = 8
_KEY_TRIES = 3
"""Key slices on which the target may turn out to be absent before the run gives up."""


class OutOfTime(Exception):
    """The wall-clock budget is used up; what is drawn is kept."""


class PlaneRun:
    """One plane, worked through once.

    Parameters
    ----------
    images
        The plane's slices.
    instruction, policy, segmenter, config
        As :func:`ibisagent.volume.run.run_volume` takes them.
    journal
        Where visits are kept.
    on_visit
        Called with every visit as it is made.
    deadline
        ``time.perf_counter()`` at which to stop, or None.
    given
        Mask to refine by slice index, or None.

    Attributes
    ----------
    masks
        Accepted masks by slice index, ``bool`` (H, W) on the display.
    outcome, answer
        How the plane ended, and what the policy said of the (first) key slice.
    """

    def __init__(
        self,
        images: SliceImages,
        instruction: str,
        policy: Policy,
        segmenter: Segmenter,
        config: VolumeConfig,
        journal: Journal,
        on_visit: Callable[[Visit], None],
        deadline: float | None = None,
        given: dict[int, NDArray[np.bool_]] | None = None,
    ) -> None:
        self.images, self.instruction = images, instruction
        self.policy, self.segmenter, self.config = policy, segmenter, config
        self.masks: dict[int, NDArray[np.bool_]] = {}
        self.outcome: Outcome = Outcome.ABSENT
        self.answer = ""
        self._given = given or {}
        self._journal, self._on_visit, self._deadline = journal, on_visit, deadline
        self._cache = EmbeddingCache(segmenter)
        self._revisits = 0
        self._denied: set[int] = set()
        self._shown: tuple[int, int] | None = None  # first and last slice on which a scan by looking found it
        single = len(config.planes) == 1
        last = len(images) - 1
        self.first = min(config.first_slice or 0, last) if single else 0
        self.last = min(config.last_slice if single and config.last_slice is not None else last, last)

    def play(self) -> None:
        """Work the plane through.

        Raises
        ------
        OutOfTime
            If the budget is used up; :attr:`masks` holds what there is.
        PolicyError, ToolError
            If the policy or the segmenter fails.
        InputError
            If a slice cannot be read.
        """
        if self._given:
            self._refine()
            return
        candidates = self._scan()
        keys: list[tuple[int, Visit]] = []
        refused = 0
        for index in candidates:
            if len(keys) >= self.config.key_slices or refused >= _KEY_TRIES:
                break
            visit = self._act("key", index)
            if visit.is_absent:
                refused += 1
            else:
                keys.append((index, visit))
        if not keys:
            return
        self.outcome, self.answer = _said(keys[0][1])
        for index, visit in keys:
            assert visit.mask is not None
            self.masks[index] = decode_mask(visit.mask)
        for index, _ in keys:
            others = [other for other, _ in keys if other != index]
            for direction in (-1, 1):
                ahead = [other for other in others if (other - index) * direction > 0]
                stop = min(ahead, key=lambda other: abs(other - index)) if ahead else None
                self._carry_on(index, direction, stop)

    # -- the scan ------------------------------------------------------------------------------

    def _scan(self) -> list[int]:
        """Look over the range, and again between where nothing was found; candidates for runs."""
        indices = spread(self.first, self.last, self.config.scan_slices)
        seen: list[Visit] = []
        while indices:
            seen += self._scan_slices(indices)
            looked = self.config.scan == "look"
            if looked and (stretch := longest_stretch(seen)) is not None:
                seen += self._narrow(stretch, [visit.index for visit in seen if visit.is_absent])
                self._shown = longest_stretch(seen)
            self._denied = {visit.index for visit in seen if visit.is_absent}
            found = key_candidates(seen, self.config.key_slices, looked=looked)
            if found:
                return found
            gaps = between(self.first, self.last, [visit.index for visit in seen])
            left = SCANS * self.config.scan_slices - len(seen)
            indices = [gaps[i] for i in spread(0, len(gaps) - 1, left)] if gaps and left > 0 else []
        return []

    def _narrow(self, stretch: tuple[int, int], denied: list[int]) -> list[Visit]:
        """Look where the target begins and ends, by halves between the last slices with and without it."""
        visits: list[Visit] = []
        for inside, direction, bound in ((stretch[0], -1, self.first - 1), (stretch[1], 1, self.last + 1)):
            beyond = [i for i in denied if (i - inside) * direction > 0]
            outside = min(beyond, key=lambda i: abs(i - inside)) if beyond else bound
            while abs(outside - inside) > 1:
                visit = self._scan_slices([(inside + outside) // 2])[0]
                visits.append(visit)
                if visit.is_absent:
                    outside = visit.index
                else:
                    inside = visit.index
        return visits

    def _scan_slices(self, indices: list[int]) -> list[Visit]:
        visits: list[Visit] = []
        for start in range(0, len(indices), _SCAN_BATCH):
            batch = indices[start : start + _SCAN_BATCH]
            kept = []
            for index in batch:
                visit = self._journal.take("scan", self.images.plane, index)
                if visit is None:
                    break
                self._on_visit(visit)
                kept.append(visit)
            visits += kept
            left = batch[len(kept) :]
            if not left:
                continue
            self._check_time()
            started = time.perf_counter()
            cases = [self._case(index) for index in left]
            look = self.config.scan == "look"
            episodes = [self._look(case) for case in cases] if look else self._tap(cases)
            seconds = (time.perf_counter() - started) / len(left)
            for index, episode in zip(left, episodes, strict=True):
                visit = self._of_episode("scan", index, episode, None, seconds)
                visit.accepted = False
                self._made(visit)
                visits.append(visit)
        return visits

    def _tap(self, cases: list[Case]) -> list[Episode]:
        """The policy's first action on every slice, carried out."""
        settings = self.config.rollout.model_copy(update={"max_steps": 1})
        return run_episodes(cases, self.policy, self.segmenter, settings, max_live=_SCAN_BATCH)

    def _look(self, case: Case) -> Episode:
        """The policy's first reply, of which nothing is carried out but a Terminate."""
        env = self._environment(self.config.rollout)
        view = env.reset(case)
        if env.done:
            return env.episode
        try:
            reply = self.policy.act([view], self.config.rollout.seed)[0]
        except Exception as error:
            env.fail(error if isinstance(error, IbisError) else PolicyError(f"{type(error).__name__}: {error}"))
            return env.episode
        try:
            ends = isinstance(env.dialect.parse(reply.text).action, TerminateAction)
        except ActionError:
            ends = False
        if ends:
            env.step(reply)
        if not env.done:
            env.episode.unused_reply = reply.text
            env.stop()
        return env.episode

    # -- whole runs ----------------------------------------------------------------------------

    def _act(
        self,
        kind: Any,
        index: int,
        initial: NDArray[np.bool_] | None = None,
        carried_from: int | None = None,
        note: str = "",
    ) -> Visit:
        """A whole run on one slice, from its own or a given mask."""
        visit = self._journal.take(kind, self.images.plane, index, carried_from)
        if visit is not None:
            self._on_visit(visit)
            return visit
        self._check_time()
        started = time.perf_counter()
        case = self._case(index, initial)
        episode = run_episode(case, self.policy, self.segmenter, self.config.rollout)
        visit = self._of_episode(kind, index, episode, carried_from, time.perf_counter() - started)
        visit.note = note
        self._made(visit)
        return visit

    def _refine(self) -> None:
        """A given mask: the policy looks at its broadest slices, and where neighbours agree least."""
        self.masks = {i: mask for i, mask in self._given.items() if self.first <= i <= self.last}
        ranked = sorted(self.masks, key=lambda i: (-int(self.masks[i].sum()), i))
        keys = ranked[: self.config.key_slices]
        agreements = {i: dice(self.masks[i], self.masks[i - 1]) for i in self.masks if i - 1 in self.masks}
        doubted = [i for i in sorted(agreements, key=lambda i: (agreements[i], i)) if i not in keys]
        doubted = [i for i in doubted if agreements[i] < self.config.min_agreement][: self.config.max_revisits]
        for index in keys + doubted:
            kind = "key" if index in keys else "revisit"
            note = "a given mask" if index in keys else f"agreement {agreements[index]:.2f} with the slice before"
            visit = self._act(kind, index, self._given[index], note=note)
            if index == keys[0]:
                self.outcome, self.answer = _said(visit)
            if visit.is_absent or visit.mask is None:
                self.masks.pop(index, None)
            else:
                self.masks[index] = decode_mask(visit.mask)
        if not self.masks:
            self.outcome = Outcome.ABSENT

    def _case(self, index: int, initial: NDArray[np.bool_] | None = None) -> Case:
        return Case(self.images[index], self.instruction, initial, case_id=slice_id(self.images.plane, index))

    def _environment(self, settings: RolloutConfig) -> SegmentationEnv:
        return SegmentationEnv(
            self.segmenter, settings, dialect=self.policy.dialect, policy=self.policy, cache=self._cache
        )

    # -- from slice to slice -------------------------------------------------------------------

    def _carry_on(self, key: int, direction: int, stop: int | None) -> None:
        """Carry the key slice's mask on, half way to the key slice `stop` or to the end."""
        before = self.masks[key]
        look = Look(self.images[key].pixels, before)
        end = (self.last if direction > 0 else self.first) if stop is None else key + (stop - key) // 2
        carrier = self._carrier(key)
        for index in range(key + direction, end + direction, direction):
            if index in self.masks:  # another key slice's mask came here first
                return
            is_certain = stop is not None or self._is_shown(index)
            carried = self._carry(index, index - direction, before, look, carrier, is_certain)
            if carried is None:
                return
            before, look = carried
            self.masks[index] = before

    def _carry(
        self,
        index: int,
        former: int,
        before: NDArray[np.bool_],
        look: Look,
        carrier: Carrier,
        is_certain: bool,
    ) -> tuple[NDArray[np.bool_], Look] | None:
        """One slice further: its mask and how it looks, or None where the target ends.

        `is_certain` says that the target is known to be there: between two key slices, or where it was seen.
        """
        visit = self._journal.take("carry", self.images.plane, index, former)
        fresh = visit is None
        if visit is None:
            self._check_time()
            started = time.perf_counter()
            prediction = carrier.predict(index, former, before, look)
            mask = np.ascontiguousarray(prediction.mask)
            visit = Visit(kind="carry", plane=self._plane, index=index, carried_from=former, score=prediction.score)
            visit.mask = encode_mask(mask) if mask.any() else None
            visit.seconds = time.perf_counter() - started
        mask = decode_mask(visit.mask) if visit.mask is not None else np.zeros_like(before)
        pixels = self.images[index].pixels
        found = doubt(before, mask, look, pixels, self.config.min_agreement)
        reasons = [found.reason] if found.reason else []
        if index in self._denied:
            reasons.append("the scan did not find it here")
        is_nothing = int(mask.sum()) < MIN_PIXELS
        is_over = is_nothing or index in self._denied or (found.is_over and not is_certain)
        ask = bool(reasons) and not is_nothing and self._revisits < self.config.max_revisits
        if fresh:
            visit.agreement, visit.note = found.agreement, " and ".join(reasons)
            visit.is_absent = is_over and not ask
            visit.accepted = not (ask or is_over)
            self._made(visit)
        else:
            self._on_visit(visit)
        if not ask:
            return None if is_over else (mask, Look(pixels, mask))
        self._revisits += 1
        again = self._act("revisit", index, mask, former, f"asked again: {' and '.join(reasons)}")
        if again.is_absent or again.mask is None:
            return None
        if is_over and not again.has_acted:
            return None  # a nod is no evidence against what the slice shows
        mask = decode_mask(again.mask)
        carrier.corrected(index, mask)
        return mask, Look(pixels, mask)

    def _is_shown(self, index: int) -> bool:
        return self._shown is not None and self._shown[0] <= index <= self._shown[1]

    def _carrier(self, key: int) -> Carrier:
        video = video_segmenter(self.segmenter) if self.config.carry != "prompt" else None
        if video is not None:
            return VideoCarrier(video, self.images, key, self.masks[key])
        return PromptCarrier(self.segmenter, self._cache, self.images)

    # -- the record ----------------------------------------------------------------------------

    @property
    def _plane(self) -> Plane:
        return self.images.plane  # type: ignore[return-value]

    def _of_episode(self, kind: Any, index: int, episode: Episode, carried_from: int | None, seconds: float) -> Visit:
        if episode.outcome is Outcome.ERROR:
            failed_tool = (episode.error or "").startswith("ToolError")
            raise (ToolError if failed_tool else PolicyError)(f"slice {self.images.plane}:{index}: {episode.error}")
        mask = decode_mask(episode.final_mask) if episode.final_mask is not None else None
        drawn = mask is not None and bool(mask.any())
        looked = kind == "scan" and self.config.scan == "look"
        absent = episode.outcome is Outcome.ABSENT or (not drawn and not looked)
        step = episode.final_step
        return Visit(
            kind=kind,
            plane=self._plane,
            index=index,
            carried_from=carried_from,
            mask=episode.final_mask if drawn and not absent else None,
            score=episode.steps[step].segmenter_score if step is not None else None,
            is_absent=absent,
            episode=episode,
            seconds=seconds,
        )

    def _made(self, visit: Visit) -> None:
        self._journal.add(visit)
        self._on_visit(visit)

    def _check_time(self) -> None:
        if self._deadline is not None and time.perf_counter() >= self._deadline:
            raise OutOfTime


def _said(visit: Visit) -> tuple[Outcome, str]:
    """Outcome and answer of the run on a slice."""
    episode = visit.episode
    assert episode is not None and episode.outcome is not None
    return episode.outcome, episode.answer

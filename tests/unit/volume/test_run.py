"""The agent on small volumes: a bright block, region growing, the oracle or a policy of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ibisagent.actions import DIALECTS, TerminateAction, Turn
from ibisagent.episode import Outcome
from ibisagent.errors import InputError, PolicyError, ToolError
from ibisagent.grid import Grid
from ibisagent.io.volume import ArrayVoxels, Volume
from ibisagent.metrics import dice
from ibisagent.policies.oracle import OraclePolicy
from ibisagent.policies.protocol import Reply, View
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.volume.config import VolumeConfig
from ibisagent.volume.plane_run import SCANS, OutOfTime, PlaneRun
from ibisagent.volume.record import VolumeEpisode
from ibisagent.volume.run import run_volume
from ibisagent.volume.targets import SliceTargets
from sample_tracks import TrackingRules

SHAPE = (26, 22, 14)
GRID = Grid(SHAPE, ((-1.0, 0.0, 0.0, 0.0), (0.0, -1.0, 0.0, 0.0), (0.0, 0.0, 2.0, 0.0), (0.0, 0.0, 0.0, 1.0)))


def block(first: int = 4, last: int = 9) -> np.ndarray:
    """A block that gets smaller towards its last slice."""
    mask = np.zeros(SHAPE, bool)
    for n, k in enumerate(range(first, last + 1)):
        mask[6 + n // 2 : 18, 5 : 16 - n // 2, k] = True
    return mask


def volume_of(mask: np.ndarray) -> Volume:
    values = np.where(mask, 200, 20).astype(np.int16)
    return Volume(GRID, ArrayVoxels(values), "block.nii", "NIfTI", modality="MRI")


def play(mask: np.ndarray, segmenter: object = None, policy: object = None, **settings: object) -> VolumeEpisode:
    more = {
        k: settings.pop(k) for k in ("journal", "journal_key", "on_visit", "initial_mask", "window") if k in settings
    }
    config = VolumeConfig(**{"scan": "look", "scan_slices": 5, "max_revisits": 0, **settings})
    player = policy or OraclePolicy(SliceTargets(mask, GRID))
    more.setdefault("window", "0,255")
    return run_volume(volume_of(mask), "the block", player, segmenter or RulesSegmenter(), config, **more)  # type: ignore[arg-type]


class Words:
    """A policy that answers with what `say` returns for a view."""

    name = "words"
    weights_sha256 = None
    dialect = DIALECTS["plain"]

    def __init__(self, say: Callable[[View], Turn]) -> None:
        self.say, self.asked = say, 0

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        self.asked += len(views)
        return [Reply(self.dialect.format(self.say(view))) for view in views]


def oracle_turn(mask: np.ndarray) -> Callable[[View], Turn]:
    return OraclePolicy(SliceTargets(mask, GRID)).turn


def without_seconds(record: VolumeEpisode) -> dict[str, object]:
    data = record.model_dump(mode="json")

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in ("seconds", "seconds_total")}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(data)  # type: ignore[return-value]


@pytest.mark.parametrize("scan", ["look", "tap"])
@pytest.mark.parametrize("keys", [1, 2])
def test_a_block_is_found_whole(scan: str, keys: int) -> None:
    target = block()
    record = play(target, scan=scan, key_slices=keys)
    assert record.outcome is Outcome.DONE and record.end_reason == "terminate"
    assert dice(record.final_mask.decode(), target) > 0.96
    assert len([v for v in record.visits if v.kind == "key"]) == keys
    carried = [v for v in record.visits if v.kind == "carry"]
    assert {v.index for v in carried if v.accepted} | {v.index for v in record.visits if v.kind == "key"} == set(
        range(4, 10)
    )
    assert len({v.index for v in carried}) == len(carried)  # each slice once, also between two keys
    if scan == "look":
        assert len(record.clicked_slices) == keys
        assert not any(s.pixels_xy for v in record.visits if v.kind == "scan" for s in v.episode.steps)


def test_a_target_that_never_shows_is_absent_after_more_looks() -> None:
    record = play(np.zeros(SHAPE, bool), policy=OraclePolicy(SliceTargets(np.zeros(SHAPE, bool), GRID)))
    looked = [v.index for v in record.visits]
    assert record.outcome is Outcome.ABSENT and not record.final_mask.decode().any()
    assert sorted(looked) == list(range(14)) and all(v.is_absent for v in record.visits)
    assert "never showed on 14 slices" in record.answer


def test_a_large_volume_is_not_looked_at_everywhere() -> None:
    nothing = np.zeros(SHAPE, bool)
    record = play(nothing, policy=OraclePolicy(SliceTargets(nothing, GRID)), scan_slices=2)
    assert record.outcome is Outcome.ABSENT and len(record.visits) == SCANS * 2


def test_a_small_target_is_found_between_the_slices_of_the_first_look() -> None:
    target = block(6, 6)
    record = play(target, scan_slices=4)
    assert record.outcome is Outcome.DONE and dice(record.final_mask.decode(), target) > 0.95


@pytest.mark.parametrize("segmenter", [RulesSegmenter, TrackingRules])
def test_an_interrupted_run_goes_on_to_the_same_record(segmenter: Callable[[], object], tmp_path: Path) -> None:
    target = block()
    whole = play(target, segmenter(), key_slices=2)
    for after in range(1, len(whole.visits), 3):
        journal = tmp_path / f"j{after}"

        def stop(record: VolumeEpisode, after: int = after) -> None:
            if len(record.visits) == after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            play(target, segmenter(), key_slices=2, journal=journal, on_visit=stop)
        policy = Words(oracle_turn(target))
        policy.name = "oracle"
        again = play(target, segmenter(), policy, key_slices=2, journal=journal)
        assert without_seconds(again) == without_seconds(whole)
        kept = [v for v in whole.visits[:after] if v.episode is not None]
        replies = sum(len(v.episode.steps) or 1 for v in whole.visits if v.episode is not None)
        assert policy.asked < replies if kept else True


def test_revisits_ask_where_a_carried_mask_is_doubted() -> None:
    target = block()
    beside = target.copy()
    beside[6:18, 5:16, 10:13] = True  # what looks like more of the block is not the target

    def say(view: View) -> Turn:
        return oracle_turn(target)(view)

    values = np.where(beside, 200, 20).astype(np.int16)
    values[:, :, 10:13] = np.where(beside[:, :, 10:13], 120, 20)
    volume = Volume(GRID, ArrayVoxels(values), "b", "NIfTI", modality="MRI")
    config = VolumeConfig(scan="tap", scan_slices=3, max_revisits=3)
    record = run_volume(volume, "the block", Words(say), RulesSegmenter(), config, window="0,255")
    assert dice(record.final_mask.decode(), target) > 0.97
    again = [v for v in record.visits if v.kind == "revisit"]
    assert again and all(v.carried_from is not None and v.note for v in again)
    assert any(v.is_absent and v.index in (3, 10) for v in again)


def test_three_planes_vote() -> None:
    target = block()
    record = play(target, planes=("axial", "coronal", "sagittal"))
    assert record.outcome is Outcome.DONE and {v.plane for v in record.visits} == {"axial", "coronal", "sagittal"}
    assert dice(record.final_mask.decode(), target) > 0.97


def test_a_budget_of_time_keeps_what_is_drawn() -> None:
    record = play(block(), max_seconds=1e-9)
    assert (record.outcome, record.end_reason) == (Outcome.OUT_OF_STEPS, "max_seconds")
    assert not record.final_mask.decode().any() and "nothing is drawn" in record.answer


def test_a_plane_that_was_broken_off_takes_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(run: PlaneRun) -> None:
        if run.images.plane == "coronal":
            raise OutOfTime

    monkeypatch.setattr(PlaneRun, "_check_time", late)
    target = block()
    record = play(target, planes=("axial", "coronal", "sagittal"))
    assert (record.outcome, record.end_reason) == (Outcome.OUT_OF_STEPS, "max_seconds")
    assert dice(record.final_mask.decode(), target) > 0.96 and "nothing" not in record.answer


def test_a_damaged_slice_leaves_no_journal(tmp_path: Path) -> None:
    def damaged(record: VolumeEpisode) -> None:
        if record.visits[-1].kind == "carry":
            raise InputError("its pixels are damaged")  # as a slice that cannot be decoded

    with pytest.raises(InputError, match="damaged"):
        play(block(), journal=tmp_path / "j", on_visit=damaged)
    assert not (tmp_path / "j").exists()


def test_a_run_whose_time_was_over_goes_on_with_more(tmp_path: Path) -> None:
    target = block()
    late = play(target, max_seconds=1e-9, journal=tmp_path / "j")
    assert late.is_unfinished and not late.visits
    whole = play(target, max_seconds=60, journal=tmp_path / "j")
    assert whole.outcome is Outcome.DONE and not whole.is_unfinished
    with pytest.raises(InputError, match="another run"):
        play(target, journal=tmp_path / "j", journal_key="another target")


def test_a_range_of_slices_is_kept() -> None:
    target = block()
    record = play(target, first_slice=5, last_slice=7)
    mask = record.final_mask.decode()
    assert {v.index for v in record.visits} <= {5, 6, 7} and set(np.flatnonzero(mask.any(axis=(0, 1)))) == {5, 6, 7}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"first_slice": 14}, "axial:14 is outside"),
        ({"first_slice": 5, "last_slice": 4}, "is empty"),
        ({"first_slice": 1, "planes": ("axial", "coronal")}, "one plane"),
        ({"carry": "video"}, "no memory for video"),
    ],
)
def test_settings_that_cannot_serve(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        play(block(), **settings)


def test_a_given_mask_is_refined_where_it_is_worst() -> None:
    target = block()
    given = target.copy()
    given[:, :, 6] = False
    given[0:5, 0:4, 6] = True  # one slice is somewhere else
    record = play(target, initial_mask=given, max_revisits=2, key_slices=1)
    mask = record.final_mask.decode()
    assert dice(mask[:, :, 6], target[:, :, 6]) > 0.9 and record.outcome is Outcome.DONE
    assert [v.kind for v in record.visits] == ["key", "revisit", "revisit"] or [v.kind for v in record.visits] == [
        "key",
        "revisit",
    ]
    assert dice(mask, target) > dice(given, target)


def test_a_given_mask_of_nothing_is_absent_and_says_what_was_looked_at() -> None:
    record = play(np.zeros(SHAPE, bool), initial_mask=block())
    assert record.outcome is Outcome.ABSENT and not record.final_mask.decode().any()
    assert "slices of the given mask" in record.answer


def test_a_policy_that_fails_is_an_error_without_a_mask() -> None:
    def fail(view: View) -> Turn:
        if view.case.case_id == "axial:4":
            raise PolicyError("the server went away")
        return Turn(thought="no", action=TerminateAction(verdict="absent", answer="no"))

    record = play(block(), policy=Words(fail))
    assert record.outcome is Outcome.ERROR and record.final_mask is None
    assert record.error == "PolicyError: slice axial:4: PolicyError: the server went away"


def test_a_segmenter_that_fails_while_it_carries_is_an_error() -> None:
    class Breaks(RulesSegmenter):
        def predict(self, embedding: object, prompts: object) -> list[object]:  # type: ignore[override]
            if any(p.prior_mask is not None for p in prompts):  # type: ignore[attr-defined]
                raise RuntimeError("out of memory")
            return super().predict(embedding, prompts)  # type: ignore[arg-type,return-value]

    record = play(block(), segmenter=Breaks())
    assert record.outcome is Outcome.ERROR and record.final_mask is None
    assert "out of memory" in (record.error or "") and issubclass(ToolError, Exception)


def test_a_video_memory_carries_and_hears_of_corrections() -> None:
    target = block()
    segmenter = TrackingRules()
    record = play(target, segmenter, key_slices=1)
    assert dice(record.final_mask.decode(), target) > 0.8  # the double knows one size of a block
    assert segmenter.carried == [v.index for v in record.visits if v.kind == "carry"]

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ibisagent.actions import DIALECTS
from ibisagent.config import RolloutConfig
from ibisagent.episode import Episode, Outcome
from ibisagent.errors import PolicyError
from ibisagent.metrics import iou
from ibisagent.policies.oracle import OraclePolicy
from ibisagent.policies.protocol import Reply, View
from ibisagent.policies.scripted import ScriptedPolicy
from ibisagent.rle import decode_mask
from ibisagent.rollout import iter_episodes, run_episode, run_episodes
from ibisagent.segmenters.fake import FakeSegmenter
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Case, Image, Prediction

CLICK = "<think>t</think><action>Positive Point (0.6328, 0.4271)</action>"
FOUND = "<think>t</think><action>Terminate</action><answer>Found: it</answer>"


def copies(case: Case, num: int) -> list[Case]:
    return [replace(case, case_id=f"case{n}") for n in range(num)]


class Watcher:
    """A policy that notes its batches and fails for some cases."""

    name, dialect, weights_sha256 = "watcher", DIALECTS["plain"], None

    def __init__(self, bad: Sequence[str] = (), error: type[Exception] = PolicyError) -> None:
        self.bad, self.error = set(bad), error
        self.batches: list[list[str]] = []
        self.seeds: set[int] = set()

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        self.batches.append([v.case.case_id for v in views])
        self.seeds.add(seed)
        if self.bad & {v.case.case_id for v in views}:
            raise self.error("no")
        return [Reply(FOUND if v.episode.steps else CLICK) for v in views]


def test_oracle_solves_the_disc(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    seen: list[tuple[int, int]] = []
    policy = OraclePolicy({"disc": disc_target}, stop_iou=0.8)
    episode = run_episode(disc_case, policy, RulesSegmenter(), progress=lambda i, e: seen.append((i, len(e.steps))))
    assert episode.outcome is Outcome.DONE and episode.policy.name == "oracle"
    assert episode.final_mask is not None and iou(decode_mask(episode.final_mask), disc_target) >= 0.8
    assert seen == [(0, 1), (0, 2)]


def test_a_script_that_ends_with_the_budget_is_out_of_steps(disc_case: Case) -> None:
    script = [CLICK, CLICK.replace("0.6328", "0.6016")]
    episode = run_episode(disc_case, ScriptedPolicy(script), RulesSegmenter(), RolloutConfig(max_steps=2))
    assert episode.outcome is Outcome.OUT_OF_STEPS and episode.final_mask is not None


def test_a_script_that_ends_before_is_an_error(disc_case: Case) -> None:
    episode = run_episode(disc_case, ScriptedPolicy([CLICK]), RulesSegmenter())
    assert episode.outcome is Outcome.ERROR and episode.error is not None and "script" in episode.error


def test_batches_seed_and_order(disc_case: Case) -> None:
    policy = Watcher()
    episodes = run_episodes(copies(disc_case, 5), policy, RulesSegmenter(), RolloutConfig(seed=9), max_live=2)
    assert [e.case_id for e in episodes] == [f"case{n}" for n in range(5)]
    assert all(e.outcome is Outcome.DONE and e.seed == 9 for e in episodes)
    assert policy.batches[:3] == [["case0", "case1"], ["case0", "case1"], ["case2", "case3"]]
    assert policy.seeds == {9}


def test_batched_and_single_runs_are_the_same(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    def facts(episode: Episode) -> object:
        data = episode.model_dump(mode="json", exclude={"seconds_total"})
        for step in data["steps"]:
            step.pop("seconds")
        return data

    cases = copies(disc_case, 3)
    policy = OraclePolicy({c.case_id: disc_target for c in cases})
    together = run_episodes(cases, policy, RulesSegmenter())
    alone = [run_episode(case, policy, RulesSegmenter()) for case in cases]
    assert [facts(e) for e in together] == [facts(e) for e in alone]


def test_a_failing_case_does_not_stop_the_others(disc_case: Case) -> None:
    for error in (PolicyError, ZeroDivisionError):
        policy = Watcher(bad=["case1"], error=error)
        episodes = run_episodes(copies(disc_case, 3), policy, RulesSegmenter())
        assert [e.outcome for e in episodes] == [Outcome.DONE, Outcome.ERROR, Outcome.DONE]
        assert episodes[1].error is not None and episodes[1].error.startswith("PolicyError: ")


def test_a_wrong_number_of_replies_is_an_error(disc_case: Case) -> None:
    policy = Watcher()
    policy.act = lambda views, seed: []  # type: ignore[method-assign]
    episodes = run_episodes(copies(disc_case, 2), policy, RulesSegmenter())
    assert {e.outcome for e in episodes} == {Outcome.ERROR}


def test_a_failing_tool_fails_its_case_alone(disc_case: Case) -> None:
    good = Prediction(np.ones((disc_case.image.height, disc_case.image.width), bool))
    episodes = run_episodes(copies(disc_case, 3), Watcher(), FakeSegmenter([good, RuntimeError("x"), good]))
    assert [e.outcome for e in episodes] == [Outcome.DONE, Outcome.ERROR, Outcome.DONE]


def test_an_encoder_that_fails_fails_the_case(disc_case: Case) -> None:
    seen: list[int] = []
    episode = run_episode(
        disc_case, Watcher(), FakeSegmenter(encode_error=ValueError("x")), progress=lambda i, e: seen.append(i)
    )
    assert episode.outcome is Outcome.ERROR and seen == [0]


def test_one_image_is_encoded_once(disc_case: Case) -> None:
    mask = np.ones((disc_case.image.height, disc_case.image.width), bool)
    fake = FakeSegmenter([Prediction(mask)] * 4)
    other = Image(255 - disc_case.image.pixels, disc_case.image.geometry)
    cases = [*copies(disc_case, 3), replace(disc_case, image=other)]
    run_episodes(cases, Watcher(), fake, max_live=1)
    assert fake.encoded == [disc_case.image.sha256, other.sha256]


def test_cases_are_read_only_as_needed(disc_case: Case) -> None:
    taken: list[int] = []

    def source() -> Iterator[Case]:
        for index, case in enumerate(copies(disc_case, 6)):
            taken.append(index)
            yield case

    episodes = iter_episodes(source(), Watcher(), RulesSegmenter(), max_live=2)
    next(episodes)
    assert taken == [0, 1]
    assert len(list(episodes)) == 5 and taken == list(range(6))


def test_no_cases() -> None:
    assert run_episodes([], Watcher(), RulesSegmenter()) == []

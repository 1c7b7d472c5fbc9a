"""Whole episodes with language-model policies: the loop, the server, the records."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ibisagent.config import RolloutConfig
from ibisagent.episode import Episode, Outcome
from ibisagent.rollout import run_episode, run_episodes
from ibisagent.segmenters.rules import RulesSegmenter

pytest.importorskip("openai")

from ibisagent.policies.api import ApiPolicy

KEY = "sk-very-secret-0123456789"


def agent(request, num_clicks: int = 1) -> str:
    """A small agent: clicks the bright square, looks at what came back, stops."""
    turns = sum(message["role"] == "assistant" for message in request["messages"])
    if turns < num_clicks:
        return "<think>The square is bright.</think><action>Positive Point (0.3000, 0.3500)</action>"
    return "<think>It fits.</think><action>Terminate</action><answer>Found: the bright square.</answer>"


def test_an_episode_runs_over_http(chat_server, make_view, make_completion, decode_uri, tmp_path):
    chat_server.answer = lambda request, _: (200, make_completion(agent(request)))
    case = make_view().case
    policy = ApiPolicy("m", chat_server.url, api_key=KEY, max_retries=0)
    episode = run_episode(case, policy, RulesSegmenter(), RolloutConfig(max_steps=4))
    assert episode.outcome is Outcome.DONE
    assert episode.answer == "the bright square."
    assert (episode.num_steps, len(episode.steps)) == (1, 2)
    assert episode.steps[0].mask is not None
    assert [step.num_tokens for step in episode.steps] == [7, 7]
    assert episode.policy.name == "api:m"
    # The second request shows the mask that the first reply made.
    parts = [p for m in chat_server.requests[1]["messages"] if isinstance(m["content"], list) for p in m["content"]]
    first, second = (decode_uri(p["image_url"]["url"]) for p in parts if p["type"] == "image_url")
    np.testing.assert_array_equal(first, case.image.pixels)
    changed = (first != second).any(axis=2)
    assert changed[10, 10] and not changed[30, 40]
    # What was new in each request is in the record, images by hash; the prompt is what the episode says it was.
    assert [[m["role"] for m in step.messages] for step in episode.steps] == [["system", "user"], ["user"]]
    from ibisagent.hashing import text_hash

    assert text_hash(episode.steps[0].messages[0]["content"][0]["text"]) == episode.policy.system_prompt_sha256
    assert chat_server.requests[0]["messages"][0]["content"] == episode.steps[0].messages[0]["content"][0]["text"]
    episode.save(tmp_path / "episode.json")
    text = (tmp_path / "episode.json").read_text()
    assert KEY not in text and "base64" not in text
    assert Episode.load(tmp_path / "episode.json").steps[1].messages == json.loads(text)["steps"][1]["messages"]


def test_one_lost_request_costs_one_episode(chat_server, make_view, make_completion):
    def answer(request, _):
        said = json.dumps(request["messages"][1]["content"][0])
        return (
            (400, {"error": {"message": "too long"}}) if "number 2" in said else (200, make_completion(agent(request)))
        )

    chat_server.answer = answer
    cases = [make_view(case_id=f"c{i}").case for i in range(4)]
    for i, case in enumerate(cases):
        object.__setattr__(case, "instruction", f"Segment square number {i}.")
    policy = ApiPolicy("m", chat_server.url, max_retries=0)
    episodes = run_episodes(cases, policy, RulesSegmenter(), RolloutConfig(max_steps=3))
    assert [e.outcome for e in episodes] == [Outcome.DONE, Outcome.DONE, Outcome.ERROR, Outcome.DONE]
    assert "rejected the request (400): too long" in episodes[2].error
    assert episodes[2].final_mask is None
    assert len(chat_server.requests) == 2 * 3 + 1  # nothing was asked twice


def test_a_dead_server_is_the_outcome_error(make_view):
    policy = ApiPolicy("m", "http://127.0.0.1:9/v1", max_retries=0, timeout=2.0)
    episode = run_episode(make_view().case, policy, RulesSegmenter())
    assert episode.outcome is Outcome.ERROR
    assert "cannot reach 127.0.0.1:9" in episode.error
    assert episode.final_mask is None


def test_a_model_that_babbles_is_told_so_until_its_steps_are_used(make_view, make_vlm, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from ibisagent.policies.vlm import VlmPolicy

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    policy = VlmPolicy(make_vlm("qwen2_5_vl", tmp_path / "m"), device="cpu", max_new_tokens=6)
    cases = [make_view(case_id=f"c{i}", shade=40 * i).case for i in range(3)]
    config = RolloutConfig(max_steps=2)
    episodes = run_episodes(cases, policy, RulesSegmenter(), config)
    torch.set_num_threads(threads)
    assert [e.outcome for e in episodes] == [Outcome.OUT_OF_STEPS] * 3
    assert all(step.invalid is not None and step.num_tokens for e in episodes for step in e.steps)
    assert {e.policy.weights_sha256 for e in episodes} == {policy.weights_sha256}
    alone = [run_episode(case, policy, RulesSegmenter(), config) for case in cases]
    assert [[s.raw_text for s in e.steps] for e in alone] == [[s.raw_text for s in e.steps] for e in episodes]

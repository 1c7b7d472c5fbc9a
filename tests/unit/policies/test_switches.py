"""Runs without thoughts, history, or the mask on the image: what reaches the model, and what comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ibisagent.actions import DIALECTS, WITHOUT_THOUGHT, Click, ClickAction, Turn
from ibisagent.config import RolloutConfig
from ibisagent.episode import Episode
from ibisagent.errors import InputError
from ibisagent.messages import build_messages, new_messages, observation_text
from ibisagent.policies.oracle import OraclePolicy
from ibisagent.policies.protocol import View
from ibisagent.rendering import agent_overlay
from ibisagent.replay import replay
from ibisagent.rle import decode_mask
from ibisagent.rollout import run_episode
from ibisagent.segmenters.rules import RulesSegmenter

CLICK = "Positive Point (0.3000, 0.3500)</action>"


def switched(view: View, **switches: bool) -> View:
    return replace(view, episode=view.episode.model_copy(update=switches))


def texts(messages) -> list[str]:
    return [p["text"] for m in messages for p in m["content"] if p["type"] == "text"]


def images(messages) -> list[np.ndarray]:
    return [p["image"] for m in messages for p in m["content"] if p["type"] == "image"]


def test_thoughts_are_taken_out_of_the_history_and_nothing_else(make_view):
    view = make_view(num_steps=2)
    with_thoughts, without = (texts(build_messages(view, "S", thoughts=t)) for t in (True, False))
    assert "<think>It is bright.</think><action>" in with_thoughts[2]
    assert without[2] == with_thoughts[2].replace("It is bright.", "")
    assert [t for i, t in enumerate(without) if i not in (2, 4)] == [
        t for i, t in enumerate(with_thoughts) if i not in (2, 4)
    ]


@pytest.mark.parametrize("history", [True, False])
def test_without_overlay_every_image_is_bare_and_the_text_says_so(make_view, history):
    view = make_view(num_steps=2)
    mask = view.mask
    given = replace(view, case=replace(view.case, initial_mask=mask))
    shown = build_messages(given, "S", history)
    bare = build_messages(given, "S", history, overlay=False)
    pixels = view.case.image.pixels
    assert all(np.array_equal(image, pixels) for image in images(bare))
    assert any(np.array_equal(image, agent_overlay(pixels, mask)) for image in images(shown))
    assert not any("shown in green" in text for text in texts(bare))
    assert any("The new mask is not shown." in text for text in texts(bare))
    new = new_messages(given, "S", history, overlay=False)
    assert np.array_equal(images(new)[-1], pixels) and texts(new)[-1] == texts(bare)[-1]


def test_only_a_mask_that_is_there_is_said_not_to_be_shown(make_view):
    step = make_view(num_steps=1).episode.steps[0]
    gone = step.model_copy(update={"mask": None})
    assert observation_text(step, overlay=False) == "The new mask is not shown."
    assert observation_text(gone, overlay=False) == observation_text(gone) == "There is no mask now."


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_the_opening_is_the_beginning_of_a_turn_in_every_dialect(name):
    turn = Turn(thought="", action=ClickAction(clicks=(Click(x=0.3, y=0.35, positive=True),)))
    text = DIALECTS[name].format(turn)
    assert text.startswith(WITHOUT_THOUGHT) and DIALECTS[name].parse(text) == turn


def test_who_cannot_be_kept_from_thinking_says_so_at_once(make_view):
    case = make_view().case
    with pytest.raises(InputError, match="'oracle' cannot be kept from thinking"):
        run_episode(case, OraclePolicy({}), RulesSegmenter(), RolloutConfig(thoughts=False))


def test_a_server_that_goes_on_with_a_reply_is_given_its_beginning(chat_server, make_view, make_completion, tmp_path):
    pytest.importorskip("openai")
    from ibisagent.policies.api import ApiPolicy

    stop = "Terminate</action><answer>Found: it.</answer>"
    chat_server.answer = lambda request, n: (200, make_completion(stop if n else CLICK))
    case = make_view().case
    config = RolloutConfig(max_steps=3, thoughts=False, overlay=False)
    with pytest.raises(InputError, match="api:m"):
        run_episode(case, ApiPolicy("m", chat_server.url), RulesSegmenter(), config)
    assert not chat_server.requests
    episode = run_episode(case, ApiPolicy("m", chat_server.url, prefill=True), RulesSegmenter(), config)
    assert [step.raw_text for step in episode.steps] == [WITHOUT_THOUGHT + CLICK, WITHOUT_THOUGHT + stop]
    assert str(episode.outcome) == "done" and [step.thought for step in episode.steps] == ["", ""]
    for request in chat_server.requests:
        assert request["messages"][-1] == {"role": "assistant", "content": WITHOUT_THOUGHT}
        assert request["continue_final_message"] is True and request["add_generation_prompt"] is False
    assert "The new mask is not shown." in str(chat_server.requests[1]["messages"])
    episode.save(tmp_path / "e.json")
    again = Episode.load(tmp_path / "e.json")
    assert (again.thoughts, again.overlay, again.history) == (False, False, True)
    assert replay(again, case.image, RulesSegmenter()).matches
    assert decode_mask(again.final_mask).any()


def test_a_server_that_thinks_all_the_same_is_an_error(chat_server, make_view, make_completion):
    pytest.importorskip("openai")
    from ibisagent.policies.api import ApiPolicy

    chat_server.answer = lambda request, n: (200, make_completion(CLICK, reasoning_content="hm"))
    policy = ApiPolicy("m", chat_server.url, prefill=True)
    episode = run_episode(make_view().case, policy, RulesSegmenter(), RolloutConfig(thoughts=False))
    assert str(episode.outcome) == "error" and "let the model think" in episode.error


def test_an_old_record_was_made_with_thoughts_and_overlay(make_view):
    data = make_view().episode.model_dump(exclude={"thoughts", "overlay"})
    again = Episode.model_validate(data)
    assert again.thoughts and again.overlay


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "nano"])
def test_a_local_model_goes_on_after_an_empty_thought(make_view, make_vlm, tmp_path, monkeypatch, kind):
    torch = pytest.importorskip("torch")
    from ibisagent.policies.nano import WEIGHTS_DIR
    from ibisagent.policies.nano import make as make_nano
    from ibisagent.policies.vlm import VlmPolicy

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if kind == "nano":
            if not (WEIGHTS_DIR / "model.safetensors").is_file():
                pytest.skip("the embedded weights are not here")
            policy = make_nano(max_new_tokens=12)
        else:
            policy = VlmPolicy(make_vlm(kind, tmp_path / "m"), device="cpu", max_new_tokens=6)
        view = make_view(num_steps=1)
        quiet = switched(view, thoughts=False)
        chats = [policy.conversation.messages(v) for v in (view, quiet)]
        plain = policy.encode(chats)
        begun = policy.encode(chats, ["", WITHOUT_THOUGHT])
        ids = [i["input_ids"][0][i["attention_mask"][0].bool()].tolist() for i in (plain, begun)]
        assert ids[0] == ids[1], "without an opening the two ways to tensors agree"
        assert torch.equal(plain["pixel_values"], begun["pixel_values"])
        shown = policy.processor.tokenizer.decode(begun["input_ids"][1])
        assert shown.endswith(WITHOUT_THOUGHT)
        mixed = policy.act([view, quiet], 0)
        assert mixed[1].text.startswith(WITHOUT_THOUGHT)
        assert policy.act([quiet], 0)[0].text == mixed[1].text, "a batch of both kinds changes neither"
        assert policy.act([view], 0)[0].text == mixed[0].text
    finally:
        torch.set_num_threads(threads)

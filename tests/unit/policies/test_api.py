"""The api policy against a real HTTP server that speaks the chat-completions protocol."""

from __future__ import annotations

import logging
import sys
import threading

import numpy as np
import pytest

from ibisagent.errors import InputError, MissingExtraError, PolicyError
from ibisagent.policies.api import ApiPolicy, make
from ibisagent.policies.protocol import Policy
from ibisagent.rendering import agent_overlay

KEY = "sk-very-secret-0123456789"
GOOD = "<think>It is bright.</think><action>Positive Point (0.5000, 0.2500)</action>"

pytest.importorskip("openai")


def policy(server, **options):
    options.setdefault("max_retries", 0)
    options.setdefault("timeout", 10.0)
    return ApiPolicy("some-model", server.url, **options)


def test_a_first_turn_reaches_the_server_whole(chat_server, make_view, decode_uri):
    view = make_view()
    api = policy(chat_server, api_key=KEY, system_prompt="Be careful.", max_tokens=321)
    [reply] = api.act([view], seed=7)
    assert reply.text == GOOD
    assert (reply.num_prompt_tokens, reply.num_tokens) == (11, 7)
    [request] = chat_server.requests
    assert request["model"] == "some-model"
    assert request["temperature"] == 0
    assert request["max_tokens"] == 321
    assert isinstance(request["seed"], int) and 0 <= request["seed"] < 2**31
    assert chat_server.headers[0]["authorization"] == f"Bearer {KEY}"
    system, user = request["messages"]
    assert system == {"role": "system", "content": "Be careful."}
    assert user["role"] == "user"
    assert any("Segment the bright square." in part.get("text", "") for part in user["content"])
    [image] = [part for part in user["content"] if part["type"] == "image_url"]
    np.testing.assert_array_equal(decode_uri(image["image_url"]["url"]), view.case.image.pixels)
    assert [m["role"] for m in reply.messages] == ["system", "user"]
    assert [p["sha256"] for m in reply.messages for p in m["content"] if p["type"] == "image"]
    assert isinstance(api, Policy)
    assert api.name == "api:some-model"


def test_later_turns_carry_every_image_and_reply(chat_server, make_view, decode_uri):
    view = make_view(num_steps=2)
    [reply] = policy(chat_server).act([view], seed=0)
    messages = chat_server.requests[0]["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m["content"] for m in messages if m["role"] == "assistant"] == [GOOD, GOOD]
    images = [
        decode_uri(part["image_url"]["url"])
        for m in messages
        if isinstance(m["content"], list)
        for part in m["content"]
        if part["type"] == "image_url"
    ]
    assert len(images) == 3
    np.testing.assert_array_equal(images[0], view.case.image.pixels)
    np.testing.assert_array_equal(images[2], agent_overlay(view.case.image.pixels, view.mask))
    assert [m["role"] for m in reply.messages] == ["user"]  # only what is new


def test_images_can_be_limited_in_number_and_size(chat_server, make_view, decode_uri):
    policy(chat_server, max_images=1, max_pixels=500).act([make_view(num_steps=2)], seed=0)
    parts = [p for m in chat_server.requests[0]["messages"] if isinstance(m["content"], list) for p in m["content"]]
    [image] = [p for p in parts if p["type"] == "image_url"]
    height, width = decode_uri(image["image_url"]["url"]).shape[:2]
    assert height * width <= 500
    assert width / height == pytest.approx(48 / 40, rel=0.1)


def test_without_history_only_the_newest_observation_is_sent(chat_server, make_view):
    policy(chat_server, history=False).act([make_view(num_steps=2)], seed=0)
    assert "assistant" not in [m["role"] for m in chat_server.requests[0]["messages"]]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(chat_server, make_view, make_completion, status):
    chat_server.answer = lambda _, n: (
        (status, {"error": {"message": "busy"}}) if n == 0 else (200, make_completion("x"))
    )
    [reply] = policy(chat_server, max_retries=2).act([make_view()], seed=0)
    assert reply.text == "x"
    assert len(chat_server.requests) == 2
    assert chat_server.requests[0] == chat_server.requests[1]


def test_a_server_that_stays_broken_is_given_up(chat_server, make_view):
    chat_server.answer = lambda _, n: (500, {"error": {"message": "out of\nmemory"}})
    with pytest.raises(PolicyError, match=r"still fails after 2 tries \(500\): out of memory$"):
        policy(chat_server, max_retries=1).act([make_view()], seed=0)
    assert len(chat_server.requests) == 2


def test_a_time_out_is_one_clear_line(chat_server, make_view):
    chat_server.delay_s = 1.0
    with pytest.raises(PolicyError, match=r"no answer from 127\.0\.0\.1:\d+ within 0\.1 s \(1 tries\)"):
        policy(chat_server, timeout=0.1).act([make_view()], seed=0)


def test_a_time_out_is_tried_again(chat_server, make_view, make_completion):
    slow = threading.Event()
    chat_server.answer = lambda _, n: (n == 0 and slow.wait(2.0)) or (200, make_completion(f"try {n}"))
    [reply] = policy(chat_server, timeout=0.2, max_retries=1).act([make_view()], seed=0)
    slow.set()
    assert reply.text == "try 1"


def test_no_server_is_one_clear_line(make_view):
    api = ApiPolicy("m", "http://127.0.0.1:9/v1", max_retries=0, timeout=2.0)
    with pytest.raises(PolicyError, match=r"cannot reach 127\.0\.0\.1:9"):
        api.act([make_view()], seed=0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_never_shown(chat_server, make_view, caplog, status):
    caplog.set_level(logging.DEBUG)
    chat_server.answer = lambda *_: (status, {"error": {"message": f"Incorrect API key provided: {KEY}."}})
    api = policy(chat_server, api_key=KEY)
    with pytest.raises(PolicyError) as caught:
        api.act([make_view()], seed=0)
    text = str(caught.value)
    assert "refused the key" in text and f"({status})" in text and "***" in text and "\n" not in text
    assert KEY not in text + repr(api) + caplog.text
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_missing_key_is_named(chat_server, make_view):
    chat_server.answer = lambda *_: (401, {"error": "no key"})
    with pytest.raises(PolicyError, match="wants a key; set IBISAGENT_API_KEY"):
        policy(chat_server).act([make_view()], seed=0)


def test_keys_go_only_where_they_belong(chat_server, make_view, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    policy(chat_server).act([make_view()], seed=0)
    assert KEY not in chat_server.headers[0].get("authorization", "")
    monkeypatch.setenv("IBISAGENT_API_KEY", "own-key")
    policy(chat_server).act([make_view()], seed=0)
    assert chat_server.headers[1]["authorization"] == "Bearer own-key"
    monkeypatch.delenv("IBISAGENT_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    ApiPolicy("m", max_retries=0).act([make_view()], seed=0)
    assert chat_server.headers[2]["authorization"] == f"Bearer {KEY}"


def test_an_unknown_model_is_named(chat_server, make_view):
    chat_server.answer = lambda *_: (404, {"error": {"message": "The model `some-model` does not exist"}})
    with pytest.raises(PolicyError, match=r"does not know the model 'some-model'.*\(404\): The model `some-model`"):
        policy(chat_server).act([make_view()], seed=0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>gateway</html>", "not a chat completion"),
        (b"", "not a chat completion"),
        (b"[1, 2]", "not a chat completion"),
        (b'{"choices": [', "not a chat completion"),
        (b"\xff\xfe\x00", "not a chat completion"),
        (b"{}", "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": "yes"}', "no choices"),
        (b'{"error": {"message": "too long"}}', "no choices: .*too long"),
        (b'{"choices": [null]}', "no text"),
        (b'{"choices": [{"message": null}]}', "no text"),
        (
            b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}',
            r"no text \(content_filter\)",
        ),
        (b'{"choices": [{"message": {"content": null, "refusal": "I may not"}}]}', r"no text \(I may not\)"),
        (b'{"choices": [{"message": {"content": 5}}]}', "no text"),
    ],
)
def test_garbage_is_one_clear_line(chat_server, make_view, body, message):
    chat_server.answer = lambda *_: (200, body)
    with pytest.raises(PolicyError, match=message) as caught:
        policy(chat_server).act([make_view()], seed=0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_empty_text_is_a_reply_for_the_grammar(chat_server, make_view, make_completion):
    chat_server.answer = lambda *_: (200, make_completion("") | {"usage": None})
    [reply] = policy(chat_server).act([make_view()], seed=0)
    assert (reply.text, reply.num_tokens) == ("", None)


def test_text_in_parts_and_a_thought_cut_out_by_the_server_are_put_together(chat_server, make_view, make_completion):
    chat_server.answer = lambda *_: (
        200,
        make_completion([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    )
    assert policy(chat_server).act([make_view()], seed=0)[0].text == "ab"
    chat_server.answer = lambda *_: (200, make_completion("\n<action>Undo</action>", reasoning_content="hm\n"))
    assert policy(chat_server).act([make_view()], seed=0)[0].text == "<think>hm</think><action>Undo</action>"


def test_parameters_that_a_model_does_not_take_are_left_out(chat_server, make_view, make_completion):
    def answer(request, _):
        for name in ("max_tokens", "temperature"):
            if name in request:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return 400, {"error": {"message": message, "code": "unsupported_parameter", "param": name}}
        return 200, make_completion("fine")

    chat_server.answer = answer
    api = policy(chat_server, max_tokens=5)
    assert api.act([make_view()], seed=0)[0].text == "fine"
    assert chat_server.requests[-1]["max_completion_tokens"] == 5
    before = len(chat_server.requests)
    api.act([make_view()], seed=0)
    assert len(chat_server.requests) == before + 1  # it is learnt once


def test_a_rejected_request_is_not_repeated(chat_server, make_view):
    chat_server.answer = lambda *_: (400, {"error": {"message": "context length exceeded"}})
    with pytest.raises(PolicyError, match=r"rejected the request \(400\): context length exceeded"):
        policy(chat_server, max_retries=3).act([make_view()], seed=0)
    assert len(chat_server.requests) == 1


def test_requests_run_at_the_same_time_and_stay_in_order(chat_server, make_view, make_completion):
    everyone = threading.Barrier(4, timeout=10)  # passes only if four requests are open together

    def answer(request, _):
        everyone.wait()
        return 200, make_completion(str(request["seed"]))

    chat_server.answer = answer
    views = [make_view(case_id=f"c{i}", shade=10 * i) for i in range(8)]
    api = policy(chat_server, concurrency=4)
    texts = [reply.text for reply in api.act(views, seed=1)]
    assert chat_server.most_at_once == 4
    assert len(set(texts)) == 8
    everyone.reset()
    chat_server.answer = lambda request, _: (200, make_completion(str(request["seed"])))
    assert [api.act([view], seed=1)[0].text for view in views] == texts
    assert api.act([], seed=1) == []


def test_seeds_differ_between_siblings_and_seeds(chat_server, make_view):
    api = policy(chat_server)
    api.act([make_view(seed=0)], seed=1)
    api.act([make_view(seed=5)], seed=1)
    api.act([make_view(seed=0)], seed=2)
    api.act([make_view(seed=0)], seed=1)
    a, b, c, d = (request["seed"] for request in chat_server.requests)
    assert len({a, b, c}) == 3 and a == d


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "127.0.0.1:8000"},
        {"base_url": "ftp://host/v1"},
        {"dialect": "klingon"},
        {"concurrency": 0},
        {"max_retries": -1},
        {"timeout": 0},
        {"max_images": 0},
        {"api_key": "sk bad key"},
        {"api_key": "sk-\u00e9"},
        {"model": " "},
        {"model": None},
        {"dtype": "float16"},
    ],
)
def test_unusable_options_are_input_errors(options):
    options = {"model": "m", "base_url": "http://127.0.0.1:9/v1"} | options
    with pytest.raises(InputError) as caught:
        make(options.pop("model"), **options)
    assert options.get("api_key", KEY) not in str(caught.value)


def test_options_that_are_not_set_are_defaults():
    api = make("m", device="cpu", base_url="http://127.0.0.1:9/v1", system_prompt=None, timeout=None)
    assert api.host == "127.0.0.1:9"


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"ibisagent\[api\]"):
        ApiPolicy("m", "http://127.0.0.1:9/v1")


def test_importing_the_module_does_not_load_the_client():
    import subprocess

    code = "import sys, ibisagent.policies.api; assert not {'openai', 'torch', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_visual_question_is_asked_without_a_system_prompt(chat_server, decode_uri):
    from ibisagent.messages import question_messages

    pixels = np.full((20, 30, 3), 7, np.uint8)
    asked = [question_messages(pixels, f"Is it {i}?") for i in range(3)]
    assert policy(chat_server, system_prompt="Segment.", concurrency=1).chat(asked, seed=5) == [GOOD] * 3
    (message,) = chat_server.requests[1]["messages"]
    image, text = message["content"]
    assert message["role"] == "user" and text["text"] == "Is it 1?"
    np.testing.assert_array_equal(decode_uri(image["image_url"]["url"]), pixels)
    assert policy(chat_server).chat([]) == []

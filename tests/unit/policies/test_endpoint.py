"""When a chat server is asked again, and how long is waited before."""

from __future__ import annotations

import email.utils
import itertools
import os
import time
from contextlib import contextmanager

import pytest

from ibisagent.errors import InputError, PolicyError
from ibisagent.policies.endpoint import LONGEST_WAIT_S, Endpoint, NoTextError, pauses

pytest.importorskip("openai")

QUESTION = [{"role": "user", "content": [{"type": "text", "text": "Say something."}]}]


@pytest.fixture
def waits():
    return []


@pytest.fixture
def endpoint(chat_server, waits):
    return Endpoint("m", chat_server.url, name="test", max_retries=3, timeout=10.0, sleep=waits.append)


def ask(endpoint, **options):
    return endpoint.ask(QUESTION, temperature=0.0, max_tokens=10, seed=0, **options)


def failing(server, times, status, completion, headers=None):
    busy = (status, {"error": {"message": "busy"}}, headers or {})
    server.answer = lambda _, n: busy if n < times else (200, completion("x"))


def test_pauses_grow_to_a_limit_and_are_always_the_same():
    assert list(itertools.islice(pauses(), 8)) == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_passing_failures_are_tried_again_after_growing_pauses(chat_server, endpoint, waits, make_completion, status):
    failing(chat_server, 3, status, make_completion)
    assert ask(endpoint).text == "x"
    assert waits == [0.5, 1, 2]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_lasting_failures_are_not_tried_again(chat_server, endpoint, waits, make_completion, status):
    failing(chat_server, 1, status, make_completion)
    with pytest.raises(PolicyError):
        ask(endpoint)
    assert len(chat_server.requests) == 1 and waits == []


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "soon"}, 0.5),
        ({"Retry-After": "nan"}, 0.5),
        ({"Retry-After": "inf"}, 0.5),
        ({"Retry-After": str(LONGEST_WAIT_S)}, LONGEST_WAIT_S),
    ],
)
def test_the_server_says_how_long_to_wait(chat_server, endpoint, waits, make_completion, headers, wait):
    failing(chat_server, 1, 429, make_completion, headers)
    assert ask(endpoint).text == "x"
    assert waits == [wait]


def test_the_server_may_name_a_moment(chat_server, endpoint, waits, make_completion):
    failing(
        chat_server, 1, 503, make_completion, {"Retry-After": email.utils.formatdate(time.time() + 60, usegmt=True)}
    )
    ask(endpoint)
    assert waits == [pytest.approx(60, abs=5)]


def test_a_server_that_wants_an_hour_is_given_up(chat_server, endpoint, waits, make_completion):
    failing(chat_server, 1, 429, make_completion, {"Retry-After": "3600"})
    with pytest.raises(PolicyError, match="after 1 tries, and asks to wait 3600 s"):
        ask(endpoint)
    assert waits == []


def test_every_try_runs_in_its_context_and_can_be_refused(chat_server, endpoint, make_completion):
    failing(chat_server, 2, 500, make_completion)
    seen = []

    @contextmanager
    def around():
        if len(seen) == 3:
            raise InputError("enough")
        try:
            yield
        except Exception as error:
            seen.append(type(error).__name__)
            raise
        seen.append("answer")

    assert ask(endpoint, around=around).text == "x"
    assert seen == ["InternalServerError", "InternalServerError", "answer"]
    with pytest.raises(InputError, match="enough"):
        ask(endpoint, around=around)
    assert len(chat_server.requests) == 3


def test_silence_keeps_its_reason_and_its_price(chat_server, endpoint, make_completion):
    chat_server.answer = lambda *_: (200, make_completion(None, refusal="I may not"))
    with pytest.raises(NoTextError) as caught:
        ask(endpoint)
    assert (caught.value.reason, caught.value.answered) == ("I may not", True)
    assert (caught.value.prompt_tokens, caught.value.completion_tokens) == (11, 7)
    chat_server.answer = lambda *_: (400, {"error": {"message": "filtered", "code": "content_filter"}})
    with pytest.raises(NoTextError) as caught:
        ask(endpoint)
    assert (caught.value.reason, caught.value.answered) == ("content_filter", False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_asks_on_a_connection_of_its_own(chat_server, endpoint):
    ask(endpoint)
    before = endpoint._connection()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, b"y" if ask(endpoint).text and endpoint._connection() is not before else b"n")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"y"
    assert endpoint._connection() is before


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_time_out_is_a_positive_number(timeout):
    with pytest.raises(InputError, match="timeout"):
        Endpoint("m", "http://127.0.0.1:9/v1", name="t", timeout=timeout)

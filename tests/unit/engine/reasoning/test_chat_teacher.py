"""The chat teacher against a real HTTP server: what it shows, what it refuses, what it falls back on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ibisagent.actions import BoxAction, Click, ClickAction, DiscardAction, TerminateAction, Turn, UndoAction
from ibisagent.engine.chat.budget import Budget
from ibisagent.engine.chat.client import ChatClient
from ibisagent.engine.moments import Intent, Moment
from ibisagent.engine.reasoning.chat_prompts import SYSTEM_PROMPT, action_words, thought_messages
from ibisagent.engine.reasoning.chat_teacher import ChatTeacher, merge_reports
from ibisagent.engine.reasoning.teacher import Teacher, TeacherError, TeacherUnavailableError, make_teacher
from ibisagent.engine.reasoning.views import EXCESS_COLOR, MISSED_COLOR, oracle_view
from ibisagent.errors import InputError
from ibisagent.rendering import agent_overlay

pytest.importorskip("openai")

GOOD = "The mask stops short on the left, and the bright lung goes on there. I add that part."
OTHER = "On the left side the bright area continues past the edge of the mask, so I click there."
LEAK = "The ground truth shows that the yellow part is missed on the left. I add it."


def disc(x, y, radius):
    rows, columns = np.mgrid[:60, :80]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


@pytest.fixture
def moment():
    target = disc(30, 30, 18)
    pixels = np.where(target, 180, 40).astype(np.uint8)[..., None].repeat(3, axis=2)
    mask = target & (np.arange(80) > 24)
    action = ClickAction(clicks=(Click(x=0.2312, y=0.5083, positive=True),))
    return Moment(
        pixels=pixels,
        mask=mask,
        target=target,
        name="left lung",
        modality="CT",
        instruction="Please outline the left lung.",
        action=action,
        intent=Intent.MISSED,
        index=1,
        previous_action=ClickAction(clicks=(Click(x=0.4062, y=0.5083, positive=True),)),
        previous_intent=Intent.START,
        thoughts=("There is no mask yet, and I begin in the bright area.",),
    )


class Fixed:
    """A teacher that needs no server."""

    name = "fixed"

    def think(self, moment, rng):
        return f"Fixed thought {int(rng.integers(1000))}."

    def answer(self, moment, rng):
        return "fixed answer"


@pytest.fixture
def say(chat_server, make_completion):
    """``say(text, …)``: what the server says, the last again and again."""

    def set_texts(*texts):
        start = len(chat_server.requests)
        chat_server.answer = lambda _, n: (200, make_completion(texts[min(n - start, len(texts) - 1)]))

    return set_texts


@pytest.fixture
def make(chat_server, tmp_path):
    def make_teacher_(budget=None, url=None, cache=True, **options):
        client = ChatClient(
            "some-model",
            url or chat_server.url,
            cache_dir=tmp_path / "cache" if cache else None,
            budget=budget,
            retries=0,
            timeout_s=10.0,
        )
        return ChatTeacher(client, **options)

    return make_teacher_


def rng(seed=0):
    return np.random.default_rng(seed)


def texts_of(request):
    return [
        [part["text"] for part in m["content"] if part["type"] == "text"]
        if isinstance(m["content"], list)
        else [m["content"]]
        for m in request["messages"]
    ]


def test_both_pictures_are_sent_pixel_by_pixel_and_the_agents_comes_first(chat_server, make, say, moment, decode_uri):
    say(GOOD)
    assert make().think(moment, rng()) == GOOD
    [request] = chat_server.requests
    images = [decode_uri(p["image_url"]["url"]) for p in request["messages"][1]["content"] if p["type"] == "image_url"]
    assert len(images) == 2
    np.testing.assert_array_equal(images[0], agent_overlay(moment.pixels, moment.mask))
    np.testing.assert_array_equal(images[1], oracle_view(moment.pixels, moment.mask, moment.target))
    assert (images[1] == MISSED_COLOR).all(axis=2).any() and not (images[0] == MISSED_COLOR).all(axis=2).any()


def test_the_question_tells_what_the_paper_says(chat_server, make, say, moment):
    say(GOOD)
    make().think(moment, rng())
    system, user = texts_of(chat_server.requests[0])
    assert system == [SYSTEM_PROMPT]
    asked = "\n".join(user)
    for words in (
        "Please outline the left lung.",
        "left lung (CT)",
        "There is no mask yet, and I begin in the bright area.",
        "a positive click at (0.2312, 0.5083), in the middle left of the picture",
        "Its last action: a positive click at (0.4062, 0.5083)",
        "leaves out a part",
    ):
        assert words in asked
    assert MISSED_COLOR == (255, 255, 0) and EXCESS_COLOR == (255, 0, 0)  # the prompt calls them yellow and red


def test_a_leak_is_rejected_and_the_reason_is_told(chat_server, make, say, moment):
    say(LEAK, GOOD)
    teacher = make()
    assert teacher.think(moment, rng()) == GOOD
    first, second = chat_server.requests
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2] == {"role": "assistant", "content": LEAK}
    assert second["messages"][3]["content"].startswith("This thought cannot be used:\n- ")
    assert first["seed"] != second["seed"]
    report = teacher.report()
    assert (report["accepted"], report["accepted_later"], report["refused"], report["fallbacks"]) == (1, 1, 1, 0)
    assert sum(report["rejected"].values()) >= 1 and report["rejection_rate"] == 0.5
    assert json.loads(json.dumps(report)) == report


def test_after_the_last_attempt_the_fallback_writes(chat_server, make, say, moment):
    say(LEAK)
    teacher = make(attempts=2, fallback=Fixed())
    draws = rng(5)
    draws.integers(2**31)
    assert teacher.think(moment, rng(5)) == Fixed().think(moment, draws)
    assert len(chat_server.requests) == 2
    assert len(chat_server.requests[1]["messages"]) == 4
    report = teacher.report()
    assert (report["thoughts"], report["fallbacks"], report["refused"], report["failed"]) == (1, 1, 2, 0)


def test_without_a_fallback_it_is_an_error(make, say, moment):
    say(LEAK)
    teacher = make(attempts=1)
    with pytest.raises(TeacherError, match="no thought passes in 1 attempts") as caught:
        teacher.think(moment, rng())
    assert not isinstance(caught.value, TeacherUnavailableError)
    assert teacher.report()["failed"] == 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("", "empty"),
        ("<think></think>", "empty"),
        ("The mask ends early on the", "unfinished"),
        ("The left part is not covered. " * 4, "length"),
        ("The left part is not covered and " * 30 + "so on.", "length"),
        ("There is no mask yet; and I begin in the  BRIGHT area!", "repeated"),
        ("I click <action>Positive</action> on the left.", "form"),
        ("{'thought': 'The left part is open.'}.", "form"),
    ],
)
def test_what_is_no_thought_is_rejected_by_its_code(make, say, moment, reply, code):
    say(reply, GOOD)
    teacher = make()
    assert teacher.think(moment, rng()) == GOOD
    assert code in teacher.report()["rejected"]


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>{GOOD}</think>",
        f"<think>Picture B is red here, hm.</think>\n\n{GOOD}",
        f"reasoning without a start </think> {GOOD}",
        f'"{GOOD}"',
        f"“{GOOD}”",
        f"**Thought:** {GOOD}",
        f"Thought: {GOOD}\n",
        GOOD.replace(". I", ".\n\nI"),
    ],
)
def test_what_models_put_around_a_thought_is_taken_off(chat_server, make, say, moment, reply):
    say(reply)
    assert make().think(moment, rng()) == GOOD
    assert len(chat_server.requests) == 1
    assert Turn(thought=GOOD, action=moment.action).thought == GOOD


def test_the_thought_before_is_not_said_again(chat_server, make, say, moment):
    say(GOOD, GOOD.upper(), OTHER)
    teacher = make()
    first = teacher.think(moment, rng())
    second = teacher.think(replace(moment, thoughts=(*moment.thoughts, first)), rng(1))
    assert (first, second) == (GOOD, OTHER)
    assert teacher.report()["rejected"] == {"repeated": 1}


def test_a_rerun_costs_nothing_and_says_the_same(chat_server, make, say, moment):
    say(LEAK, GOOD, OTHER)
    first = make()
    said = [first.think(moment, rng(0)), first.think(moment, rng(1))]
    assert said == [GOOD, OTHER]
    again = make(url="http://127.0.0.1:9/v1")
    assert [again.think(moment, rng(0)), again.think(moment, rng(1))] == said
    assert len(chat_server.requests) == 3
    old, new = first.report(), again.report()
    assert (old.pop("cost")["requests"], new.pop("cost")["cached"]) == (3, 3)
    assert old == new


def test_a_generator_is_drawn_from_once_however_often_is_asked(make, say, moment):
    for texts in ((GOOD,), (LEAK, LEAK, GOOD)):
        say(*texts)
        draws = rng(3)
        make(cache=False).think(moment, draws)
        expected = rng(3)
        expected.integers(2**31)
        assert draws.integers(2**31) == expected.integers(2**31)


def test_a_model_that_refuses_is_asked_again_then_left(chat_server, make, make_completion, moment):
    chat_server.answer = lambda *_: (200, make_completion(None, refusal="not medical"))
    teacher = make(attempts=2, fallback=Fixed())
    assert teacher.think(moment, rng()).startswith("Fixed thought")
    assert teacher.report()["rejected"] == {"no_text": 2}
    first, second = chat_server.requests
    assert first["messages"] == second["messages"] and first["seed"] != second["seed"]


def test_a_server_that_fails_or_a_spent_budget_is_no_case_for_the_fallback(chat_server, make, say, moment):
    say(GOOD)
    teacher = make(budget=Budget(max_requests=1), fallback=Fixed())
    teacher.think(moment, rng(0))
    with pytest.raises(TeacherUnavailableError, match=r"budget .* 1 of 1 requests"):
        teacher.think(moment, rng(1))
    chat_server.answer = lambda *_: (500, {"error": {"message": "down"}})
    with pytest.raises(TeacherUnavailableError, match=r"\(500\): down"):
        make(fallback=Fixed()).think(moment, rng(2))
    report = teacher.report()
    assert (report["accepted"], report["fallbacks"]) == (1, 0)


def test_answers_are_asked_of_nobody(chat_server, make, moment):
    teacher = make(fallback=Fixed())
    assert teacher.answer(replace(moment, action=TerminateAction(verdict="found")), rng()) == "fixed answer"
    assert chat_server.requests == []
    assert isinstance(teacher, Teacher) and teacher.name == "chat:some-model"


def test_reports_of_processes_add_up(make, say, moment):
    say(LEAK, GOOD, OTHER)
    first, second = make(), make()
    first.think(moment, rng(0))
    second.think(moment, rng(1))
    both = merge_reports([first.report(), second.report()])
    assert (both["thoughts"], both["accepted"], both["accepted_at_once"], both["refused"]) == (2, 2, 1, 1)
    assert both["rejection_rate"] == pytest.approx(1 / 3)
    assert (both["teacher"], both["cost"]["requests"]) == ("chat:some-model", 3)
    assert merge_reports([both, make().report()]) == both
    assert make().report()["rejection_rate"] is None
    with pytest.raises(InputError):
        merge_reports([])


@pytest.mark.parametrize("intent", list(Intent))
def test_every_intent_and_view_has_a_question(moment, intent):
    bare = replace(moment, mask=None, target=None, modality=None, intent=intent, thoughts=(), previous_action=None)
    for hint in (None, "wrong_place", "something new"):
        _, user = thought_messages(replace(bare, hint=hint, given=True))
        texts = [part["text"] for part in user["content"] if part["type"] == "text"]
        assert any("no mask yet" in text for text in texts)
        assert any("trusts its eyes" in text for text in texts) == (hint is not None)


def test_a_long_run_shows_its_last_thoughts_only(moment):
    _, user = thought_messages(replace(moment, thoughts=tuple(f"Thought {i}." for i in range(30))))
    assert user["content"][0]["text"].count("- Thought") == 4
    assert "Thought 29." in user["content"][0]["text"]


def test_actions_in_words():
    click = ClickAction(clicks=(Click(x=0.9, y=0.1, positive=False), Click(x=0.5, y=0.5, positive=True)))
    assert action_words(click) == (
        "a negative click at (0.9000, 0.1000), in the upper right of the picture, and "
        "a positive click at (0.5000, 0.5000), in the centre of the picture"
    )
    assert "(0.1000, 0.2000) to (0.3000, 0.4000)" in action_words(BoxAction(x0=0.1, y0=0.2, x1=0.3, y1=0.4))
    assert "takes back" in action_words(UndoAction())
    assert "discard the mask" in action_words(DiscardAction())
    assert action_words(TerminateAction(verdict="absent")) == "stop, and say that the target is absent"


def test_a_spec_takes_options_as_text(chat_server, tmp_path, say, moment):
    say(GOOD)
    options = {
        "base_url": chat_server.url,
        "cache_dir": str(tmp_path),
        "max_requests": "1",
        "max_cost": "0.5",
        "price_prompt": "2",
        "price_completion": 8.0,
        "attempts": "1",
        "fallback": "none",
    }
    teacher = make_teacher("chat:org/model:v1", **options)
    assert set(options) <= set(ChatTeacher.options())
    assert teacher.think(moment, rng()) == GOOD
    assert chat_server.requests[0]["model"] == "org/model:v1"
    assert teacher.report()["cost"]["cost"] == pytest.approx((11 * 2 + 7 * 8) / 1e6)
    with pytest.raises(TeacherUnavailableError, match="1 of 1 requests"):
        teacher.think(moment, rng(1))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_requests": "many"}, "max_requests"),
        ({"max_requests": 1.5}, "max_requests"),
        ({"max_cost": "1"}, "price_prompt"),
        ({"attempts": 0}, "attempts"),
        ({"temperature": "-1"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"fallback": "terse"}, "fallback"),
        ({"max_pixels": "0"}, "max_pixels"),
        ({"retries": True}, "retries"),
        ({"colour": "blue"}, "takes no colour; it takes base_url"),
    ],
)
def test_unusable_options_are_input_errors(options, word):
    with pytest.raises(InputError, match=word):
        ChatTeacher.from_spec("m", **({"base_url": "http://127.0.0.1:9/v1", "fallback": "none"} | options))

"""The chat client against a real HTTP server: what is sent, kept, counted and refused."""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading

import numpy as np
import pytest

from ibisagent.engine.chat.budget import Budget, BudgetError, Use
from ibisagent.engine.chat.client import LEDGER_NAME, ChatClient
from ibisagent.engine.chat.cost import CostReport
from ibisagent.errors import InputError, MissingExtraError, PolicyError
from ibisagent.policies.endpoint import NoTextError

pytest.importorskip("openai")

PRICES = {"price_prompt": 2.0, "price_completion": 10.0}


def question(text="What is it?", shade=100):
    image = np.full((20, 30, 3), shade, np.uint8)
    image[5:9, 3:20] = (200, 30, 5)
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": text}, {"type": "image", "image": image}]},
    ]


@pytest.fixture
def make_client(chat_server, tmp_path):
    def make(**options):
        options.setdefault("cache_dir", tmp_path / "cache")
        options.setdefault("sleep", lambda _: None)
        return ChatClient("some-model", options.pop("base_url", chat_server.url), timeout_s=10.0, **options)

    return make


@pytest.fixture
def numbered(chat_server, make_completion):
    """Every request gets another text."""
    chat_server.answer = lambda _, n: (200, make_completion(f"answer {n}"))
    return chat_server


def answers_in(folder):
    return sorted(folder.glob("??/*.json"))


def test_a_question_reaches_the_server_whole(numbered, make_client, decode_uri):
    messages = question()
    assert make_client().complete(messages, temperature=0.5, max_tokens=77, seed=5) == "answer 0"
    [request] = numbered.requests
    assert (request["model"], request["temperature"], request["max_tokens"], request["seed"]) == (
        "some-model",
        0.5,
        77,
        5,
    )
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    text, image = request["messages"][1]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    np.testing.assert_array_equal(decode_uri(image["image_url"]["url"]), messages[1]["content"][1]["image"])


def test_the_same_question_is_asked_once_by_all_clients_and_runs(numbered, make_client):
    first = make_client()
    assert [first.complete(question(), seed=1) for _ in range(2)] == ["answer 0"] * 2
    second = make_client(base_url="http://127.0.0.1:9/v1")  # nobody there: nothing is asked
    assert second.complete(question(), seed=1) == "answer 0"
    assert len(numbered.requests) == 1
    assert first.report() == CostReport(1, 1, 0, 0, 11, 7, 0.0, first.report().seconds)
    assert second.report() == CostReport(cached=1)
    assert first.report().seconds > 0


def test_all_that_an_answer_depends_on_makes_another_question(numbered, make_client):
    client = make_client()
    shifted = question()
    shifted[1]["content"][1]["image"][0, 0, 0] += 1  # one pixel
    asked = [
        client.complete(question()),
        client.complete(question("What was it?")),
        client.complete(shifted),
        client.complete(question(), seed=1),
        client.complete(question(), temperature=0.1),
        client.complete(question(), max_tokens=9),
        client.complete(question()[1:]),
        make_client(max_pixels=300).complete(question()),
        client.complete(question()),
    ]
    assert asked == [f"answer {n}" for n in range(8)] + ["answer 0"]


def test_without_a_folder_everything_is_asked(numbered, make_client):
    client = make_client(cache_dir=None)
    assert [client.complete(question()) for _ in range(2)] == ["answer 0", "answer 1"]
    assert client.spent() == Use(2, 22, 14)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"answer": {"text": 5}, "question": {}}', None])
def test_a_damaged_answer_is_asked_again_and_replaced(numbered, make_client, tmp_path, damage, caplog):
    client = make_client()
    client.complete(question())
    [path] = answers_in(tmp_path / "cache")
    good = path.read_bytes()
    if damage is None:  # a whole answer, of another question
        damage = good.replace(b"What is it?", b"What was it?")
    path.write_bytes(damage)
    assert client.complete(question()) == "answer 1"
    assert "asking again" in caplog.text
    assert path.read_bytes() == good.replace(b"answer 0", b"answer 1")
    assert client.complete(question()) == "answer 1"
    assert answers_in(tmp_path / "cache") == [path]


def test_two_that_ask_at_once_go_on_with_one_answer(numbered, make_client, make_completion, tmp_path):
    both = threading.Barrier(2, timeout=10)

    def answer(_, n):
        both.wait()
        return 200, make_completion(f"answer {n}")

    numbered.answer = answer
    texts = []
    threads = [threading.Thread(target=lambda: texts.append(make_client().complete(question()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbered.requests) == 2 and len(set(texts)) == 1
    assert make_client().complete(question()) == texts[0]
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.suffix == ".tmp"] == []


def test_failures_are_tried_again_and_counted(chat_server, make_client, make_completion):
    waits = []
    chat_server.answer = lambda _, n: (
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "3"}) if n < 2 else (200, make_completion("fine"))
    )
    client = make_client(budget=Budget(max_requests=1), sleep=waits.append)
    assert client.complete(question()) == "fine"
    assert waits == [3.0, 3.0]
    report = client.report()
    assert (report.requests, report.retries, report.failures) == (1, 2, 0)
    assert client.spent().requests == 1  # what the server refused is not used up


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (401, 1), (500, 3)])
def test_a_failure_costs_nothing_and_is_not_kept(chat_server, make_client, tmp_path, status, tries):
    chat_server.answer = lambda *_: (status, {"error": {"message": "no"}})
    client = make_client(retries=2)
    with pytest.raises(PolicyError, match=rf"^chat:some-model: .*\({status}\)"):
        client.complete(question())
    report = client.report()
    assert (report.requests, report.retries, report.failures, report.cost) == (0, tries - 1, 1, 0.0)
    assert client.spent() == Use()
    assert answers_in(tmp_path / "cache") == []


def test_a_server_that_never_answers_may_have_worked(chat_server, tmp_path):
    chat_server.delay_s = 1.0
    client = ChatClient("m", chat_server.url, cache_dir=tmp_path, timeout_s=0.1, retries=1, sleep=lambda _: None)
    with pytest.raises(PolicyError, match="no answer"):
        client.complete(question(), max_tokens=50)
    spent = client.spent()
    assert (spent.requests, spent.completion_tokens) == (2, 100) and spent.prompt_tokens > 500
    nobody = ChatClient("m", "http://127.0.0.1:9/v1", cache_dir=tmp_path / "other", retries=0)
    with pytest.raises(PolicyError, match="cannot reach"):
        nobody.complete(question())
    assert nobody.spent() == Use()


def test_silence_is_paid_for_and_kept(chat_server, make_client, make_completion):
    chat_server.answer = lambda *_: (200, make_completion(None, refusal="I may not"))
    client = make_client()
    for _ in range(2):
        with pytest.raises(NoTextError, match=r"has no text \(I may not\)"):
            client.complete(question())
    assert len(chat_server.requests) == 1
    assert (client.report().requests, client.report().cached) == (1, 1)
    assert client.spent() == Use(1, 11, 7)


@pytest.mark.parametrize(
    ("limit", "word"),
    [({"max_requests": 2}, "requests"), ({"max_tokens": 700}, "tokens"), ({"max_cost": 2.2e-3} | PRICES, "money")],
)
def test_a_budget_stops_all_clients_of_a_folder(numbered, make_client, limit, word):
    # A question is estimated at about 280 prompt tokens and asks for 50; the answer then took 11 and 7.
    budget = Budget(**limit)
    one, other = make_client(budget=budget), make_client(budget=budget)
    numbered.answer = lambda _, n: (
        200,
        {**json.loads(ANSWER), "usage": {"prompt_tokens": 280, "completion_tokens": 50}},
    )
    one.complete(question(), max_tokens=50, seed=0)
    other.complete(question(), max_tokens=50, seed=1)
    for client in (one, other, make_client(budget=budget)):
        with pytest.raises(BudgetError, match=rf"of [\d.]+ {word}.* give a larger max_\w+ and run again"):
            client.complete(question(), max_tokens=50, seed=2)
        assert client.complete(question(), max_tokens=50, seed=0) == "fine"  # what is known goes on being answered
    assert len(numbered.requests) == 2
    assert one.spent().tokens == 660
    assert make_client(budget=Budget(max_requests=3)).complete(question(), seed=2) == "fine"


ANSWER = json.dumps({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]})


def test_money_is_counted_by_the_prices_given(numbered, make_client):
    client = make_client(budget=Budget(**PRICES))
    client.complete(question())
    assert client.report().cost == pytest.approx((11 * 2 + 7 * 10) / 1e6)
    assert client.spent().cost == pytest.approx(client.report().cost)


def test_a_server_that_does_not_count_is_estimated(chat_server, make_client):
    chat_server.answer = lambda *_: (200, ANSWER.encode())
    client = make_client()
    client.complete(question())
    assert client.report().prompt_tokens > 256 and 1 < client.report().completion_tokens < 20


def test_reports_add_up(numbered, make_client):
    first, second = make_client(), make_client()
    first.complete(question())
    second.complete(question())
    total = CostReport.merge([first.report(), second.report()])
    assert (total.requests, total.cached, total.prompt_tokens) == (1, 1, 11)
    assert CostReport.from_json(json.loads(json.dumps(total.to_json())) | {"more": 1}) == total
    assert CostReport.merge([]) == CostReport()


def _ask_until_the_budget_ends(url, folder, number, results):
    client = ChatClient("m", url, cache_dir=folder, budget=Budget(max_requests=25))
    answered = 0
    try:
        for seed in range(1000 * number, 1000 * number + 25):
            client.complete(question(), seed=seed)
            answered += 1
    except BudgetError:
        pass
    results.put((answered, client.spent().requests))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_processes_share_one_budget(numbered, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    work = [
        context.Process(target=_ask_until_the_budget_ends, args=(numbered.url, tmp_path, n, results)) for n in range(3)
    ]
    for process in work:
        process.start()
    found = [results.get(timeout=30) for _ in work]
    for process in work:
        process.join(10)
    assert sum(answered for answered, _ in found) == 25 == len(numbered.requests)
    assert len(answers_in(tmp_path)) == 25
    assert max(requests for _, requests in found) == 25
    assert (tmp_path / LEDGER_NAME).read_bytes().count(b"\n") == 50


def test_the_key_comes_from_the_variable_that_is_named_and_goes_nowhere_else(
    numbered, make_client, monkeypatch, tmp_path
):
    monkeypatch.setenv("MY_KEY", " sk-secret-1 ")
    make_client(api_key_env="MY_KEY").complete(question())
    assert numbered.headers[0]["authorization"] == "Bearer sk-secret-1"
    assert not any(b"sk-secret" in path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    make_client().complete(question(), seed=1)
    assert "sk-other" not in numbered.headers[1]["authorization"]
    with pytest.raises(InputError, match="NO_SUCH_KEY holds no key"):
        make_client(api_key_env="NO_SUCH_KEY")


@pytest.mark.parametrize(
    "options",
    [{"retries": -1}, {"timeout_s": 0}, {"max_pixels": 0}, {"base_url": "localhost:8000"}, {"model": " "}],
)
def test_unusable_options_are_input_errors(options):
    with pytest.raises(InputError):
        ChatClient(**({"model": "m", "base_url": "http://127.0.0.1:9/v1"} | options))


def test_a_folder_that_cannot_be_written_is_named(numbered, make_client, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="chat cache"):
        make_client().complete(question())
    assert numbered.requests == []


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"ibisagent\[api\]"):
        ChatClient("m", "http://127.0.0.1:9/v1")


def test_importing_the_client_loads_no_library():
    import subprocess

    code = "import sys, ibisagent.engine.chat.client; assert not {'openai', 'torch', 'PIL'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

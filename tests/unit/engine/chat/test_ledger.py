"""The count that processes share: exact whatever is torn, damaged or killed."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibisagent.engine.chat.budget import Budget, BudgetError, Use, estimate
from ibisagent.engine.chat.ledger import Ledger
from ibisagent.errors import InputError

FREE = Budget()


def test_what_is_set_aside_counts_until_it_is_known(tmp_path):
    one, other = Ledger(tmp_path / "l"), Ledger(tmp_path / "l")
    a = one.reserve(Use(1, 100, 50, 0.5), FREE)
    b = one.reserve(Use(1, 100, 50, 0.5), FREE)
    assert other.total() == Use(2, 200, 100, 1.0)
    one.settle(a, Use(1, 90, 10, 0.25))
    assert other.total() == Use(2, 190, 60, 0.75)
    one.release(b)
    assert other.total() == Use(1, 90, 10, 0.25) == one.total()
    assert Ledger(tmp_path / "l").total() == one.total()


def test_a_budget_is_checked_against_what_all_wrote(tmp_path):
    one, other = Ledger(tmp_path / "l"), Ledger(tmp_path / "l")
    budget = Budget(max_requests=2)
    one.reserve(Use(1), budget)
    ticket = other.reserve(Use(1), budget)
    size = (tmp_path / "l").stat().st_size
    with pytest.raises(BudgetError, match="2 of 2 requests"):
        one.reserve(Use(1), budget)
    assert (tmp_path / "l").stat().st_size == size
    other.release(ticket)
    one.reserve(Use(1), budget)


def test_what_a_killed_process_set_aside_stays_so(tmp_path):
    Ledger(tmp_path / "l").reserve(Use(1, 10, 20), FREE)
    assert Ledger(tmp_path / "l").total() == Use(1, 10, 20)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_line_is_left_out_and_does_not_spoil_the_next(tmp_path, cut, caplog):
    path = tmp_path / "l"
    Ledger(path).reserve(Use(1, 1, 1), FREE)
    Ledger(path).reserve(Use(1, 2, 2), FREE)
    os.truncate(path, path.stat().st_size - cut)
    ledger = Ledger(path)
    torn = cut > 1  # without its line feed alone, the line is whole
    assert ledger.total() == (Use(1, 1, 1) if torn else Use(2, 3, 3))
    assert ("cannot be read" in caplog.text) == torn
    ledger.reserve(Use(1, 4, 4), FREE)
    assert ledger.total() == Ledger(path).total() == (Use(2, 5, 5) if torn else Use(3, 7, 7))


@pytest.mark.parametrize("line", [b"no", b"[]", b'{"do": "settle"}', b'{"do": "reserve", "id": "x"}', b"\xff", b"null"])
def test_a_line_that_makes_no_sense_is_not_counted(tmp_path, line):
    path = tmp_path / "l"
    Ledger(path).reserve(Use(1, 1, 1), FREE)
    with path.open("ab") as file:
        file.write(line + b"\n")
    assert Ledger(path).total() == Use(1, 1, 1)


def test_a_ledger_that_was_cleared_starts_anew(tmp_path):
    ledger = Ledger(tmp_path / "l")
    ledger.reserve(Use(1, 1, 1), FREE)
    (tmp_path / "l").write_bytes(b"")
    assert ledger.total() == Use()


def test_a_ledger_without_a_file_counts_for_itself():
    ledger = Ledger()
    ledger.settle(ledger.reserve(Use(1, 9, 9), FREE), Use(1, 2, 3))
    assert ledger.total() == Use(1, 2, 3) and Ledger().total() == Use()


def test_a_file_that_cannot_be_opened_is_an_input_error(tmp_path):
    (tmp_path / "l").mkdir()
    with pytest.raises(InputError, match="ledger l"):
        Ledger(tmp_path / "l").total()


def _reserve_all(path, results):
    ledger, got = Ledger(path), 0
    try:
        while True:
            ticket = ledger.reserve(Use(1, 1, 0), Budget(max_requests=300))
            ledger.settle(ticket, Use(1, 1, 0))
            got += 1
    except BudgetError:
        results.put(got)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_four_processes_pass_a_limit_exactly(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    work = [context.Process(target=_reserve_all, args=(tmp_path / "l", results)) for _ in range(4)]
    for process in work:
        process.start()
    assert sum(results.get(timeout=30) for _ in work) == 300
    for process in work:
        process.join(10)
    assert Ledger(tmp_path / "l").total() == Use(300, 300, 0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["settle", "release", "leave"]), st.integers(0, 9)), max_size=8
    )
)
def test_readers_agree_with_writers(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("ledger") / "l"
    pair = [Ledger(path), Ledger(path)]
    expected = Use()
    for who, end, tokens in events:
        ticket = pair[who].reserve(Use(1, tokens, 1), FREE)
        if end == "settle":
            pair[1 - who].settle(ticket, Use(1, tokens, 0))
            expected += Use(1, tokens, 0)
        elif end == "release":
            pair[who].release(ticket)
        else:
            expected += Use(1, tokens, 1)
    assert pair[0].total() == pair[1].total() == Ledger(path).total() == expected


def test_budgets_are_checked_when_made():
    for wrong in ({"max_requests": -1}, {"max_cost": float("nan"), "price_prompt": 1}, {"price_prompt": float("inf")}):
        with pytest.raises(InputError, match=min(wrong)):
            Budget(**wrong)
    with pytest.raises(InputError, match="needs price_prompt"):
        Budget(max_cost=1.0)
    assert Budget(price_prompt=3.0).cost(1_000_000, 5) == 3.0


def test_many_small_costs_reach_a_limit_and_not_less():
    budget = Budget(max_cost=1.0, price_prompt=100_000.0)  # ten requests of 0.1, whose sum is not quite 1
    ledger = Ledger()
    for _ in range(10):
        ledger.settle(ledger.reserve(budget.use(1, 0), budget), budget.use(1, 0))
    with pytest.raises(BudgetError, match="1 of 1 money"):
        ledger.reserve(budget.use(1, 0), budget)


def test_estimates_grow_with_text_and_pixels():
    def tokens(text, size, **options):
        image = np.zeros((size, size, 3), np.uint8)
        parts = [{"type": "text", "text": text}, {"type": "image", "image": image}]
        return estimate([{"role": "user", "content": parts}], **options)

    assert tokens("a" * 300, 64) == tokens("", 64) + 100
    assert tokens("", 1024) > 1300 > tokens("", 1024, max_pixels=512 * 512) > tokens("", 64) > 256

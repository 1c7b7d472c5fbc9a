"""A chat server for the data engine: asked as little as possible, never beyond a budget, and counted."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.engine.chat.budget import Budget, Use, estimate
from ibisagent.engine.chat.cache import AnswerCache, StoredAnswer, question_record
from ibisagent.engine.chat.cost import CostReport
from ibisagent.engine.chat.ledger import Ledger
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.policies.endpoint import Answer, NoTextError

__all__ = ["LEDGER_NAME", "ChatClient"]

LEDGER_NAME = "ledger.jsonl"


class ChatClient:
    """One model behind an OpenAI-compatible server. Threads may share a client, processes a cache folder.

    Parameters
    ----------
    model
        Name of the model on the server.
    base_url
        Address of the server, for example ``"http://127.0.0.1:8000/v1"``; None takes ``OPENAI_BASE_URL``, else
        OpenAI's own.
    api_key_env
        Name of the environment variable that holds the key. None: ``IBISAGENT_API_KEY``, or ``OPENAI_API_KEY`` where
        that belongs (:class:`~ibisagent.policies.endpoint.Endpoint`).
    cache_dir
        Folder of the answers and of the ledger. None keeps nothing, and counts the budget for this object alone.
    budget
        Limits and prices.
    retries
        Further tries after a passing failure (408, 409, 429, 5xx, time-outs), with pauses of 0.5, 1, 2 … 30 seconds, or
        as long as the server asks for.
    timeout_s
        Seconds that one try may wait.
    max_pixels
        Images with more pixels are sent smaller; None sends them as they are.
    sleep
        What waits between tries, for tests.

    Raises
    ------
    MissingExtraError
        If the openai package is not installed.
    InputError
        If an option cannot be used.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key_env: str | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        budget: Budget | None = None,
        retries: int = 6,
        timeout_s: float = 120.0,
        max_pixels: int | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        from ibisagent.policies.endpoint import Endpoint

        if not model.strip():
            raise InputError("a chat server needs the name of a model")
        if max_pixels is not None and max_pixels < 1:
            raise InputError(f"max_pixels must be at least 1, not {max_pixels}")
        key = None
        if api_key_env is not None:
            key = os.environ.get(api_key_env, "").strip()
            if not key:
                raise InputError(f"the environment variable {api_key_env} holds no key")
        self.model = model
        self.budget = Budget() if budget is None else budget
        self.max_pixels = max_pixels
        self._endpoint = Endpoint(
            model, base_url, key, name=f"chat:{model}", timeout=timeout_s, max_retries=retries, sleep=sleep
        )
        folder = None if cache_dir is None else Path(cache_dir)
        self._cache = None if folder is None else AnswerCache(folder)
        self._ledger = Ledger(None if folder is None else folder / LEDGER_NAME)
        self._report = CostReport()
        self._lock = threading.Lock()

    def complete(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        temperature: float = 0.0,
        max_tokens: int = 256,
        seed: int = 0,
    ) -> str:
        """The model's reply to a conversation, from the cache where it was asked before.

        Parameters
        ----------
        messages
            In the form of :mod:`ibisagent.messages`: a content is a text or a list of parts, ``{"type": "text",
            "text": str}`` or ``{"type": "image", "image": uint8 (H, W, 3)}``.
        temperature, max_tokens, seed
            For the sampler.

        Returns
        -------
        str
            The reply, without what a server's reasoning parser cut out.

        Raises
        ------
        BudgetError
            If the budget does not cover the request; none is made then.
        NoTextError
            If the model says nothing (a refusal, a filter). This too is kept.
        PolicyError
            If the server fails.
        InputError
            If the cache cannot be written.
        """
        from ibisagent.policies.endpoint import NoTextError

        messages = [_in_parts(message) for message in messages]
        sampling: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        found = question = None
        if self._cache is not None:
            question = question_record(self.model, messages, max_pixels=self.max_pixels, **sampling)
            found = self._cache.read(question)
        if found is not None:
            self._count(CostReport(cached=1))
        else:
            found = self._ask(messages, sampling)
            if self._cache is not None and question is not None:
                found = self._cache.store(question, found)
        if found.text is None:
            reason = f" ({found.reason})" if found.reason else ""
            raise NoTextError(f"{self._endpoint.name}: the answer of {found.host} has no text{reason}", found.reason)
        return found.text

    @property
    def host(self) -> str:
        """Where images and texts are sent to, for example ``"127.0.0.1:8000"``."""
        return self._endpoint.host

    def report(self) -> CostReport:
        """What this client asked so far."""
        with self._lock:
            return self._report

    def spent(self) -> Use:
        """What was used of the budget: in the cache folder by every process and run, or by this client without one."""
        return self._ledger.total()

    def _ask(self, messages: list[dict[str, Any]], sampling: dict[str, Any]) -> StoredAnswer:
        from ibisagent.policies.endpoint import NoTextError

        guess = estimate(messages, self.max_pixels)
        most = self.budget.use(guess, sampling["max_tokens"])
        tickets: list[str] = []
        start = time.perf_counter()
        answered = None
        try:
            try:
                answer = self._endpoint.ask(
                    messages, **sampling, max_pixels=self.max_pixels, around=lambda: self._try(most, tickets)
                )
                text, reason = answer.text, ""
                used = self._used(answer, text, guess)
            except NoTextError as error:
                if not error.answered:
                    raise
                text, reason = None, error.reason
                used = self._used(error, "", guess)
            self._ledger.settle(tickets[-1], used)
            answered = used
        finally:
            self._count(
                CostReport(
                    requests=int(answered is not None),
                    failures=int(answered is None and bool(tickets)),
                    retries=max(0, len(tickets) - 1),
                    prompt_tokens=answered.prompt_tokens if answered else 0,
                    completion_tokens=answered.completion_tokens if answered else 0,
                    cost=answered.cost if answered else 0.0,
                    seconds=time.perf_counter() - start,
                )
            )
        return StoredAnswer(text, reason, self._endpoint.host, used.prompt_tokens, used.completion_tokens)

    @contextlib.contextmanager
    def _try(self, most: Use, tickets: list[str]) -> Iterator[None]:
        """Set aside what a try may use; give it back where the server certainly did no work."""
        ticket = self._ledger.reserve(most, self.budget, model=self.model)
        tickets.append(ticket)
        try:
            yield
        except Exception as error:
            refused = getattr(error, "status_code", None) is not None
            if refused or type(error.__cause__).__name__ == "ConnectError":
                self._ledger.release(ticket)
            raise

    def _used(self, answer: Answer | NoTextError, text: str, guess: int) -> Use:
        prompt, completion = answer.prompt_tokens, answer.completion_tokens
        if prompt is None:
            prompt = guess
        if completion is None:
            completion = estimate([{"content": [{"type": "text", "text": text}]}])
        return self.budget.use(prompt, completion)

    def _count(self, more: CostReport) -> None:
        with self._lock:
            self._report += more


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    content = message["content"]
    return message if not isinstance(content, str) else {**message, "content": [{"type": "text", "text": content}]}

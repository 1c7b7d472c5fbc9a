"""Thoughts by a model behind an OpenAI-compatible server. None is used that the verifier rejects."""

from __future__ import annotations

import inspect
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ibisagent.engine.chat.budget import Budget, BudgetError
from ibisagent.engine.chat.client import ChatClient
from ibisagent.engine.chat.cost import CostReport
from ibisagent.engine.reasoning.chat_prompts import again_messages, thought_messages
from ibisagent.engine.reasoning.teacher import Teacher, TeacherError, TeacherUnavailableError, make_teacher
from ibisagent.errors import InputError, PolicyError

if TYPE_CHECKING:
    import numpy as np

    from ibisagent.engine.moments import Moment

__all__ = ["ChatTeacher", "merge_reports"]

MAX_SENTENCES = 3
MAX_WORDS = 90
"""Half as much again as the prompt allows: models do not count well, and a word too many is no leak."""

_MAX_PIXELS = 768 * 768


class _Fault(NamedTuple):
    code: str
    message: str


class ChatTeacher:
    """A teacher that asks a chat server, checks what it says, and asks again.

    Threads may share a teacher. Given the same moment, generator and cache folder, it gives the same thought.

    Parameters
    ----------
    client
        The server.
    attempts
        Times that a thought is asked for before the fallback writes it.
    fallback
        Writes the thoughts that the server did not get right, and all answers; None raises an error for the former,
        and leaves the latter to the template teacher. It is no help against a server that fails or a budget that is
        spent: whether a server was up would then decide what a corpus says.
    temperature
        Of the sampler.
    reply_tokens
        Most tokens of a reply; a model that reasons before it writes needs more.

    Raises
    ------
    InputError
        If an option cannot be used.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        attempts: int = 3,
        fallback: Teacher | None = None,
        temperature: float = 0.7,
        reply_tokens: int = 300,
    ) -> None:
        if attempts < 1 or reply_tokens < 1:
            raise InputError("attempts and reply_tokens must be at least 1")
        if not 0 <= temperature <= 2:
            raise InputError(f"temperature must lie in [0, 2], not {temperature}")
        self.name = f"chat:{client.model}"
        self.client = client
        self.attempts = attempts
        self.fallback = fallback
        self.temperature = temperature
        self.reply_tokens = reply_tokens
        self._counts: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def from_spec(
        cls,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        max_requests: int | str | None = None,
        max_tokens: int | str | None = None,
        max_cost: float | str | None = None,
        price_prompt: float | str | None = None,
        price_completion: float | str | None = None,
        attempts: int | str = 3,
        fallback: Literal["template", "none"] | str = "template",
        temperature: float | str = 0.7,
        reply_tokens: int | str = 300,
        retries: int | str = 6,
        timeout_s: float | str = 120.0,
        max_pixels: int | str = _MAX_PIXELS,
        **unknown: Any,
    ) -> ChatTeacher:
        """Make a teacher with its client. Numbers may be given as text, as on a command line.

        Parameters
        ----------
        model, base_url, api_key_env, cache_dir, retries, timeout_s, max_pixels
            See :class:`~ibisagent.engine.chat.client.ChatClient`.
        max_requests, max_tokens, max_cost, price_prompt, price_completion
            See :class:`~ibisagent.engine.chat.budget.Budget`.
        attempts, temperature, reply_tokens
            See the class.
        fallback
            ``"template"`` or ``"none"``.

        Raises
        ------
        InputError
            If an option cannot be used, or is none of these.
        """
        if unknown:
            raise InputError(
                f"the teacher 'chat' takes no {', '.join(sorted(unknown))}; it takes {', '.join(cls.options())}"
            )
        if fallback not in ("template", "none"):
            raise InputError(f"fallback is template or none, not '{fallback}'")
        client = ChatClient(
            model,
            base_url,
            api_key_env,
            cache_dir=cache_dir,
            budget=Budget(
                max_requests=_whole("max_requests", max_requests),
                max_tokens=_whole("max_tokens", max_tokens),
                max_cost=_real("max_cost", max_cost),
                price_prompt=_real("price_prompt", price_prompt),
                price_completion=_real("price_completion", price_completion),
            ),
            retries=_whole("retries", retries),
            timeout_s=_real("timeout_s", timeout_s),
            max_pixels=_whole("max_pixels", max_pixels),
        )
        return cls(
            client,
            attempts=_whole("attempts", attempts),
            fallback=make_teacher("template") if fallback == "template" else None,
            temperature=_real("temperature", temperature),
            reply_tokens=_whole("reply_tokens", reply_tokens),
        )

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the options of :meth:`from_spec`."""
        parameters = inspect.signature(cls.from_spec).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    def think(self, moment: Moment, rng: np.random.Generator) -> str:
        """The thought of a step: see :meth:`.teacher.Teacher.think`. It never equals the one before.

        Raises
        ------
        TeacherUnavailableError
            If the server fails or the budget is spent.
        TeacherError
            If no thought passes and there is no fallback.
        """
        from ibisagent.policies.endpoint import NoTextError

        # One draw whatever happens after it: what a caller draws next does not depend on the server.
        seed = int(rng.integers(2**31))
        messages = thought_messages(moment)
        faults: list[_Fault] = []
        for attempt in range(self.attempts):
            try:
                text = _clean(
                    self.client.complete(
                        messages,
                        temperature=self.temperature,
                        max_tokens=self.reply_tokens,
                        seed=(seed + attempt) % 2**31,
                    )
                )
                faults = _faults(text, moment)
            except NoTextError as error:
                text, faults = "", [_Fault("no_text", f"The model says nothing ({error.reason or 'no reason given'}).")]
            except (BudgetError, PolicyError) as error:
                raise TeacherUnavailableError(str(error)) from error
            if not faults:
                self._count("accepted", "accepted_at_once" if attempt == 0 else "accepted_later")
                return text
            self._count("refused", faults=faults)
            if text:
                messages = again_messages(messages, text, [fault.message for fault in faults])
        if self.fallback is None:
            self._count("failed")
            raise TeacherError(f"{self.name}: no thought passes in {self.attempts} attempts: {faults[0].message}")
        self._count("fallbacks")
        return self.fallback.think(moment, rng)

    def answer(self, moment: Moment, rng: np.random.Generator) -> str:
        """The text after the verdict word of a Terminate, by the fallback or the template teacher: nothing is asked."""
        teacher = make_teacher("template") if self.fallback is None else self.fallback
        return teacher.answer(moment, rng)

    def report(self) -> dict[str, Any]:
        """What was asked for and how it ended, as a JSON object.

        ``thoughts`` = ``accepted`` + ``fallbacks`` + ``failed``; ``accepted`` = ``accepted_at_once`` +
        ``accepted_later``; ``replies`` = ``accepted`` + ``refused``. ``rejected`` counts refused replies by code (one
        reply may have several), ``rejection_rate`` is ``refused / replies``, null without replies. ``cost`` is
        :meth:`.CostReport.to_json`; it alone differs between a run and its rerun.
        """
        with self._lock:
            counts, rejected = dict(self._counts), dict(self._rejected)
        return _report(self.name, counts, rejected, self.client.report())

    def _count(self, *what: str, faults: Sequence[_Fault] = ()) -> None:
        with self._lock:
            self._counts.update(what)
            self._rejected.update({fault.code for fault in faults})


def merge_reports(reports: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The report of several teachers together, for example one in each process.

    Parameters
    ----------
    reports
        Of :meth:`ChatTeacher.report`, or of this function.

    Raises
    ------
    InputError
        If there is none.
    """
    reports = list(reports)
    if not reports:
        raise InputError("there are no reports to merge")
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for report in reports:
        counts.update({name: report[name] for name in _COUNTS})
        rejected.update(report["rejected"])
    names = sorted({name for report in reports for name in report["teacher"].split(" + ")})
    return _report(
        " + ".join(names), counts, rejected, CostReport.merge(CostReport.from_json(r["cost"]) for r in reports)
    )


_COUNTS = ("accepted", "accepted_at_once", "accepted_later", "refused", "fallbacks", "failed")


def _report(teacher: str, counts: dict[str, int], rejected: dict[str, int], cost: CostReport) -> dict[str, Any]:
    numbers = {name: counts.get(name, 0) for name in _COUNTS}
    replies = numbers["accepted"] + numbers["refused"]
    return {
        "teacher": teacher,
        "thoughts": numbers["accepted"] + numbers["fallbacks"] + numbers["failed"],
        "replies": replies,
        **numbers,
        "rejected": dict(sorted(rejected.items())),
        "rejection_rate": numbers["refused"] / replies if replies else None,
        "cost": cost.to_json(),
    }


def _clean(text: str) -> str:
    """The thought in a reply: one line, without what models like to put around it."""
    head, tag, tail = text.rpartition("</think>")
    if tag:  # a model that reasons first, or one that copies the grammar
        text = tail if tail.strip() else head.rpartition("<think>")[2]
    text = " ".join(text.split())
    text = re.sub(r"^[*_#\s]*(?:thought|inner voice)[*_]*\s*:[*_]*\s*", "", text, flags=re.IGNORECASE)
    for opening, closing in ('""', "“”", "''", "**", "``"):
        if len(text) > 1 and text[0] == opening and text[-1] == closing and opening not in text[1:-1]:
            text = text[1:-1].strip()
    return text


def _faults(text: str, moment: Moment) -> list[_Fault]:
    """What is wrong with the form of a thought, else what the verifier finds in it."""
    from ibisagent.engine.reasoning.verifier import verify

    form = _form_faults(text, moment)
    return form or [_Fault(violation.code, violation.message) for violation in verify(text, moment)]


def _form_faults(text: str, moment: Moment) -> list[_Fault]:
    if not text:
        return [_Fault("empty", "It is empty.")]
    faults = []
    if re.search(r"</?\w+>|```|\*\*|[{}\[\]]", text):
        faults.append(_Fault("form", "It contains tags, markup or brackets; write plain sentences."))
    if not re.search(r"[.!?…][\"'”’)]*$", text):
        faults.append(_Fault("unfinished", "Its last sentence does not end; be shorter."))
    sentences = re.split(r"(?<=[.!?…])[\"'”’)]*\s+(?=[\"'“‘(]?[A-Z0-9])", text)
    if len(sentences) > MAX_SENTENCES or len(text.split()) > MAX_WORDS:
        faults.append(_Fault("length", "It is too long; write one to three sentences, at most 60 words."))
    if moment.thoughts and _letters(text) == _letters(moment.thoughts[-1]):
        faults.append(_Fault("repeated", "It repeats the thought before; say something new."))
    return faults


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().casefold()


def _whole(name: str, value: Any) -> Any:
    return _number(name, value, int, "a whole number")


def _real(name: str, value: Any) -> Any:
    return _number(name, value, float, "a number")


def _number(name: str, value: Any, kind: type, what: str) -> Any:
    if value is None:
        return None
    try:
        number = kind(value)
        if isinstance(value, bool) or number != float(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} must be {what}, not '{value}'") from None
    return number

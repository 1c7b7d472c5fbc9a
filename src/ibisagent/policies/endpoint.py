"""A chat server that speaks OpenAI's chat-completions protocol: one question, one answer, retries in between.

Whoever asks a model elsewhere goes through here: the policy ``api`` and the data engine's teachers. No message, log
line or record of ours contains a key.
"""

from __future__ import annotations

import base64
import email.utils
import io
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ibisagent.errors import IbisError, InputError, MissingExtraError, PolicyError
from ibisagent.policies.conversation import one_line, to_pil

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Answer", "Endpoint", "NoTextError", "data_uri", "pauses"]

log = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
LONGEST_WAIT_S = 600.0
"""A server that asks for more than this by ``Retry-After`` is not waited for: the run ends with a clear line."""

_FALLBACKS: dict[str, str | None] = {"max_tokens": "max_completion_tokens", "temperature": None, "seed": None}
"""What a server that rejects a parameter is sent instead (None: nothing)."""

Around = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Parameters
    ----------
    text
        The reply.
    thought
        What a server with a reasoning parser cut out of the reply, None without one.
    prompt_tokens, completion_tokens
        As the server counts them, None where it does not.
    finish_reason
        ``"stop"``, ``"length"`` …, None where the server does not say.
    """

    text: str
    thought: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None


class NoTextError(PolicyError):
    """The server answered, and the model said nothing: a refusal, a filter, or tokens used up before the text.

    Parameters
    ----------
    message
        One line.
    reason
        What the server gives as the reason, ``""`` if nothing.
    answered
        Whether there was an answer, which is paid for like any other; a filter before the model is not.
    prompt_tokens, completion_tokens
        As in :class:`Answer`.
    """

    def __init__(
        self,
        message: str,
        reason: str = "",
        *,
        answered: bool = True,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.answered = answered
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens


def pauses() -> Iterator[float]:
    """Seconds before each further try: 0.5, 1, 2 … up to 30, the same every time."""
    pause = FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_S)


class Endpoint:
    """One model on one server. Several threads may ask at once; a forked process opens connections of its own.

    Parameters
    ----------
    model
        Name of the model on the server.
    base_url
        Address of the server, for example ``"http://127.0.0.1:8000/v1"``; None takes ``OPENAI_BASE_URL``, else
        OpenAI's own.
    api_key
        Key of the server; None takes ``IBISAGENT_API_KEY``, or ``OPENAI_API_KEY`` where that belongs: OpenAI's own
        address or the one in ``OPENAI_BASE_URL``, never another server.
    name
        Who asks, for messages.
    timeout
        Seconds that one try may wait.
    max_retries
        Further tries after a time-out, a lost connection, or the answers 408, 409, 429 and 5xx, with the pauses of
        :func:`pauses` or those that the server asks for (``Retry-After``).
    sleep
        What waits, for tests.

    Raises
    ------
    MissingExtraError
        If the openai package is not installed.
    InputError
        If the address or the key cannot be used.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        name: str,
        timeout: float = 120.0,
        max_retries: int = 4,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if max_retries < 0:
            raise InputError(f"max_retries must be at least 0, not {max_retries}")
        if not (math.isfinite(timeout) and timeout > 0):
            raise InputError("timeout must be positive")
        self._url, self._key = _server(base_url, api_key)
        try:
            import openai  # noqa: F401
        except ImportError:
            raise MissingExtraError(f"'{name}'", "api") from None
        self.model = model
        self.name = name
        self.host = urlsplit(self._url).netloc.rpartition("@")[2]
        self._timeout = timeout
        self._max_retries = max_retries
        self._sleep = sleep
        self._instead: dict[str, str | None] = {}
        self._lock = threading.Lock()
        self._client: Any = None
        self._process = 0

    def ask(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        temperature: float,
        max_tokens: int,
        seed: int,
        max_pixels: int | None = None,
        opening: str = "",
        around: Around = nullcontext,
    ) -> Answer:
        """Send a conversation, wait for the reply.

        Parameters
        ----------
        messages
            In the form of :mod:`ibisagent.messages`; images go as PNG.
        temperature, max_tokens, seed
            For the sampler. What the server's model does not take is left out from then on.
        max_pixels
            Images with more pixels are sent smaller; None sends them as they are.
        opening
            How the reply begins; the answer is what follows it. Servers that know ``continue_final_message`` only.
        around
            Makes a context that every single try runs in, and that sees how it ends; what it raises on entry ends the
            question.

        Raises
        ------
        NoTextError
            If the model says nothing.
        PolicyError
            If the server fails, in one line.
        """
        wire = [_to_wire(message, max_pixels) for message in messages]
        request: dict[str, Any] = {
            "model": self.model,
            "messages": wire,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        if opening:
            wire.append({"role": "assistant", "content": opening})
            request["extra_body"] = {"add_generation_prompt": False, "continue_final_message": True}
        try:
            return self._read(self._post(request, around))
        except IbisError:
            raise
        except Exception as error:  # whatever the client library raises is a failure of the server for us
            raise self._explain(error, 1) from None

    def _post(self, request: dict[str, Any], around: Around) -> dict[str, Any]:
        """Try until the server answers; leave out or rename, once and for all, what its models do not take."""
        import openai

        tries = 1
        schedule = pauses()
        while True:
            with self._lock:
                instead = dict(self._instead)
            fields = {instead.get(k, k): v for k, v in request.items()}
            try:
                with around():
                    raw = self._connection().chat.completions.with_raw_response.create(
                        **{k: v for k, v in fields.items() if k}
                    )
                break
            except openai.APIError as error:
                if isinstance(error, openai.BadRequestError) and self._adapt(error, instead):
                    continue
                pause = _pause(error, next(schedule)) if tries <= self._max_retries else None
                if pause is None:
                    raise self._explain(error, tries) from None
                log.info("%s: try %d failed (%s); again in %g s", self.name, tries, type(error).__name__, pause)
            self._sleep(pause)
            tries += 1
        body = json.loads(raw.http_response.content)
        if not isinstance(body, dict):
            raise ValueError("not an object")
        return body

    def _connection(self) -> Any:
        import openai

        with self._lock:
            if self._client is None or self._process != os.getpid():
                # Retries are ours: the library's pauses are random, and its tries cannot be counted.
                self._client = openai.OpenAI(
                    api_key=self._key or "none", base_url=self._url, timeout=self._timeout, max_retries=0
                )
                self._process = os.getpid()
            return self._client

    def _adapt(self, error: Any, instead: dict[str, str | None]) -> bool:
        """Whether the server rejected a parameter that the next try goes without."""
        parameter = error.param or next((p for p in _FALLBACKS if f"'{p}'" in str(error.message)), None)
        unsupported = "unsupported" in f"{error.code} {error.message}".lower()
        if not unsupported or parameter not in _FALLBACKS or parameter in instead:
            return False
        with self._lock:
            self._instead[parameter] = _FALLBACKS[parameter]
        log.warning("%s: the server takes no %s; sending %s", self.name, parameter, _FALLBACKS[parameter])
        return True

    def _read(self, body: dict[str, Any]) -> Answer:
        """What the model wrote, from the body of a chat completion."""
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices:
            problem = body.get("error")
            detail = f": {self._safe(problem)}" if problem else ""
            raise PolicyError(f"{self.name}: the answer of {self.host} has no choices{detail}")
        choice = choices[0] if isinstance(choices[0], dict) else {}
        message = choice.get("message")
        message = message if isinstance(message, dict) else {}
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        prompt_tokens, completion_tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        content = message.get("content")
        if isinstance(content, list):  # some servers answer in parts
            content = "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
        if not isinstance(content, str):
            reason = self._safe(message.get("refusal") or choice.get("finish_reason") or "") if message else ""
            raise NoTextError(
                f"{self.name}: the answer of {self.host} has no text{f' ({reason})' if reason else ''}",
                reason,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
            )
        thought = message.get("reasoning_content") or message.get("reasoning")
        finish = choice.get("finish_reason")
        return Answer(
            text=content,
            thought=thought if isinstance(thought, str) else None,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            finish_reason=finish if isinstance(finish, str) else None,
        )

    def _explain(self, error: Exception, tries: int) -> PolicyError:
        """One clear line for whatever went wrong; never the key."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            what = f"no answer from {self.host} within {self._timeout:g} s ({tries} tries)"
        elif isinstance(error, openai.APIConnectionError):
            what = f"cannot reach {self.host}: {self._safe(error.__cause__ or error)} ({tries} tries)"
        elif isinstance(error, openai.APIStatusError):
            what = f"{self._status(error, tries)} ({error.status_code}): {self._detail(error)}"
            if error.code == "content_filter":  # some hosts filter before the model, and answer with an error
                return NoTextError(f"{self.name}: {what}", "content_filter", answered=False)
        elif isinstance(error, (ValueError, openai.APIResponseValidationError)):
            what = f"the answer of {self.host} is not a chat completion: {self._safe(error)}"
        else:
            what = f"the request to {self.host} failed: {type(error).__name__}: {self._safe(error)}"
        return PolicyError(f"{self.name}: {what}")

    def _status(self, error: Any, tries: int) -> str:
        status = error.status_code
        if status in (401, 403):
            have = "refused the key" if self._key else "wants a key; set IBISAGENT_API_KEY"
            return f"{self.host} {have}"
        if status == 404:
            return f"{self.host} does not know the model '{self.model}' or has no chat completions at this address"
        if _is_passing(status):
            wait = _asked_wait(error.response.headers)
            asks = f", and asks to wait {wait:.0f} s" if wait is not None and wait > LONGEST_WAIT_S else ""
            return f"{self.host} still fails after {tries} tries{asks}"
        return f"{self.host} rejected the request"

    def _detail(self, error: Any) -> str:
        body = error.body
        if isinstance(body, dict):
            body = body.get("message") or body.get("detail") or body.get("error") or body
        return self._safe(body or error.message)

    def _safe(self, text: object) -> str:
        """`text` as one short line without the key, which some servers quote."""
        line = str(text)
        if self._key:
            line = line.replace(self._key, "***")
        return one_line(line)


def _is_passing(status: int) -> bool:
    return status in (408, 409, 429) or status >= 500


def _pause(error: Any, scheduled: float) -> float | None:
    """Seconds until the next try, None if another would not help."""
    status = getattr(error, "status_code", None)
    if status is None:
        import openai

        return scheduled if isinstance(error, openai.APIConnectionError) else None
    if not _is_passing(status):
        return None
    wait = _asked_wait(error.response.headers)
    if wait is None:
        return scheduled
    return wait if wait <= LONGEST_WAIT_S else None


def _asked_wait(headers: Any) -> float | None:
    """Seconds that the server asks to wait (``Retry-After`` as a number or a date), None if it does not say."""
    for header, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(header, "")) * scale
        except ValueError:
            continue
        if math.isfinite(wait):
            return max(0.0, wait)
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, moment.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _server(base_url: str | None, api_key: str | None) -> tuple[str, str | None]:
    """Address and key, each from the arguments or the environment."""
    own = os.environ.get("OPENAI_BASE_URL")
    url = (base_url or own or OPENAI_URL).strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("base_url must be the http(s) address of a server, for example http://127.0.0.1:8000/v1")
    key = api_key or os.environ.get("IBISAGENT_API_KEY")
    if not key and ((own and url == own.strip()) or url.startswith("https://api.openai.com/")):
        key = os.environ.get("OPENAI_API_KEY")
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError("the API key contains characters that no key has; was it copied with something else?")
    return url, key or None


def _to_wire(message: dict[str, Any], max_pixels: int | None) -> dict[str, Any]:
    """A message in the server's form: plain text where there are no images, images as data URIs."""
    parts = message["content"]
    if all(part["type"] == "text" for part in parts):
        return {"role": message["role"], "content": "\n".join(part["text"] for part in parts)}
    content: list[dict[str, Any]] = []
    for part in parts:
        if part["type"] == "text":
            content.append({"type": "text", "text": part["text"]})
        else:
            content.append({"type": "image_url", "image_url": {"url": data_uri(part["image"], max_pixels)}})
    return {"role": message["role"], "content": content}


def data_uri(pixels: NDArray[np.uint8], max_pixels: int | None = None) -> str:
    """A picture as a PNG in a data URI, made smaller if it has more pixels."""
    buffer = io.BytesIO()
    to_pil(pixels, max_pixels).save(buffer, format="PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

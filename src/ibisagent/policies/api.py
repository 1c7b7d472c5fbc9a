"""A policy behind a chat server that speaks OpenAI's chat-completions protocol (vLLM, SGLang, hosted models).

The key of the server is read from ``IBISAGENT_API_KEY``. ``OPENAI_API_KEY`` is used only where it
belongs: for OpenAI's own address or the one in ``OPENAI_BASE_URL``, never for another server. No message,
log line or record of ours contains a key.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from ibisagent.actions import Dialect
from ibisagent.errors import IbisError, InputError, MissingExtraError, PolicyError
from ibisagent.policies.conversation import Conversation, known_options, one_line, to_pil, view_seed
from ibisagent.policies.protocol import Reply, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ApiPolicy", "make"]

log = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"

_FALLBACKS: dict[str, str | None] = {"max_tokens": "max_completion_tokens", "temperature": None, "seed": None}
"""What a server that rejects a parameter is sent instead (None: nothing)."""


class ApiPolicy:
    """A model behind an OpenAI-compatible chat server.

    Parameters
    ----------
    model
        Name of the model on the server.
    base_url
        Address of the server, for example ``"http://127.0.0.1:8000/v1"``; None takes ``OPENAI_BASE_URL``,
        else OpenAI's own.
    api_key
        Key of the server; None takes it from the environment (see the module), and none is needed for
        most local servers.
    dialect, system_prompt, history, max_images
        See :class:`~ibisagent.policies.conversation.Conversation`.
    timeout
        Seconds that one try may wait for the server.
    max_retries
        Further tries, with growing pauses, after a time-out, a lost connection, or the answers 408, 409,
        429 and 5xx.
    concurrency
        Most requests at a time.
    temperature, max_tokens
        Sampling temperature and most tokens of a reply. A seed goes with every request
        (:func:`~ibisagent.policies.conversation.view_seed`).
    max_pixels
        Images with more pixels are sent smaller; None sends them as they are. Images go as PNG.

    Raises
    ------
    MissingExtraError
        If the openai package is not installed.
    InputError
        If an option cannot be used.
    """

    weights_sha256: str | None = None

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        dialect: Dialect | str = "plain",
        system_prompt: str | None = None,
        *,
        timeout: float = 120.0,
        max_retries: int = 4,
        concurrency: int = 8,
        temperature: float = 0.0,
        max_tokens: int = 1024,
        history: bool | None = None,
        max_images: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        if not model.strip():
            raise InputError("the policy needs the name of a model on the server: api:MODEL")
        for name, value, low in (("concurrency", concurrency, 1), ("max_retries", max_retries, 0)):
            if value < low:
                raise InputError(f"{name} must be at least {low}, not {value}")
        if timeout <= 0 or max_tokens < 1 or temperature < 0:
            raise InputError("timeout and max_tokens must be positive, and temperature not negative")
        url, key = _server(base_url, api_key)
        try:
            import openai
        except ImportError:
            raise MissingExtraError("the policy 'api'", "api") from None
        self.model = model
        self.name = f"api:{model}"
        self.conversation = Conversation(dialect, system_prompt, history, max_images)
        self.dialect = self.conversation.dialect
        self.system_prompt = system_prompt
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_pixels = max_pixels
        self.concurrency = concurrency
        self.host = urlsplit(url).netloc.rpartition("@")[2]
        self._key = key
        self._timeout = timeout
        self._client = openai.OpenAI(api_key=key or "none", base_url=url, timeout=timeout, max_retries=max_retries)
        self._instead: dict[str, str | None] = {}
        self._lock = threading.Lock()

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        """Write the next reply of every view, at most ``concurrency`` at a time.

        Raises
        ------
        PolicyError
            If the server fails for any view, after all requests have ended.
        """
        replies = []
        for result in self.act_each(views, seed):
            if isinstance(result, PolicyError):
                raise result
            replies.append(result)
        return replies

    def act_each(self, views: Sequence[View], seed: int) -> list[Reply | PolicyError]:
        """As :meth:`act`, with an error in place of the reply of every view that the server failed for.

        A rollout asks this way: one lost request then costs one episode, and no request is made twice.
        """
        if not views:
            return []
        with ThreadPoolExecutor(min(self.concurrency, len(views))) as pool:
            return list(pool.map(lambda view: self._try(view, seed), views))

    def _try(self, view: View, seed: int) -> Reply | PolicyError:
        try:
            return self._reply(view, seed)
        except PolicyError as error:
            return error

    def _reply(self, view: View, seed: int) -> Reply:
        messages = self.conversation.messages(view)
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [self._to_wire(message) for message in messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": view_seed(seed, view),
        }
        try:
            body = self._post(request)
            text = self._text(body)
        except IbisError:
            raise
        except Exception as error:  # whatever the client library raises is a failure of the server for us
            raise self._explain(error) from None
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return Reply(
            text=text,
            num_prompt_tokens=_count(usage.get("prompt_tokens")),
            num_tokens=_count(usage.get("completion_tokens")),
            messages=self.conversation.record(view, messages),
        )

    def _post(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request; leave out or rename, once and for all, what the server's models do not take."""
        import openai

        while True:
            with self._lock:
                instead = dict(self._instead)
            fields = {instead.get(k, k): v for k, v in request.items()}
            try:
                raw = self._client.chat.completions.with_raw_response.create(**{k: v for k, v in fields.items() if k})
                break
            except openai.BadRequestError as error:
                parameter = error.param or next((p for p in _FALLBACKS if f"'{p}'" in str(error.message)), None)
                unsupported = "unsupported" in f"{error.code} {error.message}".lower()
                if not unsupported or parameter not in _FALLBACKS or parameter in instead:
                    raise
                with self._lock:
                    self._instead[parameter] = _FALLBACKS[parameter]
                log.warning("%s: the server takes no %s; sending %s", self.name, parameter, _FALLBACKS[parameter])
        body = json.loads(raw.http_response.content)
        if not isinstance(body, dict):
            raise ValueError("not an object")
        return body

    def _text(self, body: dict[str, Any]) -> str:
        """What the model wrote, from the body of a chat completion."""
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices:
            problem = body.get("error")
            detail = f": {self._safe(problem)}" if problem else ""
            raise PolicyError(f"{self.name}: the answer of {self.host} has no choices{detail}")
        message = choices[0].get("message") if isinstance(choices[0], dict) else None
        message = message if isinstance(message, dict) else {}
        content = message.get("content")
        if isinstance(content, list):  # some servers answer in parts
            content = "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
        if not isinstance(content, str):
            why = message.get("refusal") or (choices[0] and choices[0].get("finish_reason")) if message else None
            detail = f" ({self._safe(why)})" if why else ""
            raise PolicyError(f"{self.name}: the answer of {self.host} has no text{detail}")
        thought = message.get("reasoning_content") or message.get("reasoning")
        if isinstance(thought, str) and "<think>" not in content and "</think>" not in content:
            # A server with a reasoning parser cuts the thought out of the text; the grammar wants it there.
            content = f"<think>{thought.strip()}</think>{content.lstrip()}"
        return content

    def _to_wire(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message in the server's form: plain text where there are no images, images as data URIs."""
        parts = message["content"]
        if all(part["type"] == "text" for part in parts):
            return {"role": message["role"], "content": "\n".join(part["text"] for part in parts)}
        content: list[dict[str, Any]] = []
        for part in parts:
            if part["type"] == "text":
                content.append({"type": "text", "text": part["text"]})
            else:
                content.append({"type": "image_url", "image_url": {"url": _data_uri(part["image"], self.max_pixels)}})
        return {"role": message["role"], "content": content}

    def _explain(self, error: Exception) -> PolicyError:
        """One clear line for whatever went wrong; never the key."""
        import openai

        tries = self._client.max_retries + 1
        if isinstance(error, openai.APITimeoutError):
            what = f"no answer from {self.host} within {self._timeout:g} s ({tries} tries)"
        elif isinstance(error, openai.APIConnectionError):
            what = f"cannot reach {self.host}: {self._safe(error.__cause__ or error)} ({tries} tries)"
        elif isinstance(error, openai.APIStatusError):
            what = f"{self._status(error.status_code, tries)} ({error.status_code}): {self._detail(error)}"
        elif isinstance(error, (ValueError, openai.APIResponseValidationError)):
            what = f"the answer of {self.host} is not a chat completion: {self._safe(error)}"
        else:
            what = f"the request to {self.host} failed: {type(error).__name__}: {self._safe(error)}"
        return PolicyError(f"{self.name}: {what}")

    def _status(self, status: int, tries: int) -> str:
        if status in (401, 403):
            have = "refused the key" if self._key else "wants a key; set IBISAGENT_API_KEY"
            return f"{self.host} {have}"
        if status == 404:
            return f"{self.host} does not know the model '{self.model}' or has no chat completions at this address"
        if status in (408, 409, 429) or status >= 500:
            return f"{self.host} still fails after {tries} tries"
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


def make(arg: str | None, device: str | None = None, **options: Any) -> ApiPolicy:
    """``--policy api:MODEL``; `options` are those of :class:`ApiPolicy`, None meaning the default.

    A `device` is taken and not used: the model is elsewhere.
    """
    if not arg:
        raise InputError("the policy api needs the name of a model on the server: api:MODEL")
    return ApiPolicy(arg, **known_options("api", ApiPolicy, options))


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


def _data_uri(pixels: NDArray[np.uint8], max_pixels: int | None) -> str:
    buffer = io.BytesIO()
    to_pil(pixels, max_pixels).save(buffer, format="PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

"""A policy behind a chat server that speaks OpenAI's chat-completions protocol (vLLM, SGLang, hosted models).

The key of the server is read from ``IBISAGENT_API_KEY``. ``OPENAI_API_KEY`` is used only where it
belongs: for OpenAI's own address or the one in ``OPENAI_BASE_URL``, never for another server. No message,
log line or record of ours contains a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ibisagent.actions import Dialect
from ibisagent.errors import InputError, PolicyError
from ibisagent.policies.conversation import Conversation, known_options, view_seed
from ibisagent.policies.endpoint import Answer, Endpoint
from ibisagent.policies.protocol import Reply, View

__all__ = ["ApiPolicy", "make"]


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
    prefill
        Whether the server goes on with a reply that was begun for it, as vLLM and SGLang do when told
        ``continue_final_message``. Runs without thoughts need it.

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
        dialect: Dialect | str | None = None,
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
        prefill: bool = False,
    ) -> None:
        if not model.strip():
            raise InputError("the policy needs the name of a model on the server: api:MODEL")
        if concurrency < 1:
            raise InputError(f"concurrency must be at least 1, not {concurrency}")
        if max_tokens < 1 or temperature < 0:
            raise InputError("max_tokens must be positive, and temperature not negative")
        self.name = f"api:{model}"
        self._endpoint = Endpoint(model, base_url, api_key, name=self.name, timeout=timeout, max_retries=max_retries)
        self.model = model
        self.conversation = Conversation(dialect, system_prompt, history, max_images)
        self.dialect = self.conversation.dialect
        self.system_prompt = system_prompt
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_pixels = max_pixels
        self.concurrency = concurrency
        self.can_skip_thoughts = prefill
        self.host = self._endpoint.host

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

    def chat(self, conversations: Sequence[list[dict[str, Any]]], seed: int = 0) -> list[str]:
        """Reply to conversations that are no episodes (a visual question), without a system prompt of ours.

        Raises
        ------
        PolicyError
            If the server fails for any of them.
        """
        if not conversations:
            return []
        with ThreadPoolExecutor(min(self.concurrency, len(conversations))) as pool:
            return list(pool.map(lambda messages: self._ask(messages, seed).text, conversations))

    def _try(self, view: View, seed: int) -> Reply | PolicyError:
        try:
            return self._reply(view, seed)
        except PolicyError as error:
            return error

    def _reply(self, view: View, seed: int) -> Reply:
        messages = self.conversation.messages(view)
        opening = self.conversation.opening(view)
        answer = self._ask(messages, view_seed(seed, view), opening)
        text = opening + answer.text
        if opening and answer.thought:
            raise PolicyError(f"{self.name}: {self.host} let the model think, though its reply was begun without")
        if answer.thought and "<think>" not in text and "</think>" not in text:
            # A server with a reasoning parser cuts the thought out of the text; the grammar wants it there.
            text = f"<think>{answer.thought.strip()}</think>{text.lstrip()}"
        return Reply(
            text=text,
            num_prompt_tokens=answer.prompt_tokens,
            num_tokens=answer.completion_tokens,
            messages=self.conversation.record(view, messages),
        )

    def _ask(self, messages: list[dict[str, Any]], seed: int, opening: str = "") -> Answer:
        return self._endpoint.ask(
            messages,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            seed=seed,
            max_pixels=self.max_pixels,
            opening=opening,
        )


def make(arg: str | None, device: str | None = None, **options: Any) -> ApiPolicy:
    """``--policy api:MODEL``; `options` are those of :class:`ApiPolicy`, None meaning the default.

    A `device` is taken and not used: the model is elsewhere.
    """
    if not arg:
        raise InputError("the policy api needs the name of a model on the server: api:MODEL")
    return ApiPolicy(arg, **known_options("api", ApiPolicy, options))

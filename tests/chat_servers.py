"""A chat server on this machine that speaks the chat-completions protocol, as fixtures for every unit test."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

GOOD_REPLY = "<think>It is bright.</think><action>Positive Point (0.5000, 0.2500)</action>"


def completion(text: str | None, **extra: Any) -> dict[str, Any]:
    """A chat-completions body."""
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **extra}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


class ChatServer:
    """Speaks the chat-completions protocol on 127.0.0.1; `answer` decides what it says.

    ``answer(request, n)`` gets the request's JSON and its number (from 0) and returns (status, body) or (status,
    body, headers), a body being an object, or bytes to send as they are.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.delay_s = 0.0
        self.answer: Callable[[dict[str, Any], int], tuple[Any, ...]] = lambda request, n: (200, completion(GOOD_REPLY))
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    number = len(outer.requests)
                    outer.requests.append(json.loads(body))
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    time.sleep(outer.delay_s)
                    found = self.path == "/v1/chat/completions"
                    said = outer.answer(outer.requests[number], number) if found else (404, {"error": "path"})
                    status, answer, headers = said if len(said) == 3 else (*said, {})
                finally:
                    with lock:
                        outer.at_once -= 1
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up, as the time-out test wants

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "IBISAGENT_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def make_completion() -> Callable[..., dict[str, Any]]:
    return completion


def decode_data_uri(uri: str) -> np.ndarray:
    from PIL import Image as pil

    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    image = pil.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert image.format == "PNG"
    return np.asarray(image)


@pytest.fixture
def decode_uri() -> Callable[[str], np.ndarray]:
    return decode_data_uri

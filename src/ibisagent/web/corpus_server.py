"""Serves the review page on this machine alone, and adds what is decided on it to the decisions file.

Other programs and pages on the machine must neither read the images nor decide: the server listens on the loopback
address, answers only under the address that it printed, wants a key that only that address holds, and takes decisions
only from its own page.
"""

from __future__ import annotations

import hmac
import json
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError

from ibisagent.engine.corpus.decisions import MAX_NOTE_CHARS, Decision, Decisions, append_decision
from ibisagent.errors import IbisError, InputError
from ibisagent.io.files import one_line
from ibisagent.web.corpus_page import render_corpus_page
from ibisagent.web.corpus_view import CorpusView

__all__ = ["ReviewServer"]

_MAX_BODY = 8 * MAX_NOTE_CHARS  # a note of nothing but escapes, and room for an id


class ReviewServer(ThreadingHTTPServer):
    """A running review; :meth:`serve_forever` serves it, ``address`` is what to open.

    Parameters
    ----------
    view
        What the page shows.
    decisions
        The file to add to; it is made with the first decision.
    port
        To listen on, at 127.0.0.1; 0 takes a free one.
    who
        Written into every decision.

    Raises
    ------
    InputError
        If the port is taken, or the decisions file is damaged.
    """

    daemon_threads = True

    def __init__(self, view: CorpusView, decisions: Path, port: int = 0, who: str = "") -> None:
        self.view, self.decisions, self.who = view, decisions, who
        self.token = secrets.token_urlsafe(24)
        self.read_decisions()  # a damaged file is said now, not when the page is opened
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise InputError(f"--serve {port}: {error.strerror or error}; choose another port") from error
        self.port = int(self.server_address[1])

    @property
    def address(self) -> str:
        """What to open in a browser; the key in it keeps other users of the machine out."""
        return f"http://127.0.0.1:{self.port}/?key={self.token}"

    @property
    def hosts(self) -> tuple[str, str]:
        """Names under which the server answers: a page of another site cannot reach it by a name of its own."""
        return (f"127.0.0.1:{self.port}", f"localhost:{self.port}")

    def read_decisions(self) -> Decisions:
        """What the file says now."""
        return Decisions.read(self.decisions) if self.decisions.exists() else Decisions()


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version, sys_version = "ibisagent", ""
    timeout = 30

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        if not self._is_our_host():
            return
        if place.path != "/":
            self._answer(404, "There is nothing here.")
        elif not self._is_key(parse_qs(place.query).get("key", [""])[0]):
            self._answer(403, "Open the whole address that ibisagent printed.")
        else:
            server = self.server
            try:
                page = render_corpus_page(server.view, server.read_decisions(), who=server.who, token=server.token)
            except IbisError as error:
                self._answer(500, one_line(error))
                return
            self._answer(200, page, "text/html")

    def do_POST(self) -> None:
        if not self._is_our_host():
            return
        if self.path != "/decide":
            self._answer(404, "There is nothing here.")
            return
        origin = self.headers.get("Origin", "")
        if origin not in [f"http://{host}" for host in self.server.hosts]:
            self._answer(403, "Decisions are taken from the review page alone.")
        elif not self._is_key(self.headers.get("X-Ibisagent-Token", "")):
            self._answer(403, "this page is of an earlier run: open the new address")
        elif self.headers.get_content_type() != "application/json":
            self._answer(415, "JSON is needed.")
        else:
            self._decide()

    def _decide(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > _MAX_BODY:
            self._answer(413, "the note is too long")
            return
        server = self.server
        try:
            body = json.loads(self.rfile.read(int(length)).decode("utf-8"))
            if not isinstance(body, dict):
                raise ValueError("not an object")
            decision = Decision.model_validate({**body, "who": server.who})
        except (ValidationError, ValueError, RecursionError):
            self._answer(400, "not a decision")
            return
        if decision.trajectory_id not in server.view.ids:
            self._answer(400, "no such trajectory")
            return
        try:
            append_decision(server.decisions, decision)
        except InputError as error:
            self._answer(507, one_line(error))
            return
        self._answer(200, "saved")

    def _is_our_host(self) -> bool:
        if self.headers.get("Host", "") in self.server.hosts:
            return True
        self._answer(421, "This server answers only under the address that ibisagent printed.")
        return False

    def _is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.server.token.encode())

    def _answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        data = text.encode("utf-8")
        self.close_connection = True  # what is left of a refused body is never read as a request
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(data))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the address in a log line holds the key."""

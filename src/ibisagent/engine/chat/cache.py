"""Answers of chat servers on disk: one JSON file each, named by the question. The first answer to a question stays.

Several processes may share a folder. Files appear whole or not at all, and where two processes ask the same question at
the same time, both go on with the answer that was stored first: a rerun then gives the same corpus.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ibisagent.errors import InputError
from ibisagent.messages import messages_for_record

__all__ = ["AnswerCache", "StoredAnswer", "question_record"]

log = logging.getLogger(__name__)

VERSION = 1


@dataclass(frozen=True)
class StoredAnswer:
    """An answer as it is kept.

    Parameters
    ----------
    text
        What the model wrote; None if it wrote nothing.
    reason
        Why it wrote nothing.
    host
        Server that answered.
    prompt_tokens, completion_tokens
        What was paid for it then.
    """

    text: str | None
    reason: str
    host: str
    prompt_tokens: int
    completion_tokens: int


def question_record(
    model: str,
    messages: Sequence[dict[str, Any]],
    *,
    temperature: float,
    max_tokens: int,
    seed: int,
    max_pixels: int | None = None,
) -> dict[str, Any]:
    """All that an answer depends on, as a JSON object; images by the hash of their pixels.

    The server's address is not part of it: the same model elsewhere, or on another port, is asked nothing twice.
    """
    return {
        "version": VERSION,
        "model": model,
        "messages": messages_for_record(messages),
        "temperature": float(temperature),
        "max_tokens": int(max_tokens),
        "seed": int(seed),
        "max_pixels": max_pixels,
    }


class AnswerCache:
    """Answers in a folder.

    Parameters
    ----------
    folder
        Made when the first answer is stored.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, question: dict[str, Any]) -> Path:
        """The file of a question (:func:`question_record`)."""
        key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"  # 256 folders: a file system slows down with too many in one

    def read(self, question: dict[str, Any]) -> StoredAnswer | None:
        """The stored answer; None if there is none, or if its file is damaged, which is logged."""
        path = self.path(question)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s: cannot be read (%s); asking again", path.name, error.strerror)
            return None
        answer = _parse(data, question)
        if answer is None:
            log.warning("%s: not an answer of the chat cache; asking again", path.name)
        return answer

    def store(self, question: dict[str, Any], answer: StoredAnswer) -> StoredAnswer:
        """Keep an answer unless there is one by now, and return the one that is kept.

        Raises
        ------
        InputError
            If the folder cannot be written.
        """
        path = self.path(question)
        data = (json.dumps({"question": question, "answer": asdict(answer)}, indent=1, sort_keys=True) + "\n").encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:8]}.", suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                for _ in range(2):
                    try:
                        os.link(temporary, path)  # unlike a rename, this fails where there is a file
                        return answer
                    except FileExistsError:
                        earlier = self.read(question)
                        if earlier is not None:
                            return earlier
                        path.unlink(missing_ok=True)  # damaged
                    except OSError:  # a file system without links
                        break
                os.replace(temporary, path)
                return answer
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
        except OSError as error:
            raise InputError(f"the chat cache cannot be written: {error.strerror or error}") from error


def _parse(data: bytes, question: dict[str, Any]) -> StoredAnswer | None:
    try:
        stored = json.loads(data)
        answer = StoredAnswer(**stored["answer"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    fits = (
        (answer.text is None or isinstance(answer.text, str))
        and isinstance(answer.reason, str)
        and stored.get("question") == question
    )
    return answer if fits else None

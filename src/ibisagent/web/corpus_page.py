"""The review page: trajectories as pictures, where a person accepts or rejects each.

One self-contained page, as :mod:`ibisagent.web.parts` has it. Its script builds everything that a corpus says as text
nodes, so no text of a data set or a model can become markup.
"""

from __future__ import annotations

from pathlib import Path

from ibisagent.engine.corpus.decisions import MAX_NOTE_CHARS, Decisions
from ibisagent.errors import InputError
from ibisagent.rendering.png import write_atomic
from ibisagent.web.corpus_view import CorpusView
from ibisagent.web.parts import asset, content_policy, script_json, template

__all__ = ["render_corpus_page", "write_corpus_page"]


def render_corpus_page(
    view: CorpusView, decisions: Decisions | None = None, *, who: str = "", token: str | None = None
) -> str:
    """Make the page.

    Parameters
    ----------
    view
        The trajectories, from :func:`ibisagent.web.corpus_view.build_view`.
    decisions
        What was decided before; those of trajectories that the page does not show are handed on when its decisions
        are downloaded.
    who
        Written into every new decision; empty leaves it out.
    token
        Of the server that takes decisions (:mod:`ibisagent.web.corpus_server`); None makes a page for a file, which
        keeps decisions in the browser until they are downloaded.

    Returns
    -------
    str
        HTML that can be encoded in UTF-8.
    """
    style, script = asset("theme.css", "corpus.css"), asset("drawing.js", "decisions.js", "corpus.js")
    page = template("corpus.html.jinja").render(
        policy=content_policy(style, script, connect="'self'" if token is not None else None),
        style=style,
        script=script,
        name=view.name,
        shown=len(view.rows),
        total=view.total,
        max_note=MAX_NOTE_CHARS,
        data=script_json(
            {
                "identity": view.identity,
                "token": token,
                "who": who,
                "decisions": [line.model_dump(exclude_defaults=True) | {"note": line.note} for line in decisions or ()],
                "images": view.images,
                "rows": view.rows,
            }
        ),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def write_corpus_page(view: CorpusView, path: str | Path, decisions: Decisions | None = None, *, who: str = "") -> None:
    """Write the page to a file, whole or not at all; see :func:`render_corpus_page`.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    page = render_corpus_page(view, decisions, who=who).encode("utf-8")
    try:
        write_atomic(page, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose a writable folder") from error

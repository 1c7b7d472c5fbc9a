"""``ibisagent data``: corpora shown, reviewed, described and converted; data sets audited."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ibisagent.errors import InputError
from ibisagent.io.files import one_line

if TYPE_CHECKING:
    from ibisagent.web.corpus_view import CorpusView

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Run the sub-command: 0, or 1 where an audit finds a leak.

    Raises
    ------
    InputError
        If a corpus, a data set, a decisions file or a folder cannot be used.
    """
    actions = {"show": _show, "card": _card, "convert": _convert, "audit": _audit}
    return actions[options.action](options)


def _show(options: argparse.Namespace) -> int:
    from ibisagent.engine.corpus.decisions import Decisions
    from ibisagent.engine.corpus.reader import Corpus
    from ibisagent.web.corpus_page import write_corpus_page
    from ibisagent.web.corpus_view import build_view

    if options.serve is not None and options.out is not None:
        raise InputError("--serve writes no page: give --out or --serve, not both")
    folder = Path(options.corpus)
    corpus = Corpus(folder)
    given = options.decisions is not None
    decided = Path(options.decisions) if given else folder / "decisions.jsonl"
    if options.serve is None and given and not decided.exists():
        raise InputError(f"--decisions {decided}: no such file")
    name = folder.resolve().name
    out = Path(options.out) if options.out is not None else Path(f"{name or 'corpus'}-review.html")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {out}: give a file in a folder that exists")
    view = build_view(
        corpus,
        name,
        split=options.split,
        scenario=options.scenario,
        target=options.target,
        sample=options.sample,
        seed=options.seed,
    )
    if view.total > len(view.rows):
        _say(f"{len(view.rows)} of {view.total} trajectories, drawn at random (--sample N shows more)")
    if options.serve is not None:
        return _serve(view, decided, options)
    decisions = Decisions.read(decided) if decided.exists() else Decisions()
    write_corpus_page(view, out, decisions, who=options.who)
    _say(f"{len(view.rows)} trajectories, {out.stat().st_size / 1e6:.1f} MB")
    print(out, flush=True)
    return 0


def _serve(view: CorpusView, decisions: Path, options: argparse.Namespace) -> int:
    from ibisagent.web.corpus_server import ReviewServer

    with ReviewServer(view, decisions, options.serve, options.who) as server:
        # The address is what the command is for, so it is its output.
        print(server.address, flush=True)
        _say(f"open this address; decisions go to {decisions}; Ctrl-C ends")
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it, so no failure
            _say("ended")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from ibisagent.engine.corpus.converters import convert

    done = convert(options.corpus, options.to, options.out, options.split, options.table, options.per_turn)
    _say(f"{done.to}: {done.num_examples} examples from {done.num_rows} rows of {done.table}")
    for note in done.notes:
        _say(note)
    for file in done.files:
        print(file, flush=True)
    return 0


def _card(options: argparse.Namespace) -> int:
    from ibisagent.engine.corpus.card import write_card

    folder = Path(options.corpus)
    report = folder / "report.json"
    facts = None
    if report.is_file():  # what the run knew and the tables do not: drops, faults, the configuration
        try:
            facts = json.loads(report.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{report}: not the report of a run ({one_line(error)})") from error
    write_card(folder, facts if isinstance(facts, dict) else None)
    print(folder / "README.md", flush=True)
    return 0


def _audit(options: argparse.Namespace) -> int:
    from ibisagent.engine.sources.audit import audit
    from ibisagent.engine.sources.registry import open_source
    from ibisagent.engine.sources.sample import Fault

    sources = [open_source(spec) for spec in options.sources]
    allowed = [*options.allow_group, *(source.name for source in sources if options.allow_groups)]
    items = [item for source in sources for item in source.samples()]
    report = audit(items, allow_groups=allowed)
    passed = sum(isinstance(item, Fault) for item in items) + len(report.unread)
    if passed:
        _say(f"{passed} item(s) could not be read, and so were not looked at")
    if options.json:
        print(json.dumps(report.to_json(), ensure_ascii=False), flush=True)
    else:
        print(f"{'LEAK: ' if report.leaks else ''}{report.summary()}", flush=True)
    return 1 if report.leaks else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

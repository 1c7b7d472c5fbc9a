"""``ibisagent evaluate`` with visual questions in place of cases: asked, and held against their answers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent import __version__
from ibisagent.cli.outputs import fill_folder
from ibisagent.cli.players import policy_options
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibisagent.evaluate.vqa import Answer

__all__ = ["are_questions", "run"]

_OWNED = ("summary.json", "answers.csv", "run.json")
_COLUMNS = ("key", "group", "question", "answer", "closed", "reply", "right")


def are_questions(cases: str) -> bool:
    """Whether what is to be evaluated is a spec of visual questions, and no file with cases."""
    from ibisagent.engine.questions import QUESTION_KINDS

    return cases.partition(":")[0] in QUESTION_KINDS and ":" in cases and not Path(cases).exists()


def run(options: argparse.Namespace, out: Path) -> int:
    """Ask every question; returns 0.

    Raises
    ------
    InputError
        If the questions or an option cannot be used, or the policy answers none; nothing has been written then.
    PolicyError
        If the model or its server fails.
    """
    for flag, given in (
        ("--system-prompt", options.system_prompt),
        ("--no-images", options.no_images),
        ("--report", options.report),
        ("--processes", options.processes),
        ("--threads", options.threads),
        ("--executor", options.executor != "processes"),
    ):
        if given:
            raise InputError(f"{flag} means nothing to visual questions, which are asked as they stand; leave it out")
    if (out / "results.jsonl").is_file() and not options.overwrite:
        raise InputError(f"{out} holds a run with cases; --overwrite replaces its summary, or choose another --out")
    more = policy_options(options)

    from tqdm import tqdm

    from ibisagent.api import resolve_policy
    from ibisagent.engine.questions import open_questions
    from ibisagent.evaluate.vqa import answer_questions, describe, summarise_answers

    questions = open_questions(options.cases, options.split or "test")
    policy = resolve_policy(options.policy, device=options.device, **more)
    if not hasattr(policy, "chat"):
        raise InputError(f"the policy '{options.policy}' answers no questions; give nano, vlm:PATH_OR_ID or api:MODEL")
    for note in questions.notes:
        print(note, file=sys.stderr, flush=True)
    numbers = range(min(len(questions), options.limit or len(questions)))
    started = time.perf_counter()
    asked = answer_questions(questions, policy.chat, numbers=numbers, batch=options.batch or 8)
    answers = list(tqdm(asked, total=len(numbers), unit="question", desc="asking", file=sys.stderr, disable=None))
    summary = summarise_answers(answers)
    facts = {
        "ibisagent_version": __version__,
        "questions": options.cases,
        "split": options.split or "test",
        "limit": options.limit,
        "policy": policy.name,
        "policy_weights_sha256": policy.weights_sha256,
        "device": options.device,
        "seconds": round(time.perf_counter() - started, 1),
    }
    _write(out, summary, answers, facts)
    lines = [f"{summary['num']} questions about {summary['num_groups']} images or patients: right "
             f"{describe(summary['accuracy'])}",
             f"closed {describe(summary['closed'])}, open {describe(summary['open'])}, "
             f"recall of words in open ones {describe(summary['open_recall'])}",
             f"written to {out}"]  # fmt: skip
    print("\n".join(lines), file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(summary), flush=True)
    return 0


def _write(out: Path, summary: dict[str, Any], answers: Sequence[Answer], facts: dict[str, Any]) -> None:
    import csv

    with fill_folder(out, _OWNED if (out / "run.json").is_file() else ()) as scratch:
        for name, content in (("summary.json", summary), ("run.json", facts)):
            (scratch / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        with (scratch / "answers.csv").open("w", encoding="utf-8", errors="replace", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows([getattr(answer, name) for name in _COLUMNS] for answer in answers)

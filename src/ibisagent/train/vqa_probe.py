"""Does a training forget? The same visual questions, answered greedily by its first and by its last weights.

``OUT/vqa.json`` is written as soon as the first answers are there and again with the last ones, so that a run that is
killed and resumed keeps what was asked before it began.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ibisagent.evaluate.vqa import Answer, answer_questions, compare_answers, describe, summarise_answers
from ibisagent.train.runs import say

if TYPE_CHECKING:
    from ibisagent.engine.questions import Questions
    from ibisagent.train.rl.sampler import Sampler
    from ibisagent.train.tokens import Renderer

__all__ = ["VqaProbe", "attach_probe"]

FILE = "vqa.json"
"""Name of the results in a run's folder."""

_MAX_NEW_TOKENS = 64
_AT_ONCE = 16
"""Questions in one pass: an image and a sentence each, far less than a conversation that is trained on."""


class VqaProbe(TrainerCallback):
    """Asks before the first step; whoever trains calls :meth:`finish` after the last one. All processes share the work.

    Parameters
    ----------
    questions
        What is asked.
    out
        Folder of the run.
    renderer
        Of the model's processor.
    trainer
        Of trl, with the model.

    Attributes
    ----------
    seconds
        That asking took so far.
    """

    def __init__(self, questions: Questions, out: Path, renderer: Renderer, trainer: Any) -> None:
        self.questions, self.path, self.renderer, self.trainer = questions, out / FILE, renderer, trainer
        self.seconds = 0.0
        self._before: list[Answer] | None = None
        self._facts: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the weights that the training begins with; a resumed run reads what they answered."""
        main = state.is_world_process_zero
        if state.global_step:
            self._before = self._remembered() if main else None
            if main and self._before is None:
                say(f"{self.path}: no answers to these questions from the start of this run; only its end is asked")
            return
        if main:
            for note in self.questions.notes:
                say(note)
        self._before = self._ask("before")
        if main:
            self._write(self._before, None)
            say(f"visual questions before: right {describe(self._facts['before']['accuracy'])}")

    def finish(self) -> None:
        """Ask the weights of now, and say what changed.

        Raises
        ------
        InputError
            If an image cannot be read any more.
        """
        after = self._ask("after")
        if not self.trainer.state.is_world_process_zero:
            return
        self._write(self._before, after)
        now = self._facts["after"]
        text = f"visual questions (n {now['num']} of {now['num_groups']} images or patients): right "
        if self._before is None:
            say(f"{text}{describe(now['accuracy'])} after; not asked before; see {self.path}")
            return
        was, change = self._facts["before"], self._facts["difference"]
        say(
            f"{text}{describe(was['accuracy'])} before, {describe(now['accuracy'])} after, "
            f"difference {describe(change['accuracy'], signed=True)}; {change['won']} won, {change['lost']} lost; "
            f"see {self.path}"
        )

    def _ask(self, when: str) -> list[Answer]:
        from accelerate.utils import gather_object

        from ibisagent.train.rl.setup import make_sampler
        from ibisagent.train.rl.sharded import whole_model

        trainer = self.trainer
        began = time.perf_counter()
        mine = range(trainer.accelerator.process_index, len(self.questions), trainer.accelerator.num_processes)
        with whole_model(trainer) as model:
            sampler = make_sampler(
                model, self.renderer, temperature=0.0, max_new_tokens=_MAX_NEW_TOKENS, batch_size=_AT_ONCE
            )

            def ask(conversations: Sequence[list[dict[str, Any]]]) -> list[str]:
                return _greedy(sampler, self.renderer, conversations)

            found = list(answer_questions(self.questions, ask, numbers=mine, batch=_AT_ONCE))
        everyone: list[Answer] = sorted(gather_object(found), key=lambda answer: answer.number)
        summary = summarise_answers(everyone)
        took = time.perf_counter() - began
        self.seconds += took
        self._facts[when] = {"step": trainer.state.global_step, "seconds": round(took, 1), **summary}
        trainer.log({f"vqa/{name}": summary[name]["value"] for name in ("accuracy", "closed", "open") if summary[name]})
        return everyone

    def _write(self, before: Sequence[Answer] | None, after: Sequence[Answer] | None) -> None:
        from ibisagent import __version__
        from ibisagent.rendering.png import write_atomic

        if before is not None and after is not None:
            self._facts["difference"] = compare_answers(before, after)
        lines = []
        for place, answer in enumerate(before if before is not None else after or ()):
            lines.append(
                {
                    "key": answer.key,
                    "group": answer.group,
                    "question": answer.question,
                    "answer": answer.answer,
                    "closed": answer.closed,
                    "before": before[place].reply if before is not None else None,
                    "after": after[place].reply if after is not None else None,
                    "right_before": before[place].right if before is not None else None,
                    "right_after": after[place].right if after is not None else None,
                }
            )
        document = {
            "schema_version": 1,
            "ibisagent_version": __version__,
            "probe": self.questions.spec,
            **{name: self._facts.get(name) for name in ("before", "after", "difference")},
            "answers": lines,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic((json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace"), self.path)

    def _remembered(self) -> list[Answer] | None:
        """What the first weights answered to these very questions; None where the file does not tell."""
        found = []
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
            facts = dict(known["before"])
            for number, (row, line) in enumerate(zip(self.questions.rows, known["answers"], strict=True)):
                asked = row.question
                if (row.key, asked.text, asked.answer) != (line["key"], line["question"], line["answer"]):
                    return None
                reply = str(line["before"])
                found.append(Answer(number, row.key, row.group, asked.text, asked.answer, asked.closed, reply))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._facts["before"] = facts
        return found


def attach_probe(questions: Questions | None, out: Path, renderer: Renderer, trainer: Any) -> VqaProbe | None:
    """Have a trainer's model answer questions, if there are any. Call it after all other callbacks are there."""
    if questions is None:
        return None
    probe = VqaProbe(questions, out, renderer, trainer)
    trainer.add_callback(probe)  # behind the log, which has begun by then
    return probe


def _greedy(sampler: Sampler, renderer: Renderer, conversations: Sequence[list[dict[str, Any]]]) -> list[str]:
    from ibisagent.train.rl.contexts import Context

    contexts = [Context.begin(str(place), chat, renderer) for place, chat in enumerate(conversations)]
    return [renderer.text(sample.ids) for sample in sampler.session(0).sample(contexts)]

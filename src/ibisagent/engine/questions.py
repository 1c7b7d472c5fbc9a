"""Visual questions of corpora and of question-answering sets, by number; pictures are read when they are asked for."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.engine.sources.sample import Fault, Question, Sample
from ibisagent.errors import InputError
from ibisagent.io.files import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["QUESTION_KINDS", "QuestionRow", "Questions", "VisualQuestion", "open_questions"]

QUESTION_KINDS = ("corpus", "vqa-rad", "slake", "pathvqa", "mecovqa")
"""Kinds of specs that name visual questions."""

_MAX_IMAGES = 8


@dataclass(frozen=True, eq=False)
class VisualQuestion:
    """A question with the image that it is about.

    Parameters
    ----------
    key
        Names it in logs and results.
    pixels
        ``uint8`` (H, W, 3).
    question
        Text, answer, and whether it is closed.
    group
        Whose image it is (data set and patient, or image): questions of one group are not independent.
    """

    key: str
    pixels: NDArray[np.uint8]
    question: Question
    group: str


@dataclass(frozen=True)
class QuestionRow:
    """A :class:`VisualQuestion` whose image is not yet read.

    Parameters
    ----------
    key, question, group
        See there.
    split
        That it is of.
    read
        Reads the image; raises InputError if it cannot be read.
    """

    key: str
    question: Question
    group: str
    split: str
    read: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Questions:
    """Questions by number.

    Parameters
    ----------
    spec
        Where they are from, as it was given.
    rows
        Which, in order.
    faults
        One line for each item of the set that cannot be used.
    num_left_out
        Open questions that :meth:`closed` left out.
    """

    spec: str
    rows: tuple[QuestionRow, ...]
    faults: tuple[str, ...] = ()
    num_left_out: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> VisualQuestion:
        """Question number `index`; raises InputError if its image cannot be read."""
        row = self.rows[index]
        return VisualQuestion(row.key, row.read(), row.question, row.group)

    @property
    def notes(self) -> list[str]:
        """For people: how many there are, and what is not among them."""
        about = len({row.group for row in self.rows})
        lines = [f"{self.spec}: {len(self)} visual questions about {about} images or patients"]
        if self.num_left_out:
            lines.append(f"{self.spec}: {self.num_left_out} open questions are left out, for which there is no reward")
        if self.faults:
            lines.append(f"{self.spec}: {len(self.faults)} items cannot be used, the first: {self.faults[0]}")
        return lines

    def closed(self) -> Questions:
        """Those with one of a few answers, which exact match can score.

        Raises
        ------
        InputError
            If there is none.
        """
        kept = tuple(row for row in self.rows if row.question.closed)
        if not kept:
            raise InputError(
                f"{one_line(self.spec)}: all {len(self.rows)} questions are open, and only closed ones can be "
                "rewarded; learn them with 'train sft'"
            )
        return replace(self, rows=kept, num_left_out=len(self.rows) - len(kept))


def open_questions(spec: str, split: str = "test") -> Questions:
    """Visual questions by a spec.

    Parameters
    ----------
    spec
        ``corpus:FOLDER`` (its table ``vqa``) or a source of questions as ``ibisagent synthesize`` takes it
        (``vqa-rad:DIR``, ``slake:DIR?lang=en``, ``pathvqa:DIR``, ``mecovqa:FILE``). Further options are ``split=NAME``
        (``all``: of every split) and ``number=N``: so many of them, the same ones every time.
    split
        Where the spec names none.

    Raises
    ------
    InputError
        If the spec cannot be read, there is no such set, or it has no question of the split.
    """
    from ibisagent.engine.sources.registry import parse_source

    kind, path, options = parse_source(spec)
    if kind not in QUESTION_KINDS:
        raise InputError(f"{one_line(spec)}: no visual questions; say one of {', '.join(QUESTION_KINDS)} and its place")
    split = options.pop("split", split)
    number = _number(spec, options.pop("number", None))
    faults: list[str] = []
    rows = _of_corpus(spec, path, options) if kind == "corpus" else _of_source(kind, path, options, faults)
    known: Counter[str] = Counter()
    kept = []
    for row in rows:
        known[row.split] += 1
        if split in ("all", row.split):
            kept.append(row)
    if not kept:
        there = ", ".join(f"{name} ({count})" for name, count in sorted(known.items())) or "none at all"
        fault = f"; first of {len(faults)} items that cannot be used: {faults[0]}" if faults else ""
        raise InputError(
            f"{one_line(spec)}: no visual question of split '{split}'; give split=, there is {there}{fault}"
        )
    if number is not None and number < len(kept):
        chosen = np.random.default_rng([number, 17]).choice(len(kept), number, replace=False)
        kept = [kept[i] for i in sorted(chosen.tolist())]
    return Questions(spec, tuple(kept), tuple(faults))


def _number(spec: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{one_line(spec)}: number must be a whole number from 1 up, not '{one_line(text, 30)}'")
    return int(text)


def _of_corpus(spec: str, folder: str, options: dict[str, str]) -> Iterator[QuestionRow]:
    from ibisagent.engine.corpus.reader import Corpus

    if options.pop("table", "vqa") != "vqa" or options:
        raise InputError(f"{one_line(spec)}: questions of a corpus take split, number and table=vqa, nothing else")
    corpus = Corpus(folder)
    if "vqa" not in corpus.tables:
        raise InputError(
            f"{one_line(folder)}: the corpus holds no visual questions (table vqa); build one from a set that has "
            "some: ibisagent synthesize vqa-rad:DIR --out FOLDER"
        )
    columns = ["question_id", "image_id", "source", "group", "sample", "split", "question", "answer", "closed"]
    for row in corpus.rows("vqa", columns=columns):
        question = Question(row["question"], row["answer"], bool(row["closed"]))
        group = f"{row['source']}/{row['group'] if row['group'] is not None else row['sample']}"
        yield QuestionRow(row["question_id"], question, group, row["split"], partial(corpus.image, row["image_id"]))


def _of_source(kind: str, path: str, options: dict[str, str], faults: list[str]) -> Iterator[QuestionRow]:
    from ibisagent.engine.sources.registry import make_source
    from ibisagent.engine.splits import split_of

    images = _Images()
    for sample in make_source(kind, path, options).samples():
        if isinstance(sample, Fault):
            faults.append(sample.message)
            continue
        group = f"{sample.source}/{sample.group if sample.group is not None else sample.key}"
        for place, question in enumerate(sample.questions):
            key = f"{sample.source}/{sample.key}/{place}"
            yield QuestionRow(key, question, group, split_of(sample), partial(images.read, sample))


class _Images:
    """Pictures that were read lately: the questions of an image follow one another."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    def read(self, sample: Sample) -> NDArray[np.uint8]:
        if sample.key not in self._kept:
            self._kept[sample.key] = sample.reader().image.pixels
            while len(self._kept) > _MAX_IMAGES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(sample.key)
        return self._kept[sample.key]

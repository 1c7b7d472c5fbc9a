"""Visual question answering: asked, held against the references, and two models compared on the same questions.

Answers match as :func:`ibisagent.rewards.vqa.exact_match` says, open ones too; of these the recall of words is
reported beside it. Intervals are bootstrap intervals over groups (patients, or images): the questions about one image
are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ibisagent.evaluate.statistics import grouped_ci95
from ibisagent.messages import question_messages
from ibisagent.rewards.vqa import answer_text, exact_match, token_recall

if TYPE_CHECKING:
    from ibisagent.engine.questions import Questions

__all__ = ["Answer", "Ask", "answer_questions", "compare_answers", "describe", "summarise_answers"]

Ask = Callable[[Sequence[list[dict[str, Any]]]], list[str]]
"""Conversations that end with the user -> a reply to each."""

FIGURES = ("accuracy", "closed", "open", "open_recall")
"""Exact match over all, over closed and over open questions; recall of the references' words over the open ones."""


@dataclass(frozen=True)
class Answer:
    """A question as it was answered.

    Parameters
    ----------
    number
        Of the question in its set.
    key, group, question, answer, closed
        See :class:`~ibisagent.engine.questions.VisualQuestion`; `answer` is the reference.
    reply
        What the model wrote.
    """

    number: int
    key: str
    group: str
    question: str
    answer: str
    closed: bool
    reply: str

    @property
    def right(self) -> bool:
        """Whether it is an exact match."""
        return exact_match(answer_text(self.reply), self.answer)

    def values(self) -> dict[str, float]:
        """What it counts in every one of :data:`FIGURES`; not in those that are not about its kind."""
        right = float(self.right)
        if self.closed:
            return {"accuracy": right, "closed": right}
        return {"accuracy": right, "open": right, "open_recall": token_recall(answer_text(self.reply), self.answer)}


def answer_questions(
    questions: Questions, ask: Ask, *, numbers: Iterable[int] | None = None, batch: int = 8
) -> Iterator[Answer]:
    """Ask, some questions at a time.

    Parameters
    ----------
    questions
        The set.
    ask
        Who answers.
    numbers
        Which of the questions; None asks all.
    batch
        Most questions, and images in memory, at a time.

    Raises
    ------
    InputError
        If an image cannot be read.
    """
    for part in _parts(range(len(questions)) if numbers is None else numbers, batch):
        asked = [questions[number] for number in part]
        replies = ask([question_messages(one.pixels, one.question.text) for one in asked])
        for number, one, reply in zip(part, asked, replies, strict=True):
            yield Answer(number, one.key, one.group, one.question.text, one.question.answer, one.question.closed, reply)


def summarise_answers(answers: Sequence[Answer]) -> dict[str, Any]:
    """How many were right.

    Returns
    -------
    dict
        ``num``, ``num_groups``, and each of :data:`FIGURES` as ``{"value", "ci95", "n"}``, None where there was no
        question of the kind.
    """
    return _figures([answer.values() for answer in answers], [answer.group for answer in answers])


def compare_answers(before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, Any]:
    """What changed between two models that answered the same questions, in the same order.

    Returns
    -------
    dict
        As :func:`summarise_answers`, of the paired differences after - before; and ``won`` and ``lost``, questions
        that only the later and only the earlier model answered right.

    Raises
    ------
    ValueError
        If the questions are not the same.
    """
    if [a.number for a in before] != [a.number for a in after] or [a.key for a in before] != [a.key for a in after]:
        raise ValueError("answers to other questions")
    pairs = list(zip(before, after, strict=True))
    values = [{name: b.values()[name] - value for name, value in a.values().items()} for a, b in pairs]
    return {
        **_figures(values, [answer.group for answer in before]),
        "won": sum(b.right and not a.right for a, b in pairs),
        "lost": sum(a.right and not b.right for a, b in pairs),
    }


def describe(figure: dict[str, Any] | None, signed: bool = False) -> str:
    """A figure for people: ``0.412 [0.350, 0.470]``."""
    if figure is None:
        return "-"
    sign = "+" if signed else ""
    low, high = figure["ci95"]
    return f"{figure['value']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _figures(values: Sequence[dict[str, float]], groups: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"num": len(values), "num_groups": len(set(groups))}
    for name in FIGURES:
        mine = [(one[name], group) for one, group in zip(values, groups, strict=True) if name in one]
        numbers, where = [value for value, _ in mine], [group for _, group in mine]
        interval = grouped_ci95(numbers, where)
        found[name] = None
        if interval is not None:
            mean = sum(numbers) / len(numbers)
            found[name] = {"value": round(mean, 4), "ci95": [round(end, 4) for end in interval], "n": len(numbers)}
    return found


def _parts(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    part: list[int] = []
    for number in numbers:
        part.append(number)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part

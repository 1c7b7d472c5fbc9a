"""Visual questions: exact match, which is the reward of closed questions.

Two answers match if they are the same words after :func:`normalise_answer`. A reference of *yes* or *no* is also
matched by a sentence that begins with that word ("Yes, there is."), but not by one that says both and nothing else.
Open questions have no reward: two right answers may share no word, so they are reported (:mod:`ibisagent.evaluate.vqa`)
and not trained on.
"""

from __future__ import annotations

import re
import unicodedata

from ibisagent.rewards.rubric import Breakdown

__all__ = ["VQA", "answer_text", "exact_match", "normalise_answer", "score_answer", "token_recall"]

VQA = "vqa"
"""Name of the only part of an answer's reward."""

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
}  # fmt: skip
_YES_NO = frozenset({"yes", "no"})
_NOT_AN_ANSWER = _YES_NO | {"or", "and"}


def answer_text(reply: str) -> str:
    """The answer in a model's reply.

    The text in the last ``<answer>`` where there is one, else what follows the thought; empty where a thought was begun
    and never ended.
    """
    found = re.findall(r"<answer>(.*?)</answer>", reply, re.S)
    if found:
        return str(found[-1]).strip()
    _, ended, after = reply.rpartition("</think>")
    if not ended and "<think>" in reply:
        return ""
    return (after if ended else reply).strip()


def normalise_answer(text: str) -> str:
    """Lower case, no punctuation, no articles, number words up to ten as digits, single spaces.

    A point between digits stays. An answer that is nothing but an article keeps it: it may be the letter of a choice.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = re.sub(r"['’]", "", text)
    kept = re.split(r"((?<=\d)[.](?=\d))", text)  # every second piece is such a point
    kept[::2] = ["".join(" " if unicodedata.category(c)[0] in "PSZ" else c for c in piece) for piece in kept[::2]]
    words = [_NUMBERS.get(word, word) for word in "".join(kept).split()]
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def exact_match(prediction: str, answer: str) -> bool:
    """Whether two answers are the same after normalisation, as the module's docstring states it."""
    said, right = normalise_answer(prediction), normalise_answer(answer)
    if not said:
        return False
    words = said.split()
    if right in _YES_NO and not (set(words) >= _YES_NO and set(words) <= _NOT_AN_ANSWER):
        return words[0] == right
    return said == right


def token_recall(prediction: str, answer: str) -> float:
    """Share of the reference's words that the prediction holds, after normalisation; 0 if the reference has none."""
    said, right = set(normalise_answer(prediction).split()), normalise_answer(answer).split()
    return sum(word in said for word in right) / len(right) if right else 0.0


def score_answer(reply: str, answer: str, closed: bool) -> Breakdown:
    """Reward of one reply to a visual question, 1 for an exact match and 0 otherwise: its only part, :data:`VQA`.

    It is the run's as a whole: with one reply there are no turns to tell apart.

    Parameters
    ----------
    reply
        What the model wrote; see :func:`answer_text`.
    answer
        The reference.
    closed
        Whether the question has one of a few answers. An open one is excluded: there is nothing to train on.
    """
    if not closed:
        return Breakdown(None, {VQA: None}, {}, "open_question")
    value = float(exact_match(answer_text(reply), answer))
    return Breakdown(value, {VQA: value}, {}, None)

from __future__ import annotations

from typing import Any

import pytest

from ibisagent.engine.language.instructions import all_templates, draw_instruction
from ibisagent.engine.language.template_writer import check_template, write_templates


class Fake:
    """Replies from a list, the last again and again."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.calls = list(replies), []

    def complete(self, messages: list[dict[str, Any]], *, temperature: float, max_tokens: int, seed: int) -> str:
        self.calls.append({"messages": messages, "temperature": temperature, "max_tokens": max_tokens, "seed": seed})
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


GOOD = (
    "On the {image} before us, run a fine pencil along the rim of {the}.",
    "Shade {the} so that no one can overlook where {it} end{s}.",
    "Carve out {the} as if with a scalpel.",
)


def test_good_lines_are_taken_and_bad_ones_named() -> None:
    reply = (
        "```\n1. " + GOOD[0] + '\n- "' + GOOD[1] + '"\nSegment the liver.\n\nSegment {the}!\n* Do {something} now.\n```'
    )
    client = Fake(reply, GOOD[2] + "\n" + GOOD[0])
    written = write_templates(client, "direct", 3, 7)
    assert written.accepted == GOOD and written.category == "direct"
    reasons = {r.text: r.reason for r in written.rejected}
    assert reasons["Segment the liver."] == "does not name the target"
    assert reasons["Segment {the}!"].startswith("nearly the same as")
    assert reasons["Do {something} now."] == "unknown placeholder: something"
    assert reasons[GOOD[0]].startswith("nearly the same as"), "its own lines are known too"
    assert len(client.calls) == 2
    assert "Write 3 new" in client.calls[0]["messages"][1]["content"]
    assert "Write 1 new" in client.calls[1]["messages"][1]["content"]


def test_the_same_seed_asks_the_same_and_never_shows_held_out_templates() -> None:
    one, other = Fake("nothing"), Fake("nothing")
    assert write_templates(one, "polite", 5, 3) == write_templates(other, "polite", 5, 3)
    assert one.calls == other.calls and len(one.calls) == 1, "a model with nothing to say is asked no more"
    said = one.calls[0]["messages"][1]["content"]
    assert not any(t in said.split("\n") for t in all_templates("start", "test")["polite"])
    assert sum(t in said.split("\n") for t in all_templates("start", "train")["polite"]) == 5


def test_written_templates_are_drawn_in_training_only() -> None:
    extra = {"direct": (GOOD[2],)}
    seeds = range(400)
    texts = {draw_instruction("spleen", "CT", s, category="direct", extra=extra).text for s in seeds}
    assert "Carve out the spleen as if with a scalpel." in texts
    test = {draw_instruction("spleen", "CT", s, category="direct", extra=extra, split="test").text for s in seeds}
    assert "Carve out the spleen as if with a scalpel." not in test


@pytest.mark.parametrize(
    ("text", "category", "reason"),
    [
        ("", "direct", "empty"),
        ("Mark {the} " + "x" * 300, "direct", "longer"),
        ("Mark {the.", "direct", "braces"),
        ("Mark {the!r} with a fine pencil.", "direct", "braces"),
        ("Mark {0} with a fine pencil.", "direct", "braces"),
        ("Mark {}.", "direct", "braces"),
        ("After the {mask}, chart {the}.", "direct", "unknown placeholder"),
        ("Chart the {the} with a pencil.", "direct", "article"),
        ("In a {image}, chart {the} well.", "direct", "article"),
        ("Chart {the}, for {the} is hard to see.", "direct", "verb"),
        ("Tell me, where is {the} to be charted?", "question", "verb"),
        ("Chart {the} beside the kidneys.", "direct", "names a structure: kidneys"),
        ("Chart {the} on the ultrasound.", "direct", "names a modality"),
        ("Chart {the} with a fine pencil", "direct", "not a sentence"),
        ("- chart {the} with a fine pencil.", "direct", "not a sentence"),
    ],
)
def test_what_is_no_template(text: str, category: str, reason: str) -> None:
    found = check_template(text, category)
    assert found is not None and reason in found


def test_the_library_is_known_unless_another_is_given() -> None:
    held_out = all_templates("start", "test")["polite"][3]
    for category in ("polite", "direct"):
        found = check_template(held_out, category)
        assert found is not None and found.startswith("nearly the same as")
    trained = all_templates("start", "train")["polite"][3]
    assert check_template(trained, "polite") is not None
    assert check_template(held_out, "polite", known=()) is None
    assert check_template(GOOD[0], "direct") is None
    assert check_template(GOOD[0], "direct", known=[GOOD[0]]) is not None


def test_history_belongs_to_refining_categories() -> None:
    assert check_template("{Done}; from the {mask}, work towards {the}.", "improve_correct") is None


def test_the_library_passes_its_own_checks() -> None:
    for category, templates in all_templates().items():
        for template in templates:
            assert check_template(template, category, known=()) is None, template


@pytest.mark.parametrize(("category", "count"), [("nonsense", 3), ("direct", 0)])
def test_wrong_arguments(category: str, count: int) -> None:
    with pytest.raises(ValueError):
        write_templates(Fake(""), category, count, 0)

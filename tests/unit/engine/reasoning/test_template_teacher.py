"""Thoughts that are true of the picture, varied, and free of what only the Oracle view shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ibisagent.actions import BoxAction, Click, ClickAction, TerminateAction, UndoAction
from ibisagent.engine.language.naming import target_phrases
from ibisagent.engine.moments import Intent, Moment
from ibisagent.engine.reasoning.facts import measure
from ibisagent.engine.reasoning.phrases import library
from ibisagent.engine.reasoning.slots import share_words, slots_of
from ibisagent.engine.reasoning.template_teacher import TemplateTeacher
from ibisagent.engine.reasoning.verifier import MAX_WORDS, verify

Make = Callable[..., Moment]
Run = Callable[[int], list[Moment]]
TEACHER = TemplateTeacher()


def click(x: float, y: float, positive: bool = True) -> ClickAction:
    return ClickAction(clicks=(Click(x=x, y=y, positive=positive),))


def thoughts(moment: Moment, count: int = 40, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [TEACHER.think(moment, rng) for _ in range(count)]


@pytest.fixture(scope="module")
def corpus(expert_moments: Run) -> list[tuple[Moment, str]]:
    """At least 300 moments of runs on phantoms, with the thoughts of each run kept."""
    rng = np.random.default_rng(0)
    said = []
    for seed in range(88):
        run: list[str] = []
        for moment in expert_moments(seed):
            moment = replace(moment, thoughts=tuple(run))
            run.append(TEACHER.think(moment, rng))
            said.append((moment, run[-1]))
    assert len(said) >= 300
    return said


def test_thoughts_are_varied_and_never_repeat_at_once(corpus: list[tuple[Moment, str]]) -> None:
    texts = [text for _, text in corpus]
    assert len(set(texts)) >= 0.9 * len(texts)
    for moment, text in corpus:
        assert not moment.thoughts or moment.thoughts[-1] != text
    trigrams = [tuple(words[i : i + 3]) for words in map(str.split, texts) for i in range(len(words) - 2)]
    assert len(set(trigrams)) / len(trigrams) > 0.12
    openings = Counter(" ".join(text.split()[:4]) for text in texts)
    assert openings.most_common(1)[0][1] < 0.1 * len(texts)


def test_the_verifier_lets_every_thought_and_answer_pass(corpus: list[tuple[Moment, str]]) -> None:
    rng = np.random.default_rng(1)
    for moment, text in corpus:
        assert verify(text, moment) == [], text
        if moment.action.kind == "terminate":
            answer = TEACHER.answer(moment, rng)
            assert answer and verify(answer, moment) == [], answer


def test_thoughts_are_clean_sentences(corpus: list[tuple[Moment, str]]) -> None:
    for _, text in corpus:
        assert text[0].isupper() and text.endswith((".", "?"))
        assert "{" not in text and "  " not in text and len(text.split()) <= MAX_WORDS
        assert all(sentence[0].isupper() for sentence in re.split(r"(?<=[.?]) ", text)), text
        assert not re.search(r"\b(?:a|an) (?:a|an|the)\b|\bthe the\b|\ba [aeio]", text), text


def test_thoughts_do_not_depend_on_the_target(corpus: list[tuple[Moment, str]]) -> None:
    for moment, _ in corpus[:60]:
        assert moment.target is not None
        for target in (None, ~moment.target):
            assert thoughts(replace(moment, target=target), 3) == thoughts(moment, 3)


def test_the_same_generator_gives_the_same_thought(make_moment: Make) -> None:
    assert thoughts(make_moment(), seed=3) == thoughts(make_moment(), seed=3)


@pytest.mark.parametrize("intent", [i.value for i in Intent])
def test_every_intent_has_many_thoughts_that_name_the_target(make_moment: Make, intent: str) -> None:
    moment = make_moment(intent, mask=None if intent == "absent" else make_moment(intent).mask)
    said = thoughts(moment, 60)
    assert len(set(said)) >= 25
    assert all("left lung" in text or "patient's left" in text for text in said)
    for text in said:
        assert verify(text, moment) == [], text


def test_sides_are_those_of_the_picture(make_moment: Make) -> None:
    for x, side, other in ((0.1, "left", "right"), (0.9, "right", "left")):
        for text in thoughts(make_moment("start", name="liver", action=click(x, 0.5))):
            assert f"{other} of the" not in text and f"{other} side" not in text
        texts = " ".join(thoughts(make_moment("missed", name="liver", action=click(x, 0.5))))
        assert f"to the {side} of the green" in texts and f"to the {other} of the green" not in texts


def test_what_is_said_of_brightness_is_measured(make_moment: Make) -> None:
    inside_like = " ".join(thoughts(make_moment("excess", action=click(0.45, 0.45, False))))
    assert "darker" not in inside_like and "brighter" in inside_like  # the whole mask is brighter than outside
    outside = " ".join(thoughts(make_moment("missed", action=click(0.1, 0.1))))
    assert "darker than" in outside and "as bright as" not in outside


def test_what_the_last_click_did_is_said_with_its_size(make_moment: Make) -> None:
    before = np.zeros((100, 100), np.bool_)
    before[40:60, 40:55] = True
    moment = make_moment("undo", previous_mask=before, previous_action=click(0.5, 0.5))
    texts = thoughts(moment)
    assert any("by about 35 %" in text for text in texts) and not any("shrank" in text for text in texts)
    moment = replace(moment, mask=before, previous_mask=moment.mask)
    texts = thoughts(moment)
    assert any("by about 25 %" in text for text in texts) and not any("grow" in text for text in texts)


def test_a_wrong_click_is_never_called_wrong(make_moment: Make) -> None:
    for changes in (
        {"action": click(0.1, 0.1)}, {"action": click(0.45, 0.45, False)}, {"mask": None, "action": click(0.1, 0.1)},
    ):  # fmt: skip
        for text in thoughts(make_moment("wrong", **changes)):
            assert not re.search(r"\b(?:wrong|mistake|undo|error|purpose)\b", text)
            assert ("negative" in text) <= (not changes["action"].clicks[0].positive)


@pytest.mark.parametrize(
    ("intent", "hint", "words"),
    [
        ("start", "wrong_place", r"instruction|request|user"),
        ("fits", "false_error", r"user|request"),
        ("start", "false_mask", r"request|user"),
    ],
)
def test_a_false_instruction_is_met_at_the_first_step(make_moment: Make, intent: str, hint: str, words: str) -> None:
    moment = make_moment(intent, hint=hint, index=0)
    for text in thoughts(moment):
        assert re.search(words, re.split(r"(?<=\.) ", text)[0])
        assert verify(text, moment) == [], text
    later = " ".join(thoughts(replace(moment, index=2)))
    for sentence in library().phrases[f"hint_{hint}"]:
        assert sentence.text.split(",")[0].split("{")[0] not in later


def test_a_wrong_hint_that_does_not_go_with_the_step_is_left_out(make_moment: Make) -> None:
    moment = make_moment("missed", hint="false_error", index=0)
    assert not any("user" in text for text in thoughts(moment))


def test_boxes_undone_clicks_and_given_masks(make_moment: Make) -> None:
    box = BoxAction(x0=0.3, y0=0.3, x1=0.7, y1=0.7)
    moment = make_moment("start", action=box, index=0)
    texts = thoughts(moment)
    assert any("box" in text for text in texts) and not any("click" in text for text in texts)
    after = make_moment("start", mask=None, previous_action=UndoAction(), previous_intent=Intent.UNDO)
    assert not any("There is no mask yet" in text for text in thoughts(after))
    given = make_moment("discard", given=True, index=0)
    assert any("given mask" in text for text in thoughts(given))
    for one in (moment, after, given):
        for text in thoughts(one):
            assert verify(text, one) == [], text


def test_when_words_run_out_a_thought_still_differs_from_the_last(make_moment: Make) -> None:
    class Stuck(TemplateTeacher):
        def _draw(self, moment: Moment, rng: np.random.Generator) -> str:
            return "The mask misses a part of the left lung."

    text = Stuck().think(make_moment(), np.random.default_rng(0))
    again = Stuck().think(make_moment(thoughts=(text,)), np.random.default_rng(0))
    assert again != text and again.endswith(text)


def test_plural_targets(make_moment: Make) -> None:
    said = [t for intent in ("missed", "fits", "absent") for t in thoughts(make_moment(intent, name="lungs"))]
    assert not re.search(r"(?:The|that the|see, the) lungs (?:is|goes|ends|does|has)\b", " ".join(said))
    assert any("lungs are covered" in text for text in said)


def square(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((100, 100), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def test_an_uncertain_end_speaks_of_several_clicks_only_after_several(make_moment: Make) -> None:
    several = re.compile(r"More clicks|Going on|closer|these clicks|more than once")
    before = {"previous_mask": square(40, 40, 60, 55), "previous_action": click(0.5, 0.5)}
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"index": 2, **before}, True),
        ({"index": 1, **before}, False),
        ({"index": 0}, False),
        ({"index": 2, "given": True, **before, "previous_mask": None}, False),  # discard, one click
    ]
    for changes, may in cases:
        moment = make_moment("rough", **changes)
        texts = thoughts(moment, 60)
        assert any(several.search(text) for text in texts) == may
        for text in texts:
            assert "without a better outline" not in text and verify(text, moment) == [], text


def test_a_fit_is_said_soberly_and_in_many_ways() -> None:
    judged = " ".join(s.text for part in ("fits_judge", "fits_do") for s in library().phrases[part])
    assert len(library().phrases["fits_judge"]) >= 8
    assert not re.search(r"closely|hardly|exactly|perfect|nothing|little besides|completely", judged)


def test_a_click_that_gave_no_mask_is_not_a_first_click(make_moment: Make) -> None:
    empty = np.zeros((100, 100), np.bool_)
    for intent in ("start", "missed", "wrong"):
        for previous in (None, square(40, 40, 60, 60)):
            moment = make_moment(intent, mask=empty, previous_mask=previous, previous_action=click(0.2, 0.2))
            texts = thoughts(moment, 60)
            assert not any(re.search(r"[Ff]irst click|yet|so far|begin|I start", text) for text in texts)
            assert any("gave no mask" in text for text in texts) == (previous is None)
            assert any(re.search("any more|took all", text) for text in texts) == (previous is not None)
            assert len(set(texts)) >= 25
            for text in texts:
                assert verify(text, moment) == [], text
    assert any("My first click" in text for text in thoughts(make_moment("start", index=0)))


def test_the_picture_is_bare_again_only_where_something_was_green(make_moment: Make) -> None:
    for previous, said in ((np.zeros((100, 100), np.bool_), False), (square(40, 40, 60, 60), True)):
        moment = make_moment("start", index=2, previous_mask=previous, previous_action=UndoAction())
        assert any("bare again" in text for text in thoughts(moment, 80)) == said


def test_a_mask_cut_in_two_brought_nothing_up(make_moment: Make) -> None:
    whole, cut = square(20, 40, 80, 60), square(20, 40, 45, 60) | square(55, 40, 80, 60)
    for before, after, came in ((whole, cut, False), (square(20, 40, 45, 60), cut, True)):
        moment = make_moment("undo", mask=after, previous_mask=before, previous_action=click(0.5, 0.5, came))
        texts = thoughts(moment, 60)
        assert any("brought up a separate piece" in text for text in texts) == came
        assert any("in more separate pieces" in text for text in texts) != came


def test_the_edge_of_the_image_is_named_where_the_mask_reaches_it_near_the_click(make_moment: Make) -> None:
    # Touches the upper edge on the left, and has its clicked part on the right, away from the edge.
    mask = square(0, 0, 20, 30) | square(0, 20, 100, 30)
    for x, said in ((0.9, False), (0.1, True)):
        texts = " ".join(thoughts(make_moment("excess", mask=mask, action=click(x, 0.25, False)), 200))
        assert ("as far as the upper edge" in texts or "as far as the left edge" in texts) == said


def test_tones_are_no_bare_comparatives(make_moment: Make) -> None:
    assert not re.search(r"\ba (?:brighter|darker) area(?! like)", " ".join(thoughts(make_moment("start"), 80)))
    pixels = np.full((100, 100, 3), 100, np.uint8)
    pixels[46:54, 46:54] = 150
    texts = " ".join(thoughts(make_moment("start", pixels=pixels), 80))
    assert "a comparatively bright area" in texts and "a brighter area" not in texts


def test_answers(make_moment: Make) -> None:
    rng = np.random.default_rng(0)
    for intent in ("fits", "rough", "absent"):
        moment = make_moment(intent)
        said = {TEACHER.answer(moment, rng) for _ in range(30)}
        assert len(said) >= 3 and all("{" not in text for text in said)
        for text in said:
            TerminateAction(verdict="found", answer=text)
    assert TEACHER.answer(make_moment("missed"), rng) == ""


def known_slots(make_moment: Make, expert_moments: Run) -> set[str]:
    rng = np.random.default_rng(0)
    slots: set[str] = set()
    extra: list[Any] = [moment for seed in range(40) for moment in expert_moments(seed)]
    moments = [make_moment(i.value) for i in Intent] + extra
    for moment in moments:
        facts = measure(moment)
        slots |= set(slots_of(facts, moment, target_phrases(moment.name)[0], rng))
    return slots


def test_the_library_is_whole(make_moment: Make, expert_moments: Run) -> None:
    """Plans name parts that exist; every slot of a sentence is one that pictures fill."""
    lib = library()
    slots = known_slots(make_moment, expert_moments)
    used = {part for plans in lib.plans.values() for plan in plans for part in plan}
    hints = {part for part in lib.phrases if part.startswith("hint_")}
    assert used | hints == set(lib.phrases)
    rare = {"new_border", "click_border", "border", "gained", "change_at", "shrank"}
    for sentences in (*lib.phrases.values(), *lib.answers.values()):
        assert len({s.text for s in sentences}) == len(sentences)
        for sentence in sentences:
            assert set(re.findall(r"{(\w+)}", sentence.text)) <= slots | rare, sentence
    assert set(lib.plans) >= {i.value for i in Intent} - {"wrong"}


def test_shares_in_words() -> None:
    assert [share_words(s) for s in (0.001, 0.1, 0.25, 0.5, 1.0)] == [
        "a very small part of the image", "about a tenth of the image", "about a quarter of the image",
        "about half of the image", "most of the image",
    ]  # fmt: skip

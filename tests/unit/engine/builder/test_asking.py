from __future__ import annotations

from collections import Counter

import numpy as np

from ibisagent.engine.builder.asking import NEUTRAL, Asker, absent_names, pick_name
from ibisagent.engine.builder.config import load_config
from ibisagent.engine.sources.phantoms import PhantomReader
from ibisagent.engine.sources.sample import Sample

READER = PhantomReader("chest_ct", 0, 96)


def asker(**settings: object) -> Asker:
    config = load_config(("phantoms:1",), "ibis", None, **settings)
    sample = Sample("a", "s", READER, ("left lung",), instructions={"left lung": ("Do the left one.",)})
    return Asker(sample, "CT", config, "train")


def drawn(a: Asker, number: int = 200, **how: object) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter(a.ask("left lung", rng, **{"given": False, **how}).category for _ in range(number))  # type: ignore[arg-type]


def test_shares_of_own_and_implicit_sentences() -> None:
    found = drawn(asker(own_share=0.5, implicit_share=0.5), 400)
    assert 150 < found["own"] < 250 and 60 < found["implicit"] < 140
    assert set(drawn(asker(own_share=0.0, implicit_share=0.0))).isdisjoint({"own", "implicit"})


def test_nobody_complains_of_a_good_mask() -> None:
    assert set(drawn(asker(), given=True, fits=True)) == set(NEUTRAL)
    assert "error_hint" in drawn(asker(), given=True)


def test_a_false_hint_is_its_own_category() -> None:
    rng = np.random.default_rng(1)
    instruction = asker().ask("left lung", rng, given=False, hint="wrong_place", place="upper left")
    assert instruction.category == "wrong_place" and "upper left" in instruction.text


def test_what_may_be_called_absent() -> None:
    names = {"CT": ("left lung", "lung tumor", "liver"), "OCT": ("retinal pigment epithelium",), "MRI": ("brain",)}
    found = absent_names(["lung tumor", "lungs", "left lung"], "CT", None, ["left lung"], names)
    assert found.known == ["lung tumor"], "a lesion in what is there may be absent; the whole of it is not"
    assert found.foreign == ["retinal pigment epithelium"], "a CT may show a brain, and a liver beside a lung"
    assert absent_names([], None, None, ["left lung"], names).foreign == []


def test_one_noun_with_many_names_does_not_crowd_out_the_others() -> None:
    names = ["aorta", *(f"{word} nucleus" for word in ("largest", "smallest", "leftmost", "rightmost", "lowest"))]
    rng = np.random.default_rng(0)
    found = Counter(pick_name(names, rng) for _ in range(300))
    assert 120 < found["aorta"] < 180 and set(found) == set(names)

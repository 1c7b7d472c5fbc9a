"""The grammar of a run must be the one that its model is told."""

from __future__ import annotations

import pytest

from ibisagent.actions import DIALECTS, dialect_for
from ibisagent.errors import InputError
from ibisagent.messages import default_system_prompt, system_prompt_for_weights


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_dialect_fits_its_own_prompt_and_any_that_quotes_none(name: str) -> None:
    own = default_system_prompt(DIALECTS[name])
    for prompt in (own, None, "", "Segment the target.\nLook twice.", own + "\nBe brief."):
        assert dialect_for(name, prompt) is DIALECTS[name]
    # A segmenter without boxes offers none.
    fewer = DIALECTS[name].restrict(DIALECTS[name].kinds - {"box"})
    assert dialect_for(name, default_system_prompt(fewer)) is DIALECTS[name]


def test_a_prompt_of_another_dialect_is_refused_in_one_line() -> None:
    plain = default_system_prompt(DIALECTS["plain"])
    with pytest.raises(InputError, match=r"dialect 'ibis-paper', but .* offers '.+'; set dialect to plain$") as error:
        dialect_for("ibis-paper", plain)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"set dialect to plain$"):
        dialect_for("json", plain)
    with pytest.raises(InputError, match=r"set dialect to ibis-paper$"):
        dialect_for("plain", system_prompt_for_weights())
    both = plain + "\n" + default_system_prompt(DIALECTS["json"])
    with pytest.raises(InputError, match=r"a prompt of one dialect$"):
        dialect_for("ibis-paper", both)
    with pytest.raises(InputError, match=r"no dialect is called 'latin'; there are plain"):
        dialect_for("latin", plain)


def test_how_a_grammar_is_laid_out_does_not_matter() -> None:
    for name, dialect in DIALECTS.items():
        listed = "\n".join(f"  - {line}  " for line in default_system_prompt(dialect).splitlines())
        assert dialect_for(None, listed) is DIALECTS[name]
        other = "json" if name == "plain" else "plain"
        with pytest.raises(InputError, match=rf"set dialect to {name}$"):
            dialect_for(other, listed)


def test_what_the_model_learnt_counts_beside_what_it_is_told() -> None:
    assert dialect_for("json", "Segment.", "json") is DIALECTS["json"]
    with pytest.raises(InputError, match=r"dialect 'plain', but the model learnt 'json'; set dialect to json$"):
        dialect_for("plain", "Segment.", "json")


def test_without_a_name_it_is_the_dialect_that_the_model_is_told() -> None:
    for name, dialect in DIALECTS.items():
        assert dialect_for(None, default_system_prompt(dialect)) is DIALECTS[name]
    assert dialect_for(None, system_prompt_for_weights()) is DIALECTS["ibis-paper"]
    for quotes_none in (None, "", "Segment the target by clicks."):
        assert dialect_for(None, quotes_none) is DIALECTS["plain"]
    shared = set.intersection(*(set(dialect.describe().splitlines()) for dialect in DIALECTS.values()))
    assert shared and dialect_for(None, min(shared)) is DIALECTS["plain"]
    both = default_system_prompt(DIALECTS["plain"]) + "\n" + default_system_prompt(DIALECTS["json"])
    with pytest.raises(InputError, match=r"several dialects; give it a prompt of one dialect$"):
        dialect_for(None, both)

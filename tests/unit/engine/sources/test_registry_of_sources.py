"""Specs and options: what is understood, and what one line says of the rest."""

from __future__ import annotations

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.sources.options import CommonOptions, Options
from ibisagent.engine.sources.registry import SOURCES, open_source, parse_source
from ibisagent.errors import InputError


def quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


@given(
    st.text(min_size=1),
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=12), max_size=4),
)
def test_a_spec_carries_any_text(path: str, options: dict[str, str]) -> None:
    query = "&".join(f"{quoted(name)}={quoted(value)}" for name, value in options.items())
    assert parse_source(f"mini:{quoted(path)}?{query}") == ("mini", path, options)


def test_a_plus_stays_a_plus_and_plain_paths_need_no_quoting() -> None:
    assert parse_source("folders:/data/a+b c:d?mask_suffix=_m+1") == (
        "folders",
        "/data/a+b c:d",
        {"mask_suffix": "_m+1"},
    )


@pytest.mark.parametrize("spec", ["", "mini", "mini:", ":x", "mini:?a=b", "mini:x?a", "mini:x?=b", "mini:x?a=1&a=2"])
def test_a_broken_spec_is_one_line(spec: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_names_all_kinds() -> None:
    with pytest.raises(InputError, match="biomedparse, coco, dicomseg, folders, instances, mecovqa, mini, nifti"):
        open_source("medsam:x")


def test_an_unknown_option_names_the_allowed_ones() -> None:
    with pytest.raises(
        InputError, match=r"'phantoms' has no option 'sed'; there are kinds, licence, modality, name, seed"
    ):
        open_source("phantoms:3?sed=1")


@pytest.mark.parametrize("kind", ["mini", "biomedparse", "npz", "folders", "coco", "instances"])
def test_no_data_set_at_all_is_an_input_error(kind: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    options = {"folders": "?target=x", "instances": "?noun=x"}.get(kind, "")
    with pytest.raises(InputError):
        list(open_source(f"{kind}:{tmp_path}/nothing{options}").samples())


@pytest.mark.parametrize("kind", ["mini", "biomedparse", "npz", "folders", "coco", "instances", "phantoms"])
def test_every_kind_of_mine_has_its_factory(kind: str) -> None:
    module, _, name = SOURCES[kind].partition(":")
    assert callable(getattr(import_module(module), name).from_spec)


def test_numbers_flags_and_words() -> None:
    options = Options("k", {"n": "12", "f": "1", "w": "b, a,b", "e": ""}, extra=("n", "f", "w", "e"))
    assert options.integer("n", 3) == 12 and options.integer("m", 3) == 3
    assert options.flag("f") and not options.flag("g") and options.flag("g", True)
    assert options.words("w", ("a", "b"), ()) == ("b", "a")
    assert options.suffix("e", "x") == "" and options.suffix("none", "x") == "x"


@pytest.mark.parametrize(
    ("values", "call"),
    [
        ({"n": "-1"}, lambda o: o.integer("n", 0)),
        ({"n": "1e3"}, lambda o: o.integer("n", 0)),
        ({"n": "0"}, lambda o: o.integer("n", 1, least=1)),
        ({"n": "yes"}, lambda o: o.flag("n")),
        ({"n": "c"}, lambda o: o.words("n", ("a", "b"), ())),
        ({"n": ","}, lambda o: o.words("n", ("a", "b"), ())),
        ({"n": "  "}, lambda o: o.text("n")),
        ({"split": "training"}, lambda o: o.common("x")),
        ({"group": "p("}, lambda o: o.common("x")),
        ({"group": r"p\d+"}, lambda o: o.common("x")),
    ],
)
def test_wrong_values_are_named(values, call) -> None:  # type: ignore[no-untyped-def]
    (option,) = values
    with pytest.raises(InputError, match=f"option {option}="):
        call(Options("k", values, extra=("n",)))


def test_options_win_except_over_a_stated_split() -> None:
    options = CommonOptions("set", modality="CT", split="train", group=r"(p\d+)")
    sample = options.sample("k", lambda: None, ("a",), stem="x_p07_3", modality="MRI", group="other", split="test")  # type: ignore[arg-type]
    assert (sample.modality, sample.group, sample.split, sample.licence) == ("CT", "p07", "test", "unknown")
    free = options.sample("k", lambda: None, ("a",), stem="p1")  # type: ignore[arg-type]
    assert (free.split, free.group) == ("train", "p1")


def test_a_group_pattern_that_finds_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="finds nothing in 'scan'"):
        CommonOptions("set", group=r"p(\d+)").group_of("scan")
    assert CommonOptions("set").group_of("scan") is None

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ibisagent.actions import BoxAction, Click, ClickAction, DiscardAction, TerminateAction, UndoAction
from ibisagent.episode import (
    Episode,
    ImageRecord,
    Invalid,
    Outcome,
    PolicyRecord,
    Seconds,
    Step,
    WindowRecord,
    decode_mask,
    encode_mask,
)
from ibisagent.errors import InputError
from ibisagent.geometry import Geometry

H, W = 6, 9
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
seconds = st.floats(0, 1e6)
coordinate = st.integers(0, 10_000).map(lambda n: n / 10_000)
click = st.builds(Click, x=coordinate, y=coordinate, positive=st.booleans())
rle = hnp.arrays(np.bool_, (H, W)).map(encode_mask)
action = st.one_of(
    st.builds(ClickAction, clicks=st.lists(click, min_size=1, max_size=3).map(tuple)),
    st.just(BoxAction(x0=0.1, y0=0.2, x1=0.3, y1=0.4)),
    st.just(UndoAction()),
    st.just(DiscardAction()),
    st.just(TerminateAction(verdict="uncertain", answer="perhaps")),
)
step = st.builds(
    Step,
    index=st.integers(0, 99),
    messages=st.just([{"role": "user", "content": [{"type": "image", "sha256": "00"}]}]),
    raw_text=text,
    thought=st.none() | text,
    action=st.none() | action,
    invalid=st.none() | st.builds(Invalid, code=text, reason=text),
    pixels_xy=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=3),
    world_mm=st.none() | st.just([(1.5, -2.25, 0.1)]),
    mask=st.none() | rle,
    segmenter_score=st.none() | st.floats(0, 1),
    changed_pixels=st.none() | st.integers(0, 99),
    seconds=st.builds(Seconds, policy=seconds, segmenter=seconds),
    num_tokens=st.none() | st.integers(0, 99),
)
episodes = st.builds(
    Episode,
    ibisagent_version=st.just("0.1.0"),
    case_id=text,
    target=st.none() | text,
    instruction=text,
    image=st.builds(
        ImageRecord,
        sha256=st.just("ab"),
        source=text,
        width=st.just(W),
        height=st.just(H),
        modality=st.none() | text,
        window=st.none() | st.builds(WindowRecord, low=seconds, high=seconds, name=text),
        geometry=st.just(Geometry.plane_2d((1.0, 0.5)).to_json()),
    ),
    initial_mask=st.none() | rle,
    policy=st.builds(PolicyRecord, name=text, dialect=st.just("plain")),
    seed=st.integers(0, 2**40),
    steps=st.lists(step, max_size=4),
    outcome=st.none() | st.sampled_from(Outcome),
    answer=text,
    final_mask=st.none() | rle,
    seconds_total=seconds,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(episodes)
def test_save_and_load_give_the_same(tmp_path_factory: pytest.TempPathFactory, episode: Episode) -> None:
    path = tmp_path_factory.mktemp("e") / "episode.json"
    episode.save(path)
    assert Episode.load(path) == episode
    assert [p.name for p in path.parent.iterdir()] == ["episode.json"]  # no temporary file is left


def tiny(**changes: object) -> Episode:
    image = ImageRecord(sha256="ab", width=W, height=H)
    return Episode(instruction="Segment it.", image=image).model_copy(update=changes)


def test_counting_and_current_mask() -> None:
    first, second = encode_mask(np.zeros((H, W), bool)), encode_mask(np.ones((H, W), bool))
    episode = tiny(initial_mask=first)
    assert episode.num_steps == 0 and episode.current_mask_rle == first
    refused = Invalid(code="nothing_found", reason="no mask")
    episode.steps = [
        Step(index=0, raw_text="junk", invalid=Invalid(code="junk", reason="junk"), mask=first),
        Step(index=1, action=TerminateAction(), invalid=refused, mask=first),
        Step(index=2, action=UndoAction(), mask=second, changed_pixels=3),
        Step(index=3, action=TerminateAction(), mask=second),
    ]
    assert episode.num_steps == 3  # only the Terminate that was carried out does not count
    assert episode.current_mask_rle == second
    assert [s.failed for s in episode.steps] == [False] * 4


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "episode.json"
    tiny(answer="old").save(path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        tiny(answer="new").save(path)
    assert Episode.load(path).answer == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_fields_of_a_newer_minor_version_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "episode.json"
    data = json.loads(tiny().model_dump_json())
    path.write_text(json.dumps({**data, "mood": "good"}))
    assert Episode.load(path) == tiny()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "no schema_version"),
        (b"{}", "no schema_version"),
        (b'{"schema_version": 2}', "schema version 2, this ibisagent reads 1"),
        (b'{"schema_version": "1"}', "schema version 1"),
        (b'{"schema_version": 1}', "damaged episode: instruction"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "episode.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        Episode.load(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        Episode.load(tmp_path / "none.json")


def test_masks_must_have_the_images_size(tmp_path: Path) -> None:
    path = tmp_path / "episode.json"
    tiny(final_mask=encode_mask(np.ones((H, W + 1), bool))).save(path)
    with pytest.raises(InputError, match="a mask is"):
        Episode.load(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "episode.json"
    whole = tiny(final_mask=encode_mask(np.eye(H, W, dtype=bool))).model_dump_json().encode()
    for cut in range(0, len(whole) - 1, 17):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            Episode.load(path)


def test_rle_is_reexported() -> None:
    mask = np.eye(4, dtype=bool)
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)

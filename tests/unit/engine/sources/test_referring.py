"""Which object a word means: by hand on small fields, and never where two readings of the word disagree."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ibisagent.engine.sources.referring import WORDS, Margins, measure, refer
from ibisagent.phantoms.nuclei import extreme_nuclei

SHAPE = (60, 80)


def field(*boxes: tuple[int, int, int, int]) -> NDArray[np.int32]:
    """Rectangles (x, y, width, height), numbered 3, 6, 9 …"""
    labels = np.zeros(SHAPE, np.int32)
    for number, (x, y, w, h) in enumerate(boxes, start=1):
        labels[y : y + h, x : x + w] = 3 * number
    return labels


def words(labels: NDArray[np.int32], gray: NDArray[np.float64] | None = None) -> dict[str, int]:
    return refer(measure(labels, gray), labels.shape)


def test_measures_by_hand() -> None:
    labels = field((10, 5, 4, 2), (0, 20, 3, 3))
    gray = np.where(labels == 3, 7.0, 1.0)
    first, second = measure(labels, gray)
    assert (first.label, first.area, first.x, first.y) == (3, 8, 11.5, 5.5)
    assert (first.x0, first.y0, first.x1, first.y1, first.whole, first.brightness) == (10, 5, 13, 6, True, 7.0)
    assert (second.x0, second.whole) == (0, False)
    assert measure(np.zeros((3, 3), np.uint16)) == ()


def test_every_word_finds_its_object() -> None:
    labels = field((5, 20, 6, 6), (30, 2, 6, 6), (60, 25, 7, 7), (35, 45, 10, 10), (35, 25, 4, 4))
    gray = np.where(labels == 9, 200.0, 50.0)
    assert words(labels, gray) == {
        "largest": 12,
        "smallest": 15,
        "leftmost": 3,
        "rightmost": 9,
        "uppermost": 6,
        "lowest": 12,
        "brightest": 9,
    }
    assert "brightest" not in words(labels)


def test_close_runs_are_not_called() -> None:
    labels = field((5, 20, 10, 10), (6, 40, 10, 10), (40, 20, 10, 12), (60, 20, 5, 5), (60, 30, 5, 5))
    found = words(labels)
    assert "leftmost" not in found  # one pixel ahead, of 80
    assert "smallest" not in found  # two of the same size
    assert found["largest"] == 9  # 120 to 100 pixels
    assert "largest" not in refer(measure(labels), SHAPE, Margins(area=1.25))


def test_centroid_and_edge_must_agree() -> None:
    # The long one reaches farther left, the small one's centre lies farther left.
    labels = field((4, 10, 40, 5), (8, 30, 6, 6), (60, 40, 6, 6))
    assert "leftmost" not in words(labels)


def test_cut_objects_are_rivals_but_never_named() -> None:
    whole = ((20, 10, 6, 6), (40, 30, 8, 8), (60, 42, 7, 7))
    assert words(field(*whole))["largest"] == 6
    assert words(field(*whole))["leftmost"] == 3
    cut = words(field(*whole, (0, 20, 9, 9)))
    assert "largest" not in cut  # 81 pixels are seen of the cut one, 64 of the largest whole one
    assert "leftmost" not in cut
    assert cut["smallest"] == 3 and cut["rightmost"] == 9
    sliver = words(field(*whole, (0, 20, 1, 8)))
    assert "smallest" not in sliver and sliver["largest"] == 6


def test_few_objects_and_specks() -> None:
    assert words(field((20, 10, 6, 6), (40, 30, 8, 8))) == {}
    assert words(field((20, 10, 6, 6), (40, 30, 8, 8), (0, 50, 5, 5))) == {}
    speck = words(field((20, 10, 6, 6), (40, 30, 8, 8), (60, 42, 7, 7), (5, 5, 2, 2)))
    assert "smallest" not in speck and "leftmost" not in speck and speck["largest"] == 6


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 70), st.integers(0, 50), st.integers(1, 12), st.integers(1, 10)),
        max_size=9,
    )
)
def test_a_named_object_is_ahead_of_all_and_numbers_do_not_matter(boxes: list[tuple[int, int, int, int]]) -> None:
    labels = field(*boxes)
    found = words(labels)
    things = {thing.label: thing for thing in measure(labels)}
    for word, label in found.items():
        chosen, others = things[label], [t for t in things.values() if t.label != label]
        assert chosen.whole
        ahead = {
            "largest": all(chosen.area >= 1.1 * t.area for t in others),
            "smallest": all(1.1 * chosen.area <= t.area for t in others),
            "leftmost": all(chosen.x < t.x and chosen.x0 <= t.x0 for t in others),
            "rightmost": all(chosen.x > t.x and chosen.x1 >= t.x1 for t in others),
            "uppermost": all(chosen.y < t.y and chosen.y0 <= t.y0 for t in others),
            "lowest": all(chosen.y > t.y and chosen.y1 >= t.y1 for t in others),
        }
        assert ahead[word]
    renumbered = np.where(labels > 0, 100_000 - labels, 0)
    assert words(renumbered) == {word: 100_000 - label for word, label in found.items()}


def test_mirrored_fields_mirror_their_words() -> None:
    labels = field((5, 20, 6, 6), (30, 2, 6, 6), (60, 25, 7, 7), (35, 45, 10, 10), (35, 25, 4, 4))
    here, there = words(labels), words(np.ascontiguousarray(labels[:, ::-1]))
    assert (here["leftmost"], here["rightmost"]) == (there["rightmost"], there["leftmost"])
    assert here["uppermost"] == there["uppermost"]


def test_names_are_those_of_the_phantoms_made_stricter() -> None:
    """Every object that is named here has the same name there; there, cut objects are no rivals for a place."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:128, :128]
    named, theirs_only = 0, 0
    for _ in range(60):
        labels = np.zeros((128, 128), np.uint8)
        for number in range(1, int(rng.integers(5, 14))):
            cx, cy, radius = rng.uniform(0, 128), rng.uniform(0, 128), rng.uniform(4, 14)
            labels[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = number
        level = rng.uniform(20, 250, 256)
        theirs = extreme_nuclei(labels, level)
        ours = refer(measure(labels, level[labels]), labels.shape)
        for word, label in ours.items():
            assert np.array_equal(theirs[f"{word} nucleus"], labels == label)
        named += len(ours)
        theirs_only += len(theirs) - len(ours)
    assert named > 60 and theirs_only > 0


def test_words_are_the_documented_ones() -> None:
    assert WORDS == ("largest", "smallest", "leftmost", "rightmost", "uppermost", "lowest", "brightest")

"""Every kind: determinism, shapes, names, sides, and masks that lie where the picture changes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.phantoms import KINDS, MIN_PIXELS, MODALITIES, Phantom, contact_sheet, generate

SEEDS = range(8)
MINI = Path(__file__).parents[3] / "data" / "mini" / "cases.jsonl"
GRAY = {"nuclei", "chest_ct", "brain_mri", "breast_mri", "ultrasound", "xray", "oct"}
# what every drawing of a kind must show, and what it may show
NAMES: dict[str, tuple[set[str], set[str]]] = {
    "nuclei": (
        {"cell nuclei"},
        {f"{w} nucleus" for w in "largest smallest brightest leftmost rightmost uppermost lowest".split()},
    ),
    "chest_ct": ({"body", "bone", "lungs", "left lung", "right lung"}, {"lung tumor", "heart", "aorta"}),
    "brain_mri": (
        {"brain"},
        {"gray matter", "white matter", "cerebrospinal fluid", "ventricles", "brain tumor"},
    ),
    "breast_mri": ({"breast lesion"}, set()),
    "histology": ({"stratum corneum", "epidermis", "dermis"}, set()),
    "ultrasound": (set(), {"cyst", "lesion"}),
    "dermoscopy": ({"skin lesion"}, set()),
    "fundus": ({"optic disc", "vessels"}, set()),
    "endoscopy": ({"polyp"}, set()),
    "xray": ({"lungs", "left lung", "right lung", "heart"}, set()),
    "oct": ({"retina", "retinal pigment epithelium"}, set()),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Phantom]]:
    return {kind: [generate(kind, seed) for seed in SEEDS] for kind in KINDS}


def test_kinds_are_the_ones_promised() -> None:
    assert set(KINDS) == set(NAMES) == set(MODALITIES)


@pytest.mark.parametrize("kind", KINDS)
def test_shape_type_and_names(kind: str, drawn: dict[str, list[Phantom]]) -> None:
    must, may = NAMES[kind]
    for seed, phantom in zip(SEEDS, drawn[kind], strict=True):
        assert phantom.pixels.dtype == np.uint8
        assert phantom.pixels.shape == (256, 256, 3)
        assert phantom.pixels.flags.c_contiguous
        assert (phantom.kind, phantom.seed, phantom.modality) == (kind, seed, MODALITIES[kind])
        assert phantom.masks and must <= set(phantom.masks) <= must | may
        for mask in phantom.masks.values():
            assert mask.dtype == np.bool_ and mask.shape == (256, 256)
            assert MIN_PIXELS <= mask.sum() < mask.size
        planes_equal = bool((phantom.pixels == phantom.pixels[..., :1]).all())
        assert planes_equal == (kind in GRAY)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_pixels_and_other_seed_others(kind: str, drawn: dict[str, list[Phantom]]) -> None:
    first, again = drawn[kind][3], generate(kind, 3)
    assert np.array_equal(first.pixels, again.pixels)
    assert list(first.masks) == list(again.masks)
    assert all(np.array_equal(first.masks[name], again.masks[name]) for name in first.masks)
    assert not np.array_equal(first.pixels, drawn[kind][4].pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_other_sizes(kind: str) -> None:
    for size in (64, 200, 384):
        phantom = generate(kind, 1, size)
        assert phantom.pixels.shape == (size, size, 3) and phantom.size == size
        assert all(mask.shape == (size, size) and mask.any() for mask in phantom.masks.values())


def _boundary_contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Distance between the mean colours of the two-pixel bands inside and outside of a mask's edge."""
    m, k = mask.astype(np.uint8), np.ones((5, 5), np.uint8)
    inner, outer = mask & (cv2.erode(m, k) == 0), (cv2.dilate(m, k) > 0) & ~mask
    return float(np.abs(image[inner].mean(0) - image[outer].mean(0)).max())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("nuclei", "cell nuclei"),
        ("chest_ct", "lungs"),
        ("chest_ct", "bone"),
        ("chest_ct", "body"),
        ("brain_mri", "brain"),
        ("breast_mri", "breast lesion"),
        ("histology", "epidermis"),
        ("dermoscopy", "skin lesion"),
        ("fundus", "optic disc"),
        ("xray", "lungs"),
        ("oct", "retina"),
        ("oct", "retinal pigment epithelium"),
    ],
)
def test_masks_lie_where_the_picture_changes(kind: str, name: str, drawn: dict[str, list[Phantom]]) -> None:
    """Shifted by three pixels any mask fits its picture worse than in place."""
    for phantom in drawn[kind]:
        if kind == "brain_mri" and phantom.pixels[0].max() > 0:
            continue  # with the skull on, fluid around the brain may be as bright as the cortex
        image, mask = phantom.pixels.astype(float), phantom.masks[name]
        here = _boundary_contrast(image, mask)
        for shift in ((0, 3), (0, -3), (3, 0), (-3, 0)):
            moved = np.roll(mask, shift, (0, 1))
            assert here > _boundary_contrast(image, moved) - 1.0, (phantom.seed, shift)


def test_left_is_on_the_right_of_the_image(drawn: dict[str, list[Phantom]]) -> None:
    for phantom in drawn["chest_ct"] + drawn["xray"]:
        left, right = phantom.masks["left lung"], phantom.masks["right lung"]
        assert np.nonzero(left)[1].mean() > np.nonzero(right)[1].mean() + 20
        assert not (left & right).any()
        assert np.array_equal(left | right, phantom.masks["lungs"])


def test_chest_parts_fit_together(drawn: dict[str, list[Phantom]]) -> None:
    tumors = 0
    for phantom in drawn["chest_ct"]:
        m = phantom.masks
        assert all((mask & ~m["body"]).sum() == 0 for mask in m.values())
        for a, b in (("lungs", "bone"), ("lungs", "heart"), ("lungs", "aorta"), ("bone", "heart"), ("heart", "aorta")):
            if a in m and b in m:
                assert not (m[a] & m[b]).any(), (a, b)
        if "lung tumor" in m:
            tumors += 1
            assert not (m["lung tumor"] & ~m["lungs"]).any()
        gray = phantom.pixels[..., 0].astype(float)
        assert gray[m["lungs"]].mean() < 70 < 130 < gray[m["body"] & ~m["lungs"]].mean() < gray[m["bone"]].mean()
    assert tumors > 0


def test_brain_tissues_are_disjoint_parts(drawn: dict[str, list[Phantom]]) -> None:
    for phantom in drawn["brain_mri"]:
        m = phantom.masks
        tissues = [m[n] for n in ("gray matter", "white matter", "cerebrospinal fluid", "brain tumor") if n in m]
        if tissues:
            assert np.sum(tissues, axis=0).max() == 1
        for name in ("gray matter", "white matter", "brain tumor", "ventricles"):
            if name in m:
                assert not (m[name] & ~m["brain"]).any(), name
        if "ventricles" in m:
            assert not (m["ventricles"] & ~m["cerebrospinal fluid"]).any()
    assert {p.view for p in drawn["brain_mri"]} == {"axial", "coronal", "sagittal"}
    assert any("brain tumor" in p.masks for p in drawn["brain_mri"])


def test_layers_nest(drawn: dict[str, list[Phantom]]) -> None:
    for phantom in drawn["histology"]:
        m = phantom.masks
        assert not (m["stratum corneum"] & ~m["epidermis"]).any()
        assert not (m["epidermis"] & m["dermis"]).any()
    for phantom in drawn["oct"]:
        assert not (phantom.masks["retinal pigment epithelium"] & ~phantom.masks["retina"]).any()


@pytest.mark.skipif(not MINI.exists(), reason="the mini data set is not in this checkout")
def test_names_and_modalities_are_those_of_mini() -> None:
    mini = {(row["modality"], row["target"]) for row in map(json.loads, MINI.read_text().splitlines())}
    ours = {(MODALITIES[kind], name) for kind, (must, may) in NAMES.items() for name in must | may}
    assert mini <= ours


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="unknown phantom kind"):
        generate("unicorn", 0)
    with pytest.raises(InputError, match="seed"):
        generate("nuclei", -1)
    with pytest.raises(InputError, match="size"):
        generate("nuclei", 0, 32)


def test_contact_sheet() -> None:
    sheet = contact_sheet(["oct", "breast_mri"], seeds=[0, 1, 2], size=64)
    assert sheet.shape == (256, 192, 3) and sheet.dtype == np.uint8
    assert np.array_equal(sheet[:64, 64:128], generate("oct", 1, 64).pixels)
    assert not np.array_equal(sheet[:64], sheet[64:128])

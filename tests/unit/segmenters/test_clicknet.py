"""ClickNet: what its prompt planes mean, and that a row of a batch answers for itself."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ibisagent.segmenters.clicknet import (  # noqa: E402
    MAX_CLICKS,
    SIZE,
    ClickNet,
    image_planes,
    letterbox,
    normalise,
    prompt_planes,
)

CLICK, NEG_CLICK = 0, 1
NARROW, WIDE, NEG_NARROW, NEG_WIDE = 2, 3, 4, 5
NEAR, NEG_NEAR, PRIOR, BOX, HAS_PRIOR = 6, 7, 8, 9, 10


def points(*rows: list[tuple[float, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.zeros(len(rows), MAX_CLICKS, 2)
    for i, row in enumerate(rows):
        if row:
            out[i, : len(row)] = torch.tensor(row)
    return out, torch.tensor([len(row) for row in rows])


def prompts(rgb: torch.Tensor, positive: list, negative: list, prior: torch.Tensor | None = None) -> torch.Tensor:
    """Prompt planes of one image with lists of clicks."""
    nothing = torch.zeros(1, 1, SIZE, SIZE)
    p, np_ = points(positive)
    n, nn_ = points(negative)
    return prompt_planes(image_planes(rgb), p, np_, n, nn_, nothing if prior is None else prior, nothing)[0]


@pytest.fixture(scope="module")
def walled() -> torch.Tensor:
    """Gray, with a bright vertical wall at columns 120..135 and a gray room at each side."""
    rgb = torch.full((1, 3, SIZE, SIZE), 0.3)
    rgb[..., 120:136] = 0.9
    return rgb


def test_planes_have_the_shapes_that_the_network_takes(walled: torch.Tensor) -> None:
    planes = image_planes(walled)
    assert planes.shape == (1, 7, SIZE, SIZE) and planes.dtype == torch.float32
    assert torch.equal(planes[:, :3], walled)
    said = prompts(walled, [(40.0, 60.0)], [])
    assert said.shape == (11, SIZE, SIZE) and torch.isfinite(said).all()
    assert said.min() >= 0 and said.max() <= 1


def test_a_click_is_a_bump_at_its_place(walled: torch.Tensor) -> None:
    said = prompts(walled, [(40.0, 60.0), (200.0, 30.0)], [(80.0, 10.0)])
    assert said[CLICK, 60, 40] == 1 and said[CLICK, 30, 200] == 1 and said[NEG_CLICK, 10, 80] == 1
    assert said[CLICK, 60, 43].item() == pytest.approx(np.exp(-0.5), abs=1e-5)
    assert said[CLICK, 10, 80] < 1e-6 and said[NEG_CLICK, 60, 40] < 1e-6


def test_similarity_is_colour_not_place(walled: torch.Tensor) -> None:
    said = prompts(walled, [(40.0, 60.0)], [(128.0, 200.0)])
    assert said[NARROW, 200, 220] == pytest.approx(1.0)  # the other room, as gray as the clicked one
    assert said[NARROW, 60, 128] < 1e-3 and said[WIDE, 60, 128] < 0.01
    assert said[NEG_NARROW, 10, 128] == pytest.approx(1.0) and said[NEG_NARROW, 60, 40] < 1e-3
    assert (said[WIDE] >= said[NARROW] - 1e-6).all()


def test_walking_is_cheap_inside_and_dear_across_an_edge(walled: torch.Tensor) -> None:
    said = prompts(walled, [(40.0, 60.0)], [])
    near = said[NEAR]
    assert near[60, 40] > 0.9
    assert near[60, 100] > 0.4 and near[60, 100] > near[200, 100]  # same room: falls with the distance only
    assert near[60, 160] < 0.1  # as far as (60, 100) in the plane nearly, but behind two edges
    assert said[NEG_NEAR].max() < 0.01  # no negative click: nothing is near one


def test_without_clicks_every_click_plane_is_empty(walled: torch.Tensor) -> None:
    said = prompts(walled, [], [])
    assert said[:PRIOR].max() < 0.01


def test_rows_beyond_the_count_and_other_rows_do_not_matter(walled: torch.Tensor) -> None:
    nothing = torch.zeros(2, 1, SIZE, SIZE)
    planes = image_planes(torch.cat([walled, 1 - walled]))
    positive, _ = points([(40.0, 60.0), (200.0, 200.0)], [(9.0, 9.0), (90.0, 30.0)])
    negative, none = points([], [])
    got = prompt_planes(planes, positive, torch.tensor([1, 2]), negative, none, nothing, nothing)
    torch.testing.assert_close(got[0], prompts(walled, [(40.0, 60.0)], []))


def test_a_prior_is_passed_on_and_announced(walled: torch.Tensor) -> None:
    prior = torch.zeros(1, 1, SIZE, SIZE)
    assert prompts(walled, [], [], prior)[HAS_PRIOR].max() == 0
    prior[0, 0, 5:9, 5:9] = 0.25
    said = prompts(walled, [], [], prior)
    assert torch.equal(said[PRIOR], prior[0, 0]) and said[HAS_PRIOR].min() == 1 and said[BOX].max() == 0


def test_the_network_answers_each_row_by_itself(walled: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = ClickNet(widths=(4, 4, 8, 8, 8, 8)).eval()
    planes = torch.rand(3, 7, SIZE, SIZE)
    said = torch.rand(3, 11, SIZE, SIZE)
    with torch.no_grad():
        logits, quality = net(planes, said)
        alone, score = net(planes[1:2], said[1:2])
    assert logits.shape == (3, 1, SIZE, SIZE) and quality.shape == (3,)
    torch.testing.assert_close(logits[1:2], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(quality[1:2], score, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(512, 300), (100, 40), (33, 256), (1, 700)])
def test_letterbox_keeps_the_aspect_and_pads_right_and_bottom(height: int, width: int) -> None:
    square, scale = letterbox(np.full((height, width, 3), 200, np.uint8))
    assert square.shape == (SIZE, SIZE, 3) and square.dtype == np.uint8
    assert scale == SIZE / max(height, width)
    filled = (square == 200).all(2)
    h, w = filled.any(1).sum(), filled.any(0).sum()
    assert filled[:h, :w].all() and filled.sum() == h * w
    assert (h, w) == (max(1, round(height * scale)), max(1, round(width * scale)))


def test_letterbox_puts_a_pixel_where_it_says() -> None:
    image = np.zeros((128, 64), np.float32)
    image[30, 41] = 1
    square, scale = letterbox(image)
    y, x = np.unravel_index(int(square.argmax()), square.shape)
    assert abs(x - ((41 + 0.5) * scale - 0.5)) <= 0.5 and abs(y - ((30 + 0.5) * scale - 0.5)) <= 0.5
    labels, _ = letterbox(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, nearest=True)
    assert set(np.unique(labels)) == {20 * i for i in range(12)}


def test_normalise_uses_the_filled_part_only() -> None:
    square = np.zeros((SIZE, SIZE, 3), np.uint8)
    square[:100, :200] = np.linspace(50, 150, 200).astype(np.uint8)[None, :, None]
    got = normalise(square, 100, 200)
    assert got.dtype == np.float32
    assert got[:100, :200].min() == pytest.approx(0.0, abs=0.02)
    assert got[:100, :200].max() == pytest.approx(1.0, abs=0.02)
    assert not got[100:].any() and not got[:, 200:].any()
    brighter = normalise((square * 0.5 + 60).astype(np.uint8), 100, 200)
    np.testing.assert_allclose(brighter, got, atol=0.03)  # contrast and brightness do not matter


def test_normalise_survives_a_flat_image() -> None:
    got = normalise(np.full((SIZE, SIZE, 3), 7, np.uint8), SIZE, SIZE)
    assert np.isfinite(got).all() and not got.any()

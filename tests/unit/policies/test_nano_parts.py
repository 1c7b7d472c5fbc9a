"""The belief as plain functions: what is missed, what is too much, and how deep."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from ibisagent.policies.nano_parts import Belief, Choice, NanoConfig, choice_loss  # noqa: E402

SIDE = 16


def maps(target: slice, shown: slice | None) -> torch.Tensor:
    """Logits of two bands of rows, as sure as can be."""
    values = torch.full((1, 2, SIDE, SIDE), -20.0)
    values[0, 0, target] = 20
    if shown is not None:
        values[0, 1, shown] = 20
    return values.flatten(2)


def test_channels_are_the_logs_of_missed_excess_and_target() -> None:
    channels = Belief.channels(maps(slice(2, 10), slice(6, 12)))[0].reshape(4, 3, SIDE, SIDE).exp() - 1e-3
    rows = channels[0, :, :, 0] > 0.5
    assert rows[0].nonzero()[:, 0].tolist() == [2, 3, 4, 5]
    assert rows[1].nonzero()[:, 0].tolist() == [10, 11]
    assert rows[2].nonzero()[:, 0].tolist() == list(range(2, 10))
    # the averages are largest in the middle of a region, away from the border of the image
    for level in (1, 2, 3):
        depth = channels[level, 2, :, SIDE // 2]
        assert depth[5].item() == pytest.approx(depth.max().item(), abs=1e-4)
        assert depth[0] < depth[2] < depth[3] <= depth[5] > depth[9] > depth[11]


def test_facts_tell_a_fit_a_miss_an_excess_and_an_absence_apart() -> None:
    fit, missed, excess, none = (
        Belief.facts(maps(*bands))[0]
        for bands in (
            (slice(2, 10), slice(2, 10)),
            (slice(2, 10), slice(2, 4)),
            (slice(2, 6), slice(2, 14)),
            (slice(0, 0), None),
        )
    )
    assert all(f.shape == (Belief.num_facts,) and f.isfinite().all() for f in (fit, missed, excess, none))
    overlap, share_missed, share_excess, balance = range(5, 9)
    assert fit[overlap] == pytest.approx(1, abs=0.01) and missed[overlap] == pytest.approx(0.25, abs=0.01)
    assert missed[share_missed] == pytest.approx(0.75, abs=0.01) and fit[share_missed] < 0.01
    assert excess[share_excess] == pytest.approx(2 / 3, abs=0.01)
    assert missed[balance] > 0.9 and excess[balance] < -0.9
    assert none[0] < fit[0] - 1 and none[overlap] < 0.01


def test_the_belief_has_a_gradient_everywhere() -> None:
    logits = torch.randn(2, 2, SIDE * SIDE, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (Belief.channels(logits).sum() + Belief.facts(logits).sum()).backward()
    assert logits.grad is not None and (logits.grad != 0).float().mean() > 0.9


@pytest.fixture
def three_things() -> tuple[Choice, torch.Tensor]:
    """A choice that reads the kind from key 0 and the size from key 1, and keys that show three things of it."""
    config = NanoConfig(hidden_size=8, key_size=4, grid=SIDE, image_tokens_side=SIDE // 8)
    choice = Choice(config)
    keys = torch.zeros(1, 4, SIDE, SIDE)
    keys[0, 0] = -10.0
    for row, column, size in ((2, 9, 1.0), (8, 3, 3.0), (12, 12, 2.0)):
        keys[0, 0, row : row + 2, column : column + 2], keys[0, 1, row : row + 2, column : column + 2] = 10.0, size
    return choice, keys.flatten(2)


def say(choice: Choice, size: float = 0.0, right: float = 0.0, down: float = 0.0, pull: float = 0.0) -> torch.Tensor:
    """Make it answer this whatever is asked; returns a state to ask with."""
    last = choice.ask[2]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[0], last.bias[5] = 2.0, 4.0 * size
        last.bias[8], last.bias[9] = right, down
        last.bias[10:] = pull
    return torch.zeros(1, 8)


@pytest.mark.parametrize(
    ("words", "where"),
    [({"right": -0.5}, (8, 3)), ({"right": 0.5}, (12, 12)), ({"down": -0.5}, (2, 9)), ({"size": 2.0}, (8, 3))],
)
def test_the_choice_falls_on_the_one_that_is_meant(
    three_things: tuple[Choice, torch.Tensor], words: dict[str, float], where: tuple[int, int]
) -> None:
    choice, keys = three_things
    chosen, _ = choice(say(choice, **words), keys)
    assert chosen.exp().sum().item() == pytest.approx(1, abs=1e-5)
    at = int(chosen.argmax())
    assert abs(at // SIDE - where[0]) <= 1 and abs(at % SIDE - where[1]) <= 1
    inside = torch.zeros(1, SIDE, SIDE)
    inside[0, where[0] : where[0] + 2, where[1] : where[1] + 2] = 1
    assert choice_loss(chosen, inside.flatten(1)).item() < 0.3
    assert choice_loss(chosen, 1 - inside.flatten(1)).item() > 1.2


def test_what_lies_near_the_choice_is_lifted_only_where_the_words_ask_for_it(
    three_things: tuple[Choice, torch.Tensor],
) -> None:
    choice, keys = three_things
    _, none = choice(say(choice, right=-0.5), keys)
    assert (none == 0).all()
    _, lifted = choice(say(choice, right=-0.5, pull=1.0), keys)
    lifted = lifted.reshape(SIDE, SIDE)
    assert lifted[8, 3] > lifted[8, 7] + 1 > lifted[12, 12] + 2
    assert choice_loss(torch.zeros(2, 9), torch.zeros(2, 9)).item() == 0  # nothing is meant in either row

"""Further places of a click: what each is worth, what is learnt from that, and that the model scores them rightly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ibisagent.metrics.overlap import iou  # noqa: E402
from ibisagent.rle import decode_mask  # noqa: E402
from ibisagent.train.rl.batch import to_tensors, token_advantages  # noqa: E402
from ibisagent.train.rl.contexts import Context  # noqa: E402
from ibisagent.train.rl.nano_sampler import NanoSampler  # noqa: E402
from ibisagent.train.rl.places import Tried, place_advantages, place_measures, place_tensors  # noqa: E402
from ibisagent.train.rl.sampler import Sample, evaluating  # noqa: E402
from sample_rl import ABSENT, FOUND, GRID, UNDO, CountingSegmenter, make_small_nano  # noqa: E402

Make = Callable[..., Any]

# Centres of cells, which nano writes as one token.
INSIDE = "<think>t</think><action>Positive Point (0.6562, 0.4062)</action>"
OUTSIDE = "<think>t</think><action>Positive Point (0.0938, 0.9062)</action>"


class Placing:
    """A scripted sampler whose clicks come with further places: those of INSIDE and OUTSIDE, the latter twice."""

    def __init__(self, scripted: Any, renderer: Any) -> None:
        self.scripted, self.renderer = scripted, renderer
        self.cells = [self._cell(text) for text in (INSIDE, OUTSIDE)]

    def _cell(self, text: str) -> int:
        """Id of the place in a reply: places follow the plain vocabulary."""
        (place,) = (int(i) for i in self.renderer.reply(text) if i >= len(self.renderer.tokenizer) - GRID**2)
        return place

    def session(self, seed: int) -> Any:
        self.scripted.session(seed)
        return self

    def sample(self, contexts: Any) -> list[Sample]:
        inside, outside = self.cells
        found = []
        for sample in self.scripted.sample(contexts):
            at = [k for k, token in enumerate(sample.ids) if token in self.cells]
            found.append(replace(sample, places=tuple((k, (outside, inside, outside)) for k in at)))
        return found


def masks(run: Any) -> list[Any]:
    """The mask after every step."""
    return [None if step.mask is None else decode_mask(step.mask) for step in run.episode.steps]


def test_a_place_is_worth_what_clicking_it_there_gives(
    make_player: Make, scripted: Make, renderer: Any, disc_prompt: Any, disc_target: Any
) -> None:
    script = {
        "0/0": [INSIDE, OUTSIDE, FOUND],
        "0/1": [OUTSIDE, INSIDE, FOUND],
        "0/2": [INSIDE, INSIDE, FOUND],
        "0/3": [OUTSIDE, OUTSIDE, FOUND],
    }
    tool = CountingSegmenter()
    sampler = Placing(scripted(script), renderer)
    runs = make_player(tool).play([disc_prompt], 4, sampler, seed=1)
    inside, outside = sampler.cells
    first = {inside: masks(runs[0])[0], outside: masks(runs[1])[0]}
    after = {  # by the click before
        inside: {inside: masks(runs[2])[1], outside: masks(runs[0])[1]},
        outside: {inside: masks(runs[1])[1], outside: masks(runs[3])[1]},
    }
    for run, clicks in zip(runs, [(inside, outside), (outside, inside), (inside,) * 2, (outside,) * 2], strict=True):
        one, two = run.context.tried
        for tried, drawn, want in ((one, clicks[0], first), (two, clicks[1], after[clicks[0]])):
            assert run.context.ids[tried.position] == drawn and run.context.own[tried.position]
            assert set(tried.ids) == {inside, outside} and tried.ids[0] == drawn
            assert dict(zip(tried.ids, tried.counts, strict=True)) == {
                inside: 1 + (drawn == inside),
                outside: 2 + (drawn == outside),
            }
            assert tried.worth == pytest.approx([iou(want[place], disc_target) for place in tried.ids])
    assert runs[0].context.tried[0].worth[0] > 0.8 > runs[0].context.tried[0].worth[1]
    # What was tried beside is neither acted on nor remembered: the runs are those without it.
    plain = make_player().play([disc_prompt], 4, scripted(script), seed=1)
    assert [r.context.ids for r in plain] == [r.context.ids for r in runs]
    assert [r.breakdown for r in plain] == [r.breakdown for r in runs]
    assert not any(r.context.tried for r in plain)


def test_what_cannot_be_tried_is_left_out(
    make_player: Make, scripted: Make, renderer: Any, disc_prompt: Any, absent_prompt: Any
) -> None:
    """An absent target, replies without a place or that are no click, a tool that fails."""
    nowhere = INSIDE.replace("Positive Point", "Somewhere")
    script = {"0/0": [INSIDE, ABSENT], "1/0": [UNDO, nowhere, ABSENT]}
    runs = make_player().play([absent_prompt, disc_prompt], 1, Placing(scripted(script), renderer), seed=1)
    assert [run.context.tried for run in runs] == [[], []]
    assert [run.breakdown.excluded for run in runs] == [None, None]
    row = next(k for k in range(200) if _fails(k, make_player, scripted, renderer, disc_prompt))
    script = {"0/0": [INSIDE, FOUND]}
    (run,) = make_player(CountingSegmenter(broken_row=row)).play(
        [disc_prompt], 1, Placing(scripted(script), renderer), seed=1
    )
    (tried,) = run.context.tried
    assert tried.ids == (Placing(scripted({}), renderer).cells[0],) and tried.num_failed == 1
    assert run.breakdown.excluded is None, "another place's failure is not the run's"
    script = {"0/0": [OUTSIDE, FOUND], "0/1": [INSIDE, FOUND]}
    failed, other = make_player(CountingSegmenter(broken_row=row)).play(
        [disc_prompt], 2, Placing(scripted(script), renderer), seed=1
    )
    assert failed.breakdown.excluded is not None and failed.context.tried == []
    assert other.breakdown.excluded is None and len(other.context.tried) == 1


def test_a_tool_that_answers_wrongly_ends_no_training(
    make_player: Make, scripted: Make, renderer: Any, disc_prompt: Any
) -> None:
    class Odd(CountingSegmenter):
        """Too few answers to many, a mask of the wrong size for OUTSIDE."""

        def predict(self, embedding: Any, prompts: Any) -> Any:
            found = super().predict(embedding, prompts)
            found = [
                replace(answer, mask=answer.mask[1:]) if prompt.clicks[-1].x < 20 else answer
                for prompt, answer in zip(prompts, found, strict=True)
            ]
            return found[:1]

    (run,) = make_player(Odd(), batched=False).play(
        [disc_prompt], 1, Placing(scripted({"0/0": [INSIDE, FOUND]}), renderer), seed=1
    )
    (tried,) = run.context.tried
    assert len(tried.ids) == 1 and tried.num_failed == 1 and run.breakdown.excluded is None


def test_siblings_in_one_state_ask_once(make_player: Make, scripted: Make, renderer: Any, disc_prompt: Any) -> None:
    tool = CountingSegmenter()
    script = {f"0/{k}": [text, FOUND] for k, text in enumerate((INSIDE, INSIDE, OUTSIDE, INSIDE))}
    runs = make_player(tool).play([disc_prompt], 4, Placing(scripted(script), renderer), seed=1)
    assert sum(tool.calls) == 2, "the two places, once each"
    assert all(len(run.context.tried[0].ids) == 2 for run in runs)
    tool = CountingSegmenter()
    script = {"0/0": [INSIDE, FOUND]}
    make_player(tool).play([disc_prompt], 1, Placing(scripted(script), renderer), seed=1)
    assert sum(tool.calls) == 2


def _fails(row: int, make_player: Make, scripted: Make, renderer: Any, prompt: Any) -> bool:
    """Whether OUTSIDE lies on this row, and INSIDE does not."""
    out, into = (
        make_player(CountingSegmenter(broken_row=row)).play([prompt], 1, scripted({"0/0": [text, FOUND]}), 1)[0]
        for text in (OUTSIDE, INSIDE)
    )
    return out.breakdown.excluded is not None and into.breakdown.excluded is None


def test_advantages_are_those_computed_by_hand() -> None:
    one = Tried(5, (400, 401), (3, 1), (0.8, 0.4))  # mean 0.7: 0.1, -0.3; mean square 0.03
    other = Tried(9, (400, 401, 402), (1, 1, 2), (0.5, 0.5, 0.5))  # nothing to choose
    deviation = np.sqrt(0.03 / 2) + 1e-4
    first, second = place_advantages([one, other])
    assert first == pytest.approx([0.75 * 0.1 / deviation, 0.25 * -0.3 / deviation], rel=1e-5)
    assert second.tolist() == [0, 0, 0]
    assert float(first.sum()) == pytest.approx(0, abs=1e-6)
    assert place_advantages([]) == []
    told = place_measures([one, other])
    want = {"tried": 2.5, "worth": 0.6, "spread": np.sqrt(0.03) / 2, "missed": 0.0, "failed": 0.0}
    assert told == pytest.approx({f"places/{name}": value for name, value in want.items()})
    assert place_measures([replace(one, ids=(401, 400), counts=(1, 3), worth=(0.4, 0.8))])["places/missed"] == 0.4
    assert all(np.isnan(value) for value in place_measures([]).values())


def test_tensors_stand_where_the_places_were_drawn(renderer: Any) -> None:
    from types import SimpleNamespace

    def run(excluded: str | None = None) -> Any:
        """A prompt of three ids, a reply of three with a place in the middle."""
        context = Context("0/0", [6, 6, 6], [False] * 3, [-1] * 3, [], 3)
        context.reply([40, 400, 8], True, 8)
        context.tried.append(Tried(4, (400, 405), (1, 3), (1.0, 0.0)))
        return SimpleNamespace(context=context, breakdown=SimpleNamespace(excluded=excluded))

    runs = [run(), run("the tool failed")]
    assert renderer.image_id not in runs[0].context.ids
    batch = to_tensors(runs, token_advantages(runs, np.array([2.0, 2.0], np.float32), None, 0.0), renderer)
    found = place_tensors(runs, batch)
    assert found["place_ids"].tolist() == [[[-1, -1], [400, 405], [-1, -1]], [[-1, -1]] * 3]
    assert found["place_advantages"][1].abs().sum() == 0
    drawn, other = found["place_advantages"][0, 1].tolist()
    assert drawn > 0 > other and drawn == pytest.approx(-other)
    assert batch["advantages"].tolist() == [[2, 0, 2], [0, 0, 0]], "a place answers for itself alone"


def test_the_model_scores_places_as_it_draws_them(vocabulary: Any, renderer: Any) -> None:
    """All cells of a state: their probabilities sum to one; the drawn one's makes up its token's with the word's."""
    model = make_small_nano(vocabulary, seed=26)
    sampler = NanoSampler(model, renderer, temperature=0.5, max_new_tokens=12, num_places=40)
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    parts = [{"type": "text", "text": "Segment the disc."}, {"type": "image", "image": picture}]
    runs = [Context.begin(f"{i}/0", [{"role": "user", "content": parts}], renderer) for i in range(24)]
    samples = sampler.session(3).sample(runs)
    plain = NanoSampler(model, renderer, temperature=0.5, max_new_tokens=12).session(3).sample(runs)
    assert any(s.places for s in samples) and all(p.places == () for p in plain)
    cells = torch.arange(model.config.vocab_size, model.config.vocab_size + GRID**2)
    drawn, said = [], []
    for run, sample in zip(runs, samples, strict=True):
        run.reply(sample.ids, sample.ended, renderer.end_id, sample.log_probs)
        assert [at for at, _ in sample.places] == [k for k, i in enumerate(sample.ids) if i >= cells[0]]
        drawn += [more for _, more in sample.places]
    batch = renderer.tensors([r.ids for r in runs], [r.images for r in runs])
    wanted = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    for row, run in enumerate(runs):
        wanted[row, : len(run.own)] = torch.tensor(run.own)
    places = torch.full((*wanted.shape, GRID**2), -1, dtype=torch.long)
    is_cell = wanted & (batch["input_ids"] >= cells[0])
    places[is_cell] = cells
    options: dict[str, Any] = {"wanted": wanted, "temperature": 0.5, "forbidden": renderer.forbidden_ids}
    with torch.no_grad(), evaluating(model):
        out = model(**batch, places=places, **options)
        assert model(**batch, **options).place_log_probs is None
    probability = out.place_log_probs[is_cell].exp()
    assert probability.sum(1).tolist() == pytest.approx([1.0] * int(is_cell.sum()), abs=1e-4)
    assert out.place_log_probs[~is_cell].abs().sum() == 0
    chosen = out.place_log_probs[is_cell].gather(1, (batch["input_ids"][is_cell] - cells[0])[:, None])[:, 0]
    assert (chosen >= out.log_probs[is_cell] - 1e-5).all(), "the word's probability is at most one"
    # Forty draws of each: as often as the model says, within chance.
    for more, row in zip(drawn, probability, strict=True):
        said.append(float(row[torch.tensor(more) - cells[0]].mean()))
        assert {int(i) for i in more} <= set(cells.tolist())
    expected = (probability**2).sum(1)  # of the probability of a drawn cell
    assert float(np.mean(said)) == pytest.approx(float(expected.mean()), rel=0.25)

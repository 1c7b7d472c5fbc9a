"""Samplers against each other and against the update: the tokens, their probabilities, how often they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ibisagent.errors import InputError  # noqa: E402
from ibisagent.train.rl.contexts import Context  # noqa: E402
from ibisagent.train.rl.nano_sampler import NanoSampler  # noqa: E402
from ibisagent.train.rl.sampler import GenerateSampler, evaluating  # noqa: E402
from sample_rl import make_small_nano  # noqa: E402

WORDS = ("Segment the disc.", "Where?", "Please segment the disc, and look twice before you click.", "Go on: the disc.")


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)


def says(role: str, *parts: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": role, "content": content}


def contexts(renderer: Any, count: int = 4) -> list[Context]:
    """Runs of unlike lengths."""
    chats = [[says("user", WORDS[i % len(WORDS)] * (1 + i % 3), picture(i))] for i in range(count)]
    return [Context.begin(f"{i}/0", chat, renderer) for i, chat in enumerate(chats)]


def turns(
    sampler: Any, runs: list[Context], renderer: Any, leave: dict[int, list[str]], seed: int = 0
) -> Iterator[Any]:
    """Play so many turns; at a turn some observations have no picture, and the runs that `leave` names end."""
    session = sampler.session(seed)
    for turn in range(len(leave)):
        runs = [run for run in runs if run.key not in leave[turn]]
        samples = session.sample(runs)
        yield runs, samples
        for number, (run, sample) in enumerate(zip(runs, samples, strict=True)):
            run.reply(sample.ids, sample.ended, renderer.end_id)
            parts = [picture(100 * turn + number)] if (turn + number) % 3 else []
            run.observe([says("user", f"Mask {'x' * number * turn}.", *parts)], renderer)


LEAVE: dict[int, list[str]] = {0: [], 1: [], 2: ["2/0"], 3: ["2/0", "0/0"], 4: ["2/0", "0/0", "4/0", "5/0"]}


def test_nano_s_sampler_takes_the_tokens_that_generate_takes(vocabulary: Any, renderer: Any) -> None:
    """At temperature 0: with the cache kept over turns, runs that end, observations with and without a picture."""
    drawn = []
    for seed, batch in ((26, 32), (21, 3), (23, 32), (26, 2)):
        model = make_small_nano(vocabulary, seed)
        options: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 9}
        mine = NanoSampler(model, renderer, batch_size=batch, **options)
        plain = GenerateSampler(model, renderer, batch_size=1, **options)
        one, other = contexts(renderer, 6), contexts(renderer, 6)
        for (_, got), (_, want) in zip(
            turns(mine, one, renderer, LEAVE), turns(plain, other, renderer, LEAVE), strict=True
        ):
            assert [s.ids for s in got] == [s.ids for s in want]
            assert [s.ended for s in got] == [s.ended for s in want]
            drawn += got
        assert [c.ids for c in one] == [c.ids for c in other]
    # Or nothing was tried: replies of unlike lengths, ended and cut off, with and without coordinates.
    assert len({len(s.ids) for s in drawn}) > 3 and {s.ended for s in drawn} == {True, False}
    cells = model.config.vocab_size
    assert {any(i >= cells for i in s.ids) for s in drawn} == {True, False}


def scored(model: Any, renderer: Any, runs: list[Context], temperature: float = 1.0) -> list[list[float]]:
    """Log-probabilities of the own tokens of whole conversations, as the update computes them."""
    batch = renderer.tensors([r.ids for r in runs], [r.images for r in runs])
    wanted = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    for row, run in enumerate(runs):
        wanted[row, : len(run.own)] = torch.tensor(run.own)
    with torch.no_grad(), evaluating(model):
        out = model(**batch, wanted=wanted, temperature=temperature, forbidden=renderer.forbidden_ids)
    return [out.log_probs[row][wanted[row]].tolist() for row in range(len(runs))]


@pytest.mark.parametrize(("batch", "temperature"), [(32, 1.0), (2, 1.0), (32, 0.5)])
def test_what_nano_says_of_its_tokens_is_what_the_update_computes(
    batch: int, temperature: float, vocabulary: Any, renderer: Any
) -> None:
    model = make_small_nano(vocabulary, seed=2)
    sampler = NanoSampler(model, renderer, temperature=temperature, max_new_tokens=10, batch_size=batch)
    runs = contexts(renderer, 6)
    said: dict[str, list[float]] = {run.key: [] for run in runs}
    ended = set()
    for live, samples in turns(sampler, runs, renderer, LEAVE, seed=3):
        for run, sample in zip(live, samples, strict=True):
            assert sample.log_probs is not None and len(sample.log_probs) == len(sample.ids)
            said[run.key] += sample.log_probs
            ended.add(sample.ended)
    assert ended == {True, False}
    for run, want in zip(runs, scored(model, renderer, runs, temperature), strict=True):
        assert said[run.key] == pytest.approx(want, abs=1e-4)


def test_scores_are_generation_s_own_probabilities(vocabulary: Any, renderer: Any) -> None:
    """The words of a whole conversation, scored in one pass, against the full vocabulary's logits before each."""
    model = make_small_nano(vocabulary, seed=2)
    runs = contexts(renderer, 2)
    for _ in turns(NanoSampler(model, renderer, max_new_tokens=8), runs, renderer, {0: [], 1: []}, seed=1):
        pass
    for run, got in zip(runs, scored(model, renderer, runs), strict=True):
        batch = renderer.tensors([run.ids], [run.images])
        with torch.no_grad():
            logits = model(**batch).logits[0]
            logits[:, list(renderer.forbidden_ids)] = float("-inf")
            whole = logits.log_softmax(-1)
        own = [i for i, mine in enumerate(run.own) if mine]
        assert got == pytest.approx([float(whole[i - 1, run.ids[i]]) for i in own], abs=1e-3)


@pytest.mark.parametrize("kind", ["nano", "generate"])
def test_tokens_are_drawn_as_often_as_the_model_says(kind: str, vocabulary: Any, renderer: Any) -> None:
    model = make_small_nano(vocabulary, seed=4)
    (run,) = contexts(renderer, 1)
    count = 4000
    batch = renderer.tensors([run.ids], [run.images])
    with torch.no_grad():  # a coordinate about every second time
        out = model(**batch, return_states=True)
        words = model.base_logits(out.hidden[0, -1:], out.pooled)[0]
        place = model.config.coordinate_token_id
        model.language.embed_tokens.weight[place] *= words.logsumexp(0) / words[place]
    make: Any = NanoSampler if kind == "nano" else GenerateSampler
    sampler = make(model, renderer, temperature=1.0, max_new_tokens=1, batch_size=1000)
    drawn = Counter(s.ids[0] for s in sampler.session(7).sample([run.twin(f"0/{i}") for i in range(count)]))
    with torch.no_grad():
        logits = model(**batch, logits_to_keep=1).logits[0, -1]
    logits[list(renderer.forbidden_ids)] = float("-inf")
    share = logits.double().softmax(-1).numpy()
    # Chi-square over all entries that are expected often enough, the others together.
    often = np.flatnonzero(share * count >= 8)
    got = np.array([*(drawn[int(i)] for i in often), count - sum(drawn[int(i)] for i in often)], float)
    want = np.array([*(share[often] * count), count * (1 - share[often].sum())])
    from scipy.stats import chi2

    assert len(often) > 10 and 0.3 < share[model.config.vocab_size :].sum() < 0.7
    assert float(((got - want) ** 2 / want.clip(1e-9)).sum()) < chi2.ppf(0.9999, len(often))
    assert any(i >= model.config.vocab_size for i in often)  # coordinates are among them


@pytest.mark.parametrize("kind", ["nano", "generate"])
def test_a_seed_gives_the_same_draws_and_leaves_the_world_s_alone(kind: str, small_nano: Any, renderer: Any) -> None:
    make: Any = NanoSampler if kind == "nano" else GenerateSampler
    sampler = make(small_nano, renderer, temperature=1.0, max_new_tokens=6)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = sampler.session(3).sample(contexts(renderer))
    assert torch.equal(torch.get_rng_state(), before)
    assert [s.ids for s in sampler.session(3).sample(contexts(renderer))] == [s.ids for s in one]
    assert [s.ids for s in sampler.session(4).sample(contexts(renderer))] != [s.ids for s in one]


def test_the_model_is_left_as_it_was(small_nano: Any, renderer: Any) -> None:
    small_nano.train()
    norms = [m for m in small_nano.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms]
    for make in (NanoSampler, GenerateSampler):
        make(small_nano, renderer, temperature=1.0, max_new_tokens=3).session(0).sample(contexts(renderer))
        assert small_nano.training and all(p.grad is None for p in small_nano.parameters())
    assert all(torch.equal(m.running_mean, old) for m, old in zip(norms, before, strict=True))


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_generate_draws_for_rows_of_unlike_lengths_what_it_draws_for_each(
    kind: str, tiny: Callable[[str], Path]
) -> None:
    from ibisagent.policies.checkpoints import load_checkpoint
    from ibisagent.train.tokens import Renderer

    checkpoint = load_checkpoint(tiny(kind), device="cpu")
    renderer = Renderer(checkpoint.processor)
    options: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 6}
    together = GenerateSampler(checkpoint.model, renderer, batch_size=8, **options)
    alone = GenerateSampler(checkpoint.model, renderer, batch_size=1, **options)
    one, other = contexts(renderer, 3), contexts(renderer, 3)
    leave: dict[int, list[str]] = {0: [], 1: ["1/0"]}
    for (_, got), (_, want) in zip(
        turns(together, one, renderer, leave), turns(alone, other, renderer, leave), strict=True
    ):
        assert [s.ids for s in got] == [s.ids for s in want]
        assert not {i for s in got for i in s.ids} & set(renderer.forbidden_ids)


@pytest.mark.parametrize(("temperature", "budget"), [(-0.7, 8), (1.0, 0)])
def test_what_nano_cannot_sample_is_said(temperature: float, budget: int, small_nano: Any, renderer: Any) -> None:
    with pytest.raises(InputError):
        NanoSampler(small_nano, renderer, temperature=temperature, max_new_tokens=budget)
    with pytest.raises(InputError):
        GenerateSampler(small_nano, renderer, temperature=temperature, max_new_tokens=budget)


@pytest.mark.slow
def test_the_embedded_nano_s_samplers_agree_over_whole_turns() -> None:
    from ibisagent.policies.checkpoints import load_checkpoint
    from ibisagent.policies.nano import WEIGHTS_DIR
    from ibisagent.train.tokens import Renderer

    checkpoint = load_checkpoint(str(WEIGHTS_DIR), device="cpu")
    model, renderer = checkpoint.model, Renderer(checkpoint.processor)
    options: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 64}
    mine, plain = NanoSampler(model, renderer, **options), GenerateSampler(model, renderer, batch_size=1, **options)
    one, other = contexts(renderer, 4), contexts(renderer, 4)
    leave: dict[int, list[str]] = {0: [], 1: ["1/0"], 2: ["1/0"]}
    for (_, got), (_, want) in zip(
        turns(mine, one, renderer, leave), turns(plain, other, renderer, leave), strict=True
    ):
        assert [s.ids for s in got] == [s.ids for s in want]
    said: dict[str, list[float]] = {}
    runs = contexts(renderer, 4)
    for live, samples in turns(NanoSampler(model, renderer, max_new_tokens=64), runs, renderer, leave):
        for run, sample in zip(live, samples, strict=True):
            said.setdefault(run.key, []).extend(sample.log_probs or ())
    for run, want in zip(runs, scored(model, renderer, runs), strict=True):
        assert said[run.key] == pytest.approx(want, abs=1e-4)

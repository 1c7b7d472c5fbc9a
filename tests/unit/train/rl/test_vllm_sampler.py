"""What a vLLM server is asked and shown, and what is made of its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("requests")

from ibisagent.errors import InputError, PolicyError  # noqa: E402
from ibisagent.policies.processors import load_processor  # noqa: E402
from ibisagent.train.models import limit_pixels  # noqa: E402
from ibisagent.train.rl.contexts import Context  # noqa: E402
from ibisagent.train.rl.vllm_sampler import VllmSampler, as_shown, one_place_each  # noqa: E402
from ibisagent.train.rl.vllm_server import Drawn, VllmServer  # noqa: E402
from ibisagent.train.tokens import Renderer  # noqa: E402
from vllm_stand_in import StandInVllm  # noqa: E402

PLACE = 9


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def renderer(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> Renderer:
    """Of a processor that shows no picture with more than 40 places."""
    processor = load_processor(tiny(request.param), request.param)
    patch = processor.image_processor.patch_size
    assert limit_pixels(processor, 40 * (2 * patch) ** 2)
    return Renderer(processor)


def picture(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def says(*parts: Any) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return [{"role": "user", "content": content}]


# -- pictures and their places -------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 64), (300, 200), (500, 640), (57, 213), (900, 60)])
def test_a_server_without_the_limit_sees_the_same_pixels(
    size: tuple[int, int], renderer: Renderer, tiny: Callable[[str], Path]
) -> None:
    kind = "qwen2_5_vl" if renderer.processor.image_processor.patch_size == 14 else "qwen3_vl"
    there = Renderer(load_processor(tiny(kind), kind))
    shown = as_shown(picture(*size), renderer)
    here, seen = renderer.image_inputs([picture(*size)]), there.image_inputs([shown])
    assert torch.equal(here["image_grid_thw"], seen["image_grid_thw"])
    assert torch.equal(here["pixel_values"], seen["pixel_values"])
    assert shown.shape[0] * shown.shape[1] <= 40 * (2 * there.processor.image_processor.patch_size) ** 2


@given(st.lists(st.tuples(st.lists(st.integers(0, 8), max_size=4), st.integers(1, 5)), max_size=5), st.lists(
    st.integers(0, 8), max_size=3))  # fmt: skip
def test_places_are_narrowed_to_one_a_picture(parts: list[tuple[list[int], int]], tail: list[int]) -> None:
    wide = [i for text, length in parts for i in [*text, *[PLACE] * length]] + tail
    narrow = [i for text, _ in parts for i in [*text, PLACE]] + tail
    assert one_place_each(wide, PLACE, [length for _, length in parts]) == narrow


@pytest.mark.parametrize(
    ("ids", "lengths"),
    [([1, 9, 9, 2], [3]), ([1, 9, 9, 2], [1]), ([1, 9, 9], []), ([1, 2], [2]), ([1, 9, 9], [2, 2]), ([9, 1, 9], [2])],
)
def test_pictures_that_do_not_fit_their_places_are_an_error(ids: list[int], lengths: list[int]) -> None:
    with pytest.raises(PolicyError, match="run 3/1: "):
        one_place_each(ids, PLACE, lengths, "3/1")


# -- replies ---------------------------------------------------------------------------------------


class Echo:
    """Widens places as the renderer does, and replies as told."""

    at_once = 4

    def __init__(self, renderer: Renderer, ids: list[int]) -> None:
        self.renderer, self.ids = renderer, ids
        self.asked: list[tuple[list[int], list[str], dict[str, Any]]] = []
        self.bend: Callable[[list[int]], list[int]] = lambda ids: ids

    def draw(self, ids: list[int], pictures: list[str], sampling: dict[str, Any]) -> Drawn:
        self.asked.append((ids, pictures, sampling))
        lengths = iter(self.lengths[len(pictures)])
        image = self.renderer.image_id
        prompt = [i for token in ids for i in ([token] * next(lengths) if token == image else [token])]
        return Drawn(self.bend(prompt), self.ids, [-0.5 * n for n in range(len(self.ids))])


def two_runs(renderer: Renderer) -> list[Context]:
    one = Context.begin("0/0", says("Segment the disc.", picture(48, 64)), renderer)
    return [one, one.twin("0/1")]


def test_a_session_asks_with_bare_pictures_and_a_seed_for_every_reply(renderer: Renderer) -> None:
    runs = two_runs(renderer)
    server = Echo(renderer, [20, 21, renderer.end_id])
    first, second = picture(48, 64), picture(60, 60, 1)
    server.lengths = {1: renderer.image_lengths([first]), 2: renderer.image_lengths([first, second])}
    session = VllmSampler(server, renderer, temperature=0.7, max_new_tokens=5).session(3)  # type: ignore[arg-type]
    assert session.sample([]) == []
    for sample, run in zip(session.sample(runs), runs, strict=True):
        assert sample.ids == (20, 21, renderer.end_id) and sample.ended and sample.log_probs == (0, -0.5, -1.0)
        run.reply(sample.ids, sample.ended, renderer.end_id, sample.log_probs)
    runs[0].observe(says("Mask.", second), renderer)
    session.sample(runs[:1])
    again = VllmSampler(server, renderer, temperature=0.7, max_new_tokens=5).session(3)  # type: ignore[arg-type]
    again.sample(two_runs(renderer))
    image = renderer.image_id
    assert [ids.count(image) for ids, *_ in server.asked] == [1, 1, 2, 1, 1]
    assert [len(pictures) for _, pictures, _ in server.asked] == [1, 1, 2, 1, 1]
    assert server.asked[2][1][0] == server.asked[0][1][0]
    sampling = [sampling for *_, sampling in server.asked]
    seeds = [s["seed"] for s in sampling]
    assert len(set(seeds[:3])) == 3 and {seeds[3], seeds[4]} == {seeds[0], seeds[1]}
    for asked in sampling:
        assert {**asked, "seed": 0} == {
            "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "max_tokens": 5,
            "stop_token_ids": [renderer.end_id, *renderer.forbidden_ids], "ignore_eos": True, "seed": 0,
        }  # fmt: skip


def test_a_reply_ends_before_a_control_token_and_with_the_budget(renderer: Renderer) -> None:
    control = renderer.image_id
    for drawn, want, ended in (
        ([20, control, 21], (20,), False),
        ([control], (), False),
        ([20, 21], (20, 21), False),
        ([20, renderer.end_id, control], (20, renderer.end_id), True),
    ):
        server = Echo(renderer, drawn)
        server.lengths = {1: renderer.image_lengths([picture(48, 64)])}
        sampler = VllmSampler(server, renderer, temperature=1.0, max_new_tokens=5)  # type: ignore[arg-type]
        (sample,) = sampler.session(0).sample(two_runs(renderer)[:1])
        assert (sample.ids, sample.ended) == (want, ended)
        assert sample.log_probs is not None and len(sample.log_probs) == len(want)


@pytest.mark.parametrize(
    ("bend", "reason"),
    [
        (lambda ids: ids[:-1], "differ from token"),
        (lambda ids: [*ids, 20], "differ from token"),
        (lambda ids: [ids[0] + 1, *ids[1:]], "differ from token 0 on"),
        (lambda ids: [], "makes 0 image tokens of 1 pictures"),
    ],
)
def test_a_reply_to_other_ids_is_refused(bend: Any, reason: str, renderer: Renderer) -> None:
    server = Echo(renderer, [20])
    server.lengths, server.bend = {1: renderer.image_lengths([picture(48, 64)])}, bend
    sampler = VllmSampler(server, renderer, temperature=1.0, max_new_tokens=5)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=reason):
        sampler.session(0).sample(two_runs(renderer))


@pytest.mark.parametrize(("temperature", "budget"), [(0.0, 5), (1.0, 0)])
def test_what_cannot_be_asked_for_is_said(temperature: float, budget: int, renderer: Renderer) -> None:
    with pytest.raises(InputError):
        VllmSampler(Echo(renderer, []), renderer, temperature=temperature, max_new_tokens=budget)  # type: ignore[arg-type]


# -- HTTP --------------------------------------------------------------------------------------------


@pytest.fixture
def wire(renderer: Renderer) -> Iterator[StandInVllm]:
    """A server whose answer to every prompt is in `wire.said`."""
    served = StandInVllm(SimpleNamespace(eval=lambda: None), renderer.processor)
    entry = {"token": "token_id:7", "logprob": -0.5, "top_logprobs": []}
    choice = {"index": 0, "token_ids": [7, 8], "finish_reason": "length", "logprobs": {"content": [
        entry, {**entry, "token": "token_id:8", "logprob": -9999.0}]}}  # fmt: skip
    served.said = {"prompt_token_ids": [1, 2], "choices": [choice]}
    served._generate = lambda body: (200, served.said)  # type: ignore[method-assign]
    yield served
    served.close()


def test_a_hiccup_is_asked_again_and_an_unknown_probability_is_none(wire: StandInVllm) -> None:
    wire.sick = [503, 502]
    server = VllmServer(wire.url + "/", retries=2)
    server.wait(1)
    drawn = server.draw([1, 2], [], {"seed": 3})
    assert drawn.prompt_ids == [1, 2] and drawn.ids == [7, 8]
    assert drawn.log_probs[0] == -0.5 and np.isnan(drawn.log_probs[1])
    assert len(wire.paths("/inference/v1/generate")) == 3
    assert wire.requests[-1][1]["sampling_params"] == {"n": 1, "logprobs": 0, "output_kind": 2, "seed": 3}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda said: said["choices"][0].update(finish_reason="abort"), "gave a reply up"),
        (lambda said: said["choices"][0].update(logprobs=None), "without what was asked for"),
        (lambda said: said["choices"][0].update(token_ids=[7, 9]), "of other tokens than it drew"),
        (lambda said: said.update(prompt_token_ids=None), "does not say which tokens it was shown"),
        (lambda said: said.clear(), "without what was asked for"),
    ],
)
def test_half_an_answer_is_an_error(change: Any, reason: str, wire: StandInVllm) -> None:
    change(wire.said)
    with pytest.raises(PolicyError, match=reason) as error:
        VllmServer(wire.url, retries=0).draw([1, 2], [], {})
    assert "\n" not in str(error.value)


def test_a_slow_server_is_not_waited_for_for_ever(wire: StandInVllm) -> None:
    import time

    wire._generate = lambda body: time.sleep(0.5)  # type: ignore[method-assign]
    with pytest.raises(PolicyError, match="gone or too slow"):
        VllmServer(wire.url, retries=0, timeout_s=0.1).draw([1, 2], [], {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense"])
def test_no_server_is_said_in_one_line(url: str) -> None:
    with pytest.raises(InputError) as error:
        VllmServer(url).wait(0.1)
    assert url in str(error.value) and "\n" not in str(error.value)

"""``train rl --rollouts vllm`` against a stand-in for vLLM's server: whole runs, the gate before them, how they end.

Never run with a real vLLM: there is no GPU here. What the stand-in shares with it is said there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")
torch = pytest.importorskip("torch")

from ibisagent.cli import main as ibisagent  # noqa: E402
from ibisagent.train.rl.sampler import Sample  # noqa: E402
from sample_corpus import write_sample_corpus  # noqa: E402
from sample_rl import ABSENT, FOUND  # noqa: E402
from vllm_stand_in import StandInVllm, install  # noqa: E402

KIND = "qwen2_5_vl"
LIVER = "<think>a</think><action>Positive Point (0.3661, 0.5125)</action>"
CENTRE = "<think>b</think><action>Positive Point (0.5000, 0.5000)</action>"

Train = Callable[..., int]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "corpus"
    write_sample_corpus(folder)
    return folder


@pytest.fixture
def server(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInVllm]:
    """It begins with other weights than the run's, as a server that was started with the base model does."""
    from ibisagent.policies.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(tiny(KIND), device="cpu")
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    served = StandInVllm(checkpoint.model, checkpoint.processor)
    install(monkeypatch, served)
    yield served
    served.close()


@pytest.fixture
def train(corpus: Path, tiny: Callable[[str], Path], server: StandInVllm) -> Train:
    """``train(out, "--flag", value, …)``: two updates on the sample corpus; the exit code."""

    def run(out: Path, *words: Any, rollouts: str = "vllm") -> int:
        head = ["train", "rl", "--preset", "tiny", "--prompts", f"corpus:{corpus}", "--segmenter", "rules",
                "--model", tiny(KIND), "--device", "cpu", "--out", out, "--learning-rate", 1e-2, "--group-size", 4,
                "--micro-batch", 4, "--max-new-tokens", 8, "--rollouts", rollouts, "--vllm-url", server.url,
                "--vllm-wait-s", 1, "--vllm-retries", 0, "--parity-runs", 1, "--parity-mean", 1e-3, "--parity-max",
                1e-2, "--parity-ratio", 1e-2, "--parity-kl", 1e-4]  # fmt: skip
        return ibisagent([str(word) for word in [*head, *words]])

    return run


class Noted:
    """Every second reply is read from a script, or nothing would be shown and earned; all are written down."""

    def __init__(self, inner: Any, renderer: Any, drawn: dict[Any, Sample]) -> None:
        self.inner, self.renderer, self.drawn = inner, renderer, drawn

    def session(self, seed: int) -> Any:
        other = Noted(self.inner.session(seed), self.renderer, self.drawn)
        other.seed, other.script = seed, np.random.default_rng(seed)
        return other

    def sample(self, contexts: Sequence[Any]) -> list[Sample]:
        if all(context.key.endswith("/0") for context in contexts):  # no siblings: the gate's
            return self.inner.sample(contexts)
        real = [c for c in contexts if (int(c.key.partition("/")[2]) + c.num_turns) % 2 == 0]
        found = dict(zip((c.key for c in real), self.inner.sample(real), strict=True))
        for context in contexts:
            if context.key not in found:
                first = not context.num_turns and context.key.endswith("/1")  # sees a mask in its second turn
                text = LIVER if first else str(self.script.choice([LIVER, CENTRE, ABSENT, FOUND]))
                found[context.key] = Sample(tuple(int(i) for i in self.renderer.reply(text)), True)
            self.drawn[self.seed, context.key, context.num_turns] = found[context.key]
        return [found[c.key] for c in contexts]


class Again:
    """Gives the draws that were written down."""

    def __init__(self, drawn: dict[Any, Sample]) -> None:
        self.drawn = drawn

    def session(self, seed: int) -> Any:
        self.seed = seed
        return self

    def sample(self, contexts: Sequence[Any]) -> list[Sample]:
        return [self.drawn[self.seed, c.key, c.num_turns] for c in contexts]


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Sample]:
    """What a run through the server draws; a local run then draws the same."""
    from ibisagent.train.rl import setup

    drawn: dict[Any, Sample] = {}
    real = setup.sampler_maker

    def maker(config: Any, renderer: Any, server: Any = None) -> Any:
        make = real(config, renderer, server)
        return lambda model: Again(drawn) if server is None else Noted(make(model), renderer, drawn)

    monkeypatch.setattr(setup, "sampler_maker", maker)
    return drawn


def lines(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "parity.json").read_text())


# -- runs that learn --------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--vllm-correction", "none"), ("--lora-rank", 2)], ids=["all weights", "adapter"])
def test_two_updates_are_those_of_the_local_sampler(
    words: tuple[Any, ...], train: Train, server: StandInVllm, noted: dict[Any, Sample], tmp_path: Path
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    assert train(there, *words) == 0
    asked = len(server.requests)
    assert train(here, *words, rollouts="local") == 0
    assert len(server.requests) == asked
    one, other = weights(there / "model"), weights(here / "model")
    assert set(one) == set(other)
    close = {"rtol": 0, "atol": 0} if "none" in words else {"rtol": 1e-4, "atol": 1e-5}
    for name in one:
        torch.testing.assert_close(one[name], other[name], **close)
    rows, local = lines(there), lines(here)
    assert [row["reward"] for row in rows] == [row["reward"] for row in local]
    assert any(row["grad_norm"] > 0 for row in rows)
    # What was drawn and what was learnt agree in both updates: the second one's weights reached the server.
    assert all(row["sampler/mean"] < 1e-4 and row["sampler/max"] < 1e-3 for row in rows)
    assert all(abs(row["sampler/ratio"] - 1) < 1e-4 and row["sampler/kl"] < 1e-6 for row in rows)


def test_what_the_server_is_asked(train: Train, server: StandInVllm, noted: dict[Any, Sample], tmp_path: Path) -> None:
    assert train(tmp_path / "out", "--parity-runs", 3, "--temperature", 0.8) == 0
    found = report(tmp_path / "out")
    assert found["passed"] and found["runs"] == 3 and found["found"]["tokens"] > 20 and found["found"]["unknown"] == 0
    assert found["found"]["mean"] < 1e-4 and found["weights"]["change"] > 4e-3
    assert found["weights"]["found"]["mean"] < found["weights"]["change"] / 20
    assert found["server"]["logprobs_mode"] == "processed_logprobs" and found["images"] >= 3
    # Weights: for the gate, moved, moved back, and after the first update; each time with a name of its own.
    assert len(server.paths("/update_weights")) == len(server.paths("/reset_encoder_cache")) == 4
    versions = [body["new_version"] for body in server.paths("/update_weight_version")]
    assert len(set(versions)) == 4 and server.weight_version == versions[-1]
    asked = server.paths("/inference/v1/generate")
    assert len({body["sampling_params"]["seed"] for body in asked}) == len(asked)
    assert {body["sampling_params"]["temperature"] for body in asked} == {0.8}
    assert {len(body["content_parts"]) for body in asked} == {1, 2}  # later turns show masks
    image = server.renderer.image_id
    assert all(body["token_ids"].count(image) == len(body["content_parts"]) for body in asked)


def test_a_resumed_run_is_compared_again(
    train: Train, server: StandInVllm, noted: dict[Any, Sample], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert train(out, "--num-updates", 1, "--parity-runs", 1, "--no-parity-weights") == 0
    assert report(out)["update"] == 0
    server.weight_version = "default"  # started anew meanwhile
    assert train(out, "--num-updates", 2, "--parity-runs", 2, "--resume") == 0
    assert report(out)["update"] == 1 and report(out)["passed"]
    assert [row["step"] for row in lines(out)] == [1, 2]


# -- runs that must not ------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], out: Path, code: int, status: int) -> str:
    """The one line that a run ended with; nothing was trained."""
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ibisagent: error")]
    assert code == status and len(said) == 1 and not (out / "model").exists()
    assert not (out / "log.jsonl").exists() or not lines(out)
    return said[0]


@pytest.mark.parametrize(
    ("how", "words", "reason"),
    [
        ({"deaf": True}, (), "does not draw from the model that is trained: log-probabilities of"),
        ({"raw": True}, ("--temperature", 0.5), "or tells raw log-probabilities instead of processed ones"),
        ({"pad": [9]}, (), "differ from token 0 on"),
        ({"lose": 1}, (), "the server makes 0 image tokens of 1 pictures"),
        ({"echo": False}, (), "does not say which tokens it was shown"),
        ({"sick": [500] * 9}, (), "answers 500 at /inference/v1/generate: not today"),
    ],
    ids=["stale weights", "raw", "other ids", "lost picture", "no ids", "fails"],
)
def test_another_model_is_not_learnt_from(
    how: dict[str, Any], words: tuple[Any, ...], reason: str, train: Train, server: StandInVllm, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in how.items():
        setattr(server, name, value)
    said = refused(capsys, tmp_path / "out", train(tmp_path / "out", *words), 5)
    assert reason in said
    if "draw from" in said:
        found = report(tmp_path / "out")
        assert not found["passed"] and found["found"]["mean"] > found["limits"]["mean"]
        assert abs(found["worst"][0]["server"] - found["worst"][0]["trainer"]) > found["limits"]["mean"]
        assert f"{found['found']['mean']:.3g} on average" in said and "nothing was trained" in said


def test_a_server_that_begins_right_and_takes_no_weights_is_found_out(
    tiny: Callable[[str], Path], train: Train, server: StandInVllm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ibisagent.policies.checkpoints import load_checkpoint

    server.model, server.deaf = load_checkpoint(tiny(KIND), device="cpu").model.eval(), True
    said = refused(capsys, tmp_path / "out", train(tmp_path / "out"), 5)
    assert "weights that are sent to the vLLM server do not take effect there" in said
    found = report(tmp_path / "out")
    assert found["found"]["mean"] < 1e-4 and found["weights"]["found"]["mean"] > found["weights"]["change"] / 2


def test_a_server_that_shows_pictures_smaller_is_refused(
    train: Train, server: StandInVllm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ibisagent.train.models import limit_pixels

    assert limit_pixels(server.renderer.processor, 4 * 14 * 14)
    said = refused(capsys, tmp_path / "out", train(tmp_path / "out"), 5)
    assert "the server makes 1 image tokens of 1 pictures" in said and "--mm-processor-kwargs" in said


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        (("model_config", "logprobs_mode"), "raw_logprobs", "--logprobs-mode processed_logprobs"),
        (("model_config", "max_model_len"), 2048, "--max-model-len 4104"),
        (("weight_transfer_config",), None, "--weight-transfer-config"),
    ],
)
def test_a_server_that_was_started_otherwise_is_refused_before_anything_is_played(
    where: tuple[str, ...], value: Any, reason: str, train: Train, server: StandInVllm, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = server.config
    for name in where[:-1]:
        config = config[name]
    config[where[-1]] = value
    assert reason in refused(capsys, tmp_path / "out", train(tmp_path / "out"), 2)
    assert not server.paths("/inference/v1/generate") and not server.paths("/update_weights")


def test_no_server_and_no_vllm(
    train: Train, server: StandInVllm, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    server.close()
    said = refused(capsys, out, train(out, "--vllm-wait-s", 0.1), 2)
    assert f"no vLLM server answers at {server.url}" in said and "vllm serve MODEL" in said
    assert "NanoVLM" in refused(capsys, out, train(out, "--model", "nano"), 2)
    monkeypatch.undo()
    assert "pip install 'trl[vllm]'" in refused(capsys, out, train(out), 2)


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "started anew"])
def test_a_server_that_is_lost_in_the_middle_ends_the_run(
    gone: bool, train: Train, server: StandInVllm, noted: dict[Any, Sample], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """After the first update, which is kept."""
    real = server.answer

    def answer(path: str, body: Any) -> Any:
        if path == "/inference/v1/generate" and server.weight_version.endswith("-2"):
            server.dead, server.weight_version = gone, "default"
        return real(path, body)

    monkeypatch.setattr(server, "answer", answer)
    assert train(tmp_path / "out", "--parity-runs", 1, "--no-parity-weights") == 5
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ibisagent: error")]
    assert len(said) == 1 and "--resume goes on from the last checkpoint" in said[0]
    assert ("is gone or too slow" if gone else "holds the weights 'default'") in said[0]
    assert (tmp_path / "out" / "checkpoints" / "checkpoint-1").is_dir() and len(lines(tmp_path / "out")) == 1

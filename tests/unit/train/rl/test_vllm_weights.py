"""What is sent to a server of a model with an adapter; names of the weights that it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")
torch = pytest.importorskip("torch")

from ibisagent.errors import PolicyError  # noqa: E402
from ibisagent.train.models import Lora, load_start  # noqa: E402
from ibisagent.train.rl.config import RlConfig  # noqa: E402
from ibisagent.train.rl.vllm_weights import ServedWeights, merged_weights  # noqa: E402


def adapted(folder: Path, dtype: str) -> Any:
    """A tiny model with an adapter that does something."""
    model = load_start(str(folder), dtype=dtype, lora=Lora(2), freeze_vision=True).model
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    return model


def test_what_is_sent_is_the_merged_model_by_its_own_names(tiny: Callable[[str], Path]) -> None:
    model = adapted(tiny("qwen2_5_vl"), "float32")
    sent = {name: value.clone() for name, value in merged_weights(model)}
    merged = dict(model.merge_and_unload().named_parameters())
    assert set(sent) == set(merged)
    for name, value in merged.items():
        torch.testing.assert_close(sent[name], value.data, rtol=0, atol=1e-6)
    # Or nothing was tried.
    plain = dict(load_start(str(tiny("qwen2_5_vl"))).model.named_parameters())
    assert sum(not torch.equal(sent[name], plain[name]) for name in sent) > 8


def test_sending_leaves_the_base_as_it_is_where_merging_would_not(tiny: Callable[[str], Path]) -> None:
    model = adapted(tiny("qwen2_5_vl"), "bfloat16")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in merged_weights(model):
        assert value.dtype == torch.bfloat16, name
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.merge_adapter()
    model.unmerge_adapter()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Server:
    """Holds a name."""

    url = "http://server"

    def __init__(self) -> None:
        self.version = "default"

    def weight_version(self) -> str:
        return self.version

    def weights_are(self, version: str) -> None:
        self.version = version


def test_weights_go_once_an_update_and_are_still_there_afterwards(tmp_path: Path) -> None:
    server, told = Server(), []
    trainer = SimpleNamespace(
        state=SimpleNamespace(global_step=0),
        accelerator=SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: told.append("waited")),
        model="model",
    )
    config = RlConfig(out=tmp_path, rollouts="vllm")
    served = ServedWeights(server, config, lambda trainer, send: told.append("compared"))  # type: ignore[arg-type]
    served._generation = SimpleNamespace(sync_weights=lambda: told.append("sent"))
    for step in (0, 0, 3):
        trainer.state.global_step = step
        with served.current(trainer) as model:
            assert model == "model"
    assert told == ["sent", "waited", "compared", "sent", "waited"]
    with pytest.raises(PolicyError, match="started anew, or another run uses it"), served.current(trainer):
        server.version = "default"
    trainer.state.global_step = 4
    # To a server that lost them, nothing is sent: NCCL would wait for ever.
    with pytest.raises(PolicyError, match="holds the weights 'default'"), served.current(trainer):
        pass
    assert told.count("sent") == 2


def test_what_trl_raises_becomes_a_line(tmp_path: Path) -> None:
    def fails() -> None:
        raise Exception("Request failed: 500,\n out of memory")

    served = ServedWeights(Server(), RlConfig(out=tmp_path))  # type: ignore[arg-type]
    served._generation = SimpleNamespace(sync_weights=fails)
    with pytest.raises(PolicyError) as error:
        served.send(SimpleNamespace(accelerator=SimpleNamespace(is_main_process=True)))
    assert "could not be given the weights: Request failed: 500, out of memory" in str(error.value)

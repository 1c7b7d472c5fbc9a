"""The training model's weights on a vLLM server, by trl: streamed to its workers over NCCL, an adapter merged.

What is added to trl's way: the server's weights carry a name, so that a server that was started anew, or was given
another run's, is noticed before anything it drew is used; an adapter is merged beside the base, not into it; and
whoever plays waits until the server has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ibisagent.errors import IbisError, InputError, PolicyError
from ibisagent.train.rl.vllm_server import refusals

if TYPE_CHECKING:
    from torch import Tensor

    from ibisagent.train.rl.config import RlConfig
    from ibisagent.train.rl.vllm_server import VllmServer

__all__ = ["ServedWeights", "check_installed", "merged_weights"]


def check_installed() -> None:
    """Whether vLLM is there to send weights with.

    Raises
    ------
    InputError
        If not.
    """
    from trl.generation import vllm_generation

    if not vllm_generation.is_vllm_available():
        raise InputError("--rollouts vllm sends weights by vLLM's own NCCL engine: pip install 'trl[vllm]' 'vllm<0.32'")


class ServedWeights:
    """Keeps a server's weights those of a trainer's model.

    Parameters
    ----------
    server
        Up and checked.
    config
        Of the run.
    gate
        Called once, before anything is drawn to be learnt from, with the trainer and with what sends the weights anew.
    """

    def __init__(
        self, server: VllmServer, config: RlConfig, gate: Callable[[Any, Callable[[], None]], None] | None = None
    ) -> None:
        self.server, self._config, self._gate = server, config, gate
        # All processes name the weights alike without asking each other.
        self._run = hashlib.sha256(f"{config.out.resolve()}|{config.seed}".encode()).hexdigest()[:12]
        self._sent, self._update = 0, -1
        self._generation: Any = None

    @contextmanager
    def current(self, trainer: Any) -> Iterator[Any]:
        """While runs are played: the server holds the weights of this update. All processes call this.

        Raises
        ------
        PolicyError
            If it cannot be given them, or holds others afterwards.
        """
        if self._update != trainer.state.global_step:
            self.send(trainer)
            self._update = trainer.state.global_step
        if self._gate is not None:
            self._gate(trainer, lambda: self.send(trainer))
            self._gate = None
        yield trainer.model
        self._check()

    def send(self, trainer: Any) -> None:
        """Send the weights as they are now. All processes call this."""
        accelerator = trainer.accelerator
        if self._sent and accelerator.is_main_process:
            self._check()  # to a server that was started anew, NCCL would wait for ever
        try:
            if self._generation is None:
                self._generation = _connection(trainer, self.server.url, self._config)
            self._generation.sync_weights()
        except IbisError:
            raise
        except Exception as error:
            # trl, requests and NCCL raise what they like, down to bare exceptions.
            raise refusals(error, self.server.url) from error
        self._sent += 1
        if accelerator.is_main_process:
            self.server.weights_are(self._version)
        accelerator.wait_for_everyone()

    @property
    def _version(self) -> str:
        return f"ibisagent-{self._run}-{self._sent}"

    def _check(self) -> None:
        found = self.server.weight_version()
        if found != self._version:
            raise PolicyError(
                f"the vLLM server at {self.server.url} holds the weights '{found}', not '{self._version}': it was "
                "started anew, or another run uses it; nothing it drew was used; --resume goes on from the last "
                "checkpoint"
            )


def _connection(trainer: Any, url: str, config: RlConfig) -> Any:
    """trl's, with adapters merged beside their base."""
    from accelerate.utils import is_peft_model
    from trl.generation import vllm_generation

    class Connection(vllm_generation.VLLMGeneration):
        def _iter_named_params(self) -> Iterator[tuple[str, Any]]:
            sharded = self._dist.is_fsdp or self._dist.is_zero3
            if sharded or not is_peft_model(self.model):
                yield from super()._iter_named_params()
                return
            for name, weights in merged_weights(self.model):
                yield self._fix_param_name_to_vllm(name), weights

    return Connection(
        model=trainer.model,
        accelerator=trainer.accelerator,
        processing_class=trainer.processing_class,
        mode="server",
        server_base_url=url,
        server_timeout=config.vllm_wait_s,
        group_port=config.vllm_group_port,
    )


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of a model below its LoRA adapter, with the adapter in them, one at a time.

    peft's own merging adds to the weights in place and subtracts again. In bfloat16 that does not give back what was
    there: with every update, the base would drift away from the one that the exported adapter names.

    Parameters
    ----------
    model
        With a LoRA adapter on linear layers.
    """
    import torch

    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, weights in model.named_parameters():
        if model.prefix in name:
            continue
        owner = name.removesuffix(".base_layer.weight")
        value = weights.data
        if owner != name and owner in layers:
            with torch.no_grad():
                for adapter in layers[owner].active_adapters:
                    value = (value.float() + layers[owner].get_delta_weight(adapter).float()).to(weights.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer", ""), value

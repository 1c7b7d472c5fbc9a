"""The parts of verl 0.9.1 that our agent loop touches, for machines without verl.

Field names, defaults and the attributes that the base class sets are verl's; everything else of it is left out.
"""

from __future__ import annotations

import importlib.util
import sys
from abc import ABC, abstractmethod
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from pydantic import BaseModel

__all__ = ["HAS_VERL", "install"]

HAS_VERL = importlib.util.find_spec("verl") is not None


class AgentLoopMetrics(BaseModel):
    generate_sequences: float = 0.0
    tool_calls: float = 0.0
    compute_score: float = 0.0
    num_preempted: int = -1


class AgentLoopOutput(BaseModel):
    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    response_logprobs: list[float] | None = None
    routed_experts: Any | None = None
    multi_modal_data: dict[str, Any] | None = None
    reward_score: float | None = None
    num_turns: int = 0
    metrics: AgentLoopMetrics
    extra_fields: dict[str, Any] = {}
    mm_processor_kwargs: dict[str, Any] | None = None
    mm_processor_output: list[dict[str, Any]] | None = None


class AgentLoopBase(ABC):
    def __init__(
        self,
        trainer_config: Any,
        server_manager: Any,
        tokenizer: Any,
        processor: Any,
        dataset_cls: Any,
        data_config: Any,
        hf_model_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.config = trainer_config.config
        self.rollout_config = self.config.actor_rollout_ref.rollout
        self.server_manager, self.tokenizer, self.processor = server_manager, tokenizer, processor
        self.dataset_cls, self.data_config = dataset_cls, data_config.config

    @abstractmethod
    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        raise NotImplementedError


REGISTRY: dict[str, dict[str, str]] = {}


def register(agent_name: str) -> Any:
    def decorator(subclass: type) -> type:
        REGISTRY[agent_name] = {"_target_": f"{subclass.__module__}.{subclass.__qualname__}"}
        return subclass

    return decorator


def install() -> None:
    """Put the stand-in where verl would be, unless verl is there."""
    name = "verl.experimental.agent_loop.agent_loop"
    if HAS_VERL or name in sys.modules:
        return
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:end]))
        module.__path__ = []
        module.__spec__ = ModuleSpec(module.__name__, None)  # whoever looks for verl must not stumble
        sys.modules[module.__name__] = module
    for part in (AgentLoopMetrics, AgentLoopOutput, AgentLoopBase, register):
        setattr(sys.modules[name], part.__name__, part)
    sys.modules[name]._agent_loop_registry = REGISTRY

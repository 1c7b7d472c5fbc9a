"""Plan memory and time of training a Qwen2.5-VL or Qwen3-VL, before renting the GPUs.

``ibisagent train plan`` prints it. The parts: sizes counted on the real classes (:mod:`.models`), images and episodes
as tokens (:mod:`.images`, :mod:`.episode`), what autograd keeps (:mod:`.activations`), operations (:mod:`.flops`),
memory (:mod:`.memory`), time (:mod:`.timing`). Each formula stands with its derivation in its module, and the tests
hold it against the real classes; every assumption is a field of :class:`PlanConfig`.
"""

from __future__ import annotations

from ibisagent.train.plan.command import main
from ibisagent.train.plan.config import MACHINES, PlanConfig
from ibisagent.train.plan.models import PUBLISHED, ModelSizes, model_sizes
from ibisagent.train.plan.planner import Plan, make_plan

__all__ = ["MACHINES", "PUBLISHED", "ModelSizes", "Plan", "PlanConfig", "main", "make_plan", "model_sizes"]

"""Who plays the arms: every policy and every segmenter is loaded once, when its first arm begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.evaluate.baselines import BoxOraclePolicy, CentrePolicy, NoLookPolicy, Positions, RandomPolicy
from ibisagent.policies.oracle import OraclePolicy

if TYPE_CHECKING:
    from ibisagent.config import RolloutConfig
    from ibisagent.evaluate.arms.arm import Arm
    from ibisagent.evaluate.run import Targets
    from ibisagent.policies.protocol import Policy
    from ibisagent.segmenters.protocol import Segmenter

__all__ = ["BASELINES", "KNOWS_TARGETS", "CannotPlay", "Players", "limits"]

BASELINES: tuple[str, ...] = ("no-look", "random-click", "random-clicks", "centre-click", "box-oracle")
"""Policies that need no model, by name."""

KNOWS_TARGETS = ("oracle", "box-oracle")
"""Policies that are given the targets."""


class CannotPlay(Exception):
    """An arm cannot be played with these players; the message says why, in one line."""


class Players:
    """Policies and segmenters by name.

    Parameters
    ----------
    policy
        The lab's own, and how it is named on the command line.
    segmenter
        The lab's own.
    make_policy, make_segmenter
        Load another one from its spec.
    positions
        Gives the mean training positions for the no-look baseline; called if that is played.
    """

    def __init__(
        self,
        policy: Policy,
        segmenter: Segmenter,
        make_policy: Callable[[str], Policy],
        make_segmenter: Callable[[str], Segmenter],
        positions: Callable[[], Positions],
    ) -> None:
        self._policies: dict[str | None, Policy] = {None: policy}
        self._segmenters: dict[str | None, Segmenter] = {None: segmenter}
        self._make_policy, self._make_segmenter, self._positions = make_policy, make_segmenter, positions

    def of(self, arm: Arm, config: RolloutConfig, targets: Targets) -> tuple[Policy, Segmenter, list[str]]:
        """Policy and segmenter of an arm, and what has to be known about the two together.

        Parameters
        ----------
        arm, config
            What is to be played, with the arm's own settings in `config`.
        targets
            For the policies that see them.

        Raises
        ------
        CannotPlay
            If they cannot be loaded, have no action in common, or cannot be kept from what the arm goes without.
        """
        policy, segmenter = self._policy(arm.policy, targets), self._segmenter(arm.segmenter)
        _check(arm, config, policy, segmenter)
        return policy, segmenter, limits(policy, segmenter)

    def forget(self, arm: Arm) -> None:
        """Drop what only this arm needed; the lab's own policy and segmenter stay."""
        if arm.policy is not None:
            self._policies.pop(arm.policy, None)
        if arm.segmenter is not None:
            self._segmenters.pop(arm.segmenter, None)

    def _policy(self, name: str | None, targets: Targets) -> Policy:
        if name in KNOWS_TARGETS:
            return OraclePolicy(targets) if name == "oracle" else BoxOraclePolicy(targets)
        if name not in self._policies:
            assert name is not None
            self._policies[name] = self._baseline(name) if name in BASELINES else _loaded(self._make_policy, name)
        return self._policies[name]

    def _baseline(self, name: str) -> Policy:
        if name == "no-look":
            return NoLookPolicy(self._positions())
        if name == "centre-click":
            return CentrePolicy()
        return RandomPolicy(1 if name == "random-click" else None)

    def _segmenter(self, name: str | None) -> Segmenter:
        if name not in self._segmenters:
            assert name is not None
            self._segmenters[name] = _loaded(self._make_segmenter, name)
        return self._segmenters[name]


def _loaded(make: Callable[[str], Any], spec: str) -> Any:
    try:
        return make(spec)
    except InputError as error:
        raise CannotPlay(str(error)) from None


def _check(arm: Arm, config: RolloutConfig, policy: Policy, segmenter: Segmenter) -> None:
    can = segmenter.capabilities
    if arm.policy == "box-oracle" and not can.boxes:
        raise CannotPlay(f"the segmenter '{segmenter.name}' takes no boxes")
    if not policy.dialect.kinds & {kind for kind, has in (("click", can.clicks), ("box", can.boxes)) if has}:
        raise CannotPlay(f"the policy '{policy.name}' and the segmenter '{segmenter.name}' share no action")
    if not config.thoughts and not getattr(policy, "can_skip_thoughts", False):
        raise CannotPlay(f"the policy '{policy.name}' cannot be kept from thinking: nobody can begin its replies")
    conversation = getattr(policy, "conversation", None)
    if arm.kind == "ablation" and conversation is None:
        raise CannotPlay(f"the policy '{policy.name}' reads no messages, so nothing can be left out of them")
    if not config.history and getattr(conversation, "history", None):
        raise CannotPlay(f"the policy '{policy.name}' was made to read all earlier turns")


def limits(policy: Policy, segmenter: Segmenter) -> list[str]:
    """What the segmenter cannot do that the policy may ask for, one line each."""
    can, kinds = segmenter.capabilities, policy.dialect.kinds
    lacks = [
        ("clicks", "click" in kinds and not can.clicks),
        ("negative points", "click" in kinds and can.clicks and not can.negative_clicks),
        ("boxes", "box" in kinds and not can.boxes),
        ("given masks", not can.prior_mask),
    ]
    notes = [f"the segmenter takes no {what}" for what, missing in lacks if missing]
    if can.max_clicks is not None:
        notes.append(f"the segmenter takes at most {can.max_clicks} points")
    return notes

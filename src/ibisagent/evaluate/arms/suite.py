"""The arms that a lab can have: by name, and by the group that ``--arms`` names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ibisagent.engine.language.instructions import CATEGORIES
from ibisagent.errors import InputError
from ibisagent.evaluate.arms.arm import AGENT, Arm, Kind, slug
from ibisagent.evaluate.arms.conditions import BANDS
from ibisagent.registry import POLICIES, SEGMENTERS, parse_spec

__all__ = ["GROUPS", "arms_named"]

GROUPS = ("baselines", "ceiling", "robustness", "wording", "ablations", "segmenters", "policies")
"""What ``--arms`` takes beside the arms' own names; ``all`` is all of them. The arm ``agent`` is always played."""

_GROUP_OF: dict[Kind, str] = {
    "baseline": "baselines",
    "ceiling": "ceiling",
    "robustness": "robustness",
    "wording": "wording",
    "ablation": "ablations",
    "segmenter": "segmenters",
    "policy": "policies",
}


def arms_named(
    names: Sequence[str],
    *,
    segmenters: Sequence[str] = (),
    others: Sequence[str] = (),
    absent: Sequence[Path] = (),
) -> list[Arm]:
    """The arms of a lab, the agent first.

    Parameters
    ----------
    names
        Names of arms or of :data:`GROUPS`, or ``all``.
    segmenters
        Specs of the segmenters that the same policy plays with, an arm each.
    others
        Specs of the policies that play with the same tool, an arm each.
    absent
        Case lists with null masks, an arm of the group ``robustness`` each.

    Returns
    -------
    list of Arm
        In the order of the kinds, each with the arm that it is held against.

    Raises
    ------
    InputError
        If a name or a spec is not known, two arms get one name, or a group has no arm.
    """
    known = [
        Arm(AGENT, "agent", "Agent", "The policy, the segmenter and the list as they are.", against=None),
        *_fixed(),
        *_absent_lists(absent),
        *_wordings(),
        *_ablations(),
        *(_segmenter(spec) for spec in segmenters),
        *(_other(spec) for spec in others),
    ]
    table = {arm.name: arm for arm in known}
    if len(table) < len(known):
        twice = next(arm.name for i, arm in enumerate(known) if arm.name in [a.name for a in known[:i]])
        raise InputError(f"two arms are called '{twice}': name a segmenter, a policy or a list once")
    wanted = {AGENT}
    for name in names:
        if name in table:
            wanted.add(name)
        elif name in GROUPS or name == "all":
            found = [arm.name for arm in known if name == "all" or _GROUP_OF.get(arm.kind) == name]
            if not found:
                flag = "--segmenters S,S" if name == "segmenters" else "--other POLICY"
                raise InputError(f"--arms {name}: give {flag} too")
            wanted.update(found)
        else:
            raise InputError(
                f"--arms: there is no arm '{name}'; there are all, {', '.join(GROUPS)}, and {', '.join(table)}"
            )
    # A list that was named on the command line is to be played, whatever --arms says.
    wanted.update(arm.name for arm in known if arm.kind in ("segmenter", "policy") or arm.cases is not None)
    # What an arm is held against comes with it.
    wanted.update(against for name in list(wanted) if (against := table[name].against) is not None)
    return [arm for arm in known if arm.name in wanted]


def _fixed() -> list[Arm]:
    light, heavy = ("IoU {} to {}".format(*BANDS[strength]) for strength in ("light", "heavy"))
    return [
        Arm("oracle", "ceiling", "Oracle clicks", "Expert clicks on the target: what the tool can reach in the steps.",
            policy="oracle"),
        Arm("no-look", "baseline", "No look", "One click at the target's mean training position.", policy="no-look"),
        Arm("random-click", "baseline", "Random click", "One positive click at a random pixel.", policy="random-click"),
        Arm("random-clicks", "baseline", "Random clicks", "As many random clicks of either sign as there are steps.",
            policy="random-clicks"),
        Arm("centre-click", "baseline", "Centre click", "One click in the middle of the image.", policy="centre-click"),
        Arm("box-oracle", "baseline", "Box oracle", "One tight box around the target.", policy="box-oracle"),
        Arm("one-shot", "baseline", "One shot", "The agent's own first action, and no more.", rollout={"max_steps": 1}),
        Arm("wrong-place", "robustness", "Wrong place said", "The instruction says that the target is where it is not.",
            condition="wrong-place", against="true-place"),
        Arm("true-place", "robustness", "True place said", "The same words say where the target is.",
            condition="true-place"),
        Arm("mismatched-mask", "robustness", "Mismatched mask", "The given mask shows another structure or place.",
            condition="mismatched-mask"),
        Arm("corrupted-light", "robustness", "Corrupted mask, light", f"The given mask is damaged to {light}.",
            condition="corrupted-light"),
        Arm("corrupted-heavy", "robustness", "Corrupted mask, heavy", f"The given mask is damaged to {heavy}.",
            condition="corrupted-heavy"),
        Arm("good-mask", "robustness", "Good mask", "The given mask fits already; the instruction does not say so.",
            condition="good-mask"),
        Arm("false-error", "robustness", "False error said", "The given mask fits; the instruction says it does not.",
            condition="false-error", against="good-mask"),
        Arm("absent-foreign", "robustness", "Absent, never in this modality",
            "Asked for a structure that no image of the modality shows.", condition="absent-foreign", against=None),
        Arm("absent-near", "robustness", "Absent, another body part",
            "Asked for a structure of another part of the body.", condition="absent-near", against=None),
    ]  # fmt: skip


def _absent_lists(paths: Sequence[Path]) -> list[Arm]:
    return [
        Arm(f"absent-{slug(path.stem)}", "robustness", f"Absent, list: {path.stem.replace('_', ' ')}",
            f"The cases of {path.name}.", against=None, cases=path)
        for path in paths
    ]  # fmt: skip


def _wordings() -> list[Arm]:
    arms = []
    for stage, against in (("start", AGENT), ("refine", "corrupted-light")):
        for category in CATEGORIES[stage]:
            about = "The plain case" if stage == "start" else "A lightly damaged mask to refine"
            words = category.replace("_", " ")
            arms.append(
                Arm(f"wording-{stage}-{slug(category)}", "wording", f"Wording: {words} ({stage})",
                    f"{about}, told in the category '{words}'.", condition=f"wording:{stage}:{category}",
                    against=against)
            )  # fmt: skip
    return arms


def _ablations() -> list[Arm]:
    return [
        Arm("no-thought", "ablation", "Without thought", "No thought is shown or written: every reply begins empty.",
            rollout={"thoughts": False}),
        Arm("no-history", "ablation", "Without history", "Only the newest observation is shown.",
            rollout={"history": False}),
        Arm("no-overlay", "ablation", "Without overlay", "The mask is not drawn on the image.",
            rollout={"overlay": False}),
    ]  # fmt: skip


def _segmenter(spec: str) -> Arm:
    _check_kind("segmenter", spec, SEGMENTERS)
    return Arm(f"segmenter-{slug(spec)}", "segmenter", spec, "The same policy with another segmenter.", segmenter=spec)


def _other(spec: str) -> Arm:
    _check_kind("policy", spec, POLICIES)
    return Arm(f"other-{slug(spec)}", "policy", spec, "Another policy with the same tool.", policy=spec)


def _check_kind(noun: str, spec: str, table: dict[str, str]) -> None:
    kind, _ = parse_spec(spec)
    if kind not in table:
        raise InputError(f"there is no {noun} '{kind}'; there are {', '.join(table)}")

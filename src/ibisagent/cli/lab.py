"""``ibisagent evaluate --arms``: every way to play a case list that a sceptic asks for, one folder for all."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.cli.players import policy_options, rollout_config
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ibisagent.evaluate.arms import Arm
    from ibisagent.evaluate.case_list import CaseList
    from ibisagent.evaluate.result import CaseResult
    from ibisagent.policies.protocol import Policy
    from ibisagent.segmenters.protocol import Segmenter

__all__ = ["run", "wanted"]


def wanted(options: argparse.Namespace) -> bool:
    """Whether the options ask for a lab: arms, or what is an arm of its own.

    Raises
    ------
    InputError
        If they ask for a part of a lab without ``--arms``.
    """
    if options.arms is not None:
        return True
    parts = ("segmenters", "other", "absent", "subset")
    for flag in parts:
        if getattr(options, flag):
            raise InputError(f"--{flag} is a part of a lab: give --arms too, for example --arms all or --arms agent")
    return False


def run(options: argparse.Namespace, out: Path) -> int:
    """Play a lab: 0 if every arm was played without error, else 5.

    Raises
    ------
    InputError
        If the list, an arm or an option cannot be used; nothing has been written then.
    """
    from ibisagent.api import resolve_policy
    from ibisagent.evaluate.arms import LabSettings, Players, arms_named, lab_summary, read_lab, subset
    from ibisagent.evaluate.case_list import open_case_list
    from ibisagent.evaluate.store import write_json
    from ibisagent.registry import make_segmenter

    arms = arms_named(
        _names(options.arms),
        segmenters=_names(options.segmenters),
        others=options.other or (),
        absent=[Path(path) for path in options.absent or ()],
    )
    config, more = rollout_config(options), policy_options(options)
    cases = open_case_list(options.cases, split=options.split, limit=options.limit)
    whole = open_case_list(options.cases) if options.split is not None else cases
    own_lists = {arm.cases: open_case_list(arm.cases) for arm in arms if arm.cases is not None}
    if options.subset is not None and not subset(cases.rows, options.subset):
        raise InputError(f"{options.cases}: there is no case that can be used, so there is no subset")

    def other_policy(spec: str) -> Policy:
        # The server's address and key are the same for all; prompt and dialect are the lab's own policy's.
        served = {name: more[name] for name in ("base_url", "api_key") if name in more and spec.startswith("api:")}
        made: Policy = resolve_policy(spec, device=options.device, **served)
        return made

    def other_segmenter(spec: str) -> Segmenter:
        made: Segmenter = make_segmenter(spec, options.device)
        return made

    targets: dict[str, Any] | None = {} if options.policy == "oracle" else None
    if targets is not None:
        raise InputError("--arms: the oracle is an arm of its own; give the policy that is to be judged by --policy")
    policy = resolve_policy(options.policy, device=options.device, **more)
    segmenter = make_segmenter(options.segmenter, options.device)
    players = Players(policy, segmenter, other_policy, other_segmenter, lambda: _positions(whole))
    settings = LabSettings(
        config,
        subset=options.subset,
        wordings=options.wordings,
        library=options.library,
        device=options.device,
        batch=options.batch,
        facts=(
            ("split", options.split),
            ("limit", options.limit),
            ("policy", policy.name),
            ("policy_weights_sha256", policy.weights_sha256),
            ("segmenter", segmenter.name),
            ("segmenter_weights_sha256", segmenter.weights_sha256),
            ("device", options.device),
        ),
    )
    facts = _play(cases, arms, players, out, settings, own_lists, overwrite=getattr(options, "overwrite", False))
    summary = lab_summary(read_lab(out))
    write_json(summary, out / "lab_summary.json")
    _report(summary, out)
    if options.json:
        print(json.dumps(summary), flush=True)
    failed = any(facts["arms"][arm.name]["skipped"] for arm in arms) or any(
        figures.get("num_errors") for figures in summary["arms"].values()
    )
    return 5 if failed else 0


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name for name in (part.strip() for part in text.split(",")) if name]


def _positions(cases: CaseList) -> Mapping[str, tuple[float, float]]:
    from ibisagent.evaluate.baselines import mean_positions

    return mean_positions(cases)


def _play(
    cases: CaseList, arms: list[Arm], players: Any, out: Path, settings: Any, own_lists: Mapping[Any, Any], **how: bool
) -> dict[str, Any]:
    from tqdm import tqdm

    from ibisagent.evaluate.arms import play_lab

    with tqdm(unit="case", file=sys.stderr, disable=None) as bar:

        def on_arm(arm: Arm, number: int, skipped: str) -> None:
            bar.set_description(arm.name)
            bar.reset(number)
            if skipped:
                bar.write(f"ibisagent: the arm {arm.name} is not played: {skipped}", file=sys.stderr)

        def on_case(result: CaseResult) -> None:
            bar.update()
            if result.error:
                bar.write(f"ibisagent: {result.case_id or 'a row'}: {result.error}", file=sys.stderr)

        return play_lab(
            cases, arms, players, out, settings, open_list=own_lists.__getitem__, on_arm=on_arm, on_case=on_case, **how
        )


def _report(summary: dict[str, Any], out: Path) -> None:
    from ibisagent.evaluate.arms import lab_lines

    print("\n".join([*lab_lines(summary), f"written to {out}"]), file=sys.stderr, flush=True)

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
    parts = ("segmenters", "other", "absent", "subset", "wordings")
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
    from ibisagent.evaluate.arms import (
        LabSettings,
        SpecMaker,
        Workers,
        arms_named,
        lab_summary,
        read_lab,
    )
    from ibisagent.evaluate.case_list import open_case_list
    from ibisagent.evaluate.player import default_threads, usual_workers
    from ibisagent.evaluate.store import write_json
    from ibisagent.io import CaseRow
    from ibisagent.registry import SEES_TARGETS, parse_spec

    if parse_spec(options.policy)[0] in SEES_TARGETS:
        raise InputError("--arms: the oracle is an arm of its own; --policy names the policy that is to be judged")
    arms = arms_named(
        _names(options.arms),
        segmenters=_names(options.segmenters),
        others=options.other or (),
        absent=[Path(path) for path in options.absent or ()],
    )
    config, more = rollout_config(options), policy_options(options)
    cases = open_case_list(options.cases, split=options.split, limit=options.limit)
    own_lists = {arm.cases: open_case_list(arm.cases) for arm in arms if arm.cases is not None}
    if options.subset is not None and not any(isinstance(row, CaseRow) for row in cases.rows):
        raise InputError(f"{options.cases}: there is no case that can be used, so there is no subset")
    num_rows = len(arms) * min(options.subset or len(cases), len(cases))
    number = options.processes or usual_workers(options.policy, options.device, num_rows)
    workers = Workers(
        number,
        options.executor,
        options.ray_address,
        options.batch,
        options.threads or default_threads(options.policy, number),
        options.device,
    )
    settings = LabSettings(
        config,
        subset=options.subset,
        wordings=options.wordings or 2,
        library=options.library,
        facts=(
            ("split", options.split),
            ("limit", options.limit),
            ("policy", options.policy),
            ("segmenter", options.segmenter),
            ("device", options.device),
        ),
    )
    make = SpecMaker(options.policy, options.segmenter, options.device, more, options.cases)
    facts = _play(
        cases, arms, make, out, settings, own_lists, workers=workers, overwrite=options.overwrite,
        keep_images=not options.no_images,
    )  # fmt: skip
    summary = lab_summary(read_lab(out))
    write_json(summary, out / "lab_summary.json")
    _report(summary, out)
    if options.json:
        print(json.dumps(summary), flush=True)
    told = [facts["arms"][arm.name] for arm in arms]
    failed = [about for about in summary["arms"].values() if about["num_errors"]]
    return 5 if failed or any(about["skipped"] for about in told) else 0


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name for name in (part.strip() for part in text.split(",")) if name]


def _play(
    cases: CaseList, arms: list[Arm], make: Any, out: Path, settings: Any, own_lists: Mapping[Any, Any], **how: Any
) -> dict[str, Any]:
    from tqdm import tqdm

    from ibisagent.evaluate.arms import play_lab

    with tqdm(unit="case", file=sys.stderr, disable=None) as bar:

        def on_arm(arm: Arm, number: int, skipped: str) -> None:
            """Begin an arm on the bar."""
            bar.set_description(arm.name)
            bar.reset(number)
            if skipped:
                bar.write(f"ibisagent: the arm {arm.name} is not played: {skipped}", file=sys.stderr)

        def on_case(result: CaseResult) -> None:
            """Count a case on the bar."""
            bar.update()
            if result.error:
                bar.write(f"ibisagent: {result.case_id or 'a row'}: {result.error}", file=sys.stderr)

        return play_lab(
            cases, arms, make, out, settings, open_list=own_lists.__getitem__, on_arm=on_arm, on_case=on_case, **how
        )


def _report(summary: dict[str, Any], out: Path) -> None:
    from ibisagent.evaluate.arms import lab_lines

    print("\n".join([*lab_lines(summary), f"written to {out}"]), file=sys.stderr, flush=True)

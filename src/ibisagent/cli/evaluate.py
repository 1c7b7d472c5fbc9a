"""``ibisagent evaluate``: a case list, played, kept and scored; or visual questions, asked (:mod:`.questions`)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.cli import lab, questions, rescore
from ibisagent.cli.evaluated import report, report_protocol, say
from ibisagent.cli.outputs import check_out
from ibisagent.cli.players import policy_options, rollout_config
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.evaluate.player import SpecPlayer
    from ibisagent.evaluate.store import RunFolder
    from ibisagent.evaluate.workers import Crew

__all__ = ["run"]

_RESCORE = ("rescore", "protocol", "report", "json", "cases", "also")  # the last two are refused in its own words


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 if every case ended without error or every question was answered, else 5.

    Raises
    ------
    InputError
        If the list or an option cannot be used, or the folder holds a run with other settings; nothing has been
        written then.
    """
    if options.rescore is None and options.cases is None:
        raise InputError("CASES is missing: give a case list, or --rescore DIR for a run that is stored")
    out = Path(options.out if options.rescore is None else options.rescore)
    check_out(out)
    if options.rescore is not None:
        _check_rescore(options)
        code = rescore.run(options)
    elif options.protocol is None and questions.are_questions(options.cases):
        return questions.run(options, out)
    elif lab.wanted(options):
        for flag, given in (("--protocol", options.protocol), ("--also", options.also)):
            if given:
                raise InputError(
                    f"{flag} is for a run of one policy and means nothing to a lab; leave it or --arms out"
                )
        code = lab.run(options, out)
    else:
        code = _run(options, out)
    if options.report:
        from ibisagent.cli.report import write

        write([out], out / "report")
    return code


def _check_rescore(options: argparse.Namespace) -> None:
    """A stored run has its settings: refuse every option that would seem to change them."""
    from ibisagent.cli.parser import build_parser

    usual = vars(build_parser().parse_args(["evaluate"]))
    for name, value in vars(options).items():
        if name not in _RESCORE and value != usual[name]:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} means nothing to --rescore, which plays nothing; leave it out")


def _run(options: argparse.Namespace, out: Path) -> int:
    """One run of one policy; returns and raises as :func:`run`."""
    config = rollout_config(options)
    more = policy_options(options)

    from ibisagent.evaluate.case_list import open_case_list
    from ibisagent.evaluate.leakage import note_leakage
    from ibisagent.evaluate.player import SpecPlayer, default_threads, usual_workers
    from ibisagent.evaluate.protocols import make_protocol
    from ibisagent.evaluate.protocols.apply import under_protocol, write_table
    from ibisagent.evaluate.rescore import run_summary
    from ibisagent.evaluate.store import RunFolder
    from ibisagent.evaluate.workers import crew

    protocol = None if options.protocol is None else make_protocol(options.protocol)
    cases = open_case_list(
        [options.cases, *options.also] if options.also else options.cases,
        split=options.split,
        limit=options.limit,
        sentences="first" if protocol is None else protocol.sentences,
    )
    who, more_facts = options.policy, {}
    if protocol is not None:
        under = under_protocol(protocol, cases, config, options.policy)
        cases, config, who, more_facts = under.cases, under.config, under.policy, {"protocol": under.facts}
        if who != options.policy:
            more = {}  # the user's policy does not play
    num_workers = options.processes or usual_workers(who, options.device, len(cases))
    player = SpecPlayer(
        cases,
        who,
        options.segmenter,
        config,
        device=options.device,
        options=more,
        library=options.library,
        batch=options.batch,
        threads=options.threads or default_threads(who, num_workers),
    )
    with crew(player, options.executor, num_workers, options.ray_address) as workers:
        facts = {
            "cases": cases.name,
            "cases_sha256": cases.sha256,
            "split": options.split,
            "limit": options.limit,
            "num_rows": len(cases),
            **more_facts,
            **workers.facts,
            **config.model_dump(mode="json"),
            "library": options.library,
            "instructions": f"the row's own, else drawn by seed from the {options.library} templates kept out of "
            "training",
        }
        with RunFolder.open(
            out,
            facts,
            environment=_environment(options, num_workers, workers),
            keep_images=not options.no_images,
            overwrite=options.overwrite,
        ) as folder:
            _play(player, workers, folder)
            warning = note_leakage(folder, who)
            summary = run_summary(folder.results(), config.max_steps)
            table = write_table(out, folder.facts, folder.results())
            folder.finish(summary)
    if warning:
        say(f"ibisagent: warning: {warning}")
    report(summary, folder.results(), out)
    if table is not None:
        report_protocol(table, out)
    if options.json:
        print(json.dumps(summary), flush=True)
    return 5 if summary["num_errors"] else 0


def _environment(options: argparse.Namespace, num_workers: int, workers: Crew) -> dict[str, Any]:
    from ibisagent.evaluate.environment import describe_environment

    how = {"executor": options.executor, "workers": num_workers, **workers.circumstances}
    return {**describe_environment(options.device), **how}


def _play(player: SpecPlayer, workers: Crew, folder: RunFolder) -> None:
    """Play what is not there yet, and keep each case as it ends."""
    from tqdm import tqdm

    total = len(player.cases)
    left = [position for position in range(total) if position not in folder.done]
    if len(left) < total:
        say(f"going on with {folder.path}: {total - len(left)} of {total} cases have ended (--overwrite begins anew)")
        if folder.changes:
            say(f"ibisagent: note: this run was begun in other circumstances ({folder.changes}); run.json lists them")
    with tqdm(total=total, initial=total - len(left), unit="case", desc="evaluating", file=sys.stderr, disable=None,
              smoothing=0.05) as bar:  # fmt: skip
        try:
            for ended in workers.play(left):
                folder.append(ended.position, ended.result, ended.picture)
                bar.update()
                if ended.result.error:
                    name = ended.result.case_id or "a row"
                    bar.write(f"ibisagent: {name}: {ended.result.error}", file=sys.stderr)
        except BaseException:
            bar.write(f"ibisagent: {len(folder.done)} of {total} cases are kept in {folder.path}; the same command "
                      "goes on", file=sys.stderr)  # fmt: skip
            raise

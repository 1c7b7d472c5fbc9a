"""What can be asked of ``ibisagent data``."""

from __future__ import annotations

import argparse

from ibisagent.cli.values import at_least, port

__all__ = ["add_data"]


def add_data(p: argparse.ArgumentParser) -> None:
    """Give the parser of ``ibisagent data`` its sub-commands."""
    p.description = "Look at corpora, review them, describe them, convert them; audit data sets for leaks."
    commands = p.add_subparsers(dest="action", metavar="ACTION", required=True)
    _show(commands.add_parser("show", help="trajectories as pictures; accept or reject each", allow_abbrev=False))
    _card(commands.add_parser("card", help="write the data card of a corpus", allow_abbrev=False))
    _convert(commands.add_parser("convert", help="write a corpus in a trainer's format", allow_abbrev=False))
    _audit(commands.add_parser("audit", help="look for leaks between the splits of data sets", allow_abbrev=False))


def _show(p: argparse.ArgumentParser) -> None:
    p.description = (
        "Write a page that shows trajectories step by step, where a person accepts or rejects each, and downloads "
        "the decisions; with --serve, they go straight into the decisions file."
    )
    _corpus(p)
    p.add_argument("--out", metavar="PAGE.html", help="the page (default: CORPUS's name + -review.html)")
    p.add_argument("--split", metavar="NAME", help="only trajectories of this split")
    p.add_argument("--scenario", metavar="NAME", help="only of this scenario, for example self_correction")
    p.add_argument("--target", metavar="NAME", help="only of this target")
    p.add_argument("--sample", metavar="N", type=at_least(1), default=200, help="at most N, at random (%(default)s)")
    p.add_argument("--seed", metavar="K", type=at_least(0), default=0, help="seed of the sample (%(default)s)")
    p.add_argument("--decisions", metavar="FILE", help="what was decided (default: CORPUS/decisions.jsonl)")
    p.add_argument("--who", metavar="NAME", default="", help="your name, written beside every decision")
    p.add_argument(
        "--serve",
        metavar="PORT",
        type=port,
        nargs="?",
        const=0,
        help="no page file: serve the page on this machine alone, and save decisions as they are made",
    )


def _card(p: argparse.ArgumentParser) -> None:
    p.description = "Write README.md with its figures and statistics.json into a corpus, counted from its tables again."
    _corpus(p)


def _convert(p: argparse.ArgumentParser) -> None:
    p.description = "Write a table of a corpus in the format of a trainer, or as a case list for ibisagent evaluate."
    _corpus(p)
    p.add_argument("--to", required=True, choices=["trl", "llamafactory", "verl", "mini"], help="the format")
    p.add_argument("--out", metavar="DIR", required=True, help="folder for the files")
    p.add_argument("--split", metavar="NAME", help="only this split")
    p.add_argument("--table", choices=["sft", "rl", "test", "vqa"], help="which table (default: the format's own)")
    p.add_argument(
        "--per-turn",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="one example for every reply that is learnt (default: the format's own)",
    )


def _audit(p: argparse.ArgumentParser) -> None:
    p.description = "Look for patients and near-duplicate images that stand in more than one split. Exit 1 if found."
    p.add_argument("sources", metavar="SOURCE", nargs="+", help="KIND:PATH?option=value, for example mini:cases.jsonl")
    p.add_argument("--allow-groups", action="store_true", help="report patients in two splits, but do not fail")
    p.add_argument("--allow-group", metavar="G", action="append", default=[], help="only these: SOURCE/GROUP or SOURCE")
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _corpus(p: argparse.ArgumentParser) -> None:
    p.add_argument("corpus", metavar="CORPUS", help="the folder that ibisagent synthesize wrote")

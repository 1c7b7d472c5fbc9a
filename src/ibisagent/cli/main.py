"""From arguments to an exit code: which command, and what each kind of failure becomes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ibisagent.cli.parser import UsageError, build_parser
from ibisagent.errors import IbisError, InputError

__all__ = ["entry_point", "main"]

_COMMANDS = {
    "segment": "ibisagent.cli.segment",
    "batch": "ibisagent.cli.batch",
    "evaluate": "ibisagent.cli.evaluate",
    "compare": "ibisagent.cli.compare",
    "report": "ibisagent.cli.report",
    "synthesize": "ibisagent.cli.synthesize",
    "replay": "ibisagent.cli.replay",
    "data": "ibisagent.cli.data",
    "doctor": "ibisagent.cli.doctor",
}
_TRAIN = {
    "segmenter": "ibisagent.train.segmenter",
    "nano": "ibisagent.train.nano",
    "sft": "ibisagent.train.sft.run",
    "rl": "ibisagent.train.rl.run",
    "plot": "ibisagent.train.watch.plot",
    "plan": "ibisagent.train.plan.command",
}
_LOADS_TORCH = ("segment", "batch", "evaluate", "replay", "train")


def entry_point() -> None:
    """Console script ``ibisagent``."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        Arguments without the program's name; None takes the process's own.

    Returns
    -------
    int
        The exit code (see :mod:`ibisagent.cli`). Nothing is raised.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except SystemExit as stop:  # argparse, after --help and --version
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except KeyboardInterrupt:
        _say("ibisagent: stopped")
        return 130
    except BrokenPipeError:
        # Whoever read the output has left; pointing stdout elsewhere keeps the interpreter's last flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (InputError, UsageError) as error:
        return _fail(error, 2)
    except IbisError as error:
        return _fail(error, 5)
    except Exception as error:  # a model or a library raised what nobody foresaw
        if _debugging():
            raise
        text = f"{type(error).__name__}: {error}"
        return _fail(f"unexpected {text} (IBISAGENT_DEBUG=1 shows where)", 5)


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["train"]:
        # A recipe has options of its own, which are not this parser's business.
        recipe = arguments[1] if len(arguments) > 1 else None
        if recipe in _TRAIN:
            _prepare("train")
            return int(import_module(_TRAIN[recipe]).main(arguments[2:]) or 0)
    options = build_parser().parse_args(_join_windows(arguments))
    _prepare(options.command)
    return int(import_module(_COMMANDS[options.command]).run(options))


def _join_windows(arguments: list[str]) -> list[str]:
    """``--window -160,240`` as one word: argparse takes a value that begins with a dash for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--window" and word[:1] == "-" and word[1:2].isdigit():
            joined[-1] = f"--window={word}"
        else:
            joined.append(word)
    return joined


def _prepare(command: str) -> None:
    if command in _LOADS_TORCH:
        from ibisagent.memory import keep_freed_memory

        keep_freed_memory()
        # What libraries say while they load is not for the user of a command, unless asked for.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _debugging() -> bool:
    return os.environ.get("IBISAGENT_DEBUG", "") not in ("", "0")


def _fail(error: object, code: int) -> int:
    if _debugging():
        import traceback

        traceback.print_exc()
    _say(f"ibisagent: error: {' '.join(str(error).split())}")
    return code


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

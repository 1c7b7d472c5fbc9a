"""``ibisagent train plan``: print a plan as tables, Markdown or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ibisagent.errors import InputError
from ibisagent.train.config import read_yaml
from ibisagent.train.plan.config import MACHINES, PlanConfig
from ibisagent.train.plan.models import PUBLISHED

__all__ = ["build_parser", "main", "read_config"]

DOCUMENT = """\
{plan}
## Where this comes from

Written by `ibisagent train plan`; a test compares this page with the command.

```bash
ibisagent train plan --model {model} --gpu {gpu} --gpus {gpus}
```

The formulas and their derivations stand in `src/ibisagent/train/plan/`: activations.py (what autograd keeps),
flops.py, memory.py (ZeRO's bytes a parameter), timing.py. `tests/unit/train/test_plan.py` holds them against the real
classes of transformers at tiny sizes, on the CPU: kept bytes by autograd's own hooks, peak memory by counting live
storages, operations by torch's counter, keys and values by the real cache, image tokens by the real image processor.
The shares of the peaks (utilisation, bandwidth) are assumptions, measured by nobody here:
`benchmarks/plan_check.py` measures them on a CUDA machine with random weights.
"""


def build_parser() -> argparse.ArgumentParser:
    """The options of ``ibisagent train plan``."""
    parser = argparse.ArgumentParser(
        prog="ibisagent train plan",
        description="Memory and time of SFT and multi-turn RL of a Qwen2.5-VL or Qwen3-VL, by number of GPUs.",
    )
    parser.add_argument("--model", help=f"{', '.join(PUBLISHED)}, or a folder with config.json")
    parser.add_argument("--gpu", choices=sorted(MACHINES), help="kind of GPU (default: a100-80g)")
    parser.add_argument("--gpus", metavar="N,N,…", help="numbers of GPUs (default: 1,8,16)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with any of the assumptions")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one assumption, by its dotted name as the last table prints it; may be repeated",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything as JSON: bytes, seconds, operations")
    form.add_argument("--markdown", action="store_true", help="tables in Markdown: what docs/plan-7b.md holds")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    return parser


def read_config(args: argparse.Namespace) -> PlanConfig:
    """The configuration of parsed options: defaults, then the file, then the options, then ``--set``.

    Raises
    ------
    InputError
        If a file cannot be read, or a name or value is not one of the plan's.
    """
    values: dict[str, Any] = {}
    if args.config is not None:
        values = read_yaml(args.config)
    if args.model is not None:
        values["model"] = args.model
    if args.gpu is not None:
        values["machine"] = MACHINES[args.gpu].model_dump()
    if args.gpus is not None:
        values["gpus"] = _words(args.gpus)
    for pair in args.set:
        name, sign, text = pair.partition("=")
        if not sign:
            raise InputError(f"--set needs NAME=VALUE, not '{pair}'")
        _put(values, name.strip(), _words(text) if name in ("gpus", "methods") else text.strip())
    if isinstance(values.get("machine"), str):
        named = MACHINES.get(values["machine"])
        if named is None:
            raise InputError(f"machine must be one of {', '.join(MACHINES)}, or a table of its figures")
        values["machine"] = named.model_dump()
    try:
        config = PlanConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    if not config.gpus or min(config.gpus) < 1:
        raise InputError("gpus must be numbers of at least 1")
    return config


def _words(text: str) -> list[str]:
    return [word for word in text.replace(" ", "").split(",") if word]


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set `name`, dotted, over what the defaults have: a nested table keeps its other entries."""
    *path, last = name.split(".")
    known: Any = PlanConfig().model_dump()
    for part in path:
        known = known.get(part) if isinstance(known, dict) else None
        if not isinstance(known, dict):
            raise InputError(f"there is no assumption '{name}'")
        inner = values.setdefault(part, dict(known))
        if not isinstance(inner, dict):
            raise InputError(f"'{part}' is no table, so '{name}' cannot be set")
        values = inner
    if not isinstance(known, dict) or last not in known:
        raise InputError(f"there is no assumption '{name}'")
    values[last] = value


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibisagent train plan``; 0, or 2 with one line on stderr if something given cannot be used."""
    args = build_parser().parse_args(argv)
    try:
        config = read_config(args)
        from ibisagent.train.plan.planner import make_plan
        from ibisagent.train.plan.report import render

        plan = make_plan(config)
        if args.json:
            text = json.dumps(plan.to_json(), indent=1) + "\n"
        elif args.markdown:
            gpus = ",".join(str(number) for number in config.gpus)
            text = DOCUMENT.format(
                plan=render(plan, markdown=True), model=config.model, gpu=config.machine.name, gpus=gpus
            )
        else:
            text = render(plan)
        if args.out is None:
            sys.stdout.write(text)
        else:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(text, encoding="utf-8")
    except InputError as error:
        print(f"ibisagent train plan: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"ibisagent train plan: cannot write {args.out}: {error.strerror}", file=sys.stderr)
        return 2
    return 0

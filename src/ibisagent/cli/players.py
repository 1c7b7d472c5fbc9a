"""From options to the policy, the segmenter and the budgets."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ibisagent.errors import InputError

__all__ = ["policy_options", "rollout_config"]

_TAKES_PROMPT = ("nano", "vlm", "api")


def policy_options(options: argparse.Namespace) -> dict[str, Any]:
    """Options for the policy's factory, apart from device and targets; those not given are left out.

    Raises
    ------
    InputError
        If one is given that the policy has no use for, or its file or variable cannot be read.
    """
    from ibisagent.registry import POLICIES, parse_spec

    kind = parse_spec(options.policy)[0]
    known = kind in POLICIES  # an unknown one fails with a better message where it is made
    found: dict[str, Any] = {}
    if options.system_prompt is not None:
        if known and kind not in _TAKES_PROMPT:
            raise InputError(f"--system-prompt means nothing to the policy '{kind}'; leave it out")
        found["system_prompt"] = _read_prompt(options.system_prompt)
    if options.dialect is not None:
        from ibisagent.actions import DIALECTS

        if options.dialect not in DIALECTS:
            raise InputError(f"there is no dialect '{options.dialect}'; there are {', '.join(DIALECTS)}")
        found["dialect"] = options.dialect
    for flag, value in (("--base-url", options.base_url), ("--api-key-env", options.api_key_env)):
        if value is not None and known and kind != "api":
            raise InputError(f"{flag} means nothing to the policy '{kind}'; it serves api:MODEL")
    if options.prefill:
        if known and kind != "api":
            raise InputError(f"--prefill means nothing to the policy '{kind}'; it serves api:MODEL")
        found["prefill"] = True
    if options.base_url is not None:
        found["base_url"] = options.base_url
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            raise InputError(f"--api-key-env: the environment variable {options.api_key_env} is not set or empty")
        found["api_key"] = key
    return found


def rollout_config(options: argparse.Namespace) -> Any:
    """The :class:`ibisagent.config.RolloutConfig` of ``--max-steps``, ``--seed`` and ``--max-seconds``."""
    from ibisagent.config import RolloutConfig

    return RolloutConfig(max_steps=options.max_steps, seed=options.seed, max_seconds=options.max_seconds)


def _read_prompt(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(2**20)
    except OSError as error:
        raise InputError(f"--system-prompt {path}: {error.strerror or error}") from None
    except ValueError:
        raise InputError(f"--system-prompt {path}: not UTF-8 text") from None
    if not text.strip():
        raise InputError(f"--system-prompt {path}: the file is empty")
    return text

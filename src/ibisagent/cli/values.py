"""What may stand after an option: checks that argparse turns into one-line errors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

__all__ = ["amount", "at_least", "device", "port", "seconds"]


def at_least(low: int) -> Callable[[str], int]:
    """A whole number from `low` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or value > 2**31 - 1:
            raise argparse.ArgumentTypeError(f"a whole number from {low} on is needed, not {text!r}")
        return value

    return parse


def device(text: str) -> str:
    """Where a model runs."""
    if not re.fullmatch(r"cpu|auto|mps|cuda(:[0-9]{1,3})?", text):
        raise argparse.ArgumentTypeError(f"cpu, cuda, cuda:1, mps or auto is needed, not {text!r}")
    return text


def seconds(text: str) -> float:
    """A time above 0."""
    return _above_zero(text, "a number of seconds")


def amount(text: str) -> float:
    """A sum of money above 0."""
    return _above_zero(text, "an amount")


def _above_zero(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{what} above 0 is needed, not {text!r}")
    return value


def port(text: str) -> int:
    """A port of this machine; 0 takes any free one."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port from 0 to 65535 is needed, not {text!r}")
    return int(text)

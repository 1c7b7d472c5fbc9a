"""Arms: every way to play the same case list that a sceptic asks for, all through the same code.

A lab is a folder with ``lab.json`` and ``arms/NAME/``, a run each. :func:`arms_named` makes the arms,
:func:`play_lab` plays them, :func:`read_lab` and :func:`lab_summary` say what came of it.
``docs/evaluation/arms.md`` describes every arm.
"""

from __future__ import annotations

from ibisagent.evaluate.arms.arm import AGENT, KINDS, Arm
from ibisagent.evaluate.arms.lab import Lab, is_lab, read_lab
from ibisagent.evaluate.arms.lab_player import Maker, SpecMaker
from ibisagent.evaluate.arms.lab_summary import lab_lines, lab_summary
from ibisagent.evaluate.arms.play import LabSettings, Workers, play_lab
from ibisagent.evaluate.arms.players import BASELINES, Players
from ibisagent.evaluate.arms.subset import subset
from ibisagent.evaluate.arms.suite import GROUPS, arms_named

__all__ = [
    "AGENT",
    "BASELINES",
    "GROUPS",
    "KINDS",
    "Arm",
    "Lab",
    "LabSettings",
    "Maker",
    "Players",
    "SpecMaker",
    "Workers",
    "arms_named",
    "is_lab",
    "lab_lines",
    "lab_summary",
    "play_lab",
    "read_lab",
    "subset",
]

"""Rates of the verifier: planted leaks that it misses, and clean thoughts that it refuses.

    python benchmarks/leak_verifier.py --planted benchmarks/data/leaks_dev.jsonl --clean benchmarks/data/clean_dev.jsonl

One JSON object a line: ``text``, ``intent`` (see :class:`ibisagent.engine.moments.Intent`), and where known ``kind``,
``name`` (the target), ``modality``, ``positive`` (the click's sign), ``colour`` (whether the image has colours). A line
without a picture is judged on a plain one, without the rules that need facts; what is not given is taken from the text
as its reader would. Misses and false alarms are printed, then one JSON object. Exit 1 if a leak is missed or more than
5 % of the clean thoughts are refused.

A planted text counts as caught by a violation of the code that its kind names (``contradiction``, ``other_target``,
``form``, ``ungrounded``), and by ``leak`` for every other kind. A clean text is refused by any violation.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ibisagent.actions import Action, Click, ClickAction, DiscardAction, TerminateAction, UndoAction
from ibisagent.engine.language.ontology import mentions
from ibisagent.engine.moments import Intent, Moment
from ibisagent.engine.reasoning.verifier import CODES, verify

MAX_FALSE_ALARMS = 0.05

_IN_COLOUR = re.compile(
    r"\b(?:polyps?|mucosa\w*|endoscop\w+|colonoscop\w+|laparoscop\w+|instruments?|ulcers?|vocal cords?|true cord|skin"
    r"|dermoscop\w+|mole|melanoma|n(?:a)?evus|freckle|wound|stroma"
    r"|epiderm\w+|dermis|histolog\w+|h ?& ?e|stain\w*|optic"
    r"|fundus|retinal? vessels?|macula|fovea|exudates?|microaneurysms?|nucle(?:us|i)|glands?|epithelium|dye|dapi"
    r"|channel|fluoresc\w+|doppler|blood cells?|cells?|slide|micrograph|callip?er|mucus|jaws|veil"
    r"|purple|pink|pinkish|brown\w*)\b"
)
_COLOURS = ((190, 60, 50), (210, 140, 60), (210, 190, 70), (70, 190, 200), (70, 90, 200), (180, 80, 170))
"""Red, orange, yellow, cyan, blue and magenta, as pictures of living or stained tissue have them."""
_TAKES_AWAY = re.compile(
    r"\bnegative\b|\btake (?:it|this|that|them) away\b|\bcut (?:it|this|that)\b|\bremove\b|\bexclude\b|\btoo much\b"
    r"|\bshould not be covered\b|\btoo bright to\b"
)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--planted", type=Path, help="texts with leaks")
    p.add_argument("--clean", type=Path, help="texts without")
    a = p.parse_args()
    result: dict[str, Any] = {}
    seconds, count = 0.0, 0
    failed = False
    for role, path in (("planted", a.planted), ("clean", a.clean)):
        if path is None:
            continue
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        wrong, kinds, wrong_kinds = [], Counter[str](), Counter[str]()
        for row in rows:
            moment = moment_of(row)
            started = time.perf_counter()
            violations = verify(row["text"], moment, with_picture=False)
            seconds += time.perf_counter() - started
            count += 1
            kind = str(row.get("kind", role))
            kinds[kind] += 1
            expected = kind if kind in CODES else "leak"
            caught = any(v.code == expected for v in violations) if role == "planted" else not violations
            if not caught:
                wrong.append(row["text"])
                wrong_kinds[kind] += 1
                label = "MISSED" if role == "planted" else "FALSE ALARM"
                found = "; ".join(f"{v.code}: {v.excerpt}" for v in violations)
                print(f"{label} [{row.get('intent')}, {kind}] {row['text']}" + (f"  <- {found}" if found else ""))
        rate = len(wrong) / len(rows) if rows else 0.0
        failed |= bool(wrong) if role == "planted" else rate > MAX_FALSE_ALARMS
        result[role] = {
            "texts": len(rows),
            "missed" if role == "planted" else "false_alarms": len(wrong),
            "rate": round(rate, 4),
            "by_kind": {k: f"{wrong_kinds[k]}/{n}" for k, n in sorted(kinds.items())},
        }
    result["ms_per_text"] = round(1000 * seconds / max(count, 1), 3)
    print(json.dumps(result, indent=1))
    return 1 if failed else 0


def moment_of(row: dict[str, Any]) -> Moment:
    """A moment for a text whose picture is not at hand: what a row does not say is read from its text."""
    text, intent = str(row["text"]), Intent(row.get("intent", "missed"))
    named = mentions(text)
    lower = text.lower()
    in_colour = bool(row.get("colour", _IN_COLOUR.search(f"{row.get('name', '')} {lower}".lower()) is not None))
    pixels = np.full((64, 64, 3), 90, np.uint8)
    if in_colour:  # no picture is at hand, so no hue can be denied
        for at, colour in enumerate(_COLOURS):
            pixels[at * 10 : at * 10 + 10] = colour
    positive = row.get("positive")
    if positive is None:
        takes = intent is Intent.WRONG and _TAKES_AWAY.search(lower) is not None
        positive = intent is not Intent.EXCESS and not takes
    mask = None if intent is Intent.START else np.pad(np.ones((20, 20), np.bool_), 22)
    return Moment(
        pixels, mask, None, str(row.get("name") or (named[0].name if named else "left lung")), row.get("modality"),
        "", _action(intent, bool(positive)), intent, index=1,
    )  # fmt: skip


def _action(intent: Intent, positive: bool) -> Action:
    if intent is Intent.UNDO:
        return UndoAction()
    if intent is Intent.DISCARD:
        return DiscardAction()
    if intent is Intent.FITS:
        return TerminateAction(verdict="found")
    if intent is Intent.ROUGH:
        return TerminateAction(verdict="uncertain")
    if intent is Intent.ABSENT:
        return TerminateAction(verdict="absent")
    return ClickAction(clicks=(Click(x=0.5, y=0.5, positive=positive),))


if __name__ == "__main__":
    sys.exit(main())

"""The page of a comparison: what changed, how sure that is, and the cases that changed most.

One self-contained page, as :mod:`ibisagent.web.parts` has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ibisagent import __version__
from ibisagent.evaluate.compare_text import cautions, finding, how_to_read, number, p_text, setting, signed
from ibisagent.rendering.png import png_bytes
from ibisagent.web.parts import asset, content_policy, data_uri, template

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.evaluate.changes import Panels
    from ibisagent.evaluate.compare import Change, Comparison, Line

__all__ = ["render_compare_page"]

Shown = Sequence[tuple["Change", "Panels | None"]]

_READY = "document.documentElement.dataset.ready = '1';"
_HALF, _ROOM = 79.0, 73.0
_TONES = {"better": "good", "worse": "bad"}


def render_compare_page(comparisons: Sequence[Comparison], shown: Sequence[tuple[Shown, Shown]]) -> str:
    """Make the page.

    Parameters
    ----------
    comparisons
        One or more.
    shown
        For each, the losses and the gains that are shown, with their pictures.

    Returns
    -------
    str
        HTML that can be encoded in UTF-8.
    """
    style = asset("theme.css", "compare.css")
    first = comparisons[0]
    others = ", ".join(one.b.name for one in comparisons)
    page = template("compare.html.jinja").render(
        policy=content_policy(style, _READY),
        style=style,
        script=_READY,
        title=f"{others} against {first.a.name}",
        comparisons=[_section(one, *groups) for one, groups in zip(comparisons, shown, strict=True)],
        version=__version__,
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _section(one: Comparison, losses: Shown, gains: Shown) -> dict[str, Any]:
    scale, target_scale = _scale(one.lines), _scale(one.by_target)
    sides = ((one.a.name, one.pairing.only_a), (one.b.name, one.pairing.only_b))
    main = one.by_target[0].figure if one.by_target else one.lines[0].figure
    neutral = main.higher_is_better is None
    titles = ("Largest losses", "Largest gains") if not neutral else ("Largest falls", "Largest rises")
    return {
        "a": one.a.name,
        "b": one.b.name,
        "main": main.title,
        "setting": setting(one),
        "verdict": _verdict(one),
        "cautions": cautions(one),
        "how": how_to_read(one),
        "lines": [_row(line, scale) for line in one.lines],
        "targets": [_row(line, target_scale) for line in one.by_target],
        "scale": f"{scale:g}" if scale else "",
        "target_scale": f"{target_scale:g}" if target_scale else "",
        "groups": [
            {"title": title, "cases": [_case(one, change, panels) for change, panels in cases]}
            for title, cases in zip(titles, (losses, gains), strict=True)
            if cases
        ],
        "only": [
            {"name": name, "number": f"{len(keys)} case{'' if len(keys) == 1 else 's'}", "keys": ", ".join(keys)}
            for name, keys in sides
            if keys
        ],
    }


def _verdict(one: Comparison) -> list[dict[str, Any]]:
    """What was found of the main figure, and of the others."""
    line = one.lines[0]
    d, t = line.difference, line.tally
    if d.difference is None:
        return [{"text": f"{line.figure.title}: no case has it on both sides.", "strong": False}]
    ends = "" if d.ci95 is None else f" (95% interval {signed(d.ci95[0])} to {signed(d.ci95[1])})"
    found = finding(line)
    strong = {
        "no difference found": f"no difference in {line.figure.title} was found",
        "better": f"{line.figure.title} is better",
        "worse": f"{line.figure.title} is worse",
        "higher": f"{line.figure.title} is higher",
        "lower": f"{line.figure.title} is lower",
    }.get(found, f"{line.figure.title}: {found}")
    more = ""
    if found == "no difference found" and d.minimum_detectable is not None:
        more = f" A true difference of {number(d.minimum_detectable)} would have been found in 80% of such comparisons."
    others = [other for other in one.lines[1:] if finding(other) in ("better", "worse", "higher", "lower")]
    rest = "".join(
        f" {other.figure.title}: {finding(other)} ({signed(other.difference.difference)})." for other in others
    )
    return [
        {"text": f"With {one.b.name}, ", "strong": False},
        {"text": strong, "strong": True},
        {"text": f": {number(d.value_a)} became {number(d.value_b)}, {signed(d.difference)}{ends}; ", "strong": False},
        {"text": f"{t.wins} cases gained, {t.losses} lost, {t.ties} stayed.{more}{rest}", "strong": False},
    ]


def _row(line: Line, scale: float) -> dict[str, Any]:
    d, t = line.difference, line.tally
    found = finding(line)
    track = None
    if scale and d.ci95 is not None and d.difference is not None and _on_scale(line):
        places = [_HALF + _ROOM * value / scale for value in (d.ci95[0], d.difference, d.ci95[1])]
        low, at, high = (round(min(max(x, 2.0), 156.0), 1) for x in places)
        track = {"low": low, "at": at, "high": high}
    return {
        "name": line.figure.title if line.target is None else line.target.partition("/")[2],
        "group": "" if line.target is None else line.target.partition("/")[0],
        "about": line.figure.about if line.target is None else "",
        "n": f"{d.n} case{'' if d.n == 1 else 's'}",
        "a": number(d.value_a),
        "b": number(d.value_b),
        "difference": signed(d.difference),
        "interval": "" if d.ci95 is None else f"{signed(d.ci95[0])} to {signed(d.ci95[1])}",
        "track": track,
        "p": p_text(d.p),
        "holm": p_text(line.p_holm),
        "tally": f"{t.wins} / {t.ties} / {t.losses}",
        "detectable": number(d.minimum_detectable),
        "found": found,
        "tone": _TONES.get(found, ""),
    }


def _on_scale(line: Line) -> bool:
    """Shares have one scale; steps, millimetres and seconds are not drawn on it."""
    return line.figure.percent and not line.figure.unit


def _scale(lines: Sequence[Line]) -> float:
    """A round number that all drawn intervals fit under; 0 where none is drawn."""
    drawn = [line.difference.ci95 for line in lines if line.difference.ci95 is not None and _on_scale(line)]
    reach = max((abs(end) for ends in drawn for end in ends), default=0.0)
    if reach <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(reach))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= reach * (1 - 1e-9)))


def _case(one: Comparison, change: Change, panels: Panels | None) -> dict[str, Any]:
    told = change.a if change.a.episode is not None else change.b
    words = {change.a.instruction, change.b.instruction} - {""}
    alts = ("the reference", f"the result of {one.a.name}", f"the result of {one.b.name}")
    pictures = () if panels is None else (panels.reference, panels.a, panels.b)
    return {
        "target": told.target or change.key,
        "key": change.key,
        "a": number(change.value_a),
        "b": number(change.value_b),
        "difference": signed(change.difference),
        "asked": " / ".join(sorted(words)),
        "panels": [_panel(picture, f"{change.key}: {alt}") for picture, alt in zip(pictures, alts, strict=False)],
    }


def _panel(picture: NDArray[np.uint8], alt: str) -> dict[str, Any]:
    height, width = picture.shape[:2]
    return {"data": data_uri(png_bytes(picture), "image/png"), "width": width, "height": height, "alt": alt}

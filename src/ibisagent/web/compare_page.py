"""The page of a comparison: what changed, how sure that is, and the cases that changed most.

One self-contained page, as :mod:`ibisagent.web.parts` has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ibisagent import __version__
from ibisagent.evaluate.compare_text import cautions, finding, how_to_read, line_texts, line_value, setting
from ibisagent.evaluate.report.numbers import count_text, interval_text, number_text
from ibisagent.evaluate.report.scales import figure_scale
from ibisagent.rendering.png import png_bytes
from ibisagent.web.parts import asset, content_policy, data_uri, template

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.evaluate.changes import Panels
    from ibisagent.evaluate.compare import Change, Comparison, Line
    from ibisagent.evaluate.report.model import Scale

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
    scale, target_scale = _reach(one.lines), _reach(one.by_target)
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
        "lines": [_row(line, one.clusters.unit, scale) for line in one.lines],
        "targets": [_row(line, one.clusters.unit, target_scale) for line in one.by_target],
        "scale": f"{100 * scale:g}" if scale else "",
        "target_scale": f"{100 * target_scale:g}" if target_scale else "",
        "groups": [
            {"title": title, "cases": [_case(one, change, panels) for change, panels in cases]}
            for title, cases in zip(titles, (losses, gains), strict=True)
            if cases
        ],
        "only": [
            {"name": name, "number": count_text(len(keys), "case"), "keys": ", ".join(keys)}
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
    scale, value = figure_scale(line.figure), line_value(line, one.clusters.unit)
    ends = interval_text(value, scale.difference())
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
        least = _difference(d.minimum_detectable, scale).lstrip("+")
        more = f" A true difference of {least} would have been found in 80% of such comparisons."
    others = [other for other in one.lines[1:] if finding(other) in ("better", "worse", "higher", "lower")]
    rest = "".join(
        f" {other.figure.title}: {finding(other)} "
        f"({_difference(other.difference.difference, figure_scale(other.figure))})."
        for other in others
    )
    change = (
        f"{number_text(d.value_a, scale)} became {number_text(d.value_b, scale)}, {_difference(value.value, scale)}"
    )
    return [
        {"text": f"With {one.b.name}, ", "strong": False},
        {"text": strong, "strong": True},
        {"text": f": {change}{f' (95% {ends})' if ends else ''}; ", "strong": False},
        {"text": f"{t.wins} cases gained, {t.losses} lost, {t.ties} stayed.{more}{rest}", "strong": False},
    ]


def _difference(value: float | None, scale: Scale) -> str:
    """A difference in a sentence, with what it is in."""
    return f"{number_text(value, scale.difference(), unit=False)} {scale.difference().measure}".rstrip()


def _row(line: Line, unit: str, scale: float) -> dict[str, Any]:
    texts, value = line_texts(line, unit), line_value(line, unit)
    track = None
    if scale and value.ci95 is not None and value.value is not None and _on_scale(line):
        places = [_HALF + _ROOM * end / scale for end in (value.ci95[0], value.value, value.ci95[1])]
        low, at, high = (round(min(max(x, 2.0), 156.0), 1) for x in places)
        track = {"low": low, "at": at, "high": high}
    group, _, target = (line.target or "").rpartition("/")
    return {
        **asdict(texts),
        "name": texts.name if line.target is None else target,
        "group": group,
        "about": line.figure.about if line.target is None else "",
        "track": track,
        "tone": _TONES.get(texts.found, ""),
    }


def _on_scale(line: Line) -> bool:
    """Shares have one scale; steps, millimetres and seconds are not drawn on it."""
    return figure_scale(line.figure).percent


def _reach(lines: Sequence[Line]) -> float:
    """A round number that all drawn intervals fit under; 0 where none is drawn."""
    drawn = [line_value(line, "").ci95 for line in lines if _on_scale(line)]
    reach = max((abs(end) for ends in drawn for end in ends or ()), default=0.0)
    if reach <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(reach))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= reach * (1 - 1e-9)))


def _case(one: Comparison, change: Change, panels: Panels | None) -> dict[str, Any]:
    scale = figure_scale((one.by_target or one.lines)[0].figure)
    told = change.a if change.a.episode is not None else change.b
    words = {change.a.instruction, change.b.instruction} - {""}
    alts = ("the reference", f"the result of {one.a.name}", f"the result of {one.b.name}")
    pictures = () if panels is None else (panels.reference, panels.a, panels.b)
    return {
        "target": told.target or change.key,
        "key": change.key,
        "a": number_text(change.value_a, scale),
        "b": number_text(change.value_b, scale),
        "difference": number_text(change.difference, scale.difference()),
        "asked": " / ".join(sorted(words)),
        "panels": [_panel(picture, f"{change.key}: {alt}") for picture, alt in zip(pictures, alts, strict=False)],
    }


def _panel(picture: NDArray[np.uint8], alt: str) -> dict[str, Any]:
    height, width = picture.shape[:2]
    return {"data": data_uri(png_bytes(picture), "image/png"), "width": width, "height": height, "alt": alt}

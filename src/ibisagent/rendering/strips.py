"""Strips of a picture for people: what was asked above it, what its marks mean and how it was read below it."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
from PIL import ImageDraw

from ibisagent.rendering.marks import BOX, GIVEN, MASK, REFERENCE, click_sprite
from ibisagent.rendering.text import load_font, wrap_text

__all__ = ["GROUND", "OUTCOME_WORDS", "PAD", "QUIET", "STAGE", "TEXT", "facts_strip", "header_strip", "legend_strip"]

OUTCOME_WORDS = {
    "done": "Done",
    "absent": "Target absent",
    "uncertain": "Uncertain",
    "out_of_steps": "Out of steps",
    "error": "Failed",
    "stopped": "Stopped",
}
"""Outcomes for a reader."""

GROUND, STAGE, TEXT, QUIET = (17, 20, 24), (0, 0, 0), (236, 240, 244), (160, 171, 182)
"""Colours of the strips, of what stands behind an image, of text and of lesser text."""
PAD = 18
"""Pixels between a strip's edge and its text."""

_WARN = (240, 196, 70)
_BADGES = {"done": (38, 132, 96), "error": (176, 62, 48), "absent": (84, 98, 160)}
_OTHER_BADGE = (150, 104, 24)
_BROKEN = {"given": GIVEN, "box": BOX, "reference": REFERENCE}


def header_strip(width: int, title: str, instruction: str, answer: str, outcome: str | None) -> PIL.Image.Image:
    """Title, question, answer, and the outcome as a badge at the right."""
    badge_width = 0
    strip = PIL.Image.new("RGB", (width, 400), GROUND)
    draw = ImageDraw.Draw(strip)
    if outcome:
        font, words = load_font(15, OUTCOME_WORDS.get(outcome, outcome))
        badge_width = round(font.getlength(words)) + 24
        right = width - PAD
        draw.rounded_rectangle((right - badge_width, 13, right, 41), radius=14, fill=_BADGES.get(outcome, _OTHER_BADGE))
        draw.text((right - badge_width / 2, 27), words, font=font, fill=(255, 255, 255), anchor="mm")
    y, room = 14, width - 2 * PAD
    for text, size, color, lines in ((title, 20, TEXT, 1), (instruction, 16, TEXT, 2), (answer, 15, QUIET, 2)):
        font, text = load_font(size, text)
        for line in wrap_text(text, font, room - (badge_width + 16 if y < 45 else 0), lines):
            draw.text((PAD, y), line, font=font, fill=color)
            y += round(size * 1.42)
    height = max(y + 8, 56 if outcome else 16 if y == 14 else y + 8)
    return strip.crop((0, 0, width, height))


def legend_strip(width: int, items: Sequence[tuple[str, str]]) -> PIL.Image.Image:
    """Marks with their meanings, as (kind, text).

    A kind is ``mask``, ``given``, ``reference``, ``reference-alone``, ``positive``, ``negative``, ``box``, or empty for
    text alone.
    """
    rows: list[list[tuple[str, str, float]]] = [[]]
    x = float(PAD)
    for kind, label in items:
        font, label = load_font(15, label)
        need = (30 if kind else 0) + font.getlength(label) + 24
        if x + need > width and rows[-1]:
            rows.append([])
            x = float(PAD)
        rows[-1].append((kind, label, x))
        x += need
    strip = PIL.Image.new("RGB", (width, 12 + 26 * len(rows)), GROUND)
    draw = ImageDraw.Draw(strip)
    for number, row in enumerate(rows):
        y = 12 + 26 * number + 12
        for kind, label, left in row:
            x0 = round(left)
            _swatch(strip, draw, kind, x0, y)
            draw.text((x0 + (30 if kind else 0), y), label, font=load_font(15, label)[0], fill=TEXT, anchor="lm")
    return strip


def _swatch(strip: PIL.Image.Image, draw: ImageDraw.ImageDraw, kind: str, x: int, y: int) -> None:
    if kind == "mask":
        fill = (MASK[0] // 3, MASK[1] // 3, MASK[2] // 3)
        draw.rounded_rectangle((x, y - 8, x + 21, y + 8), radius=4, fill=fill, outline=MASK, width=2)
    elif kind in _BROKEN:
        for k in range(3):
            draw.line([(x + 8 * k, y), (x + 8 * k + 4, y)], fill=_BROKEN[kind], width=2)
    elif kind == "reference-alone":
        draw.line([(x, y), (x + 20, y)], fill=REFERENCE, width=2)
    elif kind in ("positive", "negative"):
        sprite = click_sprite(kind == "positive", 7)
        strip.paste(sprite, (x + 11 - sprite.width // 2, y - sprite.height // 2), sprite)


def facts_strip(width: int, facts: Sequence[str]) -> PIL.Image.Image:
    """Facts about the image, and the warning that this is no medical device."""
    font, text = load_font(14, " · ".join(facts))
    warning = "Not for clinical use"
    room = width - 2 * PAD - font.getlength(warning) - 24
    lines = wrap_text(text, font, room, 3)
    strip = PIL.Image.new("RGB", (width, 14 + 20 * max(1, len(lines))), GROUND)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((PAD, 2 + 20 * number), line, font=font, fill=QUIET)
    draw.text((width - PAD, 2), warning, font=font, fill=_WARN, anchor="ra")
    return strip

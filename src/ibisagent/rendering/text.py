"""Text for pictures: fonts that are surely there, and lines that fit."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageFont

__all__ = ["fit_text", "load_font", "wrap_text"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font covers printable ASCII and little more; these cover the rest where installed.
_WIDE_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial.ttf", "Arial Unicode.ttf")
_PLAIN = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "×": "x",
        "µ": "u",
        "²": "2",
        "·": "-",
        "…": "...",
    }
)


@lru_cache(maxsize=64)
def _covers(font: Font, character: str) -> bool:
    missing = font.getmask("\ufffe")
    glyph = font.getmask(character)
    return glyph.size != missing.size or bytes(glyph) != bytes(missing)


def _covered(font: Font, text: str) -> bool:
    return all(" " <= c <= "~" or _covers(font, c) for c in set(text))


@lru_cache(maxsize=32)
def _wide_font(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size=size)
    except OSError:
        return None


@lru_cache(maxsize=32)
def _default_font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def load_font(size: int, text: str = "") -> tuple[Font, str]:
    """Find a font that can write ``text``, and the text as it can write it.

    Pillow's own font wherever it suffices, so that pictures come out the same on every machine;
    else an installed one; else accents go, and what is left over becomes ``?``.
    """
    text = "".join(c if c.isprintable() else " " for c in text)
    font = _default_font(size)
    if _covered(font, text):
        return font, text
    plain = text.translate(_PLAIN)
    if _covered(font, plain):
        return font, plain
    for name in _WIDE_FONTS:
        wide = _wide_font(name, size)
        if wide is not None and _covered(wide, text):
            return wide, text
    bare = (c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return font, "".join(c if _covered(font, c) else "?" for c in bare)


def fit_text(text: str, font: Font, width: float) -> str:
    """Cut ``text`` so that it fits ``width`` pixels, with three dots where something is missing."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def wrap_text(text: str, font: Font, width: float, max_lines: int) -> list[str]:
    """Break ``text`` at spaces into at most ``max_lines`` lines of ``width`` pixels; the last may be cut."""
    # No picture shows more than this, and measuring costs time in the length of the text.
    words = text[:2000].split()
    lines: list[str] = []
    while words and len(lines) < max_lines:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= width:
            line = f"{line} {words.pop(0)}"
        lines.append(line)
    if words and lines:
        lines[-1] = f"{lines[-1]} {' '.join(words)}"
    return [fit_text(line, font, width) for line in lines]

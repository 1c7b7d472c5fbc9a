"""What can be measured on the Agent view: image, mask, click, and what the last step changed. Never the target.

A teacher that writes from these facts can be right or wrong in its judgement, but not in what it says it sees; the
verifier holds claims against them. Every threshold is in grey values of 0-255 or in shares of the image, so that the
words mean the same at any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.reasoning.regions import (
    NINTHS,
    MaskRegion,
    direction,
    dominant_ninth,
    grey_values,
    ninths,
    patch,
    pieces_of,
)
from ibisagent.engine.reasoning.terse import where_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.engine.moments import Moment

    Mask = NDArray[np.bool_]

__all__ = ["BoxFacts", "ChangeFacts", "ClickFacts", "Facts", "ImageFacts", "MaskFacts", "level_of", "measure"]

SIDES = ("left", "right", "upper", "lower")
_DARK, _BRIGHT = 80.0, 160.0


@dataclass(frozen=True)
class ImageFacts:
    """The bare image: ``level`` is dark, grey or bright; a place is None where no ninth stands out."""

    gray: bool
    level: str
    bright_place: str | None
    dark_place: str | None


@dataclass(frozen=True)
class MaskFacts:
    """The green mask.

    Parameters
    ----------
    share
        Of the image's pixels, in (0, 1].
    place
        Ninth of the image that holds more than half of it, None where none does.
    half_x, half_y
        ``"left"`` or ``"right"``, ``"upper"`` or ``"lower"``: the half of the image that holds nearly all of it, or
        ``""``.
    x0, y0, x1, y1
        Bounding box, in shares of width and height.
    borders
        Edges of the image that it touches: ``"left"``, ``"right"``, ``"upper"``, ``"lower"``.
    pieces, main_share, holes
        Connected pieces and holes, specks left out; the share of the mask in its largest piece.
    outline
        ``"smooth"``, ``"ragged"`` or ``""`` (in between, or too thin to say).
    inside, spread, level
        Median and standard deviation of the grey values inside; dark, grey or bright.
    tone
        Inside against a ring around it: ``"darker"``, ``"brighter"``, ``"alike"`` or ``""`` (unclear).
    clear_edge
        Whether inside and ring differ by much more than each varies.
    even
        ``"even"``, ``"mixed"`` or ``""``: how uniform the grey values inside are.
    """

    share: float
    place: str | None
    half_x: str
    half_y: str
    x0: float
    y0: float
    x1: float
    y1: float
    borders: tuple[str, ...]
    pieces: int
    main_share: float
    holes: int
    outline: str
    inside: float
    spread: float
    level: str
    tone: str
    clear_edge: bool
    even: str


@dataclass(frozen=True)
class ClickFacts:
    """The clicked point.

    Parameters
    ----------
    x, y
        Normalised, as the action has them.
    place
        Ninth of the image.
    level, even
        Grey value of a small patch: dark, grey or bright; whether the surroundings are uniform.
    against_around
        The patch against its wider surroundings: darker, brighter, alike, or ``""``.
    inside
        Whether the point lies in the mask; None without a mask.
    against_mask
        The patch against the mask's inside: darker, brighter, alike, or ``""``.
    side
        Outside the mask: where it lies from the mask's nearest point (``"left"``, ``"above right"`` …). Inside: which
        part of the mask's box it is in (``"upper left"`` …, ``"centre"``).
    near
        Outside: ``"edge"``, ``"close"`` or ``"away"``. Inside: ``""``.
    in_hole, piece_share
        Whether it lies in a hole of the mask; how much of the mask the clicked piece is (1.0 outside).
    borders
        Inside: edges of the image that the mask touches within the click's own ninth.
    """

    x: float
    y: float
    place: str
    level: str
    even: bool
    against_around: str
    inside: bool | None = None
    against_mask: str = ""
    side: str = ""
    near: str = ""
    in_hole: bool = False
    piece_share: float = 1.0
    borders: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoxFacts:
    """The drawn box: ninth of its centre, and its share of the image."""

    place: str
    share: float


@dataclass(frozen=True)
class ChangeFacts:
    """What the last step did to the mask.

    Parameters
    ----------
    kind
        ``first`` (a mask came up), ``gone``, ``grew``, ``shrank``, ``moved`` (gained about what it lost) or
        ``hardly`` (less than 2 % of both masks).
    percent
        Net change of the area in per cent of the mask before, rounded; 0 for ``first`` and ``gone``.
    gained, lost
        Shares of the mask before that were added and taken away.
    place
        Ninth of the image where more than half of it happened, None where none holds so much.
    new_pieces
        Pieces after less pieces before.
    new_borders
        Edges of the image that the mask touches now and did not before.
    gained_tone
        Grey value of what came in against the mask before: darker, brighter, alike, or ``""``.
    """

    kind: str
    percent: int = 0
    gained: float = 0.0
    lost: float = 0.0
    place: str | None = None
    new_pieces: int = 0
    new_borders: tuple[str, ...] = ()
    gained_tone: str = ""


@dataclass(frozen=True)
class Facts:
    """Everything measured of one moment; ``mask`` is None where none, or an empty one, is shown."""

    image: ImageFacts
    mask: MaskFacts | None
    click: ClickFacts | None
    box: BoxFacts | None
    change: ChangeFacts | None


@lru_cache(maxsize=4)
def measure(moment: Moment) -> Facts:
    """Measure the Agent view of a moment: pixels, masks, actions. ``moment.target`` is not read.

    The last few results are kept, so that a teacher and the verifier pay once, and so are those of a picture and of a
    mask that other moments share; arrays must not change in place.
    """
    picture = _Same(moment.pixels)
    grey, image = _picture(picture)
    mask = moment.mask if moment.mask is not None and moment.mask.any() else None
    crop, facts = _region(_Same(mask), picture) if mask is not None else (None, None)
    action = moment.action
    click = _click_facts(action.clicks[0], grey, crop, facts) if action.kind == "click" else None
    box = None
    if action.kind == "box":
        share = (action.x1 - action.x0) * (action.y1 - action.y0)
        box = BoxFacts(where_text((action.x0 + action.x1) / 2, (action.y0 + action.y1) / 2), share)
    change = _change_facts(moment, grey, crop, facts) if moment.previous_action is not None else None
    return Facts(image, facts, click, box, change)


class _Same:
    """An array as a key: equal to itself alone, so that no pixel is compared. The key keeps the array alive."""

    __slots__ = ("array",)

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.array is other.array


# The trajectories of a target share its picture and many of their masks.
@lru_cache(maxsize=2)
def _picture(pixels: _Same) -> tuple[NDArray[np.uint8], ImageFacts]:
    grey, is_gray = grey_values(pixels.array)
    return grey, _image_facts(grey, is_gray)


@lru_cache(maxsize=8)
def _region(mask: _Same, pixels: _Same) -> tuple[MaskRegion, MaskFacts]:
    crop = MaskRegion(mask.array)
    return crop, _mask_facts(crop, _picture(pixels)[0])


@lru_cache(maxsize=8)
def _pieces_before(mask: _Same) -> int:
    return pieces_of(mask.array)


def level_of(value: float) -> str:
    """A grey value in words: ``dark``, ``grey`` or ``bright``."""
    return "dark" if value < _DARK else "bright" if value > _BRIGHT else "grey"


def _against(value: float, other: float, spread: float) -> str:
    """darker, brighter or alike; empty in the grey zone between, where people would argue."""
    difference = value - other
    if abs(difference) <= max(10.0, 0.4 * spread):
        return "alike"
    if abs(difference) < max(18.0, 0.8 * spread):
        return ""
    return "brighter" if difference > 0 else "darker"


def _image_facts(grey: NDArray[np.uint8], is_gray: bool) -> ImageFacts:
    import cv2

    means = [cv2.mean(part)[0] for part in ninths(grey)]
    middle = float(np.median(means))
    bright = NINTHS[int(np.argmax(means))] if max(means) - middle > 20 else None
    dark = NINTHS[int(np.argmin(means))] if middle - min(means) > 20 else None
    return ImageFacts(is_gray, level_of(float(np.mean(means))), bright, dark)


def _mask_facts(crop: MaskRegion, grey: NDArray[np.uint8]) -> MaskFacts:
    import cv2

    height, width = crop.shape
    whole = np.ascontiguousarray(crop.mask).view(np.uint8)
    halves = [cv2.countNonZero(half) / crop.area for half in (whole[:, : width // 2], whole[: height // 2])]
    half_x = "left" if halves[0] > 0.95 else "right" if halves[0] < 0.05 else ""
    half_y = "upper" if halves[1] > 0.95 else "lower" if halves[1] < 0.05 else ""
    values = grey[crop.cut]
    inside_values = values[crop.inner.view(np.bool_)]
    inside, spread = float(np.median(inside_values)), float(inside_values.std())
    size = 2 * crop.ring_px + 1
    ring = cv2.dilate(crop.inner, np.ones((size, size), np.uint8)) - crop.inner
    tone, clear = "", False
    if cv2.countNonZero(ring) >= 8:
        around, around_spread = (float(v[0, 0]) for v in cv2.meanStdDev(values, mask=ring))
        tone = _against(float(inside_values.mean()), around, min(spread, 40.0))
        # A ring that is bright here and dark there is neither: its mean would be nobody's impression.
        if around_spread > 1.2 * abs(float(inside_values.mean()) - around) and tone != "alike":
            tone = ""
        clear = abs(float(inside_values.mean()) - around) > max(35.0, spread, 0.6 * around_spread)
    even = "even" if spread < 14 else "mixed" if spread > 38 else ""
    return MaskFacts(
        share=crop.area / (height * width),
        place=dominant_ninth(whole), half_x=half_x, half_y=half_y,
        x0=crop.x0 / width, y0=crop.y0 / height, x1=(crop.x1 + 1) / width, y1=(crop.y1 + 1) / height,
        borders=_touched(crop.mask), pieces=crop.pieces, main_share=float(crop.sizes.max() / crop.area),
        holes=crop.holes, outline=_outline(crop), inside=inside, spread=spread, level=level_of(inside), tone=tone,
        clear_edge=clear, even=even,
    )  # fmt: skip


def _touched(part: NDArray[Any]) -> tuple[str, ...]:
    """Sides on which a part of the mask has three pixels or more."""
    lines = zip(SIDES, (part[:, 0], part[:, -1], part[0], part[-1]), strict=True)
    return tuple(side for side, line in lines if np.count_nonzero(line) >= 3)


def _outline(crop: MaskRegion) -> str:
    """How much a median filter moves the border, a pixel of border."""
    import cv2

    border = cv2.countNonZero(crop.rim)
    if border == 0 or crop.area / border < 2.0:
        return ""  # thin all over: no outline to speak of
    size = 5 if max(crop.shape) < 400 else 7
    moved = cv2.countNonZero(cv2.absdiff(crop.padded, cv2.medianBlur(crop.padded, size))) / border
    return "smooth" if moved < 0.10 else "ragged" if moved > 0.30 else ""


def _click_facts(click: Any, grey: NDArray[np.uint8], crop: MaskRegion | None, mask: MaskFacts | None) -> ClickFacts:
    height, width = grey.shape
    pixel = click.to_pixel(width, height)
    x, y = pixel.x, pixel.y
    side_px = max(height, width)
    value = float(np.median(patch(grey, x, y, max(1, side_px // 128))))
    # In the middle of something large the near surroundings are the thing itself: look farther until there is contrast.
    around = "alike"
    for share in (16, 8, 4):
        if around == "alike":
            around = _against(value, float(patch(grey, x, y, max(3, side_px // share)).mean()), 20.0)
    near_spread = float(patch(grey, x, y, max(2, side_px // 40)).std())
    facts: dict[str, Any] = {
        "x": click.x, "y": click.y, "place": where_text(click.x, click.y), "level": level_of(value),
        "even": near_spread < 14, "against_around": around,
    }  # fmt: skip
    if crop is None or mask is None:
        return ClickFacts(**facts)
    facts["against_mask"] = _against(value, mask.inside, min(mask.spread, 45.0))
    facts["inside"] = bool(crop.mask[y, x])
    row, column = y - crop.top, x - crop.left
    within = 0 <= row < crop.labels.shape[0] and 0 <= column < crop.labels.shape[1]
    if facts["inside"]:
        facts["piece_share"] = float(crop.sizes[crop.labels[row, column] - 1] / crop.area)
        across = (x + 0.5 - crop.x0) / (crop.x1 + 1 - crop.x0), (y + 0.5 - crop.y0) / (crop.y1 + 1 - crop.y0)
        facts["side"] = where_text(*across)
        ninth = ninths(crop.mask.view(np.uint8))[NINTHS.index(facts["place"])]
        # The ninth's other sides lie inside the image.
        facts["borders"] = tuple(side for side in _touched(ninth) if side in facts["place"].split())
        return ClickFacts(**facts)
    facts["in_hole"] = within and bool(crop.gaps[row, column])
    ys, xs = np.nonzero(crop.rim)
    dx, dy = xs - column, ys - row
    squares = dx * dx + dy * dy
    nearest = int(squares.argmin())
    facts["side"] = direction(-int(dx[nearest]), -int(dy[nearest]))
    far = float(np.sqrt(squares[nearest])) / side_px
    facts["near"] = "edge" if far < 0.03 else "close" if far < 0.10 else "away"
    return ClickFacts(**facts)


def _change_facts(
    moment: Moment, grey: NDArray[np.uint8], crop: MaskRegion | None, facts: MaskFacts | None
) -> ChangeFacts | None:
    before = moment.previous_mask
    if before is None or not before.any():
        return None if crop is None or facts is None else ChangeFacts("first", place=facts.place)
    if crop is None or facts is None or moment.mask is None:
        return ChangeFacts("gone")
    now = moment.mask
    gained, lost = now & ~before, before & ~now
    area, num_gained, num_lost = (int(np.count_nonzero(m)) for m in (before, gained, lost))
    percent = round(100 * (num_gained - num_lost) / area)
    if num_gained + num_lost < 0.02 * (area + num_gained):
        return ChangeFacts("hardly", percent, num_gained / area, num_lost / area)
    net = (num_gained - num_lost) / max(area, 1)
    kind = "grew" if net > 0.02 else "shrank" if net < -0.02 else "moved"
    where = gained if num_gained >= num_lost else lost
    edges = zip(SIDES, (before[:, 0], before[:, -1], before[0], before[-1]), strict=True)
    touched = [side for side, line in edges if line.any()]
    pieces = _pieces_before(_Same(before))
    tone = ""
    if num_gained >= 8:
        values = grey[before]
        tone = _against(float(np.median(grey[gained])), float(np.median(values)), min(float(values.std()), 45.0))
    return ChangeFacts(
        kind, percent, num_gained / area, num_lost / area, dominant_ninth(where.view(np.uint8)), facts.pieces - pieces,
        tuple(side for side in facts.borders if side not in touched), tone,
    )  # fmt: skip

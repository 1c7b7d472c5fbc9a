"""Facts in words: the slots that sentences are filled with, and the flags that say which sentences hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibisagent.engine.language.naming import Phrase, modality_phrase, with_article

if TYPE_CHECKING:
    import numpy as np

    from ibisagent.engine.moments import Moment
    from ibisagent.engine.reasoning.facts import ChangeFacts, ClickFacts, Facts, MaskFacts

__all__ = ["flags_of", "place_words", "share_words", "slots_of"]

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_PLACES: dict[str, tuple[str, ...]] = {
    "upper left": ("in the upper left of the image", "in the upper left part of the image"),
    "upper centre": ("in the upper middle part of the image", "in the middle of the upper third of the image"),
    "upper right": ("in the upper right of the image", "in the upper right part of the image"),
    "middle left": ("on the left side of the image", "on the left of the image at mid-height"),
    "centre": ("in the centre of the image", "near the middle of the image"),
    "middle right": ("on the right side of the image", "on the right of the image at mid-height"),
    "lower left": ("in the lower left of the image", "in the lower left part of the image"),
    "lower centre": ("in the lower middle part of the image", "in the middle of the lower third of the image"),
    "lower right": ("in the lower right of the image", "in the lower right part of the image"),
}

_BEYOND: dict[str, str] = {
    "left": "to the left of the green", "right": "to the right of the green", "above": "above the green",
    "below": "below the green", "above left": "above and to the left of the green",
    "above right": "above and to the right of the green", "below left": "below and to the left of the green",
    "below right": "below and to the right of the green",
}  # fmt: skip

_PARTS: dict[str, str] = {
    "upper centre": "in the upper part of the mask", "lower centre": "in the lower part of the mask",
    "middle left": "in the left part of the mask", "middle right": "in the right part of the mask",
    "centre": "in the middle of the mask",
}  # fmt: skip

_SHARES = (
    (0.008, "a very small part of the image"), (0.04, "a small part of the image"),
    (0.07, "about a twentieth of the image"), (0.14, "about a tenth of the image"),
    (0.18, "about a sixth of the image"), (0.22, "about a fifth of the image"), (0.29, "about a quarter of the image"),
    (0.40, "about a third of the image"), (0.45, "well over a third of the image"), (0.55, "about half of the image"),
    (0.70, "more than half of the image"), (1.01, "most of the image"),
)  # fmt: skip

_HEIGHTS = (
    (0.06, "close to the upper edge"), (0.14, "near the upper edge"), (0.22, "about a fifth of the way down"),
    (0.29, "about a quarter of the way down"), (0.40, "about a third of the way down"), (0.60, "about halfway down"),
    (0.71, "about two thirds of the way down"), (0.82, "about three quarters of the way down"),
    (0.94, "near the lower edge"), (1.01, "close to the lower edge"),
)  # fmt: skip

_WIDTHS = (
    (0.06, "close to the left edge of the image"), (0.14, "near the left edge of the image"),
    (0.29, "about a quarter of the way across the image"), (0.40, "about a third of the way across the image"),
    (0.60, "about halfway across the image"), (0.71, "about two thirds of the way across the image"),
    (0.86, "about three quarters of the way across the image"), (0.94, "near the right edge of the image"),
    (1.01, "close to the right edge of the image"),
)  # fmt: skip

_VERBS = {"is": "are", "has": "have", "does": "do", "goes": "go", "ends": "end", "extends": "extend"}


def _up_to(table: tuple[tuple[float, str], ...], value: float) -> str:
    return next(words for limit, words in table if value < limit)


def share_words(share: float) -> str:
    """A share of the image in words: ``"about a tenth of the image"``."""
    return _up_to(_SHARES, share)


def place_words(place: str, rng: np.random.Generator) -> str:
    """A ninth of the image as a sentence says it. Left and right are the picture's."""
    ways = _PLACES[place]
    return ways[int(rng.integers(len(ways)))]


def _mask_place(mask: MaskFacts, rng: np.random.Generator) -> str | None:
    if mask.place is not None and mask.share < 0.12:
        return place_words(mask.place, rng)
    if mask.half_x and mask.half_y:
        return f"in the {mask.half_y} {mask.half_x} quarter of the image"
    if mask.half_x or mask.half_y:
        return f"in the {mask.half_x or mask.half_y} half of the image"
    if mask.x0 < 0.2 and mask.x1 > 0.8:
        return "across most of the image's width"
    return "in the middle part of the image" if mask.x0 > 0.1 and mask.x1 < 0.9 and mask.x0 < 0.5 < mask.x1 else None


def _change_words(change: ChangeFacts) -> str | None:
    """How much the mask grew or shrank, in rounded words."""
    size = abs(change.percent)
    if change.kind == "shrank":
        if size >= 85:
            return "to a small remnant"
        return f"by about {size if size < 10 else 5 * round(size / 5)} %"
    if size > 130:
        return "to well over twice its size"
    if size > 90:
        return "to about twice its size"
    return f"by about {size if size < 10 else 5 * round(size / 5)} %"


def _tone(level: str, is_gray: bool) -> str:
    """dark, grey or bright; a picture in colours is not grey."""
    return level if level != "grey" or is_gray else "medium bright"


def slots_of(facts: Facts, moment: Moment, phrase: Phrase, rng: np.random.Generator) -> dict[str, str]:
    """Fillings by slot name; a slot that cannot be filled truthfully is left out."""
    slots = {
        "the": phrase.definite, "image": modality_phrase(moment.modality),
        "it": "them" if phrase.plural else "it", "it_is": "they are" if phrase.plural else "it is",
        "given_word": "given" if moment.given and moment.previous_action is None else "present",
        **{word: plural if phrase.plural else word for word, plural in _VERBS.items()},
    }  # fmt: skip
    slots["a_image"] = with_article(slots["image"])
    slots["The"] = slots["the"][0].upper() + slots["the"][1:]
    image, mask, change = facts.image, facts.mask, facts.change
    if image.bright_place:
        slots["bright_at"] = place_words(image.bright_place, rng)
    if image.dark_place:
        slots["dark_at"] = place_words(image.dark_place, rng)
    last = moment.previous_action.kind if moment.previous_action is not None else ""
    slots["last"] = last if last in ("click", "box") else "step"
    if facts.box is not None:
        slots["at"] = place_words(facts.box.place, rng)
    if facts.click is not None:
        _click_slots(slots, facts.click, mask, image.gray, rng)
    if mask is not None:
        _mask_slots(slots, mask, image.gray, rng)
    if change is not None and change.kind in ("grew", "shrank"):
        words = _change_words(change)
        if words is not None:
            slots[change.kind] = words
    if change is not None:
        if change.place:
            slots["change_at"] = place_words(change.place, rng)
        if change.gained_tone in ("brighter", "darker"):
            slots["gained"] = change.gained_tone
        if change.new_borders:
            slots["new_border"] = f"{change.new_borders[0]} edge of the image"
    for name in ("at", "beyond", "part"):
        if name in slots:
            slots[name.capitalize()] = slots[name][0].upper() + slots[name][1:]
    return slots


def _click_slots(
    slots: dict[str, str], click: ClickFacts, mask: MaskFacts | None, is_gray: bool, rng: np.random.Generator
) -> None:
    slots["at"] = place_words(click.place, rng)
    slots["tone"] = _tone(click.level, is_gray)
    # Where a contrast is clear, it says more than the grey value: a brown spot on bright skin is dark.
    if click.against_around == "darker" and click.level != "dark":
        slots["tone"] = "comparatively dark"
    if click.against_around == "brighter" and click.level != "bright":
        slots["tone"] = "comparatively bright"
    if click.against_around in ("brighter", "darker"):
        slots["against_around"] = click.against_around
    if click.against_mask in ("brighter", "darker"):
        slots["against_mask"] = click.against_mask
    if click.inside is True:
        slots["part"] = _PARTS.get(click.side, f"in the {click.side} part of the mask")
    if click.inside is False and mask is not None:
        slots["beyond"] = "in the gap" if click.in_hole else _BEYOND[click.side]
        if click.near == "edge" and not click.in_hole:
            slots["beyond"] = ("just " if click.side in ("above", "below") else "") + slots["beyond"]
        end, value = {
            "left": ("left end", mask.x0), "right": ("right end", mask.x1),
            "above": ("upper end", mask.y0), "below": ("lower end", mask.y1),
        }.get(click.side, ("", 0.0))  # fmt: skip
        # Only where the click lies past that end is the end worth a word.
        past = {
            "left end": click.x < mask.x0, "right end": click.x > mask.x1,
            "upper end": click.y < mask.y0, "lower end": click.y > mask.y1,
        }.get(end, False)  # fmt: skip
        if past:
            slots["end"] = end
            slots["end_at"] = _up_to(_WIDTHS if click.side in ("left", "right") else _HEIGHTS, value)
    if click.borders:
        slots["click_border"] = f"{click.borders[0]} edge of the image"


def _mask_slots(slots: dict[str, str], mask: MaskFacts, is_gray: bool, rng: np.random.Generator) -> None:
    slots["share"] = share_words(mask.share)
    slots["mask_tone"] = _tone(mask.level, is_gray)
    if mask.tone in ("brighter", "darker"):
        slots["mask_contrast"] = mask.tone
    place = _mask_place(mask, rng)
    if place is not None:
        slots["mask_at"] = place
    if 2 <= mask.pieces <= 9:
        slots["pieces"] = _NUMBERS[mask.pieces]
    elif mask.pieces > 9:
        slots["pieces"] = "many"
    if mask.borders:
        slots["border"] = f"{mask.borders[0]} edge of the image"
    top, bottom = _up_to(_HEIGHTS, mask.y0), _up_to(_HEIGHTS, mask.y1)
    if top != bottom:
        slots["top_at"], slots["bottom_at"] = top, bottom


def flags_of(facts: Facts, moment: Moment) -> frozenset[str]:
    """What holds of the moment: names that the conditions of sentences use."""
    mask, click, change = facts.mask, facts.click, facts.change
    before = moment.previous_action.kind if moment.previous_action is not None else ""
    flags = {moment.action.kind, facts.image.level + "_image"}
    flags.add("no_mask" if mask is None else "has_mask")
    tests: dict[str, bool] = {
        "given": moment.given, "start": moment.previous_action is None, "after_undo": before == "undo",
        "after_discard": before == "discard", "click_before": before in ("click", "box"),
        "first": moment.index == 0, "after_empty": mask is None and before in ("click", "box"),
        "undid_all": before == "undo" and change is not None and change.kind == "gone",
        # A discarded mask leaves None behind: then the step before the last one was no click.
        "several": moment.index >= 2 and before in ("click", "box") and moment.previous_mask is not None,
    }  # fmt: skip
    if click is not None:
        tests |= {
            "even_here": click.even, "around_alike": click.against_around == "alike",
            "bright_around": click.against_around == "brighter", "dark_around": click.against_around == "darker",
            "inside": click.inside is True, "outside": click.inside is False, "hole": click.in_hole,
            "alike": click.against_mask == "alike", "unlike": click.against_mask in ("brighter", "darker"),
            "edge": click.near == "edge", "away": click.near == "away",
            "island": click.inside is True and click.piece_share < 0.45,
            "click_border": bool(click.borders),
        }  # fmt: skip
    if mask is not None:
        tests |= {
            "small": mask.share < 0.02, "large": mask.share > 0.25, "one_piece": mask.pieces == 1,
            "many_pieces": mask.pieces > 1, "no_holes": mask.holes == 0, "smooth": mask.outline == "smooth",
            "ragged": mask.outline == "ragged", "clear_edge": mask.clear_edge, "borders": bool(mask.borders),
            "toned": mask.tone in ("brighter", "darker"), "mask_alike": mask.tone == "alike",
            "even_mask": mask.even == "even", "mixed_mask": mask.even == "mixed",
        }  # fmt: skip
    flags |= {"no_change"} if change is None else set()
    # What an undo changed is not what "the last click" did: its numbers are not told.
    if change is not None and before in ("click", "box"):
        kind = "first_mask" if change.kind == "first" else change.kind
        tests |= {
            kind: True, "change_place": change.place is not None, "new_pieces": change.new_pieces > 0,
            "gained_alike": change.gained_tone == "alike",
            "gained_unlike": change.gained_tone in ("brighter", "darker"),
            "new_border": bool(change.new_borders),
        }  # fmt: skip
    return frozenset(flags | {name for name, holds in tests.items() if holds})

"""The development split: a part of train that nano does not learn from, for choices that are made by a figure.

ClickNet learns from all of train.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

__all__ = ["development_images"]

EVERY = 8
"""One image in so many of a group goes to the development split, the fifth first."""

SCARCE = 4
"""An image with a target that fewer training images show stays in train."""


def development_images(rows: Iterable[tuple[str, str, str]]) -> frozenset[str]:
    """Images of the training split that are set apart.

    Parameters
    ----------
    rows
        (image, group, target) of the training rows; their order does not matter.

    Returns
    -------
    frozenset of str
        Every eighth image of a group by name, but none with a scarce target, and none of a group with fewer
        than eight images. The slices of one volume are neighbours, so, as val does, it measures fit.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    targets: dict[str, set[str]] = defaultdict(set)
    seen = set(rows)
    for image, group, target in seen:
        groups[group].add(image)
        targets[image].add(f"{group}/{target}")
    count = Counter(key for keys in targets.values() for key in keys)
    return frozenset(
        image
        for images in groups.values()
        if len(images) >= EVERY
        for image in sorted(images)[4::EVERY]
        if all(count[key] >= SCARCE for key in targets[image])
    )

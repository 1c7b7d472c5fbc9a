"""Splits: by patient, from the patient's name alone; and nano's development split.

The development split is a part of train that nano does not learn from, for choices that are made by a figure.
ClickNet learns from all of train.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ibisagent.engine.sources.sample import Sample

__all__ = ["SHARES", "development_images", "split_of", "split_of_group"]

SHARES: Mapping[str, float] = MappingProxyType({"train": 0.8, "val": 0.1, "test": 0.1})
"""Share of the groups that each split gets, where nobody says otherwise."""

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


def split_of_group(group: str, shares: Mapping[str, float] = SHARES, salt: str = "") -> str:
    """Split that a patient or specimen belongs to.

    It depends on nothing but the arguments: not on the other groups, the order, the machine or the version. So all
    images of a group stay together, data sets that share a patient's name agree, and a patient that is added later
    moves nobody.

    Parameters
    ----------
    group
        Name of the patient or specimen; for an image that is a group of its own, its key.
    shares
        Split -> its share of all groups; the shares add up to 1. Their order counts: the first split gets the lowest
        hashes.
    salt
        Another text gives another division.

    Returns
    -------
    str
        A key of `shares`.

    Raises
    ------
    ValueError
        If a share is negative or not finite, or they do not add up to 1.

    Examples
    --------
    >>> split_of_group("patient_007"), split_of_group("patient_007", {"train": 0.5, "test": 0.5}, salt="a")
    ('train', 'test')
    """
    values = list(shares.values())
    if not all(math.isfinite(share) and share >= 0 for share in values) or abs(math.fsum(values) - 1) > 1e-6:
        raise ValueError(f"shares must be 0 or more and add up to 1, not {dict(shares)}")
    digest = hashlib.sha256(f"{salt}\0{group}".encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    total = 0.0
    chosen = ""
    for split, share in shares.items():
        total += share
        chosen = split if share > 0 else chosen
        if share > 0 and place < total:
            break
    return chosen


def split_of(sample: Sample) -> str:
    """The sample's own split, or that of its group; without a group it is one of its own."""
    return sample.split or split_of_group(sample.group or sample.key)

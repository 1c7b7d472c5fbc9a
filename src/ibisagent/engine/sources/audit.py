"""The leakage audit: does anything that is learnt from return in what is tested on?

Three questions: does a patient (group) appear in more than one split, are there images in two splits that are equal
pixel for pixel, and are there images in two splits that look the same (:mod:`ibisagent.engine.sources.fingerprint`)?
Slices of one volume are neighbours and look alike; images of one group in two splits are therefore reported once, as
the group, and not again pair by pair.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ibisagent.engine.sources.fingerprint import (
    MAX_BITS,
    MAX_DETAIL,
    MAX_DISTANCE,
    Fingerprints,
    fingerprint,
    near_pairs,
)
from ibisagent.engine.sources.sample import Fault, Sample
from ibisagent.engine.splits import SHARES, split_of_group
from ibisagent.errors import InputError
from ibisagent.hashing import pixel_hash
from ibisagent.io.files import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MAX_LISTED",
    "AuditReport",
    "GroupOverlap",
    "ImagePair",
    "ImageRecord",
    "audit",
    "audit_groups",
    "audit_records",
]

MAX_LISTED = 1000
"""So many pairs of each kind are listed, the closest first; all are counted."""

_NAMED = 3
"""So many of each kind are named in the error's one line."""


class ImageRecord(NamedTuple):
    """What the audit knows of one image; workers make it where they read the image.

    Parameters
    ----------
    source, key
        Data set and sample.
    group
        Patient or specimen; None: a group of its own.
    split
        ``"train"``, ``"val"``, ``"test"`` …
    sha256
        :func:`ibisagent.hashing.pixel_hash` of the pixels (``Image.sha256``).
    fingerprint
        :func:`ibisagent.engine.sources.fingerprint.fingerprint` of the pixels.
    """

    source: str
    key: str
    group: str | None
    split: str
    sha256: str
    fingerprint: str


@dataclass(frozen=True)
class GroupOverlap:
    """A group with images in several splits.

    Parameters
    ----------
    source, group
        Which one.
    splits
        Split -> number of its images, by split.
    allowed
        Whether the user allowed it.
    """

    source: str
    group: str
    splits: Mapping[str, int]
    allowed: bool = False

    def __str__(self) -> str:
        return f"{self.source}/{self.group} ({', '.join(f'{n} in {split}' for split, n in self.splits.items())})"


@dataclass(frozen=True)
class ImagePair:
    """Two images of different groups and splits that are, or look, the same.

    Parameters
    ----------
    first, second
        (source, key, split) of the two.
    distance
        0 for equal pixels, else 1 - correlation of their thumbnails.
    """

    first: tuple[str, str, str]
    second: tuple[str, str, str]
    distance: float

    def __str__(self) -> str:
        return " = ".join(f"{source}/{key} ({split})" for source, key, split in (self.first, self.second))


@dataclass(frozen=True)
class AuditReport:
    """What the audit found.

    Parameters
    ----------
    splits
        Split -> number of its images, by split.
    groups
        Every group in several splits, allowed ones included.
    equal, near
        Pairs with equal pixels, and pairs that look the same; at most :data:`MAX_LISTED` of each.
    num_equal, num_near
        How many there are.
    unread
        Images that could not be read, and so were not looked at.
    """

    splits: Mapping[str, int]
    groups: tuple[GroupOverlap, ...] = ()
    equal: tuple[ImagePair, ...] = ()
    near: tuple[ImagePair, ...] = ()
    num_equal: int = 0
    num_near: int = 0
    unread: tuple[str, ...] = ()

    @property
    def leaks(self) -> bool:
        """Whether anything leaks that nobody allowed."""
        return bool(self.num_equal or self.num_near or any(not group.allowed for group in self.groups))

    @property
    def faults(self) -> tuple[Fault, ...]:
        """One fault for each leak that is listed and not allowed."""
        found = [
            Fault(group.source, one_line(group.group), "leak", one_line(f"one group in several splits: {group}", 400))
            for group in self.groups
            if not group.allowed
        ]
        for pairs, what in ((self.equal, "equal images"), (self.near, "near-duplicates")):
            found += [
                Fault(pair.first[0], pair.first[1], "leak", one_line(f"{what} in two splits: {pair}", 400))
                for pair in pairs
            ]
        return tuple(found)

    def summary(self) -> str:
        """What leaks in one line, with the worst of each kind by name; or that nothing does."""
        kinds: tuple[tuple[int, str, list[Any]], ...] = (
            (
                n := sum(not g.allowed for g in self.groups),
                _plural(n, "group"),
                [g for g in self.groups if not g.allowed],
            ),
            (self.num_equal, _plural(self.num_equal, "pair of equal images", "pairs of equal images"), [*self.equal]),
            (self.num_near, _plural(self.num_near, "near-duplicate"), [*self.near]),
        )
        parts = [
            f"{what} in several splits: {'; '.join(str(item) for item in items[:_NAMED])}"
            + (f"; and {num - _NAMED} more" if num > _NAMED else "")
            for num, what, items in kinds
            if num
        ]
        images = _plural(sum(self.splits.values()), "image")
        return (
            one_line(". ".join(parts), 1500)
            if parts
            else f"no leak in {images} of {', '.join(self.splits) or 'no split'}"
        )

    def raise_if_leaking(self) -> None:
        """Stop if anything leaks that nobody allowed.

        Raises
        ------
        InputError
            With the worst groups and pairs by name.
        """
        if self.leaks:
            raise InputError(
                f"the splits leak: {self.summary()}. Move each group into one split, or allow groups that you know "
                "of (--allow-group SOURCE/GROUP)"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""

        def pair(item: ImagePair) -> dict[str, Any]:
            ends = [dict(zip(("source", "key", "split"), end, strict=True)) for end in (item.first, item.second)]
            return {"images": ends, "distance": round(item.distance, 6)}

        return {
            "leaks": self.leaks,
            "splits": dict(self.splits),
            "limits": {"bits": MAX_BITS, "distance": MAX_DISTANCE, "detail": MAX_DETAIL},
            "groups": [
                {"source": g.source, "group": g.group, "splits": dict(g.splits), "allowed": g.allowed}
                for g in self.groups
            ],
            "num_equal": self.num_equal,
            "num_near": self.num_near,
            "equal": [pair(item) for item in self.equal],
            "near": [pair(item) for item in self.near],
            "unread": list(self.unread),
        }


def audit(
    samples: Iterable[Sample | Fault],
    load: Callable[[Sample], NDArray[np.uint8]] | None = None,
    *,
    allow_groups: Collection[str] = (),
    shares: Mapping[str, float] = SHARES,
    salt: str = "",
) -> AuditReport:
    """Read the images of samples and look for leaks.

    Parameters
    ----------
    samples
        Of all splits and sources; faults are passed over.
    load
        Gives a sample's pixels, ``uint8`` (H, W, 3); None reads it.
    allow_groups
        See :func:`audit_records`.
    shares, salt
        For samples without a split, see :func:`ibisagent.engine.splits.split_of_group`.
    """
    records: list[ImageRecord] = []
    unread: list[str] = []
    for sample in samples:
        if isinstance(sample, Fault):
            continue
        split = sample.split or split_of_group(sample.group or sample.key, shares, salt)
        try:
            pixels = sample.reader().image.pixels if load is None else load(sample)
        except InputError:
            unread.append(f"{sample.source}/{sample.key}")
            continue
        records.append(
            ImageRecord(sample.source, sample.key, sample.group, split, pixel_hash(pixels), fingerprint(pixels))
        )
    return audit_records(records, allow_groups=allow_groups, unread=unread)


def audit_groups(
    named: Iterable[tuple[str, str, str | None, str]], *, allow_groups: Collection[str] = ()
) -> AuditReport:
    """Look for groups in several splits, which needs no image to be read.

    Parameters
    ----------
    named
        (source, key, group, split) of each sample.
    allow_groups
        See :func:`audit_records`.
    """
    known = sorted({ImageRecord(*names, "", "") for names in named}, key=lambda record: tuple(map(str, record)))
    splits = Counter(record.split for record in known)
    return AuditReport(splits=dict(sorted(splits.items())), groups=_overlaps(known, frozenset(allow_groups)))


def audit_records(
    records: Iterable[ImageRecord | tuple[str, str, str | None, str, str, str]],
    *,
    allow_groups: Collection[str] = (),
    unread: Iterable[str] = (),
) -> AuditReport:
    """Look for leaks among images that have been read.

    Parameters
    ----------
    records
        One for each image, in any order: the report is the same.
    allow_groups
        Groups that may be in several splits, each as ``"source/group"``, or ``"source"`` for all of a data set's.
        Equal and similar images of different groups can not be allowed.
    unread
        Names of images that could not be read, for the report.

    Raises
    ------
    ValueError
        If a fingerprint is none.
    """
    known = sorted({ImageRecord(*record) for record in records}, key=lambda record: tuple(map(str, record)))
    groups = _overlaps(known, frozenset(allow_groups))
    equal, num_equal = _equal_pairs(known)
    near, num_near = _near_pairs(known)
    return AuditReport(
        splits=dict(sorted(Counter(record.split for record in known).items())),
        groups=groups,
        equal=equal,
        near=near,
        num_equal=num_equal,
        num_near=num_near,
        unread=tuple(sorted(unread)),
    )


def _overlaps(records: list[ImageRecord], allowed: frozenset[str]) -> tuple[GroupOverlap, ...]:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        if record.group is not None:
            counts[record.source, record.group][record.split] += 1
    return tuple(
        GroupOverlap(source, group, dict(sorted(splits.items())), bool({source, f"{source}/{group}"} & allowed))
        for (source, group), splits in sorted(counts.items(), key=lambda item: (-_smaller_side(item[1]), item[0]))
        if len(splits) > 1
    )


def _smaller_side(splits: Counter[str]) -> int:
    """Images outside the split that has most: how bad an overlap is."""
    return splits.total() - max(splits.values())


def _family(record: ImageRecord) -> tuple[str, str, bool]:
    """The group that an image belongs to; without one it is alone."""
    return (record.source, record.key, False) if record.group is None else (record.source, record.group, True)


def _pair(first: ImageRecord, second: ImageRecord, distance: float) -> ImagePair:
    ends = [(record.source, record.key, record.split) for record in (first, second)]
    return ImagePair(ends[0], ends[1], distance)


def _equal_pairs(records: list[ImageRecord]) -> tuple[tuple[ImagePair, ...], int]:
    """Equal images of different groups in different splits: some pairs, and how many there are."""
    by_hash: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        by_hash[record.sha256].append(record)
    listed: list[ImagePair] = []
    total = 0
    for copies in by_hash.values():
        if len({copy.split for copy in copies}) == 1:
            continue
        # counted without walking through them: one black image may be there thousands of times
        within = [
            Counter(key) for key in zip(*((c.split, _family(c), (c.split, _family(c))) for c in copies), strict=True)
        ]
        same_split, same_group, same_both = (sum(n * (n - 1) // 2 for n in count.values()) for count in within)
        total += len(copies) * (len(copies) - 1) // 2 - same_split - same_group + same_both
        for first, second in combinations(copies, 2):
            if len(listed) == MAX_LISTED:
                break
            if first.split != second.split and _family(first) != _family(second):
                listed.append(_pair(first, second, 0.0))
    return tuple(listed), total


def _near_pairs(records: list[ImageRecord]) -> tuple[tuple[ImagePair, ...], int]:
    """Similar, not equal images of different groups in different splits: the closest, and how many there are."""
    prints = Fingerprints.parse([record.fingerprint for record in records])
    families = {family: n for n, family in enumerate(dict.fromkeys(map(_family, records)))}
    hashes = {sha256: n for n, sha256 in enumerate(dict.fromkeys(record.sha256 for record in records))}
    family = np.array([families[_family(record)] for record in records], np.int64)
    image = np.array([hashes[record.sha256] for record in records], np.int64)
    members = {split: [n for n, r in enumerate(records) if r.split == split] for split in {r.split for r in records}}
    found: list[tuple[float, int, int]] = []
    for one, other in combinations(sorted(members), 2):
        mine, theirs = np.array(members[one], np.int64), np.array(members[other], np.int64)
        i, j, distance = near_pairs(prints.take(mine), prints.take(theirs))
        i, j = mine[i], theirs[j]
        leaking = (family[i] != family[j]) & (image[i] != image[j])
        columns = (distance[leaking].tolist(), i[leaking].tolist(), j[leaking].tolist())
        found.extend(zip(*columns, strict=True))
    found.sort()
    return tuple(_pair(records[i], records[j], distance) for distance, i, j in found[:MAX_LISTED]), len(found)


def _plural(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"

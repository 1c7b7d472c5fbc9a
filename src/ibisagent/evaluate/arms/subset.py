"""A fixed part of a case list: the same cases every time, and as many kinds of target as there is room for."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from ibisagent.io import CaseRow, RowError

__all__ = ["subset"]


def subset(rows: Sequence[CaseRow | RowError], number: int) -> list[CaseRow | RowError]:
    """Choose cases by group and target.

    Cases fall into strata: group, target, and whether the target is absent. Every stratum gives one case, then every
    one that has more gives a second, and so on, the larger strata first. Within a stratum, and among strata of one
    size, the order is that of the SHA-256 of the (first) ``case_id``: where every image is a group of its own, names
    must not decide. So the choice depends on the cases alone, neither on their order nor on a seed, and a larger subset
    holds every smaller one. Rare targets have a larger part in it than in the list: means over a subset do not estimate
    those over the list.

    Parameters
    ----------
    rows
        A list; rows that cannot be used stay, beside the number, so that they go unseen in no run.
    number
        How many cases; all if there are not so many.

    Returns
    -------
    list of CaseRow or RowError
        In the order of the list.
    """
    strata: dict[tuple[str, str, bool], list[CaseRow]] = defaultdict(list)
    for row in rows:
        if isinstance(row, CaseRow):
            strata[(row.group or "", row.target, row.mask is None)].append(row)
    queues = [sorted(stratum, key=_order) for stratum in strata.values()]
    queues.sort(key=lambda queue: (-len(queue), _order(queue[0])))
    chosen: set[str] = set()
    depth = 0
    while len(chosen) < number and any(len(queue) > depth for queue in queues):
        for queue in queues:
            if len(queue) > depth and len(chosen) < number:
                chosen.add(queue[depth].case_id)
        depth += 1
    return [row for row in rows if isinstance(row, RowError) or row.case_id in chosen]


def _order(row: CaseRow) -> tuple[bytes, str]:
    return hashlib.sha256(row.case_id.encode("utf-8", "surrogatepass")).digest(), row.case_id

"""Absent targets: the same images, asked for structures that they cannot show.

That a data set did not label a structure does not make it absent. So only what the ontology rules out is asked for:
structures that no picture of the modality shows, or that lie in another part of the body than everything that the list
says to be on the image. A list of one's own with null masks asks for more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ibisagent.engine.language.ontology import possible_beside, possible_in, related
from ibisagent.evaluate.arms.scene import Scene, changed
from ibisagent.io import CaseRow

__all__ = ["COMMON", "absent_rows"]

COMMON: tuple[str, ...] = (
    "aorta", "brain", "brain tumor", "breast lesion", "cell nuclei", "epidermis", "gray matter", "heart", "kidney",
    "largest nucleus", "left lung", "liver", "lung tumor", "lungs", "optic disc", "polyp", "retina", "skin lesion",
    "spleen", "stratum corneum", "white matter",
)  # fmt: skip
"""What is asked for beside the list's own targets."""


def absent_rows(
    scene: Scene, rows: Sequence[CaseRow], foreign: bool, condition: str
) -> tuple[list[CaseRow], dict[str, int]]:
    """One row for each case: its image, and a structure that is not on it. No image is asked for one twice.

    Parameters
    ----------
    scene, rows
        The whole list, and those of its rows that the lab plays.
    foreign
        Whether the modality itself rules the structure out, or only what else the image shows.
    condition
        Name, for the record.

    Returns
    -------
    rows
        With null masks and ``case_id`` ``"CASE__absent-NAME"``, in the order of `rows`.
    left_out
        How many cases have no such structure (left), by reason.
    """
    pool = sorted({*COMMON, *(row.target for row in scene.rows)})
    asked: dict[str, set[str]] = defaultdict(set)
    made: dict[str, CaseRow] = {}
    left_out: dict[str, int] = {}
    for row in sorted(rows, key=lambda r: r.case_id):
        shown = scene.shown(row)
        names = [
            name
            for name in pool
            if name not in asked[row.image] and _is_absent(name, row, shown, foreign)
        ]  # fmt: skip
        if row.mask is None or not names:
            reason = "the target is absent" if row.mask is None else "no structure is known to be absent"
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        name = names[int(scene.rng(row, condition).integers(len(names)))]
        asked[row.image].add(name)
        made[row.case_id] = changed(
            row,
            {"name": condition, "of": row.case_id, "instead_of": row.target},
            case_id=f"{row.case_id}__absent-{name.replace(' ', '-')}",
            target=name,
            mask=None,
            initial_mask=None,
            instruction=None,
        )
    return [made[row.case_id] for row in rows if row.case_id in made], left_out


def _is_absent(name: str, row: CaseRow, shown: Sequence[str], foreign: bool) -> bool:
    if any(related(name, other) for other in shown):
        return False
    if foreign:
        return possible_in(name, row.modality) is False
    by_region = possible_beside(name, shown, row.modality, row.view) is False
    return by_region and possible_in(name, row.modality) is not False

"""What is drawn: patients if there are enough of them, else images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.statistics.intervals import FEW_CLUSTERS

__all__ = ["MANY_CLUSTERS", "Clusters", "cluster_unit"]

MANY_CLUSTERS = 30
"""Below it intervals are known to be too short where a few cases fail altogether (``docs/results/coverage.json``)."""


@dataclass(frozen=True)
class Clusters:
    """The cluster of every case.

    Parameters
    ----------
    unit
        What a cluster is.
    labels
        One a case, in the cases' order. A case of unknown patient stands with its image (and with that image's
        patient, where another case names one); one of unknown image is a cluster of its own.
    warning
        What intervals over this unit do not say, and how short they came out where there are few; None where all
        patients are known and are thirty or more.
    """

    unit: Literal["patient", "image", "case"]
    labels: tuple[str, ...]
    warning: str | None = None

    @property
    def number(self) -> int:
        """Number of clusters."""
        return len(set(self.labels))


def cluster_unit(results: Sequence[CaseResult]) -> Clusters:
    """Clusters for the intervals of these cases.

    Parameters
    ----------
    results
        Cases. Patients are drawn if ten or more are known, else images if any is known, else cases.
    """
    found = _unit(results)
    if not 0 < found.number < MANY_CLUSTERS:
        return found
    told = (
        f"{found.number} {found.unit}{'' if found.number == 1 else 's'}: where 6% of the cases fail altogether, 95% "
        "intervals of simulated IoU held the truth in 95% of the lists with 50, 90% with 20, 81% with 10 and 64% with 5"
    )
    return replace(found, warning="; ".join(filter(None, (found.warning, told))))


def _unit(results: Sequence[CaseResult]) -> Clusters:
    patients, images = {r.patient for r in results if r.patient}, {r.image for r in results if r.image}
    if len(patients) >= FEW_CLUSTERS:
        return _patients(results)
    few = f"{len(patients)} patient{'' if len(patients) == 1 else 's'}" if patients else "no patients"
    if images:
        labels = tuple(r.image or _own(r, number) for number, r in enumerate(results))
        return Clusters(
            "image",
            labels,
            f"{few} known, fewer than {FEW_CLUSTERS}: images are drawn instead, so intervals say how much the choice "
            "of images matters, and not what other patients would give",
        )
    return Clusters(
        "case",
        tuple(_own(r, number) for number, r in enumerate(results)),
        f"{few} and no images known: cases are drawn as if they were independent, which makes intervals too short "
        "where several are of one patient",
    )


def _patients(results: Sequence[CaseResult]) -> Clusters:
    of_image = {r.image: r.patient for r in results if r.image and r.patient}
    labels = tuple(
        r.patient or of_image.get(r.image or "") or (f"image {r.image}" if r.image else _own(r, number))
        for number, r in enumerate(results)
    )
    known = {r.patient for r in results}
    number = sum(label not in known for label in labels)
    if not number:
        return Clusters("patient", labels)
    return Clusters(
        "patient",
        labels,
        f"{number} of {len(results)} cases name no patient: each of their images counts as one, which makes intervals "
        "too short where several are of one patient",
    )


def _own(result: CaseResult, number: int) -> str:
    return f"case {result.case_id if result.case_id is not None else number}"

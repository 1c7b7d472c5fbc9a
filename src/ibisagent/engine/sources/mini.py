"""The mini format (``cases.jsonl``): rows of one image become one sample with all its masks.

A row's ``initial_mask`` is not used: the data engine makes its own starting masks. Nor is the instruction of such a
row, which speaks of that mask. A split that a row states is never changed; the option counts for rows without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ibisagent.engine.sources.options import CommonOptions, Options
from ibisagent.engine.sources.readers import FilesReader
from ibisagent.engine.sources.sample import Fault, Sample
from ibisagent.errors import InputError
from ibisagent.io.datasets import CaseRow, read_cases

__all__ = ["MiniSource"]

_SHARED = ("group", "split", "modality", "view", "spacing_mm")
"""What all rows of an image must agree on."""


@dataclass
class _Gathered:
    """Rows of one image."""

    first: CaseRow
    masks: dict[str, tuple[str, str]] = field(default_factory=dict)  # target -> (mask, case)
    absent: dict[str, str] = field(default_factory=dict)  # target -> case
    instructions: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class MiniSource:
    """A case list.

    Parameters
    ----------
    path
        The ``cases.jsonl``.
    options
        What the user says of all cases.
    """

    path: Path
    options: CommonOptions

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> MiniSource:
        """Open ``mini:PATH``; a folder stands for the ``cases.jsonl`` in it.

        Raises
        ------
        InputError
            If there is no such file, or an option is wrong.
        """
        given = Options("mini", options, common=("name", "modality", "view", "licence", "split", "group"))
        file = Path(path).absolute()  # workers may run in another folder
        if file.is_dir():
            file = file / "cases.jsonl"
        if not file.is_file():
            raise InputError(f"{path}: no case list there; give a file like data/mini/cases.jsonl")
        name = file.parent.name if file.name == "cases.jsonl" else file.stem
        return cls(file, given.common(name or "mini"))

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.options.name

    def samples(self) -> Iterator[Sample | Fault]:
        """Samples in the order in which their images first stand in the list, after the faults of its rows.

        Raises
        ------
        InputError
            If the file is no case list.
        """
        images: dict[str, _Gathered] = {}
        for row in read_cases(self.path):
            if isinstance(row, CaseRow):
                fault = self._gather(row, images)
                if fault is not None:
                    yield fault
            else:
                item = row.case_id or f"{self.path.name} line {row.line}"
                yield Fault(self.name, item, row.code, row.message)
        for key, gathered in images.items():
            yield self._sample(key, gathered)

    def _gather(self, row: CaseRow, images: dict[str, _Gathered]) -> Fault | None:
        """Add a row to its image, unless it contradicts what is there."""
        gathered = images.setdefault(row.image, _Gathered(row))
        for name in _SHARED:
            mine, first = getattr(row, name), getattr(gathered.first, name)
            if mine != first:
                return Fault(
                    self.name,
                    row.case_id,
                    "bad_row",
                    f"{row.case_id}: its {name} is {mine}, but {gathered.first.case_id} says {first} of the same "
                    "image; make them equal",
                )
        target = " ".join(row.target.split())
        known = gathered.masks.get(target)
        case = known[1] if known else gathered.absent.get(target)
        mask = None if row.mask is None else row.mask
        if case is not None and (known[0] if known else None) != mask:
            return Fault(
                self.name,
                row.case_id,
                "duplicate_id",
                f"{row.case_id}: {case} already says otherwise of '{target}' in {row.image}; keep one of them",
            )
        if mask is None:
            gathered.absent.setdefault(target, row.case_id)
        else:
            gathered.masks.setdefault(target, (mask, row.case_id))
        if row.instruction is not None and row.initial_mask is None:
            asked = gathered.instructions.setdefault(target, [])
            if row.instruction not in asked:
                asked.append(row.instruction)
        return None

    def _sample(self, key: str, gathered: _Gathered) -> Sample | Fault:
        row, root = gathered.first, self.path.parent
        modality = self.options.modality or row.modality
        extra = row.model_extra or {}
        licence = extra.get("licence") or extra.get("license")
        masks = tuple((name, str(root / mask)) for name, (mask, _) in gathered.masks.items())
        reader = FilesReader(self.name, key, str(root / row.image), masks, modality, row.spacing_mm)
        try:
            return self.options.sample(
                key,
                reader,
                tuple(gathered.masks),
                stem=Path(row.image).stem,
                absent=tuple(gathered.absent),
                modality=row.modality,
                view=row.view,
                group=row.group,
                split=row.split,
                licence=licence if isinstance(licence, str) else None,
                instructions={name: tuple(asked) for name, asked in gathered.instructions.items()},
            )
        except InputError as exc:
            return Fault(self.name, key, "bad_row", str(exc))

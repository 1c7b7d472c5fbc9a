"""The mini format: one case a line in ``cases.jsonl``, paths relative to the file.

A row that cannot be used never stops the others: it becomes a :class:`RowError` with its line number. Only a file
that is no such list at all raises.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, read_bytes
from ibisagent.io.images import read_image
from ibisagent.io.masks import read_mask
from ibisagent.types import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CaseRow", "RowCode", "RowError", "load_case", "read_cases"]

RowCode = Literal["bad_row", "duplicate_id", "missing_image", "missing_mask"]
"""What kind of fault a row has."""

_Text = Annotated[str, Field(min_length=1)]
_Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CaseRow(BaseModel):
    """One line of a case list. Fields that are not named here are kept (``row.model_extra``)."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    case_id: _Text
    """Unique in the file."""
    image: _Text
    """Image path, relative to the file."""
    mask: _Text | None
    """Mask path, or null: the target is absent from this image. The field must be there; a file without a pixel in
    it is a fault (:func:`load_case`), for it may as well have gone wrong."""
    target: _Text
    """Name of the structure, as an instruction would say it."""
    modality: str | None = None
    view: str | None = None
    group: str | None = None
    """Patient or specimen."""
    split: str | None = None
    spacing_mm: tuple[_Millimetres, _Millimetres] | None = None
    """(row, column)."""
    instruction: _Text | None = None
    initial_mask: _Text | None = None
    """Path of a mask to start from."""

    _place: tuple[str, int] | None = PrivateAttr(None)

    @property
    def line(self) -> int | None:
        """Line number in the file, from 1; None of a row that was not read from one."""
        return None if self._place is None else self._place[1]

    @property
    def place(self) -> str:
        """File and line, for messages; empty of a row that was not read from one."""
        return "" if self._place is None else f"{self._place[0]} line {self._place[1]}"


@dataclass(frozen=True)
class RowError:
    """Why one line is not a usable case.

    Parameters
    ----------
    line
        Line number in the file, from 1.
    case_id
        The row's ``case_id`` where it could be read.
    message
        One line: what is wrong and what to do.
    group, target, modality, split
        The row's own where they could be read, so that the error counts where the case would have.
    absent
        True where the row says that its target is absent (a null mask); None where that is not known.
    code
        What kind of fault it is.
    """

    line: int
    case_id: str | None
    message: str
    group: str | None = None
    target: str | None = None
    modality: str | None = None
    split: str | None = None
    absent: bool | None = None
    code: RowCode = "bad_row"


def read_cases(path: str | os.PathLike[str]) -> list[CaseRow | RowError]:
    """Read a case list; every line gives a row or says why not, in file order (blank lines are skipped).

    Checked here: JSON, fields, that files exist, that ``case_id`` is unique. What is in the files (sizes, masks without
    a pixel) is checked by :func:`load_case`.

    Raises
    ------
    InputError
        If the file cannot be opened, is not UTF-8 text, or not one of its lines is a JSON object.
    """
    name = display_name(path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InputError(f"{name}: not UTF-8 text; a case list has one JSON object a line") from exc
    root = Path(path).parent
    rows: list[CaseRow | RowError] = []
    seen: dict[str, int] = {}
    num_objects = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        fields, problem = _parse_line(line)
        code: RowCode = "bad_row"
        case_id: str | None = None
        facts: dict[str, Any] = {}
        if fields is not None:
            num_objects += 1
            given = fields.get("case_id")
            case_id = one_line(given) if isinstance(given, str) else None
            facts = _facts(fields)
            row = _row(fields, root)
            if isinstance(row, CaseRow) and row.case_id in seen:
                problem = f"case_id '{case_id}' is already used in line {seen[row.case_id]}; give every case its own"
                code = "duplicate_id"
            elif isinstance(row, CaseRow):
                seen[row.case_id] = number
                row._place = (name, number)
                rows.append(row)
                continue
            else:
                code, problem = row
        rows.append(RowError(number, case_id, f"{name} line {number}: {problem}", **facts, code=code))
    if num_objects == 0:
        raise InputError(f"{name}: no case in it; a case list has one JSON object a line")
    return rows


def _parse_line(line: str) -> tuple[dict[str, Any] | None, str]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as exc:
        return None, f"not JSON ({one_line(exc, 80)}); write one JSON object a line"
    if not isinstance(fields, dict):
        return None, "not a JSON object; write one JSON object a line"
    return fields, ""


def _facts(fields: dict[str, Any]) -> dict[str, Any]:
    """What a bad row still says of its case."""
    texts = {name: fields.get(name) for name in ("group", "target", "modality", "split")}
    # one_line drops what no record could hold: half a surrogate pair, control characters
    found: dict[str, Any] = {name: one_line(text) or None for name, text in texts.items() if isinstance(text, str)}
    if "mask" in fields and fields["mask"] is None:
        found["absent"] = True
    return found


def _row(fields: dict[str, Any], root: Path) -> CaseRow | tuple[RowCode, str]:
    try:
        row = CaseRow.model_validate(fields)
    except (ValidationError, RecursionError) as exc:
        if isinstance(exc, ValidationError):
            first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            return "bad_row", one_line(f"field '{where}': {first['msg']}")
        return "bad_row", "nested too deeply; write a flat JSON object"
    if not row.target.strip():
        return "bad_row", "field 'target': it is blank; write the structure's name"
    for field in ("image", "mask", "initial_mask"):
        value = getattr(row, field)
        if value is None:
            continue
        try:
            found = (root / value).is_file()
        except (OSError, ValueError):
            found = False
        if not found:
            problem = f"{field} '{one_line(value)}' does not exist; paths are relative to the list's folder"
            return "missing_image" if field == "image" else "missing_mask", problem
    return row


def load_case(
    row: CaseRow, root: str | os.PathLike[str]
) -> tuple[Image, NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Read a row's files.

    Parameters
    ----------
    row
        From :func:`read_cases`.
    root
        Folder of the list.

    Returns
    -------
    image
        With the row's modality; its geometry has the row's ``spacing_mm`` unless the file itself knows it.
    target
        ``bool`` (H, W) target mask, never empty, or None if the target is absent. For scoring and the oracle only.
    initial
        ``bool`` (H, W) mask to start from, or None.

    Raises
    ------
    InputError
        If a file cannot be read, a mask has another size than the image, or the target's mask has no pixel.
    """
    folder = Path(root)
    image = read_image(folder / row.image, modality=row.modality, target=row.target)
    spacing = row.spacing_mm
    if spacing is not None and image.geometry.spacing_mm is None and all(math.isfinite(v) for v in spacing):
        geometry = dataclasses.replace(image.geometry, spacing_mm=spacing)
        image = dataclasses.replace(image, geometry=geometry)
    target = None if row.mask is None else read_mask(folder / row.mask, image)
    if target is not None and not target.any():
        raise InputError(f"mask '{one_line(row.mask)}' has no pixel; write null for a target that is absent")
    initial = None if row.initial_mask is None else read_mask(folder / row.initial_mask, image)
    return image, target, initial

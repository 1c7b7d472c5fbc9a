"""``.npz`` archives read member by member: shapes without data, one plane of a volume, pickles on a short leash."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.files import MAX_VOLUME_BYTES, check_pixels, display_name, one_line, open_binary, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NpzFile"]

_MAX_PROMPT_BYTES = 2**24

_NUMPY = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
}
"""Names that pickled arrays of plain values need (the last one makes bytes of text)."""


class _Leash(pickle.Unpickler):
    """Unpickles plain values and NumPy arrays, and refuses every other name, so that no code of the file runs."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _NUMPY:
            raise pickle.UnpicklingError(
                f"it names {module_name}.{global_name}, which is neither a plain value nor an array"
            )
        return super().find_class(module_name, global_name)


class NpzFile:
    """A ``.npz`` file. Opened anew for each call, so that nothing is held open and it can be pickled.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        If it is no such archive.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open_binary(path) as f, reading(path, "an NPZ file"), zipfile.ZipFile(f) as archive:
            self.names = frozenset(name[:-4] for name in archive.namelist() if name.endswith(".npy"))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, from its header.

        Raises
        ------
        InputError
            If there is no such array or its header is damaged.
        """
        return self._header(name)[0]

    def is_pickled(self, name: str) -> bool:
        """Whether an array holds Python objects.

        Raises
        ------
        InputError
            If there is no such array or its header is damaged.
        """
        return bool(self._header(name)[2].hasobject)

    def array(self, name: str) -> NDArray[Any]:
        """A whole array of plain values.

        Raises
        ------
        InputError
            If there is no such array, it is damaged, too large, or holds Python objects.
        """
        shape, _, dtype = self._header(name)
        self._check(name, shape, dtype)
        with self._member(name) as member:
            values: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        return values

    def plane(self, name: str, index: int | None) -> NDArray[Any]:
        """One slice of a volume, decompressing no more than what comes before it; the whole array if `index` is None.

        Returns
        -------
        NDArray
            (H, W) or (H, W, 3).

        Raises
        ------
        InputError
            As :meth:`array`, and if there is no such slice.
        """
        shape, fortran, dtype = self._header(name)
        self._check(name, shape, dtype)
        if index is None:
            values = self.array(name)
        elif len(shape) != 3 or not 0 <= index < shape[0]:
            raise InputError(f"{display_name(self.path)}: {name} has no slice {index}; its shape is {shape}")
        elif fortran:
            values = self.array(name)[index]
        else:
            size = shape[1] * shape[2] * dtype.itemsize
            with self._member(name) as member:
                _read_header(member)
                _skip(member, index * size)
                data = member.read(size)
                if len(data) != size:
                    raise ValueError("it ends too early")
            values = np.frombuffer(data, dtype).reshape(shape[1:])
        if values.dtype.kind not in "biuf":
            raise InputError(f"{display_name(self.path)}: {name} holds {values.dtype}, not numbers")
        height, width = values.shape[:2] if values.ndim >= 2 else (0, 0)
        check_pixels(self.path, width, height)
        values = np.ascontiguousarray(values)
        return values.astype(np.uint8) if values.dtype.kind == "b" else values

    def spacing_mm(self) -> tuple[float, float] | None:
        """(row, column) of ``spacing``, which SimpleITK writes as (x, y, z); None if there is no usable one."""
        if "spacing" not in self.names or self.is_pickled("spacing"):
            return None
        values = self.array("spacing").ravel()
        if values.size not in (2, 3) or values.dtype.kind not in "iuf":
            return None
        column, row = float(values[0]), float(values[1])
        return (row, column) if 0 < row < 1e4 and 0 < column < 1e4 else None

    def text_prompts(self) -> tuple[dict[int, str], bool]:
        """Label -> sentence, and whether the labels count objects of one kind.

        A table that is stored as JSON text is read as well as a pickled one.

        Raises
        ------
        InputError
            If it is no such table, or its pickle asks for anything but plain values and arrays.
        """
        where = display_name(self.path)
        if self.is_pickled("text_prompts"):
            with self._member("text_prompts") as member:
                _read_header(member)
                data = member.read(_MAX_PROMPT_BYTES)
                table = _Leash(io.BytesIO(data)).load()
        else:
            values = self.array("text_prompts")
            with reading(self.path, "an NPZ file with text prompts"):
                table = json.loads(str(values.item()))
        while isinstance(table, np.ndarray) and table.size == 1:
            table = table.item()
        if not isinstance(table, dict):
            raise InputError(f"{where}: text_prompts is no table of label -> sentence")
        united = str(table.get("instance_label", 0)) == "1"
        prompts: dict[int, str] = {}
        for key, text in table.items():
            if str(key) == "instance_label":
                continue
            if not str(key).isdecimal() or int(key) == 0 or not isinstance(text, str) or not text.strip():
                raise InputError(f"{where}: text_prompts has {one_line(key, 40)!r}, which is not label -> sentence")
            prompts[int(key)] = " ".join(text.split())
        return prompts, united

    def _header(self, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        if name not in self.names:
            raise InputError(f"{display_name(self.path)}: no array {name} in it")
        with self._member(name) as member:
            return _read_header(member)

    @contextlib.contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        with (
            open_binary(self.path) as f,
            reading(self.path, "an NPZ file"),
            zipfile.ZipFile(f) as archive,
            archive.open(f"{name}.npy") as member,
        ):
            yield member

    def _check(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if dtype.hasobject:
            raise InputError(f"{display_name(self.path)}: {name} holds Python objects, not numbers")
        size = dtype.itemsize
        for side in shape:  # Python's integers do not overflow, whatever a header claims
            size *= int(side)
        if size == 0 or size > MAX_VOLUME_BYTES:
            raise InputError(f"{display_name(self.path)}: {name} would have {size} bytes; give a smaller file")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    return tuple(int(side) for side in shape), bool(fortran), dtype


def _skip(member: IO[bytes], count: int) -> None:
    while count > 0:
        read = len(member.read(min(count, 2**20)))
        if read == 0:
            raise ValueError("it ends too early")
        count -= read

"""A TIFF with several pages as a volume: microscopy stacks, OME-TIFF, exported scans.

The index is (column, row, page). A TIFF does not say where in a patient it lies: an upright grid is assumed, so that
pages are shown as they are stored, and the volume's `has_world` is False. Spacings come from OME or ImageJ metadata,
where there are any. All is checked from the headers of the pages; pixels are decoded by Pillow, into buffers of the
size that was checked.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.grid import Grid
from ibisagent.io.files import display_name, muted_decoders, open_binary, reading
from ibisagent.io.lazy_voxels import LazyVoxels
from ibisagent.io.stored_array import check_volume_size
from ibisagent.io.tiff_metadata import StackFacts, stack_facts
from ibisagent.io.volume import Volume
from ibisagent.io.windows import canonical_modality

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_PAGES", "count_pages", "read_tiff_stack"]

MAX_PAGES = 10_000
"""Most pages of a stack: a long chain of empty pages must not keep us busy."""

_WHAT = "a TIFF stack"
_BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION, _ORIENTATION, _FORMAT = 258, 259, 262, 270, 274, 339
_UNCOMPRESSED = 1
# LZW, JPEG, deflate (two numbers) and PackBits: none of them can expand more than this
_BOUNDED = (5, 7, 8, 32946, 32773)
_MAX_RATIO = 3000
_GRAY_MODES = ("1", "L", "I;16", "I;16B", "I;16L", "I", "F")


def count_pages(path: str | os.PathLike[str]) -> int:
    """Count a TIFF's pages by the chain of their headers alone.

    Raises
    ------
    InputError
        If it cannot be opened, the chain is broken or runs in a circle, or it has more than :data:`MAX_PAGES` pages.
    """
    with open_binary(path) as f, reading(path, "a TIFF image"):
        head = f.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = struct.unpack_from(order + "H", head, 2)[0] == 43
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        count_format, entry_size, next_format = ("Q", 20, "Q") if big else ("H", 12, "I")
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise ValueError("its pages run in a circle")
            seen.add(offset)
            if len(seen) > MAX_PAGES:
                raise InputError(f"{display_name(path)}: more than {MAX_PAGES} pages in one TIFF; split it")
            f.seek(offset)
            (entries,) = struct.unpack(order + count_format, f.read(struct.calcsize(count_format)))
            f.seek(entries * entry_size, os.SEEK_CUR)
            (offset,) = struct.unpack(order + next_format, f.read(struct.calcsize(next_format)))
        return len(seen)


@dataclass(frozen=True)
class _Pages:
    """A checked stack: what :meth:`load` needs to decode it."""

    path: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    mode: str

    def load(self) -> NDArray[Any]:
        """All pages as one array (ni, nj, nk), in Fortran order."""
        out = np.empty(self.shape, self.dtype, order="F")
        with open_binary(self.path) as f, reading(self.path, _WHAT):
            img = _open(f)
            for k in range(self.shape[2]):
                img.seek(k)
                if img.mode != self.mode or img.size != self.shape[:2]:
                    raise ValueError("it changed while it was read")
                with muted_decoders():
                    img.load()
                values = np.asarray(img.convert("L") if self.mode == "1" else img)
                out[:, :, k] = values.astype(self.dtype, copy=False).T
        return out


def read_tiff_stack(path: str | os.PathLike[str], *, modality: str | None = None) -> Volume | None:
    """Read the headers of a TIFF's pages; its pixels follow on demand.

    Parameters
    ----------
    path
        TIFF or BigTIFF, classic, OME or ImageJ; gray, 1 to 32 bits or float.
    modality
        What the user says it is; TIFF does not say.

    Returns
    -------
    Volume or None
        None if it has one page only, or is one picture with smaller versions of it (a pyramid, a thumbnail).

    Raises
    ------
    InputError
        If it is damaged, has colours or channels or two axes of pages (time and depth), pages of different sizes, or is
        over the limits.
    """
    num_pages = count_pages(path)
    name = display_name(path)
    if num_pages < 2:
        if _is_headless_stack(path):
            raise InputError(f"{name}: an ImageJ stack whose slices have no headers; save it as OME-TIFF or NIfTI")
        return None
    with open_binary(path) as f, reading(path, _WHAT):
        file_size = os.fstat(f.fileno()).st_size
        img = _open(f)
        mode, size, tags = img.mode, img.size, dict(img.tag_v2)
        sizes = [size, *(_page(img, k, name, mode, size) for k in range(1, num_pages))]
        if len(set(sizes)) > 1:
            if sizes[1] != size and all(w <= size[0] and h <= size[1] for w, h in sizes):
                return None
            other = next(k for k, s in enumerate(sizes) if s != size)
            raise InputError(
                f"{name}: page {other + 1} is {sizes[other][0]} x {sizes[other][1]} pixels, but page 1 is "
                f"{size[0]} x {size[1]}; give a stack of pages of one size"
            )
        _check_kind(name, mode, tags)
        facts = stack_facts(str(tags.get(_DESCRIPTION) or ""), tags, num_pages, name)
        dtype = _dtype(mode, tags)
        shape = (size[0], size[1], num_pages)
        check_volume_size(path, shape, dtype)
        _check_claim(name, file_size, shape, tags)
        grid = _upright(shape, facts)
    return Volume(
        grid=grid,
        voxels=LazyVoxels(
            _Pages(os.fspath(path), shape, dtype, mode).load, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        ),
        source=os.fspath(path),
        kind="TIFF",
        modality=canonical_modality(modality),
        is_inverted=mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == 0,
        has_world=False,
        notes=facts.notes,
    )


def _is_headless_stack(path: str | os.PathLike[str]) -> bool:
    """Whether one page stands for several: ImageJ writes very large stacks so. Others would show the first slice."""
    with contextlib.suppress(InputError), open_binary(path) as f, reading(path, _WHAT):
        description = str(_open(f).tag_v2.get(_DESCRIPTION) or "")
        found = re.search(r"^images=0*([0-9]{1,9})\s*$", description, re.M)
        return description.startswith("ImageJ=") and found is not None and int(found[1]) > 1
    return False  # what is wrong with it will be said by the reader of pictures


def _open(f: Any) -> Any:
    import PIL.Image
    import PIL.TiffImagePlugin  # Pillow's lazy start-up leaves TIFF out

    try:
        return PIL.Image.open(f, formats=("TIFF",))
    except PIL.Image.DecompressionBombError:
        raise InputError(
            f"{display_name(f.name)}: the header claims too many pixels to decode; crop or downsample it"
        ) from None
    except PIL.UnidentifiedImageError:
        raise InputError(
            f"{display_name(f.name)}: damaged, or pixels of a type that is not read; "
            "save it with 8 or 16 bits, or 32-bit floats"
        ) from None


def _page(img: Any, k: int, name: str, mode: str, size: tuple[int, int]) -> tuple[int, int]:
    """Go to page `k` and give its (width, height)."""
    img.seek(k)
    if img.size == size and img.mode != mode:
        raise InputError(f"{name}: page {k + 1} has another type of pixels than page 1; save all pages alike")
    return int(img.width), int(img.height)


def _check_kind(name: str, mode: str, tags: dict[int, Any]) -> None:
    if mode not in _GRAY_MODES:
        raise InputError(f"{name}: a stack of colour pages; save it as gray, or give one page")
    if int(tags.get(_ORIENTATION) or 1) != 1:
        raise InputError(f"{name}: its pages are turned by an orientation tag; save them upright")


def _dtype(mode: str, tags: dict[int, Any]) -> np.dtype[Any]:
    """The type that holds what is stored; Pillow widens 16-bit numbers with a sign."""
    signed = int(tags.get(_FORMAT, (1,))[0]) == 2
    if mode in ("1", "L"):  # Pillow overlooks the sign; the bits are the same
        return np.dtype(np.int8 if signed else np.uint8)
    if mode.startswith("I;16"):
        return np.dtype(np.uint16)
    if mode == "F":
        return np.dtype(np.float32)
    if int(tags.get(_BITS, (1,))[0]) <= 16:
        return np.dtype(np.int16 if signed else np.uint16)
    return np.dtype(np.int32 if signed else np.uint32)


def _check_claim(name: str, file_size: int, shape: tuple[int, int, int], tags: dict[int, Any]) -> None:
    """Refuse a file that is too short for its pages, by the first page's way of packing."""
    bits = int(tags.get(_BITS, (1,))[0])
    needed = -(-shape[0] * bits // 8) * shape[1] * shape[2]
    compression = int(tags.get(_COMPRESSION) or _UNCOMPRESSED)
    if compression == _UNCOMPRESSED and needed > file_size:
        raise InputError(f"{name}: truncated: its pages need {needed} bytes of pixels; copy it again")
    if compression in _BOUNDED and needed > file_size * _MAX_RATIO:
        raise InputError(f"{name}: the header claims more pixels than its bytes can hold; check or re-export the file")


def _upright(shape: tuple[int, int, int], facts: StackFacts) -> Grid:
    """A grid on which axial views show pages as they are stored, the first page lowest."""
    affine = np.diag([-facts.spacing_mm[0], -facts.spacing_mm[1], facts.spacing_mm[2], 1.0])
    return Grid(shape, tuple(tuple(row) for row in affine.tolist()))

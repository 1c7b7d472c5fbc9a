"""Files as untrusted bytes: opening, sniffing, limits, one-line errors, atomic writes.

Everything that readers share lives here, so that each of them can stay a plain decoder: whatever a
damaged or hostile file makes a decoder raise leaves this package as one :class:`InputError`.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import re
import secrets
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ibisagent.errors import InputError

if TYPE_CHECKING:
    PathLike = str | os.PathLike[str]

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MAX_VOLUME_BYTES",
    "atomic_write",
    "check_pixels",
    "claim_file",
    "display_name",
    "lock_file",
    "muted_decoders",
    "one_line",
    "open_binary",
    "read_bytes",
    "reading",
    "sniff",
]

MAX_PIXELS = 2**26
"""Largest 2-D image (8192 x 8192): headers that claim more are refused before anything is allocated."""

MAX_FILE_BYTES = 2**30
"""Largest file that is read into memory whole (rasters and single DICOM files)."""

MAX_VOLUME_BYTES = 2**32
"""Largest volume by its header; bounds what a compression bomb costs."""

_SUPPORTED = "PNG, JPEG, TIFF, DICOM, NIfTI, NRRD or MetaImage"

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"NRRD000", "NRRD"),
)
# lines "Key = Value"; the number of axes stands before all that depends on it
_METAIMAGE = re.compile(
    rb"(?:(?:ObjectType|ObjectSubType|Comment|TransformType|Name|ID|ParentID)\s*=[^\n]*\n)*NDims\s*="
)
_UNSUPPORTED_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"RIFF", "a WebP image or another RIFF file"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
)


def one_line(text: object, limit: int = 200) -> str:
    """Squeeze any text into one printable line of at most `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def display_name(path: PathLike) -> str:
    """Path as it appears in messages: one printable line, kept whole unless absurdly long."""
    return one_line(os.fspath(path), limit=1000) or "''"


@contextlib.contextmanager
def reading(path: PathLike, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises on `path` into one :class:`InputError`, and keep it quiet.

    Decoders of untrusted bytes raise almost anything (``struct.error``, ``RecursionError``,
    ``SyntaxError`` …), so the net is wide on purpose; :class:`InputError` passes unchanged.

    Parameters
    ----------
    path
        File named in the message.
    what
        What it was taken for, for example ``"a PNG image"``.
    """
    logs = [logging.getLogger(name) for name in _DECODER_LOGS]
    were_disabled = [log.disabled for log in logs]
    for log in logs:
        log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except MemoryError as exc:
        raise InputError(f"{display_name(path)}: {what} that does not fit in memory; give a smaller one") from exc
    except Exception as exc:
        # Pillow names the buffer by its address, which differs from run to run.
        # What is wrong with an element of a DICOM header quotes it, and it may be a patient's.
        detail = ("" if "DICOM" in what else one_line(_ADDRESS.sub("", str(exc)))) or type(exc).__name__
        raise InputError(
            f"{display_name(path)}: damaged or not {what} ({detail}); check the file or export it again"
        ) from exc
    finally:
        for log, was_disabled in zip(logs, were_disabled, strict=True):
            log.disabled = was_disabled


_DECODER_LOGS = ("pydicom", "PIL.TiffImagePlugin")
_ADDRESS = re.compile(r" ?<[^<>]* at 0x[0-9a-fA-F]+>")
_MUTED = threading.Lock()


@contextlib.contextmanager
def muted_decoders() -> Iterator[None]:
    """Keep C libraries from writing to file descriptor 2 (libtiff prints a line for every damaged strip).

    The descriptor belongs to the whole process, so this is for short decoding calls only; a lock keeps two
    threads from restoring each other's silence.
    """
    with _MUTED, contextlib.ExitStack() as undo:
        with contextlib.suppress(OSError):  # without a stderr there is nothing to mute
            saved = os.dup(2)
            undo.callback(os.close, saved)
            sink = os.open(os.devnull, os.O_WRONLY)
            undo.callback(os.close, sink)
            os.dup2(sink, 2)
            undo.callback(os.dup2, saved, 2)
        yield


def open_binary(path: PathLike) -> IO[bytes]:
    """Open a regular file for reading.

    Raises
    ------
    InputError
        If it is missing, a directory, a device or pipe, empty, or may not be read.
    """
    name = display_name(path)
    try:
        mode = os.stat(path).st_mode  # before open(): opening a pipe would wait for ever
        if stat.S_ISDIR(mode):
            raise InputError(f"{name}: is a directory; give one file in it")
        if not stat.S_ISREG(mode):
            raise InputError(f"{name}: is not a regular file; save the data to a file first")
        handle = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except FileNotFoundError as exc:
        raise InputError(f"{name}: no such file; check the path") from exc
    except PermissionError as exc:
        raise InputError(f"{name}: permission denied; make the file readable") from exc
    except (OSError, ValueError) as exc:
        raise InputError(f"{name}: cannot be opened ({one_line(exc)}); check the path") from exc
    if os.fstat(handle.fileno()).st_size == 0:
        handle.close()
        raise InputError(f"{name}: the file is empty; check where it came from")
    return handle


def read_bytes(path: PathLike) -> bytes:
    """Read a whole file of at most :data:`MAX_FILE_BYTES`.

    Raises
    ------
    InputError
        As :func:`open_binary`, and if the file is larger or cannot be read.
    """
    with open_binary(path) as f, reading(path, "a readable file"):
        size = os.fstat(f.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise InputError(
                f"{display_name(path)}: {size / 2**30:.1f} GiB, over the limit of {MAX_FILE_BYTES / 2**30:g} GiB; "
                "give a smaller file"
            )
        return f.read(size)  # reading "up to the limit" would allocate the limit


def check_pixels(path: PathLike, width: int, height: int) -> None:
    """Refuse a size before anything of that size is allocated.

    Raises
    ------
    InputError
        If there is no pixel, or more than :data:`MAX_PIXELS`.
    """
    if width < 1 or height < 1:
        raise InputError(f"{display_name(path)}: the header says {width} x {height} pixels; export it again")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{display_name(path)}: the header says {width} x {height} pixels, over the limit of {MAX_PIXELS}; "
            "crop or downsample it"
        )


def sniff(path: PathLike) -> str:
    """Say what a file is from its first bytes; its name is not trusted.

    Returns
    -------
    str
        ``"PNG"``, ``"JPEG"``, ``"TIFF"``, ``"DICOM"``, ``"NIfTI"`` (plain or gzipped), ``"NRRD"`` or ``"MetaImage"``.

    Raises
    ------
    InputError
        If it cannot be opened or is none of these.
    """
    with open_binary(path) as f:
        with reading(path, "a readable file"):
            head = f.read(1024)
        gzipped = head[:2] == b"\x1f\x8b"
        if gzipped:
            with reading(path, "a gzip file"):
                f.seek(0)
                head = gzip.GzipFile(fileobj=f, mode="rb").read(1024)
    kind = _kind(head)
    name = display_name(path)
    if gzipped and kind != "NIfTI":
        raise InputError(f"{name}: a gzip file without a NIfTI volume inside; unpack it (gunzip) first")
    if kind is not None:
        return kind
    for magic, label in _UNSUPPORTED_MAGIC:
        if head.startswith(magic):
            raise InputError(f"{name}: {label}, which is not supported; convert it to {_SUPPORTED}")
    raise InputError(f"{name}: not a {_SUPPORTED} file by its content; check the file or convert it")


def _kind(head: bytes) -> str | None:
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[344:348] in (b"n+1\x00", b"ni1\x00") or head[4:8] in (b"n+2\x00", b"ni2\x00"):
        return "NIfTI"
    if _METAIMAGE.match(head):
        return "MetaImage"
    # old DICOM files lack the preamble and start with an element of group 2 or 8 (little-endian)
    if head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\x00" and len(head) > 16:
        return "DICOM"
    return None


@contextlib.contextmanager
def atomic_write(path: PathLike) -> Iterator[IO[bytes]]:
    """Write a file so that it appears whole or not at all (temporary name in its folder, then rename).

    Raises
    ------
    InputError
        If the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        # os.open rather than tempfile: the result has the permissions the user's umask asks for
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(fd, "wb") as f:
                yield f
            os.replace(part, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except OSError as exc:
        raise InputError(
            f"{display_name(path)}: cannot be written ({one_line(exc.strerror or exc)}); choose a writable folder"
        ) from exc


def lock_file(descriptor: int) -> None:
    """Wait until no other process holds an open file, and hold it until it is closed.

    Where the system has no ``flock`` (Windows) nothing is held: appending one short line is one write even so, but what
    is read before it may have changed.
    """
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def claim_file(descriptor: int, what: PathLike) -> None:
    """Hold an open file until it is closed, or say that another process does; without ``flock`` nothing is held.

    Parameters
    ----------
    descriptor
        The file.
    what
        What the other process is said to be writing.

    Raises
    ------
    InputError
        If another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another process is writing {what}; wait for it, or choose another --out") from None
    except OSError:
        return  # a file system without locks

"""Output folders: checked before the work, filled all at once after it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ibisagent.errors import InputError

__all__ = ["check_out", "fill_folder", "hold_folder"]


def check_out(out: Path) -> None:
    """Check, without writing, that a folder can be made or written at `out`.

    Raises
    ------
    InputError
        If a file is in the way or there is no permission.
    """
    try:
        place = out
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise InputError(f"--out {out}: {place} is not a folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise InputError(f"--out {out}: no permission to write in {place}")
    except (OSError, ValueError) as error:
        raise InputError(f"--out {out}: {getattr(error, 'strerror', None) or error}") from None


_SCRATCH = ".ibisagent-"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.ENAMETOOLONG)


@contextlib.contextmanager
def fill_folder(out: Path, owned: Iterable[str]) -> Iterator[Path]:
    """Give a scratch folder, and move what it holds into `out` at the end: everything or nothing.

    Parameters
    ----------
    out
        Created if need be; other files in it stay.
    owned
        Names that this command writes. Those of an earlier run that this one does not write are removed, so
        that no old mask is taken for the new run's.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    made = [place for place in (out, *out.parents) if not place.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=out))
        hold = _hold(scratch)
    except OSError as error:
        _remove_empty(made)
        raise InputError(f"--out {out}: {error.strerror or error}") from None
    try:
        yield scratch
        names = sorted(path.name for path in scratch.iterdir())
        for name in owned:
            if name not in names:
                _remove(out / name)
        for name in names:
            if (out / name).is_dir():
                _remove(out / name)
            os.replace(scratch / name, out / name)
    except OSError as error:
        if error.errno not in _DISK:
            raise  # not the folder's fault
        raise InputError(f"--out {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if hold is not None:
            os.close(hold)
        _remove_empty(made)


def _hold(scratch: Path) -> int | None:
    """A descriptor that is locked for as long as this process lives, or None where there are no locks."""
    descriptor = None
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        descriptor = os.open(scratch, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _sweep(out: Path) -> None:
    """Remove scratch folders of processes that were killed: half a result, and perhaps whose it is, may be in them."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        for left in [path for path in out.iterdir() if path.name.startswith(_SCRATCH) and not path.is_symlink()]:
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            except BlockingIOError:
                continue  # somebody's at work
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Make a folder for what a long run keeps while it goes on; if nothing came into it, it goes again.

    Raises
    ------
    InputError
        If it cannot be made.
    """
    made = [place for place in (out, *out.parents) if not place.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise InputError(f"--out {out}: {error.strerror or error}") from None
    finally:
        _remove_empty(made)


def _remove_empty(places: Iterable[Path]) -> None:
    """Remove folders into which nothing came, deepest first."""
    with contextlib.suppress(OSError):
        for place in places:
            place.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

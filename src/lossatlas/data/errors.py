"""The one exception of this package, and what its messages share."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class DataError(ValueError):
    """Bad input to a data set: one line that says what was expected, what came, what to do.

    Attributes:
        names: every file or entry that the message shortens, or () where it names all itself.
    """

    def __init__(self, message: str, names: Iterable[str] = ()) -> None:
        # A file name may hold a line break; a message stays one line.
        super().__init__(message.replace("\r", "\\r").replace("\n", "\\n"))
        self.names = tuple(names)


def shorten(names: Iterable[object], limit: int = 3) -> str:
    """Join the first few names and say how many more there are.

    >>> shorten(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    items = [str(name) for name in names]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def unwritable(part: str, folder: Path, error: OSError, elsewhere: str) -> DataError:
    """The error of a folder that cannot be written to: why, and what to do.

    >>> full = OSError(errno.ENOSPC, "No space left on device")
    >>> str(unwritable("cache", Path("data"), full, "or name another folder"))
    'cache: expected to write to data, but the disk is full; free some space, or name another folder'
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason, remedy = "the disk is full", "free some space"
    elif (
        error.errno is None
    ):  # so NumPy and Pillow tell of a write that fell short, and of other failures
        reason = f"the disk is full, or the write failed otherwise ({error})"
        remedy = "free some space"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason, remedy = "it is not writable", "make it writable"
    elif error.errno == errno.ENOTDIR:
        reason, remedy = "it is a file", "remove it"
    else:
        reason, remedy = str(error), "check the folder"
    return DataError(f"{part}: expected to write to {folder}, but {reason}; {remedy}, {elsewhere}")


def require_writable(part: str, folder: str | Path, elsewhere: str) -> None:
    """Refuse a folder that cannot be written to, before any work is done for it.

    A folder that is not there yet is judged by the nearest one above it that is.

    Args:
        part: what asks, as the message begins.
        folder: where it will write.
        elsewhere: how to name another folder, as the message ends.

    Raises:
        DataError: the folder cannot be written to, or is a file.
    """
    above = Path(folder)
    try:
        while not above.exists() and above != above.parent:
            above = above.parent
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=above, buffering=0) as file:
            file.write(bytes(4096))  # a full disk still takes an empty file
    except OSError as error:
        raise unwritable(part, above, error, elsewhere) from None


@contextmanager
def writing(part: str, folder: str | Path, elsewhere: str) -> Iterator[None]:
    """Say in one line of ours why a block could not write: a disk may fill up after :func:`require_writable`.

    Args:
        part, folder, elsewhere: as there.

    Raises:
        DataError: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(part, Path(folder), error, elsewhere) from None


@contextmanager
def room_for(part: str, folder: str | Path, elsewhere: str) -> Iterator[None]:
    """As :func:`writing`, around a block that also reads: only what a disk refuses is said so.

    Raises:
        DataError: the disk is full or has become read-only; other errors pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise unwritable(part, Path(folder), error, elsewhere) from None

"""What every room may use, with Python's own library alone: near names, and files that are whole or absent."""

from __future__ import annotations

import difflib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def near_matches(name: object, known: Iterable[str]) -> str:
    """Return a clause that names the nearest of ``known``, or lists them all.

    >>> near_matches("camvod", ["camvid", "digits"])
    'did you mean camvid?'
    >>> near_matches("x", ["camvid", "digits"])
    'known: camvid, digits'
    """
    options = list(known)
    near = difflib.get_close_matches(str(name), options, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(options)}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write a file under, which becomes ``path`` at the end of the block.

    Where the block fails, ``path`` is what it was and nothing is left behind. The name is the block's own, so
    that two processes may write the same file.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

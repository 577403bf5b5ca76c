"""What every room may use, with Python's own library alone: near names, files that are whole or absent, threads."""

from __future__ import annotations

import difflib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


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


def in_threads(work: Callable[[Item], None], items: Sequence[Item], workers: int) -> None:
    """Do ``work`` for each item; after one that raises, no further one is begun."""
    workers = min(workers, len(items))
    if workers <= 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in pool.map(work, items):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise

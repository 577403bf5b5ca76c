"""Decoded arrays on disk: written whole or not at all, read as a memory map.

An entry is a folder ``<cache>/arrays/<key>`` with ``images.npy``, ``labels.npy`` and ``meta.json``.
It is filled under a temporary name beside it and renamed when complete, so that a reader never
meets half an entry, whoever is killed; of several processes that make the same entry at once the
first rename wins and the others drop theirs. ``key`` hashes the content of the source files and
every parameter that shapes the arrays, so that no entry ever needs to be invalidated.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lossatlas.data import paths
from lossatlas.data.errors import writing

UInt8Array = npt.NDArray[np.uint8]

FORMAT = 1
"""Part of every key: raise it when the meaning of the cached arrays changes."""

STALE_AFTER_S = 24 * 3600
"""Age beyond which a temporary folder is taken to be left by a killed process."""

_ELSEWHERE = (
    "point LOSSATLAS_CACHE to another folder, or pass cache=False to keep the arrays in memory"
)


def cache_key(description: dict[str, Any]) -> str:
    """Hex key of a JSON-able description of an entry."""
    text = json.dumps({"format": FORMAT, **description}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def content_checksum(images: UInt8Array, labels: UInt8Array) -> str:
    """Hex SHA-256 over shape and bytes of both arrays, read in blocks of images."""
    digest = hashlib.sha256()
    for array in (images, labels):
        digest.update(repr((array.shape, str(array.dtype))).encode("ascii"))
        for start in range(0, len(array), 64):
            digest.update(np.ascontiguousarray(array[start : start + 64]).data)
    return digest.hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind."""
    limit = time.time() - STALE_AFTER_S
    for stale in folder.glob(".making-*"):
        with contextlib.suppress(OSError):
            if stale.stat().st_mtime < limit:
                shutil.rmtree(stale, ignore_errors=True)


class Entry:
    """A finished cache entry: two memory maps and what is known of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.checksum: str = meta["checksum"]
        self.images: UInt8Array = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        self.labels: UInt8Array = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)
        shapes = [list(self.images.shape), list(self.labels.shape)]
        if shapes != meta["shapes"]:
            raise ValueError(f"expected shapes {meta['shapes']}, got {shapes}")


def find(key: str) -> Entry | None:
    """Return the entry of that key, or None; a damaged entry is removed and None returned."""
    folder = paths.cache_dir() / "arrays" / key
    if not folder.is_dir():
        return None
    try:
        return Entry(folder)
    except (OSError, ValueError, KeyError, EOFError, TypeError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def make(
    key: str,
    image_shape: tuple[int, ...],
    label_shape: tuple[int, ...],
    fill: Callable[[UInt8Array, UInt8Array], None],
    description: dict[str, Any],
) -> Entry:
    """Make an entry: ``fill(images, labels)`` writes into two memory maps of the given shapes.

    Memory stays bounded by what ``fill`` holds at a time. Whatever goes wrong, the temporary folder
    is removed and no entry appears.

    Raises:
        DataError: the cache folder is read-only or the disk is full.
    """
    parent = paths.cache_dir() / "arrays"
    with writing("cache", parent, _ELSEWHERE):
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".making-{key[:8]}-", dir=parent))
    try:
        with writing("cache", parent, _ELSEWHERE):
            images = _reserved(temporary / "images.npy", image_shape)
            labels = _reserved(temporary / "labels.npy", label_shape)
        fill(images, labels)
        with writing("cache", parent, _ELSEWHERE):
            images.flush()
            labels.flush()
            meta = {
                "checksum": content_checksum(images, labels),
                "shapes": [list(image_shape), list(label_shape)],
                "description": description,
            }
            (temporary / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
            del images, labels
            final = parent / key
            try:
                os.rename(temporary, final)
            except OSError as error:
                # Another process finished the same entry first: use that one.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not final.is_dir():
                    raise
        return Entry(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _reserved(file: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new map whose blocks are claimed now: a sparse one on a full disk would end the process with SIGBUS."""
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    return array

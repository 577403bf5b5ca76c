"""SHA-256 verification against the committed registry, remembered between loads.

``data/registry/NAME.sha256`` holds lines ``<hex digest>  <path>``, the format of ``sha256sum``;
further files ``NAME.*.sha256`` add the digests of re-encoded copies (the mirror's WebP). A file is
hashed once: its digest is remembered in the cache folder under its path, size and modification
time, so that a later load only asks the file system. Whoever edits a file without changing its
size and time in nanoseconds is not caught: ``recheck=True`` hashes everything again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lossatlas.data import paths
from lossatlas.data.cache import write_atomically
from lossatlas.data.errors import DataError, shorten

_BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def parse_sums(text: str, source: str) -> dict[str, str]:
    """Parse the lines of a ``sha256sum`` file into {path: digest}; ``#`` starts a comment."""
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or set(digest) - set("0123456789abcdef"):
            raise DataError(
                f"{source}, line {number}: expected '<64 hex digits>  <path>', got {line[:60]!r}; "
                "restore the file from version control"
            )
        sums[name] = digest
    return sums


def registered(name: str) -> dict[str, str]:
    """All digests that the registry holds for a data set, {path: digest}."""
    folder = paths.registry_dir()
    sums: dict[str, str] = {}
    for file in [folder / f"{name}.sha256", *sorted(folder.glob(f"{name}.*.sha256"))]:
        if not file.is_file():
            raise DataError(
                f"{name}: expected its checksums in {file}, found none; restore data/registry "
                "from version control, or pass verify=False"
            )
        sums.update(parse_sums(file.read_text(encoding="utf-8"), file.name))
    return sums


def _stamp_file(name: str, root: Path) -> Path:
    tag = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return paths.cache_dir() / "stamps" / f"{name}-{tag}.json"


def _read_stamps(file: Path) -> dict[str, list[object]]:
    try:
        stamps = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # absent or damaged: hash again
    return stamps if isinstance(stamps, dict) else {}


def digests(
    name: str, root: Path, files: Sequence[str], *, recheck: bool = False
) -> dict[str, str]:
    """Digest of each of ``files`` (paths relative to ``root``), hashed once and remembered.

    The stamps are written whole or not at all; where the cache folder cannot be written the files
    are simply hashed each time.
    """
    stamp_file = _stamp_file(name, root)
    stamps = {} if recheck else _read_stamps(stamp_file)
    result: dict[str, str] = {}
    changed = False
    for key in files:
        status = (root / key).stat()
        stamp = stamps.get(key)
        known = isinstance(stamp, list) and stamp[:2] == [status.st_size, status.st_mtime_ns]
        if isinstance(stamp, list) and known:
            result[key] = str(stamp[2])
            continue
        result[key] = sha256_of(root / key)
        stamps[key] = [status.st_size, status.st_mtime_ns, result[key]]
        changed = True
    if changed:
        try:
            text = json.dumps(stamps, separators=(",", ":"))
            write_atomically(stamp_file, text.encode("utf-8"))
        except OSError:
            pass
    return result


def verify(
    name: str,
    root: Path,
    files: Sequence[str],
    expected: Mapping[str, str],
    *,
    recheck: bool = False,
) -> dict[str, str]:
    """Check ``files`` (relative to ``root``) against ``expected`` and return their digests.

    Raises:
        DataError: a file whose digest differs or that the registry does not know.
    """
    unknown = [key for key in files if key not in expected]
    if unknown:
        raise DataError(
            f"{name}: expected only files that the registry lists, got {shorten(unknown)} under "
            f"{root}; remove them, or pass verify=False to use a set of your own"
        )
    found = digests(name, root, files, recheck=recheck)
    wrong = [key for key in files if found[key] != expected[key]]
    if wrong:
        key = wrong[0]
        more = f" ({len(wrong)} files differ)" if len(wrong) > 1 else ""
        raise DataError(
            f"{name}: wrong checksum of {root / key}{more}: expected SHA-256 "
            f"{expected[key][:12]}…, got {found[key][:12]}…; fetch the file again, it is damaged "
            "or another version"
        )
    return found

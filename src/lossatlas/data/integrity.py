"""SHA-256 verification against the committed registry, remembered between loads.

``data/registry/NAME.sha256`` holds lines ``<hex digest>  <path>``, the format of ``sha256sum``;
further files ``NAME.*.sha256`` add the digests of re-encoded copies (the mirror's WebP). A file is
hashed once: its digest is remembered in the cache folder under its path, size, times and inode, so
that a later load only asks the file system. The time of the last change (ctime) and the inode tell
another file of the same size and modification time; ``recheck=True`` hashes everything again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lossatlas.basics import replacing
from lossatlas.data import paths
from lossatlas.data.errors import DataError, shorten


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parse_sums(text: str, source: str) -> dict[str, set[str]]:
    """Parse the lines of a ``sha256sum`` file into {path: digests}; ``#`` starts a comment."""
    sums: dict[str, set[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or set(digest) - set("0123456789abcdef"):
            raise DataError(
                f"{source}, line {number}: expected '<64 hex digits>  <path>', got {line[:60]!r}; "
                "restore the file"
            )
        sums.setdefault(name, set()).add(digest)
    return sums


def registered(name: str) -> dict[str, set[str]]:
    """All digests that the registry holds for a data set, {path: digests}."""
    folder = paths.registry_dir()
    sums: dict[str, set[str]] = {}
    for file in [folder / f"{name}.sha256", *sorted(folder.glob(f"{name}.*.sha256"))]:
        if not file.is_file():
            raise DataError(
                f"{name}: expected its checksums in {file}, found none; restore data/registry "
                "from version control, or pass verify=False"
            )
        for path, digests_ in parse_sums(file.read_text(encoding="utf-8"), file.name).items():
            sums.setdefault(path, set()).update(digests_)
    return sums


MANIFEST = ".lossatlas.sha256"
"""What an extraction leaves beside the files of an archive whose checksum was right."""


def manifest(base: Path) -> dict[str, set[str]]:
    """Digests of the files as they came out of a verified archive; {} where there was none."""
    file = base / MANIFEST
    if not file.is_file():
        return {}
    return parse_sums(file.read_text(encoding="utf-8"), str(file))


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
    tag = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    stamp_file = paths.cache_dir() / "stamps" / f"{name}-{tag}.json"
    stamps = {} if recheck else _read_stamps(stamp_file)
    result: dict[str, str] = {}
    changed = False
    for key in files:
        status = (root / key).stat()
        now = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        stamp = stamps.get(key)
        if isinstance(stamp, list) and stamp[:-1] == now:
            result[key] = str(stamp[-1])
            continue
        result[key] = sha256_of(root / key)
        stamps[key] = [*now, result[key]]
        changed = True
    if changed:
        with contextlib.suppress(OSError):
            stamp_file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(stamp_file) as temporary:
                temporary.write_text(json.dumps(stamps, separators=(",", ":")), encoding="utf-8")
    return result


def verify(
    name: str,
    root: Path,
    files: Sequence[str],
    expected: Mapping[str, Collection[str]],
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
    found = digests(name, root, files)
    wrong = [key for key in files if found[key] not in expected[key]]
    if wrong:
        key = wrong[0]
        more = f" ({len(wrong)} files differ)" if len(wrong) > 1 else ""
        known = " or ".join(f"{digest[:12]}…" for digest in sorted(expected[key]))
        raise DataError(
            f"{name}: wrong checksum of {root / key}{more}: expected SHA-256 {known}, got "
            f"{found[key][:12]}…; fetch the file again, it is damaged or another version"
        )
    return found

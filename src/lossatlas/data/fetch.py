"""Download a data set from its source or from a mirror: verified, whole or not at all.

The address, the checksum and the size of each archive are in ``data/registry/sources.json``. An
archive goes to a temporary folder beside its destination, is compared with its SHA-256 (or, where
an archive's bytes are not stable, every file in it with the registry's), is unpacked there and
renamed to ``data/raw/NAME`` when all of it is right. An archive is data: only regular files are
taken from it, none with a path that leaves the folder, and nothing of it is ever executed.

``LOSSATLAS_MIRROR`` may be an http(s) address of a folder with ``NAME/SHA256SUMS`` and the files
that it lists. ``LOSSATLAS_DOWNLOAD=0`` forbids downloads on first use.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import logging
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lossatlas.basics import in_threads
from lossatlas.data import integrity, paths
from lossatlas.data.errors import DataError, shorten, unwritable, writing

if TYPE_CHECKING:
    from lossatlas.data.files import FileDataset

ATTEMPTS = 3
"""Downloads of one file before giving up."""

TIMEOUT_S = 30.0
"""Seconds without a byte after which a connection counts as stalled."""

PAUSE_S = 1.0
"""Pause before the second attempt; doubled before each further one."""

_ELSEWHERE = "or point LOSSATLAS_DATA to another folder"


@dataclass(frozen=True)
class Archive:
    """One archive of the registry.

    ``sha256`` is None where the server packs the archive at each request and its bytes may change; then each
    file is compared. ``strip`` is the leading folder to leave out, ``keep`` what to take.
    """

    url: str
    sha256: str | None
    bytes: int
    unpacked_bytes: int
    strip: str
    keep: tuple[str, ...]


def archives() -> dict[str, Archive]:
    """Archives by data set.

    Raises:
        DataError: the registry's file is missing or damaged.
    """
    file = paths.registry_dir() / "sources.json"
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {
            name: Archive(**{**entry, "keep": tuple(entry["keep"])})
            for name, entry in entries.items()
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"expected the addresses of the data sets in {file}, got {error!r}; restore "
            "data/registry from version control"
        ) from None


def fetchable(name: str) -> bool:
    """Whether a data set has an address to download it from."""
    return name in archives()


def automatic(name: str) -> bool:
    """Whether a first use may download the data set."""
    return os.environ.get("LOSSATLAS_DOWNLOAD", "1") != "0" and fetchable(name)


# -- one file ----------------------------------------------------------------------------------


def download(
    url: str,
    destination: Path,
    sha256: str | None = None,
    *,
    quiet: bool = False,
) -> None:
    """Download ``url`` to ``destination``; an attempt that fails leaves nothing and is repeated.

    Raises:
        DataError: no answer, an error status, a stalled or cut connection, a wrong checksum, a full
            disk; after the last attempt.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    show = not quiet and sys.stderr.isatty()
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        downloader = pooch.HTTPDownloader(
            progressbar=show, chunk_size=1 << 16, timeout=(TIMEOUT_S, TIMEOUT_S)
        )
        try:
            pooch.retrieve(
                url,
                known_hash=f"sha256:{sha256}" if sha256 else None,
                fname=destination.name,
                path=destination.parent,
                downloader=downloader,
            )
            return
        except requests.exceptions.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            problem = f"the server answered {status}"
            if 400 <= status < 500 and status not in (408, 429):
                break  # asking again changes nothing
        except requests.exceptions.Timeout:
            problem = f"no byte came for {TIMEOUT_S:g} s"
        except requests.exceptions.ChunkedEncodingError:
            problem = "the connection broke before the end"
        except requests.exceptions.RequestException as error:
            # A connection that stalls within the body is a ConnectionError around the timeout.
            stalled = "timed out" in str(error).lower()
            problem = (
                f"no byte came for {TIMEOUT_S:g} s"
                if stalled
                else f"no connection ({type(error).__name__})"
            )
        except ValueError:
            problem = f"the checksum is not {(sha256 or '')[:12]}…: truncated, damaged or replaced"
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise unwritable("download", destination.parent, error, _ELSEWHERE) from None
            problem = str(error)
        finally:
            _sweep_partial(destination.parent)
    raise DataError(
        f"download: expected {url}, but {problem} ({attempt + 1} of {ATTEMPTS} attempts); try "
        "again later, or set LOSSATLAS_MIRROR to a folder or address that has the data"
    )


def _sweep_partial(folder: Path) -> None:
    """Remove the temporary file of an attempt that was cut off."""
    for rest in folder.glob("tmp*"):
        if rest.is_file():
            with contextlib.suppress(OSError):
                rest.unlink()


def check_space(folder: Path, wanted: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        DataError: fewer than ``wanted`` bytes are free.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < wanted:
        raise DataError(
            f"download: expected {wanted / 1e6:.0f} MB free in {folder}, got {free / 1e6:.0f} MB; "
            "free some space or point LOSSATLAS_DATA to another disk"
        )


# -- unpacking ---------------------------------------------------------------------------------


def _safe_parts(name: str, archive: Path) -> PurePosixPath:
    """The relative path of a member; DataError where it would leave the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise DataError(
            f"{archive.name}: expected members inside the archive's folder, got {name!r}; this is "
            "no archive of the data set, nothing was unpacked"
        )
    return path


#: What the readers of archives raise at damaged bytes.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(ValueError, RuntimeError, LookupError),
)


def _members(archive: Path) -> Iterator[tuple[str, bool, Callable[[], Any]]]:
    """(name, whether it is a regular file, opener) of each member that is no folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                    yield info.filename, regular, partial(packed.open, info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isdir():
                yield member.name, member.isreg(), partial(tar.extractfile, member)


def unpack(
    archive: Path, folder: Path, *, strip: str = "", keep: tuple[str, ...] = (), limit: int
) -> list[str]:
    """Unpack the wanted regular files of a zip or tar archive and return their paths.

    Every name is looked at before the first byte is written. ``limit`` bounds the bytes written.

    Raises:
        DataError: a member that leaves the folder, a link, more bytes than ``limit``, a damaged
            archive.
    """
    written: list[str] = []
    total = 0
    try:
        for name, regular, _ in _members(archive):
            if not regular:
                raise DataError(
                    f"{archive.name}: expected regular files, got the link or device {name!r}; "
                    "nothing was unpacked"
                )
            _safe_parts(name, archive)
        for name, _, opener in _members(archive):
            path = str(_safe_parts(name, archive))
            if not path.startswith(strip):
                continue
            path = path.removeprefix(strip)
            if keep and not path.startswith(keep):
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with opener() as source, target.open("wb") as sink:
                while block := source.read(1 << 20):
                    total += len(block)
                    if total > limit:
                        raise DataError(
                            f"{archive.name}: expected at most {limit / 1e6:.0f} MB unpacked, got "
                            "more; this is no archive of the data set"
                        )
                    sink.write(block)
            written.append(path)
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(
            f"{archive.name}: expected a whole zip or tar archive, got {error}; fetch it again"
        ) from None
    except OSError as error:
        raise unwritable("download", folder, error, _ELSEWHERE) from None
    if not written:
        raise DataError(
            f"{archive.name}: expected files under {strip or 'its root'}, got none; the source has "
            "changed"
        )
    return written


# -- a data set --------------------------------------------------------------------------------


def get(
    target: FileDataset,
    *,
    force: bool = False,
) -> Path:
    """Bring a data set to ``data/raw/NAME`` and return the folder that holds it.

    A set that is at hand already (there or in a mirror folder) is not fetched unless ``force``.
    Several processes may ask at once: one fetches, the others wait.

    Raises:
        DataError: the set cannot be fetched; nothing is left half-made.
    """
    from filelock import FileLock

    found = target.find()
    if found is not None and not force:
        return found
    address = paths.mirror_address()
    archive = archives().get(target.name)
    if archive is None:
        raise DataError(
            f"{target.name}: expected its address in {paths.registry_dir() / 'sources.json'}, found "
            f"none; add it, or unpack {target.source} into {paths.raw_dir() / target.name}"
        )
    raw = paths.raw_dir()
    check_space(raw, archive.bytes + archive.unpacked_bytes)
    with writing("download", raw, _ELSEWHERE):
        raw.mkdir(parents=True, exist_ok=True)
        with FileLock(raw / f".{target.name}.lock"):
            found = target.find()
            if found is not None and not force:
                return found
            _show_licence(target)
            temporary = Path(tempfile.mkdtemp(prefix=f".getting-{target.name}-", dir=raw))
            try:
                if address is not None:
                    folder = _from_mirror(target, address, temporary)
                else:
                    folder = _from_archive(target, archive, temporary)
                _replace(folder, raw / target.name)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    base = target.base_in(raw / target.name)
    if base is None:
        raise DataError(f"{target.name}: expected the data in {raw / target.name}; fetch it again")
    print(f"{target.name}: {base}", file=sys.stderr)
    return base


def _show_licence(target: FileDataset) -> None:
    """Say the licence and what to cite, once on this machine."""
    stamp = paths.cache_dir() / "licences" / target.name
    if stamp.exists():
        return
    said = f"{target.title}: licence {target.licence}.\nPlease cite: {target.citation}."
    print(said, file=sys.stderr)
    with contextlib.suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()


def _from_archive(target: FileDataset, archive: Archive, temporary: Path) -> Path:
    packed, folder = temporary / "archive", temporary / "files"
    download(archive.url, packed, archive.sha256)
    folder.mkdir()
    # Twice the stated size: an archive that holds much more is not the one we know.
    limit = 2 * archive.unpacked_bytes
    unpack(packed, folder, strip=archive.strip, keep=archive.keep, limit=limit)
    inner = [p for p in folder.iterdir() if p.is_dir()]
    if target.base_in(folder) is None and len(inner) == 1:
        folder = inner[0]
    base = target.base_in(folder)
    if base is None:
        raise DataError(
            f"{target.name}: expected its folders in the archive of {archive.url}, found none; the "
            "source has changed"
        )
    files = sorted(p.relative_to(base).as_posix() for p in base.rglob("*") if p.is_file())
    sums = {file: integrity.sha256_of(base / file) for file in files}
    if archive.sha256 is None:
        _compare(target, sums)
    lines = "".join(f"{digest}  {file}\n" for file, digest in sums.items())
    (base / integrity.MANIFEST).write_text(lines, encoding="utf-8")
    return folder


def _compare(target: FileDataset, sums: dict[str, str]) -> None:
    """Raise DataError where files of an archive are missing or differ from the registry's."""
    main = paths.registry_dir() / f"{target.name}.sha256"
    expected = integrity.parse_sums(main.read_text(encoding="utf-8"), main.name)
    found = {target.registry_path(file): digest for file, digest in sums.items()}
    missing = sorted(set(expected) - set(found))
    wrong = sorted(file for file in set(expected) & set(found) if found[file] not in expected[file])
    if missing or wrong:
        what = f"{len(missing)} missing" if missing else f"{len(wrong)} with another checksum"
        raise DataError(
            f"{target.name}: expected the {len(expected)} files of the registry, got {what} "
            f"({shorten(missing or wrong)}); the source has changed or the archive is damaged"
        )


def verify(target: FileDataset) -> list[str]:
    """Hash every file of a set at hand again and return what is wrong, one line a finding.

    Raises:
        DataError: the set is not at hand.
    """
    base = target.find()
    if base is None:
        raise DataError(f"{target.name}: expected a set at hand, found none; {target.how_to_get()}")
    files = sorted(p.relative_to(base).as_posix() for p in base.rglob("*") if p.is_file())
    expected = target.expected_digests(base, files)
    digests = integrity.digests(target.name, base, list(expected), recheck=True)
    problems = [
        f"wrong checksum: {base / file}"
        for file, known in expected.items()
        if digests[file] not in known
    ]
    for split in ("train", "val", "test"):
        try:
            samples = target.samples(base, split)
        except DataError as error:
            problems.append(str(error))
            continue
        wanted = {f for s in samples for f in (s.image, s.label)} | set(target.split_files(split))
        problems += [f"missing: {base / f}" for f in sorted(wanted - set(files))]
        problems += [
            f"not in the registry: {base / f}" for f in sorted(wanted & set(files) - set(expected))
        ]
    return problems


def _from_mirror(target: FileDataset, address: str, temporary: Path) -> Path:
    folder = temporary / "files"
    folder.mkdir()
    root = f"{address}/{target.name}"
    download(f"{root}/SHA256SUMS", temporary / "SHA256SUMS")
    text = (temporary / "SHA256SUMS").read_text(encoding="utf-8", errors="replace")
    sums = integrity.parse_sums(text, f"{root}/SHA256SUMS")

    def one(item: tuple[str, set[str]]) -> None:
        path = _safe_parts(item[0], Path("SHA256SUMS"))
        destination = folder / path
        # One folder a file: an attempt clears the partial files beside its destination.
        parcel = temporary / "parcels" / str(path).replace("/", "%")
        parcel.mkdir(parents=True)
        part = parcel / "file"
        download(f"{root}/{quote(str(path))}", part, min(item[1]), quiet=True)
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, destination)

    in_threads(one, sorted(sums.items()), 8)
    if target.base_in(folder) is None:
        raise DataError(
            f"{target.name}: expected the data set in the mirror {root}, found other files; correct "
            "LOSSATLAS_MIRROR"
        )
    return folder


def _replace(folder: Path, destination: Path) -> None:
    """Put a finished folder in place of whatever was there."""
    old = destination.with_name(f".old-{destination.name}-{os.getpid()}")
    if destination.exists():
        os.rename(destination, old)
    try:
        os.rename(folder, destination)
    except OSError:
        if old.exists():
            os.rename(old, destination)
        raise
    shutil.rmtree(old, ignore_errors=True)

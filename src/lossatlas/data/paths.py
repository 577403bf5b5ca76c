"""Where data lie: downloads, the mirror, the cache and the checksum registry.

============================ ===================================== ===========================
what                         environment variable                  default
============================ ===================================== ===========================
downloads, one folder a set  ``LOSSATLAS_DATA``                    ``data/raw`` of the checkout
mirror of the same layout    ``LOSSATLAS_MIRROR``                  none
decoded arrays and stamps    ``LOSSATLAS_CACHE``                   ``data/cache`` of the checkout
============================ ===================================== ===========================

Outside a checkout (an installed wheel) the defaults are the user's data and cache folders. A
relative path in a variable is taken from the working directory or else from the checkout, so that
``LOSSATLAS_MIRROR=../shared/data`` also works in a notebook's kernel.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """Return the root of the checkout this package is run from, or None for an installed wheel."""
    root = _PACKAGE.parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "data").is_dir() else None


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable, "").strip()
    if not value:
        return None
    path = Path(value).expanduser()
    root = checkout()
    if not path.is_absolute() and not path.exists() and root is not None:
        path = root / path
    return path.resolve()


def _chosen(variable: str, part: str) -> Path | None:
    """The folder that a variable names, else ``data/PART`` of the checkout; None outside of one."""
    root = checkout()
    return _from_environment(variable) or (root / "data" / part if root else None)


def raw_dir() -> Path:
    """Folder that downloads land in, one folder a data set."""
    import platformdirs

    installed = Path(platformdirs.user_data_dir("lossatlas")) / "raw"
    return _chosen("LOSSATLAS_DATA", "raw") or installed


def shown(path: Path) -> str:
    """A path as messages show it: relative to the checkout where it lies inside."""
    root = checkout()
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return str(path)


def cache_dir() -> Path:
    """Folder of decoded arrays and verification stamps; safe to delete at any time."""
    import platformdirs

    return _chosen("LOSSATLAS_CACHE", "cache") or Path(platformdirs.user_cache_dir("lossatlas"))


def mirror_address() -> str | None:
    """The value of ``LOSSATLAS_MIRROR`` where it is an http(s) address, else None."""
    value = os.environ.get("LOSSATLAS_MIRROR", "").strip()
    return value.rstrip("/") if value.startswith(("http://", "https://")) else None


def mirror_dir() -> Path | None:
    """The mirror folder of ``LOSSATLAS_MIRROR``, or None where it is unset or an address."""
    return None if mirror_address() else _from_environment("LOSSATLAS_MIRROR")


def registry_dir() -> Path:
    """Folder of the committed checksums: inside an installed wheel, else of the checkout."""
    packaged, root = _PACKAGE / "registry", checkout()
    return packaged if packaged.is_dir() or root is None else root / "data" / "registry"

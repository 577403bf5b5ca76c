"""NIfTI volumes as slices: ``scan.nii.gz/0007`` names the eighth slice of a file.

A volume is brought to the axes right, anterior, superior by its affine. It is cut across the axis whose
voxels are longest, or across the third axis where two are equally long. An image and its mask are cut
alike, because a mask must have its image's affine (:func:`refuse_other_geometry`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lossatlas.data.errors import DataError

SUFFIXES = (".nii", ".nii.gz")
_KEPT = 4  # volumes in memory: an image's and a mask's, and those of the next patient
_SAME = 1e-3  # mm or less between two affines is one geometry: files store float32
_lock = threading.Lock()


def is_volume(name: str | Path) -> bool:
    """Whether a name is a volume's, by its suffix.

    >>> is_volume("a/scan.nii.gz"), is_volume("a/scan.nii.gz/0007")
    (True, False)
    """
    return str(name).lower().endswith(SUFFIXES)


def is_slice(path: Path) -> bool:
    """Whether a path names a slice of a volume."""
    return path.name.isdigit() and is_volume(path.parent)


def stem_of_volume(name: str) -> str:
    """File name without the suffix.

    >>> stem_of_volume("scan.nii.gz")
    'scan'
    """
    return name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else name[: -len(".nii")]


@dataclass(frozen=True)
class Geometry:
    """How a volume is cut.

    Attributes:
        shape: voxels along right, anterior, superior.
        axis: the axis that slices are counted along.
        spacing_mm: distance of rows and of columns in a slice.
        affine: voxel indices of the turned volume → millimetres, (4, 4).
    """

    shape: tuple[int, int, int]
    axis: int
    spacing_mm: tuple[float, float]
    affine: npt.NDArray[np.float64]

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.shape[self.axis]


def slices(path: Path) -> Iterator[str]:
    """Names of a volume's slices, ``0000`` up; none where the file is damaged.

    Raises:
        DataError: nibabel is not installed.
    """
    try:
        count = geometry(path).slices
    except _Damaged:
        return
    yield from (f"{index:04d}" for index in range(count))


def geometry(path: Path) -> Geometry:
    """Shape, spacing and affine, from the header.

    Raises:
        DataError: damaged, or not of 3 dimensions (4 with channels).
    """
    with _lock:
        return _volume(path, path.stat().st_mtime_ns).geometry


def read_slice(path: Path) -> npt.NDArray[Any]:
    """A slice (H, W), or (H, W, C) of a volume with channels, of the file's own number type.

    Raises:
        DataError: damaged, or no such slice.
    """
    file, index = path.parent, int(path.name)
    with _lock:
        volume = _volume(file, file.stat().st_mtime_ns)
        if index >= volume.geometry.slices:
            raise DataError(
                f"{path}: expected slices 0 to {volume.geometry.slices - 1}, got {index}; correct it"
            )
        cut: list[Any] = [slice(None)] * len(volume.image.shape)
        cut[volume.geometry.axis] = index
        try:
            array = np.asarray(volume.image.dataobj[tuple(cut)])
        except Exception as error:  # zlib.error, EOFError, OSError …
            raise _damaged(file, error) from None
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    # Rows run from anterior (or superior) down, columns from left to right.
    array = np.swapaxes(array, 0, 1)[::-1]
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def refuse_other_geometry(image: Path, mask: Path) -> None:
    """Raise where a mask's volume lies elsewhere in space than its image's.

    Raises:
        DataError: another shape or affine.
    """
    one, other = geometry(image.parent), geometry(mask.parent)
    apart = np.abs(one.affine - other.affine).max()
    if one.shape != other.shape or apart > _SAME:
        what = (
            f"{other.shape} voxels" if one.shape != other.shape else f"an affine {apart:.3g} apart"
        )
        raise DataError(
            f"{mask.parent}: expected shape {one.shape} and affine as in {image.parent.name}, got "
            f"{what}; resample the mask onto its image"
        )


class _Damaged(DataError):
    """A volume that does not decode."""


def _damaged(path: Path, error: Exception | str) -> _Damaged:
    reason = str(error).replace(str(path), path.name) or type(error).__name__
    return _Damaged(
        f"{path}: expected a whole NIfTI volume, got one that does not decode ({reason}); it is "
        "truncated or damaged: restore it"
    )


@dataclass(frozen=True)
class _Volume:
    image: Any
    geometry: Geometry


@lru_cache(maxsize=_KEPT)
def _volume(path: Path, _changed: int) -> _Volume:
    """The volume turned by its affine; the cache forgets a file that has changed."""
    try:
        import nibabel
    except ImportError:
        raise DataError(
            f"{path}: expected nibabel, which reads NIfTI volumes, found it not installed; "
            "pip install 'lossatlas[volumes]'"
        ) from None
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        if path.suffix.lower() == ".gz":  # a compressed file is decoded once, not once a slice
            values = np.asanyarray(image.dataobj)
            image = nibabel.Nifti1Image(values, image.affine, dtype=values.dtype)
    except Exception as error:  # nibabel raises ImageFileError, HeaderDataError, zlib.error …
        raise _damaged(path, error) from None
    shape = image.shape
    if len(shape) not in (3, 4) or 0 in shape:
        raise _damaged(path, f"shape {shape}, expected 3 dimensions, or 4 with channels")
    sides = np.linalg.norm(np.asarray(image.affine, np.float64)[:3, :3], axis=0)
    if not np.isfinite(image.affine).all() or (sides <= 0).any():
        raise _damaged(path, "its affine has no voxel size")
    longest = np.flatnonzero(sides > sides.max() * (1 - 1e-3))
    axis = 2 if len(longest) > 1 else int(longest[0])
    across, down = (index for index in range(3) if index != axis)
    return _Volume(
        image,
        Geometry(
            shape=(int(shape[0]), int(shape[1]), int(shape[2])),
            axis=axis,
            spacing_mm=(float(sides[down]), float(sides[across])),
            affine=np.asarray(image.affine, np.float64),
        ),
    )

"""Read one image or one index mask, with an error that names the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lossatlas.data.errors import DataError

UInt8Array = npt.NDArray[np.uint8]

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def open_image(path: Path) -> Image.Image:
    """Open and fully decode an image file.

    Raises:
        DataError: the file is missing, truncated or no image.
    """
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise DataError(f"{path}: expected an image, found no such file; fetch it again") from None
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: expected a whole image, got one that does not decode ({error}); "
            "it is truncated or damaged: fetch it again"
        ) from None
    return image


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: expected an image, got a file that does not open ({error}); fetch it again"
        ) from None


def read_rgb(path: Path) -> UInt8Array:
    """Decode to (H, W, 3) uint8."""
    return np.asarray(open_image(path).convert("RGB"))


def read_grey(path: Path) -> UInt8Array:
    """Decode to (H, W, 1) uint8."""
    return np.asarray(open_image(path).convert("L"))[..., None]


def read_index_mask(path: Path) -> npt.NDArray[Any]:
    """Decode a mask of class indices to (H, W), values as stored (palette index, grey or 1-bit).

    Raises:
        DataError: a mask with several channels.
    """
    image = open_image(path)
    array = np.asarray(image)
    if array.ndim != 2:
        raise DataError(
            f"{path}: expected a mask of one channel (class indices), got {array.shape[2]} "
            f"channels (mode {image.mode}); convert it, or declare its colours as a palette"
        )
    return array.astype(np.uint8) if array.dtype == bool else array


def eight_bits(image: npt.NDArray[Any], low: float, high: float) -> UInt8Array:
    """Bring ``low`` to 0 and ``high`` to 255, linearly; what lies beyond is cut off."""
    scaled = (image.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def resize_image(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize (H, W, C) uint8: bilinear, with the support widened to the area when shrinking."""
    if image.shape[:2] == (height, width):
        return image
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., c])).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for c in range(image.shape[2])
    ]
    return np.stack(planes, axis=-1)


def resize_mask(mask: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize (H, W) uint8 by the nearest pixel, so that no new value arises."""
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def pad_image(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Extend (H, W, C) to the size at the bottom and the right, repeating the last pixels."""
    rows, columns = height - image.shape[0], width - image.shape[1]
    return np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="edge")


def pad_mask(mask: UInt8Array, height: int, width: int, void: int) -> UInt8Array:
    """Extend (H, W) to the size at the bottom and the right with void."""
    rows, columns = height - mask.shape[0], width - mask.shape[1]
    return np.pad(mask, ((0, rows), (0, columns)), constant_values=void)


def mapped(
    mask: npt.NDArray[Any], codes: Mapping[int, int]
) -> tuple[UInt8Array, list[tuple[int, int]]]:
    """Class indices of the codes of a file, and the first values that are no code, with their pixels."""
    result, known = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, bool)
    for code, index in codes.items():
        here = mask == code
        result[here] = index
        known |= here
    stray, counts = np.unique(mask[~known], return_counts=True)
    return result, list(zip(stray.tolist(), counts.tolist(), strict=True))[:3]


def recode(
    mask: npt.NDArray[Any],
    codes: Mapping[int, int],
    path: Path,
    what: str = "codes",
    remedy: str = "the file is damaged or another version: fetch it again",
) -> UInt8Array:
    """Replace the codes of a file by class indices.

    Raises:
        DataError: a value that is no code, with how many pixels have it, and the ``remedy``.
    """
    result, stray = mapped(mask, codes)
    if stray:
        listed = ", ".join(f"{value} ({count} px)" for value, count in stray)
        known = ", ".join(map(str, sorted(codes)))
        raise DataError(f"{path}: expected {what} {known}, got {listed}; {remedy}")
    return result


def check_mask(
    mask: npt.NDArray[Any], num_classes: int, void: int | None, path: Path
) -> UInt8Array:
    """Return the mask as uint8 if every value is a class or void.

    Raises:
        DataError: a value outside the classes, with how many pixels have it.
    """
    allowed = np.zeros(256, dtype=bool)
    allowed[:num_classes] = True
    if void is not None:
        allowed[void] = True
    if mask.size and (mask.min() < 0 or mask.max() > 255):
        value = int(mask.min()) if mask.min() < 0 else int(mask.max())
        stray = {value: int((mask == value).sum())}
    else:
        mask = mask.astype(np.uint8)
        counts = np.bincount(mask.ravel(), minlength=256)
        stray = {int(v): int(counts[v]) for v in np.nonzero((counts > 0) & ~allowed)[0]}
    if stray:
        listed = ", ".join(f"{v} ({n} px)" for v, n in list(stray.items())[:3])
        classes = f"0…{num_classes - 1}" + ("" if void is None else f" or void {void}")
        raise DataError(
            f"{path}: expected mask values {classes}, got {listed}; correct the mask or the "
            "list of classes"
        )
    return mask

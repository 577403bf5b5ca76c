"""One reader for the images and masks of people's own folders: an array with notes, or a refusal.

Pillow turns some files into other numbers without a word: 16-bit colour becomes 8-bit, a palette
image becomes its indices, a 4-bit grey value is stretched, the EXIF orientation is left out. This
module looks at mode, bit depth, frames and orientation first. It converts where the meaning is
clear and says so in a note. It refuses everything else by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from lossatlas.data import volumes
from lossatlas.data.errors import DataError

Array = npt.NDArray[Any]

_ORIENTATION = 0x0112
_LOSSY = {"JPEG": "a JPEG", "MPO": "a JPEG", "JPEG2000": "a JPEG 2000", "AVIF": "an AVIF"}
_COMPRESSION, _WEBP_IN_TIFF = 259, 50001
#: Compressions of a TIFF that can change values; whether they did, the file's header does not say.
_LOSSY_IN_TIFF = {
    **dict.fromkeys((6, 7, 34892), "JPEG"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **dict.fromkeys((22610, 34934), "JPEG XR"),
    **dict.fromkeys((50002, 52546), "JPEG XL"),
    _WEBP_IN_TIFF: "WebP",
    34887: "LERC",
}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TURNED = "turned by its EXIF orientation"
SAME_SIDES = f"{TURNED}, its sides kept"
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Reading:
    """What one file holds.

    Attributes:
        array: an image (H, W, C) or a mask (H, W); a mask read as colours is (H, W, 3) uint8.
        notes: what was converted, or is odd, each a short clause.
        spacing_mm: distance of rows and of columns, where the file says it (NIfTI).
        palette: of a mask that is read as indices into colours, the colour of each index that it holds.
    """

    array: Array
    notes: tuple[str, ...] = ()
    spacing_mm: tuple[float, float] | None = None
    palette: Mapping[int, Colour] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels are decoded.

    Attributes:
        lossy: as what its compression can change values, whatever its suffix says; "" where it does not.
        palette: its colours; None where it has no palette.
    """

    lossy: str = ""
    palette: tuple[Colour, ...] | None = None


class _Notes(list[str]):
    """What is said of a file while it is decoded, and the colours of its indices."""

    palette: Mapping[int, Colour] = {}  # replaced, never changed


def read_image(path: Path) -> Reading:
    """Image (H, W, C): uint8, or the file's own number type where it has more than 8 bits.

    Raises:
        DataError: damaged, of several frames, with a transparent part, of a colour space that is
            not known, or with a number that is not finite.
    """
    array, notes = _decode(path, "image", colours=True)
    array = array[..., None] if array.ndim == 2 else array
    array = array.astype(np.uint8) * np.uint8(255) if array.dtype == bool else array
    if array.dtype.kind not in "uif":
        raise DataError(f"{path}: expected an image of real numbers, got {array.dtype}; convert it")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise DataError(
            f"{path}: expected finite numbers, got {count} that are NaN or infinite; correct the "
            "image"
        )
    return Reading(array, tuple(notes), _spacing(path))


def read_mask(path: Path, *, colours: bool = False, greys: bool = False) -> Reading:
    """Mask (H, W) of the values that the file stores; with ``colours`` (H, W, 3) uint8.

    A palette file gives its indices, with ``greys`` the greys of a palette of greys, or with ``colours`` what the
    palette says. One bit gives 0 and 1, or with ``colours`` black and white.

    Raises:
        DataError: damaged, of several frames, with a transparent part, or of several channels
            that differ; with ``colours`` also of more than 8 bits.
    """
    array, notes = _decode(path, "mask", colours=colours)
    if array.ndim == 3 and array.shape[2] > 1 and not colours:
        if not (array == array[..., :1]).all():
            raise DataError(
                f"{path}: expected a mask of one channel (class indices), got {array.shape[2]} "
                "channels; convert it, or declare its colours in classes.yaml, as "
                "'palette: {background: [0, 0, 0], thing: [255, 0, 0]}'"
            )
        notes.append("grey mask saved as colour: one channel taken")
    if not colours:
        array = array if array.ndim == 2 else array[..., 0]
        numbers = _whole_numbers(array, path)
        if greys and notes.palette and is_grey(notes.palette.values()):
            numbers = _by_grey(numbers, notes)
        return Reading(numbers, tuple(notes), _spacing(path), notes.palette)
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    array = array[..., None] if array.ndim == 2 else array
    if array.shape[2] == 1:
        array = np.broadcast_to(array, (*array.shape[:2], 3))
    if array.shape[2] != 3 or array.dtype != np.uint8:
        raise DataError(
            f"{path}: expected a mask of 8-bit colours, got {array.shape[2]} channels of "
            f"{array.dtype}; convert it"
        )
    return Reading(array, tuple(notes))


def _spacing(path: Path) -> tuple[float, float] | None:
    return volumes.geometry(path.parent).spacing_mm if volumes.is_slice(path) else None


def header(path: Path) -> Header:
    """What a file says before its pixels are decoded; nothing where it is no picture."""
    if path.suffix.lower() == ".npy" or volumes.is_slice(path) or volumes.is_volume(path):
        return Header()
    try:
        with Image.open(path) as image:
            return Header(_lossy(path, image), _palette(image))
    except UnidentifiedImageError:
        return Header(_lossy_tiff(path))
    # as _whole_file: decoders raise anything at damaged bytes, and reading the file says what
    except Exception:
        return Header()


def _lossy(path: Path, image: Image.Image) -> str:
    if image.format in _LOSSY:
        return _LOSSY[image.format]
    if image.format == "TIFF":
        return _compressed_as(image.tag_v2.get(_COMPRESSION))  # type: ignore[attr-defined]
    return "a lossy WebP" if image.format == "WEBP" and _webp_chunk(path) == b"VP8 " else ""


def _lossy_tiff(path: Path) -> str:
    """As :func:`_lossy`, of a TIFF whose compression Pillow does not know."""
    try:
        with _codecs(path, "tifffile").TiffFile(path) as file:
            return _compressed_as(int(file.pages[0].compression))
    except Exception:  # as in header: reading the file says what is wrong
        return ""


def _compressed_as(code: int | None) -> str:
    return f"a TIFF compressed as {_LOSSY_IN_TIFF[code]}" if code in _LOSSY_IN_TIFF else ""


def _webp_chunk(path: Path) -> bytes:
    """Name of the chunk that holds the pixels, which Pillow does not tell: "VP8 " lossy, "VP8L" lossless."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, size = head[:4], int.from_bytes(head[4:], "little")
            if name in (b"VP8 ", b"VP8L"):
                return name
            # a frame's chunks follow 16 bytes of its own; a size that is odd is filled up
            file.seek(16 if name == b"ANMF" else size + size % 2, os.SEEK_CUR)
    return b""


def _palette(image: Image.Image) -> tuple[Colour, ...] | None:
    """Colours of an opened file, as far as they are known before its pixels are decoded."""
    if image.mode not in ("P", "PA"):
        return None
    kind, data = image.palette.getdata() if image.palette else ("RGB", b"")
    flat = list(data) if kind in ("RGB", "RGB;L") else image.getpalette("RGB") or []
    if kind == "RGB;L":  # all reds, then all greens
        third = len(flat) // 3
        return tuple(zip(flat[:third], flat[third : 2 * third], flat[2 * third :], strict=True))
    return tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=False))


def is_grey(colours: Iterable[Colour]) -> bool:
    """Whether every colour is a grey."""
    return all(r == g == b for r, g, b in colours)


def _by_grey(indices: npt.NDArray[np.int64], notes: _Notes) -> npt.NDArray[np.int64]:
    table = np.zeros(256, np.int64)
    for index, (grey, _, _) in notes.palette.items():
        table[index] = grey
    found = table[indices]
    if (found != indices).any():
        notes.append("palette of greys: its grey values are read")
    return found


def _whole_numbers(array: Array, path: Path) -> npt.NDArray[np.int64]:
    if array.dtype.kind not in "uibf":
        raise DataError(f"{path}: expected class indices, got {array.dtype}; convert the mask")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(
                f"{path}: expected class indices, got NaN or infinity; correct the mask"
            )
        if (array != np.rint(array)).any():
            raise DataError(f"{path}: expected class indices, got fractions; round the mask")
    if array.size and (array.min() < -(2**31) or array.max() > 2**31):
        raise DataError(f"{path}: expected class indices, got huge numbers; correct the mask")
    return array.astype(np.int64)


# -- decoding ------------------------------------------------------------------------------------


def _decode(path: Path, part: str, *, colours: bool) -> tuple[Array, _Notes]:
    """(H, W) or (H, W, C), and notes. ``colours``: a palette gives colours, not indices."""
    if path.suffix.lower() == ".npy":
        return _numpy(path), _Notes()
    if volumes.is_slice(path):
        return volumes.read_slice(path), _Notes()
    if volumes.is_volume(path):  # listed whole where its header does not decode
        volumes.geometry(path)
    with _whole_file(path):
        try:
            with Image.open(path) as image:
                read = _tiff if image.format == "TIFF" else _pillow
                array, notes = read(path, image, part, colours)
        except UnidentifiedImageError:
            with path.open("rb") as file:
                if file.read(4) not in _TIFF_MAGIC:
                    raise
            # Pillow knows no TIFF of, say, seven channels.
            array, notes = _tiff_of_any_depth(path, part, colours)
    if array.size == 0:
        raise DataError(f"{path}: expected pixels, got an {part} of size 0; save it again")
    return array, notes


@contextmanager
def _whole_file(path: Path) -> Iterator[None]:
    """Whatever a decoder raises at a damaged file becomes one line that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: expected an image, found no such file; restore it") from None
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise DataError(
            f"{path}: expected at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, got more; cut it into tiles "
            "first (`lossatlas predict` takes images of any size)"
        ) from None
    # Decoders raise anything at damaged bytes: struct.error, KeyError, ZeroDivisionError …
    except Exception as error:
        reason = str(error).replace(str(path), path.name) or type(error).__name__
        raise DataError(
            f"{path}: expected a whole image, got one that does not decode ({reason}); "
            "it is truncated or damaged: restore it"
        ) from None


def _numpy(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: expected an array, found no such file; restore it") from None
    except MemoryError:
        raise DataError(
            f"{path}: expected an array that fits into memory, got a larger one; restore it"
        ) from None
    # A damaged header raises ValueError, EOFError, SyntaxError, tokenize.TokenError …
    except Exception as error:
        raise DataError(
            f"{path}: expected a NumPy array of numbers, got {error}; save it again with numpy.save"
        ) from None
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or array.size == 0:
        shape = getattr(array, "shape", "an archive")
        raise DataError(f"{path}: expected an array (H, W) or (H, W, C), got {shape}; save it so")
    if array.ndim == 3 and array.shape[0] <= 4 < array.shape[2]:
        raise DataError(
            f"{path}: expected channels last (H, W, C), got {array.shape}, which looks like "
            "channels first; save numpy.moveaxis(array, 0, -1)"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _pillow(path: Path, image: Image.Image, part: str, colours: bool) -> tuple[Array, _Notes]:
    notes = _Notes()
    frames = int(getattr(image, "n_frames", 1))
    if image.format == "MPO":
        notes.append("JPEG of several pictures (MPO): the first is read")
    elif frames > 1:
        raise DataError(
            f"{path}: expected one picture, got {frames} frames; save each as a file of its own"
        )
    bits, kind = _png_depth(path) if image.format == "PNG" else (8, -1)
    if bits == 16 and kind != 0:
        array = _png_of_16_bits(path)
        if kind in (4, 6):
            array = _opaque(array, path, notes)
        turn = image.getexif().get(_ORIENTATION, 1)
    else:
        image.load()
        turn = image.getexif().get(_ORIENTATION, 1)
        array = _channels(path, image, part, colours, notes)
        if part == "mask" and not colours and kind == 0 and bits in (2, 4):
            # Pillow stretches grey values of 2 and 4 bits to 0…255; the file stores indices.
            array = array // np.uint8(255 // (2**bits - 1))
    return _turned(array, turn, notes), notes


def _channels(path: Path, image: Image.Image, part: str, colours: bool, notes: _Notes) -> Array:
    """Pixels of a decoded picture, by its mode."""
    mode = image.mode
    if mode in ("P", "PA"):
        if not colours:
            return _indices(np.asarray(image if mode == "P" else image.getchannel(0)), image, notes)
        if part == "image":
            notes.append("palette turned into colours")
        transparent = "transparency" in image.info
        if transparent and part == "mask":  # a label counts, also where a viewer shows nothing
            notes.append("transparent colour of the file left out")
        if mode == "PA" or (transparent and part == "image"):
            return _opaque(np.asarray(image.convert("RGBA")), path, notes)
        return np.asarray(image.convert("RGB"))
    if mode in ("LA", "RGBA"):
        return _opaque(np.asarray(image), path, notes)
    if mode in ("CMYK", "YCbCr") and part == "image":
        notes.append(f"{mode} converted to RGB, without a colour profile")
        return np.asarray(image.convert("RGB"))
    if mode in ("1", "L", "RGB", "I", "F") or mode.startswith("I;16"):
        if "transparency" in image.info:
            notes.append("transparent colour of the file left out")
        array = np.asarray(image)
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    raise DataError(
        f"{path}: expected grey, palette or RGB, got the colour mode {mode}; convert the {part}"
    )


def _indices(indices: Array, image: Image.Image, notes: _Notes) -> Array:
    """Indices of a palette mask; their colours are noted, where the palette has one for each."""
    colours = image.getpalette("RGB") or []
    used = np.unique(indices).tolist()
    if used and 3 * used[-1] + 2 < len(colours):
        notes.palette = {
            index: (colours[3 * index], colours[3 * index + 1], colours[3 * index + 2])
            for index in used
        }
    return indices


def _opaque(array: Array, path: Path, notes: list[str]) -> Array:
    """Without the last channel, opacity, which has to be the same everywhere."""
    alpha = array[..., -1]
    full = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else alpha.max()
    if (alpha != full).any():
        count = int((alpha != full).sum())
        raise DataError(
            f"{path}: expected an opaque picture, got {count} px that are transparent; flatten it, "
            "or save the channels as .npy"
        )
    notes.append("opacity left out: every pixel is opaque")
    array = array[..., :-1]
    return array[..., 0] if array.shape[2] == 1 else array


def _turned(array: Array, orientation: object, notes: list[str]) -> Array:
    """The picture as a viewer shows it: EXIF orientation 1…8 applied."""
    if not isinstance(orientation, int) or not 2 <= orientation <= 8:
        return array
    notes.append(TURNED if orientation >= 5 else SAME_SIDES)
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    # After the transpose of 5…8: 5 is done, 6 mirrors columns, 7 both, 8 rows.
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _png_depth(path: Path) -> tuple[int, int]:
    """(bits a channel, colour type) of a PNG: bytes 24 and 25, in its header chunk."""
    with path.open("rb") as file:
        header = file.read(26)
    return (header[24], header[25]) if header[12:16] == b"IHDR" else (8, -1)


def _codecs(path: Path, name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise DataError(
            f"{path}: expected {name}, which reads this kind of file, found it not installed; "
            "pip install 'lossatlas[experiments]'"
        ) from None


def _png_of_16_bits(path: Path) -> Array:
    codecs = _codecs(path, "imagecodecs")
    array: Array = codecs.png_decode(path.read_bytes())
    return array


def _tiff(path: Path, image: Image.Image, part: str, colours: bool) -> tuple[Array, _Notes]:
    """By Pillow where it keeps every value: 1 or 8 bits, and 1, 3 or an opacity's channels."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    notes = _Notes()
    photometric, bits = tags.get(262), set(np.atleast_1d(tags.get(258, 1)).tolist())
    opacity = bool({1, 2} & set(np.atleast_1d(tags.get(338, 0)).tolist()))
    _refuse_pages(path, int(getattr(image, "n_frames", 1)))
    _refuse_white_zero(path, part, colours, photometric)
    kept = int(tags.get(277, 1)) in (1, 3) or opacity or photometric not in (0, 1, 2)
    turn = tags.get(274, 1)
    # Pillow maps a plain grey file into memory and forgets that orientations 5…8 swap its sides.
    swapped = turn in (5, 6, 7, 8) and photometric in (0, 1, 2, 3)
    webp = tags.get(_COMPRESSION) == _WEBP_IN_TIFF  # which Pillow's own libtiff does not have
    if not (bits <= {1, 8} and kept) or swapped or webp:
        return _tiff_of_any_depth(path, part, colours)
    image.load()
    if isinstance(turn, int) and 2 <= turn <= 8:
        # Pillow does it for a TIFF, as it decodes
        notes.append(TURNED if turn >= 5 else SAME_SIDES)
    return _channels(path, image, part, colours, notes), notes


def _tiff_of_any_depth(path: Path, part: str, colours: bool) -> tuple[Array, _Notes]:
    notes = _Notes()
    with _codecs(path, "tifffile").TiffFile(path) as file:
        _refuse_pages(path, len(file.pages))
        page = file.pages[0]
        array: Array = page.asarray()
        photometric, bits = int(page.photometric), int(page.bitspersample)
        planar, extra = int(page.planarconfig or 1) == 2, page.extrasamples
        turn = int(page.tags[274].value) if 274 in page.tags else 1
    _refuse_white_zero(path, part, colours, photometric)
    if photometric not in (0, 1, 2) and not (photometric == 3 and not colours):
        raise DataError(
            f"{path}: expected grey or RGB of {bits} bits, got the TIFF colour space "
            f"{photometric}; convert the {part}"
        )
    if planar and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3):
        raise DataError(
            f"{path}: expected a picture (H, W) or (H, W, C), got {array.shape}; save its slices"
        )
    if array.dtype.kind == "u":
        if photometric == 0:  # white is zero
            array = np.asarray((2**bits - 1) - array, array.dtype)
        if bits < 8 and colours:
            array = array * np.uint8(255 // (2**bits - 1))
    if {1, 2} & {int(e) for e in extra} and array.ndim == 3:
        array = _opaque(array, path, notes)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return _turned(array, turn, notes), notes


def _refuse_pages(path: Path, count: int) -> None:
    if count > 1:
        raise DataError(
            f"{path}: expected one picture, got {count} pages; save each as a file of its own"
        )


def _refuse_white_zero(path: Path, part: str, colours: bool, photometric: object) -> None:
    if part == "mask" and photometric == 0 and not colours:
        raise DataError(
            f"{path}: expected a mask whose 0 is black, got a TIFF whose 0 is white, which programs "
            "read differently; save the mask as PNG"
        )

"""Your own data: a folder of images and a folder of masks, matched by the stem of their names.

```
ROOT/images/001.png   ROOT/masks/001.png       (png, jpg, jpeg, tif, tiff, webp, bmp, npy)
ROOT/classes.yaml                              (optional)
ROOT/train.txt, val.txt, test.txt              (optional: one stem a line)
```

``classes.yaml`` may hold ``classes`` (a list of names by index), ``ignore_index``, ``palette`` (class
name or "void" → [red, green, blue], for colour-coded masks), ``mean`` and ``std`` (per channel, on
the scale 0…1), ``intensity`` ([low, high], see below). Without it the classes are the values 0…K of
the masks, and 255 is void where it occurs.

Images of 16 bits, and floating-point arrays, are brought to 8 bits linearly: ``intensity`` gives the
two values that become 0 and 255; without it the least and the greatest value of the *training*
images do, for all splits alike.

Without split files the stems are dealt out by the SHA-256 of ``seed`` and stem, so that an image
keeps its split when others are added: 70 % train, 15 % val, 15 % test on average.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lossatlas.data import checks, imageio
from lossatlas.data.dataset import SPLITS, SegmentationDataset
from lossatlas.data.errors import DataError, near_matches, shorten
from lossatlas.data.files import FileDataset, Sample, read_lines

UInt8Array = npt.NDArray[np.uint8]

SUFFIXES = (".png", ".tif", ".tiff", ".webp", ".bmp", ".npy", ".jpg", ".jpeg")
CUSTOMARY_VOID = 255
SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}
_KEYS = ("classes", "ignore_index", "palette", "mean", "std", "intensity")


def read_array(path: Path) -> npt.NDArray[Any]:
    """Decode any supported file to (H, W) or (H, W, C) of its own number type.

    Raises:
        DataError: truncated, damaged, pickled, or of another shape.
    """
    if path.suffix.lower() != ".npy":
        image = imageio.open_image(path)
        if image.mode == "P":
            # A palette image holds indices; what a mask means by them is its own values.
            return np.asarray(image)
        return np.asarray(image.convert("L") if image.mode == "1" else image)
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: expected a NumPy array of numbers, got {error}; save it again with numpy.save"
        ) from None
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
        shape = getattr(array, "shape", "an archive")
        raise DataError(f"{path}: expected an array (H, W) or (H, W, C), got {shape}; save it so")
    return array


def _with_channels(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array[..., None] if array.ndim == 2 else array


@dataclass
class Layout:
    """What lies in the folder: files by stem, and the stems of each split."""

    root: Path
    images: dict[str, str]
    masks: dict[str, str]
    doubled: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def pairs(self) -> list[str]:
        """Stems with an image and a mask, sorted."""
        return sorted(set(self.images) & set(self.masks))


def read_layout(root: Path) -> Layout:
    """List the folder.

    Raises:
        DataError: no such folder, no ``images`` or ``masks`` in it, or a faulty ``classes.yaml``.
    """
    if not root.is_dir():
        raise DataError(f"folder: expected a folder root={str(root)!r}, found none; correct root")
    for part in ("images", "masks"):
        if not (root / part).is_dir():
            raise DataError(
                f"folder: expected images/ and masks/ in {root}, found no {part}/; put the files "
                "there, matched by name"
            )
    doubled: list[str] = []
    found: dict[str, dict[str, str]] = {}
    for part in ("images", "masks"):
        found[part] = {}
        for path in sorted((root / part).iterdir()):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                if path.stem in found[part]:
                    doubled.append(f"{part}/{path.name}")
                else:
                    found[part][path.stem] = f"{part}/{path.name}"
    return Layout(root, found["images"], found["masks"], doubled, read_settings(root))


def read_settings(root: Path) -> dict[str, Any]:
    """Settings of ``classes.yaml``, checked; {} where there is none.

    Raises:
        DataError: not YAML, an unknown key, or a value of the wrong kind.
    """
    import yaml

    file = root / "classes.yaml"
    if not file.is_file():
        return {}
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        where = str(error).replace("\n", " ")
        raise DataError(f"{file}: expected YAML, got {where}; correct the file") from None
    if isinstance(settings, list):
        settings = {"classes": settings}
    if not isinstance(settings, dict):
        raise DataError(
            f"{file}: expected keys {', '.join(_KEYS)}, got {type(settings).__name__}; correct it"
        )
    for key in settings:
        if key not in _KEYS:
            raise DataError(
                f"{file}: expected keys {', '.join(_KEYS)}, got {key!r}; {near_matches(key, _KEYS)}"
            )
    names = settings.get("classes")
    if names is not None:
        names = [str(n) for n in names] if isinstance(names, list) else names
        if not isinstance(names, list) or len(names) < 2 or len(set(names)) != len(names):
            raise DataError(
                f"{file}: expected classes to be a list of two or more different names, got "
                f"{names!r}; list them by index, background first"
            )
        settings["classes"] = names
    _check_palette(settings, file)
    _check_numbers(settings, file)
    return settings


def _check_palette(settings: dict[str, Any], file: Path) -> None:
    palette = settings.get("palette")
    if palette is None:
        return
    names = settings.get("classes")
    if names is None:
        raise DataError(f"{file}: expected classes beside palette, got none; list them by index")
    if not isinstance(palette, Mapping):
        raise DataError(f"{file}: expected palette to map names to [r, g, b], got {palette!r}")
    for name, colour in palette.items():
        if str(name) not in (*names, "void"):
            raise DataError(
                f"{file}: expected palette names among the classes and 'void', got {name!r}; "
                f"{near_matches(name, [*names, 'void'])}"
            )
        good = isinstance(colour, list) and len(colour) == 3
        if not good or not all(isinstance(v, int) and 0 <= v <= 255 for v in colour):
            raise DataError(
                f"{file}: expected the colour of {name!r} as three integers 0…255, got {colour!r}"
            )
    colours = [tuple(c) for c in palette.values()]
    if len(set(colours)) != len(colours):
        raise DataError(f"{file}: expected a colour of its own for each class, got one twice")
    missing = [n for n in names if n not in {str(k) for k in palette}]
    if missing:
        raise DataError(f"{file}: expected a colour for each class, got none for {missing[0]!r}")


def _check_numbers(settings: dict[str, Any], file: Path) -> None:
    for key in ("mean", "std", "intensity"):
        value = settings.get(key)
        if value is None:
            continue
        numbers = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in value
        )
        if not numbers or not value or (key == "std" and min(value) <= 0):
            raise DataError(f"{file}: expected {key} to be a list of numbers, got {value!r}")
        if key == "intensity" and (len(value) != 2 or value[0] >= value[1]):
            raise DataError(f"{file}: expected intensity as [low, high], got {value!r}")


def split_of(stem: str, seed: int) -> str:
    """Split that a stem falls into."""
    digest = hashlib.sha256(f"{seed}/{stem}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.70 else "val" if share < 0.85 else "test"


class FolderDataset(FileDataset):
    """A data set of the user's own; see the module for the layout.

    Own parameters:
        ignore_index: value of void pixels in the masks (0…255), if ``classes.yaml`` has none.
        seed: of the splits, where there are no split files.
    """

    name = "folder"
    title = "Your own folder"
    classes = ()
    licence = "yours"
    citation = "yours to add"
    source = "a folder with images/ and masks/"
    markers = ("images", "masks")
    registered = False
    pads = True

    mean: ClassVar[tuple[float, ...]] = ()
    std: ClassVar[tuple[float, ...]] = ()

    def __init__(self, *, ignore_index: int | None = None, seed: int = 0) -> None:
        self._given_void = checks.optional_integer("ignore_index", ignore_index, 0, 255)
        self.seed = checks.integer("seed", seed, 0)

    def find(self, root: Any = None) -> Path | None:
        """The folder ``root``, if it has images and masks."""
        if root is None:
            return None
        path = Path(root).expanduser()
        both = (path / "images").is_dir() and (path / "masks").is_dir()
        return path.resolve() if both else None

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Pairs of the split."""
        return _Bound(read_layout(base), self._given_void, self.seed).samples(base, split)

    def _load(self, split: str, params: dict[str, Any], want_images: bool) -> SegmentationDataset:
        if params["root"] is None:
            raise DataError("folder: expected root=, a folder with images/ and masks/, got none")
        layout = read_layout(Path(params["root"]).expanduser())
        bound = _Bound(layout, self._given_void, self.seed)
        return FileDataset._load(bound, split, params, want_images)


class _Bound(FolderDataset):
    """The folder's loader once it knows the folder: its classes, channels and splits."""

    def __init__(self, layout: Layout, void: int | None, seed: int) -> None:
        super().__init__(ignore_index=void, seed=seed)
        self.layout = layout
        settings = layout.settings
        self._refuse_broken_layout()
        void = settings.get("ignore_index", void)
        palette = settings.get("palette")
        if palette is not None and "void" in palette and void is None:
            void = CUSTOMARY_VOID
        if "classes" in settings:
            names = list(settings["classes"])
        else:
            names, void = self._infer_classes(void)
        # Facts that are class variables of a published set are this folder's own.
        own: dict[str, Any] = {"classes": tuple(names), "void": void}
        first = _with_channels(read_array(layout.root / layout.images[layout.pairs[0]]))
        channels = first.shape[2]
        own["mean"] = tuple(settings.get("mean", [0.5] * channels))
        own["std"] = tuple(settings.get("std", [0.25] * channels))
        for key in ("mean", "std"):
            if len(own[key]) != channels:
                raise DataError(
                    f"{layout.root / 'classes.yaml'}: expected {key} of {channels} channels as the "
                    f"images have, got {len(own[key])}; correct it"
                )
        # Brought to 8 bits by the range of the training images, or of classes.yaml.
        self._eight_bits = first.dtype == np.uint8
        own["mode"] = "binary" if len(names) == 2 else "multiclass"
        self.__dict__.update(own)

    def _refuse_broken_layout(self) -> None:
        layout = self.layout
        if layout.doubled:
            raise DataError(
                f"folder: expected one file a stem in {layout.root}, got {shorten(layout.doubled)} "
                "beside another of the same name; remove one"
            )
        lonely_images = sorted(set(layout.images) - set(layout.masks))
        lonely_masks = sorted(set(layout.masks) - set(layout.images))
        for lonely, what in (
            (lonely_images, "a mask for each image"),
            (lonely_masks, "an image for each mask"),
        ):
            if lonely:
                raise DataError(
                    f"folder: expected {what} in {layout.root}, {len(lonely)} have none "
                    f"({shorten(lonely)}); `lossatlas data check` lists everything that is wrong"
                )
        if not layout.pairs:
            raise DataError(
                f"folder: expected images in {layout.root / 'images'}, got none of "
                f"{', '.join(SUFFIXES)}; put them there"
            )

    def _infer_classes(self, void: int | None) -> tuple[list[str], int | None]:
        """Classes 0…K of the values seen in all masks."""
        seen: Counter[int] = Counter()
        for stem in self.layout.pairs:
            path = self.layout.root / self.layout.masks[stem]
            array = _index_mask(read_array(path), path)
            values, counts = np.unique(array, return_counts=True)
            seen.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if void is None and CUSTOMARY_VOID in seen and max(seen) == CUSTOMARY_VOID:
            # {0, 255} is how many tools write a binary mask: then 255 is the thing, not void.
            if set(seen) <= {0, CUSTOMARY_VOID}:
                raise DataError(
                    f"folder: expected class indices in {self.layout.root / 'masks'}, got the "
                    "values 0 and 255 alone, which may be a class or void; say which: classes.yaml "
                    "with 'classes: [background, thing]' and 'palette', or ignore_index=255"
                )
            void = CUSTOMARY_VOID
        classes = [v for v in seen if v != void]
        highest = max(max(classes, default=0), 1)
        if highest > 99:
            raise DataError(
                f"folder: expected class indices from 0 up in {self.layout.root / 'masks'}, got "
                f"values up to {highest}; list the classes in classes.yaml, or give ignore_index"
            )
        names = ["background", *(f"class_{i}" for i in range(1, highest + 1))]
        print(f"folder: classes inferred from the masks: {', '.join(names)}; void: {void}")
        return names, void

    def cache_facts(self) -> dict[str, Any]:
        """Settings of the folder, which shape the arrays as well."""
        intensity = None if self._eight_bits else self.intensity
        return {"settings": self.layout.settings, "intensity": intensity}

    # -- what FileDataset asks -------------------------------------------------------------------

    def locate(self, root: Any = None) -> Path:
        """The folder."""
        return self.layout.root.resolve()

    def stems_of(self, split: str) -> list[str]:
        """Stems of a split, by its file or else dealt out."""
        root, pairs = self.layout.root, self.layout.pairs
        files = [s for s in SPLITS if (root / f"{s}.txt").is_file()]
        if not files:
            return [stem for stem in pairs if split_of(stem, self.seed) == split]
        listed = {
            s: [_stem(line) for line in read_lines(root / f"{s}.txt", self.name)] for s in files
        }
        if split not in listed:
            raise DataError(
                f"folder: expected {root / f'{split}.txt'} beside {files[0]}.txt, found none; add it"
            )
        for other in files:
            both = sorted(set(listed[split]) & set(listed[other])) if other != split else []
            if both:
                raise DataError(
                    f"folder: expected an image in one split, got {shorten(both)} in {split}.txt "
                    f"and {other}.txt; take them off one"
                )
        unknown = [stem for stem in listed[split] if stem not in self.layout.images]
        if unknown:
            raise DataError(
                f"folder: expected the names of {split}.txt in {root / 'images'}, "
                f"{len(unknown)} are not there ({shorten(unknown)}); correct the list"
            )
        return listed[split]

    def split_files(self, split: str) -> list[str]:
        """Nothing is registered, so nothing is compared."""
        return []

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Pairs of the split."""
        stems = self.stems_of(split)
        if not stems:
            raise DataError(
                f"folder: expected images in split {split!r}, got none of {len(self.layout.pairs)}; "
                "add images or split files"
            )
        layout = self.layout
        return [Sample(s, s, layout.images[s], layout.masks[s]) for s in stems]

    def image_size(self, base: Path, sample: Sample) -> tuple[int, int]:
        """(height, width)."""
        if sample.image.endswith(".npy"):
            height, width = read_array(base / sample.image).shape[:2]
            return int(height), int(width)
        return imageio.image_size(base / sample.image)

    @cached_property
    def intensity(self) -> tuple[float, float]:
        """Values that become 0 and 255 in images that are not of 8 bits."""
        if "intensity" in self.layout.settings:
            low, high = self.layout.settings["intensity"]
            return float(low), float(high)
        low, high = np.inf, -np.inf
        for stem in self.stems_of("train"):
            array = read_array(self.layout.root / self.layout.images[stem])
            low, high = min(low, float(array.min())), max(high, float(array.max()))
        return (low, high) if high > low else (low, low + 1)

    def read_image(self, base: Path, sample: Sample) -> UInt8Array:
        """(H, W, C) uint8, brought from other number types by :attr:`intensity`."""
        path = base / sample.image
        array = _with_channels(read_array(path))
        channels = len(self.mean)
        if array.shape[2] != channels:
            raise DataError(
                f"{path}: expected {channels} channels as the first image has, got "
                f"{array.shape[2]}; convert the images to one kind"
            )
        if (array.dtype == np.uint8) != self._eight_bits:
            raise DataError(
                f"{path}: expected {'8-bit numbers' if self._eight_bits else 'more than 8 bits'} as "
                f"the first image has, got {array.dtype}; convert the images to one kind"
            )
        if self._eight_bits:
            return array.astype(np.uint8)
        if array.dtype.kind not in "uif" or not np.isfinite(array).all():
            raise DataError(
                f"{path}: expected finite numbers, got {array.dtype}; correct the image"
            )
        low, high = self.intensity
        scaled = (array.astype(np.float64) - low) * (255 / (high - low))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """(H, W) class indices and void."""
        path = base / sample.label
        array = read_array(path)
        palette = self.layout.settings.get("palette")
        if palette is not None:
            return _by_palette(array, palette, list(self.classes), self.void, path)
        return imageio.check_mask(_index_mask(array, path), len(self.classes), self.void, path)


def _stem(line: str) -> str:
    """Name of a split file's line: the stem, also of a path or a file name."""
    path = Path(line)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _index_mask(array: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise DataError(
            f"{path}: expected a mask of one channel (class indices), got {array.shape[2]} "
            "channels; convert it, or declare its colours as palette in classes.yaml"
        )
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
        raise DataError(f"{path}: expected class indices, got fractions; round the mask")
    if array.dtype.kind not in "uibf":
        raise DataError(f"{path}: expected class indices, got {array.dtype}; convert the mask")
    return array.astype(np.int64)


def _by_palette(
    array: npt.NDArray[Any],
    palette: Mapping[str, Sequence[int]],
    classes: list[str],
    void: int | None,
    path: Path,
) -> UInt8Array:
    """Class indices of a mask of colours; grey values count as grey colours."""
    array = _with_channels(array)
    if array.shape[2] in (2, 4):
        array = array[..., :-1]  # opacity
    rgb = np.broadcast_to(array, (*array.shape[:2], 3)) if array.shape[2] == 1 else array
    if rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise DataError(
            f"{path}: expected a mask of 8-bit colours, got {array.shape[2]} channels of "
            f"{array.dtype}; convert it"
        )
    codes = rgb.astype(np.int64) @ np.array([65536, 256, 1])
    result = np.zeros(codes.shape, dtype=np.uint8)
    known = np.zeros(codes.shape, dtype=bool)
    for name, (red, green, blue) in palette.items():
        here = codes == red * 65536 + green * 256 + blue
        result[here] = (
            void
            if str(name) == "void" and void is not None
            else (classes.index(str(name)) if str(name) in classes else 0)
        )
        known |= here
    if not known.all():
        values, counts = np.unique(codes[~known], return_counts=True)
        listed = ", ".join(
            f"[{v >> 16}, {v >> 8 & 255}, {v & 255}] ({n} px)"
            for v, n in list(zip(values.tolist(), counts.tolist(), strict=True))[:3]
        )
        raise DataError(
            f"{path}: expected colours of the palette, got {listed}; add them to classes.yaml or "
            "save the mask without compression losses and smoothing"
        )
    return result


# -- everything that is wrong, at once ---------------------------------------------------------


@dataclass
class Finding:
    """One kind of fault (``severity`` "error") or oddity ("note") and where it occurs."""

    severity: str
    what: str
    names: list[str]

    def __str__(self) -> str:
        return f"{self.severity}: {self.what}: {len(self.names)} ({shorten(self.names)})"


def check_folder(
    root: str | Path, *, ignore_index: int | None = None, seed: int = 0
) -> list[Finding]:
    """Look at every file of a folder and return all findings, errors first; [] if all is well.

    Raises:
        DataError: there is no such folder, or its ``classes.yaml`` is faulty.
    """
    layout = read_layout(Path(root).expanduser())
    found: dict[tuple[str, str], list[str]] = {}

    def note(severity: str, what: str, name: str) -> None:
        found.setdefault((severity, what), []).append(name)

    for name in layout.doubled:
        note("error", "another file of the same stem", name)
    for stem in sorted(set(layout.images) - set(layout.masks)):
        note("error", "image without mask", layout.images[stem])
    for stem in sorted(set(layout.masks) - set(layout.images)):
        note("error", "mask without image", layout.masks[stem])
    if not layout.pairs:
        note("error", "no pair of image and mask", str(layout.root))
    settings = layout.settings
    palette, names = settings.get("palette"), settings.get("classes")
    void = settings.get("ignore_index", ignore_index)
    if void is None and (palette is None or "void" in palette):
        void = CUSTOMARY_VOID
    splits = _splits_of_check(layout, seed, note)
    contents: dict[str, list[tuple[str, str]]] = {}
    kinds: Counter[tuple[int, str]] = Counter()
    kind_of: dict[str, tuple[int, str]] = {}
    values: Counter[int] = Counter()
    for stem in layout.pairs:
        image_name, mask_name = layout.images[stem], layout.masks[stem]
        image = _try_read(layout.root / image_name, image_name, note)
        mask = _try_read(layout.root / mask_name, mask_name, note)
        if image is not None:
            kind = (_with_channels(image).shape[2], str(image.dtype))
            kinds[kind] += 1
            kind_of[image_name] = kind
            digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
            contents.setdefault(digest, []).append((splits.get(stem, "no split"), image_name))
        if mask is None:
            continue
        if image is not None and image.shape[:2] != mask.shape[:2]:
            note("error", "image and mask of different size", stem)
        path = layout.root / mask_name
        try:
            if palette is not None:
                indices = _by_palette(mask, palette, list(names or []), void, path)
            else:
                indices = _index_mask(mask, path)
                if names is not None:
                    imageio.check_mask(indices, len(names), void, path)
        except DataError as error:
            reason = str(error).split(": expected ", 1)[-1].split(";")[0]
            note("error", f"faulty mask, expected {reason}", mask_name)
            continue
        present = np.unique(indices)
        values.update(dict.fromkeys(present.tolist(), 1))
        labelled = present[present != void] if void is not None else present
        if labelled.size == 0:
            note("note", "mask of void alone", mask_name)
        elif labelled.max() == 0:
            note("note", "empty mask (background alone)", mask_name)
    stated = settings.get("ignore_index", ignore_index)
    _judge_whole(kinds, kind_of, contents, values, names, stated, note)
    findings = [Finding(severity, what, names_) for (severity, what), names_ in found.items()]
    return sorted(findings, key=lambda f: (f.severity != "error", f.what))


def _try_read(path: Path, name: str, note: Any) -> npt.NDArray[Any] | None:
    try:
        return read_array(path)
    except DataError:
        note("error", "file that does not decode (truncated, damaged or no image)", name)
        return None


def _splits_of_check(layout: Layout, seed: int, note: Any) -> dict[str, str]:
    """Split of each stem; what is wrong with the lists is noted."""
    splits: dict[str, str] = {}
    files = [s for s in SPLITS if (layout.root / f"{s}.txt").is_file()]
    if not files:
        splits = {stem: split_of(stem, seed) for stem in layout.pairs}
        for split in SPLITS:
            if split not in splits.values():
                note("error", "split without an image (dealt out by seed)", split)
        return splits
    for split in SPLITS:
        if split not in files:
            note("error", "missing split file", f"{split}.txt")
            continue
        try:
            lines = read_lines(layout.root / f"{split}.txt", "folder")
        except DataError:
            note("error", "empty or unreadable split file", f"{split}.txt")
            continue
        for line in lines:
            stem = _stem(line)
            if stem not in layout.images:
                note("error", "name in a split file without an image", f"{split}.txt: {line}")
            elif stem in splits:
                note("error", "image in two split files", f"{stem} ({splits[stem]}, {split})")
            else:
                splits[stem] = split
    for stem in layout.pairs:
        if stem not in splits:
            note("note", "image in no split file", layout.images[stem])
    return splits


def _judge_whole(
    kinds: Counter[tuple[int, str]],
    kind_of: dict[str, tuple[int, str]],
    contents: dict[str, list[tuple[str, str]]],
    values: Counter[int],
    names: list[str] | None,
    void: int | None,
    note: Any,
) -> None:
    """Note what only all files together show."""
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        for name, kind in kind_of.items():
            if kind[0] != usual[0]:
                note("error", f"image of {kind[0]} channels where most have {usual[0]}", name)
            elif kind != usual:
                note("note", f"image of {kind[1]} where most are {usual[1]}", name)
    for places in contents.values():
        if len(places) > 1:
            listed = " = ".join(f"{name} [{split}]" for split, name in places)
            across = len({split for split, _ in places}) > 1
            what = "the same picture in two splits" if across else "the same picture twice"
            note("error" if across else "note", what, listed)
    classes = [v for v in values if v not in (void, CUSTOMARY_VOID)]
    if names is None and void is None and set(values) == {0, CUSTOMARY_VOID}:
        note("error", "mask values 0 and 255 alone, a class or void: list the classes", "0, 255")
    if names is None and classes and max(classes) > 0:
        gaps = sorted(set(range(max(classes))) - set(classes)) if max(classes) < 100 else []
        if gaps:
            note("note", "class index that no mask has", ", ".join(str(g) for g in gaps))
        if max(classes) > 99:
            listed = ", ".join(str(v) for v in sorted(values)[:8])
            note("error", "mask values that are no class indices: list the classes", listed)

"""Data sets that are files on disk: find, pair, verify, decode, cache.

A further set is a subclass of :class:`FileDataset` that states its facts (classes, void, licence,
citation, source) and says in :meth:`FileDataset.samples` which image goes with which mask.
"""

from __future__ import annotations

import abc
import inspect
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lossatlas.basics import in_threads, near_matches
from lossatlas.data import cache as arrays
from lossatlas.data import checks, fetch, imageio, integrity, paths
from lossatlas.data.dataset import Mode, SegmentationDataset
from lossatlas.data.errors import DataError, shorten

UInt8Array = npt.NDArray[np.uint8]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Customary constants for colour photographs, red, green, blue on the scale 0…1."""


@dataclass(frozen=True)
class Sample:
    """One image and its mask, as paths relative to the data set's folder."""

    id: str
    group: str
    image: str
    label: str


def evenly_spaced(count: int, size: int | None) -> list[int]:
    """Indices of ``size`` of ``count`` items, evenly spaced and centred.

    >>> evenly_spaced(10, 3)
    [1, 5, 8]
    """
    if size is None or size >= count:
        return list(range(count))
    return [(2 * i + 1) * count // (2 * size) for i in range(size)]


def common_parameters(
    *,
    root: str | None = None,
    height: int | None = None,
    width: int | None = None,
    train_size: int | None = None,
    val_size: int | None = None,
    test_size: int | None = None,
    positive: str | None = None,
    verify: bool = True,
    cache: bool = True,
) -> None:
    """Parameters that every data set on disk takes.

    Args:
        root: folder of the data; by default downloads, else the mirror.
        height, width: size in pixels to resize to (images bilinear with the support of the area,
            labels nearest); by default the size of the files. One alone keeps the ratio (of the
            largest height and width, where sizes differ).
        train_size, val_size, test_size: take that many images of a split, evenly spaced.
        positive: a class name: the binary task of that class against all others.
        verify: check the SHA-256 of every file against the registry.
        cache: keep the decoded arrays in the cache folder and read them as a memory map.
    """


_COMMON = checks.keyword_parameters(common_parameters)


class FileDataset(abc.ABC):
    """Facts and loader of one data set on disk."""

    name: ClassVar[str]
    title: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    void: ClassVar[int | None] = None
    """Value of void pixels in the labels that :meth:`read_label` returns."""
    mode: ClassVar[Mode] = "multiclass"
    licence: ClassVar[str]
    citation: ClassVar[str]
    source: ClassVar[str]
    """Address that a person downloads the original from."""
    mean: ClassVar[tuple[float, ...]] = IMAGENET_MEAN
    std: ClassVar[tuple[float, ...]] = IMAGENET_STD
    inner: ClassVar[str] = "."
    """Folder of the download that holds the data; paths of the registry begin with it."""
    markers: ClassVar[tuple[str, ...]]
    """Names of which at least one lies in that folder: how the data set is recognised."""
    registered: ClassVar[bool] = True
    """Whether the registry knows the digests of the files; if not, they are read as they are."""
    pads: ClassVar[bool] = False
    """Whether images of several sizes are padded to the largest, with void in the labels."""
    codes: ClassVar[Mapping[int, int] | None] = None
    """What the masks store → class index or void, where they do not store these themselves."""
    above_0: ClassVar[bool] = False
    """Whether class 1 is every value above 0."""

    # -- what a subclass says ------------------------------------------------------------------

    @abc.abstractmethod
    def samples(self, base: Path, split: str) -> list[Sample]:
        """List the pairs of a split in ``base``, in a fixed order.

        Raises:
            DataError: a missing split file, an image without its mask or the reverse.
        """

    def split_files(self, split: str) -> list[str]:
        """Files besides images and masks that shape a split, relative to the base: verified too."""
        return []

    def read_image(self, base: Path, sample: Sample) -> UInt8Array:
        """Decode an image to (H, W, C) uint8: grey where ``mean`` is of one channel."""
        read = imageio.read_grey if len(self.mean) == 1 else imageio.read_rgb
        return read(base / sample.image)

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """Decode a mask to (H, W) uint8 of class indices and void."""
        path = base / sample.label
        mask = imageio.read_index_mask(path)
        if self.codes is not None:
            return imageio.recode(mask, self.codes, path)
        if self.above_0:
            return (mask > 0).astype(np.uint8)
        return imageio.check_mask(mask, len(self.classes), self.void, path)

    def image_size(self, base: Path, sample: Sample) -> tuple[int, int]:
        """(height, width) of an image from its header."""
        return imageio.image_size(base / sample.image)

    # -- where the data are --------------------------------------------------------------------

    def base_in(self, root: Path) -> Path | None:
        """Folder below ``root`` that holds the data, or None."""
        for folder in (root / self.inner, root, root / self.name / self.inner, root / self.name):
            if any(next(folder.glob(marker), None) for marker in self.markers):
                return folder.resolve()
        return None

    def find(self, root: str | os.PathLike[str] | None = None) -> Path | None:
        """Folder that holds the data: of ``root``, else downloads, else the mirror; or None."""
        if root is not None:
            return self.base_in(checks.folder("root", root))
        mirror = paths.mirror_dir()
        for folder in (paths.raw_dir() / self.name, mirror / self.name if mirror else None):
            if folder is not None and (base := self.base_in(folder)) is not None:
                return base
        return None

    def locate(self, root: str | os.PathLike[str] | None = None) -> Path:
        """Like :meth:`find`, but a missing data set is an error that says how to get it.

        Raises:
            DataError: nothing there.
        """
        base = self.find(root)
        if base is not None:
            return base
        if root is None and fetch.automatic(self.name):
            try:
                fetch.get(self)
            except DataError as error:
                raise DataError(
                    f"{self.name}: not at hand, and fetching it failed: {error}"
                ) from None
            base = self.find()
            if base is not None:
                return base
        wanted = f"a folder with {' or '.join(self.markers[:2])}"
        if root is not None:
            raise DataError(
                f"{self.name}: expected {wanted} in root={str(root)!r}, found none; point root to "
                f"the unpacked download of {self.source}"
            )
        mirror = os.environ.get("LOSSATLAS_MIRROR", "").strip()
        where = f"LOSSATLAS_MIRROR={mirror}" if mirror else "LOSSATLAS_MIRROR (not set)"
        raise DataError(
            f"{self.name}: expected {wanted} in {paths.shown(paths.raw_dir() / self.name)} or in "
            f"{where}, found none; {self.how_to_get()}"
        )

    def how_to_get(self) -> str:
        """The command or variable that brings the data."""
        return (
            f"run `lossatlas data get {self.name}`, or set LOSSATLAS_MIRROR to a folder that "
            f"holds {self.name}/"
        )

    # -- loading -------------------------------------------------------------------------------

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Keyword parameters that :meth:`load` takes: the set's own, then those of every set."""
        return {**checks.keyword_parameters(type(self).__init__), **_COMMON}

    def _configured(self, params: Mapping[str, Any]) -> tuple[FileDataset, dict[str, Any]]:
        """Return (this set with its own parameters in force, the value of every parameter)."""
        known = self.parameters()
        checks.known_parameters(self.name, params, known)
        values = {key: params.get(key, parameter.default) for key, parameter in known.items()}
        own = {key: value for key, value in values.items() if key not in _COMMON}
        return type(self)(**own), values

    def is_available(self, *, root: str | os.PathLike[str] | None = None, **_: Any) -> bool:
        """Whether the data are at hand; opens no image."""
        return self.find(root) is not None

    def load(self, split: str, **params: Any) -> SegmentationDataset:
        """Load a split; :func:`common_parameters` documents what every set takes.

        Raises:
            DataError: see the message.
        """
        configured, values = self._configured(params)
        return configured._load(split, values, want_images=True)

    def load_labels(self, split: str, **params: Any) -> SegmentationDataset:
        """Like :meth:`load`, but decode no image: for statistics of the labels."""
        configured, values = self._configured(params)
        return configured._load(split, values, want_images=False)

    def _load(self, split: str, params: dict[str, Any], want_images: bool) -> SegmentationDataset:
        height = checks.optional_integer("height", params["height"], 1, 16384)
        width = checks.optional_integer("width", params["width"], 1, 16384)
        for key in ("train_size", "val_size", "test_size"):
            checks.optional_integer(key, params[key], 1)
        checks.boolean("verify", params["verify"])
        checks.boolean("cache", params["cache"])
        positive = self._positive_index(params["positive"])
        base = self.locate(params["root"])
        samples = self.samples(base, split)
        samples = [samples[i] for i in evenly_spaced(len(samples), params[f"{split}_size"])]
        if not samples:
            raise DataError(f"{self.name}: expected images in split {split!r} of {base}, got none")
        self._check_pairs(base, samples)
        wanted = self.split_files(split) + [s.label for s in samples]
        if want_images:
            wanted += [s.image for s in samples]
        wanted = list(dict.fromkeys(wanted))
        digests = self._digests(base, wanted, params["verify"])
        size, padded = self._size(base, samples, height, width)
        shape = (len(samples), *size)
        channels = len(self.mean)

        def decode(images: UInt8Array | None, labels: UInt8Array) -> None:
            def one(index: int) -> None:
                image, label = self._pair(base, samples[index], images is not None)
                if padded and self.void is not None:
                    label = imageio.pad_mask(label, *size, self.void)
                label = imageio.resize_mask(label, *size)
                if positive is not None:
                    label = np.where(label == self.void, label, label == positive).astype(np.uint8)
                labels[index] = label
                if images is not None and image is not None:
                    image = imageio.pad_image(image, *size) if padded else image
                    images[index] = imageio.resize_image(image, *size)

            # Pillow decodes without the interpreter's lock
            in_threads(one, range(len(samples)), min(4, os.cpu_count() or 1))

        checksum = None
        images: UInt8Array | None = None
        if want_images and params["cache"]:
            description = {
                "name": self.name,
                "split": split,
                "size": list(size),
                "positive": positive,
                "void": self.void,
                "loader": self.loader_version,
                "padded": padded,
                "facts": self.cache_facts(),
                "options": {k: v for k, v in params.items() if k not in _COMMON},
                "files": [[s.id, digests[s.image], digests[s.label]] for s in samples],
            }
            key = arrays.cache_key(description)
            entry = arrays.find(key) or arrays.make(
                key, (*shape, channels), shape, decode, description
            )
            images, labels, checksum = entry.images, entry.labels, entry.checksum
        else:
            labels = np.empty(shape, dtype=np.uint8)
            images = np.empty((*shape, channels), dtype=np.uint8) if want_images else None
            decode(images, labels)
        thing = None if positive is None else self.classes[positive]
        return SegmentationDataset(
            name=self.name,
            split=split,
            classes=self.classes if thing is None else ("background", thing),
            mode=self.mode if thing is None else "binary",
            images=images,
            labels=labels,
            ids=[s.id for s in samples],
            groups=[s.group for s in samples],
            mean=self.mean,
            std=self.std,
            ignore_index=self.void,
            params=params,
            checksum=checksum,
            intensity=self.cache_facts().get("intensity") if want_images else None,
        )

    def cache_facts(self) -> dict[str, Any]:
        """What else shapes the arrays, JSON-able: part of the cache key."""
        return {}

    loader_version: ClassVar[int] = 1
    """Part of the cache key: raise it when :meth:`read_image` or :meth:`read_label` changes."""

    # -- steps ---------------------------------------------------------------------------------

    def _positive_index(self, positive: Any) -> int | None:
        if positive is None:
            return None
        if self.mode == "binary":
            raise DataError(
                f"{self.name}: expected positive=None, got {positive!r}; the set is binary already"
            )
        if positive not in self.classes:
            raise DataError(
                f"{self.name}: expected positive to be one of its classes, got {positive!r}; "
                f"{near_matches(positive, self.classes)}"
            )
        return self.classes.index(positive)

    def _check_pairs(self, base: Path, samples: Sequence[Sample]) -> None:
        for field, other in (("image", "label"), ("label", "image")):
            missing = [s for s in samples if not (base / self.file_of(getattr(s, field))).exists()]
            if missing:
                what = "image" if field == "image" else "mask"
                raise DataError(
                    f"{self.name}: expected the {what} {base / getattr(missing[0], field)} of "
                    f"{getattr(missing[0], other)}, found none ({len(missing)} missing: "
                    f"{shorten(s.id for s in missing)}); restore it or take it off the split"
                )

    def file_of(self, name: str) -> str:
        """The file, relative to the base, that holds the image or mask ``name``."""
        return name

    def _digests(self, base: Path, files: Sequence[str], verify: bool) -> dict[str, str]:
        if not (verify and self.registered):
            holders = {name: self.file_of(name) for name in files}
            digests = integrity.digests(self.name, base, list(dict.fromkeys(holders.values())))
            return {name: digests[holder] for name, holder in holders.items()}
        return integrity.verify(self.name, base, files, self.expected_digests(base, files))

    def expected_digests(self, base: Path, files: Iterable[str]) -> dict[str, set[str]]:
        """What the registry, or the manifest that a download left, says of these files."""
        known = integrity.registered(self.name)
        for file, found in integrity.manifest(base).items():
            known.setdefault(self.registry_path(file), set()).update(found)
        keys = {file: self.registry_path(file) for file in files}
        return {file: known[key] for file, key in keys.items() if key in known}

    def registry_path(self, file: str) -> str:
        """Path in the registry of a file given relative to the data set's folder."""
        return file if self.inner == "." else f"{self.inner}/{file}"

    def _size(
        self, base: Path, samples: Sequence[Sample], height: int | None, width: int | None
    ) -> tuple[tuple[int, int], bool]:
        """Return ((height, width), whether images are padded to it)."""
        if height is not None and width is not None:
            return (height, width), False
        return self.size_of({self.image_size(base, s) for s in samples}, height, width)

    def size_of(
        self, sizes: set[tuple[int, int]], height: int | None, width: int | None
    ) -> tuple[tuple[int, int], bool]:
        """((height, width) to load to, whether images are padded to it), of the files' sizes.

        Raises:
            DataError: several sizes where neither is given and nothing can be padded.
        """
        if height is not None and width is not None:
            return (height, width), False
        native = max(h for h, _ in sizes), max(w for _, w in sizes)
        if height is not None:
            return (height, max(1, round(native[1] * height / native[0]))), False
        if width is not None:
            return (max(1, round(native[0] * width / native[1])), width), False
        if len(sizes) > 1 and not (self.pads and self.void is not None):
            small, large = min(sizes), max(sizes)
            raise DataError(
                f"{self.name}: expected images of one size, got {len(sizes)} sizes from "
                f"{small[0]}×{small[1]} to {large[0]}×{large[1]}; give height and width"
            )
        return native, len(sizes) > 1

    def _pair(
        self, base: Path, sample: Sample, want_image: bool
    ) -> tuple[UInt8Array | None, UInt8Array]:
        label = self.read_label(base, sample)
        image = self.read_image(base, sample) if want_image else None
        size = self.image_size(base, sample) if image is None else image.shape[:2]
        self.refuse_sizes(base, sample, (int(size[0]), int(size[1])), label.shape)
        return image, label

    def refuse_sizes(
        self, base: Path, sample: Sample, size: tuple[int, int], label_size: tuple[int, ...]
    ) -> None:
        """Raise DataError where image and mask, (height, width), are of different size."""
        if size != label_size:
            raise DataError(
                f"{self.name}: expected image and mask of one size, got {size[0]}×{size[1]} of "
                f"{base / sample.image} and {label_size[0]}×{label_size[1]} of "
                f"{base / sample.label}; correct one of them"
            )


def listed_split(name: str) -> dict[str, list[str]]:
    """Our split of a set that has no official one: ``data/registry/splits.json``."""
    file = paths.registry_dir() / "splits.json"
    try:
        splits: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{name}: expected its split in {file}, got {error!r}; restore data/registry from "
            "version control"
        ) from None
    return splits


def read_lines(path: Path, name: str, *, own: bool = False) -> list[str]:
    """Non-empty lines of a split file.

    Args:
        path: the file.
        name: of the data set.
        own: whether the user wrote the file, and so can mend it.

    Raises:
        DataError: no such file, nothing in it, or no text of UTF-8.
    """
    again = "fetch the set again"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{name}: expected the split file {path}, found none; {again}") from None
    except (OSError, UnicodeDecodeError) as error:
        remedy = "change its permissions"
        if isinstance(error, UnicodeDecodeError):
            remedy = "save it as UTF-8" if own else again
        raise DataError(
            f"{name}: expected a readable split file {path}, got {error}; {remedy}"
        ) from None
    # a name of one's own may begin or end with a blank
    lines = [line if own else line.strip() for line in lines if line.strip()]
    if not lines:
        raise DataError(
            f"{name}: expected names in the split file {path}, got an empty file; "
            + ("write names into it, or remove the lists of all splits" if own else again)
        )
    return lines


def first_there(base: Path, *names: str) -> str:
    """The first of these files that is in ``base``; the first of all where none is, which is missed later."""
    return next((name for name in names if (base / name).is_file()), names[0])


def stems(folder: Path, suffixes: Iterable[str]) -> dict[str, str]:
    """Names without suffix → file names of a folder; an earlier suffix wins."""
    found: dict[str, str] = {}
    files = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    for suffix in reversed(list(suffixes)):
        found.update({f[: -len(suffix)]: f for f in files if f.lower().endswith(suffix)})
    return found

"""Your own data: a folder of images and a folder of masks, matched by the stem of their names.

```
ROOT/images/001.png   ROOT/masks/001.png       (png, jpg, jpeg, tif, tiff, webp, bmp, gif, npy)
ROOT/images/day2/7.tif  ROOT/masks/day2/7.png  (subfolders alike on both sides)
ROOT/images/scan.nii.gz ROOT/masks/scan.nii.gz (volumes, read as slices scan/0000, scan/0001 …)
ROOT/classes.yaml                              (optional)
ROOT/train.txt, val.txt, test.txt              (optional: one stem a line)
```

``classes.yaml`` may hold ``classes`` (a list of names by index), ``ignore_index``, ``values`` (what
the masks store → class name or "void", as ``{0: background, 255: thing}``), ``palette`` (class
name or "void" → [red, green, blue], for colour-coded masks), ``masks`` (file name of a mask, as
``"{stem}_mask.png"``), ``mean`` and ``std`` (per channel, on the scale 0…1), ``intensity`` ([low,
high], see below). Without ``classes`` the names in ``values`` or ``palette`` are the classes, in their
order. Without the file the classes are the values 0…K of the masks, and 255 is void where it occurs.

Images of 16 bits, and floating-point arrays, are brought to 8 bits linearly: ``intensity`` gives the
two values that become 0 and 255; without it the least and the greatest value of the *training*
images do, for all splits alike.

Subfolders named train, val and test (or training, valid, validation, testing), alike on both sides, are the splits
where there are no split files. Without either the stems are dealt out by the SHA-256 of ``seed`` and stem, so
that an image keeps its split when others are added: 70 % train, 15 % val, 15 % test on average. The slices of a
volume stay together, in the split that the volume's stem falls into, and are one group.

:mod:`lossatlas.data.reading` decodes each file. :mod:`lossatlas.data.checking` runs the same steps as
the loader here and collects what they refuse.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path, PureWindowsPath
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lossatlas.data import checks, imageio, reading, volumes
from lossatlas.data.dataset import SPLITS, SegmentationDataset
from lossatlas.data.errors import DataError, shorten
from lossatlas.data.files import FileDataset, Sample, read_lines
from lossatlas.data.settings import CUSTOMARY_VOID, read_settings
from lossatlas.data.settings import NAMES as SETTINGS

UInt8Array = npt.NDArray[np.uint8]

SUFFIXES: tuple[str, ...] = (".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".npy", ".jpg")
SUFFIXES += (".jpeg", *volumes.SUFFIXES)
_SUFFIX = re.compile(rf"(?<=[^/])({'|'.join(map(re.escape, SUFFIXES))})$", re.IGNORECASE)
#: Subfolders of ``images`` and ``masks`` that name a split.
_SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
#: Files that could list a split and are no ``.txt``; a spreadsheet's names take another package to read.
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".parquet")
#: Nor does anybody look into these; a split or a fold in their name is enough.
_OTHER_CLOSED = (".pkl", ".pickle", ".npz", ".npy", ".mat")
#: Their name says that they do, since nobody looks into them: "data_splits", "folds", "kfold", no "portfolio".
_OF_SPLITS = re.compile(r"(?<![a-z])(split|k?fold)s?(?![a-z])", re.IGNORECASE)
_TABLES = (".csv", ".tsv", ".tab", ".lst", ".list", "")
_CONFIGURATIONS = (".json", ".jsonl", ".yaml", ".yml")
_LISTS = (*_TABLES, *_CONFIGURATIONS, *_SPREADSHEETS)
#: What parts two cells of a table, and what may stand around one.
_BETWEEN, _AROUND = r"[\r\n\t,;|:]+", " -'\"[]{}"
#: Bytes of a table that are searched for names of images, and lines where names are looked for one by one.
_LOOKED_AT = 1 << 20
_LINES = 2_000
_JUNK = ("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "__macosx", "@eadir")
"""What operating systems leave in folders, beside every name that begins with a dot."""


@dataclass
class Layout:
    """What lies in the folder: files by stem, and what was passed over.

    A stem is the path below ``images`` or ``masks`` without the suffix, Unicode-normalised: macOS
    writes an accent as a letter of its own.
    """

    root: Path
    images: dict[str, str]
    masks: dict[str, str]
    doubled: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    junk: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unfitting: list[str] = field(default_factory=list)
    masks_in: Path | None = None

    @property
    def mask_folder(self) -> Path:
        """Where the masks are."""
        return self.masks_in or self.root / "masks"

    @property
    def pairs(self) -> list[str]:
        """Stems with an image and a mask, sorted."""
        return sorted(set(self.images) & set(self.masks))

    @cached_property
    def nameable(self) -> dict[str, list[str]]:
        """What a list of a split may name → its stems: an image, or a volume for its slices."""
        slices: dict[str, list[str]] = {}
        for stem, file in sorted(self.images.items()):
            if volumes.is_slice(Path(file)):
                slices.setdefault(stem.rpartition("/")[0], []).append(stem)
        return slices | {stem: [stem] for stem in self.images}

    def faults(self) -> Iterator[DataError]:
        """Everything that keeps the folder from being loaded before any file is opened."""
        if self.doubled:
            yield DataError(
                f"folder: expected one file a stem in {self.root}, got {shorten(self.doubled)} "
                "beside another of the same name; remove one",
                self.doubled,
            )
        images, masks = set(self.images), set(self.masks)
        for files, lonely, what in (
            (self.images, sorted(images - masks), "a mask for each image"),
            (self.masks, sorted(masks - images), "an image for each mask"),
        ):
            if lonely:
                hint = self._hint() or "`lossatlas data check` lists everything that is wrong"
                yield DataError(
                    f"folder: expected {what} in {self.root}, {len(lonely)} have none "
                    f"({shorten(lonely)}); {hint}",
                    [files[stem] for stem in lonely],
                )
        if not (self.images and self.masks):  # where both are there, the names are told above
            yield DataError(
                f"folder: expected pairs of image and mask in {self.root}, got none of "
                f"{', '.join(SUFFIXES)}; put them there",
                [str(self.root)],
            )

    def mask_faults(self) -> Iterator[DataError]:
        """What keeps masks from meaning classes: lossy ones without declared values, and palettes that disagree."""
        if not {"palette", "values"} & set(self.settings):
            for stem in self.pairs:
                if lossy := self._headers[stem].lossy:
                    yield _lossy_fault(self.root / self.masks[stem], lossy, self.masks[stem])
        clash = self._clash
        if clash is not None and not self.greys and "values" not in self.settings:
            index, (before, first), (colour, name) = clash
            yield DataError(
                f"folder: expected one palette in all masks, got index {index} as the colour {list(before)} in {first} "
                f"and {list(colour)} in {name}; name the colours as palette in classes.yaml, or, where the indices are "
                "the classes, write values: {0: background, 1: …}",
                [first, name],
            )

    @cached_property
    def _headers(self) -> dict[str, reading.Header]:
        return {stem: reading.header(self.root / self.masks[stem]) for stem in self.pairs}

    @cached_property
    def _used(self) -> dict[str, Mapping[int, reading.Colour]]:
        """The colours of the indices that each palette mask holds, by file; read only where the palettes matter."""
        if "palette" in self.settings:
            return {}
        palettes = {self._headers[stem].palette for stem in self.pairs} - {None}
        if not palettes:
            return {}
        (one,) = palettes if len(palettes) == 1 else ((),)
        if one and not reading.is_grey(one):
            return {}  # the same colours in every mask
        found = {}
        for stem in self.pairs:
            if self._headers[stem].palette is not None:
                try:
                    found[self.masks[stem]] = reading.read_mask(
                        self.root / self.masks[stem]
                    ).palette
                except DataError:
                    continue  # said when it is read
        return found

    @cached_property
    def _clash(self) -> tuple[int, tuple[reading.Colour, str], tuple[reading.Colour, str]] | None:
        """An index that two masks colour differently: it is no class then. Colours that no pixel has do not count."""
        known: dict[int, tuple[reading.Colour, str]] = {}
        for name, colours in self._used.items():
            for index, colour in colours.items():
                before = known.setdefault(index, (colour, name))
                if before[0] != colour:
                    return index, before, (colour, name)
        return None

    @cached_property
    def greys(self) -> bool:
        """Whether palette masks are read by their greys and not by their indices.

        Programs that save a grey mask of few values renumber them: white first, or each file in its own way. It shows
        where the greys do not rise with the index in all masks alike. Else the indices count, as in a palette that
        only displays them, unless the greys are themselves class indices.
        """
        used = self._used
        if not used or not all(used.values()):
            return False  # no palette, or one that has no colour for an index
        of_mask = [{index: colour[0] for index, colour in each.items()} for each in used.values()]
        if not all(reading.is_grey(colours.values()) for colours in used.values()):
            return False
        if any(len(set(each.values())) < len(each) for each in of_mask):
            return False
        indices, greys = (
            {*each}
            for each in zip(*(pair for each in of_mask for pair in each.items()), strict=True)
        )
        values = self.settings.get("values")
        if values is not None:
            return greys <= set(values) and not indices <= set(values)
        rising = all(
            sorted(each.values()) == [each[index] for index in sorted(each)] for each in of_mask
        )
        if self._clash is not None or not rising:
            return True
        return greys != indices and max(greys) < len(self.settings.get("classes", range(100)))

    def _hint(self) -> str:
        """How names that only look alike could be brought together, or ""."""
        images, masks = set(self.images) - set(self.masks), set(self.masks) - set(self.images)
        names = {mask: self.masks[mask] for mask in masks}
        if self.unfitting:  # the pattern that is given leaves them out
            names = {str(Path(each).with_suffix("")): each for each in self.unfitting}
            masks = set(names)
        folded = {_look(stem): stem for stem in images}
        alike = [(folded[_look(m)], m) for m in sorted(masks) if _look(m) in folded]
        if alike:
            image, mask = alike[0]
            plain = f"{image}{mask}".isascii()
            code = "" if plain else f" ({image!a}, {mask!a})"  # two alphabets print alike
            return (
                f"names must be the same letter by letter: {len(alike)} only look alike, as "
                f"{image!r} and {mask!r}{code}"
            )
        added = Counter(
            (mask[: mask.index(stem)], mask[mask.index(stem) + len(stem) :], Path(name).suffix)
            for mask, name in ((Path(m).name, names[m]) for m in masks)
            for stem in _parts_of(mask, {Path(i).name for i in images})
        )
        if added:
            (before, after, suffix), count = added.most_common(1)[0]
            return f"write masks: '{before}{{stem}}{after}{suffix}' into classes.yaml, which pairs {count}"
        return ""


#: Small letters of Cyrillic and Greek that a reader takes for Latin ones.
_TWINS = str.maketrans("авсеіјкмнорѕтухαοιρν", "abceijkmhopstyxaoipv")


def _look(stem: str) -> str:
    """What a reader sees of a name: without case, spaces, kinds of dash, alphabets, accents and leading zeros."""
    text = unicodedata.normalize("NFKD", stem).casefold().translate(_TWINS)
    seen = "".join(
        c for c in text if unicodedata.category(c) not in ("Mn", "Cf")
    )  # accents, zero widths
    dashed = re.sub(r"[\s_\-\u2010-\u2015]+", "-", seen).strip("-")
    return re.sub(r"(?<![\d.])0+(?=\d)", "", dashed)


def _parts_of(mask: str, images: set[str]) -> Iterator[str]:
    """The longest image name that begins or ends the mask's name."""
    for length in range(len(mask) - 1, 0, -1):
        for part in (mask[:length], mask[-length:]):
            if part in images:
                yield part
                return


def read_layout(root: Path) -> Layout:
    """List the folder and its subfolders.

    Raises:
        DataError: no such folder, no ``images`` or ``masks`` in it, or a faulty ``classes.yaml``.
    """
    if not root.is_dir():
        raise DataError(f"folder: expected a folder root={str(root)!r}, found none; correct root")
    for part in ("images", "masks"):
        if not (root / part).is_dir():
            there = sorted(
                f"{p.name}/" for p in root.iterdir() if p.is_dir() and not _is_junk(p.name)
            )
            but = f" but {shorten(there)}" if there else ""
            raise DataError(
                f"folder: expected images/ and masks/ in {root}, found no {part}/{but}; put the files "
                "there, matched by name, those of a split into images/train and masks/train"
            )
    layout = Layout(root, {}, {}, settings=read_settings(root))
    pattern = layout.settings.get("masks")
    for part, files in (("images", layout.images), ("masks", layout.masks)):
        for name in _files_below(root / part, layout):
            inside = f"{part}/{name}"
            stem = _stem_of(name, pattern if part == "masks" else None)
            if stem is None:
                fits_not = part == "masks" and pattern and _stem_of(name, None) is not None
                (layout.unfitting if fits_not else layout.unread).append(inside)
            elif stem in files:
                layout.doubled.append(inside)
            else:
                files[stem] = inside
    layout.unread += _beside(root)  # last: what lies among the images and masks matters more
    return layout


def _beside(root: Path) -> list[str]:
    """Files of the folder itself that nothing reads, and the lists of splits in its other folders."""
    unread: list[Path] = []
    for path in sorted(root.iterdir()):
        if _is_junk(path.name) or path.name in ("images", "masks"):
            continue
        if path.is_dir():
            unread += sorted(_lists_below(path))
        elif path.name.casefold() not in SETTINGS and _listing(path)[1] != ".txt":
            unread.append(path)
    return [path.relative_to(root).as_posix() for path in unread]


def _lists_below(folder: Path, depth: int = 2) -> Iterator[Path]:
    """Lists of splits in a folder and its own, as ``ImageSets/Segmentation/train.txt``; it may hold many files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if stem.casefold() in _SPLIT_FOLDERS and suffix.casefold() in (".txt", *_LISTS):
                if entry.is_file():
                    yield Path(entry.path)
            elif depth > 1 and entry.is_dir():
                yield from _lists_below(Path(entry.path), depth - 1)


def _listing(path: Path) -> tuple[str | None, str | None]:
    """(split, suffix) of a file that is named as the list of a split, else (None, None)."""
    split = _SPLIT_FOLDERS.get(path.stem.casefold())
    return (split, path.suffix.casefold()) if split and path.is_file() else (None, None)


def split_lists(root: Path, known: Iterable[str]) -> dict[str, Path]:
    """The file that lists each split: ``train.txt``, ``val.txt``, ``test.txt``, or as people call them.

    Args:
        root: the folder.
        known: images and volumes that a list may name, by which a table is told from another program's file.

    Raises:
        DataError: two lists of one split, or a list that is no ``.txt``.
    """
    found: dict[str, Path] = {}
    others: list[tuple[str, Path]] = []
    for path in sorted(root.iterdir()):
        split, suffix = _listing(path)
        if split and suffix in _LISTS:
            others.append((split, path))
        elif split and suffix == ".txt":
            if split in found:
                raise DataError(
                    f"folder: expected one list of the split {split}, got {found[split].name} and {path.name}; remove "
                    "one"
                )
            found[split] = path
    known = list(known)
    names = {Path(each).name for each in known}
    sorted_into_folders = any(each.split("/")[0].casefold() in _SPLIT_FOLDERS for each in known)
    for split, path in others:
        if sorted_into_folders and path.suffix.casefold() in _CONFIGURATIONS:
            continue  # annotations beside the folders that say the splits
        if split not in found and _names_some(path, names):
            raise DataError(
                f"folder: expected the names of a split in {split}.txt, one a line, got {path.name}; save it so, or "
                "move it out of the folder"
            )
    if not found and not sorted_into_folders:
        _refuse_table_of_splits(root, names)
    return {split: found[split] for split in SPLITS if split in found}


def _refuse_table_of_splits(root: Path, names: set[str]) -> None:
    """Raise where one file says the split of each image: to deal them out anew would part what it holds together."""
    for path in sorted(root.iterdir()):
        read = path.suffix.casefold() in (".txt", *_TABLES, *_CONFIGURATIONS) and path.is_file()
        named = path.name.casefold() in SETTINGS or _is_junk(path.name) or _listing(path)[0]
        closed = path.suffix.casefold() in (*_SPREADSHEETS, *_OTHER_CLOSED)
        called = _OF_SPLITS.search(path.stem)
        lists = called and (closed or (read and _names_some(path, names, called=True)))
        if lists or (read and not named and len(_splits_named(path, names)) > 1):
            folds = called and "fold" in called[1].casefold()
            remedy = "save those of one fold so, and train once a fold" if folds else "save them so"
            raise DataError(
                f"folder: expected the splits in train.txt, val.txt and test.txt, a name a line, got them in "
                f"{path.name}; {remedy}, or move it out of the folder"
            )


def _splits_named(path: Path, names: set[str]) -> set[str]:
    """Splits that a file gives to images: a table line by line, a configuration where it names files at all.

    Bare numbers must be half of the images: one in a note or in a table of results may be an image's name by chance. A
    log of a training has lines of train and of val for one epoch.
    """
    text = _beginning(path)
    odd = {name for name in _odd(names) if name in text.replace('""', '"').replace('\\"', '"')}
    if path.suffix.casefold() in _CONFIGURATIONS:
        words, _, files = _words(text, names, odd)
        return _splits_among(words) if files else set()
    lines = text.splitlines()
    looked_at = lines[: max(_LINES, _LOOKED_AT // max(1, len(odd)))]
    given: dict[str, set[str]] = {}
    # Or a column for each split, and below them names, perhaps behind the number of the line.
    columns: set[str] = set()
    listed: set[str] = set()
    for line in looked_at:
        words, named, _ = _words(line, names, odd)
        splits = _splits_among(words - named)
        if len(splits) == 1:
            for name in named:
                given.setdefault(name, set()).update(splits)
        elif len(splits) > 1 and not named and len(words) <= len(splits) + 1:
            columns = splits
        elif columns and all(word.isdecimal() for word in words - named):
            listed |= named
    nameable = len(names) if len(looked_at) == len(lines) else min(len(names), len(looked_at))

    def certain(found: Collection[str]) -> bool:
        return 2 * len(found) >= nameable or not all(name.isdecimal() for name in found)

    if listed and certain(listed):
        return columns
    once = all(len(splits) == 1 for splits in given.values())
    return set().union(*given.values()) if once and certain(given) else set()


def _splits_among(words: Iterable[str]) -> set[str]:
    return {_SPLIT_FOLDERS[w.casefold()] for w in words if w.casefold() in _SPLIT_FOLDERS}


def _names_some(path: Path, names: set[str], *, called: bool = False) -> bool:
    """Whether a table names an image, in whichever folder; a spreadsheet is taken to.

    A configuration names one by its file, or nothing else: a number in it may be an image's name by chance. One that
    is ``called`` after splits or folds names one by any other word.
    """
    if path.suffix.casefold() in _SPREADSHEETS:
        return True
    words, named, files = _words(_beginning(path), names, _odd(names))
    if path.suffix.casefold() in _CONFIGURATIONS:
        certain = files or (called and any(not word.isdecimal() for word in named))
        return bool(certain) or 2 * len(named) > len(words)
    return bool(named)


def _beginning(path: Path) -> str:
    """The text of a table, as far as it is looked at; "" where it cannot be read, which is listed elsewhere."""
    try:
        with path.open("rb") as file:
            content = file.read(_LOOKED_AT)
    except OSError:
        return ""
    # What Excel saves: "Unicode text", CSV in UTF-8, or in the letters of Windows.
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        decoder = codecs.getincrementaldecoder("utf-16" if utf_16 else "utf-8-sig")()
        text = decoder.decode(content)  # the last letter may be cut
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), text)  # JSON
    return unicodedata.normalize("NFC", text)


def _odd(names: set[str]) -> set[str]:
    """Names that no word of a table is equal to: they hold what parts two cells, or end in what stands around one."""
    return {n for n in names if re.search(f'{_BETWEEN}|"', n) or n.strip(_AROUND) != n}


def _words(text: str, names: set[str], odd: set[str]) -> tuple[set[str], set[str], set[str]]:
    """The words of a table, those of them that name an image, and those of these that are names of files."""
    cells = re.split(_BETWEEN, text)
    words = {word.strip(_AROUND) for cell in cells for word in (cell, *cell.split())} - {""}
    last = {word: re.split(r"[/\\]", word)[-1] for word in words}
    named = {word for word in words if _SUFFIX.sub("", last[word]) in names}
    files = {word for word in named if _SUFFIX.search(last[word])}
    plain = text.replace('""', '"').replace('\\"', '"')  # as CSV and JSON write a quote in a cell
    held = {name for name in odd if name in plain}
    return words, named | held, files | {name for name in held if f"{name}." in plain}


def read_masks_layout(root: Path, like: dict[str, Any] | None = None) -> Layout:
    """List the masks of a folder that needs no images: those in ``masks``, else in ``root`` itself.

    Each mask stands for its image too, so that ``pairs`` are all masks. Of a folder called ``masks`` the
    ``classes.yaml`` beside it counts.

    Args:
        root: the folder.
        like: settings that hold where the folder has none; their pattern of names only if it fits a mask.

    Raises:
        DataError: no such folder, a faulty ``classes.yaml``, no mask, or two masks of one stem.
    """
    if not root.is_dir():
        raise DataError(f"folder: expected a folder root={str(root)!r}, found none; correct root")
    own = read_settings(root)
    if not own and root.resolve().name == "masks":
        own = read_settings(root.resolve().parent)
    settings = own or like or {}
    inside = root / "masks" if (root / "masks").is_dir() else root
    layout = Layout(root, {}, {}, settings=settings, masks_in=inside)
    if inside == root and (root / "images").is_dir():
        raise DataError(f"folder: expected masks/ beside images/ in {root}, found none; add it")
    names = [n for n in _files_below(inside, layout) if n.casefold() not in SETTINGS]
    pattern = settings.get("masks")
    if not own and not any(_stem_of(name, pattern) for name in names):
        pattern = None
    for name in names:
        path = (inside / name).relative_to(root).as_posix()
        stem = _stem_of(name, pattern)
        if stem is None:
            layout.unread.append(path)
        elif stem in layout.masks:
            layout.doubled.append(path)
        else:
            layout.masks[stem] = path
    if not layout.masks:
        raise DataError(
            f"folder: expected masks in {inside}, got none of {', '.join(SUFFIXES)}; put them there"
        )
    _say_unread(inside, "mask", layout)
    layout.images = dict(layout.masks)
    for fault in (*layout.faults(), *layout.mask_faults()):
        raise fault
    return layout


def image_files(images: Path) -> dict[str, Path]:
    """Images of a folder and its subfolders by stem, or one image.

    Raises:
        DataError: no such file or folder, no image in it, or two images of one stem.
    """
    if images.is_file():
        names = _slices(images.parent, images.name)
        return {_stem_of(name, None) or images.stem: images.parent / name for name in names}
    if not images.is_dir():
        raise DataError(f"{images}: expected an image or a folder of images, found none")
    layout = Layout(images, {}, {})
    found: dict[str, Path] = {}
    for name in _files_below(images, layout):
        stem = _stem_of(name, None)
        if stem in found:
            raise DataError(
                f"{images}: expected one image a stem, got {found[stem].name} and "
                f"{Path(name).name}; remove one"
            )
        if stem is None:
            layout.unread.append(name)
        else:
            found[stem] = images / name
    if not found:
        raise DataError(f"{images}: expected images, got none of {', '.join(SUFFIXES)}")
    _say_unread(images, "image", layout)
    return found


def _say_unread(folder: Path, what: str, layout: Layout) -> None:
    if layout.unread:
        _say_once(f"{folder}: passed over, no {what} that is read: {shorten(layout.unread)}")


@cache
def _say_once(text: str) -> None:
    """Say it on standard error, as standard output may hold a result; the three splits of a set say it once."""
    print(text, file=sys.stderr)


def _files_below(folder: Path, layout: Layout) -> Iterator[str]:
    """Paths of all files relative to ``folder``, sorted; junk and linked folders are listed."""

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: expected a folder that can be read, got {error.strerror}; change its permissions"
        ) from None

    for here, folders, files in os.walk(folder, onerror=refuse):
        below = Path(here).relative_to(folder)
        for name in sorted(folders):
            path = Path(here) / name
            if _is_junk(name):
                layout.junk.append(f"{folder.name}/{below / name}")
            elif path.is_symlink():
                layout.unread.append(f"{folder.name}/{below / name}")
        folders[:] = sorted(n for n in folders if not _is_junk(n))
        for name in sorted(files):
            if _is_junk(name):
                layout.junk.append(f"{folder.name}/{below / name}")
            elif not (Path(here) / name).is_file():
                layout.unread.append(f"{folder.name}/{below / name}")
            else:
                yield from _slices(folder, (below / name).as_posix())


def _slices(folder: Path, name: str) -> list[str]:
    """The file, or the slices of a volume; a damaged volume is listed whole, and refused when read."""
    if not volumes.is_volume(name):
        return [name]
    return [f"{name}/{index}" for index in volumes.slices(folder / name)] or [name]


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _stem_of(name: str, pattern: str | None) -> str | None:
    """Stem of a file, given relative to its folder; None if it is no file that is read.

    >>> _stem_of("day/1_mask.png", "{stem}_mask.png"), _stem_of("1.txt", None)
    ('day/1', None)
    """
    path = Path(name)
    if volumes.is_slice(path):
        stem = _stem_of(path.parent.as_posix(), pattern)
        return None if stem is None else f"{stem}/{path.name}"
    if path.suffix.lower() not in SUFFIXES and not volumes.is_volume(name):
        return None
    stem = volumes.stem_of_volume(path.name) if volumes.is_volume(name) else path.stem
    if pattern is not None:
        before, after = pattern.split("{stem}")
        suffixed = Path(after).suffix.lower() in SUFFIXES or volumes.is_volume(after)
        whole = path.name if suffixed else stem
        if not (whole.startswith(before) and whole.endswith(after)):
            return None
        stem = whole[len(before) : len(whole) - len(after)]
        if not stem:
            return None
    return unicodedata.normalize("NFC", path.with_name(stem).as_posix())


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
    # 2: EXIF orientation, palettes and 16-bit colour are read as they are meant; 3: palettes of greys by their greys
    loader_version = 3

    mean: ClassVar[tuple[float, ...]] = ()
    std: ClassVar[tuple[float, ...]] = ()

    def __init__(self, *, ignore_index: int | None = None, seed: int = 0) -> None:
        self._given_void = checks.optional_integer("ignore_index", ignore_index, 0, 255)
        self.seed = checks.integer("seed", seed, 0)

    def find(self, root: Any = None) -> Path | None:
        """The folder ``root``, if it has images and masks."""
        if root is None:
            return None
        path = checks.folder("root", root)
        both = (path / "images").is_dir() and (path / "masks").is_dir()
        return path.resolve() if both else None

    def how_to_get(self) -> str:
        """The parameter that names the data."""
        return "give root=, a folder with images/ and masks/"

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Pairs of the split."""
        return self._bind(base).samples(base, split)

    def _bind(self, root: Path) -> Bound:
        layout = read_layout(root)
        _say_unread(root, "image or mask", layout)
        for fault in (*layout.faults(), *layout.mask_faults()):
            raise fault
        names, void = classes_of(layout, self._given_void)
        if "classes" not in layout.settings:
            said = f"folder: classes inferred from the masks: {', '.join(names)}; void: {void}"
            print(said, file=sys.stderr)  # standard output may hold a result
        return Bound(layout, names, void, self.seed)

    def _load(self, split: str, params: dict[str, Any], want_images: bool) -> SegmentationDataset:
        if params["root"] is None:
            raise DataError("folder: expected root=, a folder with images/ and masks/, got none")
        bound = self._bind(checks.folder("root", params["root"]))
        return FileDataset._load(bound, split, params, want_images)


def classes_of(
    layout: Layout, void: int | None, *, whole: bool = True
) -> tuple[list[str], int | None]:
    """(names, void) as ``classes.yaml`` says, else as the values of the masks suggest.

    ``whole``: raise at a mask that cannot be read, else pass it over.

    Raises:
        DataError: values that can be classes in more than one way, or are no class indices; two void labels.
    """
    settings = layout.settings
    declared = settings.get("ignore_index", void)
    if void not in (None, declared):
        raise DataError(
            f"folder: expected one ignore_index, got {void} in the call and {declared} in classes.yaml; take one off"
        )
    void = declared
    named = [*settings.get("palette", {}), *settings.get("values", {}).values()]
    if void is None and "void" in named:
        void = CUSTOMARY_VOID
    if "classes" in settings:
        return list(settings["classes"]), void
    masks = _mask_values(layout, whole=whole)
    values = {value for mask in masks for value in mask}
    if void is None and CUSTOMARY_VOID in values and max(values) == CUSTOMARY_VOID:
        # {0, 255} is how many tools write a binary mask: then 255 is the thing, not void.
        if values <= {0, CUSTOMARY_VOID}:
            raise DataError(
                f"folder: expected class indices in {layout.mask_folder}, got the "
                "values 0 and 255 alone, which may be a class or void; say which: classes.yaml "
                "with 'values: {0: background, 255: thing}', or ignore_index=255"
            )
        # Void lies along objects: in some mask it meets a class, unless the masks come from two tools.
        if {0, CUSTOMARY_VOID} in masks and not any(
            CUSTOMARY_VOID in mask and mask - {0, CUSTOMARY_VOID} for mask in masks
        ):
            raise DataError(
                f"folder: expected class indices in {layout.mask_folder}, got masks of 0 and 255 alone beside masks of "
                "classes without 255: do some masks store the object as 1, others as 255? say which: classes.yaml with "
                "'values: {0: background, 1: thing, 255: thing}', or ignore_index=255 if it is void"
            )
        void = CUSTOMARY_VOID
    classes = values - {void}
    lowest, highest = min(classes, default=0), max(max(classes, default=0), 1)
    if lowest < 0 or highest > 99:
        raise DataError(
            f"folder: expected class indices from 0 up in {layout.mask_folder}, got values from "
            f"{lowest} to {highest}; say in classes.yaml what each means, as 'values: {{0: background, "
            f"{highest if highest > 99 else lowest}: thing}}' with void for what has no label"
        )
    absent = sorted(set(range(1, highest + 1)) - values)
    # one that no mask holds may be meant
    if max(classes, default=0) > 0 and 2 * len(absent) >= highest:
        raise DataError(
            f"folder: expected class indices from 0 up in {layout.mask_folder}, got the values "
            f"{', '.join(map(str, sorted(values)))} and no {absent[0]}; say in classes.yaml what each means, as "
            "'values: {0: background, 255: thing}', or list all classes"
        )
    return ["background", *(f"class_{i}" for i in range(1, highest + 1))], void


def _mask_values(layout: Layout, *, whole: bool) -> set[frozenset[int]]:
    """The values that a mask of the folder holds, once for all masks that hold the same."""
    seen: set[frozenset[int]] = set()
    for stem in layout.pairs:
        path = layout.root / layout.masks[stem]
        try:
            mask = reading.read_mask(path, greys=layout.greys).array
        except DataError:
            if whole:
                raise
            continue
        seen.add(frozenset(np.unique(mask).tolist()))
    return seen


class Bound(FolderDataset):
    """The folder's loader once it knows the folder: its classes, channels and splits."""

    def __init__(
        self,
        layout: Layout,
        names: Sequence[str],
        void: int | None,
        seed: int,
        first: str | None = None,
    ) -> None:
        """``first`` is the stem whose image the others must be like; by default the first one."""
        super().__init__(ignore_index=void, seed=seed)
        self.layout = layout
        settings = layout.settings
        # Facts that are class variables of a published set are this folder's own.
        own: dict[str, Any] = {"classes": tuple(names), "void": void}
        like = layout.images[layout.pairs[0] if first is None else first]
        pattern = reading.read_image(layout.root / like).array
        channels = pattern.shape[2]
        own["mean"] = tuple(settings.get("mean", [0.5] * channels))
        own["std"] = tuple(settings.get("std", [0.25] * channels))
        for key in ("mean", "std"):
            if len(own[key]) != channels:
                raise DataError(
                    f"{layout.root / 'classes.yaml'}: expected {key} of {channels} channels as the "
                    f"images have, got {len(own[key])}; correct it"
                )
        # Brought to 8 bits by the range of the training images, or of classes.yaml.
        self.eight_bits = pattern.dtype == np.uint8
        own["mode"] = "binary" if len(names) == 2 else "multiclass"
        self.__dict__.update(own)

    def cache_facts(self) -> dict[str, Any]:
        """Settings of the folder, which shape the arrays as well."""
        intensity = None if self.eight_bits else self.intensity
        return {"settings": self.layout.settings, "intensity": intensity}

    # -- what FileDataset asks -------------------------------------------------------------------

    def locate(self, root: Any = None) -> Path:
        """The folder."""
        return self.layout.root.resolve()

    @cached_property
    def _lists(self) -> dict[str, Path]:
        return split_lists(self.layout.root, map(self._group, self.layout.images))

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Stems of each split: by its lists, else by subfolders that are named so, else dealt out.

        Raises:
            DataError: some pairs lie in a folder of a split and others do not, or a split has no folder.
        """
        nameable = self.layout.nameable
        if self._lists:
            return {
                split: [
                    stem
                    for line in read_lines(path, self.name, own=True)
                    for stem in _listed(line, nameable)
                ]
                for split, path in self._lists.items()
            }
        dealt: dict[str, list[str]] = {split: [] for split in SPLITS}
        # of the file: a volume's stem is not the folder of its slices
        named = {
            stem: _SPLIT_FOLDERS.get(self.file_of(self.layout.images[stem]).split("/")[1].lower())
            for stem in self.layout.pairs
        }
        if any(named.values()):
            apart = [stem for stem, split in named.items() if not split]
            if apart or set(named.values()) != set(SPLITS):
                there = sorted({split for split in named.values() if split})
                raise DataError(
                    f"folder: expected every pair in a folder of train, val or test, got folders of "
                    f"{', '.join(there)} and {len(apart)} pairs elsewhere ({shorten(apart)}); give each split a "
                    "folder, or write train.txt, val.txt and test.txt",
                    apart,
                )
            for stem, split in named.items():
                dealt[str(split)].append(stem)
            return dealt
        for stem in self.layout.pairs:
            dealt[split_of(self._group(stem), self.seed)].append(stem)
        return dealt

    @cached_property
    def _listed_groups(self) -> dict[str, set[str]]:
        known = self.layout.images
        return {
            split: {self._group(stem) if stem in known else stem for stem in stems}
            for split, stems in self.splits.items()
        }

    def split_faults(self, split: str) -> Iterator[DataError]:
        """Everything that is wrong with one split's list."""
        root, listed, groups = self.layout.root, self.splits, self._listed_groups
        files = {each: path.name for each, path in self._lists.items()}
        if split not in listed:
            first = next(iter(files.values()))
            yield DataError(
                f"folder: expected {root / f'{split}.txt'} beside {first}, found none; add it"
            )
            return
        for other in listed:
            both = sorted(groups[split] & groups[other]) if other != split else []
            if both:
                whole = "an image" if set(both) <= set(self.layout.images) else "an image or volume"
                yield DataError(
                    f"folder: expected {whole} in one split, got {shorten(both)} in {files[split]} "
                    f"and {files[other]}; take them off one",
                    both,
                )
        twice = [stem for stem, count in Counter(listed[split]).items() if count > 1]
        if twice:
            yield DataError(
                f"folder: expected a name once in {files[split]}, got {shorten(twice)} more than once; "
                "take the others off",
                twice,
            )
        unknown = [stem for stem in listed[split] if stem not in self.layout.images]
        if unknown:
            bare = [stem for stem in unknown if Path(stem).name in self.layout.nameable]
            remedy = (
                f"write the names as they lie there, as {Path(bare[0]).name}"
                if bare
                else "correct the list"
            )
            yield DataError(
                f"folder: expected the names of {files[split]} in {root / 'images'}, "
                f"{len(unknown)} are not there ({shorten(unknown)}); {remedy}",
                unknown,
            )
        if not listed[split]:
            yield DataError(
                f"folder: expected images in split {split!r}, got none of "
                f"{len(self.layout.pairs)}; add images or split files"
            )

    def split_files(self, split: str) -> list[str]:
        """Nothing is registered, so nothing is compared."""
        return []

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Pairs of the split."""
        for fault in self.split_faults(split):
            raise fault
        return [self.sample(stem) for stem in self.splits[split]]

    def sample(self, stem: str) -> Sample:
        """The pair of a stem; slices of a volume are one group."""
        return Sample(stem, self._group(stem), self.layout.images[stem], self.layout.masks[stem])

    def _group(self, stem: str) -> str:
        is_slice = volumes.is_slice(Path(self.layout.images[stem]))
        return stem.rpartition("/")[0] if is_slice else stem

    def file_of(self, name: str) -> str:
        """The file that holds an image or a mask: of a slice, its volume."""
        path = Path(name)
        return path.parent.as_posix() if volumes.is_slice(path) else name

    def refuse_sizes(
        self, base: Path, sample: Sample, size: tuple[int, int], label_size: tuple[int, ...]
    ) -> None:
        """Also raise where a mask's volume lies elsewhere in space than its image's."""
        image, mask = base / sample.image, base / sample.label
        if volumes.is_slice(image) and volumes.is_slice(mask):
            volumes.refuse_other_geometry(image, mask)
        super().refuse_sizes(base, sample, size, label_size)

    def image_size(self, base: Path, sample: Sample) -> tuple[int, int]:
        """(height, width) as the image is read, its orientation applied."""
        height, width = reading.read_image(base / sample.image).array.shape[:2]
        return int(height), int(width)

    @cached_property
    def intensity(self) -> tuple[float, float]:
        """Values that become 0 and 255 in images that are not of 8 bits."""
        if "intensity" in self.layout.settings:
            low, high = self.layout.settings["intensity"]
            return float(low), float(high)
        low, high = np.inf, -np.inf
        for stem in self.splits["train"]:
            array = self.read_raw(self.layout.root, self.sample(stem)).array
            low, high = min(low, float(array.min())), max(high, float(array.max()))
        return (low, high) if high > low else (low, low + 1)

    def read_raw(self, base: Path, sample: Sample) -> reading.Reading:
        """Image (H, W, C) before it is brought to 8 bits.

        Raises:
            DataError: not readable, or of another kind than the first image.
        """
        path = base / sample.image
        read = reading.read_image(path)
        array, channels = read.array, len(self.mean)
        if array.shape[2] != channels:
            raise DataError(
                f"{path}: expected {channels} channels as the first image has, got "
                f"{array.shape[2]}; convert the images to one kind"
            )
        if (array.dtype == np.uint8) != self.eight_bits:
            raise DataError(
                f"{path}: expected {'8-bit numbers' if self.eight_bits else 'more than 8 bits'} as "
                f"the first image has, got {array.dtype}; convert the images to one kind"
            )
        return read

    def read_image(self, base: Path, sample: Sample) -> UInt8Array:
        """(H, W, C) uint8, brought from other number types by :attr:`intensity`."""
        array = self.read_raw(base, sample).array
        if self.eight_bits:
            return array.astype(np.uint8, copy=False)
        return imageio.eight_bits(array, *self.intensity)

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """(H, W) class indices and void."""
        return self.read_label_with_notes(base, sample)[0]

    def read_label_with_notes(
        self, base: Path, sample: Sample
    ) -> tuple[UInt8Array, tuple[str, ...]]:
        """Class indices (H, W), and what the reader notes of the file."""
        path, settings = base / sample.label, self.layout.settings
        return read_labels(path, settings, self.classes, self.void, greys=self.layout.greys)


def read_labels(
    path: Path,
    settings: Mapping[str, Any],
    classes: Sequence[str],
    void: int | None,
    *,
    greys: bool,
) -> tuple[UInt8Array, tuple[str, ...]]:
    """Class indices (H, W) of a mask as ``classes.yaml`` means it, and what the reader notes.

    ``greys``: as :attr:`Layout.greys` of its folder.

    Raises:
        DataError: the file is damaged, or holds a value that is no class.
    """
    palette, values = settings.get("palette"), settings.get("values")
    index_of = {name: index for index, name in enumerate(classes)}
    if void is not None:
        index_of["void"] = void
    read = reading.read_mask(path, colours=palette is not None, greys=greys)
    lossy = reading.header(path).lossy
    try:
        if palette is not None:
            colours = {tuple(colour): index_of[name] for name, colour in palette.items()}
            labels = _by_palette(read.array, colours, path)
        elif values is not None:
            codes = {value: index_of[name] for value, name in values.items()}
            remedy = "correct the mask or add them to values in classes.yaml"
            labels = imageio.recode(read.array, codes, path, "mask values", remedy)
        else:
            labels = imageio.check_mask(read.array, len(classes), void, path)
    except DataError:
        if not lossy:
            raise
        raise _lossy_fault(path, lossy) from None
    if lossy:
        return labels, (*read.notes, f"mask is {lossy}, whose compression can move edges")
    return labels, read.notes


def _lossy_fault(path: Path, lossy: str, *names: str) -> DataError:
    return DataError(
        f"{path}: expected a lossless mask, got {lossy}, whose compression can change values; save the mask as "
        "PNG from its source",
        list(names),
    )


def _listed(line: str, nameable: Mapping[str, list[str]]) -> list[str]:
    """Stems that a line of a split file means: a stem, a file name, a path from the root, a volume.

    A path from the root of the disk, or through a folder ``images`` or ``masks``, may be that of a copy of the
    set: there the file's name suffices. Of any other path every folder counts.
    """
    names = []
    # as it stands, without the blanks at its ends, and as Windows writes a path
    for text in (line, line.strip(), line.strip().replace("\\", "/")):
        names = _names_of(unicodedata.normalize("NFC", text))
        for name in names:
            for each in (name, _SUFFIX.sub("", name)):
                if each in nameable:
                    return nameable[each]
    return [_SUFFIX.sub("", names[0])]


def _names_of(line: str) -> list[str]:
    """What a line of a split file may mean below ``images``, the likeliest first."""
    path = Path(line)
    after = [i + 1 for i, part in enumerate(path.parts) if part.casefold() in ("images", "masks")]
    starts = after if after[:1] == [1] else [0, *after]
    if after or path.is_absolute() or PureWindowsPath(line).is_absolute():
        starts.append(len(path.parts) - 1)
    return [Path(*path.parts[start:]).as_posix() for start in starts]


def _by_palette(
    rgb: npt.NDArray[Any], colours: Mapping[tuple[int, ...], int], path: Path
) -> UInt8Array:
    """Class indices of a mask of colours (H, W, 3); grey values count as grey colours."""
    codes = {r << 16 | g << 8 | b: index for (r, g, b), index in colours.items()}
    result, stray = imageio.mapped(rgb.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]), codes)
    if stray:
        listed = ", ".join(f"[{v >> 16}, {v >> 8 & 255}, {v & 255}] ({n} px)" for v, n in stray)
        raise DataError(
            f"{path}: expected colours of the palette, got {listed}; add them to classes.yaml or "
            "save the mask without compression losses and smoothing"
        )
    return result

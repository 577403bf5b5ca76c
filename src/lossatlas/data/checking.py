"""Everything that is wrong in a folder of one's own, at once.

The check runs the steps of the loader (:class:`lossatlas.data.folder.Bound`) over all files and
collects what they refuse. It has no rules of its own for what loads, so it passes exactly the folders
whose three splits load.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lossatlas.data import checks, reading
from lossatlas.data.dataset import SPLITS
from lossatlas.data.errors import DataError, shorten
from lossatlas.data.folder import Bound, Layout, classes_of, read_layout

_FEW_LEVELS = 64
"""Fewer of the 256 levels than this, for all but the extreme pixels of the median image, is noted."""

_NO_LABEL = {"ignore", "ignored", "unlabeled", "unlabelled", "unannotated", "dontcare", "nolabel"}
"""What people call pixels without a label; here that is ``void``."""

_PIXELS = re.compile(r"\d+ px")
"""In how many pixels, files differ that have one thing wrong."""

_MOST_COLOURS = 4
"""Images of more channels than this are noted: a stack of slices may be meant."""


@dataclass
class Finding:
    """One kind of finding and where it occurs.

    ``severity`` is "error" where loading refuses the folder, "warning" where loading succeeds but
    results would mislead, "note" for what was converted or is odd.
    """

    severity: str
    what: str
    names: list[str]

    def __str__(self) -> str:
        return f"{self.severity}: {self.what}: {len(self.names)} ({shorten(self.names)})"


class _Findings:
    def __init__(self, root: Path) -> None:
        self.root = root
        # names in order, each once: slices of a volume say the same of it
        self.found: dict[tuple[str, str], dict[str, None]] = {}
        self.said: dict[tuple[str, str], set[str]] = {}

    def add(self, severity: str, what: str, name: str) -> None:
        key = severity, _PIXELS.sub("some px", what)
        self.found.setdefault(key, {})[name] = None
        self.said.setdefault(key, set()).add(what)

    def refused(self, error: DataError, name: str, severity: str = "error") -> None:
        """Record what a step of the loader raised; the file's path makes way for ``name``."""
        text = str(error)
        # Longest first: the image's path also begins the message.
        for path in (self.root / name, self.root.resolve() / name):
            text = text.removeprefix(f"{path}: ")
        text = text.removeprefix("folder: ")
        for entry in error.names or (name,):
            self.add(severity, text, entry)

    def sorted(self) -> list[Finding]:
        order = {"error": 0, "warning": 1, "note": 2}
        findings = []
        for (severity, what), names in self.found.items():
            said = self.said[severity, what]
            only = said.pop() if len(said) == 1 else what
            findings.append(Finding(severity, only, list(names)))
        return sorted(findings, key=lambda f: (order[f.severity], f.what))


def check_folder(
    root: str | Path,
    *,
    ignore_index: int | None = None,
    seed: int = 0,
    height: int | None = None,
    width: int | None = None,
) -> list[Finding]:
    """Look at every file of a folder and return all findings, errors first; [] if all is well.

    The parameters are those of the loader. Without an "error" all three splits load with them.
    One image and one mask are in memory at a time.

    Raises:
        DataError: there is no such folder, or its ``classes.yaml`` is faulty.
    """
    void = checks.optional_integer("ignore_index", ignore_index, 0, 255)
    checks.integer("seed", seed, 0)
    for name, side in (("height", height), ("width", width)):
        checks.optional_integer(name, side, 1, 16384)
    layout = read_layout(checks.folder("root", root))
    found = _Findings(layout.root)
    for fault in layout.faults():
        found.refused(fault, str(layout.root))
    odd = list(layout.mask_faults())
    for fault in odd:
        found.refused(fault, fault.names[0])
    for name in layout.junk:
        found.add("note", "file of an operating system or hidden, not read", name)
    for name in layout.unread:
        found.add("note", "entry that is not read: no known suffix, or a link", name)
    for name in layout.unfitting:
        found.add("note", f"mask that {layout.settings['masks']!r} does not fit, not read", name)
    bound = _bind(layout, void, seed, found, told=bool(odd))
    if bound is not None:
        split_of = _check_splits(bound, found)
        _check_files(bound, split_of, found, height, width, told=bool(odd))
    return found.sorted()


def _bind(
    layout: Layout, void: int | None, seed: int, found: _Findings, *, told: bool
) -> Bound | None:
    """The loader of the folder; None if no image can be read. ``told``: the masks mean no classes, and it is said."""
    # Go on with every value as a class, so that the other faults are found too.
    names = [f"class_{i}" for i in range(256)]
    try:
        if told and "classes" not in layout.settings:
            void = None
        else:
            # a mask that cannot be read is told with the files
            names, void = classes_of(layout, void, whole=False)
    except DataError as error:
        found.refused(error, "masks")
        void = None
        if "classes" in layout.settings:  # two void labels: go on with that of classes.yaml
            names, void = layout.settings["classes"], layout.settings["ignore_index"]
    if void is not None and void < len(names):
        found.add(
            "warning",
            f"void label {void} is the class {names[void]!r}, whose pixels count nowhere",
            "masks",
        )
    broken: list[tuple[DataError, str]] = []
    for stem in layout.pairs:
        try:
            return Bound(layout, names, void, seed, first=stem)
        except DataError as error:
            if str(error).startswith(str(layout.root / "classes.yaml")):
                found.refused(error, "classes.yaml")
                for key in ("mean", "std"):
                    layout.settings.pop(key, None)
                return Bound(layout, names, void, seed, first=stem)
            # The others are compared with the first image; this one is reported with the files.
            broken.append((error, layout.images[stem]))
    for reason, name in broken:
        found.refused(reason, name)
    return None


def _check_splits(bound: Bound, found: _Findings) -> dict[str, str]:
    """Split of each stem."""
    try:
        splits = bound.splits
    except DataError as error:
        found.refused(error, "split files")
        return {}
    split_of: dict[str, str] = {}
    for split in SPLITS:
        for fault in bound.split_faults(split):
            found.refused(fault, split)
        split_of |= dict.fromkeys(splits.get(split, []), split)
    for stem in bound.layout.pairs:
        if stem not in split_of:
            found.add("note", "image in no split file", bound.layout.images[stem])
    return split_of


def _check_files(
    bound: Bound,
    split_of: dict[str, str],
    found: _Findings,
    height: int | None,
    width: int | None,
    *,
    told: bool,
) -> None:
    base = bound.layout.root
    contents: dict[bytes, list[tuple[str, str]]] = {}
    sizes: dict[str, set[tuple[int, int]]] = {split: set() for split in SPLITS}
    spacings: set[tuple[float, float]] = set()
    levels = _Levels()
    pixels: dict[str, npt.NDArray[np.int64]] = {}
    unread: set[str] = set()
    for stem in bound.layout.pairs:
        sample = bound.sample(stem)
        split = split_of.get(stem, "no split")
        # Loading never opens a pair that no list names; its faults are worth a note.
        named = stem in split_of or not split_of
        severity = "error" if named or stem == bound.layout.pairs[0] else "note"
        image = mask = None
        notes: tuple[str, ...] = ()
        try:
            read = bound.read_raw(base, sample)
            image = read.array
            for note in read.notes:
                found.add("note", f"image {note}", sample.image)
        except DataError as error:
            found.refused(error, sample.image, severity)
        try:
            mask, notes = bound.read_label_with_notes(base, sample)
            for note in notes:
                found.add("note", f"mask {note.removeprefix('mask ')}", sample.label)
        except DataError as error:
            inferred = "classes" not in bound.layout.settings
            # where the masks mean no classes, that is said, and not every value that is none
            if len(bound.classes) < 256 or "expected mask values" not in str(error):
                found.refused(error, sample.label, "error" if inferred else severity)
            unread.add(split)
        if mask is not None:
            _note_emptiness(mask, bound.void, sample.label, found)
            counts = np.bincount(mask.ravel(), minlength=256)
            pixels[split] = pixels.get(split, 0) + counts
        if image is None:
            continue
        size = (int(image.shape[0]), int(image.shape[1]))
        if split in sizes:
            sizes[split].add(size)
        if split == "train":
            levels.add(image)
        try:
            if mask is not None:
                bound.refuse_sizes(base, sample, size, mask.shape)
        except DataError as error:
            if "affine" in str(error):
                found.refused(error, bound.file_of(sample.label), severity)
                continue
            what = "image and mask of different size"
            if (
                mask is not None
                and size[::-1] == mask.shape
                and any("EXIF" in note for note in read.notes)
            ):
                what += " (the mask fits the image before its EXIF orientation is applied)"
            found.add(severity, what, stem)
        if mask is not None and _may_lie_apart(read.notes, notes, size):
            found.add(
                "warning",
                "image turned by its EXIF orientation and its mask not, and the sizes fit either way: look whether the "
                "mask was drawn on the turned image",
                sample.image,
            )
        if read.spacing_mm is not None:
            spacings.add(read.spacing_mm)
        if image.min() == image.max():
            continue  # slices beyond the body and blank tiles are alike everywhere
        digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        contents.setdefault(digest, []).append((split, sample.image))
    if len(spacings) > 1:
        least, most = min(spacings), max(spacings)
        found.add(
            "note",
            "volumes of several spacings; distances are counted in pixels: resample them to one",
            f"{least[0]:g}×{least[1]:g} mm to {most[0]:g}×{most[1]:g} mm",
        )
    if not told:
        _check_classes(bound, pixels, unread, found)
    channels = len(bound.mean)
    if channels > _MOST_COLOURS:
        found.add(
            "note",
            f"images of {channels} channels, the last axis of their arrays: save slices of depth or time as images of "
            "their own",
            "images",
        )
    if bound.eight_bits and "intensity" in bound.layout.settings:
        found.add("note", "intensity, which images of 8 bits have no use for", "classes.yaml")
    for split, seen in sizes.items():
        try:
            if seen:
                bound.size_of(seen, height, width)
        except DataError as error:
            found.refused(error, split)
    for places in contents.values():
        if len(places) > 1:
            listed = " = ".join(f"{name} [{split}]" for split, name in places)
            if len({split for split, _ in places}) > 1:
                found.add("warning", "the same picture in two splits", listed)
            else:
                found.add("note", "the same picture twice", listed)
    if not bound.eight_bits and "intensity" not in bound.layout.settings:
        levels.judge(found)


def _note_emptiness(
    mask: npt.NDArray[np.uint8], void: int | None, name: str, found: _Findings
) -> None:
    present = np.unique(mask)
    labelled = present[present != void] if void is not None else present
    if labelled.size == 0:
        found.add("note", "mask of void alone", name)
    elif labelled.max() == 0:
        found.add("note", "empty mask (background alone)", name)


def _may_lie_apart(
    of_image: tuple[str, ...], of_mask: tuple[str, ...], size: tuple[int, int]
) -> bool:
    """Whether an image was turned and its mask not, and their sizes cannot tell if that is meant."""
    image, mask = (
        [note for note in notes if note.startswith(reading.TURNED)] for notes in (of_image, of_mask)
    )
    return bool(image) and not mask and (size[0] == size[1] or reading.SAME_SIDES in image)


def _check_classes(
    bound: Bound,
    in_split: dict[str, npt.NDArray[np.int64]],
    unread: set[str],
    found: _Findings,
) -> None:
    """Nothing to learn from or to measure, and more foreground than background, as in an inverted mask.

    ``in_split``: pixels of each value in the masks of a split; ``unread``: splits with masks that could not be read.
    """
    pixels = np.sum([np.zeros(256, np.int64), *in_split.values()], axis=0)
    for counts in (pixels, *in_split.values()):
        if bound.void is not None:
            counts[bound.void] = 0
    names: tuple[str, ...] = tuple(bound.classes)
    for index, name in enumerate(names):
        if pixels[index] and re.sub("[^a-z]", "", name.casefold()) in _NO_LABEL:
            found.add(
                "warning",
                "class that is learnt and measured like the others: if its pixels have no label, call it void in "
                "values or palette",
                name,
            )
    if len(names) == 2 and names[0] != "background":
        found.add(
            "note",
            "first of two classes is not called background: means of the foreground are over both",
            names[0],
        )
    in_train = in_split.get("train")
    if in_train is not None and not in_train[1:].any():
        found.add(
            "warning",
            "no foreground in the training masks, so that nothing can be learnt: say in classes.yaml what the values "
            "mean, or add masks with foreground",
            "train",
        )
    elif in_train is not None and "train" not in unread and len(names) < 256:
        for name, here, all_over in zip(names, in_train, pixels, strict=False):
            if all_over and not here:
                found.add(
                    "warning", "class that no training mask holds, so that it is not learnt", name
                )
    for split in SPLITS[1:]:
        if split in in_split and split not in unread and not in_split[split][1:].any():
            found.add(
                "warning",
                "no foreground in the masks of a split, so that it measures nothing: move images with foreground to it",
                split,
            )
    for name, count in zip(names, pixels.tolist(), strict=False):
        if pixels.any() and not count and len(names) < 256:
            found.add("note", "class that no mask holds", name)
    if len(names) == 2 and pixels[1] > pixels[0]:
        share = pixels[1] / (pixels[0] + pixels[1])
        found.add(
            "warning",
            f"{names[1]!r} has {100 * share:.0f} % of the labelled pixels, more than the background: look "
            "whether the masks are inverted",
            "masks",
        )


class _Levels:
    """Range of the training images, and of the median image without its most extreme pixels."""

    def __init__(self) -> None:
        self.whole = [np.inf, -np.inf]
        self.inner: list[tuple[float, float]] = []

    def add(self, image: npt.NDArray[Any]) -> None:
        values = image.ravel()
        # One pixel in a hundred at each end, at least one: a stuck row is no more.
        cut = max(1, values.size // 100)
        if values.size <= 2 * cut:
            return
        ordered = np.partition(values, [0, cut, values.size - 1 - cut, values.size - 1])
        self.whole = [
            min(self.whole[0], float(ordered[0])),
            max(self.whole[1], float(ordered[-1])),
        ]
        self.inner.append((float(ordered[cut]), float(ordered[-1 - cut])))

    def judge(self, found: _Findings) -> None:
        span = self.whole[1] - self.whole[0]
        if not self.inner or not np.isfinite(span) or span <= 0:
            return
        low, high = np.transpose(self.inner)
        levels = float(np.median(high - low)) / span * 255
        if levels >= _FEW_LEVELS:
            return
        # without the tenth of the images that lie lowest and highest
        inner = (np.quantile(low, 0.1, method="higher"), np.quantile(high, 0.9, method="lower"))
        found.add(
            "note",
            f"few pixels or images set the range: the median training image has {max(1, round(levels) + 1)} of 256 "
            f"levels; set intensity: [{inner[0]:g}, {inner[1]:g}] in classes.yaml",
            f"{self.whole[0]:g} to {self.whole[1]:g}",
        )

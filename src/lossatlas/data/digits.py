"""Real handwriting without a download: scikit-learn's digits composed into canvases.

The 1797 handwritten digits (8×8 pixels, grey values 0…16) that scikit-learn bundles are enlarged
and written onto a textured background, so that foreground fraction, rarity of the classes, size
and number of the objects and noise of the labels are parameters of the task and not accidents of a
data set.

**How the foreground fraction is met.** A glyph's mask is not a threshold but the ``k`` pixels of
highest ink, with ``k`` dealt out beforehand: the whole split gets
``round(foreground · N · image_size²)`` foreground pixels, shared among its objects in proportion
to the square of their size. An object never takes a pixel that another has. The realised fraction
of a split is therefore the asked one up to that rounding, at any density; single images vary.

**Why the pixels are the same on every machine.** Placement, enlargement, texture and noise are
integer arithmetic on draws of NumPy's PCG64, so no rounding of a floating-point library enters.

**No glyph in two splits.** The samples of each digit are divided in their order: the first 60 % for
"train", the next 20 % for "val", the rest for "test", whatever the seed.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lossatlas.data import checks
from lossatlas.data.dataset import SPLITS, SegmentationDataset
from lossatlas.data.errors import DataError

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

FILL = {"natural": 0.3, "thin": 0.12, "compact": 0.5}
"""Share of its square that an object covers, by shape. Handwriting itself: grey value 4.9 of 16."""

MIN_OBJECT_PX = 4
"""Fewest pixels that an object may be left with."""

MIN_SIDE, PLACEMENTS = 4, 12
"""Smallest side of an object; places tried before the one of least overlap is taken."""

LABEL_NOISE_SPLIT = "train"
"""Label noise goes into this split alone, so that validation and test measure against the truth."""


@functools.cache
def _glyphs() -> tuple[Int64Array, Int64Array]:
    """(images (1797, 8, 8) with values 0…16, digits (1797,)), both int64: scikit-learn's ``load_digits()``."""
    # Its file is read in its place: to import scikit-learn takes longer than many a small run.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError(
            "digits: expected scikit-learn, whose handwriting is drawn, to be installed; install the environment of "
            "the README"
        )
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise DataError(
            f"digits: expected scikit-learn's digits in {file}, got no such file; install the scikit-learn of "
            "requirements.lock"
        )
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]


def glyph_indices(split: str) -> list[Int64Array]:
    """Samples of scikit-learn's digits that a split draws from, one array a digit."""
    _, digits = _glyphs()
    parts = []
    for digit in range(10):
        index = np.flatnonzero(digits == digit)
        first, second = (len(index) * 6) // 10, (len(index) * 8) // 10
        cuts = {"train": (0, first), "val": (first, second), "test": (second, len(index))}
        parts.append(index[slice(*cuts[split])])
    return parts


def _bilinear_weights(old: int, new: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """(left index, w_left, w_right) of enlarging ``old`` to ``new`` samples; a sample's weights sum to 2·new."""
    position = (2 * np.arange(new) + 1) * old - new  # centres aligned, in units of 1/(2·new) pixels
    position = np.clip(position, 0, 2 * new * (old - 1))
    left = np.minimum(position // (2 * new), old - 2)
    right_weight = position - 2 * new * left
    return left, 2 * new - right_weight, right_weight


def enlarge(images: Int64Array, new: int) -> Int64Array:
    """Enlarge (..., h, w) integers to (..., new, new) bilinearly, times (2·new)², exactly."""
    left, w0, w1 = _bilinear_weights(images.shape[-1], new)
    images = images[..., left] * w0 + images[..., left + 1] * w1
    left, w0, w1 = _bilinear_weights(images.shape[-2], new)
    rows0, rows1 = images[..., left, :], images[..., left + 1, :]
    result: Int64Array = rows0 * w0[:, None] + rows1 * w1[:, None]
    return result


def _dilate(inside: BoolArray, diagonal: bool) -> BoolArray:
    """Add the 4 (or 8) neighbours of a (H, W) set."""
    grown = inside.copy()
    grown[1:] |= inside[:-1]
    grown[:-1] |= inside[1:]
    if diagonal:  # rows first, then columns of the result: the corners as well
        inside = grown.copy()
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    return grown


def skeleton(mask: BoolArray) -> BoolArray:
    """Centre lines of a (H, W) mask: Zhang and Suen's thinning (1984)."""
    image = np.pad(mask, 1)
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            # The eight neighbours, clockwise from the north.
            p = [
                np.roll(image, shift, axis=(0, 1))
                for shift in (
                    (1, 0),
                    (1, -1),
                    (0, -1),
                    (-1, -1),
                    (-1, 0),
                    (-1, 1),
                    (0, 1),
                    (1, 1),
                )
            ]
            count = np.sum(p, axis=0)
            steps = np.sum([~p[i] & p[(i + 1) % 8] for i in range(8)], axis=0)
            north, east, south, west = p[0], p[2], p[4], p[6]
            if first:
                open_side = ~(north & east & south) & ~(east & south & west)
            else:
                open_side = ~(north & east & west) & ~(north & south & west)
            gone = image & (count >= 2) & (count <= 6) & (steps == 1) & open_side
            if gone.any():
                image &= ~gone
                changed = True
    return image[1:-1, 1:-1]


@functools.lru_cache(maxsize=4000)
def _template(index: int, shape: str) -> Int64Array:
    """Integers 0…1024, square, whose highest values an object of this shape takes first."""
    glyph = _glyphs()[0][index]
    if shape == "natural":
        return glyph * 64
    if shape == "compact":  # smoothed over 3×3 pixels, which closes loops and gaps
        for axis in (0, 1):
            padded = np.pad(glyph, [(1, 1) if a == axis else (0, 0) for a in (0, 1)])
            glyph = sum(np.take(padded, range(i, i + 8), axis=axis) for i in range(3))
        return glyph * 1024 // max(1, int(glyph.max()))
    # Thin: nearness to the centre line, so that the stroke has one width.
    fine = enlarge(glyph, 32)
    order = np.argsort(-fine, axis=None, kind="stable")
    mask = np.zeros(32 * 32, dtype=bool)
    mask[order[: round(FILL["natural"] * 32 * 32)]] = True
    inside = skeleton(mask.reshape(32, 32))
    score = np.where(inside, 1024, 0)
    for distance in range(1, 11):
        grown = _dilate(inside, diagonal=distance % 2 == 0)
        score[grown & ~inside] = 1024 >> distance  # halved a pixel, so that no halo shows
        inside = grown
    return score.astype(np.int64)


@functools.lru_cache(maxsize=20000)
def _glyph_at(index: int, side: int, shape: str = "natural") -> tuple[Int64Array, Int64Array]:
    """(grey values 0…255 (side, side), pixel positions from most to least ink) of a glyph."""
    ink = enlarge(_template(index, shape), side)
    order = np.argsort(-ink, axis=None, kind="stable")
    return ink * 255 // (1024 * (2 * side) ** 2), order


def _share_out(total: int, weights: Int64Array) -> Int64Array:
    """Divide an integer in proportion to integer weights, exactly (largest remainders)."""
    scaled = [total * int(w) for w in weights]
    whole = int(weights.sum())
    parts = np.array([s // whole for s in scaled], dtype=np.int64)
    remainders = np.array([s % whole for s in scaled], dtype=np.int64)
    for index in np.argsort(-remainders, kind="stable")[: total - int(parts.sum())]:
        parts[index] += 1
    return parts


class Digits:
    """Loader of the digit canvases; see the module for how they are made."""

    name: ClassVar[str] = "digits"
    title: ClassVar[str] = "Digit canvases"
    licence: ClassVar[str] = "CC BY 4.0 (UCI machine learning repository), bundled by scikit-learn"
    citation: ClassVar[str] = (
        "Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning "
        "Repository, 1998"
    )
    source: ClassVar[str] = "https://archive.ics.uci.edu/dataset/80"
    classes: ClassVar[tuple[str, ...]] = ("background", *(str(digit) for digit in range(10)))
    void: ClassVar[int | None] = None
    mean: ClassVar[tuple[float, ...]] = (0.29,)
    std: ClassVar[tuple[float, ...]] = (0.09,)

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Keyword parameters that :meth:`load` takes."""
        return checks.keyword_parameters(self.load)

    def is_available(self, **_: Any) -> bool:
        """Always: scikit-learn brings the glyphs."""
        return True

    def load_labels(self, split: str, **params: Any) -> SegmentationDataset:
        """Same as :meth:`load`; images cost little here."""
        return self.load(split, **params)

    def load(
        self,
        split: str,
        *,
        task: str = "multiclass",
        image_size: int = 64,
        foreground: float | None = 0.043,
        objects: float | None = 3,
        object_size: int | None = None,
        size_spread: float = 0.0,
        shape: str = "natural",
        empty: float = 0.0,
        zipf: float = 1.2,
        contrast: float = 1.0,
        label_noise: float = 0.0,
        boundary_noise: float = 0.0,
        missed_objects: float = 0.0,
        false_objects: float = 0.0,
        distractors: int = 1,
        distractors_per_object: float | None = None,
        noise: float = 0.1,
        train_size: int = 600,
        val_size: int = 100,
        test_size: int = 200,
        seed: int = 0,
    ) -> SegmentationDataset:
        """Compose a split.

        Args:
            split: "train", "val" or "test".
            task: "multiclass" (background and ten digits, 11 classes) or "binary" (background,
                digit).
            image_size: side of the square canvas in pixels, 16…1024.
            foreground: foreground fraction of the whole split, met as the module says; None derives
                it from ``objects`` and ``object_size``.
            objects: mean number of digits a canvas, dealt out as evenly as can be; None derives it
                from ``foreground`` and ``object_size``.
            object_size: mean side of a digit's square in pixels, of which ink covers 30 % (50 % of
                a compact, 12 % of a thin shape); None derives it from ``foreground`` and
                ``objects``. Given all three, the ink covers what ``foreground`` asks of the squares.
            size_spread: sides vary by a factor from 1 / (1 + spread) to 1 + spread, even on a
                logarithmic scale; the foreground fraction stays.
            shape: "natural" handwriting; "thin", strokes of one width along its centre line; or
                "compact", handwriting smoothed to a blob, whose digit is hard to tell: meant for
                the binary task.
            empty: share of the canvases without any digit; the others have so many more that
                ``foreground`` and ``objects`` hold for the whole split.
            zipf: exponent s of the rarity of the classes: the share of digit d among the objects is
                proportional to (d + 1)^−s, met up to rounding; 0 makes all equal.
            contrast: brightness of digits against the background, relative to the default, 0.05…1.
            label_noise: fraction of the training objects whose label is wrong: half of them are
                missed, half have a boundary too wide or too narrow by up to half their pixels.
            boundary_noise: fraction of the training objects with such a boundary, none missed.
            missed_objects: fraction of the training objects that are labelled background.
            false_objects: labelled objects where there is none, as a fraction of the true ones.
            distractors: shapes a canvas with the strokes of a digit but its quarters swapped, drawn
                fainter and labelled background.
            distractors_per_object: so many for each digit of the split instead, on canvases drawn at
                random; None takes ``distractors``. With a fixed number a canvas there are more of them
                a digit as digits get rare, and the task gets harder by more than their rarity.
            noise: strength of texture and pixel noise, 0…1 of the contrast of a digit.
            train_size, val_size, test_size: number of canvases.
            seed: of everything drawn; splits of a seed are independent of each other's size.

        Raises:
            DataError: parameters that are out of range or cannot be met together.

        >>> from lossatlas import data
        >>> train = data.load("digits", "train")
        >>> train.images.shape, train.in_channels, train.out_channels
        ((600, 64, 64, 1), 1, 11)
        >>> print(f"{1 - data.class_fractions(train)[0]:.4%}")      # asked: 4.3 %
        4.3000%
        """
        given = locals()
        params = {key: given[key] for key in self.parameters()}
        plan = _Plan(split, params)
        images, clean, objects_of = _compose(plan)
        labels = _corrupt(plan, clean, objects_of)
        if plan.task == "binary":
            labels = (labels > 0).astype(np.uint8)
        ids = [f"{split}_{index:05d}" for index in range(plan.count)]
        return SegmentationDataset(
            name=self.name,
            split=split,
            classes=self.classes if plan.task == "multiclass" else ("background", "digit"),
            mode="multiclass" if plan.task == "multiclass" else "binary",
            images=images[..., None],
            labels=labels,
            ids=ids,
            groups=ids,
            mean=self.mean,
            std=self.std,
            params=params,
        )


class _Plan:
    """Checked parameters and what follows from them: how many objects, how large each."""

    def __init__(self, split: str, params: dict[str, Any]) -> None:
        p = params
        self.split = checks.choice("split", split, SPLITS)
        self.task = checks.choice("task", p["task"], ("multiclass", "binary"))
        self.side = checks.integer("image_size", p["image_size"], 16, 1024)
        self.zipf = checks.number("zipf", p["zipf"], 0, 5)
        self.shape = checks.choice("shape", p["shape"], FILL)
        self.spread = checks.number("size_spread", p["size_spread"], 0, 3)
        self.contrast = checks.number("contrast", p["contrast"], 0.05, 1)
        mixed = checks.number("label_noise", p["label_noise"], 0, 1)
        shaken = checks.number("boundary_noise", p["boundary_noise"], 0, 1)
        missed = checks.number("missed_objects", p["missed_objects"], 0, 1)
        self.false_objects = checks.number("false_objects", p["false_objects"], 0, 10)
        if mixed + shaken + missed > 1:
            raise DataError(
                "digits: expected label_noise + boundary_noise + missed_objects of at most 1, got "
                f"{mixed + shaken + missed:g}; an object has one fault"
            )
        self.faults = (mixed, shaken, missed)
        self.distractors = checks.integer("distractors", p["distractors"], 0, 20)
        self.distractors_per_object = p["distractors_per_object"]
        if self.distractors_per_object is not None:
            checks.number("distractors_per_object", self.distractors_per_object, 0, 20)
        self.noise = checks.number("noise", p["noise"], 0, 1)
        for key in SPLITS:
            checks.integer(f"{key}_size", p[f"{key}_size"], 1, 1_000_000)
        self.count = int(p[f"{split}_size"])
        self.filled = self.count - round(
            checks.number("empty", p["empty"], 0, 1, open_high=True) * self.count
        )
        if self.filled == 0:
            raise DataError(
                f"digits: expected a canvas with a digit, got empty={p['empty']:g} of {self.count} "
                "canvases; ask fewer empty ones or a larger set"
            )
        seed = checks.integer("seed", p["seed"], 0, 2**63 - 1)
        self.rng = np.random.Generator(np.random.PCG64([seed, SPLITS.index(split)]))

        foreground, objects, size = p["foreground"], p["objects"], p["object_size"]
        if [foreground, objects, size].count(None) > 1:
            raise DataError(
                "digits: expected at least two of foreground, objects and object_size, got "
                f"foreground={foreground}, objects={objects}, object_size={size}"
            )
        if foreground is not None:
            checks.number("foreground", foreground, 0, 0.6, open_low=True)
        if objects is not None:
            checks.number("objects", objects, 0, 10_000, open_low=True)
        if size is not None:
            checks.integer("object_size", size, MIN_SIDE, self.side)
        canvas_px = self.side**2
        # An object covers fill · size² pixels; two of the three quantities give the third.
        if objects is None:
            self.objects = max(1, round(foreground * self.count * canvas_px / self._ink(size)))
        else:
            self.objects = max(1, round(objects * self.count))
        if foreground is None:
            self.foreground_px = round(self.objects * self._ink(size))
        else:
            self.foreground_px = round(foreground * self.count * canvas_px)
        self._check_possible(size)
        self.size = size

    def _ink(self, size: int) -> float:
        return FILL[self.shape] * size**2

    def _check_possible(self, size: int | None) -> None:
        total, ink = self.filled * self.side**2, self.foreground_px / self.objects
        asked = (
            f"{self.objects} objects on {self.filled} canvases of {self.side}×{self.side} with "
            f"{self.foreground_px} foreground pixels"
        )
        if self.foreground_px > 0.6 * total:
            raise DataError(
                f"digits: expected at most 60 % foreground, got {asked} "
                f"({100 * self.foreground_px / total:.0f} %); ask fewer or smaller objects"
            )
        if ink < MIN_OBJECT_PX:
            raise DataError(
                f"digits: expected at least {MIN_OBJECT_PX} pixels an object, got {asked} "
                f"({ink:.2f} each); ask fewer objects, more foreground or a larger image_size"
            )
        side = size or math.isqrt(round(ink / FILL[self.shape]))
        if side > self.side or (size is not None and ink > 0.9 * size**2):
            limit = self.side if size is None else size
            raise DataError(
                f"digits: expected an object to fit a square of side {limit}, got {asked} "
                f"({ink:.0f} each); ask more objects, less foreground or a larger object_size"
            )

    def draw_classes(self) -> Int64Array:
        """Digit of each object: the shares of the Zipf law up to rounding, in random order."""
        shares = [round(2**32 * (digit + 1) ** -self.zipf) for digit in range(10)]
        counts = _share_out(self.objects, np.array(shares, dtype=np.int64))
        return self.rng.permutation(np.repeat(np.arange(10), counts))

    def draw_areas(self) -> Int64Array:
        """Pixels of each object, in all exactly ``foreground_px``."""
        weights = np.ones(self.objects, dtype=np.int64)
        if self.spread:
            # Area goes with the square of a side that is even on a logarithmic scale.
            exponent = self.rng.integers(-1000, 1001, size=self.objects) / 1000
            weights = np.rint(1e6 * (1 + self.spread) ** (2 * exponent)).astype(np.int64)
        return self.rng.permutation(_share_out(self.foreground_px, weights))

    def box(self, area: int) -> int:
        """Side of the square of an object of that many pixels."""
        if self.size is not None and not self.spread:
            return self.size
        mean = self.foreground_px / self.objects
        fill = FILL[self.shape] if self.size is None else mean / self.size**2
        return min(self.side, max(MIN_SIDE, math.isqrt(round(area / fill))))

    def distractor_canvases(self) -> Int64Array:
        """Canvas of each distractor: so many a canvas, or so many an object on canvases at random."""
        if self.distractors_per_object is None:
            return np.repeat(np.arange(self.count), self.distractors)
        total = round(self.distractors_per_object * self.objects)
        return np.sort(self.rng.integers(0, self.count, size=total))

    def owners(self) -> Int64Array:
        """Canvas of each object: as even as can be, the remainder at random."""
        counts = np.zeros(self.count, dtype=np.int64)
        if self.filled == self.count:
            filled = np.arange(self.count)
        else:
            filled = np.sort(self.rng.permutation(self.count)[: self.filled])
        counts[filled] = self.objects // self.filled
        counts[filled[self.rng.permutation(self.filled)[: self.objects % self.filled]]] += 1
        return np.repeat(np.arange(self.count), counts)


def _compose(plan: _Plan) -> tuple[UInt8Array, UInt8Array, list[list[tuple[int, Int64Array]]]]:
    """Return (images, true labels, per canvas its objects as (class, flat pixels by ink))."""
    rng, side, count = plan.rng, plan.side, plan.count
    canvas = _background(plan)
    labels = np.zeros((count, side, side), dtype=np.uint8)
    objects_of: list[list[tuple[int, Int64Array]]] = [[] for _ in range(count)]
    digits = plan.draw_classes()
    area = plan.draw_areas()
    glyphs = glyph_indices(plan.split)
    picks = rng.integers(0, 2**32, size=plan.objects)
    owner = plan.owners()
    brightness = rng.integers(110, 151, size=plan.objects) * round(256 * plan.contrast) // 256
    _add_distractors(plan, canvas, glyphs)
    owed = 0  # pixels that a crowded place could not give, passed on to the next object
    for j in range(plan.objects):
        pool = glyphs[digits[j]]
        glyph = int(pool[picks[j] % len(pool)])
        k = int(area[j]) + owed
        box = plan.box(k)
        ink, order = _glyph_at(glyph, box, plan.shape)
        image = int(owner[j])
        label = labels[image]
        top, left = _place(rng, label, box)
        window = label[top : top + box, left : left + box]
        free = order[window.ravel()[order] == 0]
        taken = free[:k]
        owed = k - len(taken)
        rows, columns = taken // box, taken % box
        window[rows, columns] = digits[j] + 1
        objects_of[image].append((int(digits[j]) + 1, (rows + top) * side + columns + left))
        # Ink fades from its darkest pixel to half strength at the edge of the mask, and to nothing
        # beyond it; a pixel outside the mask keeps under half, so that the edge is visible.
        level = ink.ravel()
        edge = max(1, int(level[taken].min())) if len(taken) else 1
        strength = np.minimum(level * 128 // edge, 255)
        inside = np.zeros(box * box, dtype=bool)
        inside[taken] = True
        strength = np.where(inside, np.maximum(strength, 128), np.minimum(strength // 2, 64))
        patch = canvas[image, top : top + box, left : left + box]
        visible = inside | (window.ravel() == 0)
        patch += (strength * brightness[j] // 255 * visible).reshape(box, box)
    if owed:
        raise DataError(
            f"digits: expected room for {plan.foreground_px} foreground pixels, {owed} found none; "
            "ask fewer objects, less foreground or a larger object_size"
        )
    return np.clip(canvas, 0, 255).astype(np.uint8), labels, objects_of


def _place(rng: np.random.Generator, label: UInt8Array, box: int) -> tuple[int, int]:
    """Return (top, left) of a square without other objects, or else of the least overlap."""
    limit = len(label) - box + 1
    places = rng.integers(0, limit, size=(PLACEMENTS, 2)).tolist()
    best, least = (0, 0), box * box + 1
    for top, left in places:
        overlap = int(np.count_nonzero(label[top : top + box, left : left + box]))
        if overlap < least:
            best, least = (top, left), overlap
            if overlap == 0:
                break
    return best


def _background(plan: _Plan) -> npt.NDArray[np.int32]:
    """Smooth texture and pixel noise around grey level 70, int32 (N, side, side)."""
    rng, side, count = plan.rng, plan.side, plan.count
    amplitude = round(plan.noise * 130)
    coarse = rng.integers(-amplitude, amplitude + 1, size=(count, 8, 8))
    texture = enlarge(coarse, side) // (2 * side) ** 2
    # The sum of four uniform draws is near enough to a normal one, and exact.
    fine = np.zeros((count, side, side), dtype=np.int32)
    for _ in range(4):
        fine += rng.integers(-amplitude, amplitude + 1, size=fine.shape, dtype=np.int32)
    return (70 + texture + fine // 2).astype(np.int32)


def _add_distractors(plan: _Plan, canvas: npt.NDArray[np.int32], glyphs: list[Int64Array]) -> None:
    """Draw glyphs with opposite quarters swapped, at 40 % of a digit's contrast."""
    rng, canvases = plan.rng, plan.distractor_canvases()
    total = len(canvases)
    if not total:
        return
    box = plan.box(round(plan.foreground_px / plan.objects))
    pool = np.concatenate(glyphs)
    picks = pool[rng.integers(0, len(pool), size=total)]
    places = rng.integers(0, plan.side - box + 1, size=(total, 2))
    swapped = np.roll(_glyphs()[0], (4, 4), axis=(1, 2))
    for j, (top, left) in enumerate(places.tolist()):
        shape = enlarge(swapped[picks[j]], box) * round(52 * plan.contrast) // (16 * (2 * box) ** 2)
        canvas[canvases[j], top : top + box, left : left + box] += shape.astype(np.int32)


def _corrupt(
    plan: _Plan, clean: UInt8Array, objects_of: list[list[tuple[int, Int64Array]]]
) -> UInt8Array:
    """Return labels with the asked fractions of objects missed, displaced and invented."""
    if plan.split != LABEL_NOISE_SPLIT or not (any(plan.faults) or plan.false_objects):
        return clean
    rng, side = plan.rng, plan.side
    labels = clean.copy()
    where = [(image, j) for image, items in enumerate(objects_of) for j in range(len(items))]
    mixed, shaken, missed = (round(fault * plan.objects) for fault in plan.faults)
    kinds = ["missed", "boundary"] * (mixed // 2) + ["missed"] * (mixed % 2)
    kinds += ["boundary"] * shaken + ["missed"] * missed
    for fault, index in zip(kinds, rng.permutation(len(where)).tolist(), strict=False):
        image, j = where[index]
        kind, pixels = objects_of[image][j]
        flat = labels[image].reshape(-1)
        if fault == "missed":
            flat[pixels] = 0
            continue
        # Narrower: the pixels of least ink go. Wider: rings of neighbours come, up to the amount.
        amount = int(rng.integers(1, max(2, len(pixels) // 2 + 1)))
        if rng.integers(0, 2):
            flat[pixels[len(pixels) - amount :]] = 0
        else:
            flat[_ring(labels[image], pixels, amount, side)] = kind
    _invent(plan, labels)
    return labels


def _invent(plan: _Plan, labels: UInt8Array) -> None:
    """Label objects where there is none: the mask of a digit on background pixels."""
    rng, count = plan.rng, round(plan.false_objects * plan.objects)
    if not count:
        return
    digits = plan.draw_classes()
    glyphs = glyph_indices(plan.split)
    area = round(plan.foreground_px / plan.objects)
    box = plan.box(area)
    for j, image in enumerate(rng.integers(0, plan.count, size=count).tolist()):
        digit = int(digits[j % len(digits)])
        pool = glyphs[digit]
        _, order = _glyph_at(int(pool[rng.integers(0, len(pool))]), box, plan.shape)
        top, left = _place(rng, labels[image], box)
        window = labels[image, top : top + box, left : left + box]
        taken = order[window.ravel()[order] == 0][:area]
        window[taken // box, taken % box] = digit + 1


def _ring(label: UInt8Array, pixels: Int64Array, amount: int, side: int) -> Int64Array:
    """Up to ``amount`` background pixels around ``pixels``, ring by ring outwards."""
    inside = np.zeros((side, side), dtype=bool)
    inside.reshape(-1)[pixels] = True
    rings: list[Int64Array] = []
    found = 0
    while found < amount:
        grown = _dilate(inside, diagonal=False)
        ring = np.flatnonzero(grown & ~inside & (label == 0))
        if not len(ring):
            break
        rings.append(ring)
        found += len(ring)
        inside.reshape(-1)[ring] = True
    return np.concatenate(rings)[:amount] if rings else np.zeros(0, dtype=np.int64)

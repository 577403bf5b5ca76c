"""Slow, loop-based NumPy versions of every loss, written from the definitions in the literature.

They exist to be believed at a glance, not to be fast: every sum is a Python loop over pixels, everything is
float64, and nothing here is shared with the library. The order of work is always the same: :func:`flatten` turns
logits and target into plain arrays (N, C, P) of probabilities, log-probabilities, targets and a validity flag;
a loss loops over those; :func:`reduce_pixels` or :func:`reduce_regions` forms the result. A loss takes logits, target,
its own parameters, and as ``common`` the keywords of :func:`flatten`; it returns a number, or an array where
``reduction`` is "none".

Conventions (design of the library, restated here because an oracle has to be exact):

- an ignored pixel leaves every sum, count and sort;
- the mean of a pixel loss divides by the summed class weights of the pixels that count;
- region losses average over the classes that occur in the target ("present"), weighted by ``weight``;
- a batch with nothing left to look at has the loss 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray


# ----------------------------------------------------------------------------------------------------------------------
# From logits and target to plain (N, C, P) arrays
# ----------------------------------------------------------------------------------------------------------------------
@dataclass
class Flat:
    """Everything a loss looks at, with the spatial axes flattened to P pixels, and the keywords that losses share."""

    z: Array  # logits (N, C, P)
    p: Array  # probabilities (N, C, P)
    log_p: Array  # log p, exact also where p underflows
    log_q: Array  # log(1 - p), likewise
    t: Array  # target probabilities (N, C, P); a hard label is a one-hot column
    valid: Array  # bool (N, C, P); all channels alike except in multilabel mode
    shape: tuple[int, ...]  # the spatial shape
    mode: str
    weight: Array | None
    reduction: str
    per_image: bool
    classes: Any

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(N, C, P)."""
        n, c, p = self.p.shape
        return n, c, p

    def places(self) -> Iterator[tuple[int, int, int]]:
        """(n, c, i) of what is not ignored."""
        return (place for place in np.ndindex(*self.sizes) if self.valid[place])

    @property
    def groups(self) -> list[list[int]]:
        """The images of each group: each image alone, or the whole batch as one."""
        images = list(range(self.sizes[0]))
        return [[n] for n in images] if self.per_image else [images]


def log_sum_exp(values: Sequence[float]) -> float:
    """log(sum(exp(values))) without overflow."""
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def softplus(x: float) -> float:
    """log(1 + exp(x)) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def flatten(
    logits: Array,
    target: Array,
    *,
    mode: str = "multiclass",
    weight: Array | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    per_image: bool = False,
    classes: Any = None,
) -> Flat:
    """Probabilities, targets and validity of every (image, channel, pixel)."""
    z = np.asarray(logits, dtype=np.float64)
    n_images, n_classes = z.shape[:2]
    shape = z.shape[2:]
    n_pixels = int(np.prod(shape)) if shape else 1
    z = z.reshape(n_images, n_classes, n_pixels)
    target = np.asarray(target)
    hard = not np.issubdtype(target.dtype, np.floating)
    dense = target.size == z.size and (mode != "multiclass" or not hard)
    given = target.reshape(n_images, n_classes if dense else 1, n_pixels)

    p, log_p, log_q, t = (np.zeros_like(z) for _ in range(4))
    valid = np.ones(z.shape, dtype=bool)
    for n, i in np.ndindex(n_images, n_pixels):
        for c in range(n_classes):
            if mode == "multiclass":
                total = log_sum_exp(list(z[n, :, i]))
                others = [z[n, k, i] for k in range(n_classes) if k != c]
                log_p[n, c, i] = z[n, c, i] - total
                log_q[n, c, i] = log_sum_exp(others) - total
            else:
                log_p[n, c, i] = -softplus(-z[n, c, i])
                log_q[n, c, i] = -softplus(z[n, c, i])
            p[n, c, i] = math.exp(log_p[n, c, i])
        if mode == "multiclass" and hard:
            label = int(given[n, 0, i])
            if ignore_index is not None and label == ignore_index:
                valid[n, :, i] = False
            else:
                t[n, label, i] = 1.0
        else:
            ignored = [
                ignore_index is not None and float(given[n, c, i]) == ignore_index
                for c in range(n_classes)
            ]
            if mode == "multiclass":  # a void pixel carries the ignored value in every channel
                ignored = [all(ignored)] * n_classes
            for c in range(n_classes):
                valid[n, c, i] = not ignored[c]
                t[n, c, i] = 0.0 if ignored[c] else float(given[n, c, i])
    return Flat(
        z, p, log_p, log_q, t, valid, tuple(shape), mode, weight, reduction, per_image, classes
    )


# ----------------------------------------------------------------------------------------------------------------------
# Reductions
# ----------------------------------------------------------------------------------------------------------------------
def reduce_pixels(flat: Flat, value: Array, weight_sum: Array) -> Any:
    """Reduce per-pixel losses; ``weight_sum`` is what each pixel adds to the denominator of the mean."""
    n_images, channels, _ = value.shape
    if flat.reduction == "none":
        lead = (n_images,) if flat.mode != "multilabel" else (n_images, channels)
        return value.reshape(*lead, *flat.shape)
    total, count = 0.0, 0.0
    for v, w in zip(value.ravel(), weight_sum.ravel(), strict=True):
        total += v
        count += w
    if flat.reduction == "sum":
        return total
    return total / count if count > 0 else 0.0


def class_weights(flat: Flat) -> Array:
    """The weight of each class in a mean over classes."""
    n_classes = flat.sizes[1]
    if flat.weight is None:
        return np.ones(n_classes)
    return np.asarray(flat.weight, dtype=np.float64)[-n_classes:]


def included_classes(flat: Flat) -> Array:
    """Which (group, class) pairs enter the mean; None means "present", in binary mode "all"."""
    classes = flat.classes
    if classes is None:
        classes = "all" if flat.mode == "binary" else "present"
    table = regions(flat)
    out = np.zeros((len(table), len(table[0])), dtype=bool)
    for g, row in enumerate(table):
        for c, r in enumerate(row):
            wanted = r.truth > 0 if classes == "present" else classes == "all" or c in classes
            out[g, c] = r.pixels > 0 and wanted
    return out


def reduce_regions(flat: Flat, losses: Any) -> Any:
    """Reduce (G, C) losses of G groups: the mean over the classes of a group that count, then over such groups."""
    losses, included, w = np.asarray(losses), included_classes(flat), class_weights(flat)
    weighted = np.zeros(losses.shape)
    group_means = []
    for g, row in enumerate(losses):
        denominator = 0.0
        for c, loss in enumerate(row):
            if included[g, c]:
                weighted[g, c] = w[c] * loss
                denominator += w[c]
        if denominator > 0:
            group_means.append(sum(weighted[g]) / denominator)
    if flat.reduction == "none":
        return weighted if flat.per_image else weighted[0]
    if flat.reduction == "sum":
        return float(weighted.sum())
    return sum(group_means) / len(group_means) if group_means else 0.0


# ----------------------------------------------------------------------------------------------------------------------
# Pixel losses: t phi(p_t) summed over the classes
# ----------------------------------------------------------------------------------------------------------------------
#: (log p_t, log(1 - p_t)) -> loss of a pixel whose label has probability p_t
Phi = Callable[[float, float], float]


def surprisal(log_p: float, log_q: float) -> float:
    """-log p_t."""
    return -log_p


def weight_table(flat: Flat) -> tuple[Array, Array]:
    """(w of a positive, w of a negative) per class; binary takes (foreground,) or (background, foreground)."""
    n_classes = flat.sizes[1]
    if flat.weight is None:
        return np.ones(n_classes), np.ones(n_classes)
    w = np.asarray(flat.weight, dtype=np.float64)
    if flat.mode == "binary":
        return w[-1:], (w[:1] if len(w) == 2 else np.ones(1))
    return w, w


def pixel_maps(
    flat: Flat,
    phi: Phi,
    label_smoothing: float = 0.0,
    alpha: Callable[[int, bool], float] = lambda c, positive: 1.0,
) -> tuple[Array, Array]:
    """Per-pixel losses and per-pixel weights, (N, 1, P), or (N, C, P) with a sigmoid per channel.

    Multiclass: sum_c w_c t'_c phi(p_c), t' smoothed towards 1/C. Sigmoids: w1 t' phi(p) + w0 (1-t') phi(1-p), t'
    smoothed towards 1/2. The weight of a pixel is that of its label before smoothing.
    """
    n_images, n_classes, n_pixels = flat.sizes
    softmax = flat.mode == "multiclass"
    w1, w0 = weight_table(flat)
    s = label_smoothing
    value = np.zeros((n_images, 1 if softmax else n_classes, n_pixels))
    weights = np.zeros_like(value)
    for n, c, i in flat.places():
        t, log_p, log_q = flat.t[n, c, i], flat.log_p[n, c, i], flat.log_q[n, c, i]
        if softmax:
            smoothed = (1 - s) * t + s / n_classes
            if smoothed:
                value[n, 0, i] += alpha(c, True) * w1[c] * smoothed * phi(log_p, log_q)
            weights[n, 0, i] += w1[c] * t
        else:
            smoothed = (1 - s) * t + s / 2
            value[n, c, i] += alpha(c, True) * w1[c] * smoothed * phi(log_p, log_q)
            value[n, c, i] += alpha(c, False) * w0[c] * (1 - smoothed) * phi(log_q, log_p)
            weights[n, c, i] += w1[c] * t + w0[c] * (1 - t)
    return value, weights


def cross_entropy(logits, target, *, label_smoothing=0.0, **common):
    """-sum_c w_c t'_c log p_c with t' = (1 - s) t + s / C (sigmoids: s / 2)."""
    flat = flatten(logits, target, **common)
    return reduce_pixels(flat, *pixel_maps(flat, surprisal, label_smoothing))


def focal(logits, target, *, gamma=2.0, alpha=None, normalizer="pixels", **common):
    """-alpha_t (1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 5).

    ``normalizer="positives"`` divides by the number of positives (multiclass: of pixels that are not class 0), at
    least 1.
    """
    flat = flatten(logits, target, **common)

    def phi(log_p: float, log_q: float) -> float:
        return -(1.0 if gamma == 0 else math.exp(gamma * log_q)) * log_p

    def balance(c: int, positive: bool) -> float:
        if alpha is None:
            return 1.0
        foreground = c > 0 if flat.mode == "multiclass" else positive
        return alpha if foreground else 1 - alpha

    value, weights = pixel_maps(flat, phi, alpha=balance)
    if normalizer == "positives" and flat.reduction == "mean":
        counted = ((n, c, i) for n, c, i in flat.places() if flat.mode != "multiclass" or c > 0)
        return float(value.sum()) / max(sum(flat.t[place] for place in counted), 1.0)
    return reduce_pixels(flat, value, weights)


def poly1(logits, target, *, epsilon=1.0, **common):
    """-log p_t + epsilon (1 - p_t) (Leng et al. 2022, eq. 6)."""
    flat = flatten(logits, target, **common)
    maps = pixel_maps(flat, lambda log_p, log_q: -log_p + epsilon * math.exp(log_q))
    return reduce_pixels(flat, *maps)


Question = Callable[[int, int, int], float]


def question_maps(flat: Flat, yes: Question, no: Question) -> tuple[Array, Array]:
    """Per-pixel losses and weights where each class is a question of its own: ``yes`` to it or ``no``, at (n, c, i).

    The weight of the pixel's label multiplies its whole term: each of the C questions is asked about that pixel.
    A soft label is a mixture of hard ones.
    """
    n_images, n_classes, n_pixels = flat.sizes
    softmax = flat.mode == "multiclass"
    w1, w0 = weight_table(flat)
    value = np.zeros((n_images, 1 if softmax else n_classes, n_pixels))
    weights = np.zeros_like(value)
    for n, c, i in flat.places():
        t = flat.t[n, c, i]
        if softmax:  # with probability t the label is c: yes to c, no to the others
            others = sum(no(n, k, i) for k in range(n_classes) if k != c)
            value[n, 0, i] += w1[c] * t * (yes(n, c, i) + others)
            weights[n, 0, i] += w1[c] * t
        else:
            value[n, c, i] += w1[c] * t * yes(n, c, i) + w0[c] * (1 - t) * no(n, c, i)
            weights[n, c, i] += w1[c] * t + w0[c] * (1 - t)
    return value, weights


def asymmetric(logits, target, *, gamma_positive=0.0, gamma_negative=4.0, margin=0.05, **common):
    """-(1 - p)^g+ log p of what is, -x^g- log(1 - x) with x = max(p - m, 0) of what is not (Ridnik et al. 2021)."""
    flat = flatten(logits, target, **common)

    def yes(n: int, c: int, i: int) -> float:
        return -math.exp(gamma_positive * flat.log_q[n, c, i]) * flat.log_p[n, c, i]

    def no(n: int, c: int, i: int) -> float:
        x = max(flat.p[n, c, i] - margin, 0.0)
        log_q = flat.log_q[n, c, i] if margin == 0 else math.log(1 - x)
        return -(x**gamma_negative) * log_q

    return reduce_pixels(flat, *question_maps(flat, yes, no))


def one_vs_all(logits, target, *, negative_weight=1.0, **common):
    """-log p_y - lambda sum over the other classes of log(1 - p_c), summed over a pixel's classes."""
    flat = flatten(logits, target, **common)
    maps = question_maps(
        flat,
        lambda n, c, i: -flat.log_p[n, c, i],
        lambda n, c, i: -negative_weight * flat.log_q[n, c, i],
    )
    out = reduce_pixels(flat, *maps)
    return out * flat.sizes[1] if flat.reduction == "mean" and flat.mode != "multiclass" else out


def balanced_ce(logits, target, *, alpha="batch", **common):
    """alpha_y (-log p_y); "batch": alpha_c = 1 - n_c / n, the fraction of pixels that are not of the class."""
    flat = flatten(logits, target, **common)
    fraction = []
    for c in range(flat.sizes[1]):
        of_class = [flat.t[place] for place in flat.places() if place[1] == c]
        fraction.append(sum(of_class) / len(of_class) if of_class else 0.0)

    def balance(c: int, positive: bool) -> float:
        if alpha == "batch":
            return 1 - fraction[c] if positive else fraction[c]
        foreground = c > 0 if flat.mode == "multiclass" else positive
        return float(alpha) if foreground else 1 - float(alpha)

    return reduce_pixels(flat, *pixel_maps(flat, surprisal, alpha=balance))


def ohem_ce(logits, target, *, threshold=0.7, min_kept=1 / 16, **common):
    """Mean cross-entropy of the pixels with p_t < threshold, or of the min_kept hardest where those are too few."""

    def select(pixels: list[float]) -> list[bool]:
        share = isinstance(min_kept, float)
        fewest = round(min_kept * len(pixels)) if share else min(min_kept, len(pixels))
        keep = [math.exp(-u) < threshold for u in pixels]
        return keep if sum(keep) >= fewest else hardest(pixels, fewest)

    return selected_ce(logits, target, select, **common)


def topk_ce(logits, target, *, k=0.1, **common):
    """Mean cross-entropy of the round(k n) hardest pixels, at least one."""

    def select(pixels: list[float]) -> list[bool]:
        return hardest(pixels, max(1, round(k * len(pixels))))

    return selected_ce(logits, target, select, **common)


def hardest(pixels: list[float], count: int) -> list[bool]:
    """Which of the losses are among the ``count`` largest."""
    order = sorted(range(len(pixels)), key=lambda i: -pixels[i])[:count]
    return [i in order for i in range(len(pixels))]


def selected_ce(logits, target, select, **common):
    """Weighted cross-entropy of the pixels that ``select`` keeps by their unweighted cross-entropy."""
    flat = flatten(logits, target, **common)
    value, weights = pixel_maps(flat, surprisal)
    plain, _ = pixel_maps(replace(flat, weight=None), surprisal)
    places = [tuple(k) for k in np.argwhere(flat.valid[:, : value.shape[1]])]
    for k, keep in zip(places, select([plain[k] for k in places]), strict=True):
        if not keep:
            value[k] = weights[k] = 0.0
    return reduce_pixels(flat, value, weights)


# ----------------------------------------------------------------------------------------------------------------------
# Region losses
# ----------------------------------------------------------------------------------------------------------------------
@dataclass
class Region:
    """Sums over the valid pixels of one class in one group."""

    inter: float = 0.0  # sum p t
    pred: float = 0.0  # sum p
    pred_sq: float = 0.0  # sum p^2
    truth: float = 0.0  # sum t
    truth_sq: float = 0.0  # sum t^2
    l1: float = 0.0  # sum |p - t|
    pixels: int = 0


def regions(flat: Flat, complement: bool = False) -> list[list[Region]]:
    """[group][class] sums; the groups are the images, or the whole batch as one. ``complement`` takes 1-p, 1-t."""
    out = [[Region() for _ in range(flat.sizes[1])] for _ in flat.groups]
    for n, c, i in flat.places():
        r = out[n if flat.per_image else 0][c]
        p, t = flat.p[n, c, i], flat.t[n, c, i]
        if complement:
            p, t = math.exp(flat.log_q[n, c, i]), 1 - t
        r.inter += p * t
        r.pred += p
        r.pred_sq += p * p
        r.truth += t
        r.truth_sq += t * t
        r.l1 += abs(p - t)
        r.pixels += 1
    return out


def divide(numerator: float, denominator: float, empty: float = 1.0) -> float:
    """A ratio that counts as perfect where there is neither truth nor prediction."""
    return numerator / denominator if denominator > 0 else empty


def region_loss(per_class, logits, target, complement=False, **common):
    """Average ``per_class`` over the included classes."""
    flat = flatten(logits, target, **common)
    return reduce_regions(flat, [[per_class(r) for r in row] for row in regions(flat, complement)])


def dice_index(r: Region, smooth: float) -> float:
    """(2 I + s) / (S + T + s)."""
    return divide(2 * r.inter + smooth, r.pred + r.truth + smooth)


def dice(logits, target, *, smooth=0.0, squared=False, **common):
    """1 - (2 I + s) / (S + T + s); squared (V-Net): sums of p^2 and t^2 below."""

    def per_class(r: Region) -> float:
        if not squared:
            return 1 - dice_index(r, smooth)
        return 1 - divide(2 * r.inter + smooth, r.pred_sq + r.truth_sq + smooth)

    return region_loss(per_class, logits, target, **common)


def inverse_dice(logits, target, *, smooth=0.0, **common):
    """Dice loss of 1 - p against 1 - t; a class counts by its own pixels, not by its complement's."""
    return region_loss(
        lambda r: 1 - dice_index(r, smooth), logits, target, complement=True, **common
    )


def log_cosh_dice(logits, target, *, smooth=0.0, **common):
    """log cosh(1 - D) (Jadon 2020), of each class's Dice loss."""
    return region_loss(
        lambda r: math.log(math.cosh(1 - dice_index(r, smooth))), logits, target, **common
    )


def jaccard(logits, target, *, smooth=0.0, **common):
    """1 - (I + s) / (S + T - I + s)."""

    def per_class(r: Region) -> float:
        return 1 - divide(r.inter + smooth, r.pred + r.truth - r.inter + smooth)

    return region_loss(per_class, logits, target, **common)


def tversky_index(r: Region, alpha: float, beta: float, smooth: float) -> float:
    """TP / (TP + alpha FP + beta FN) with TP = I, FP = S - I, FN = T - I."""
    fp, fn = r.pred - r.inter, r.truth - r.inter
    return divide(r.inter + smooth, r.inter + alpha * fp + beta * fn + smooth)


def focal_tversky(logits, target, *, alpha=0.3, beta=0.7, gamma=4 / 3, smooth=0.0, **common):
    """(1 - TI)^(1/gamma) (Abraham & Khan 2019, the authors' code)."""

    def per_class(r: Region) -> float:
        return max(0.0, 1 - tversky_index(r, alpha, beta, smooth)) ** (1 / gamma)

    return region_loss(per_class, logits, target, **common)


def tversky(logits, target, **options):
    """1 - TI (Salehi et al. 2017); alpha multiplies the false positives."""
    return focal_tversky(logits, target, gamma=1.0, **options)


def dice_semimetric(logits, target, *, smooth=0.0, **common):
    """Dice with TP = (S + T - |p - t|_1) / 2 (Wang et al. 2023): zero at p = t for soft labels too."""

    def per_class(r: Region) -> float:
        tp = (r.pred + r.truth - r.l1) / 2
        return 1 - divide(2 * tp + smooth, r.pred + r.truth + smooth)

    return region_loss(per_class, logits, target, **common)


def generalized_dice(logits, target, *, smooth=0.0, **common):
    """1 - 2 sum_c v_c I_c / sum_c v_c (S_c + T_c), v_c = w_c / max(T_c, 1)^2 over the classes that count."""
    flat = flatten(logits, target, **common)
    included, w = included_classes(flat), class_weights(flat)
    values, counts = [], []
    for g, row in enumerate(regions(flat)):
        above, below, any_class = smooth, smooth, False
        for c, r in enumerate(row):
            if included[g, c] and w[c] > 0:
                v = w[c] / max(r.truth, 1.0) ** 2
                above += 2 * v * r.inter
                below += v * (r.pred + r.truth)
                any_class = True
        values.append(1 - divide(above, below) if any_class else 0.0)
        counts.append(any_class)
    if flat.reduction == "none":
        return np.array(values) if flat.per_image else values[0]
    if flat.reduction == "sum":
        return sum(values)
    return sum(values) / sum(counts) if any(counts) else 0.0


def unified_focal(
    logits,
    target,
    *,
    weight_lambda=0.5,
    delta=0.6,
    gamma=0.5,
    asymmetric=True,
    smooth=0.0,
    **common,
):
    """lambda * modified focal CE + (1 - lambda) * modified focal Tversky (Yeung et al. 2022).

    Foreground (class > 0; under a sigmoid: the positives): delta CE and (1 - mTI)^(1 - gamma). Background:
    (1 - delta)(1 - p)^gamma CE and 1 - mTI. Symmetric: the power in every term. mTI weighs FN by delta, FP by 1-delta.
    """
    flat = flatten(logits, target, **common)
    assert flat.reduction == "mean"
    softmax = flat.mode == "multiclass"

    def focused(log_p: float, log_q: float) -> float:
        return -math.exp(gamma * log_q) * log_p if gamma else -log_p

    def side(foreground: bool) -> tuple[Array, Array]:
        """The terms of the foreground alone, or of the background alone."""

        def alpha(c: int, positive: bool) -> float:
            is_foreground = c > 0 if softmax else positive
            if is_foreground != foreground:
                return 0.0
            return delta if foreground else 1 - delta

        return pixel_maps(flat, surprisal if foreground and asymmetric else focused, alpha=alpha)

    (front, weights), (back, _) = side(True), side(False)
    pixel_half = reduce_pixels(flat, front + back, weights)

    def region_half(c: int, r: Region) -> float:
        miss = max(0.0, 1 - tversky_index(r, 1 - delta, delta, smooth))
        return miss if softmax and c == 0 and asymmetric else miss ** (1 - gamma)

    losses = [[region_half(c, r) for c, r in enumerate(row)] for row in regions(flat)]
    return weight_lambda * pixel_half + (1 - weight_lambda) * reduce_regions(flat, losses)


# ----------------------------------------------------------------------------------------------------------------------
# Lovasz: the discrete definition, set by set
# ----------------------------------------------------------------------------------------------------------------------
def jaccard_of_mistakes(mistakes: set[int], t: Sequence[float]) -> float:
    """1 - IoU of the prediction that differs from the truth exactly in the pixels ``mistakes``.

    Hard labels: sets. Soft labels: the same with each pixel a foreground of size t and a background of size 1 - t.
    """
    if all(x in (0, 1) for x in t):
        truth = {i for i, x in enumerate(t) if x}
        prediction = truth ^ mistakes
        union = truth | prediction
        return 1 - len(truth & prediction) / len(union) if union else 0.0
    inter = sum(x for i, x in enumerate(t) if i not in mistakes)
    size = sum(t) + sum(1 - t[i] for i in mistakes)
    return 1 - inter / size if size else 0.0


def lovasz_extension(errors: Sequence[float], t: Sequence[float]) -> float:
    """sum_k e_(k) [J({1..k}) - J({1..k-1})] over the errors in decreasing order (Berman et al. 2018, eq. 8-9)."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    value, previous, mistakes = 0.0, 0.0, set()
    for i in order:
        mistakes.add(i)
        current = jaccard_of_mistakes(mistakes, t)
        value += errors[i] * (current - previous)
        previous = current
    return value


def lovasz(error: Callable[[float, float, float], float], flat: Flat) -> Any:
    """Lovasz extension of the Jaccard loss at the ``error`` of each pixel, a function of t, p and z."""
    losses = np.zeros((len(flat.groups), flat.sizes[1]))
    for g, images in enumerate(flat.groups):
        for c in range(flat.sizes[1]):
            places = [place for place in flat.places() if place[0] in images and place[1] == c]
            truth = [flat.t[place] for place in places]
            errors = [error(flat.t[place], flat.p[place], flat.z[place]) for place in places]
            losses[g, c] = lovasz_extension(errors, truth)
    return reduce_regions(flat, losses)


def lovasz_softmax(logits, target, **common):
    """Lovasz-Softmax (sigmoid errors in binary and multilabel mode)."""
    return lovasz(lambda t, p, z: abs(t - p), flatten(logits, target, **common))


def lovasz_hinge(logits, target, **common):
    """Lovasz hinge."""
    flat = flatten(logits, target, **{"mode": "binary", "per_image": True, **common})
    return lovasz(lambda t, p, z: max(0.0, 1 - (2 * t - 1) * z), flat)


# ----------------------------------------------------------------------------------------------------------------------
# Distances
# ----------------------------------------------------------------------------------------------------------------------
def signed_distance(mask: Array, spacing: Sequence[float] | None = None) -> Array:
    """Distance of every pixel to the nearest pixel of the other kind, negative inside; 0 without a boundary."""
    mask = np.asarray(mask, dtype=bool)
    steps = np.ones(mask.ndim) if spacing is None else np.asarray(spacing, dtype=float)
    points = list(np.ndindex(*mask.shape))
    out = np.zeros(mask.shape)
    if not mask.any() or mask.all() or mask.ndim == 0:
        return out
    for a in points:
        others = [b for b in points if mask[b] != mask[a]]
        nearest = min(
            math.sqrt(sum(((x - y) * s) ** 2 for x, y, s in zip(a, b, steps, strict=True)))
            for b in others
        )
        out[a] = -nearest if mask[a] else nearest
    return out


def distance_loss(term, logits, target, *, spacing=None, **common):
    """Mean of ``term``, a function of p, t and the signed distances of the truth and the guess; void is outside."""
    flat = flatten(logits, target, **common)
    n_classes = flat.sizes[1]
    losses = np.zeros((len(flat.groups), n_classes))
    for g, images in enumerate(flat.groups):
        for c in range(n_classes):
            total, count = 0.0, 0
            for n in images:
                valid, p, t = flat.valid[n, c], flat.p[n, c], flat.t[n, c]
                phi_t, phi_p = (
                    signed_distance((valid & (x > 0.5)).reshape(flat.shape), spacing).ravel()
                    for x in (t, p)
                )
                for i in np.flatnonzero(valid):
                    total += term(p[i], t[i], phi_t[i], phi_p[i])
                    count += 1
            losses[g, c] = divide(total, count, 0.0)
    return reduce_regions(flat, losses)


def boundary(logits, target, **common):
    """mean(p phi_T) (Kervadec et al. 2019)."""
    return distance_loss(lambda p, t, phi_t, phi_p: p * phi_t, logits, target, **common)


def hausdorff(logits, target, *, alpha=2.0, **common):
    """mean((p - t)^2 (d_T^a + d_P^a)), d = |phi| (Karimi & Salcudean 2019)."""

    def term(p: float, t: float, phi_t: float, phi_p: float) -> float:
        return (p - t) ** 2 * (abs(phi_t) ** alpha + abs(phi_p) ** alpha)

    return distance_loss(term, logits, target, **common)


# ----------------------------------------------------------------------------------------------------------------------
# Skeletons
# ----------------------------------------------------------------------------------------------------------------------
def soft_skeleton(x: Array, valid: Array, iterations: int) -> Array:
    """Soft skeleton of one map x; what is outside the map or not valid is no neighbour (Shit et al. 2021)."""
    places = [place for place in np.ndindex(x.shape) if valid[place]]
    axes = np.eye(x.ndim, dtype=int)
    cross = [tuple(sign * axis) for axis in axes for sign in (-1, 0, 1)]
    cube = list(np.ndindex(*[3] * x.ndim))

    def windows(values: dict, offsets: list, shift: int, best: Callable[..., float]) -> dict:
        out = {}
        for place in places:
            near = [tuple(np.add(place, offset) - shift) for offset in offsets]
            out[place] = best([values[n] for n in near if n in values])
        return out

    current = {place: float(x[place]) for place in places}
    skeleton = dict.fromkeys(places, 0.0)
    for _ in range(iterations + 1):
        eroded = windows(current, cross, 0, min) if x.ndim else current
        opened = windows(eroded, cube, 1, max) if x.ndim else current
        for place in places:
            tip = max(current[place] - opened[place], 0.0)
            skeleton[place] += tip - skeleton[place] * tip
        current = eroded
    out = np.zeros(x.shape)
    for place in places:
        out[place] = skeleton[place]
    return out


def soft_cldice(logits, target, *, iterations=3, smooth=0.0, **common):
    """1 - harmonic mean of sum k(p) t / sum k(p) and sum k(t) p / sum k(t), k the soft skeleton."""
    flat = flatten(logits, target, **common)
    sums = np.zeros((*flat.sizes[:2], 4))
    for n, c in np.ndindex(*flat.sizes[:2]):
        p, t, valid = (
            np.where(flat.valid[n, c], x[n, c], 0).reshape(flat.shape)
            for x in (flat.p, flat.t, flat.valid)
        )
        drawn, true = (soft_skeleton(x, valid, iterations) for x in (p, t))
        sums[n, c] = (drawn * t).sum(), drawn.sum(), (true * p).sum(), true.sum()
    if not flat.per_image:
        sums = sums.sum(0, keepdims=True)
    losses = np.zeros(sums.shape[:2])
    for place in np.ndindex(losses.shape):
        met, of_drawn, found, of_true = sums[place]
        precision = divide(met + smooth, of_drawn + smooth)
        sensitivity = divide(found + smooth, of_true + smooth)
        losses[place] = 1 - divide(2 * precision * sensitivity, precision + sensitivity, 0.0)
    return reduce_regions(flat, losses)


# ----------------------------------------------------------------------------------------------------------------------
# Compounds
# ----------------------------------------------------------------------------------------------------------------------
REGION_KEYWORDS = ("per_image", "classes", "smooth")


def compound(
    region: Callable[..., Any], pixel: Callable[..., Any], own: Sequence[str] = ()
) -> Callable[..., Any]:
    """scales[0] * first + scales[1] * second; ``own`` names the pixel half's own parameters."""

    def loss(logits, target, *, scales=(1.0, 1.0), **k):
        first = region(logits, target, **{key: v for key, v in k.items() if key not in own})
        of_pixel = {key: v for key, v in k.items() if key not in REGION_KEYWORDS}
        return scales[0] * first + scales[1] * pixel(logits, target, **of_pixel)

    return loss


dice_ce = compound(dice, cross_entropy)
dice_focal = compound(dice, focal, ("gamma", "alpha"))
dice_topk = compound(dice, topk_ce, ("k",))


def ce_lovasz(logits, target, *, scales=(1.0, 1.0), **k):
    """Cross-entropy + Lovasz-softmax."""
    return compound(lovasz_softmax, cross_entropy)(logits, target, scales=scales[::-1], **k)


def nnunet_dice_ce(logits, target, *, do_bg=False, **k):
    """nnU-Net: every foreground class counts, absent or not, 1e-5, per image.

    An image that is ignored as a whole counts too: see its published code in test_new_names.
    """

    def region(logits, target, **of_region):
        if k["mode"] == "multiclass" and not do_bg:  # a class of weight 0 is no part of the mean
            weight = np.array(np.ones(logits.shape[1]) if k.get("weight") is None else k["weight"])
            weight[0] = 0.0
            of_region["weight"] = weight
        return dice(logits, target, **of_region)

    k = {"per_image": True, "classes": "all", "smooth": 1e-5, **k}
    return compound(region, cross_entropy)(logits, target, **k)


def sam2_focal_dice(logits, target, *, scales=(20.0, 1.0), **k):
    """SAM 2: 20 focal + 1 Dice semimetric, per mask, with 1 added above and below."""
    k = {"per_image": True, "smooth": 1.0, "alpha": 0.25, **k}
    both = compound(dice_semimetric, focal, ("gamma", "alpha"))
    return both(logits, target, scales=scales[::-1], **k)


def logit_adjusted_ce(logits, target, *, prior=None, tau=1.0, mode, **k):
    """Menon et al. 2021: cross-entropy of z + tau ln(pi), or of z + tau ln(pi / (1 - pi))."""
    if prior is not None:
        share = np.asarray(prior, dtype=np.float64)
        if mode == "multiclass":
            shift = np.log(share)
        else:
            if mode == "binary" and len(share) == 2:
                share = share[1:] / share.sum()
            shift = np.log(share) - np.log(1 - share)
        logits = logits + tau * shift.reshape(1, -1, *[1] * (logits.ndim - 2))
    return cross_entropy(logits, target, mode=mode, **k)

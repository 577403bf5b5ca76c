"""Plain NumPy versions of every loss, in float64, written from the definitions in the literature.

They exist to be believed at a glance: a formula is one line over whole arrays, nothing is chunked or differentiated,
and nothing here is shared with the library. The order of work is always the same: :func:`flatten` turns
logits and target into arrays (N, C, P) of probabilities, log-probabilities, targets and a validity flag;
a loss is an expression of those; :func:`reduce_pixels` or :func:`reduce_regions` forms the result. A loss is written
as a function of the flat arrays and of its own parameters; :func:`of_flat` makes it one of logits, target, its own
parameters and the keywords of :func:`flatten`. It returns a number, or an array where ``reduction`` is "none".

Conventions (design of the library, restated here because an oracle has to be exact):

- an ignored pixel leaves every sum, count and sort;
- the mean of a pixel loss divides by the summed class weights of the pixels that count;
- region losses average over the classes that occur in the target ("present"), weighted by ``weight``;
- a batch with nothing left to look at has the loss 0.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.special import log_expit, log_softmax, logsumexp

Array = np.ndarray


# ----------------------------------------------------------------------------------------------------------------------
# From logits and target to plain (N, C, P) arrays
# ----------------------------------------------------------------------------------------------------------------------
@dataclass
class Flat:
    """Everything a loss looks at, with the spatial axes flattened to P pixels, and the keywords that losses share."""

    z: Array  # logits (N, C, P)
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
    def p(self) -> Array:
        """Probabilities (N, C, P)."""
        return np.exp(self.log_p)

    @property
    def softmax(self) -> bool:
        """Whether the classes exclude each other."""
        return self.mode == "multiclass"

    def sums(self, values: Array) -> Array:
        """Sums (G, C) of (N, C, P) over the valid pixels of each group: an image, or the whole batch as one."""
        of_images = np.where(self.valid, values, 0.0).sum(2)
        return of_images if self.per_image else of_images.sum(0, keepdims=True)


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
    """Log-probabilities, targets and validity of every (image, channel, pixel)."""
    z, target = np.asarray(logits, dtype=np.float64), np.asarray(target)
    (n_images, n_classes), shape = z.shape[:2], z.shape[2:]
    z = z.reshape(n_images, n_classes, math.prod(shape))
    if mode == "multiclass":
        log_p = log_softmax(z, 1)
        others = [logsumexp(np.delete(z, c, 1), 1) for c in range(n_classes)]
        log_q = np.stack(others, 1) - logsumexp(z, 1, keepdims=True)
    else:
        log_p, log_q = log_expit(z), log_expit(-z)
    if mode == "multiclass" and not np.issubdtype(target.dtype, np.floating):
        labels = target.reshape(n_images, 1, z.shape[2])
        valid = np.broadcast_to(labels != ignore_index, z.shape)
        t = labels == np.arange(n_classes)[:, None]
    else:
        t = target.reshape(z.shape)
        valid = t != ignore_index
        if mode == "multiclass":  # a void pixel carries the ignored value in every channel
            valid = np.broadcast_to(valid.any(1, keepdims=True), z.shape)
    t = np.where(valid, t, 0).astype(np.float64)
    return Flat(z, log_p, log_q, t, valid, shape, mode, weight, reduction, per_image, classes)


def of_flat(formula: Callable[..., Any]) -> Callable[..., Any]:
    """The loss of logits and target whose value is ``formula(flat, **its own parameters)``."""
    own = set(inspect.signature(formula).parameters)

    @functools.wraps(formula)
    def loss(logits: Array, target: Array, **given: Any) -> Any:
        flat = flatten(logits, target, **{k: v for k, v in given.items() if k not in own})
        return formula(flat, **{k: v for k, v in given.items() if k in own})

    loss.takes = own | set(inspect.signature(flatten).parameters)  # type: ignore[attr-defined]
    return loss


# ----------------------------------------------------------------------------------------------------------------------
# Reductions
# ----------------------------------------------------------------------------------------------------------------------
def divide(numerator: Array, denominator: Array, empty: float = 1.0) -> Array:
    """A ratio that counts as perfect where there is neither truth nor prediction."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    out = np.full(denominator.shape, empty)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def reduce_pixels(flat: Flat, value: Array, weight_sum: Array) -> Any:
    """Reduce per-pixel losses; ``weight_sum`` is what each pixel adds to the denominator of the mean."""
    if flat.reduction == "none":
        lead = value.shape[: 2 if flat.mode == "multilabel" else 1]
        return value.reshape(*lead, *flat.shape)
    if flat.reduction == "sum":
        return value.sum()
    return divide(value.sum(), weight_sum.sum(), 0.0)


def class_weights(flat: Flat) -> Array:
    """The weight of each class in a mean over classes."""
    n_classes = flat.z.shape[1]
    return np.ones(n_classes) if flat.weight is None else flat.weight[-n_classes:]


def included_classes(flat: Flat) -> Array:
    """Which (group, class) pairs enter the mean; None means "present", in binary mode "all"."""
    classes = flat.classes or ("all" if flat.mode == "binary" else "present")
    seen = flat.sums(np.ones(flat.z.shape)) > 0
    if classes == "present":
        return flat.sums(flat.t) > 0
    return seen if classes == "all" else seen & np.isin(np.arange(seen.shape[1]), classes)


def reduce_regions(flat: Flat, losses: Array) -> Any:
    """Reduce (G, C) losses of G groups: the mean over the classes of a group that count, then over such groups."""
    weights = included_classes(flat) * class_weights(flat)
    weighted = weights * losses
    if flat.reduction == "none":
        return weighted if flat.per_image else weighted[0]
    if flat.reduction == "sum":
        return weighted.sum()
    counted = weights.sum(1) > 0
    return divide(divide(weighted.sum(1), weights.sum(1), 0.0).sum(), counted.sum(), 0.0)


# ----------------------------------------------------------------------------------------------------------------------
# Pixel losses: t phi(p_t) summed over the classes
# ----------------------------------------------------------------------------------------------------------------------
#: (log p_t, log(1 - p_t)) -> loss of a pixel whose label has probability p_t
Phi = Callable[[Array, Array], Array]


def surprisal(log_p: Array, log_q: Array) -> Array:
    """-log p_t."""
    return -log_p


def focused(gamma: float) -> Phi:
    """-(1 - p_t)^gamma log p_t."""
    return lambda log_p, log_q: -np.exp(gamma * log_q) * log_p


def weight_table(flat: Flat) -> tuple[Array, Array]:
    """(w of a positive, w of a negative), (C, 1); binary takes (foreground,) or (background, foreground)."""
    w = np.ones(flat.z.shape[1]) if flat.weight is None else flat.weight
    if flat.mode != "binary":
        return w[:, None], w[:, None]
    return w[-1:, None], (w[:1, None] if len(w) == 2 else np.ones((1, 1)))


def sides(flat: Flat, background: float, foreground: float) -> tuple[Array, Array]:
    """Factors (C, 1) of a positive and of a negative; of several classes the first is the background."""
    positive = np.full((flat.z.shape[1], 1), float(foreground))
    if flat.softmax:
        positive[0] = background
    return positive, np.full_like(positive, background)


def pixel_maps(
    flat: Flat, phi: Phi, label_smoothing: float = 0.0, alpha: tuple[Any, Any] = (1.0, 1.0)
) -> tuple[Array, Array]:
    """Per-pixel losses and per-pixel weights, (N, 1, P), or (N, C, P) with a sigmoid per channel.

    Multiclass: sum_c w_c t'_c phi(p_c), t' smoothed towards 1/C. Sigmoids: w1 t' phi(p) + w0 (1-t') phi(1-p), t'
    smoothed towards 1/2. The weight of a pixel is that of its label before smoothing.
    """
    w1, w0 = weight_table(flat)
    kinds = flat.z.shape[1] if flat.softmax else 2
    t = (1 - label_smoothing) * flat.t + label_smoothing / kinds
    value, weights = alpha[0] * w1 * t * phi(flat.log_p, flat.log_q), w1 * flat.t
    if not flat.softmax:
        value = value + alpha[1] * w0 * (1 - t) * phi(flat.log_q, flat.log_p)
        weights = weights + w0 * (1 - flat.t)
    return of_pixels(flat, value, weights)


def of_pixels(flat: Flat, *maps: Array) -> tuple[Array, ...]:
    """Maps (N, C, P) with 0 at void pixels, summed over classes that exclude each other."""
    known = (np.where(flat.valid, each, 0.0) for each in maps)
    return tuple(each.sum(1, keepdims=True) if flat.softmax else each for each in known)


@of_flat
def cross_entropy(flat, label_smoothing=0.0):
    """-sum_c w_c t'_c log p_c with t' = (1 - s) t + s / C (sigmoids: s / 2)."""
    return reduce_pixels(flat, *pixel_maps(flat, surprisal, label_smoothing))


@of_flat
def focal(flat, gamma=2.0, alpha=None, normalizer="pixels"):
    """-alpha_t (1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 5).

    ``normalizer="positives"`` divides by the number of positives (multiclass: of pixels that are not class 0), at
    least 1.
    """
    balance = (1.0, 1.0) if alpha is None else sides(flat, 1 - alpha, alpha)
    value, weights = pixel_maps(flat, focused(gamma), alpha=balance)
    if normalizer == "positives" and flat.reduction == "mean":
        return value.sum() / max(flat.t[:, int(flat.softmax) :].sum(), 1.0)
    return reduce_pixels(flat, value, weights)


@of_flat
def poly1(flat, epsilon=1.0):
    """-log p_t + epsilon (1 - p_t) (Leng et al. 2022, eq. 6)."""
    maps = pixel_maps(flat, lambda log_p, log_q: -log_p + epsilon * np.exp(log_q))
    return reduce_pixels(flat, *maps)


def question_maps(flat: Flat, yes: Array, no: Array) -> tuple[Array, Array]:
    """Per-pixel losses and weights where each class is a question of its own, and (N, C, P) costs of yes and of no.

    The weight of the pixel's label multiplies its whole term: each of the C questions is asked about that pixel.
    A soft label is a mixture of hard ones.
    """
    w1, w0 = weight_table(flat)
    if flat.softmax:  # with probability t the label is c: yes to c, no to the others
        others = (1 - np.eye(flat.z.shape[1])) @ no
        return of_pixels(flat, w1 * flat.t * (yes + others), w1 * flat.t)
    value = w1 * flat.t * yes + w0 * (1 - flat.t) * no
    return of_pixels(flat, value, w1 * flat.t + w0 * (1 - flat.t))


@of_flat
def asymmetric(flat, gamma_positive=0.0, gamma_negative=4.0, margin=0.05):
    """-(1 - p)^g+ log p of what is, -x^g- log(1 - x) with x = max(p - m, 0) of what is not (Ridnik et al. 2021)."""
    x = np.maximum(flat.p - margin, 0.0)
    no = -(x**gamma_negative) * (flat.log_q if margin == 0 else np.log1p(-x))
    return reduce_pixels(
        flat, *question_maps(flat, focused(gamma_positive)(flat.log_p, flat.log_q), no)
    )


@of_flat
def one_vs_all(flat, negative_weight=1.0):
    """-log p_y - lambda sum over the other classes of log(1 - p_c), summed over a pixel's classes."""
    out = reduce_pixels(flat, *question_maps(flat, -flat.log_p, -negative_weight * flat.log_q))
    return out * flat.z.shape[1] if flat.reduction == "mean" and not flat.softmax else out


@of_flat
def balanced_ce(flat, alpha="batch"):
    """alpha_y (-log p_y); "batch": alpha_c = 1 - n_c / n, the fraction of pixels that are not of the class."""
    if alpha == "batch":
        share = divide(flat.t.sum((0, 2)), flat.valid.sum((0, 2)), 0.0)[:, None]
        balance = (1 - share, share)
    else:
        balance = sides(flat, 1 - alpha, alpha)
    return reduce_pixels(flat, *pixel_maps(flat, surprisal, alpha=balance))


@of_flat
def ohem_ce(flat, threshold=0.7, min_kept=1 / 16):
    """Mean cross-entropy of the pixels with p_t < threshold, or of the min_kept hardest where those are too few."""

    def select(pixels: Array) -> Array:
        share = isinstance(min_kept, float)
        fewest = round(min_kept * len(pixels)) if share else min(min_kept, len(pixels))
        keep = np.exp(-pixels) < threshold
        return keep if keep.sum() >= fewest else hardest(pixels, fewest)

    return selected_ce(flat, select)


@of_flat
def topk_ce(flat, k=0.1):
    """Mean cross-entropy of the round(k n) hardest pixels, at least one."""
    return selected_ce(flat, lambda pixels: hardest(pixels, max(1, round(k * len(pixels)))))


def hardest(pixels: Array, count: int) -> Array:
    """Which of the losses are among the ``count`` largest."""
    return np.isin(np.arange(len(pixels)), np.argsort(-pixels, kind="stable")[:count])


def selected_ce(flat: Flat, select: Callable[[Array], Array]) -> Any:
    """Weighted cross-entropy of the pixels that ``select`` keeps by their unweighted cross-entropy."""
    value, weights = pixel_maps(flat, surprisal)
    plain, _ = pixel_maps(replace(flat, weight=None), surprisal)
    kept = flat.valid[:, : value.shape[1]].copy()
    kept[kept] = select(plain[kept])
    return reduce_pixels(flat, kept * value, kept * weights)


# ----------------------------------------------------------------------------------------------------------------------
# Region losses
# ----------------------------------------------------------------------------------------------------------------------
class Region:
    """Sums (G, C) over the valid pixels of each class in each group; ``complement`` takes 1-p and 1-t."""

    def __init__(self, flat: Flat, complement: bool = False) -> None:
        p, t = (np.exp(flat.log_q), 1 - flat.t) if complement else (flat.p, flat.t)
        self.inter, self.pred, self.truth = (flat.sums(x) for x in (p * t, p, t))
        self.pred_sq, self.truth_sq, self.l1 = (flat.sums(x) for x in (p * p, t * t, abs(p - t)))


def dice_index(r: Region, smooth: float) -> Array:
    """(2 I + s) / (S + T + s)."""
    return divide(2 * r.inter + smooth, r.pred + r.truth + smooth)


@of_flat
def dice(flat, smooth=0.0, squared=False):
    """1 - (2 I + s) / (S + T + s); squared (V-Net): sums of p^2 and t^2 below."""
    r = Region(flat)
    if not squared:
        return reduce_regions(flat, 1 - dice_index(r, smooth))
    index = divide(2 * r.inter + smooth, r.pred_sq + r.truth_sq + smooth)
    return reduce_regions(flat, 1 - index)


@of_flat
def inverse_dice(flat, smooth=0.0):
    """Dice loss of 1 - p against 1 - t; a class counts by its own pixels, not by its complement's."""
    return reduce_regions(flat, 1 - dice_index(Region(flat, complement=True), smooth))


@of_flat
def log_cosh_dice(flat, smooth=0.0):
    """log cosh(1 - D) (Jadon 2020), of each class's Dice loss."""
    return reduce_regions(flat, np.log(np.cosh(1 - dice_index(Region(flat), smooth))))


@of_flat
def jaccard(flat, smooth=0.0):
    """1 - (I + s) / (S + T - I + s)."""
    r = Region(flat)
    index = divide(r.inter + smooth, r.pred + r.truth - r.inter + smooth)
    return reduce_regions(flat, 1 - index)


def tversky_miss(r: Region, alpha: float, beta: float, smooth: float) -> Array:
    """1 - TP / (TP + alpha FP + beta FN) with TP = I, FP = S - I, FN = T - I; never below 0."""
    fp, fn = r.pred - r.inter, r.truth - r.inter
    index = divide(r.inter + smooth, r.inter + alpha * fp + beta * fn + smooth)
    return np.maximum(0.0, 1 - index)


@of_flat
def focal_tversky(flat, alpha=0.3, beta=0.7, gamma=4 / 3, smooth=0.0):
    """(1 - TI)^(1/gamma) (Abraham & Khan 2019, the authors' code)."""
    return reduce_regions(flat, tversky_miss(Region(flat), alpha, beta, smooth) ** (1 / gamma))


#: 1 - TI (Salehi et al. 2017); alpha multiplies the false positives.
tversky = functools.partial(focal_tversky, gamma=1.0)


@of_flat
def dice_semimetric(flat, smooth=0.0):
    """Dice with TP = (S + T - |p - t|_1) / 2 (Wang et al. 2023): zero at p = t for soft labels too."""
    r = Region(flat)
    index = divide(r.pred + r.truth - r.l1 + smooth, r.pred + r.truth + smooth)
    return reduce_regions(flat, 1 - index)


@of_flat
def generalized_dice(flat, smooth=0.0):
    """1 - 2 sum_c v_c I_c / sum_c v_c (S_c + T_c), v_c = w_c / max(T_c, 1)^2 over the classes that count."""
    r = Region(flat)
    v = included_classes(flat) * class_weights(flat) / np.maximum(r.truth, 1.0) ** 2
    above, below = (2 * v * r.inter).sum(1) + smooth, (v * (r.pred + r.truth)).sum(1) + smooth
    counts = (v > 0).any(1)
    values = np.where(counts, 1 - divide(above, below), 0.0)
    if flat.reduction == "none":
        return values if flat.per_image else values[0]
    return values.sum() if flat.reduction == "sum" else divide(values.sum(), counts.sum(), 0.0)


@of_flat
def unified_focal(flat, weight_lambda=0.5, delta=0.6, gamma=0.5, asymmetric=True, smooth=0.0):
    """lambda * modified focal CE + (1 - lambda) * modified focal Tversky (Yeung et al. 2022).

    Foreground (class > 0; under a sigmoid: the positives): delta CE and (1 - mTI)^(1 - gamma). Background:
    (1 - delta)(1 - p)^gamma CE and 1 - mTI. Symmetric: the power in every term. mTI weighs FN by delta, FP by 1-delta.
    """
    assert flat.reduction == "mean"
    of_foreground = surprisal if asymmetric else focused(gamma)
    front, weights = pixel_maps(flat, of_foreground, alpha=sides(flat, 0.0, delta))
    back, _ = pixel_maps(flat, focused(gamma), alpha=sides(flat, 1 - delta, 0.0))
    miss = tversky_miss(Region(flat), 1 - delta, delta, smooth)
    losses = miss ** (1 - gamma)
    if flat.softmax and asymmetric:
        losses[:, 0] = miss[:, 0]
    pixel_half = reduce_pixels(flat, front + back, weights)
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
    value, previous, mistakes = 0.0, 0.0, set()
    for i in sorted(range(len(errors)), key=lambda i: -errors[i]):
        mistakes.add(i)
        current = jaccard_of_mistakes(mistakes, t)
        value += errors[i] * (current - previous)
        previous = current
    return value


def lovasz(flat: Flat, errors: Array) -> Any:
    """Lovasz extension of the Jaccard loss at the ``errors`` (N, C, P)."""

    def of_class(valid: Array, errors: Array, t: Array) -> float:
        return lovasz_extension(errors[valid].tolist(), t[valid].tolist())

    groups = len(errors) if flat.per_image else 1
    by_class = (  # (G, C, images, P)
        x.reshape(groups, -1, *x.shape[1:]).swapaxes(1, 2) for x in (flat.valid, errors, flat.t)
    )
    losses = [list(map(of_class, *group)) for group in zip(*by_class, strict=True)]
    return reduce_regions(flat, np.array(losses))


@of_flat
def lovasz_softmax(flat):
    """Lovasz-Softmax (sigmoid errors in binary and multilabel mode)."""
    return lovasz(flat, abs(flat.t - flat.p))


@of_flat
def lovasz_hinge(flat):
    """Lovasz hinge."""
    return lovasz(flat, np.maximum(0.0, 1 - (2 * flat.t - 1) * flat.z))


# ----------------------------------------------------------------------------------------------------------------------
# Distances
# ----------------------------------------------------------------------------------------------------------------------
def signed_distance(mask: Array, spacing: float | Sequence[float] = 1.0) -> Array:
    """Distance of every pixel to the nearest pixel of the other kind, negative inside; 0 without a boundary."""
    if not mask.any() or mask.all():
        return np.zeros(mask.shape)
    places = np.argwhere(np.ones(mask.shape)) * np.asarray(spacing)
    apart = np.sqrt(((places[:, None] - places) ** 2).sum(2))
    inside = mask.ravel()
    nearest = np.where(inside[:, None] != inside, apart, np.inf).min(1)
    return np.where(inside, -nearest, nearest).reshape(mask.shape)


def distance_loss(flat: Flat, term: Callable[..., Array], spacing: float | Sequence[float]) -> Any:
    """Mean of ``term``, a function of p, t and the signed distances of the truth and the guess; void is outside."""

    def maps(x: Array) -> Array:
        masks = (flat.valid & (x > 0.5)).reshape(-1, *flat.shape)
        return np.array([signed_distance(mask, spacing) for mask in masks]).reshape(x.shape)

    total = flat.sums(term(flat.p, flat.t, maps(flat.t), maps(flat.p)))
    return reduce_regions(flat, divide(total, flat.sums(np.ones(flat.z.shape)), 0.0))


@of_flat
def boundary(flat, spacing=1.0):
    """mean(p phi_T) (Kervadec et al. 2019)."""
    return distance_loss(flat, lambda p, t, phi_t, phi_p: p * phi_t, spacing)


@of_flat
def hausdorff(flat, alpha=2.0, spacing=1.0):
    """mean((p - t)^2 (d_T^a + d_P^a)), d = |phi| (Karimi & Salcudean 2019)."""

    def term(p: Array, t: Array, phi_t: Array, phi_p: Array) -> Array:
        return (p - t) ** 2 * (abs(phi_t) ** alpha + abs(phi_p) ** alpha)

    return distance_loss(flat, term, spacing)


# ----------------------------------------------------------------------------------------------------------------------
# Skeletons
# ----------------------------------------------------------------------------------------------------------------------
def soft_skeleton(x: Array, valid: Array, iterations: int) -> Array:
    """Soft skeleton of one map x; what is outside the map or not valid is no neighbour (Shit et al. 2021)."""
    cross, cube = ndimage.generate_binary_structure(x.ndim, 1), np.ones([3] * x.ndim)

    def extreme(best: Callable[..., Array], values: Array, window: Array, missing: float) -> Array:
        known = np.where(valid, values, missing)
        return best(known, footprint=window, mode="constant", cval=missing) if x.ndim else known

    skeleton = np.zeros(x.shape)
    for _ in range(iterations + 1):
        eroded = extreme(ndimage.minimum_filter, x, cross, np.inf)
        opened = extreme(ndimage.maximum_filter, eroded, cube, -np.inf)
        tip = np.where(valid, np.maximum(x - opened, 0.0), 0.0)
        skeleton += tip - skeleton * tip
        x = eroded
    return skeleton


@of_flat
def soft_cldice(flat, iterations=3, smooth=0.0):
    """1 - harmonic mean of sum k(p) t / sum k(p) and sum k(t) p / sum k(t), k the soft skeleton."""
    masks = flat.valid.reshape(-1, *flat.shape)

    def skeletons(values: Array) -> Array:
        maps = zip(values.reshape(masks.shape), masks, strict=True)
        return np.array([soft_skeleton(x, valid, iterations) for x, valid in maps])

    drawn, true = (skeletons(x).reshape(flat.z.shape) for x in (flat.p, flat.t))
    met, of_drawn, found, of_true = (
        flat.sums(x) + smooth for x in (drawn * flat.t, drawn, true * flat.p, true)
    )
    precision, sensitivity = divide(met, of_drawn), divide(found, of_true)
    harmonic = divide(2 * precision * sensitivity, precision + sensitivity, 0.0)
    return reduce_regions(flat, 1 - harmonic)


# ----------------------------------------------------------------------------------------------------------------------
# Compounds
# ----------------------------------------------------------------------------------------------------------------------
def compound(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., Any]:
    """scales[0] * first + scales[1] * second, each with the keywords that it takes."""

    def loss(logits, target, *, scales=(1.0, 1.0), **given):
        return sum(
            scale * part(logits, target, **{k: v for k, v in given.items() if k in part.takes})
            for scale, part in zip(scales, (first, second), strict=True)
        )

    return loss


dice_ce = compound(dice, cross_entropy)
dice_focal = compound(dice, focal)
dice_topk = compound(dice, topk_ce)
ce_lovasz = compound(cross_entropy, lovasz_softmax)


def nnunet_dice_ce(logits, target, *, do_bg=False, scales=(1.0, 1.0), **given):
    """nnU-Net: every foreground class counts, absent or not, 1e-5, per image.

    An image that is ignored as a whole counts too: see its published code in test_new_names.
    """
    given = {"per_image": True, "classes": "all", "smooth": 1e-5, **given}
    of_region = dict(given)
    if given["mode"] == "multiclass" and not do_bg:  # a class of weight 0 is no part of the mean
        weight = np.ones(logits.shape[1]) if given.get("weight") is None else given["weight"]
        of_region["weight"] = np.where(np.arange(len(weight)) == 0, 0.0, weight)
    del given["smooth"]
    parts = dice(logits, target, **of_region), cross_entropy(logits, target, **given)
    return scales[0] * parts[0] + scales[1] * parts[1]


def sam2_focal_dice(logits, target, *, scales=(20.0, 1.0), **given):
    """SAM 2: 20 focal + 1 Dice semimetric, per mask, with 1 added above and below."""
    given = {"per_image": True, "smooth": 1.0, "alpha": 0.25, **given}
    return compound(focal, dice_semimetric)(logits, target, scales=scales, **given)


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

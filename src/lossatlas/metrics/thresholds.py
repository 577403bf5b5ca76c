r"""From logits to classes: decision rules, and the search for the rule with the best Dice.

A rule adds an offset :math:`b_c` to every channel and takes the largest,

.. math:: \hat y = \arg\max_c\,(z_c + b_c),

or, for one sigmoid channel, says foreground where :math:`z + b > 0`, which is the threshold
:math:`p > \sigma(-b)`. Offsets of zero are the plain argmax (p > ½). The searches see logits and
labels batch by batch and keep a bounded amount of both, so that memory does not grow with the set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas.metrics.overlap import (
    Float64Array,
    Int64Array,
    Labels,
    _as_labels,
    _channel_hint,
    _check_ignore_index,
    _check_indices,
    _check_integer,
    _check_range,
    _is_number,
    _Summed,
)

#: Steps per unit of logit and largest logit of the binary search. Powers of two, so that placing a
#: float32 logit in its bin rounds nothing: the counts of a bin edge are those of the rule itself.
BINARY_STEPS, BINARY_LIMIT = 1024, 512
#: The same for an offset of the multi-class search.
OFFSET_STEPS, OFFSET_LIMIT = 64, 16
#: Pixels that the multi-class search keeps. Sets that have more are sampled class by class.
OFFSET_PIXELS = 2**19
_SWEEPS, _LEAST_GAIN = 5, 1e-4


@dataclass(frozen=True)
class DecisionRule:
    """Offsets added to the logits before the largest is taken (one channel: before its sign is).

    Attributes:
        offsets: one finite number a channel.

    >>> rule = DecisionRule((math.log(0.8 / 0.2),))        # foreground where p > 0.2
    >>> rule(torch.tensor([[[-2.0, -1.0, 1.0]]]))        # p = .12, .27, .73
    tensor([[0, 1, 1]])
    >>> DecisionRule((0.0, 1.5))(torch.tensor([[[2.0], [1.0]]]))
    tensor([[1]])
    """

    offsets: tuple[float, ...]

    def __post_init__(self) -> None:
        try:
            offsets = tuple(float(value) for value in self.offsets)
        except (TypeError, ValueError):  # one number, a text
            offsets = ()
        if not offsets or not all(math.isfinite(value) for value in offsets):
            raise ValueError(
                f"offsets: expected one finite number a channel, as in DecisionRule((0.3,)), got {self.offsets!r}"
            )
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def argmax(cls, channels: int) -> DecisionRule:
        """The rule without offsets: the largest logit; p > ½ for one channel."""
        return cls((0.0,) * _check_integer(channels, "channels", 1))

    @classmethod
    def logit_adjustment(cls, prior: float | Sequence[float], tau: float = 1.0) -> DecisionRule:
        r"""The rule that takes the class frequencies out of a trained network: offsets −τ ln π_c.

        With τ = 1 and logits that are log-probabilities it is the rule of the least balanced error.
        Source: Menon et al. 2021, eq. 9. The loss that trains for the same rule is
        :class:`lossatlas.losses.LogitAdjustedCrossEntropyLoss`.

        Args:
            prior: share π of each class among the training pixels, positive; only ratios matter. A
                single number is the foreground's share and makes a rule of one channel.
            tau: strength, 0 or more; 0 is the argmax.

        Raises:
            ValueError: a share that is not positive (or not below 1, for one channel).

        >>> DecisionRule.logit_adjustment(0.2).probability     # foreground where p > its share
        0.2
        """
        given: Any = prior
        one = not isinstance(given, Iterable) or isinstance(given, str)
        # a 0-d tensor is iterable, and one number
        shares = [given] if one or getattr(given, "ndim", 1) == 0 else list(given)
        high = 1.0 if len(shares) == 1 else math.inf
        if not shares or not all(_is_number(share, 0) and 0 < share < high for share in shares):
            raise ValueError(
                f"prior: expected positive shares (one channel: the foreground's, below 1), got {shares!r}"
            )
        values = [float(share) for share in shares]
        if not _is_number(tau, 0):
            raise ValueError(f"tau: expected a number of at least 0, got {tau!r}")
        if len(values) == 1:
            return cls((-tau * _logit(values[0]),))
        return cls(tuple(-tau * math.log(value) for value in values))

    @property
    def probability(self) -> float:
        """The threshold σ(−b) of a rule for one channel."""
        if len(self.offsets) != 1:
            raise ValueError(
                f"probability: expected a rule of one channel, got {len(self.offsets)} offsets"
            )
        return 1 / (1 + math.exp(self.offsets[0])) if self.offsets[0] < 700 else 0.0

    def __call__(self, logits: Tensor) -> Tensor:
        """(N, C, *S) logits to (N, *S) int64 classes; ties go to the first class (to background).

        Offsets are added in float32 at least: half-precision logits are decided like the same numbers in float32.

        Raises:
            TypeError: no tensor.
            ValueError: the logits have not as many channels as the rule has offsets.
        """
        _check_tensor(logits)
        if logits.ndim < 2 or logits.shape[1] != len(self.offsets):
            raise ValueError(
                f"logits: expected (N, {len(self.offsets)}, *S) for a rule of "
                f"{len(self.offsets)} offsets, got {tuple(logits.shape)}"
            )
        if len(self.offsets) == 1:
            own = logits[:, 0]
            own = own.to(torch.promote_types(own.dtype, torch.float32))
            return (own > -self.offsets[0]).long()
        if any(self.offsets):
            shift = torch.tensor(self.offsets, dtype=torch.float32, device=logits.device)
            logits = logits + shift.reshape(-1, *[1] * (logits.ndim - 2))
        # argmax over the channels says the same, at an eighth of the speed on a CPU
        return logits.max(1).indices


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)


def _check_tensor(logits: Tensor) -> None:
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"logits: expected a tensor, got {type(logits).__name__}; make an array one with "
            "torch.from_numpy(logits)"
        )


def _labelled(
    logits: Tensor, target: Labels, channels: int, classes: int, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """(channels, M) logits and (M,) labels of the pixels that are not void, checked."""
    _check_tensor(logits)
    if logits.ndim < 2 or logits.shape[1] != channels:
        raise ValueError(f"logits: expected (N, {channels}, *S), got {tuple(logits.shape)}")
    labels = _as_labels(target, "target")
    wanted = (logits.shape[0], *logits.shape[2:])
    if labels.shape != wanted:
        raise ValueError(
            f"target: expected class indices of shape {wanted}, got {tuple(labels.shape)}"
            f"{_channel_hint('target', labels.shape, wanted)}"
        )
    values = logits.detach().float().movedim(1, 0).flatten(1)
    labels = labels.to(values.device).flatten()
    if ignore_index is not None:
        keep = labels != ignore_index
        values, labels = values[:, keep], labels[keep]
    _check_range(labels, classes, "target", ignore_index)
    return values, labels


class ThresholdSearch(_Summed):
    r"""The threshold on one channel's logit with the best Dice over all pixels seen.

    Keeps two histograms of the logit, one a label, with 1024 bins a unit between −512 and 512 (16 MB,
    whatever the size of the set): networks trained with Dice reach logits beyond 100, where a
    probability is 1 to the last bit and only the logit still ranks. The counts at a bin's edge are
    exact, so the Dice that is found is the Dice of the rule that is returned; between edges a step
    of p is at most 1/4096.

    Where several thresholds are equally good, ½ is kept if it is one of them; else the middle of the
    nearest stretch of them is taken.

    Args:
        ignore_index: value of the target that leaves every count, or None.

    >>> search = ThresholdSearch()
    >>> search.update(torch.tensor([[[-3.0, -1.0, -0.5, 2.0]]]), torch.tensor([[0, 1, 1, 1]]))
    >>> rule, dice = search.best()
    >>> round(rule.offsets[0], 2), dice, search.dice(0.0)     # perfect: any threshold from −3 to −1
    (2.0, 1.0, 0.5)
    """

    _SUMS = ("_counts",)

    def __init__(self, ignore_index: int | None = None) -> None:
        self.ignore_index = _check_ignore_index(ignore_index)
        self._bins = 2 * BINARY_LIMIT * BINARY_STEPS + 2
        self._counts: Int64Array = np.zeros((2, self._bins), dtype=np.int64)

    def update(self, logits: Tensor, target: Labels) -> None:
        """Add a batch: logits (N, 1, *S), target (N, *S) of 0, 1 and ``ignore_index``.

        Raises:
            TypeError: a target that holds no integers.
            ValueError: shapes that disagree, or a label outside the classes. The counts then stay
                as they were.
        """
        values, labels = _labelled(logits, target, 1, 2, self.ignore_index)
        zero = BINARY_LIMIT * BINARY_STEPS
        # Bin j holds the logits in ((j−1−zero)/steps, (j−zero)/steps]: above edge i are the bins > i.
        # A logit that is not a number is above no threshold, as in the rule.
        scaled = torch.nan_to_num(values[0], nan=-math.inf).mul_(BINARY_STEPS).ceil_()
        index = scaled.clamp_(-zero, zero + 1).long().add_(zero)
        counts = torch.bincount(index + labels * self._bins, minlength=2 * self._bins)
        self._counts += counts.reshape(2, self._bins).cpu().numpy()

    def _dice(self) -> Float64Array:
        """Dice at every edge; 0 where nothing is predicted and NaN where there is no truth either."""
        above = self._counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
        positives = self._counts[1].sum()
        union = above.sum(0) + positives
        return np.where(union > 0, 2 * above[1] / np.maximum(union, 1), np.nan)

    def matrix(self, offset: float) -> Int64Array:
        """(2, 2) confusion matrix, rows the truth, of foreground where logit + ``offset`` > 0.

        The offset is taken to the nearest multiple of 1/1024, from −512 to 512.
        """
        try:
            number = math.nan if isinstance(offset, str) else float(offset)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            number = math.nan
        if math.isnan(number):
            raise ValueError(f"offset: expected a number to add to the logit, got {offset!r}")
        limit = BINARY_LIMIT * BINARY_STEPS
        offset = min(max(number, -BINARY_LIMIT), BINARY_LIMIT)
        edge = round(-offset * BINARY_STEPS) + limit
        below = self._counts[:, : edge + 1].sum(1)
        return np.stack([below, self._counts.sum(1) - below], axis=1)

    def dice(self, offset: float) -> float:
        """Dice of the foreground of :meth:`matrix`; NaN where there is none in truth or prediction."""
        (_, fp), (fn, tp) = self.matrix(offset)
        return float(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn else float("nan")

    def average_precision(self) -> float:
        r"""Area under the precision-recall curve, :math:`\sum_i (R_i - R_{i-1}) P_i`.

        The sum runs over the bins from the largest logit down; pixels of one bin are ties. NaN where
        the set has no foreground. The foreground's fraction is what a constant prediction gets.
        """
        found = self._counts[:, ::-1]
        occupied = found[1] > 0
        above = found.cumsum(1)[:, occupied]
        if not above.shape[1]:
            return float("nan")
        return float((found[1, occupied] * above[1] / above.sum(0)).sum() / above[1, -1])

    def best(self) -> tuple[DecisionRule, float]:
        """The rule, and its Dice; no offset where the set has no foreground."""
        zero = BINARY_LIMIT * BINARY_STEPS
        dice = self._dice()
        if not self._counts[1].any():
            return DecisionRule.argmax(1), float(dice[zero])
        edge = _nearest_best(dice, zero)
        return DecisionRule(((zero - edge) / BINARY_STEPS,)), float(dice[edge])


def _nearest_best(score: Float64Array, start: int) -> int:
    """Index of the largest score: ``start`` if it is one, else the middle of the nearest plateau."""
    best = score == score.max()
    if best[start]:
        return start
    change = np.flatnonzero(np.diff(np.concatenate([[False], best, [False]]).astype(np.int8)))
    first, last = change[::2], change[1::2] - 1
    gap = np.maximum(first - start, start - last)
    nearest = int(gap.argmin())
    return int(first[nearest] + last[nearest]) // 2


class OffsetSearch:
    r"""Offsets per class with the best mean Dice, by coordinate ascent over kept pixels.

    With the other offsets fixed, a pixel goes to class c as soon as b_c exceeds the margin
    max_{k≠c}(z_k + b_k) − z_c, and otherwise to that k. A histogram of the margins (64 bins a unit,
    −16 to 16) therefore gives the mean Dice for every b_c at once. Classes are taken in turn, class 0
    first, up to five times, until a turn gains less than 1e-4. Only differences of offsets matter:
    that of class 0 is 0 in the end. It is a local search: it never ends below where it began.

    If the set has at most ``max_pixels`` labelled pixels, all are kept and nothing is estimated.
    Otherwise a class with many pixels is sampled: each of its pixels is kept with the same
    probability and counts accordingly, and rare classes are kept whole; the draw depends on the
    seed and on the order of the images, not on the batches. The kept logits take
    4 · C · ``max_pixels`` bytes.

    The mean is over the scored classes that occur in the set; the offset of a scored class that does
    not occur is left alone.

    Args:
        class_pixels: (C,) labelled pixels of each class in the set, void left out.
        scored: indices of the classes whose mean Dice is maximised; None takes all.
        ignore_index: value of the target that leaves every count, or None.
        max_pixels: pixels to keep.
        seed: of the sample.
    """

    def __init__(
        self,
        class_pixels: Sequence[int] | Int64Array,
        *,
        scored: Sequence[int] | None = None,
        ignore_index: int | None = None,
        max_pixels: int = OFFSET_PIXELS,
        seed: int = 0,
    ) -> None:
        counts = np.asarray(class_pixels)
        if counts.ndim != 1 or len(counts) < 2:
            raise ValueError(
                f"class_pixels: expected one count a class, at least 2 classes, got shape {counts.shape}"
            )
        whole = counts.dtype.kind in "iuf" and bool(np.isfinite(counts).all())
        if not whole or (counts != np.floor(counts)).any():
            raise ValueError(f"class_pixels: expected whole counts, got {class_pixels!r}")
        self.class_pixels: Int64Array = counts.astype(np.int64)
        if self.class_pixels.min() < 0:
            raise ValueError(
                f"class_pixels: expected counts of at least 0, got {self.class_pixels.tolist()}"
            )
        self.classes = len(self.class_pixels)
        wanted = range(self.classes) if scored is None else scored
        wanted = _check_indices(wanted, "scored", self.classes, "class ")
        self.scored = [c for c in wanted if self.class_pixels[c] > 0]
        self.ignore_index = _check_ignore_index(ignore_index)
        max_pixels = _check_integer(max_pixels, "max_pixels", 1)
        self.kept_share = _kept_shares(self.class_pixels, max_pixels)
        self._generator = torch.Generator().manual_seed(seed)
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    @property
    def is_exact(self) -> bool:
        """Whether every pixel is kept."""
        return bool((self.kept_share == 1).all())

    def update(self, logits: Tensor, target: Labels) -> None:
        """Add a batch: logits (N, C, *S), target (N, *S) class indices.

        Raises:
            TypeError: a target that holds no integers.
            ValueError: shapes that disagree, or a label outside the classes. Nothing of the batch is
                then kept.
        """
        # the whole batch is checked before any of it is kept; then each image draws its own sample
        _labelled(logits, target, self.classes, self.classes, self.ignore_index)
        for image, truth in zip(logits, target, strict=True):
            values, labels = _labelled(
                image[None], truth[None], self.classes, self.classes, self.ignore_index
            )
            if not self.is_exact:
                share = torch.from_numpy(self.kept_share)
                draw = torch.rand(
                    len(labels), generator=self._generator, dtype=torch.float64, device="cpu"
                )
                keep = (draw < share[labels.cpu()]).to(values.device)
                values, labels = values[:, keep], labels[keep]
            self._logits.append(_own(values, logits))
            self._labels.append(_own(labels, target))

    def kept(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The pixels that are kept: logits (1, C, M) and their labels (1, M)."""
        for logits, labels in zip(self._logits, self._labels, strict=True):
            yield logits[None], labels[None]

    def best(self) -> tuple[DecisionRule, float]:
        """The rule, and its mean Dice over the kept pixels (exact if :attr:`is_exact`)."""
        seen = {int(c) for labels in self._labels for c in labels.unique()}
        scored = [c for c in self.scored if c in seen]  # a counted class may not have come
        if not scored:
            return DecisionRule.argmax(self.classes), float("nan")
        raw = torch.cat(self._logits, 1)
        self._logits = [raw]
        logits = torch.nan_to_num(raw, nan=-1e30)
        labels = torch.cat(self._labels)
        self._labels = [labels]
        kept = torch.bincount(labels, minlength=self.classes)
        total = torch.from_numpy(self.class_pixels).double()
        weight = None if self.is_exact else (total / kept.clamp(min=1))[labels]
        truth = torch.bincount(labels, weight, self.classes).double().numpy()
        offsets = torch.zeros(self.classes, dtype=torch.float64, device="cpu")
        shifted = logits.clone()
        score = -math.inf
        for _ in range(_SWEEPS):
            before = score
            for c in range(self.classes):
                if c and c not in seen:
                    continue
                edge, score = self._step(c, scored, logits, shifted, labels, weight, truth, offsets)
                offsets[c] = edge / OFFSET_STEPS
                torch.add(logits[c], float(offsets[c]), out=shifted[c])
            if score - before < _LEAST_GAIN:
                break
        offsets -= offsets[0].clone()
        rule = DecisionRule(tuple(offsets.tolist()))
        # The sum of a logit and an offset rounds: what the rule itself gets.
        chosen = rule(raw[None])[0]
        predicted = torch.bincount(chosen, weight, self.classes).double().numpy()
        right = chosen == labels
        weight = None if weight is None else weight[right]
        hit = torch.bincount(labels[right], weight, self.classes).double().numpy()
        return rule, float((2 * hit[scored] / (predicted[scored] + truth[scored])).mean())

    def _step(
        self,
        c: int,
        scored: list[int],
        logits: Tensor,
        shifted: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        truth: Float64Array,
        offsets: Tensor,
    ) -> tuple[int, float]:
        """The best offset of class c (in steps) with the others fixed, and its mean Dice."""
        limit = OFFSET_LIMIT * OFFSET_STEPS
        shifted[c] = -math.inf
        runner_up, other = shifted.max(0)
        # Bin j holds the margins in [(j−limit)/steps, (j+1−limit)/steps): below edge i are the bins < i.
        margin = (runner_up - logits[c]).mul_(OFFSET_STEPS)
        # A tie goes to the first class: to c, and so below its edge, where the other one comes later.
        margin = torch.where(other > c, margin.ceil().sub_(1), margin.floor())
        index = margin.clamp_(-limit - 1, limit).long().add_(limit + 1)
        bins = 2 * limit + 2
        # one count of every pixel: by what it is (wrong or right where it is, or truly c), where, bin
        kind = (other == labels).long() + 2 * (labels == c)
        cell = (kind * self.classes + other).mul_(bins).add_(index)
        table = torch.bincount(cell, weight, 3 * self.classes * bins)
        by_kind = table.double().reshape(3, self.classes, bins).numpy()
        # (C, bins): what goes to k unless it goes to c, and what of it is truly k
        lost, lost_true, gained_true = by_kind.sum(0), by_kind[1], by_kind[2].sum(0)
        to_c = lost.cumsum(1)[:, :-1]
        predicted = lost.sum(1, keepdims=True) - to_c
        hit = lost_true.sum(1, keepdims=True) - lost_true.cumsum(1)[:, :-1]
        predicted[c], hit[c] = to_c.sum(0), gained_true.cumsum()[:-1]
        dice = (2 * hit[scored] / (predicted[scored] + truth[scored, None])).mean(0)
        # sums of sampling weights round: a gain that small is none
        start = round(float(offsets[c]) * OFFSET_STEPS) + limit
        edge = _nearest_best(np.where(dice > dice.max() - 1e-12, dice.max(), dice), start)
        return edge - limit, float(dice[edge])


def _own(kept: Tensor, given: Labels) -> Tensor:
    """What is kept, on the CPU, in memory of its own: the caller may use what it gave for the next batch."""
    kept = kept.cpu()
    shared = isinstance(given, Tensor) and (
        kept.untyped_storage().data_ptr() == given.untyped_storage().data_ptr()
    )
    return kept.clone() if shared else kept


def _kept_shares(class_pixels: Int64Array, max_pixels: int) -> Float64Array:
    """Share of each class's pixels to keep: equal numbers, and what rare classes leave goes to the others."""
    share = np.ones(len(class_pixels))
    if class_pixels.sum() <= max_pixels:
        return share
    left, order = float(max_pixels), np.argsort(class_pixels, kind="stable")
    for position, c in enumerate(order):
        quota = left / (len(order) - position)
        if class_pixels[c] > quota:
            share[c] = quota / class_pixels[c]
        left -= min(quota, float(class_pixels[c]))
    return share

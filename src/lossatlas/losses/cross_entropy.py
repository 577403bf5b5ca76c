"""Cross-entropy and the losses that choose or weigh its pixels."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from . import _check
from ._base import PixelLoss, SegmentationLoss, balance_table, product, ratio
from ._parameters import ClassNumbers, CommonParameters, PixelParameters
from ._processes import sum_over_processes
from ._sample import Sample, class_table, possible

#: Relative error below which a logarithm is rounded, and not wrong.
_ROUNDING = 1e-5


class _Surprisal(PixelLoss):
    """What cross-entropy, one-vs-all and the balanced form share: a pixel costs its target's surprisal."""

    identity = True

    def phi(self, u: Tensor, q: Tensor) -> Tensor:
        """Surprisal itself."""
        return u

    def dphi(self, u: Tensor, q: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(u)


class CrossEntropyLoss(_Surprisal):
    r"""Cross-entropy: the weighted mean over pixels of the target's surprisal.

    .. math:: L = \frac{\sum_i w_{y_i}\,(-\log p_{i,y_i})}{\sum_i w_{y_i}}

    i runs over the valid pixels (multilabel: over pixels and channels), y_i is the target class,
    p the softmax (sigmoid) of the logits, w the class weights, 1 where none are given. Soft targets
    t: Σ_c w_c t_c (-log p_c) over Σ_c w_c t_c. In binary mode both classes count.

    Parameters
    ----------
    label_smoothing : float in [0, 1]
        ε moves to the uniform distribution: t becomes (1-ε) t + ε/C (C=2 under a sigmoid). The
        divisor keeps the weights of the unsmoothed target, as in torch.
    mode, weight, ignore_index, reduction, process_group
        See :class:`PixelLoss`. "none" gives (N, *S), for multilabel (N, C, *S).

    Limits: logit gradient w (p - t) per pixel. An absent class adds nothing; an empty or
    all-ignored batch gives 0 with zero gradient. L(t, t) is the entropy of t: 0 for hard targets
    only.

    Differs from ``torch.nn.functional.cross_entropy`` where every pixel is ignored (0, not NaN),
    and for weighted soft targets, where torch divides by the number of pixels, so that a one-hot
    target and its index give different losses.

    Source: any textbook; the weighted mean is PyTorch's definition.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    >>> round(losses.CrossEntropyLoss()(logits, target).item(), 4)  # ln 2
    0.6931
    """

    needs = ("surprisal", "entropy")

    def __init__(self, *, label_smoothing: float = 0.0, **common: Unpack[PixelParameters]) -> None:
        super().__init__(**common)
        self.label_smoothing = _check.number("label_smoothing", label_smoothing, low=0, high=1)

    def of(self, s: Sample) -> Tensor:
        """Weighted mean (or sum, or map) of u, smoothed where asked."""
        if self.label_smoothing == 0:
            return super().of(s)
        table = class_table(self.weight, s)
        if self.label_smoothing == 1:  # an infinite surprisal of no share is no 0 times inf
            return self.reduced(uniform_cross_entropy(s, table), s, table)
        value = (1 - self.label_smoothing) * s.pixels(self.phi, table)
        value = value + self.label_smoothing * uniform_cross_entropy(s, table)
        return self.reduced(value, s, table)


class LogitAdjustedCrossEntropyLoss(CrossEntropyLoss):
    r"""Logit-adjusted cross-entropy: cross-entropy of logits that carry the classes' frequencies.

    .. math:: L = \frac{\sum_i w_{y_i} (-\log \tilde p_{i,y_i})}{\sum_i w_{y_i}},
              \qquad \tilde p_i = \operatorname{softmax}_c (z_{ic} + \tau \ln \pi_c)

    π is the prior, the share of each class among the training pixels. Under a sigmoid
    :math:`\ln \frac{\pi_c}{1 - \pi_c}` is added. The network learns what is left to explain: with
    τ = 1 its own logits, without π, rank the classes as if all were equally frequent, so that their
    argmax has the least balanced error. Predict from the logits as they are.

    Parameters
    ----------
    prior : tensor, array or sequence of shape (C,), optional
        π, positive; only ratios matter among exclusive classes, so that pixel counts will do. Binary:
        (background, foreground), or the foreground's share alone. Multilabel: each channel's share,
        below 1. None is the same share for all: cross-entropy.
    tau : float >= 0
        τ, the strength; 0 is cross-entropy.
    label_smoothing, mode, weight, ignore_index, reduction, process_group
        See :class:`CrossEntropyLoss`.

    Limits: logit gradient w (p̃ - t) per pixel. An absent class adds nothing; an empty or all-ignored
    batch gives 0 with zero gradient. To correct a network that was trained with plain cross-entropy
    use :meth:`lossatlas.metrics.DecisionRule.logit_adjustment`.

    Source: Menon et al. 2021, "Long-tail learning via logit adjustment", eq. 10.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 2), torch.tensor([1])
    >>> loss = losses.LogitAdjustedCrossEntropyLoss(prior=[0.75, 0.25])(logits, target)
    >>> round(loss.item(), 4)  # -ln 0.25
    1.3863
    """

    prior: Tensor | None

    def __init__(
        self,
        *,
        prior: ClassNumbers | None = None,
        tau: float = 1.0,
        label_smoothing: float = 0.0,
        **common: Unpack[PixelParameters],
    ) -> None:
        super().__init__(label_smoothing=label_smoothing, **common)
        self.tau = _check.number("tau", tau, low=0)
        vector = _check.class_vector("prior", prior)
        if vector is not None and not _check.traced(vector):
            high = 1.0 if self.mode == "multilabel" or vector.shape[0] == 1 else math.inf
            if not bool(((vector > 0) & (vector < high)).all()):
                raise ValueError(
                    f"prior must be above 0{' and below 1' if high == 1 else ''}, the share of each "
                    f"class among the training pixels, got {vector.tolist()}; give a class without a "
                    "pixel a small share."
                )
        self.register_buffer("prior", vector, persistent=False)

    def of(self, s: Sample) -> Tensor:
        """Cross-entropy of the adjusted logits."""
        if self.prior is None:
            return super().of(s)
        prior = self.prior.to(s.logits.device)
        shift = self.tau * self.log_prior(prior.to(s.logits.dtype), s)
        # A share may be 0, 1 or infinite in the logits' dtype, where its logarithm is a number.
        exact = self.tau * self.log_prior(prior.to(_check.widest(prior)), s).to(shift.dtype)
        near = (shift - exact).abs() <= _ROUNDING * (self.tau + exact.abs())
        shift = torch.where(near, shift, exact)
        return super().of(dataclasses.replace(s, logits=s.logits + shift[:, None], _cache={}))

    def log_prior(self, prior: Tensor, s: Sample) -> Tensor:
        """What is added to each channel for τ = 1, (C,)."""
        binary_pair = s.mode == "binary" and prior.shape[0] == 2
        lengths = (1, 2) if s.mode == "binary" else (s.channels,)
        _check.vector_length("prior", prior, lengths, s.mode)
        if s.softmax:
            return prior.log()
        return (prior[1:] / prior[:1]).log() if binary_pair else prior.logit()


class OneVsAllCrossEntropyLoss(_Surprisal):
    r"""One-vs-all cross-entropy: every class is a yes-or-no question, so that negatives count too.

    .. math:: \ell_i = -\log p_{i,y_i} - \lambda \sum_{c \ne y_i} \log(1 - p_{i,c})

    Summed over the classes, averaged over the valid pixels with weights w_{y_i}. p is the softmax
    in multiclass mode and each channel's own sigmoid otherwise, where the loss is C times the
    weighted mean of the C N entries. Soft targets t: the mean of ℓ over labels drawn with
    probabilities t, weights included.

    Parameters
    ----------
    negative_weight : float >= 0
        λ; 0 gives cross-entropy in multiclass mode.
    mode, weight, ignore_index, reduction, process_group
        See :class:`PixelLoss`. "none" gives (N, *S), for multilabel (N, C, *S).

    Limits: finite for any finite logits, since 1 - p comes from the other classes' log-sum-exp.
    Strictly proper: same minimiser as cross-entropy, another gradient. An absent class still pushes
    its probability down; an empty or all-ignored batch gives 0 with zero gradient. In binary mode
    with λ = 1 it is binary cross-entropy.

    Source: one-vs-all reduction (Rifkin & Klautau 2004) with the log loss.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> p = torch.tensor([[0.1, 0.5, 0.1, 0.1, 0.2]])
    >>> loss = losses.OneVsAllCrossEntropyLoss()(p.log(), torch.tensor([0]))
    >>> round(loss.item(), 4)  # -ln .1 - ln .5 - ln .9 - ln .9 - ln .8
    3.4296
    """

    def __init__(self, *, negative_weight: float = 1.0, **common: Unpack[PixelParameters]) -> None:
        super().__init__(**common)
        self.negative_weight = _check.number("negative_weight", negative_weight, low=0)

    def of(self, s: Sample) -> Tensor:
        """Σ_c of the yes-or-no losses; mean, sum or map over pixels."""
        table = class_table(self.weight, s)
        if not s.softmax:
            sides = s.logits.new_tensor([self.negative_weight, 1.0])[:, None, None]
            loss = self.mean(s, product(table, sides), table)
            # The mean runs over all entries, the definition sums over a pixel's C channels.
            return s.channels * loss if self.reduction == "mean" else loss
        # A soft label is a mixture of hard ones: with probability t_c the label is c, which asks
        # "is it c?" of class c and "is it not?" of the others, all with weight w_c.
        yes = s.truth() if table is None else table * s.truth()
        no = yes.sum(1, keepdim=True) - yes
        log_p = s.log_probs()
        no = self.negative_weight * no
        asked, denied = possible(-log_p, yes), possible(-log_one_minus(log_p), no)
        value = (yes * asked + no * denied).sum(1)
        return self.reduced(value, s, table)


def log_one_minus(log_p: Tensor) -> Tensor:
    """Return log(1 - p_c) for log-probabilities over axis 1, finite even where p_c rounds to 1.

    Only the likeliest class can have p > 1/2; for it 1 - p is the sum of the others.
    """
    top = torch.arange(log_p.shape[1], device=log_p.device)
    top = top.view(-1, *[1] * (log_p.ndim - 2)) == log_p.argmax(1, keepdim=True)
    others = torch.where(top, -torch.inf, log_p)
    none = others.amax(1, keepdim=True).isneginf()  # p_c is 1 with certainty: the sum has no slope
    others = torch.where(none, 0.0, others).logsumexp(1, keepdim=True)
    others = torch.where(none, -torch.inf, others)
    small = torch.where(top, -1.0, log_p)  # any number below 0 where it is not used
    return torch.where(top, others, torch.log1p(-small.exp()))


class BalancedCrossEntropyLoss(_Surprisal):
    r"""Class-balanced cross-entropy: each class weighs as much as the pixels that are *not* it.

    .. math:: L = \frac1n \sum_i \alpha_{y_i} (-\log p_{i,y_i}), \qquad \alpha_c = 1 - n_c / n

    n_c counts the pixels of class c among the n valid ones of the batch. For two classes the
    positive weight is β = n₋/n and the negative one 1-β. Multilabel channels are balanced each on
    its own. `weight` multiplies the terms and enters the divisor, as in cross-entropy.

    Parameters
    ----------
    alpha : "batch" or float in [0, 1]
        "batch": the batch's own ratio, above; the α are constants to the gradient, for soft targets
        that need a gradient too. A float: α for positives and 1-α for negatives; among
        exclusive classes class 0 counts as negative.
    mode, weight, ignore_index, reduction, process_group
        See :class:`PixelLoss`. "none" gives (N, *S), for multilabel (N, C, *S).

    Limits: α = ½ is half of cross-entropy. An absent class adds nothing; a batch of one class only
    has loss 0 with "batch". An empty or all-ignored batch gives 0 with zero gradient.

    Source: Xie & Tu 2015 (HED), eq. 2, per batch instead of per image, and as a mean where they
    sum.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])
    >>> loss = losses.BalancedCrossEntropyLoss(mode="binary")(logits, target)
    >>> round(loss.item(), 4)  # (3/4 + 3 * 1/4) ln 2 / 4
    0.2599
    """

    def __init__(self, *, alpha: float | str = "batch", **common: Unpack[PixelParameters]) -> None:
        super().__init__(**common)
        self.alpha: float | None = None  # the batch's own ratio
        if not isinstance(alpha, str):
            self.alpha = _check.number("alpha", alpha, low=0, high=1)
        elif alpha != "batch":
            raise ValueError(f'alpha must be "batch" or a number in [0, 1], got {alpha!r}.')

    def of(self, s: Sample) -> Tensor:
        """Mean (or sum, or map) of α u."""
        weight = class_table(self.weight, s)
        fixed = balance_table(self.alpha, s)
        balance = self.batch_balance(s) if fixed is None else fixed
        return self.mean(s, product(weight, balance), weight)

    def batch_balance(self, s: Sample) -> Tensor:
        """Table of 1 - n_c/n: (C, 1), or (2, C, 1) under a sigmoid."""
        n_class = s.truth().sum((0, 2))
        n = s.valid_pixels().sum() if s.softmax else s.valid_pixels().sum((0, 2))
        both = torch.stack([n_class, n.expand_as(n_class)]).detach()
        n_class, n = sum_over_processes(both, self.process_group).unbind(0)
        fraction = ratio(n_class, n)
        if s.softmax:
            return (1 - fraction)[:, None]
        return torch.stack([fraction, 1 - fraction])[..., None]


class _HardPixels(SegmentationLoss):
    """What OHEM and top-k share: a mean over the pixels of largest loss."""

    needs = ("surprisal",)
    refused: ClassVar = {
        "process_group": "it ranks pixels, which takes all of them in one process; leave it out to "
        "average the processes' losses, or gather logits and targets before the call."
    }

    #: Surprisals above this are kept, where they are enough.
    cut: float | None = None

    def fewest(self, n: Tensor) -> Tensor:
        """How many of the `n` valid pixels are kept at least."""
        raise TypeError(f"{type(self).__name__} defines no number: override `fewest`.")

    def of(self, s: Sample) -> Tensor:
        """Weighted mean (or sum, or map) of the surprisal over the pixels kept."""
        table = class_table(self.weight, s)
        if self.reduction == "none":
            return s.shaped(s.hardest_map(self.cut, self.fewest, table)[0])
        total, weights = s.hardest(self.cut, self.fewest, table)
        return total if self.reduction == "sum" else ratio(total, weights)


class OHEMCrossEntropyLoss(_HardPixels):
    r"""Cross-entropy with online hard example mining: the mean over the pixels classified badly.

    .. math:: L = \frac{\sum_{i \in K} w_{y_i} (-\log p_{i,y_i})}{\sum_{i \in K} w_{y_i}},
              \qquad K = \{i : p_{i,y_i} < \theta\}

    or the `min_kept` pixels of smallest p where K has fewer than that.

    Parameters
    ----------
    threshold : float in (0, 1]
        θ. Pixels whose target has less probability are kept.
    min_kept : int >= 0 or float in [0, 1]
        The fewest pixels kept: a count, or a fraction of the batch's valid pixels (rounded).
        1/16 of the pixels by default.
    mode, weight, ignore_index, reduction
        See :class:`SegmentationLoss`. "none" gives (N, *S), multilabel (N, C, *S); 0 if not kept.

    Limits: ``min_kept=1.0`` keeps all: cross-entropy. The choice itself has no gradient. Soft
    targets are ranked by their cross-entropy. Weights do not change the ranking. An absent class
    adds nothing; an empty or all-ignored batch gives 0 with zero gradient. Pixels are ranked within
    one process.

    Source: Shrivastava et al. 2016 for regions; for pixels as in HRNet's code (threshold 0.7 and a
    smallest number kept) and, for the fraction 1/16, BiSeNet's.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    >>> loss = losses.OHEMCrossEntropyLoss()(logits, torch.tensor([1, 1]))
    >>> round(loss.item(), 4)  # p = .982 is left out, p = 1/2 kept: ln 2
    0.6931
    """

    def __init__(
        self,
        *,
        threshold: float = 0.7,
        min_kept: int | float = 1 / 16,
        **common: Unpack[CommonParameters],
    ) -> None:
        super().__init__(**common)
        self.threshold = _check.number("threshold", threshold, low=0, high=1, open_low=True)
        plain = _check.plain(min_kept)
        if isinstance(plain, float):
            if plain > 1 and plain.is_integer():
                raise ValueError(
                    f"min_kept is a count as an int and a fraction as a float: for at least {int(plain)} pixels "
                    f"pass min_kept={int(plain)}, got {min_kept!r}."
                )
            self.min_kept: int | float = _check.number("min_kept", min_kept, low=0, high=1)
        else:
            self.min_kept = _check.integer("min_kept", min_kept, low=0)
        self.cut = -math.log(self.threshold)

    def fewest(self, n: Tensor) -> Tensor:
        """`min_kept`, but no more than there are."""
        fewest = (
            self.min_kept * _wide(n) if isinstance(self.min_kept, float) else self.min_kept + 0 * n
        )
        return torch.minimum(fewest.round().long(), n)


class TopKCrossEntropyLoss(_HardPixels):
    r"""Top-k cross-entropy: the mean over the fraction k of the pixels with the largest loss.

    .. math:: L = \frac{\sum_{i \in K} w_{y_i} (-\log p_{i,y_i})}{\sum_{i \in K} w_{y_i}}

    K holds the round(k n) pixels, at least one, of largest -log p among the n valid ones of the
    batch.

    Parameters
    ----------
    k : float in (0, 1]
        Fraction kept.
    mode, weight, ignore_index, reduction
        See :class:`SegmentationLoss`. "none" gives (N, *S), multilabel (N, C, *S); 0 if not kept.

    Limits: k = 1 is cross-entropy. Exactly round(k n) pixels are kept: which of equal ones is left
    open. The choice has no gradient. Weights do not change the ranking. An absent class adds nothing;
    an empty or all-ignored batch gives 0 with zero gradient. Pixels are ranked within one process.

    Source: Wu et al. 2016, "Bridging category-level and instance-level semantic image
    segmentation", section 2.2 (bootstrapping); as a fraction in nnU-Net.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    >>> loss = losses.TopKCrossEntropyLoss(k=0.5)(logits, torch.tensor([1, 1]))
    >>> round(loss.item(), 4)  # the worse of the two: ln 2
    0.6931
    """

    def __init__(self, *, k: float = 0.1, **common: Unpack[CommonParameters]) -> None:
        super().__init__(**common)
        self.k = _check.number("k", k, low=0, high=1, open_low=True)

    def fewest(self, n: Tensor) -> Tensor:
        """Return round(k n), at least one."""
        return (self.k * _wide(n)).round().long().clamp_min(1)


def uniform_cross_entropy(s: Sample, table: Tensor | None) -> Tensor:
    """Map of the cross-entropy against the uniform distribution over the classes."""
    if s.softmax:
        u = -s.log_probs()
        value = (u if table is None else table * possible(u, table)).mean(1)
    else:
        positive, negative = s.sigmoid_surprisals()
        if table is not None:
            positive = table[1] * possible(positive, table[1])
            negative = table[0] * possible(negative, table[0])
        value = (positive + negative) / 2
    return value if s.valid is None else torch.where(s.valid, value, 0.0)


def _wide(n: Tensor) -> Tensor:
    """A count as a number that holds it and its share exactly, where the device has one."""
    return n.float() if n.device.type == "mps" else n.double()

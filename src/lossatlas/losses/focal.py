"""Focal loss and its relatives: cross-entropy reshaped as a function of p_t."""

from __future__ import annotations

from numbers import Real
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _check
from ._base import PixelLoss, RegionLoss, balance_table, overlap, power, product, ratio
from ._parameters import ClassNumbers, PixelParameters, RegionParameters
from ._processes import sum_over_processes
from ._sample import Regions, Sample, class_table, itself, of_surprisal, possible
from .cross_entropy import log_one_minus


class FocalLoss(PixelLoss):
    r"""Focal loss: cross-entropy that down-weights pixels already classified well.

    .. math:: L = \frac{1}{M} \sum_i \alpha_{y_i} (1 - p_{i,y_i})^\gamma (-\log p_{i,y_i})

    i runs over the valid pixels, p_{i,y_i} is the probability of pixel i's target class, M the
    number of pixels (or of positives). Soft targets: Σ_c t_c of the same terms.

    Parameters
    ----------
    gamma : float >= 0
        Focusing exponent γ; 0 gives cross-entropy, value and gradient.
    alpha : float in [0, 1], sequence of C numbers, or None
        Balance α. A float weighs positives by α and negatives by 1-α; among exclusive classes
        class 0 counts as negative. A sequence gives α of each class (binary: background and
        foreground, both). Unlike `weight` it does not enter the divisor.
    normalizer : {"pixels", "positives"}
        Divisor M: Σ w over the valid pixels, or the number of positives, at least 1 (the paper's).
    mode, weight, ignore_index, reduction, process_group
        See :class:`PixelLoss`. "none" gives (N, *S), for multilabel (N, C, *S).

    Limits: for any γ >= 0, γ < 1 included, value and gradient are finite and 0 at p_t = 1. An
    absent class adds nothing; an empty or all-ignored batch gives 0 with zero gradient.
    Not strictly proper: the minimiser under label noise is drawn towards ½.

    Source: Lin et al. 2017, "Focal loss for dense object detection", eq. 5. They divide by the
    number of positive anchors; the default here is the mean over pixels, as for cross-entropy.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.tensor([[0.0, 0.0]]), torch.tensor([1])
    >>> round(losses.FocalLoss(gamma=2.0)(logits, target).item(), 4)  # (1/2)^2 ln 2
    0.1733
    """

    alpha: Tensor | float | None

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | ClassNumbers | None = None,
        normalizer: str = "pixels",
        **common: Unpack[PixelParameters],
    ) -> None:
        super().__init__(**common)
        self.gamma = _check.number("gamma", gamma, low=0)
        self.normalizer = _check.choice("normalizer", normalizer, ("pixels", "positives"))
        if alpha is None or isinstance(_check.plain(alpha, "alpha"), Real):
            if alpha == -1:  # what torchvision calls no balance
                raise ValueError(
                    "alpha must be from 0 to 1, got -1; for no balance pass alpha=None."
                )
            self.alpha = None if alpha is None else _check.number("alpha", alpha, low=0, high=1)
        else:
            vector = _check.class_weights("alpha", alpha)
            if self.mode == "binary" and vector is not None and vector.shape[0] == 1:
                raise ValueError(
                    'alpha must be a number or (background, foreground) in mode="binary", got 1 entry: '
                    "pass the number itself, which is the foreground's, beside 1 - alpha of the background."
                )
            self.register_buffer("alpha", vector, persistent=False)

    def phi(self, u: Tensor, q: Tensor) -> Tensor:
        """(1 - p_t)^γ (-log p_t)."""
        return _focus(q, self.gamma) * u

    def dphi(self, u: Tensor, q: Tensor) -> Tensor:
        """q^(γ-1) (q + γ (1-q) u)."""
        return _focused_slope(u, q, self.gamma)

    def of(self, s: Sample) -> Tensor:
        """Mean over pixels, or over positives, of α (1 - p_t)^γ (-log p_t)."""
        weight = class_table(self.weight, s)
        alpha = balance_table(self.alpha, s)
        table = product(weight, alpha)
        if self.normalizer == "pixels" or self.reduction != "mean":
            return self.mean(s, table, weight)
        total = s.pixel_sum(self.phi, self.dphi, table)
        positives = s.weight_sum(positive_table(s))
        total, positives = (sum_over_processes(x, self.process_group) for x in (total, positives))
        return total / positives.clamp_min(1)


def _power(q: Tensor, exponent: float) -> Tensor:
    """Return q to an exponent: itself for 1, which a power would compute."""
    return q if exponent == 1 else q**exponent


def _positive(q: Tensor) -> Tensor:
    """Return q with 0 lifted to the smallest normal number, where powers below 1 stay finite."""
    return q.clamp_min(torch.finfo(q.dtype).tiny)


def _focus(q: Tensor, gamma: float) -> Tensor:
    """Return q^γ, whose derivatives stay finite at q = 0: from γ = 2 on the first two are as it is."""
    return (q if gamma >= 2 else _positive(q)) ** gamma


def _focused_slope(u: Tensor, q: Tensor, gamma: float) -> Tensor:
    """Slope of q^γ u by u = -log(1 - q): q^(γ-1) (q + γ (1-q) u)."""
    q = q if gamma >= 2 else _positive(q)
    return torch.addcmul(q, 1 - q, u, value=gamma).mul_(_power(q, gamma - 1))


def positive_table(s: Sample) -> Tensor:
    """Class table that is 1 for positives (every class but 0) and 0 for negatives."""
    table = balance_table(1.0, s)
    assert table is not None
    return table


class Poly1Loss(PixelLoss):
    r"""Poly-1 loss: cross-entropy with its first polynomial coefficient changed.

    .. math:: L = \frac{\sum_i w_{y_i} \left[-\log p_{i,y_i} + \epsilon (1 - p_{i,y_i})\right]}
                       {\sum_i w_{y_i}}

    Symbols as in :class:`CrossEntropyLoss`. Soft targets: Σ_c t_c of the same terms.

    Parameters
    ----------
    epsilon : float >= -1
        ε, the change of the coefficient of (1 - p); 1 by default, 0 is cross-entropy.
    mode, weight, ignore_index, reduction, process_group
        See :class:`PixelLoss`. "none" gives (N, *S), for multilabel (N, C, *S).

    Limits: 0 at p_t = 1. An absent class adds nothing; an empty or all-ignored batch gives 0 with
    zero gradient. L(t, t) > 0 for a soft target t.

    Source: Leng et al. 2022 (PolyLoss), eq. 3 and section 4.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.tensor([[0.0, 0.0]]), torch.tensor([1])
    >>> round(losses.Poly1Loss()(logits, target).item(), 4)  # ln 2 + 1/2
    1.1931
    """

    def __init__(self, *, epsilon: float = 1.0, **common: Unpack[PixelParameters]) -> None:
        super().__init__(**common)
        self.epsilon = _check.number("epsilon", epsilon, low=-1)

    def phi(self, u: Tensor, q: Tensor) -> Tensor:
        """-log p_t + ε (1 - p_t)."""
        return u + self.epsilon * q

    def dphi(self, u: Tensor, q: Tensor) -> Tensor:
        """1 + ε p_t."""
        return 1 + self.epsilon * (1 - q)


class AsymmetricLoss(PixelLoss):
    r"""Asymmetric loss: focal loss with an exponent for each side, and a margin that mutes negatives.

    .. math:: \ell_i = \sum_c t_{ic} (1 - p_{ic})^{\gamma_+} (-\log p_{ic})
                     + (1 - t_{ic})\, x_{ic}^{\gamma_-} (-\log(1 - x_{ic})),
              \qquad x_{ic} = \max(p_{ic} - m, 0)

    Every class is a yes-or-no question: t is 1 for yes, 0 for no. A negative with p <= m costs
    exactly 0 and has gradient 0. The mean is over pixels (multilabel: over pixels and channels),
    with weights w_{y_i}. Multiclass: p is the softmax, and the loss sums a pixel's C questions. Soft
    targets: the mean of ℓ over labels drawn with probabilities t, weights included.

    Parameters
    ----------
    gamma_positive : float >= 0
        γ₊, exponent of positives.
    gamma_negative : float >= 0
        γ₋, exponent of negatives; larger than γ₊ where negatives outnumber positives.
    margin : float in [0, 1]
        m, taken off a negative's probability. In float32 1 - x has an error of about 1e-7, so a
        margin below 1e-5 other than 0 loses digits at p near 1.
    mode, weight, ignore_index, reduction, process_group
        See :class:`PixelLoss`. "none" gives (N, *S), for multilabel (N, C, *S).

    Limits: γ₊ = γ₋ and m = 0 is :class:`FocalLoss` in binary and multilabel mode; all three 0 is
    :class:`OneVsAllCrossEntropyLoss` in multiclass mode. A positive that is wrong with certainty
    costs inf, a negative at most (1 - m)^γ₋ (-ln m). An absent class still pushes its
    probability down to m; an empty or all-ignored batch gives 0 with zero gradient. Not proper: the
    minimiser exceeds the true probability where γ₋ > γ₊.

    Source: Ridnik, Ben-Baruch et al. 2021, "Asymmetric loss for multi-label classification"; their
    code is ``src/loss_functions/losses.py`` of Alibaba-MIIL/ASL, commit 05b193d. They sum over all
    labels (``reduction="sum"``) and the code has γ₊ = 1 by default. The softmax form is ours: their
    single-label variant keeps the target's term alone, which is a focal loss.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 2), torch.tensor([[1, 0]])
    >>> loss = losses.AsymmetricLoss(mode="binary", gamma_negative=1.0, margin=0.25)
    >>> round(loss(logits, target).item(), 4)  # (ln 2 + 0.25 * -ln 0.75) / 2
    0.3825
    """

    needs = ()

    def __init__(
        self,
        *,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        margin: float = 0.05,
        **common: Unpack[PixelParameters],
    ) -> None:
        super().__init__(**common)
        self.gamma_positive = _check.number("gamma_positive", gamma_positive, low=0)
        self.gamma_negative = _check.number("gamma_negative", gamma_negative, low=0)
        self.margin = _check.number("margin", margin, low=0, high=1)

    def phi(self, u: Tensor, q: Tensor) -> Tensor:
        """(1 - p)^γ₊ (-log p), the loss of yes."""
        return _focus(q, self.gamma_positive) * u if self.gamma_positive else u

    def of(self, s: Sample) -> Tensor:
        """Mean (or sum, or map) over pixels of the losses of yes and of no."""
        table = class_table(self.weight, s)
        if s.softmax:
            # A soft label is a mixture of hard ones, each with the weight of its own class.
            weights = s.truth() if table is None else table * s.truth()
            others = weights.sum(1, keepdim=True) - weights
            value = s.pixels(self.phi, table) + (others * self.denied(s, others)).sum(1)
            return self.reduced(value, s, table)
        t, z = s.truth(), s.clean_logits()
        yes, no = (t, 1 - t) if table is None else (table[1] * t, table[0] * (1 - t))
        asked = of_surprisal(self.phi, possible(-F.logsigmoid(z), yes), torch.sigmoid(-z))
        value = yes * asked + no * self.denied(s, no)
        if s.valid is not None:
            value = torch.where(s.valid, value, 0.0)
        return self.reduced(value, s, table)

    def denied(self, s: Sample, no: Tensor) -> Tensor:
        """x^γ₋ (-log(1 - x)), the loss of no, (N, C, P); `no` is what it will be multiplied by."""
        x = (s.probs() - self.margin).clamp_min(0)
        if self.margin:
            u = -torch.log1p(-x)
        else:
            # 1 - p is known to more digits than p, and where it is 0 the loss is infinite. What is
            # not asked costs nothing: not 0 times inf.
            log_q = log_one_minus(s.log_probs()) if s.softmax else F.logsigmoid(-s.clean_logits())
            u = possible(-log_q, no)
        return of_surprisal(lambda u, x: _focus(x, self.gamma_negative) * u, u, x)


class UnifiedFocalLoss(RegionLoss):
    r"""Unified focal loss: modified focal cross-entropy plus modified focal Tversky.

    .. math::
        L &= \lambda L_{mF} + (1-\lambda) L_{mFT} \\
        L_{mF} &= \frac1n \sum_i \begin{cases}
            \delta\,(-\log p_{i,y_i}) & y_i \ne 0\\
            (1-\delta)(1-p_{i,y_i})^\gamma (-\log p_{i,y_i}) & y_i = 0 \end{cases} \\
        L_{mFT} &= \operatorname{mean}_c \begin{cases}
            (1-\mathrm{mTI}_c)^{1-\gamma} & c \ne 0\\ 1-\mathrm{mTI}_c & c = 0 \end{cases},
        \quad \mathrm{mTI} = \frac{TP}{TP + \delta FN + (1-\delta) FP}

    This is the asymmetric form; the symmetric one focuses foreground and background alike: the
    factor (1-p)^γ and the exponent 1-γ everywhere. Class 0 is the background; under a sigmoid it is
    the negative, and the region half looks at the foreground only.

    Parameters
    ----------
    weight_lambda : float in [0, 1]
        λ, the share of the pixel half.
    delta : float in [0, 1]
        δ, weight of foreground pixels and of false negatives.
    gamma : float in [0, 1]
        γ: suppresses easy background, enhances rare foreground; 0 focuses nothing.
    asymmetric : bool
        Which form.
    mode, weight, ignore_index, reduction, per_image, classes, smooth, process_group
        See :class:`RegionLoss`; `weight` acts on both halves. `reduction` is "mean" only, since a
        pixel's and a class's losses do not add. ``per_image`` and ``classes`` act on the region
        half.

    Limits: 0 for a perfect hard prediction; the slope of (1-mTI)^(1-γ) is unbounded towards 0 and
    taken as 0 there. An absent class leaves the region half's mean; an empty or all-ignored batch
    gives 0 with zero gradient.

    Source: Yeung et al. 2022, "Unified focal loss", eqs. 17 to 22, with γ where their code has it
    (the paper's background exponent of the pixel half reads γ, of the region half 1-γ).

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 2, 2), torch.tensor([[0, 1]])
    >>> loss = losses.UnifiedFocalLoss(gamma=0.0, delta=0.5)(logits, target)
    >>> round(loss.item(), 4)  # 0.5 * (0.5 ln 2) + 0.5 * 0.5
    0.4233
    """

    def __init__(
        self,
        *,
        weight_lambda: float = 0.5,
        delta: float = 0.6,
        gamma: float = 0.5,
        asymmetric: bool = True,
        **common: Unpack[RegionParameters],
    ) -> None:
        super().__init__(**common)
        if self.reduction != "mean":
            raise ValueError(
                f'UnifiedFocalLoss has reduction="mean" only, got {self.reduction!r}: it adds a loss '
                "per pixel and a loss per class; build the halves from FocalLoss and "
                "FocalTverskyLoss to see them apart."
            )
        self.weight_lambda = _check.number("weight_lambda", weight_lambda, low=0, high=1)
        self.delta = _check.number("delta", delta, low=0, high=1)
        self.gamma = _check.number("gamma", gamma, low=0, high=1)
        self.asymmetric = _check.flag("asymmetric", asymmetric)

    needs = ("surprisal", "regions")

    def of(self, s: Sample) -> Tensor:
        """Return λ times the pixel half plus 1-λ times the region half."""
        if self.weight_lambda == 0:  # an infinite half of no share is no 0 times inf
            return super().of(s)
        if self.weight_lambda == 1:
            return self.pixel_half(s)
        return self.weight_lambda * self.pixel_half(s) + (1 - self.weight_lambda) * super().of(s)

    def pixel_half(self, s: Sample) -> Tensor:
        """Mean over pixels of the modified focal loss."""
        weight, positive = class_table(self.weight, s), positive_table(s)
        background, foreground = (1 - self.delta) * (1 - positive), self.delta * positive
        focused = background if self.asymmetric else background + foreground
        total = s.pixel_sum(self.focal, self.dfocal, product(weight, focused))
        if self.asymmetric:
            total = total + s.pixel_sum(itself, None, product(weight, foreground))
        total = sum_over_processes(total, self.process_group)
        return ratio(total, sum_over_processes(s.weight_sum(weight), self.process_group))

    def focal(self, u: Tensor, q: Tensor) -> Tensor:
        """(1 - p_t)^γ (-log p_t)."""
        return _focus(q, self.gamma) * u

    def dfocal(self, u: Tensor, q: Tensor) -> Tensor:
        """q^(γ-1) (q + γ (1-q) u)."""
        return _focused_slope(u, q, self.gamma)

    def formula(self, r: Regions) -> Tensor:
        """(1 - mTI)^(1-γ), and 1 - mTI for the background of the asymmetric form."""
        tp, fp, fn = r.intersection, r.predicted - r.intersection, r.target - r.intersection
        numerator = tp + self.smooth
        index = overlap(numerator, numerator + self.delta * fn + (1 - self.delta) * fp)
        focused = power(1 - index, 1 - self.gamma)
        if not self.asymmetric or self.mode != "multiclass":
            return focused
        background = torch.arange(index.shape[-1], device=index.device) == 0
        return torch.where(background, 1 - index, focused)

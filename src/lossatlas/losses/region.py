"""Overlap losses: Dice and its kin, formulas over I = Σ p t, S = Σ p and T = Σ t per class."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from . import _check
from ._base import RegionLoss, overlap, power
from ._parameters import RegionParameters
from ._sample import Regions, Sample


class DiceLoss(RegionLoss):
    r"""Soft Dice loss: one minus the overlap of prediction and target, averaged over classes.

    .. math:: L_c = 1 - \frac{2 I_c + \varepsilon}{S_c + T_c + \varepsilon}

    I = Σ p t, S = Σ p, T = Σ t over the valid pixels of the batch (or image), p the softmax or
    sigmoid, t the target, ε `smooth`. With `squared` S = Σ p² and T = Σ t² (V-Net).

    Parameters
    ----------
    squared : bool
        Squares in the denominator, as in V-Net.
    smooth : float >= 0
        ε, 0 by default: any ε > 0 lets an empty prediction score on an empty target.
    mode, weight, ignore_index, reduction, per_image, classes, process_group
        See :class:`RegionLoss`. `weight` gives the weighted Dice loss Σ w_c L_c / Σ w_c.

    Limits: L = 0 for a perfect hard prediction. For a soft target t, L(t, t) is *not* 0 unless
    `squared` (linear form: 1 - Σt²/Σt; use :class:`DiceSemimetricLoss`). A class absent from the
    target leaves the mean; counted through `classes`, its loss is 1 - ε/(S+ε): 1 without a gradient
    for ε = 0. Where S + T + ε = 0, and for an empty or all-ignored batch, 0 with zero gradient.

    Source: Milletari et al. 2016 (V-Net), section 3 (the squared form); Drozdzal et al. 2016
    (linear).

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])
    >>> losses.DiceLoss(mode="binary")(logits, target).item()  # 1 - 2*0.5 / (2 + 1)
    0.6666666865348816
    """

    def __init__(self, *, squared: bool = False, **common: Unpack[RegionParameters]) -> None:
        super().__init__(**common)
        self.squared = _check.flag("squared", squared)

    def formula(self, r: Regions) -> Tensor:
        """Return 1 - (2I + ε) / (S + T + ε)."""
        return 1 - overlap(2 * r.intersection + self.smooth, r.predicted + r.target + self.smooth)


class InverseDiceLoss(RegionLoss):
    r"""Inverse Dice loss: the Dice loss of everything that is *not* the class.

    .. math:: L_c = 1 - \frac{2 I'_c + \varepsilon}{S'_c + T'_c + \varepsilon}

    S' = Σ (1-p) = n - S, T' = n - T and I' = Σ (1-p)(1-t) = n - S - T + I, with n valid pixels and
    I, S, T, ε as in :class:`DiceLoss`.

    Parameters
    ----------
    mode, weight, ignore_index, reduction, per_image, classes, smooth, process_group
        See :class:`RegionLoss`.

    Limits: 0 for a perfect hard prediction. `classes` means the class, not its complement: a class
    absent from the target leaves the mean. A class that fills the image has no complement: 1, or 0
    where the prediction has none either. An empty or all-ignored batch gives 0 with zero gradient.

    Source: the complement of the Dice coefficient; as a loss known from practice, not from a paper.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])
    >>> loss = losses.InverseDiceLoss(mode="binary")(logits, target)
    >>> round(loss.item(), 4)  # 1 - 2*1.5 / (2 + 3)
    0.4
    """

    def formula(self, r: Regions) -> Tensor:
        """Dice of 1-p and 1-t."""
        predicted, target = r.count - r.predicted, r.count - r.target
        both = r.count - r.predicted - r.target + r.intersection
        return 1 - overlap(2 * both + self.smooth, predicted + target + self.smooth)


class GeneralizedDiceLoss(RegionLoss):
    r"""Generalised Dice loss: one ratio over all classes, each weighed by its inverse squared size.

    .. math:: L = 1 - \frac{2 \sum_c v_c I_c + \varepsilon}
                          {\sum_c v_c (S_c + T_c) + \varepsilon}, \qquad v_c = w_c / T_c^2

    I, S, T, ε as in :class:`DiceLoss`, w the optional class weights.

    Parameters
    ----------
    mode, weight, ignore_index, reduction, per_image, classes, smooth, process_group
        See :class:`RegionLoss`.

        "none" gives a scalar, or (N,) with `per_image`: the classes make one ratio.

    Limits: 0 for a perfect hard prediction. A class absent from the target leaves both sums (its
    published weight would be infinite); counted through `classes`, or present with less than one
    (soft) pixel, it weighs as if it had one. In binary mode, with the foreground alone, the weight
    cancels and the loss is Dice; for the paper's two-class form use two channels and "multiclass".
    An empty or all-ignored batch gives 0 with zero gradient.

    Source: Sudre et al. 2017, section 2 (GDL).

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[1, 0, 0, 0]])
    >>> loss = losses.GeneralizedDiceLoss()(logits, target)
    >>> round(loss.item(), 4)  # 1 - 2 (.5/1 + 1.5/9) / (3/1 + 5/9)
    0.625
    """

    def of(self, s: Sample) -> Tensor:
        """One ratio over the classes that count, then mean or sum over images."""
        r = self.statistics(s)
        weights = self.class_weights(r, s)
        # Sizes are at least one (soft) pixel: keeps 1/T² finite.
        v = weights / r.target.clamp_min(1) ** 2
        numerator = 2 * (v * r.intersection).sum(-1) + self.smooth
        divisor = (v * (r.predicted + r.target)).sum(-1) + self.smooth
        counted = (weights.sum(-1, keepdim=True) > 0).to(v.dtype)
        loss = (1 - overlap(numerator, divisor))[..., None]
        if self.reduction == "none":
            return (counted * loss)[..., 0].to(s.logits.dtype)
        return self.reduced(loss, counted, s)


class LogCoshDiceLoss(DiceLoss):
    r"""Log-cosh Dice loss: the logarithm of the hyperbolic cosine of each class's Dice loss.

    .. math:: L_c = \log\cosh\left(1 - \frac{2 I_c + \varepsilon}{S_c + T_c + \varepsilon}\right)

    Parameters
    ----------
    squared, mode, weight, ignore_index, reduction, per_image, classes, smooth, process_group
        See :class:`DiceLoss`.

    Limits: about L²/2 near 0, so that its gradient, tanh(L) times Dice's, vanishes with the loss.
    Absent class, empty image, all ignored, soft targets: as :class:`DiceLoss`.

    Source: Jadon 2020, "A survey of loss functions for semantic segmentation", section on log-cosh
    Dice; per class, then averaged.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])
    >>> loss = losses.LogCoshDiceLoss(mode="binary")(logits, target)
    >>> round(loss.item(), 4)  # log cosh(2/3)
    0.2075
    """

    def formula(self, r: Regions) -> Tensor:
        """Return log cosh L = log(1 + 2 sinh²(L/2)), exact for small L."""
        return torch.log1p(2 * torch.sinh(super().formula(r) / 2) ** 2)


class JaccardLoss(RegionLoss):
    r"""Soft Jaccard (IoU) loss.

    .. math:: L_c = 1 - \frac{I_c + \varepsilon}{S_c + T_c - I_c + \varepsilon}

    I, S, T, ε as in :class:`DiceLoss`.

    Parameters
    ----------
    mode, weight, ignore_index, reduction, per_image, classes, smooth, process_group
        See :class:`RegionLoss`.

    Limits: with ε = 0, L = 1 - J and D = 2J/(1+J): the gradient is parallel to Dice's. 0 for a
    perfect hard prediction, not for a soft target itself. Absent class, empty image and all
    ignored: as :class:`DiceLoss`.

    Source: Rahman & Wang 2016, eqs. 2 to 5.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])
    >>> loss = losses.JaccardLoss(mode="binary")(logits, target)
    >>> round(loss.item(), 4)  # 1 - 0.5 / (2 + 1 - 0.5)
    0.8
    """

    def formula(self, r: Regions) -> Tensor:
        """Return 1 - (I + ε) / (S + T - I + ε)."""
        union = r.predicted + r.target - r.intersection
        return 1 - overlap(r.intersection + self.smooth, union + self.smooth)


class TverskyLoss(RegionLoss):
    r"""Tversky loss: Dice with separate weights for false positives and false negatives.

    .. math:: L_c = 1 - \frac{TP + \varepsilon}{TP + \alpha FP + \beta FN + \varepsilon}

    TP = I, FP = S - I, FN = T - I with I, S, T, ε as in :class:`DiceLoss`.

    Parameters
    ----------
    alpha : float >= 0
        α, weight of the false positives.
    beta : float >= 0
        β, weight of the false negatives. (Some libraries swap the two.)
    mode, weight, ignore_index, reduction, per_image, classes, smooth, process_group
        See :class:`RegionLoss`.

    Limits: α = β = ½ is Dice (with half its ε), α = β = 1 Jaccard. 0 for a perfect hard prediction,
    not for a soft target itself. Absent class, empty image and all ignored: as :class:`DiceLoss`.

    Source: Salehi et al. 2017, eqs. 3 and 4, α = 0.3 and β = 0.7.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])
    >>> loss = losses.TverskyLoss(mode="binary")(logits, target)
    >>> round(loss.item(), 4)  # 1 - .5 / (.5 + .3*1.5 + .7*.5)
    0.6154
    """

    def __init__(
        self, *, alpha: float = 0.3, beta: float = 0.7, **common: Unpack[RegionParameters]
    ) -> None:
        super().__init__(**common)
        self.alpha = _check.number("alpha", alpha, low=0)
        self.beta = _check.number("beta", beta, low=0)

    def formula(self, r: Regions) -> Tensor:
        """Return 1 - (TP + ε) / (TP + α FP + β FN + ε)."""
        tp, fp, fn = r.intersection, r.predicted - r.intersection, r.target - r.intersection
        numerator = tp + self.smooth
        return 1 - overlap(numerator, numerator + self.alpha * fp + self.beta * fn)


class FocalTverskyLoss(TverskyLoss):
    r"""Focal Tversky loss: a root of the Tversky loss, which keeps the gradient of hard classes up.

    .. math:: L_c = (1 - \mathrm{TI}_c)^{1/\gamma}

    TI is the Tversky index of :class:`TverskyLoss`.

    Parameters
    ----------
    alpha, beta : float >= 0
        Weights of false positives and of false negatives.
    gamma : float > 0
        γ; 4/3 by default, 1 is the Tversky loss.
    mode, weight, ignore_index, reduction, per_image, classes, smooth, process_group
        See :class:`RegionLoss`.

    Limits: for γ > 1 the slope by TI grows without bound towards TI = 1 and is taken as 0 there.
    Absent class, empty image and all ignored: as :class:`DiceLoss`.

    Source: Abraham & Khan 2019, eq. 4, (1 - TI)^(1/γ) as in their code; the paper's figure draws
    1 - TI^(1/γ). Their α multiplies the false negatives.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])
    >>> loss = losses.FocalTverskyLoss(mode="binary")(logits, target)
    >>> round(loss.item(), 4)  # 0.6154 ** 0.75
    0.6948
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
        **common: Unpack[RegionParameters],
    ) -> None:
        super().__init__(alpha=alpha, beta=beta, **common)
        self.gamma = _check.number("gamma", gamma, low=0, open_low=True)

    def formula(self, r: Regions) -> Tensor:
        """(1 - TI)^(1/γ)."""
        return power(super().formula(r), 1 / self.gamma)


class DiceSemimetricLoss(RegionLoss):
    r"""Dice semimetric loss: a Dice loss that soft labels can bring to 0.

    .. math:: L_c = 1 - \frac{S_c + T_c - A_c + \varepsilon}{S_c + T_c + \varepsilon},
              \qquad A_c = \sum_i |p_{ic} - t_{ic}|

    S, T, ε as in :class:`DiceLoss`.

    Parameters
    ----------
    mode, weight, ignore_index, reduction, per_image, classes, smooth, process_group
        See :class:`RegionLoss`.

    Limits: L(t, t) = 0 for every target t, soft ones included, and L > 0 elsewhere. For hard
    targets A = S + T - 2I and the loss equals Dice. The gradient of |p - t| at p = t is taken as 0.
    Absent class, empty image and all ignored: as :class:`DiceLoss`.

    Source: Wang et al. 2023, "Dice semimetric losses", eq. for DML₁.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> target = torch.tensor([[[0.2, 0.9]]])
    >>> losses.DiceSemimetricLoss(mode="binary")(torch.logit(target), target).item()
    0.0
    """

    distance = True

    def formula(self, r: Regions) -> Tensor:
        """Return A / (S + T + ε), which is the same."""
        return overlap(r.distance, r.predicted + r.target + self.smooth, empty=0.0)

"""Overlap losses: Dice and its kin, formulas over I = Σ p t, S = Σ p and T = Σ t per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from . import _check
from ._base import RegionLoss, ratio
from ._sample import Regions


class DiceLoss(RegionLoss):
    r"""Soft Dice loss: one minus the overlap of prediction and target, averaged over classes.

    .. math:: L_c = 1 - \frac{2 I_c + \varepsilon}{S_c + T_c + \varepsilon}

    I = Σ p t, S = Σ p, T = Σ t over the valid pixels of the batch (or image), p the softmax or sigmoid,
    t the target, ε `smooth`. With `squared` S = Σ p² and T = Σ t² (V-Net).

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

    Source: Milletari et al. 2016 (V-Net), section 3 (the squared form); Drozdzal et al. 2016 (linear).

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])
    >>> losses.DiceLoss(mode="binary")(logits, target).item()  # 1 - 2*0.5 / (2 + 1)
    0.6666666865348816
    """

    def __init__(
        self,
        *,
        squared: bool = False,
        mode: str = "multiclass",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
        per_image: bool = False,
        classes: str | Sequence[int] | None = None,
        smooth: float = 0.0,
        process_group: Any = None,
    ) -> None:
        super().__init__(
            mode=mode,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            per_image=per_image,
            classes=classes,
            smooth=smooth,
            process_group=process_group,
        )
        self.squared = _check.flag("squared", squared)

    def formula(self, r: Regions) -> Tensor:
        """Return 1 - (2I + ε) / (S + T + ε)."""
        return 1 - ratio(
            2 * r.intersection + self.smooth, r.predicted + r.target + self.smooth, empty=1.0
        )

"""Compounds with a name: the weighted sums that people train with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ._base import CompoundLoss, SegmentationLoss
from .cross_entropy import CrossEntropyLoss, TopKCrossEntropyLoss
from .focal import FocalLoss
from .lovasz import LovaszSoftmaxLoss
from .region import DiceLoss


def dice_ce(
    *,
    scales: Sequence[float] = (1.0, 1.0),
    mode: str = "multiclass",
    weight: Tensor | Sequence[float] | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    per_image: bool = False,
    classes: str | Sequence[int] | None = None,
    smooth: float = 0.0,
) -> CompoundLoss:
    """Dice loss plus cross-entropy, times `scales`.

    The other parameters are those of :class:`DiceLoss` and :class:`CrossEntropyLoss`; those that
    both have go to both. Source: the sum that nnU-Net trains with (Isensee et al. 2021).

    >>> import torch
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    >>> round(dice_ce()(logits, target).item(), 4)  # 0.5 + ln 2
    1.1931
    """
    dice = _dice(mode, weight, ignore_index, reduction, per_image, classes, smooth)
    ce = CrossEntropyLoss(mode=mode, weight=weight, ignore_index=ignore_index, reduction=reduction)
    return CompoundLoss([dice, ce], scales)


def dice_focal(
    *,
    scales: Sequence[float] = (1.0, 1.0),
    gamma: float = 2.0,
    alpha: float | Tensor | Sequence[float] | None = None,
    mode: str = "multiclass",
    weight: Tensor | Sequence[float] | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    per_image: bool = False,
    classes: str | Sequence[int] | None = None,
    smooth: float = 0.0,
) -> CompoundLoss:
    """Dice loss plus focal loss, times `scales`.

    `gamma` and `alpha` are those of :class:`FocalLoss`, the others as in :func:`dice_ce`.

    >>> import torch
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    >>> round(dice_focal()(logits, target).item(), 4)  # 0.5 + ln 2 / 4
    0.6733
    """
    dice = _dice(mode, weight, ignore_index, reduction, per_image, classes, smooth)
    focal = FocalLoss(
        gamma=gamma,
        alpha=alpha,
        mode=mode,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )
    return CompoundLoss([dice, focal], scales)


def dice_topk(
    *,
    scales: Sequence[float] = (1.0, 1.0),
    k: float = 0.1,
    mode: str = "multiclass",
    weight: Tensor | Sequence[float] | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    per_image: bool = False,
    classes: str | Sequence[int] | None = None,
    smooth: float = 0.0,
) -> CompoundLoss:
    """Dice loss plus top-k cross-entropy, times `scales`.

    `k` is that of :class:`TopKCrossEntropyLoss`, the others as in :func:`dice_ce`.

    >>> import torch
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    >>> round(dice_topk()(logits, target).item(), 4)  # 0.5 + ln 2
    1.1931
    """
    dice = _dice(mode, weight, ignore_index, reduction, per_image, classes, smooth)
    topk = TopKCrossEntropyLoss(
        k=k, mode=mode, weight=weight, ignore_index=ignore_index, reduction=reduction
    )
    return CompoundLoss([dice, topk], scales)


def ce_lovasz(
    *,
    scales: Sequence[float] = (1.0, 1.0),
    bins: int | None = None,
    mode: str = "multiclass",
    weight: Tensor | Sequence[float] | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    per_image: bool = False,
    classes: str | Sequence[int] | None = None,
) -> CompoundLoss:
    """Cross-entropy plus Lovász-softmax, times `scales`.

    Parameters are those of :class:`CrossEntropyLoss` and :class:`LovaszSoftmaxLoss`. Source: Berman
    et al. 2018, who recommend to mix the two or to train with cross-entropy first.

    >>> import torch
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    >>> round(ce_lovasz()(logits, target).item(), 4)  # ln 2 + 0.5
    1.1931
    """
    parts: list[SegmentationLoss] = [
        CrossEntropyLoss(mode=mode, weight=weight, ignore_index=ignore_index, reduction=reduction),
        LovaszSoftmaxLoss(
            bins=bins,
            mode=mode,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            per_image=per_image,
            classes=classes,
        ),
    ]
    return CompoundLoss(parts, scales)


def _dice(
    mode: str,
    weight: Tensor | Sequence[float] | None,
    ignore_index: int | None,
    reduction: str,
    per_image: bool,
    classes: str | Sequence[int] | None,
    smooth: float,
) -> DiceLoss:
    return DiceLoss(
        mode=mode,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        per_image=per_image,
        classes=classes,
        smooth=smooth,
    )

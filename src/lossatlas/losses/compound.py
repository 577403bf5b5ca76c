"""Compounds with a name: the weighted sums that people train with."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, Unpack

import torch
from torch import Tensor

from . import _check
from ._base import CompoundLoss, RegionLoss, SegmentationLoss
from ._parameters import (
    ClassNumbers,
    ClassParameters,
    RegionParameters,
    reject_unknown,
    show_inherited,
)
from ._sample import Regions, Sample
from .cross_entropy import CrossEntropyLoss, TopKCrossEntropyLoss
from .focal import FocalLoss
from .lovasz import LovaszSoftmaxLoss
from .region import DiceLoss, DiceSemimetricLoss

P = ParamSpec("P")
L = TypeVar("L", bound=SegmentationLoss)


def _sum_of(
    *parts: type[SegmentationLoss], **defaults: Any
) -> Callable[[Callable[P, CompoundLoss]], Callable[P, CompoundLoss]]:
    """Let a function that builds a sum of `parts` take and show the parameters that they share.

    `defaults` are those of the shared parameters that differ from what all losses have.
    """

    def decorate(function: Callable[P, CompoundLoss]) -> Callable[P, CompoundLoss]:
        refused = {name: why for part in parts for name, why in part.refused.items()}

        @functools.wraps(function)
        def build(*args: P.args, **params: P.kwargs) -> CompoundLoss:
            reject_unknown(function.__name__, params, known, refused)
            return function(*args, **{**defaults, **params})

        shared = {
            name: about.replace(default=defaults.get(name, about.default))
            for name, about in inspect.signature(RegionLoss).parameters.items()
        }
        show_inherited(build, shared, without=refused)
        known = inspect.signature(build).parameters
        build.refused = refused  # type: ignore[attr-defined]
        return build

    return decorate


def _part(loss: type[L], common: Mapping[str, Any], **own: Any) -> L:
    """A part with its own parameters, and those of the `common` ones that it takes."""
    known = inspect.signature(loss).parameters
    return loss(**own, **{name: value for name, value in common.items() if name in known})


@_sum_of(DiceLoss, CrossEntropyLoss)
def dice_ce(
    *, scales: Sequence[float] = (1.0, 1.0), **common: Unpack[RegionParameters]
) -> CompoundLoss:
    """Dice loss plus cross-entropy, times `scales`.

    The other parameters are those of :class:`DiceLoss` and :class:`CrossEntropyLoss`; those that
    both have go to both. Source: the sum that nnU-Net trains with (Isensee et al. 2021).

    >>> import torch
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    >>> round(dice_ce()(logits, target).item(), 4)  # 0.5 + ln 2
    1.1931
    """
    return CompoundLoss([_part(DiceLoss, common), _part(CrossEntropyLoss, common)], scales)


@_sum_of(DiceLoss, FocalLoss)
def dice_focal(
    *,
    scales: Sequence[float] = (1.0, 1.0),
    gamma: float = 2.0,
    alpha: float | ClassNumbers | None = None,
    **common: Unpack[RegionParameters],
) -> CompoundLoss:
    """Dice loss plus focal loss, times `scales`.

    `gamma` and `alpha` are those of :class:`FocalLoss`, the others as in :func:`dice_ce`.

    >>> import torch
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    >>> round(dice_focal()(logits, target).item(), 4)  # 0.5 + ln 2 / 4
    0.6733
    """
    focal = _part(FocalLoss, common, gamma=gamma, alpha=alpha)
    return CompoundLoss([_part(DiceLoss, common), focal], scales)


@_sum_of(DiceLoss, TopKCrossEntropyLoss)
def dice_topk(
    *, scales: Sequence[float] = (1.0, 1.0), k: float = 0.1, **common: Unpack[RegionParameters]
) -> CompoundLoss:
    """Dice loss plus top-k cross-entropy, times `scales`.

    `k` is that of :class:`TopKCrossEntropyLoss`, the others as in :func:`dice_ce`, without
    `process_group`, which the ranking of pixels rules out.

    >>> import torch
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    >>> round(dice_topk()(logits, target).item(), 4)  # 0.5 + ln 2
    1.1931
    """
    topk = _part(TopKCrossEntropyLoss, common, k=k)
    return CompoundLoss([_part(DiceLoss, common), topk], scales)


@_sum_of(CrossEntropyLoss, LovaszSoftmaxLoss)
def ce_lovasz(
    *,
    scales: Sequence[float] = (1.0, 1.0),
    bins: int | None = None,
    **common: Unpack[ClassParameters],
) -> CompoundLoss:
    """Cross-entropy plus Lovász-softmax, times `scales`.

    Parameters are those of :class:`CrossEntropyLoss` and :class:`LovaszSoftmaxLoss`. Source: Berman
    et al. 2018, who recommend to mix the two or to train with cross-entropy first.

    >>> import torch
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    >>> round(ce_lovasz()(logits, target).item(), 4)  # ln 2 + 0.5
    1.1931
    """
    lovasz = _part(LovaszSoftmaxLoss, common, bins=bins)
    return CompoundLoss([_part(CrossEntropyLoss, common), lovasz], scales)


class _NNUNetDiceLoss(DiceLoss):
    """Dice loss in which images without a valid pixel count, and the background only on demand.

    Listed classes are those that are listed.
    """

    def __init__(self, *, do_bg: bool, **common: Unpack[RegionParameters]) -> None:
        super().__init__(**common)
        self.do_bg = do_bg

    def class_weights(self, r: Regions, s: Sample) -> Tensor:
        """Weights of the Dice loss, also without a valid pixel; 0 for an unwanted class 0."""
        weights = super().class_weights(dataclasses.replace(r, count=torch.ones_like(r.count)), s)
        if self.do_bg or not s.softmax or isinstance(self.classes, tuple):
            return weights
        return weights * (torch.arange(s.channels, device=weights.device) > 0)


@_sum_of(DiceLoss, CrossEntropyLoss, per_image=True, classes="all", smooth=1e-5)
def nnunet_dice_ce(
    *,
    scales: Sequence[float] = (1.0, 1.0),
    do_bg: bool = False,
    **common: Unpack[RegionParameters],
) -> CompoundLoss:
    """Dice loss plus cross-entropy with the conventions of nnU-Net, times `scales`.

    The Dice loss is averaged over every foreground class, present in the target or not, of every
    image, also of an image that is ignored as a whole. With `do_bg` the background, class 0, counts
    too; a list of `classes` is taken as it is. nnU-Net's `batch_dice` is the opposite of `per_image`:
    nnU-Net's plans set it for 2-D networks. ε (`smooth`) is 1e-5. The other parameters are those of
    :func:`dice_ce`.

    The value is 1 more than nnU-Net's, times the first scale: its Dice part is -D, ours 1 - D. The
    gradient is the same. A foreground class that is absent and not predicted has D = 1 there and here.
    Differs in multilabel mode with `ignore_index`: nnU-Net's ``DC_and_BCE_loss`` divides the sum over
    channels by the number of valid pixels, so that its cross-entropy is C times ours.

    Source: Isensee et al. 2021; ``MemoryEfficientSoftDiceLoss`` (``nnunetv2/training/loss/dice.py``
    of MIC-DKFZ/nnUNet, commit 018b88d), ``DC_and_CE_loss`` (``compound_losses.py`` beside it, commit
    b26eb53) and the arguments of ``nnUNetTrainer._build_loss`` (commit 017de4a).

    >>> import torch
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]])
    >>> round(nnunet_dice_ce(smooth=0.0)(logits, target).item(), 4)  # 1 - 2*0.5 / (2 + 1) + ln 2
    1.3598
    """
    do_bg = _check.flag("do_bg", do_bg)
    dice = _part(_NNUNetDiceLoss, common, do_bg=do_bg)
    return CompoundLoss([dice, _part(CrossEntropyLoss, common)], scales)


@_sum_of(FocalLoss, DiceSemimetricLoss, mode="binary", per_image=True, smooth=1.0)
def sam2_focal_dice(
    *,
    scales: Sequence[float] = (20.0, 1.0),
    gamma: float = 2.0,
    alpha: float | ClassNumbers | None = 0.25,
    **common: Unpack[RegionParameters],
) -> CompoundLoss:
    """The mask loss of SAM and SAM 2: 20 times the focal loss plus the Dice loss, by default binary.

    One image is one object's mask. `gamma` and `alpha` are those of :class:`FocalLoss`. The Dice loss
    is the semimetric (:class:`DiceSemimetricLoss`), per image, with 1 added to numerator and
    denominator (`smooth`).

    Source: Ravi et al. 2024 (SAM 2), ``sigmoid_focal_loss`` and ``dice_loss`` of
    ``training/loss_fns.py`` of facebookresearch/sam2, commit 1a80ead; SAM (Kirillov et al. 2023) has
    the same 20 to 1. The losses of the predicted IoU and of the object score are not part of it; an
    object without a pixel counts here, while SAM 2 drops it where it trains object scores. SAM 2's
    masks are hard; for soft ones the focal half is :class:`FocalLoss`'s, another than theirs.

    >>> import torch
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[0, 0, 0, 1]])
    >>> # 20 * (.25 + 3 * .75) / 4 * .25 ln 2 + 1 - (2*.5 + 1) / (2 + 1 + 1)
    >>> round(sam2_focal_dice()(logits, target).item(), 4)
    2.6661
    """
    focal = _part(FocalLoss, common, gamma=gamma, alpha=alpha)
    return CompoundLoss([focal, _part(DiceSemimetricLoss, common)], scales)

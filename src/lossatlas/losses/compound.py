"""Compounds with a name: the weighted sums that people train with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, Unpack

from ._base import CompoundLoss, RegionLoss, SegmentationLoss
from ._parameters import (
    ClassNumbers,
    ClassParameters,
    RegionParameters,
    reject_unknown,
    show_inherited,
)
from .cross_entropy import CrossEntropyLoss, TopKCrossEntropyLoss
from .focal import FocalLoss
from .lovasz import LovaszSoftmaxLoss
from .region import DiceLoss

P = ParamSpec("P")
L = TypeVar("L", bound=SegmentationLoss)


def _sum_of(
    *parts: type[SegmentationLoss],
) -> Callable[[Callable[P, CompoundLoss]], Callable[P, CompoundLoss]]:
    """Let a function that builds a sum of `parts` take and show the parameters that they share."""

    def decorate(function: Callable[P, CompoundLoss]) -> Callable[P, CompoundLoss]:
        refused = {name: why for part in parts for name, why in part.refused.items()}

        @functools.wraps(function)
        def build(*args: P.args, **params: P.kwargs) -> CompoundLoss:
            reject_unknown(function.__name__, params, known, refused)
            return function(*args, **params)

        shared = inspect.signature(RegionLoss).parameters
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

"""Losses by name: a dict, nothing more."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from . import _check
from ._base import SegmentationLoss
from ._parameters import reject_unknown
from .compound import ce_lovasz, dice_ce, dice_focal, dice_topk, nnunet_dice_ce, sam2_focal_dice
from .cross_entropy import (
    BalancedCrossEntropyLoss,
    CrossEntropyLoss,
    LogitAdjustedCrossEntropyLoss,
    OHEMCrossEntropyLoss,
    OneVsAllCrossEntropyLoss,
    TopKCrossEntropyLoss,
)
from .distance import BoundaryLoss, HausdorffLoss
from .focal import AsymmetricLoss, FocalLoss, Poly1Loss, UnifiedFocalLoss
from .lovasz import LovaszHingeLoss, LovaszSoftmaxLoss
from .region import (
    DiceLoss,
    DiceSemimetricLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    InverseDiceLoss,
    JaccardLoss,
    LogCoshDiceLoss,
    TverskyLoss,
)
from .topology import SoftClDiceLoss

_BUILDERS: dict[str, Callable[..., SegmentationLoss]] = {
    "ce": CrossEntropyLoss,
    "weighted_ce": CrossEntropyLoss,
    "one_vs_all_ce": OneVsAllCrossEntropyLoss,
    "balanced_ce": BalancedCrossEntropyLoss,
    "ohem_ce": OHEMCrossEntropyLoss,
    "topk_ce": TopKCrossEntropyLoss,
    "logit_adjusted_ce": LogitAdjustedCrossEntropyLoss,
    "focal": FocalLoss,
    "poly1": Poly1Loss,
    "asymmetric": AsymmetricLoss,
    "dice": DiceLoss,
    "dice_squared": DiceLoss,
    "weighted_dice": DiceLoss,
    "inverse_dice": InverseDiceLoss,
    "generalized_dice": GeneralizedDiceLoss,
    "log_cosh_dice": LogCoshDiceLoss,
    "jaccard": JaccardLoss,
    "tversky": TverskyLoss,
    "focal_tversky": FocalTverskyLoss,
    "dice_semimetric": DiceSemimetricLoss,
    "lovasz_softmax": LovaszSoftmaxLoss,
    "lovasz_hinge": LovaszHingeLoss,
    "unified_focal": UnifiedFocalLoss,
    "boundary": BoundaryLoss,
    "hausdorff": HausdorffLoss,
    "soft_cldice": SoftClDiceLoss,
    "dice_ce": dice_ce,
    "dice_focal": dice_focal,
    "dice_topk": dice_topk,
    "ce_lovasz": ce_lovasz,
    "nnunet_dice_ce": nnunet_dice_ce,
    "sam2_focal_dice": sam2_focal_dice,
}

#: What a name fixes of its class's parameters.
_FIXED: dict[str, dict[str, Any]] = {"dice_squared": {"squared": True}}

#: Names that make no sense without class weights.
_WEIGHTED = ("weighted_ce", "weighted_dice")


def names() -> list[str]:
    """Every name that :func:`build` knows, in the book's order.

    >>> names()[:3]
    ['ce', 'weighted_ce', 'one_vs_all_ce']
    """
    return list(_BUILDERS)


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """Keyword parameters that ``build(name, ...)`` takes, with their defaults.

    >>> parameters("focal")["gamma"].default
    2.0
    """
    found = dict(inspect.signature(_builder(name)).parameters)
    for fixed in _FIXED.get(name, {}):
        del found[fixed]
    if name in _WEIGHTED:
        found["weight"] = found["weight"].replace(default=inspect.Parameter.empty)
    return found


#: What other libraries and papers call a loss of ours, in lower case and without "_" and "loss".
_ALIASES = {
    "bce": "ce", "crossentropy": "ce", "nll": "ce", "bcewithlogits": "ce", "iou": "jaccard", "softdice": "dice",
    "gdl": "generalized_dice", "ohem": "ohem_ce", "topk": "topk_ce", "lovasz": "lovasz_softmax", "dicebce": "dice_ce",
    "cldice": "soft_cldice", "surface": "boundary", "asl": "asymmetric",
    "binarycrossentropy": "ce", "sigmoidfocal": "focal",
}  # fmt: skip


def build(name: str, **params: Any) -> SegmentationLoss:
    """Loss called `name`, with the parameters of its class.

    Raises ValueError for an unknown name and TypeError for an unknown or missing parameter, both
    with the near matches.

    >>> build("focal", gamma=1.0).gamma
    1.0
    """
    builder, known = _builder(name), parameters(name)
    reject_unknown(f"the loss {name!r}", params, known, getattr(builder, "refused", {}))
    for param, about in known.items():
        missing = about.default is inspect.Parameter.empty and params.get(param) is None
        if missing:
            raise TypeError(
                f"{name!r} needs {param}=..., one number per class; lossatlas.losses.weights "
                "computes it from pixel counts."
            )
    return builder(**_FIXED.get(name, {}), **params)


def _builder(name: str) -> Callable[..., SegmentationLoss]:
    if not isinstance(name, str):
        raise TypeError(f"the name of a loss must be a string, got {name!r}.")
    if name not in _BUILDERS:
        known = {ours.replace("_", ""): ours for ours in _BUILDERS} | _ALIASES
        ours = known.get(re.sub(r"[\W_]", "", name.lower()).removesuffix("loss"))
        meant = f"did you mean {ours!r}?" if ours else _check.near(name, _BUILDERS)
        raise ValueError(f"unknown loss {name!r}; {meant}")
    return _BUILDERS[name]

"""The losses as functions, like ``torch.nn.functional``.

Each is its class called once, with the same keywords, defaults and errors; its name is the class's
in snake case. See the class for formula, shapes and limits.

>>> import torch
>>> from lossatlas.losses import FocalLoss, functional
>>> logits, target = torch.randn(2, 3, 8, 8), torch.randint(3, (2, 8, 8))
>>> a = functional.focal_loss(logits, target, gamma=1.0)
>>> bool(a == FocalLoss(gamma=1.0)(logits, target))
True
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

from torch import Tensor

from . import cross_entropy, distance, focal, lovasz, region, topology
from ._base import SegmentationLoss
from .distance import signed_distance


class LossFunction(Protocol):
    """What every function here looks like."""

    def __call__(self, logits: Tensor, target: Tensor, **params: Any) -> Tensor:
        """Loss of `logits` against `target`."""


def _function(name: str, loss: type[SegmentationLoss], *inputs: str) -> LossFunction:
    """Function that builds `loss` and calls it; `inputs` are further tensors of the call."""

    def function(logits: Tensor, target: Tensor, **params: Any) -> Tensor:
        tensors = {key: params.pop(key) for key in inputs if key in params}
        value: Tensor = loss(**params)(logits, target, **tensors)
        return value

    def parameter(name: str, keyword: bool = False) -> inspect.Parameter:
        kind = (
            inspect.Parameter.KEYWORD_ONLY if keyword else (inspect.Parameter.POSITIONAL_OR_KEYWORD)
        )
        default = None if keyword else inspect.Parameter.empty
        return inspect.Parameter(name, kind, default=default, annotation="Tensor")

    first = (inspect.getdoc(loss) or "").split("\n", 1)[0]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"{first}\n\n:class:`{loss.__name__}` called once; see there for the formula, the "
        "parameters, shapes and limits."
    )
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            parameter("logits"),
            parameter("target"),
            *(parameter(key, keyword=True) for key in inputs),
            *inspect.signature(loss).parameters.values(),
        ],
        return_annotation="Tensor",
    )
    return function


cross_entropy_loss = _function("cross_entropy_loss", cross_entropy.CrossEntropyLoss)
one_vs_all_cross_entropy_loss = _function(
    "one_vs_all_cross_entropy_loss", cross_entropy.OneVsAllCrossEntropyLoss
)
balanced_cross_entropy_loss = _function(
    "balanced_cross_entropy_loss", cross_entropy.BalancedCrossEntropyLoss
)
ohem_cross_entropy_loss = _function("ohem_cross_entropy_loss", cross_entropy.OHEMCrossEntropyLoss)
logit_adjusted_cross_entropy_loss = _function(
    "logit_adjusted_cross_entropy_loss", cross_entropy.LogitAdjustedCrossEntropyLoss
)
topk_cross_entropy_loss = _function("topk_cross_entropy_loss", cross_entropy.TopKCrossEntropyLoss)
focal_loss = _function("focal_loss", focal.FocalLoss)
poly1_loss = _function("poly1_loss", focal.Poly1Loss)
asymmetric_loss = _function("asymmetric_loss", focal.AsymmetricLoss)
unified_focal_loss = _function("unified_focal_loss", focal.UnifiedFocalLoss)
dice_loss = _function("dice_loss", region.DiceLoss)
inverse_dice_loss = _function("inverse_dice_loss", region.InverseDiceLoss)
generalized_dice_loss = _function("generalized_dice_loss", region.GeneralizedDiceLoss)
log_cosh_dice_loss = _function("log_cosh_dice_loss", region.LogCoshDiceLoss)
jaccard_loss = _function("jaccard_loss", region.JaccardLoss)
tversky_loss = _function("tversky_loss", region.TverskyLoss)
focal_tversky_loss = _function("focal_tversky_loss", region.FocalTverskyLoss)
dice_semimetric_loss = _function("dice_semimetric_loss", region.DiceSemimetricLoss)
lovasz_softmax_loss = _function("lovasz_softmax_loss", lovasz.LovaszSoftmaxLoss)
lovasz_hinge_loss = _function("lovasz_hinge_loss", lovasz.LovaszHingeLoss)
boundary_loss = _function("boundary_loss", distance.BoundaryLoss, "distance")
hausdorff_loss = _function(
    "hausdorff_loss", distance.HausdorffLoss, "target_distance", "prediction_distance"
)
soft_cl_dice_loss = _function("soft_cl_dice_loss", topology.SoftClDiceLoss)

__all__ = [name for name in dir() if name.endswith("_loss")] + ["signed_distance"]

"""The losses as functions, like ``torch.nn.functional``.

Each is its class called once: ``functional.focal_loss(logits, target, gamma=2.0)`` is
``FocalLoss(gamma=2.0)(logits, target)``, with the same keywords, defaults and errors. The name is the
class's in snake case. See the class for formula, shapes and limits.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .cross_entropy import CrossEntropyLoss
from .focal import FocalLoss
from .lovasz import LovaszHingeLoss, LovaszSoftmaxLoss
from .region import DiceLoss


def _apply(loss: Any, logits: Tensor, target: Tensor) -> Tensor:
    value: Tensor = loss(logits, target)
    return value


def cross_entropy_loss(logits: Tensor, target: Tensor, **params: Any) -> Tensor:
    """Cross-entropy of `logits` against `target`; parameters of :class:`CrossEntropyLoss`."""
    return _apply(CrossEntropyLoss(**params), logits, target)


def focal_loss(logits: Tensor, target: Tensor, *, gamma: float = 2.0, **params: Any) -> Tensor:
    """Focal loss of `logits` against `target`; parameters of :class:`FocalLoss`."""
    return _apply(FocalLoss(gamma=gamma, **params), logits, target)


def dice_loss(logits: Tensor, target: Tensor, **params: Any) -> Tensor:
    """Soft Dice loss of `logits` against `target`; parameters of :class:`DiceLoss`."""
    return _apply(DiceLoss(**params), logits, target)


def lovasz_softmax_loss(logits: Tensor, target: Tensor, **params: Any) -> Tensor:
    """Lovász-softmax loss of `logits` against `target`; of :class:`LovaszSoftmaxLoss`."""
    return _apply(LovaszSoftmaxLoss(**params), logits, target)


def lovasz_hinge_loss(logits: Tensor, target: Tensor, **params: Any) -> Tensor:
    """Lovász hinge of `logits` against `target`; parameters of :class:`LovaszHingeLoss`."""
    return _apply(LovaszHingeLoss(**params), logits, target)

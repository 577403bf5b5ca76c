"""Focal loss and its relatives: cross-entropy reshaped as a function of p_t."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _check
from ._base import PixelLoss, ratio
from ._processes import sum_over_processes
from ._sample import Sample, class_table


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
        class 0 counts as negative. A sequence gives α of each class (binary: background,
        foreground). Unlike `weight` it does not enter the divisor.
    normalizer : {"pixels", "positives"}
        Divisor M: the (weighted) number of valid pixels, or of positive ones, at least 1 (the paper's).
    mode, weight, ignore_index, reduction, process_group
        See :class:`PixelLoss`. "none" gives (N, *S), for multilabel (N, C, *S).

    Limits: for any γ >= 0, γ < 1 included, value and gradient are finite and 0 at p_t = 1. An absent
    class adds nothing; an empty or all-ignored batch gives 0 with zero gradient.
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
        alpha: float | Tensor | Sequence[float] | None = None,
        normalizer: str = "pixels",
        mode: str = "multiclass",
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
        process_group: Any = None,
    ) -> None:
        super().__init__(
            mode=mode,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            process_group=process_group,
        )
        self.gamma = _check.number("gamma", gamma, low=0)
        self.normalizer = _check.choice("normalizer", normalizer, ("pixels", "positives"))
        if alpha is None or isinstance(alpha, (int, float)):
            self.alpha = None if alpha is None else _check.number("alpha", alpha, low=0, high=1)
        else:
            self.register_buffer("alpha", _check.class_vector("alpha", alpha))

    def phi(self, u: Tensor, q: Tensor) -> Tensor:
        """(1 - p_t)^γ (-log p_t)."""
        return _positive(q) ** self.gamma * u

    def dphi(self, u: Tensor, q: Tensor) -> Tensor:
        """q^γ + γ q^(γ-1) (1-q) u."""
        q = _positive(q)
        return q**self.gamma + self.gamma * q ** (self.gamma - 1) * (1 - q) * u

    def of(self, s: Sample) -> Tensor:
        """Mean over pixels, or over positives, of α (1 - p_t)^γ (-log p_t)."""
        weight = class_table(self.weight, s)
        alpha = balance_table(self.alpha, s)
        value = s.pixels(self.phi, product(weight, alpha))
        if self.reduction == "none":
            return s.shaped(value)
        total = sum_over_processes(value.sum(), self.process_group)
        if self.reduction == "sum":
            return total
        if self.normalizer == "pixels":
            return ratio(total, sum_over_processes(s.weights(weight).sum(), self.process_group))
        positives = s.truth()[:, 1:].sum() if s.softmax else s.truth().sum()
        return total / sum_over_processes(positives, self.process_group).clamp_min(1)


def _positive(q: Tensor) -> Tensor:
    """Return q with 0 lifted to the smallest normal number, where powers below 1 stay finite."""
    return q.clamp_min(torch.finfo(q.dtype).tiny)


def product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Product of two class tables, where None is 1."""
    if a is None or b is None:
        return b if a is None else a
    return a * b


def balance_table(alpha: Tensor | float | None, s: Sample) -> Tensor | None:
    """α as a class table: a float is α for positives and 1-α for negatives."""
    if alpha is None:
        return None
    if isinstance(alpha, Tensor):
        return class_table(alpha, s, name="alpha")
    size = s.channels if s.softmax else 2
    pair = torch.full((size,), alpha, dtype=s.logits.dtype, device=s.logits.device)
    first = torch.arange(size, device=pair.device) == 0
    values = torch.where(first, 1 - pair, pair)
    return values[:, None] if s.softmax else values[:, None, None]

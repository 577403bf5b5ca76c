"""Cross-entropy and the losses that choose or weigh its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _check
from ._base import PixelLoss, ratio
from ._processes import sum_over_processes
from ._sample import Sample, class_table


class CrossEntropyLoss(PixelLoss):
    r"""Cross-entropy: the weighted mean over pixels of the target's surprisal.

    .. math:: L = \frac{\sum_i w_{y_i}\,(-\log p_{i,y_i})}{\sum_i w_{y_i}}

    i runs over the valid pixels (multilabel: over pixels and channels), y_i is the target class,
    p the softmax (sigmoid) of the logits, w the class weights, 1 where none are given. Soft targets
    t: Σ_c w_c t_c (-log p_c) over Σ_c w_c t_c. In binary mode both classes count.

    Parameters
    ----------
    label_smoothing : float in [0, 1]
        ε moves to the uniform distribution: t becomes (1-ε) t + ε/C (C=2 under a sigmoid). The
        divisor keeps the weights of the unsmoothed target, as in torch.
    mode, weight, ignore_index, reduction, process_group
        See :class:`PixelLoss`. "none" gives (N, *S), for multilabel (N, C, *S).

    Limits: logit gradient w (p - t) per pixel. An absent class adds nothing; an empty or all-ignored
    batch gives 0 with zero gradient. L(t, t) is the entropy of t: 0 for hard targets only.

    Differs from ``torch.nn.functional.cross_entropy`` where every pixel is ignored (0, not NaN),
    and for weighted soft targets, where torch divides by the number of pixels, so that a one-hot
    target and its index give different losses.

    Source: any textbook; the weighted mean is PyTorch's definition.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    >>> round(losses.CrossEntropyLoss()(logits, target).item(), 4)  # ln 2
    0.6931
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
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
        self.label_smoothing = _check.number("label_smoothing", label_smoothing, low=0, high=1)

    def phi(self, u: Tensor, q: Tensor) -> Tensor:
        """Surprisal itself."""
        return u

    def dphi(self, u: Tensor, q: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(u)

    def of(self, s: Sample) -> Tensor:
        """Weighted mean (or sum, or map) of u, smoothed where asked."""
        if self.label_smoothing == 0:
            return super().of(s)
        table = class_table(self.weight, s)
        value = (1 - self.label_smoothing) * s.pixels(self.phi, table)
        value = value + self.label_smoothing * uniform_cross_entropy(s, table)
        if self.reduction == "none":
            return s.shaped(value)
        total = sum_over_processes(value.sum(), self.process_group)
        if self.reduction == "sum":
            return total
        return ratio(total, sum_over_processes(s.weights(table).sum(), self.process_group))


def uniform_cross_entropy(s: Sample, table: Tensor | None) -> Tensor:
    """Map of the cross-entropy against the uniform distribution over the classes."""
    if s.softmax:
        u = -s.log_probs()
        value = (u if table is None else table * u).mean(1)
    else:
        z = s.clean_logits()
        positive = -torch.nn.functional.logsigmoid(z)
        negative = positive + z
        if table is not None:
            positive, negative = table[1] * positive, table[0] * negative
        value = (positive + negative) / 2
    return value if s.valid is None else torch.where(s.valid, value, 0.0)

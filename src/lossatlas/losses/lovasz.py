"""Lovász losses: the convex closure of the Jaccard loss, through sorted errors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar, TypedDict, Unpack

import torch
from torch import Tensor

from . import _check
from ._base import RegionLoss, ratio
from ._parameters import ClassNumbers, ClassParameters
from ._sample import Regions, Sample, possible


def jaccard_increments(truth: Tensor) -> Tensor:
    r"""Increments of the Jaccard loss as pixels are added to the error set one by one.

    `truth` (..., P) holds t of the pixels in the order of decreasing error. With I and U the
    intersection and union left before a pixel, its increment is

    .. math:: \frac{I}{U} - \frac{I - t}{U + 1 - t} = \frac{t\,U + (1-t)\,I}{U\,(U + 1 - t)}

    that is 1/U for foreground and I/(U(U+1)) for background. This closed form has no difference of
    nearly equal numbers, which is where float32 code loses the gradient on large images. Where
    nothing is left (T = 0, first pixel) the increment is 1. Returned in float64 where there is one.
    """
    wide = torch.float32 if truth.device.type == "mps" else torch.float64
    t = truth.to(wide)
    rest = t.sum(-1, keepdim=True)
    before = t.cumsum(-1) - t
    rank = torch.arange(t.shape[-1], device=t.device, dtype=wide)
    intersection = rest - before
    union = rest + (rank - before)
    divisor = union * (union + 1 - t)
    increments = (t * union + (1 - t) * intersection) / torch.where(divisor > 0, divisor, 1)
    return torch.where(divisor > 0, increments, 1 - t)


class _LovaszLoss(RegionLoss):
    """What the two Lovász losses share: sort the errors, dot with the Jaccard increments."""

    needs = ()
    refused: ClassVar = {
        "process_group": "it sorts errors, which takes all of them in one process; leave it out to "
        "average the processes' losses, or gather logits and targets before the call.",
        "smooth": "its formula has no ratio that could be smoothed.",
    }

    def __init__(self, *, bins: int | None = None, **common: Unpack[ClassParameters]) -> None:
        self.reject_unknown(common)
        super().__init__(**common)
        self.bins = None if bins is None else _check.integer("bins", bins, low=2, high=1 << 20)

    hinge = False

    def errors(self, s: Sample) -> Tensor:
        """Error of each pixel for each class, (N, C, P)."""
        raise TypeError(f"{type(self).__name__} defines no errors: override `errors`.")

    def largest(self, errors: Tensor) -> Tensor:
        """Upper end of the bins, (..., 1): no error is larger."""
        raise TypeError(f"{type(self).__name__} defines no bound: override `largest`.")

    def of(self, s: Sample) -> Tensor:
        """Mean over classes of the errors' Lovász extension."""
        if self.reduction == "none" or (self.weight is not None and self.weight.requires_grad):
            return self.plain(s)
        return s.lovasz(
            self.plain,
            functools.partial(self.coefficient, s),
            per_image=self.per_image,
            hinge=self.hinge,
            bins=self.bins,
        )

    def plain(self, s: Sample) -> Tensor:
        """The loss in differentiable operations."""
        errors, truth = self.errors(s), s.truth()
        valid = s.valid_pixels()[:, None].expand_as(errors) if s.softmax else s.valid_pixels()
        if not self.per_image:
            errors, truth, valid = (
                x.transpose(0, 1).reshape(s.channels, -1) for x in (errors, truth, valid)
            )
        if self.bins is None:
            loss = lovasz_extension(errors, truth, valid)
        else:
            loss = binned_lovasz_extension(
                errors, truth, valid, self.bins, self.largest(torch.where(valid > 0, errors, 0.0))
            )
        total, count = truth.sum(-1), valid.sum(-1)
        weights = self.class_weights(Regions(loss, loss, total, count, loss), s)
        return self.reduced(possible(loss, weights), weights, s)

    def coefficient(self, s: Sample, truth: Tensor, count: Tensor) -> Tensor:
        """Share of each image and class in the loss, of its T and number of pixels (N, C)."""
        if not self.per_image:
            truth, count = truth.sum(0), count.sum(0)
        weights = self.class_weights(Regions(truth, truth, truth, count, truth), s)
        if self.reduction == "sum":
            return weights
        total = weights.sum(-1, keepdim=True)
        return ratio(weights, total) / (total > 0).sum().clamp_min(1)


def lovasz_extension(errors: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Σ_k e_(k) Δ_k over the last axis, errors sorted from the largest; negative ones count 0."""
    key = torch.where(valid > 0, errors, -torch.inf).detach()
    # Among equal errors foreground goes first: a rule, so that equal inputs give equal gradients.
    order = torch.argsort(truth, dim=-1, descending=True, stable=True)
    order = order.gather(
        -1, torch.argsort(key.gather(-1, order), dim=-1, descending=True, stable=True)
    )
    increments = jaccard_increments(truth.gather(-1, order))
    ranked = torch.where(valid > 0, errors, 0.0).gather(-1, order).relu()  # slope 0 at the kink
    return (possible(ranked, increments) * increments).sum(-1).to(errors.dtype)


def binned_lovasz_extension(
    errors: Tensor, truth: Tensor, valid: Tensor, bins: int, largest: Tensor
) -> Tensor:
    r"""Lovász extension with errors grouped into `bins` equal intervals of [0, largest].

    The pixels of one bin share their increments. With I, U before the bin and I' = I - a,
    U' = U + b after its a foreground and b background pixels, each foreground pixel gets
    ½(1/U + 1/U') and each background pixel ½(I + I')/(U U'), the mean of the two extreme orders
    (foreground first, background first). Together they are I/U - I'/U', the exact increment.

    Error bound. Exact and binned sums give a bin the same total increment δ, spread differently
    over errors that lie within the bin's width h = largest/bins, so they differ by at most h δ
    there. The δ sum to at most 1, and the exact form is the maximum over all orders, so

    .. math:: 0 \le L_\mathrm{exact} - L_\mathrm{binned} \le \mathrm{largest} / \mathrm{bins}.
    """
    wide = torch.float32 if truth.device.type == "mps" else torch.float64
    total = (truth * valid).to(wide).sum(-1, keepdim=True)
    # Negative errors cost nothing and come after all others; NaN is none of them.
    v = ((valid > 0) & ~(errors < 0)).to(wide)
    t = truth.to(wide) * v
    clipped = torch.where(v > 0, errors, 0.0)
    # Bin 0 holds the largest errors.
    place = torch.minimum(clipped.detach(), largest) * (bins / largest)
    index = (bins - 1) - place.long().clamp(0, bins - 1)
    empty = torch.zeros(*errors.shape[:-1], bins, dtype=wide, device=errors.device)
    foreground = empty.scatter_add(-1, index, t)
    background = empty.scatter_add(-1, index, v - t)
    inter_after = total - foreground.cumsum(-1)
    union_after = total + background.cumsum(-1)
    inter, union = inter_after + foreground, union_after - background
    safe = torch.where(union > 0, union, 1.0)
    safe_after = torch.where(union_after > 0, union_after, 1.0)
    # With nothing left before the bin (T = 0), its b pixels share the whole increment 1.
    fg = torch.where(union > 0, (1 / safe + 1 / safe_after) / 2, 1 / safe_after)
    bg = torch.where(union > 0, (inter + inter_after) / (2 * safe * safe_after), 1 / safe_after)
    weight = fg.gather(-1, index) * t + bg.gather(-1, index) * (v - t)
    return (clipped * weight).sum(-1).to(errors.dtype)


class LovaszSoftmaxLoss(_LovaszLoss):
    r"""Lovász-softmax loss: the Lovász extension of the Jaccard loss, at the errors |t - p|.

    .. math:: L_c = \sum_k e_{(k)} \Delta_k, \qquad e_i = |t_i - p_i|

    e_(1) >= e_(2) >= ... are class c's sorted errors, Δ_k the growth of the Jaccard loss as the
    k-th pixel joins the error set (:func:`jaccard_increments`); p is the softmax, or the sigmoid.
    Soft targets count as foreground to the degree t.

    Parameters
    ----------
    bins : int or None
        None sorts exactly. An int up to 2^20 groups the errors into as many bins.
    mode, weight, ignore_index, reduction, per_image, classes
        See :class:`RegionLoss`; `smooth` and `process_group` do not exist here.

    Limits: on hard predictions L equals 1 - mean IoU of the classes that count. L = 0 for a perfect
    hard prediction; L(t, t) = 0 fails for soft t only through t's own errors being 0: it is 0. A
    class absent from the target leaves the mean; counted through `classes`, its loss is the largest
    p. An empty or all-ignored batch gives 0 with zero gradient.

    Source: Berman et al. 2018, "The Lovász-softmax loss", eqs. 8, 11 and 12; over the batch,
    classes present, as their defaults. Unlike theirs the increments are in closed form.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]])
    >>> losses.LovaszSoftmaxLoss()(logits, target).item()  # every error is 1/2
    0.5
    """

    def errors(self, s: Sample) -> Tensor:
        """Return |t - p|."""
        return (s.truth() - s.probs()).abs()

    def largest(self, errors: Tensor) -> Tensor:
        """One: errors are differences of probabilities."""
        return torch.ones_like(errors[..., :1])


class _HingeParameters(TypedDict, total=False):
    """What the hinge takes with the default that all losses have."""

    bins: int | None
    weight: ClassNumbers | None
    ignore_index: int | None
    reduction: str
    classes: str | Sequence[int] | None


class LovaszHingeLoss(_LovaszLoss):
    r"""Lovász hinge: the Lovász extension of the Jaccard loss, at the hinge errors of the logits.

    .. math:: L_c = \sum_k \max(e_{(k)}, 0)\, \Delta_k, \qquad e_i = 1 - z_i (2 t_i - 1)

    z is the logit, sorted and weighed as in :class:`LovaszSoftmaxLoss`. In multiclass mode every
    class's own logit is a hinge against the rest (the prediction is still the largest logit).

    Parameters
    ----------
    bins : int or None
        None sorts exactly. An int up to 2^20 groups the errors into as many bins.
    per_image : bool
        True by default, as in the paper.
    mode : str
        "binary" by default.
    weight, ignore_index, reduction, classes
        See :class:`RegionLoss`; `smooth` and `process_group` do not exist here.

    Limits: L = 0 where every margin is at least 1; L is at least the Jaccard loss of the prediction
    z > 0, with equality where all |z| -> errors in {0, 1}. In binary mode an image without
    foreground costs its largest positive error. Among several classes an absent one leaves the mean;
    counted through `classes`, it costs its largest positive error. An empty or all-ignored batch
    gives 0 with zero gradient.

    Source: Yu & Blaschko 2015; Berman et al. 2018, eq. 7 (hinge, per image).

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])
    >>> losses.LovaszHingeLoss()(logits, target).item()  # every error is 1
    1.0
    """

    def __init__(
        self, *, mode: str = "binary", per_image: bool = True, **common: Unpack[_HingeParameters]
    ) -> None:
        super().__init__(mode=mode, per_image=per_image, **common)

    hinge = True

    def errors(self, s: Sample) -> Tensor:
        """Return 1 - z (2t - 1)."""
        return 1 - s.masked_logits() * (2 * s.truth() - 1)  # no softmax, so no certainty of one

    def largest(self, errors: Tensor) -> Tensor:
        """Largest positive error, or 1 where there is none."""
        if errors.shape[-1] == 0:
            return errors[..., :1]
        top = errors.detach().amax(-1, keepdim=True).clamp_max(torch.finfo(errors.dtype).max)
        return torch.where(top > 0, top, 1.0)

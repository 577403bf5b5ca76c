"""Losses over distance maps, which SciPy computes on the CPU or you give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from . import _check
from ._base import RegionLoss, ratio
from ._layout import sample
from ._parameters import DistanceParameters
from ._sample import Regions, Sample
from ._sample import wide_dtype as _wide


def signed_distance(mask: Tensor, *, spacing: float | Sequence[float] | None = None) -> Tensor:
    r"""Signed Euclidean distance maps of binary masks: negative inside, positive outside.

    .. math:: \phi_i = \begin{cases} -\min_{j \notin G} \|i - j\| & i \in G \\
                                      +\min_{j \in G} \|i - j\| & i \notin G \end{cases}

    Parameters
    ----------
    mask : tensor (N, C, *S)
        One mask per image and class; where it is above ½ is inside. S has one axis at least.
    spacing : float or sequence of float, optional
        Size of a pixel along each spatial dimension; the distance is in its unit, else in pixels.

    Returns float32 maps (N, C, *S) on the mask's device. A mask without boundary (empty or full) has
    the map 0.

    Cost: two exact distance transforms per mask on the CPU, each linear in the pixels and some ten
    times dearer than Dice itself; on an accelerator also a copy to the host and back. For a fixed
    target compute the map once, in the data pipeline: ``signed_distance(mask[None, None])[0]`` is
    the (1, H, W) of one image's mask (H, W). The two leading axes are never part of the image:
    K masks (K, H, W) of one image are given as (1, K, H, W), ``masks[None]``.

    Raises ImportError where SciPy is missing, ValueError for a mask of fewer than three dimensions
    or a spacing of the wrong length.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> losses.signed_distance(torch.tensor([[[0, 1, 1, 1, 0]]]))
    tensor([[[ 1., -1., -2., -1.,  1.]]])
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a tensor (N, C, *spatial), got {type(mask).__name__}.")
    if mask.ndim < 3:
        raise ValueError(
            f"mask must have shape (N, C, *spatial), got {tuple(mask.shape)}; of one image's mask "
            "(H, W) pass mask[None, None]."
        )
    found = _steps(1.0 if spacing is None else spacing)
    steps = [found] * (mask.ndim - 2) if isinstance(found, float) else list(found)
    if len(steps) != mask.ndim - 2:
        raise ValueError(
            f"spacing must have one number per spatial dimension, expected {mask.ndim - 2}, "
            f"got {len(steps)}."
        )
    maps: Tensor = _signed_distance(mask.detach() > 0.5, steps)
    return maps


def _steps(spacing: float | Sequence[float]) -> float | tuple[float, ...]:
    """Distances between pixels, checked: one for all dimensions, or one a dimension."""
    several = isinstance(spacing, Sequence) or getattr(spacing, "ndim", 0) > 0
    if not several:
        return _check.number("spacing", spacing, low=0, open_low=True)
    return tuple(_check.number("spacing", step, low=0, open_low=True) for step in spacing)  # type: ignore[union-attr]


# An operator of its own, so that torch.compile, torch.export and vmap pass over SciPy in one piece.
@torch.library.custom_op(
    "lossatlas::signed_distance",
    mutates_args=(),
    schema="(Tensor inside, float[] spacing) -> Tensor",
)
def _signed_distance(inside: Tensor, spacing: Sequence[float]) -> Tensor:
    try:
        from scipy.ndimage import distance_transform_edt
    except ImportError as error:
        raise ImportError(
            "computing distance maps needs SciPy (pip install scipy); or give the loss maps that "
            "were computed elsewhere."
        ) from error
    maps = torch.zeros(inside.shape, dtype=torch.float32)
    if inside.ndim > 2:
        for n, c in torch.cartesian_prod(*map(torch.arange, inside.shape[:2])).tolist():
            mask = inside[n, c].cpu()
            if bool(mask.any()) and not bool(mask.all()):
                g = mask.numpy()
                outer = distance_transform_edt(~g, sampling=list(spacing))
                inner = distance_transform_edt(g, sampling=list(spacing))
                maps[n, c] = torch.from_numpy(outer - inner)
    return maps.to(inside.device)


@_signed_distance.register_fake
def _(inside: Tensor, spacing: Sequence[float]) -> Tensor:
    return torch.empty_like(inside, dtype=torch.float32)


def _batched(
    info: Any, in_dims: tuple[Any, ...], inside: Tensor, spacing: Sequence[float]
) -> tuple[Tensor, int]:
    """Rule for vmap: the mapped dimension joins the images'."""
    masks = inside.movedim(in_dims[0], 0)
    maps = _signed_distance(masks.flatten(0, 1), spacing)
    return maps.reshape(masks.shape), 0


torch.library.register_vmap(_signed_distance, _batched)


class _DistanceLoss(RegionLoss):
    """What the losses over distance maps share."""

    needs = ()
    refused: ClassVar = {"smooth": "its formula has no ratio that could be smoothed."}

    def __init__(
        self,
        *,
        spacing: float | Sequence[float] | None = None,
        **common: Unpack[DistanceParameters],
    ) -> None:
        self.reject_unknown(common)
        super().__init__(**common)
        self.spacing = None if spacing is None else _steps(spacing)

    def map_of(self, mask: Tensor, s: Sample) -> Tensor:
        """Signed distance map of a mask (N, C, P)."""
        shape = (mask.shape[0], mask.shape[1], *s.spatial)
        if not s.spatial:  # a class for an image: nothing has a distance
            return torch.zeros_like(mask)
        maps = signed_distance(mask.reshape(shape), spacing=self.spacing)
        return maps.reshape(mask.shape).to(s.logits.dtype)

    def given(self, name: str, maps: Tensor, s: Sample) -> Tensor:
        """A map given by the caller, checked, flat, 0 at ignored pixels."""
        expected = (s.logits.shape[0], s.channels, *s.spatial)
        if not isinstance(maps, Tensor) or not maps.is_floating_point():
            came = (
                f"a tensor of dtype {maps.dtype}"
                if isinstance(maps, Tensor)
                else type(maps).__name__
            )
            raise TypeError(f"{name} must be a floating tensor of shape {expected}, got {came}.")
        if tuple(maps.shape) != expected:
            raise ValueError(
                f"{name} must have the logits' shape {expected}, one map per image and class, "
                f"got {tuple(maps.shape)}; losses.signed_distance makes such maps."
            )
        return maps.reshape(s.logits.shape).to(s.logits)

    def averaged(self, terms: Tensor, s: Sample) -> Tensor:
        """Mean of (N, C, P) terms over the valid pixels, then over the classes that count."""
        valid = s.valid_pixels()[:, None].expand_as(terms) if s.softmax else s.valid_pixels()
        if s.valid is not None:
            terms = torch.where(valid > 0, terms, 0.0)
        wide = _wide(s.logits)
        parts = torch.stack([x.sum(-1, dtype=wide) for x in (terms, s.truth(), valid)])
        if not self.per_image:
            from ._processes import sum_over_processes

            parts = sum_over_processes(parts.sum(1), self.process_group)
        total, truth, count = parts.unbind(0)
        r = Regions(total, total, truth, count, total)
        return self.reduced(ratio(total, count), self.class_weights(r, s), s)


class BoundaryLoss(_DistanceLoss):
    r"""Boundary loss: the mean of the probability times the target's signed distance.

    .. math:: L_c = \frac1n \sum_i p_{ic}\, \phi_{ic}

    φ is the signed distance to the boundary of class c's target, negative inside
    (:func:`signed_distance`); i runs over the n valid pixels of the batch (or image). Void pixels
    count as outside when the map is computed.

    Parameters
    ----------
    spacing : float or sequence of float, optional
        Size of a pixel along each spatial dimension, for computed maps.
    mode, weight, ignore_index, reduction, per_image, classes, process_group
        See :class:`RegionLoss`. The paper uses foreground classes only: ``classes=[1, ...]``.

    Called as ``loss(logits, target)``, or ``loss(logits, target, distance=maps)`` with maps
    (N, C, *S) made beforehand: without them every call computes the distance transform with SciPy
    on the CPU (see :func:`signed_distance` for the cost).

    Limits: linear in p, so its gradient never vanishes with the error; it is *negative* for a good
    prediction, least at p = t, and not 0 there. A class without a boundary in an image has φ = 0
    there; an absent class leaves the mean; an empty or all-ignored batch gives 0 with zero
    gradient. The paper adds it to a region loss, since alone it may collapse to empty.

    Source: Kervadec et al. 2019, "Boundary loss for highly unbalanced segmentation", eq. 5. Their
    code takes one pixel off the inner distance; here it is the distance itself on both sides.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 5), torch.tensor([[0, 1, 1, 1, 0]])
    >>> loss = losses.BoundaryLoss(mode="binary")(logits, target)
    >>> round(loss.item(), 4)  # 0.5 * (1 - 1 - 2 - 1 + 1) / 5
    -0.2
    """

    takes = ("distance",)

    def forward(self, logits: Tensor, target: Tensor, *, distance: Tensor | None = None) -> Tensor:
        """Loss of `logits` against `target`, with `distance` its signed maps (N, C, *S)."""
        s = sample(logits, target, mode=self.mode, ignore_index=self.ignore_index)
        return self.of(s, distance=distance)

    def of(self, s: Sample, *, distance: Tensor | None = None) -> Tensor:
        """Mean of p φ."""
        maps = (
            self.map_of(s.truth(), s) if distance is None else (self.given("distance", distance, s))
        )
        return self.averaged(s.probs() * maps, s)


class HausdorffLoss(_DistanceLoss):
    r"""Hausdorff loss with distance transforms: squared errors weighed by squared distances.

    .. math:: L_c = \frac1n \sum_i (p_{ic} - t_{ic})^2
                    \left(d_{T,ic}^\alpha + d_{P,ic}^\alpha\right)

    d_T and d_P are the distances to the boundaries of the target and of the prediction (p > ½),
    inside and outside, |φ| of :func:`signed_distance`; they carry no gradient.

    Parameters
    ----------
    alpha : float > 0
        Exponent α of the distances; 2 in the paper.
    spacing : float or sequence of float, optional
        Size of a pixel along each spatial dimension, for computed maps.
    mode, weight, ignore_index, reduction, per_image, classes, process_group
        See :class:`RegionLoss`.

    Called as ``loss(logits, target)``, or with ``target_distance=`` and ``prediction_distance=``,
    maps (N, C, *S), signed or not. What is not given is computed with SciPy on the CPU; the
    prediction changes every step, so that its map costs two transforms per class and image each
    time (see :func:`signed_distance`).

    Limits: 0 at p = t. A map without boundary is 0: where neither target nor prediction has one, so
    is the loss. An absent class leaves the mean; an empty or all-ignored batch gives 0 with zero
    gradient.

    Source: Karimi & Salcudean 2020, "Reducing the Hausdorff distance in medical image
    segmentation", eq. 8.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> logits, target = torch.zeros(1, 1, 3), torch.tensor([[0, 0, 1]])
    >>> loss = losses.HausdorffLoss(mode="binary")(logits, target)
    >>> round(loss.item(), 4)  # 0.25 * (4 + 1 + 1) / 3; the prediction is empty
    0.5
    """

    takes = ("target_distance", "prediction_distance")

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        spacing: float | Sequence[float] | None = None,
        **common: Unpack[DistanceParameters],
    ) -> None:
        super().__init__(spacing=spacing, **common)
        self.alpha = _check.number("alpha", alpha, low=0, open_low=True)

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        target_distance: Tensor | None = None,
        prediction_distance: Tensor | None = None,
    ) -> Tensor:
        """Loss of `logits` against `target`, with distance maps (N, C, *S) where given."""
        s = sample(logits, target, mode=self.mode, ignore_index=self.ignore_index)
        return self.of(s, target_distance=target_distance, prediction_distance=prediction_distance)

    def of(
        self,
        s: Sample,
        *,
        target_distance: Tensor | None = None,
        prediction_distance: Tensor | None = None,
    ) -> Tensor:
        """Mean of (p - t)² (d_T^α + d_P^α)."""
        p, t = s.probs(), s.truth()
        d_t = (
            self.map_of(t, s)
            if target_distance is None
            else (self.given("target_distance", target_distance, s))
        )
        d_p = (
            self.map_of(p, s)
            if prediction_distance is None
            else (self.given("prediction_distance", prediction_distance, s))
        )
        return self.averaged((p - t) ** 2 * (d_t.abs() ** self.alpha + d_p.abs() ** self.alpha), s)

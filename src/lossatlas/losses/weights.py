r"""Class weights from pixel counts.

Every function takes counts and returns a float64 tensor (C,): finite and never negative. Counts
come from anywhere, for instance from :func:`image_counts` over a data set or a sample of n of its
images::

    counts = image_counts(targets, num_classes=11, ignore_index=255)   # (N, C)
    loss = CrossEntropyLoss(weight=median_frequency(counts))

A class without a pixel gets the stated finite weight `absent`: by default 0 (it cannot be learnt
from these targets), or any number you give.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from . import _check

__all__ = [
    "effective_number",
    "enet_log",
    "image_counts",
    "inverse_frequency",
    "median_frequency",
]


def image_counts(
    targets: Tensor | Iterable[Tensor],
    num_classes: int,
    ignore_index: int | None = None,
    *,
    max_images: int | None = None,
) -> Tensor:
    """Pixel counts of every class in every image, (N, C) int64.

    `targets` is an iterable of label maps, integer, each one image of any shape (a tensor (N, *S)
    is such an iterable); with `max_images` only its first n are looked at, so that a shuffled data
    set gives a sample. Ignored pixels count for no class.

    >>> image_counts([torch.tensor([0, 0, 1]), torch.tensor([1, 255, 255])], 3, ignore_index=255)
    tensor([[2, 1, 0],
            [0, 1, 0]])
    """
    num_classes = _check.integer("num_classes", num_classes, low=1)
    if ignore_index is not None:
        ignore_index = _check.label(ignore_index)
    if max_images is not None:
        max_images = _check.integer("max_images", max_images, low=0)
    rows = []
    for i, target in enumerate(targets):
        if max_images is not None and i >= max_images:
            break
        labels = _label_map(target, i)
        if labels.is_floating_point() or labels.is_complex():
            raise TypeError(
                f"targets must hold integer class labels, got {labels.dtype} in image {i}."
            )
        labels = labels.reshape(-1).long()
        if ignore_index is not None:
            labels = labels[labels != ignore_index]
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise ValueError(
                f"targets must hold labels from 0 to {num_classes - 1}, got {int(labels.min())} to "
                f"{int(labels.max())} in image {i}; pass ignore_index for the void label."
            )
        rows.append(torch.bincount(labels, minlength=num_classes))
    if not rows:
        return torch.zeros(0, num_classes, dtype=torch.int64)
    return torch.stack(rows)


def _label_map(target: object, image: int) -> Tensor:
    """A label map as a tensor: a tensor, an array, a list of numbers, or an image (PIL)."""
    pair = isinstance(target, tuple) and any(
        hasattr(p, "__array_interface__") or isinstance(p, Tensor) for p in target
    )
    if pair or isinstance(target, (dict, str)):
        raise TypeError(
            f"targets must yield label maps, got a {type(target).__name__} in image {image}: from a data set "
            "of (image, mask) pass (mask for _, mask in data), of names its masks by their name."
        )
    if not isinstance(target, Tensor) and hasattr(target, "__array_interface__"):
        import numpy

        target = _check.native(numpy.array(target))
    return torch.as_tensor(target)


def inverse_frequency(
    counts: Tensor | Sequence[float], *, absent: float = 0.0, normalize: bool = True
) -> Tensor:
    r"""Inverse class frequency, w_c ∝ 1/f_c, f_c = n_c / Σ n.

    `counts` is (C,), or (N, C) per image and summed. With `normalize` the weights of the present
    classes have mean 1 (the loss divides by Σ w_y anyway); without, w_c = 1/f_c.

    >>> inverse_frequency([30, 10])
    tensor([0.5000, 1.5000], dtype=torch.float64)
    """
    n = _class_counts(counts)
    return _finish(n.sum() / n, n, absent, normalize)


def median_frequency(
    image_counts: Tensor,
    definition: str = "present",
    *,
    absent: float = 0.0,
) -> Tensor:
    r"""Median-frequency balancing, w_c = median(f) / f_c, the median over the present classes.

    `image_counts` is (N, C). Two published definitions of f_c:

    * "present" (Eigen & Fergus 2015, section 4): pixels of c over all valid pixels of the *images
      where c is present*;
    * "dataset" (as SegNet's section 3.2 is worded): over all valid pixels of the whole set.

    They differ where a class is in few images only.

    >>> counts = torch.tensor([[8, 2], [10, 0]])
    >>> median_frequency(counts)  # f = 18/20, 2/10
    tensor([0.6111, 2.7500], dtype=torch.float64)
    >>> median_frequency(counts, definition="dataset")  # f = 18/20, 2/20
    tensor([0.5556, 5.0000], dtype=torch.float64)
    """
    _check.choice("definition", definition, ("present", "dataset"))
    _check.numbers("image_counts", image_counts)
    counts = torch.as_tensor(image_counts, dtype=torch.float64)
    if counts.ndim != 2:
        raise ValueError(
            f"image_counts must have shape (N, C), counts per image, got {tuple(counts.shape)}; "
            "make it with losses.weights.image_counts."
        )
    n = _class_counts(counts)
    per_image = counts.sum(1, keepdim=True)
    seen = per_image * (counts > 0) if definition == "present" else per_image.expand(counts.shape)
    frequency = _shares(n, seen.sum(0))
    here = frequency[n > 0]
    # The mean of the middle two where their number is even (torch.median takes the lower one).
    median = here.quantile(0.5) if here.numel() else torch.ones((), dtype=torch.float64)
    return _finish(median / frequency, n, absent, normalize=False)


def enet_log(
    counts: Tensor | Sequence[float], *, c: float = 1.02, absent: float | None = None
) -> Tensor:
    r"""Logarithmic weights of ENet, w_c = 1 / ln(c + f_c), f_c = n_c / Σ n.

    For c = 1.02 they range from 1.42 (f = 1) to 50.5 (f = 0); the last is also the default weight
    of an absent class. Source: Paszke et al. 2016 (ENet), section 5.2.

    >>> enet_log([1, 0])
    tensor([ 1.4223, 50.4983], dtype=torch.float64)
    """
    c = _check.number("c", c, low=1, open_low=True)
    n = _class_counts(counts)
    frequency = _shares(n, n.sum())
    weights = 1 / torch.log(c + frequency)
    return weights if absent is None else _finish(weights, n, absent, normalize=False)


def effective_number(
    counts: Tensor | Sequence[float],
    *,
    beta: float = 0.9999,
    absent: float = 0.0,
    normalize: bool = True,
) -> Tensor:
    r"""Weights from the effective number of samples, w_c ∝ (1 - β) / (1 - β^n_c).

    With pixel counts this saturates: for β = 0.9999 and n >= 1e5 every class gets the same weight.
    Count objects or images instead, or take β nearer 1. With `normalize` the weights of the present
    classes have mean 1. Source: Cui et al. 2019, eq. 2 and section 4.

    >>> effective_number([1, 2], beta=0.5, normalize=False)
    tensor([1.0000, 0.6667], dtype=torch.float64)
    """
    beta = _check.number("beta", beta, low=0, high=1)
    if beta == 1:
        raise ValueError("beta must be below 1, got 1; its limit is inverse_frequency.")
    n = _class_counts(counts)
    return _finish((1 - beta) / (1 - beta**n), n, absent, normalize)


def _class_counts(counts: Tensor | Sequence[float]) -> Tensor:
    """Counts as float64 (C,), summed over images where given per image."""
    _check.numbers("counts", counts)
    # A list at once: not by way of the default dtype.
    n = torch.as_tensor(counts, dtype=torch.float64)
    if n.ndim not in (1, 2) or n.shape[-1] == 0:
        raise ValueError(f"counts must have shape (C,) or (N, C), got {tuple(n.shape)}.")
    if not bool(torch.isfinite(n).all()) or bool((n < 0).any()):
        raise ValueError(f"counts must be finite and not negative, got {n.tolist()}.")
    return n.sum(0) if n.ndim == 2 else n


def _shares(n: Tensor, total: Tensor) -> Tensor:
    """Counts as shares of a total, fractions of pixels included; 0 of nothing."""
    return n / torch.where(total > 0, total, 1.0)


def _finish(weights: Tensor, n: Tensor, absent: float, normalize: bool) -> Tensor:
    """Put the stated weight on absent classes; scale the others to mean 1 where asked."""
    absent = _check.number("absent", absent, low=0)
    present = n > 0
    if normalize and bool(present.any()):
        weights = weights / weights[present].mean()
    return torch.where(present, weights, absent)

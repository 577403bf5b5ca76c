"""The mask that maximises the expected Dice of one image, under calibrated posteriors.

A network that gives probabilities can choose a threshold for every image, without its mask. With posteriors p_i of an
image's n pixels, sorted downwards, the k most probable pixels have the expected Dice, to first order,

    E Dice(k) ≈ 2 Σ_{i ≤ k} p_i / (k + Σ_{i ≤ n} p_i),

and the best k is where p_k falls to half of the best value. It is the rule of Lipton et al. (2014) with each image's
own optimum in place of one for the set (a plug-in rule; Dai and Li, "RankSEG", 2023, evaluate the expectation
exactly). A network trained with Dice alone has no posteriors to plug in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lossatlas.metrics.overlap import _is_number
from lossatlas.metrics.thresholds import _check_tensor

#: Newton steps of the calibration; three to six are enough.
_STEPS = 50


@dataclass(frozen=True)
class PlugInRule:
    """Classes of a two-class model, image by image, from the posteriors σ(scale · z + shift).

    Attributes:
        scale, shift: of the calibration (:func:`calibrate`); 1 and 0 take the network's own probabilities.

    >>> z = torch.logit(torch.tensor([0.9, 0.6, 0.3, 0.1])).reshape(1, 1, 2, 2)
    >>> PlugInRule(1.0, 0.0)(z).tolist()  # 2 · 1.5 / (2 + 1.9) is the largest: half of it is 0.38
    [[[1, 1], [0, 0]]]
    """

    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not (_is_number(self.scale) and _is_number(self.shift)):
            raise ValueError(
                f"expected finite numbers, got scale {self.scale!r} and shift {self.shift!r}"
            )

    def __call__(self, logits: Tensor) -> Tensor:
        """(B, H, W) classes 0 and 1.

        Args:
            logits: (B, 1, H, W).

        Raises:
            TypeError: no tensor.
            ValueError: several channels, or a logit that is NaN.
        """
        _check_tensor(logits)
        if logits.ndim != 4 or logits.shape[1] != 1:
            raise ValueError(f"expected logits (B, 1, H, W), got {tuple(logits.shape)}")
        if not logits.numel():
            return torch.zeros_like(logits[:, 0], dtype=torch.int64)
        if bool(logits.isnan().any()):
            raise ValueError(
                f"logits: expected numbers, got {int(logits.isnan().sum())} of {logits.numel()} NaN: a NaN would "
                "take every pixel of its image; find out why the network diverged"
            )
        p = torch.sigmoid(self.scale * logits[:, 0].double() + self.shift).flatten(1)
        ranked = p.sort(dim=1, descending=True).values
        found = ranked.cumsum(1)
        k = torch.arange(1, p.shape[1] + 1, device=p.device, dtype=p.dtype)
        value = 2 * found / (k + found[:, -1:])
        best = value.argmax(1, keepdim=True)
        threshold = ranked.gather(1, best)
        mask = (p >= threshold) & (found[:, -1:] > 0)
        return mask.long().reshape(logits.shape[0], *logits.shape[2:])


def separated(logits: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a threshold on the logit (n,) separates the labels 0 and 1, so that nothing can be calibrated."""
    background, foreground = logits[labels == 0], logits[labels == 1]
    if not background.size or not foreground.size or logits.min() == logits.max():
        return False
    return bool(background.max() <= foreground.min() or foreground.max() <= background.min())


def calibrate(logits: np.ndarray, labels: np.ndarray) -> PlugInRule:
    """The scale and the shift with the least negative log-likelihood (Platt, 1999), by Newton's method.

    Args:
        logits: (n,) of labelled pixels, one channel, finite.
        labels: (n,) 0 or 1; void pixels are left out of both.

    Raises:
        ValueError: the arrays differ in length, hold one class alone or a label that is no class, a
            logit is NaN or infinite, or a threshold on the logit separates the classes.

    >>> z = np.linspace(-8, 8, 4001)
    >>> truth = np.random.default_rng(0).random(4001) < 1 / (1 + np.exp(-(0.5 * z - 1)))
    >>> rule = calibrate(z, truth)
    >>> round(rule.scale, 1), round(rule.shift)
    (0.5, -1)
    """
    arrays = (x.detach().cpu().double() if isinstance(x, Tensor) else x for x in (logits, labels))
    z, y = (np.asarray(x, dtype=float).ravel() for x in arrays)
    if not np.isfinite(z).all():
        raise ValueError(
            f"logits: expected finite numbers, got {int((~np.isfinite(z)).sum())} of {z.size} NaN or infinite; "
            "leave these pixels out, or find out why the network diverged"
        )
    stray = np.setdiff1d(y, (0, 1))
    if stray.size:
        raise ValueError(
            f"labels: expected 0 and 1, got {stray[0]:g}; leave void pixels out: kept = labels != {stray[0]:g}, then "
            "calibrate(logits[kept], labels[kept])"
        )
    if z.shape != y.shape or not y.size or not 0 < y.mean() < 1:
        raise ValueError(
            f"expected as many logits as labels and both classes, got {z.shape[0]} logits, {y.shape[0]} labels and a "
            f"foreground of {y.mean() if y.size else 0:g}"
        )
    if separated(z, y):
        raise ValueError(
            "logits: a threshold separates the two classes, so that the likelihood has no maximum and the scale no "
            "end; calibrate on more pixels, or take PlugInRule() with the network's own probabilities"
        )
    spread = max(float(np.abs(z).max()), 1.0)
    design = np.stack([z / spread, np.ones_like(z)])
    weights = np.array([spread, 0.0])
    value = _surprisal(design, weights, y)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(weights @ design, -500, 500)))
        gradient = design @ (p - y) / len(y)
        curvature = (design * (p * (1 - p))) @ design.T / len(y) + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and _surprisal(design, weights - size * step, y) > value:
            size /= 2
        weights = weights - size * step
        before, value = value, _surprisal(design, weights, y)
        if before - value < 1e-12:
            break
    return PlugInRule(float(weights[0] / spread), float(weights[1]))


def _surprisal(design: np.ndarray, weights: np.ndarray, y: np.ndarray) -> float:
    z = weights @ design
    return float(np.mean(np.logaddexp(0, z) - y * z))

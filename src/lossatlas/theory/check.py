"""The comparison of a closed form with autograd and with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lossatlas.theory.calculus import ClosedFormError

Array = NDArray[np.float64]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Largest relative difference between closed form and autograd, float64.
AUTOGRAD_TOLERANCE = 1e-10
#: Largest relative difference between closed form and finite differences of fourth order.
DIFFERENCE_TOLERANCE = 1e-6
#: Entries below this part of the largest one are compared with the largest one's rounding.
RELATIVE_FLOOR = 1e-5


def relative_difference(a: Array, b: Array) -> float:
    """The largest |a−b|/|b| over the entries; tiny entries of b count as 1e-5 of the largest."""
    largest = np.abs(b).max(initial=0.0)
    if largest == 0.0:
        return float(np.abs(a).max(initial=0.0))
    return float((np.abs(a - b) / np.maximum(np.abs(b), RELATIVE_FLOOR * largest)).max())


def autograd(loss: Loss, logits: Array, target: Array) -> Array:
    """The gradient at the logits by automatic differentiation, float64."""
    variable = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    value = loss(variable, torch.as_tensor(target))
    (gradient,) = torch.autograd.grad(value, variable)
    return gradient.numpy()


def at_constant(loss: Loss, size: int, logit: float, pixels: int) -> Array:
    """(N,) size of the gradient at each pixel of an image whose logits are all alike; `size` are foreground."""
    target = (np.arange(pixels) < size).astype(float)[None, None]
    return np.abs(autograd(loss, np.full(target.shape, float(logit)), target))[0, 0]


def finite_differences(loss: Loss, logits: Array, target: Array, step: float = 5e-3) -> Array:
    """The gradient at the logits by central differences of fourth order, float64.

    (f(z−2h) − 8f(z−h) + 8f(z+h) − f(z+2h)) / 12h, one logit at a time.
    """
    labels = torch.as_tensor(target)
    start = torch.tensor(logits, dtype=torch.float64)
    gradient = torch.zeros_like(start)
    flat, out = start.view(-1), gradient.view(-1)
    with torch.no_grad():
        for index in range(flat.numel()):
            kept = flat[index].item()
            for offset, factor in ((-2, 1.0), (-1, -8.0), (1, 8.0), (2, -1.0)):
                flat[index] = kept + offset * step
                out[index] += factor * loss(start, labels).item()
            flat[index] = kept
    return (gradient / (12 * step)).numpy()


def check(
    name: str,
    closed: Callable[[Array, Array], Array],
    loss: Loss,
    cases: Iterable[tuple[str, Array, Array]],
) -> pd.DataFrame:
    """Closed form = autograd = finite differences, on every case, or an error.

    Args:
        name: what is checked, for the table and the error.
        closed: gradient at the logits from (logits, target), the shape of the logits.
        loss: the loss as people call it, scalar from (logits, target).
        cases: (label, logits, target), float64 logits.

    Returns:
        One row a case: the largest entry of the gradient and the two relative differences.

    Raises:
        ClosedFormError: a difference exceeds its tolerance (1e-10 to autograd, 1e-6 to finite
            differences), or a gradient is not finite.
    """
    rows = []
    for label, logits, target in cases:
        stated = closed(logits, target)
        exact = autograd(loss, logits, target)
        limits = {"vs autograd": AUTOGRAD_TOLERANCE, "vs differences": DIFFERENCE_TOLERANCE}
        found = {
            column: relative_difference(stated, other)
            for column, other in zip(
                limits, (exact, finite_differences(loss, logits, target)), strict=True
            )
        }
        largest = float(np.abs(exact).max(initial=0.0))
        rows.append({"gradient of": name, "case": label, "largest": largest} | found)
        for column, limit in limits.items():
            # `not <=` also catches NaN.
            if not found[column] <= limit:
                raise ClosedFormError(
                    f"{name}, {label}: {column} is {found[column]:.3g} relative, "
                    f"expected at most {limit:g}. The formula, or the loss, is wrong."
                )
    return pd.DataFrame(rows)

"""Whether two orders of the losses agree."""

from __future__ import annotations

from typing import Any

import numpy as np


def tau_b(x: Any, y: Any) -> np.ndarray:
    """Kendall's tau-b over the last axis: (..., L) and (..., L) → (...).

    (concordant − discordant pairs) / √((pairs untied in x)(pairs untied in y)) (Kendall,
    Biometrika 33, 1945); NaN where one of them is all ties.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    i, j = np.triu_indices(x.shape[-1], 1)
    a, b = np.sign(x[..., i] - x[..., j]), np.sign(y[..., i] - y[..., j])
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    top = (a * b).sum(-1)
    return np.divide(top, scale, out=np.full(np.shape(scale), np.nan), where=scale > 0)

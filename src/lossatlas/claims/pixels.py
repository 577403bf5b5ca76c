"""What two networks say of the same pixels: the overlap of their masks, and one's logits over the other's.

The pixels are those of ``pixels.parquet``: drawn by the labels, the same for every run on a data set.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np


def overlap(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> float:
    """Dice of two masks from sampled pixels, each standing for `weight` of the split; 1 for two empty ones.

    >>> overlap(np.array([1, 1, 0]) > 0, np.array([1, 0, 0]) > 0, np.array([1.0, 2.0, 9.0]))
    0.5
    """
    sizes = weight[first].sum() + weight[second].sum()
    return float(2 * weight[first & second].sum() / sizes) if sizes else 1.0


def across(
    first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray], weight: np.ndarray
) -> np.ndarray:
    """(S,) for each seed, the mean overlap of its mask of one loss with the masks of the other loss at other seeds.

    Pairs of one seed share their initial weights and batches; they are left out, so that two losses are compared as
    two seeds of one loss are. With `first` and `second` the same, it is the agreement across seeds.

    Args:
        first, second: by seed the (M,) mask of each network.
        weight: (M,) of the pixels.
    """
    pairs = {
        (s, t): overlap(first[s], second[t], weight)
        for s, t in itertools.permutations(sorted(first), 2)
    }
    return np.array(
        [
            np.mean([value for (s, t), value in pairs.items() if own in (s, t)])
            for own in sorted(first)
        ]
    )


def agreement(
    first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray], weight: np.ndarray
) -> np.ndarray:
    """(S,) agreement across two losses less that across the seeds of one loss, by jackknife over the seeds.

    The mean is the difference, and its standard error that of the jackknife: pseudo-values, whose mean is corrected
    for bias. Near 0 the two losses give networks that differ as two seeds do.
    """
    seeds = sorted(first)

    def difference(kept: list[int]) -> float:
        a, b = ({s: masks[s] for s in kept} for masks in (first, second))
        within = (across(a, a, weight).mean() + across(b, b, weight).mean()) / 2
        return float(across(a, b, weight).mean() - within)

    whole, n = difference(seeds), len(seeds)
    return np.array([n * whole - (n - 1) * difference([s for s in seeds if s != o]) for o in seeds])


def line(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the first network's logits over the second's, as the major axis of the cloud.

    Both carry the noise of a training, so that a regression of one on the other would be too flat.

    >>> z = np.linspace(-3, 3, 50)
    >>> tuple(round(x, 3) for x in line(2 * z + 1, z))
    (2.0, 1.0)
    """
    a, b, c = np.var(second), np.var(first), np.cov(first, second, bias=True)[0, 1]
    slope = float((b - a + np.hypot(b - a, 2 * c)) / (2 * c))
    return slope, float(first.mean() - slope * second.mean())

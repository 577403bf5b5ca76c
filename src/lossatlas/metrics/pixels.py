"""A few pixels of a split, the same for every network: what two networks say of them can be compared later.

Whole masks of hundreds of networks are too much for a repository. A sample of pixels, drawn by the labels alone, is
not: two thousand logits a network give the overlap of any two masks, and the regression of one network's logits on
another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lossatlas.metrics.overlap import _check_integer

#: Pixels of each stratum: the foreground, the background within `NEAR` pixels of it, and the rest.
SIZES = (768, 768, 512)
NEAR = 4


@dataclass(frozen=True)
class PixelSample:
    """Pixels of a two-class split, drawn by stratum.

    Attributes:
        index: (M,) positions in the flattened labels, ascending.
        label: (M,) 0 or 1.
        weight: (M,) pixels of the split that each stands for; they sum to its labelled pixels.
    """

    index: np.ndarray
    label: np.ndarray
    weight: np.ndarray


def sample_pixels(
    labels: np.ndarray,
    ignore_index: int | None = None,
    *,
    sizes: tuple[int, int, int] = SIZES,
    seed: int = 0,
) -> PixelSample:
    """Draw pixels without replacement: so many of the foreground, of the background near it, and of the rest.

    Args:
        labels: (N, H, W) of 0, 1 and `ignore_index`.
        ignore_index: label of pixels that are not drawn, or None.
        sizes: pixels of each stratum; of one with fewer all are taken.
        seed: of the draw, which depends on nothing else.

    Raises:
        ValueError: labels of another shape or with other values, or sizes that are not three of at least 1.

    >>> found = sample_pixels(np.eye(8, dtype=int)[None], sizes=(4, 4, 4))
    >>> found.label.sum(), float(found.weight[found.label == 1].sum()), float(found.weight.sum())
    (np.int64(4), 8.0, 64.0)
    """
    whole = isinstance(sizes, Sequence) and not isinstance(sizes, str)
    if not whole or len(sizes) != 3:
        raise ValueError(
            f"sizes: expected three numbers of pixels (foreground, near it, the rest), got {sizes!r}"
        )
    counts = [
        _check_integer(size, "sizes", 1, ": no pixel would stand for its stratum") for size in sizes
    ]
    labels = np.asarray(labels)
    void = labels == ignore_index if ignore_index is not None else np.zeros(labels.shape, bool)
    foreground = (labels == 1) & ~void
    if labels.ndim != 3 or not (void | foreground | (labels == 0)).all():
        raise ValueError(
            f"labels: expected (N, H, W) of 0, 1 and {ignore_index}, got shape {labels.shape} and values "
            f"{np.unique(labels)[:5].tolist()}"
        )
    side = 2 * NEAR + 1
    near = ndimage.maximum_filter(foreground.astype(np.uint8), size=(1, side, side)) > 0
    strata = foreground, near & ~foreground & ~void, ~near & ~foreground & ~void
    generator = np.random.default_rng(seed)
    index, weight = [], []
    for inside, size in zip(strata, counts, strict=True):
        places = np.flatnonzero(inside)
        drawn = generator.choice(places, min(size, len(places)), replace=False)
        index.append(drawn)
        weight.append(np.full(len(drawn), len(places) / max(len(drawn), 1)))
    order = np.argsort(np.concatenate(index), kind="stable")
    chosen = np.concatenate(index)[order]
    return PixelSample(
        chosen, labels.reshape(-1)[chosen].astype(np.int64), np.concatenate(weight)[order]
    )

"""How unbalanced a data set is: fractions, components, thinness, empty images, class weights.

Everything is computed from the labels alone, split by split, void left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lossatlas.data.dataset import SegmentationDataset
from lossatlas.data.errors import DataError
from lossatlas.data.files import evenly_spaced

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
WeightScheme = Callable[[Int64Array], Any]
"""From counts (N, C) to weights (C,): a NumPy array, a tensor or a sequence."""

BOOTSTRAP_SEED = 20240101


def per_image_fractions(counts: Int64Array) -> Float64Array:
    """Share of each class in each image, (N, C) counts → (N, C); NaN where all is void."""
    total = counts.sum(axis=1, keepdims=True)
    result = np.full(counts.shape, np.nan)
    np.divide(counts, total, out=result, where=total > 0)
    return result


def class_spread(counts: Int64Array) -> list[dict[str, float]]:
    """For each class: its share of all pixels, and its spread over the images.

    ``images`` is the number of images with the class, ``min``, ``median`` and ``max`` the share in
    those images, ``variation`` the standard deviation over the mean of the share in all images.
    """
    shares = per_image_fractions(counts)
    total = counts.sum()
    rows = []
    for c in range(counts.shape[1]):
        share = shares[:, c][~np.isnan(shares[:, c])]
        present = share[share > 0]
        mean = float(share.mean()) if share.size else float("nan")
        rows.append(
            {
                "fraction": float(counts[:, c].sum() / total) if total else float("nan"),
                "images": int((counts[:, c] > 0).sum()),
                "min": float(present.min()) if present.size else float("nan"),
                "median": float(np.median(present)) if present.size else float("nan"),
                "max": float(present.max()) if present.size else float("nan"),
                "variation": float(share.std() / mean) if mean else float("nan"),
            }
        )
    return rows


def shape_of_classes(
    dataset: SegmentationDataset, max_images: int | None = None
) -> list[dict[str, float]]:
    r"""For each class its connected components and how thin it is.

    With ``max_images`` so many images are looked at, evenly spaced.

    ``components`` counts 8-connected regions over the split, ``area_median_px`` and the quartiles
    their areas. ``width_px`` is four times the mean distance of the class's pixels to the nearest
    other pixel (void and the image's border do not count as other), less the half pixel between
    centre and edge: the width of a long strip, for whose pixels that distance averages a quarter of
    the width. ``edge_share`` is the share of the class's pixels with a 4-neighbour of another class.
    """
    from scipy import ndimage

    classes = len(dataset.classes)
    areas: list[list[int]] = [[] for _ in range(classes)]
    distance_sum, pixels, edges = (np.zeros(classes) for _ in range(3))
    structure = np.ones((3, 3), dtype=bool)
    for index in evenly_spaced(len(dataset), max_images):
        label = np.asarray(dataset.labels[index])
        void = (
            np.zeros(label.shape, dtype=bool)
            if dataset.ignore_index is None
            else label == dataset.ignore_index
        )
        for c in np.unique(label[~void]).tolist():
            mask = label == c
            regions, count = ndimage.label(mask, structure)
            areas[c] += np.bincount(regions.ravel(), minlength=count + 1)[1:].tolist()
            other = ~mask & ~void
            pixels[c] += int(mask.sum())
            if other.any():
                distance = ndimage.distance_transform_edt(~other)
                distance_sum[c] += float((distance[mask] - 0.5).sum())
                near = ndimage.binary_dilation(other)
                edges[c] += int((near & mask).sum())
            else:
                distance_sum[c] = np.nan
    rows = []
    for c in range(classes):
        found = np.array(areas[c], dtype=np.float64)
        quartiles = np.percentile(found, [25, 50, 75]) if found.size else [float("nan")] * 3
        share = edges[c] / pixels[c] if pixels[c] else float("nan")
        width = 4 * distance_sum[c] / pixels[c] if pixels[c] else float("nan")
        rows.append(
            {
                "components": int(found.size),
                "components_images": min(len(dataset), max_images or len(dataset)),
                "area_q25_px": float(quartiles[0]),
                "area_median_px": float(quartiles[1]),
                "area_q75_px": float(quartiles[2]),
                "width_px": float(width),
                "edge_share": float(share),
            }
        )
    return rows


def empty_share(counts: Int64Array) -> float:
    """Share of the images that hold class 0 alone (or void alone)."""
    return float((counts[:, 1:].sum(axis=1) == 0).mean()) if len(counts) else float("nan")


def weight_uncertainty(
    counts: Int64Array,
    scheme: WeightScheme,
    sizes: tuple[int, ...] = (10, 50, 100),
    draws: int = 200,
) -> dict[str, Any]:
    """Weights of a scheme, and how far they vary when only n images are looked at.

    For each n, ``draws`` samples of n images are drawn with replacement and the weights computed.
    ``variation`` is the standard deviation over the mean of a class's weight, ``bias`` the mean
    over the weight from all images, less 1; both None where a sample lacks the class or the weight
    is 0.
    """
    whole = _as_array(scheme(counts))
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    result: dict[str, Any] = {"weights": whole.tolist(), "samples": {}}
    for size in sizes:
        values = []
        for _ in range(draws):
            chosen = rng.integers(0, len(counts), size)
            values.append(_as_array(scheme(counts[chosen])))
        sample = np.array(values)
        usable = (sample > 0).all(axis=0) & np.isfinite(sample).all(axis=0) & (whole > 0)
        sample = np.where(usable, sample, 1.0)
        mean = sample.mean(axis=0)
        variation = sample.std(axis=0) / mean
        bias = mean / np.where(whole > 0, whole, 1.0) - 1
        result["samples"][str(size)] = {
            "variation": [float(v) if u else None for v, u in zip(variation, usable, strict=True)],
            "bias": [float(v) if u else None for v, u in zip(bias, usable, strict=True)],
        }
    return result


def _as_array(weights: Any) -> Float64Array:
    return np.asarray(weights.tolist() if hasattr(weights, "tolist") else weights, dtype=np.float64)


def report(
    dataset: SegmentationDataset,
    schemes: Mapping[str, WeightScheme] | None = None,
    *,
    shapes: bool = True,
    shape_images: int | None = None,
    sizes: tuple[int, ...] = (10, 50, 100),
) -> dict[str, Any]:
    """Everything above of one split, loaded with or without images, as JSON-able values.

    Args:
        schemes: class weights by name; each takes the counts (N, C).
        shapes: compute components and thinness too (the slow part) …
        shape_images: … from so many images, evenly spaced; None: from all.
        sizes: numbers of images that the weights' uncertainty is given for.

    Raises:
        DataError: every pixel is void.
    """
    counts = dataset.image_counts()
    if counts.sum() == 0:
        raise DataError(
            f"{dataset.name}: expected labelled pixels, got void alone; check the masks"
        )
    rows = class_spread(counts)
    if shapes:
        rows = [a | b for a, b in zip(rows, shape_of_classes(dataset, shape_images), strict=True)]
    labelled = int(counts.sum())
    return {
        "name": dataset.name,
        "split": dataset.split,
        "images": len(dataset),
        "groups": len(set(dataset.groups)),
        "height": int(dataset.labels.shape[1]),
        "width": int(dataset.labels.shape[2]),
        "void_share": 1 - labelled / dataset.labels.size,
        "empty_share": empty_share(counts),
        "classes": [{"name": n} | row for n, row in zip(dataset.classes, rows, strict=True)],
        "weights": {
            name: weight_uncertainty(counts, scheme, sizes)
            for name, scheme in (schemes or {}).items()
        },
    }


def format_report(result: dict[str, Any]) -> str:
    """The report as lines of text."""
    lines = [
        f"{result['name']} {result['split']}: {result['images']} images of {result['height']}×"
        f"{result['width']} in {result['groups']} groups; void {result['void_share']:.3%}; "
        f"class 0 alone {result['empty_share']:.1%}"
    ]
    shapes = "components" in result["classes"][0]
    head = f"{'class':<18}{'fraction':>10}{'images':>8}{'median':>9}{'max':>9}{'cv':>7}"
    if shapes:
        head += f"{'objects':>9}{'area px':>9}{'width px':>9}{'edge':>7}"
    lines.append(head)
    for row in result["classes"]:
        line = (
            f"{row['name']:<18}{row['fraction']:>10.3%}{row['images']:>8}{row['median']:>9.2%}"
            f"{row['max']:>9.2%}{row['variation']:>7.2f}"
        )
        if shapes:
            line += (
                f"{row['components']:>9}{row['area_median_px']:>9.0f}{row['width_px']:>9.1f}"
                f"{row['edge_share']:>7.0%}"
            )
        lines.append(line)
    for name, found in result["weights"].items():
        lines.append(f"{name}: " + "  ".join(f"{w:.4g}" for w in found["weights"]))
        for size, sample in found["samples"].items():
            known = [v for v in sample["variation"] if v is not None]
            if known:
                lines.append(
                    f"  from {size} images: variation {min(known):.2f} to {max(known):.2f}"
                )
    return "\n".join(lines)

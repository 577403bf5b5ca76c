"""Tables and figures of the data page, from the reports of :mod:`lossatlas.data.statistics`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lossatlas.data import pictures
from lossatlas.data.dataset import SPLITS, SegmentationDataset
from lossatlas.data.errors import DataError
from lossatlas.data.registry import is_available, load, load_labels, source
from lossatlas.data.statistics import WeightScheme, report

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LABORATORY: dict[str, dict[str, Any]] = {
    "default": {},
    "foreground 0.5 %": {"foreground": 0.005, "objects": 1},
    "foreground 30 %": {"foreground": 0.3, "objects": None, "object_size": 14},
    "size spread 1.5": {"size_spread": 1.5},
    "thin": {"shape": "thin", "object_size": 20, "objects": None},
    "compact": {"shape": "compact"},
    "no rarity (Zipf 0)": {"zipf": 0.0},
    "contrast 0.3": {"contrast": 0.3},
    "half of them empty": {"empty": 0.5},
    "label noise": {"boundary_noise": 0.3, "missed_objects": 0.3, "false_objects": 0.4},
}
"""Rows of the laboratory's picture grid: one factor changed in each."""


def split_available(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (names at hand, a line for each other that says how to get it).

    Raises:
        DataError: an unknown name, or none at all.
    """
    if not names:
        raise DataError("expected at least one data set, got an empty list; name one")
    for name in names:
        source(name)
    here = [name for name in names if is_available(name)]
    absent = [f"{name}: {source(name).how_to_get()}" for name in names if name not in here]
    return here, absent


def reports(
    names: Iterable[str],
    schemes: Mapping[str, WeightScheme] | None = None,
    shape_images: int | None = 40,
) -> list[dict[str, Any]]:
    """Reports of every split; components and weights for the training split alone.

    Components and thinness are taken from ``shape_images`` images, evenly spaced.
    """
    found = []
    for name in names:
        for split in SPLITS:
            first = split == "train"
            labels = load_labels(name, split)
            weights = schemes if first else None
            found.append(report(labels, weights, shapes=first, shape_images=shape_images))
    return found


def _by_class(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each class of each report: what is known of it, its data set and split."""
    import pandas as pd

    rows = [
        c | {"data set": r["name"], "class": c["name"], "split": r["split"]}
        for r in results
        for c in r["classes"]
    ]
    return pd.DataFrame(rows).set_index(["data set", "class"])


def _wide(table: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """A row for each data set and class, a column for each value of ``column``, in first order."""
    columns = table[column].unique()
    wide = table.pivot(columns=column, values=value).reindex(table.index.unique(), columns=columns)
    return wide.rename_axis(columns=None)


def fraction_table(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Class fractions in per cent: a row for each class, a column for each split."""
    return (100 * _wide(_by_class(results), "split", "fraction")).round(3)


def spread_table(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Spread over images, components and thinness of the training splits."""
    columns = {
        "images": "images with it",
        "median": "median share %",
        "max": "largest share %",
        "variation": "variation",
        "components": "components",
        "components_images": "in images",
        "area_median_px": "median area px",
        "width_px": "width px",
        "edge_share": "edge share %",
    }
    return _titled(_by_class(r for r in results if "components" in r["classes"][0]), columns)


def _titled(table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The columns under their titles, rounded; a title that ends in % turns a share into per cent."""
    shares = [key for key, title in columns.items() if title.endswith("%")]
    scaled = table[list(columns)].assign(**{key: 100 * table[key] for key in shares})
    return scaled.rename(columns=columns).round(2)


def set_table(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a split: images, groups, size, void and empty images."""
    import pandas as pd

    columns = {key: key for key in ("images", "groups", "height", "width")}
    columns |= {"void_share": "void %", "empty_share": "class 0 alone %"}
    table = pd.DataFrame(results).rename(columns={"name": "data set"})
    return _titled(table.set_index(["data set", "split"]), columns)


def weight_table(results: Sequence[Mapping[str, Any]], size: int = 50) -> pd.DataFrame:
    """Weights of every scheme with their variation from ``size`` images, as "w (± 100·cv %)"."""
    import pandas as pd

    rows = []
    for result in results:
        for scheme, found in result["weights"].items():
            variation = found["samples"][str(size)]["variation"]
            each = zip(result["classes"], found["weights"], variation, strict=True)
            for c, weight, cv in each:
                spread = "a class may be missing" if cv is None else f"± {100 * cv:.0f} %"
                cell = f"{weight:.3g} ({spread})"
                rows.append((result["name"], c["name"], scheme, cell))
    table = pd.DataFrame(rows, columns=["data set", "class", "scheme", "weight"])
    return _wide(table.set_index(["data set", "class"]), "scheme", "weight")


def rarest(results: Sequence[Mapping[str, Any]]) -> tuple[str, str, float]:
    """(data set, class, fraction) of the rarest class of any training split."""
    rows = [
        (r["name"], c["name"], c["fraction"])
        for r in results
        if r["split"] == "train"
        for c in r["classes"]
        if c["fraction"] > 0
    ]
    return min(rows, key=lambda row: row[2])


def _show(rows: list[tuple[str, Any]], width: float) -> Figure:
    import matplotlib.pyplot as plt

    height = sum(width * picture.shape[0] / picture.shape[1] + 0.3 for _, picture in rows)
    ratios = [picture.shape[0] / picture.shape[1] for _, picture in rows]
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(width, height), squeeze=False, height_ratios=ratios
    )
    for axis, (title, picture) in zip(axes[:, 0], rows, strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(title, loc="left", fontsize=9)
        axis.axis("off")
    figure.tight_layout()
    return figure


def laboratory_figure(columns: int = 8, width: float = 9.0) -> Figure:
    """A row for each factor of the digit canvases: images, and below them their labels."""
    rows = []
    for title, params in LABORATORY.items():
        made = load("digits", "train", train_size=columns, **params)
        pair = [
            [pictures.as_rgb(image) for image in made.images],
            [pictures.colour_labels(x, len(made.classes), None) for x in made.labels],
        ]
        rows.append((f"{title}: {(made.labels > 0).mean():.2%} foreground", pictures.grid(pair)))
    return _show(rows, width)


def sample_figure(names: Iterable[str], columns: int = 4, width: float = 8.0) -> Figure:
    """Evenly spaced training images, and the same with the colours of their classes."""
    rows = []
    for name in names:
        params: dict[str, Any] = {"train_size": columns}
        if name != "digits":
            params |= {"height": 160, "cache": False}
        made: SegmentationDataset = load(name, "train", **params)
        pair = [
            [pictures.as_rgb(image) for image in made.images],
            [pictures.overlay(made, i) for i in range(len(made))],
        ]
        turned = made.labels.shape[1] > 1.5 * made.labels.shape[2]  # tall images lie down
        if turned:
            pair = [[picture.swapaxes(0, 1) for picture in row] for row in pair]
        rows.append((f"{name} (turned)" if turned else name, pictures.grid(pair)))
    return _show(rows, width)

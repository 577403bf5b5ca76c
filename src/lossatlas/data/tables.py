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


def fraction_table(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Class fractions in per cent: a row for each class, a column for each split."""
    import pandas as pd

    rows = [
        {"data set": r["name"], "class": c["name"], "split": r["split"], "%": 100 * c["fraction"]}
        for r in results
        for c in r["classes"]
    ]
    return _wide(pd.DataFrame(rows), "split", "%").round(3)


def _wide(table: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """A row for each data set and class, a column for each value of ``column``, in first order."""
    import pandas as pd

    index = ["data set", "class"]
    columns = {
        name: part.set_index(index)[value] for name, part in table.groupby(column, sort=False)
    }
    rows = table[index].drop_duplicates()
    return pd.DataFrame(columns).reindex(pd.MultiIndex.from_frame(rows))


def spread_table(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Spread over images, components and thinness of the training splits."""
    import pandas as pd

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
    rows = []
    for result in results:
        if "components" not in result["classes"][0]:
            continue
        for row in result["classes"]:
            values = {
                title: row[key] * (100 if title.endswith("%") else 1)
                for key, title in columns.items()
            }
            rows.append({"data set": result["name"], "class": row["name"], **values})
    return pd.DataFrame(rows).set_index(["data set", "class"]).round(2)


def set_table(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a split: images, groups, size, void and empty images."""
    import pandas as pd

    rows = [
        {
            "data set": r["name"],
            "split": r["split"],
            "images": r["images"],
            "groups": r["groups"],
            "height": r["height"],
            "width": r["width"],
            "void %": 100 * r["void_share"],
            "class 0 alone %": 100 * r["empty_share"],
        }
        for r in results
    ]
    return pd.DataFrame(rows).set_index(["data set", "split"]).round(2)


def weight_table(results: Sequence[Mapping[str, Any]], size: int = 50) -> pd.DataFrame:
    """Weights of every scheme with their variation from ``size`` images, as "w ± 100·cv %"."""
    import pandas as pd

    rows = []
    for result in results:
        for scheme, found in result["weights"].items():
            cells = {}
            variation = found["samples"][str(size)]["variation"]
            names = [c["name"] for c in result["classes"]]
            for name, weight, cv in zip(names, found["weights"], variation, strict=True):
                spread = "a class may be missing" if cv is None else f"± {100 * cv:.0f} %"
                cells[name] = f"{weight:.3g} ({spread})"
            rows += [
                {"data set": result["name"], "class": name, "scheme": scheme, "weight": cell}
                for name, cell in cells.items()
            ]
    return _wide(pd.DataFrame(rows), "scheme", "weight")


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


def sample_figure(names: Iterable[str], columns: int = 4, width: float = 9.0) -> Figure:
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

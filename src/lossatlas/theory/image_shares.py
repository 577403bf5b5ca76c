"""How much a class's share varies from image to image, measured on the labels of real data sets.

The measured table is kept beside this module (``image_shares.csv``), because a page must read without
the data. With the data at hand, ``python -m lossatlas.theory.image_shares`` measures it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

#: The real data sets, and the classes that are their foreground: each one's objects, no surroundings.
FOREGROUND = {
    "camvid": ("Pole", "SignSymbol", "Car", "Pedestrian", "Bicyclist"),
    "chase_db1": ("vessel",),
    "crackforest": ("crack",),
    "kolektorsdd": ("defect",),
    "vnc_sstem": ("mitochondria", "synapse"),
}
_TABLE = "image_shares.csv"


def measure(names: Sequence[str] = tuple(FOREGROUND)) -> pd.DataFrame:
    """Share of each foreground class in the images of the training split that have it, in per cent.

    Args:
        names: data sets of `FOREGROUND`.

    Returns:
        A row a class: data set, class, images with it, and the 5th, 50th and 95th percentile of its share.
    """
    from lossatlas.data import load_labels
    from lossatlas.data.statistics import per_image_fractions

    rows = []
    for name in names:
        dataset = load_labels(name, "train")
        shares = 100 * per_image_fractions(dataset.image_counts())
        for wanted in FOREGROUND[name]:
            share = shares[:, list(dataset.classes).index(wanted)]
            present = share[share > 0]
            spread = np.percentile(present, (5, 50, 95)).round(4).tolist()
            rows.append((name, wanted, len(present), *spread))
    columns = ["data set", "class", "images", "5 %", "median", "95 %"]
    return pd.DataFrame(rows, columns=columns)


def measured() -> pd.DataFrame:
    """The table that `measure` gave, with the ratio of the 95th to the 5th percentile."""
    with files("lossatlas.theory").joinpath(_TABLE).open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    table["ratio"] = table["95 %"] / table["5 %"]
    return table


if __name__ == "__main__":
    measure().to_csv(Path(__file__).with_name(_TABLE), index=False)

"""Data sets for the tests: arrays, and folders of one's own that are drawn, renamed, loaded and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from lossatlas import data
from lossatlas.data.checking import check_folder

SPLITS = ("train", "val", "test")


def draw(
    root: Path,
    settings: dict | None = None,
    *,
    count: int = 6,
    names: Sequence[str] = (),
    size=(8, 10),
    values=(0, 1, 2),
    splits: Mapping[str, str] | None = None,
) -> Path:
    """Colour PNGs and masks, each of which holds every value; by default the last two are listed as val and test."""
    names = names or [f"n{i}" for i in range(count)]
    rng = np.random.default_rng(1)
    for name in names:
        mask = rng.choice(np.array(values, np.uint8), size)
        mask.flat[: len(values)] = values
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        for part, picture in (("images", image), ("masks", mask)):
            file = root / part / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
    if splits is None:
        splits = {"train": "\n".join(names[:-2]), "val": names[-2], "test": names[-1]}
    for split, text in splits.items():
        (root / f"{split}.txt").write_text(text, encoding="utf-8")
    if settings is not None:
        (root / "classes.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return root


def made(labels: npt.ArrayLike, **facts: Any) -> data.SegmentationDataset:
    """A data set of these labels (N, H, W) under black images."""
    array = np.asarray(labels, dtype=np.uint8)
    names = [str(i) for i in range(len(array))]
    known: dict[str, Any] = {
        "name": "made",
        "split": "train",
        "classes": ("background", "thing"),
        "mode": "multiclass",
        "images": np.zeros((*array.shape, 1), np.uint8),
        "ids": names,
        "groups": names,
        "mean": (0.5,),
        "std": (0.25,),
    }
    return data.SegmentationDataset(labels=array, **known | facts)


def unlist(root: Path) -> None:
    """Take the lists of the splits away."""
    for split in SPLITS:
        (root / f"{split}.txt").unlink()


def rename(root: Path, names: Mapping[str, str]) -> None:
    """Give pairs another name, or one in a subfolder."""
    for part in ("images", "masks"):
        for before, after in names.items():
            file = root / part / f"{after}.png"
            file.parent.mkdir(exist_ok=True)
            (root / part / f"{before}.png").rename(file)


def load(root: Path, split: str = "train", **params: Any) -> data.SegmentationDataset:
    return data.load("folder", split, root=str(root), **params)


def loads(root: Path, **params: Any) -> str:
    """The first refusal, or "" if all three splits load."""
    try:
        for split in SPLITS:
            load(root, split, cache=False, **params)
    except data.DataError as error:
        return str(error)
    return ""


def passes(root: Path, **params: Any) -> bool:
    try:
        return not any(f.severity == "error" for f in check_folder(root, **params))
    except data.DataError:
        return False


def notes(root: Path) -> str:
    return "\n".join(f"{f}" for f in check_folder(root))

"""What the published files hold twice, and how near their splits lie to each other."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lossatlas.data import integrity, pictures, published
from lossatlas.data.dataset import SPLITS
from lossatlas.data.registry import load_labels, source

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Of the CamVid videos; the file names count these frames.
FRAMES_A_SECOND = 30


def repeated(
    name: str, what: Literal["image", "mask"] = "image", **own: Any
) -> list[list[tuple[str, str]]]:
    """Groups of (split, id) whose images, or masks, are the same, in the order of the splits.

    Images are the same where the bytes of their files are, masks where the decoded arrays are. A
    mask of class 0 and void alone is not counted: two images may both hold nothing.

    Args:
        name: of a set on disk with a split of its own.
        what: "image" or "mask".
        own: the set's own parameters, such as ``fold``; not those that every set takes.

    Raises:
        DataError: the set is not at hand, or a parameter has no such value.
    """
    known = type(source(name))(**own)
    base = known.locate()
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split in SPLITS:
        samples = known.samples(base, split)
        if what == "image":
            digests = integrity.digests(name, base, [sample.image for sample in samples])
        for sample in samples:
            if what == "image":
                found[digests[sample.image]].append((split, sample.id))
                continue
            label = known.read_label(base, sample)
            if ((label != 0) & (label != (0 if known.void is None else known.void))).any():
                key = hashlib.sha256(repr(label.shape).encode() + label.tobytes()).hexdigest()
                found[key].append((split, sample.id))
    return [group for group in found.values() if len(group) > 1]


def fold_table(**own: Any) -> pd.DataFrame:
    """KolektorSDD: for each fold the images that another split holds too, under another name.

    Rows are the split without ``fold`` and the five folds. A cell of "test, twin trains" names test
    images whose twin is a training image.
    """
    import pandas as pd

    columns = {
        "test, twin trains": ("test", "train"),
        "test, twin validates": ("test", "val"),
        "validation, twin trains": ("val", "train"),
        "both train": ("train", "train"),
    }
    rows = {}
    for fold in (None, *range(published.FOLDS)):
        pairs = [
            (one, other)
            for group in repeated("kolektorsdd", fold=fold, **own)
            for one in group
            for other in group
            if one != other
        ]
        rows["no folds" if fold is None else f"fold {fold}"] = {
            title: ", ".join(
                one[1]
                for one, other in pairs
                if (one[0], other[0]) == splits and (splits[0] != splits[1] or one < other)
            )
            for title, splits in columns.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns))


def dice(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Dice of two masks of one shape; NaN where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else float("nan")


def twin_table() -> pd.DataFrame:
    """KolektorSDD: each image that is there twice, its defect pixels by either mask, their Dice.

    At the size of the files.
    """
    import pandas as pd

    known = published.KolektorSDD(defect_free="some")
    base = known.locate()
    samples = {s.id: s for split in SPLITS for s in known.samples(base, split)}
    rows = []
    for (_, one), (_, other) in repeated("kolektorsdd", defect_free="some"):
        masks = [known.read_label(base, samples[each]) == 1 for each in sorted((one, other))]
        rows.append([*sorted((one, other)), *(int(mask.sum()) for mask in masks), dice(*masks)])
    columns = ["image", "its twin", "defect px", "twin's defect px", "Dice"]
    return pd.DataFrame(rows, columns=columns).sort_values("image", ignore_index=True).round(3)


def neighbour_table() -> pd.DataFrame:
    """Nerve cord: Dice of the last validation section's mask, laid over each test section.

    A row for each class but the first, a column for each test section.
    """
    import pandas as pd

    last = load_labels("vnc_sstem", "val").labels[-1]
    test = load_labels("vnc_sstem", "test")
    rows = {
        thing: [dice(last == index, label == index) for label in test.labels]
        for index, thing in enumerate(test.classes)
        if index
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=test.ids).round(2)


def clip() -> dict[str, float]:
    """CamVid: frames and length of the validation clip, and the seconds to the training frames.

    Returns:
        ``images``; ``seconds`` from the first to the last; ``before`` and ``after``, the seconds to
        the nearest training frames of the same video; ``test_after``, the seconds from the last
        training frame to the first test frame of the video that both hold.
    """
    known = source("camvid")
    base = known.locate()
    frames: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for split in SPLITS:
        for sample in known.samples(base, split):
            frames[split][sample.group].append(int(sample.id.split("_")[1].lstrip("f")))
    ((video, seen),) = frames["val"].items()  # a second video would make the figures wrong
    trained = frames["train"][video]
    first, last = min(seen), max(seen)
    (shared,) = set(frames["train"]) & set(frames["test"])
    ahead = min(frames["test"][shared]) - max(frames["train"][shared])
    return {
        "images": len(seen),
        "seconds": (last - first) / FRAMES_A_SECOND,
        "before": (first - max(f for f in trained if f < first)) / FRAMES_A_SECOND,
        "after": (min(f for f in trained if f > last) - last) / FRAMES_A_SECOND,
        "test_after": ahead / FRAMES_A_SECOND,
    }


def wrong_mask_figure(width: float = 9.0) -> Figure:
    """CrackForest: the two photographs that have one mask, each with this mask over it."""
    import matplotlib.pyplot as plt

    known = source("crackforest")
    base = known.locate()
    (pair,) = repeated("crackforest", "mask")
    figure, axes = plt.subplots(1, 2, figsize=(width, width / 3))
    for axis, (split, wanted) in zip(axes, sorted(pair, key=lambda each: each[1]), strict=True):
        (sample,) = (each for each in known.samples(base, split) if each.id == wanted)
        label = known.read_label(base, sample)
        axis.imshow(known.read_image(base, sample))
        colours = pictures.colour_labels(label, len(known.classes), known.void)
        axis.imshow(colours, alpha=np.where(label == 1, 0.7, 0.0))
        axis.set_title(f"{wanted} with the mask published for it", loc="left", fontsize=9)
        axis.axis("off")
    figure.tight_layout()
    return figure

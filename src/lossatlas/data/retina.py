"""Retinal vessels: CHASE_DB1."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lossatlas.data import checks, imageio
from lossatlas.data.dataset import Mode
from lossatlas.data.errors import DataError
from lossatlas.data.files import FileDataset, Sample, listed_split

UInt8Array = npt.NDArray[np.uint8]

VOID = 255


class ChaseDB1(FileDataset):
    """CHASE_DB1: 28 colour fundus photographs of 14 children, 960×999 pixels, vessels about 7 %.

    There is no official split. "test" is the last eight images, the rest "train" (16) and "val"
    (4): both eyes of a child lie on one side, and ``groups`` holds the child.

    Own parameters:
        observer: 1 (the customary truth) or 2.
        whole_training: "train" takes the 20 images of the customary protocol, "val" included.
        field_of_view: pixels outside the camera's round view become void (the masks are an
            addition of the mirror, not of the original archive).
    """

    name = "chase_db1"
    title = "CHASE_DB1"
    classes = ("background", "vessel")
    mode: ClassVar[Mode] = "binary"
    void = VOID
    licence = "CC BY 4.0"
    citation = (
        "Fraz et al.: An ensemble classification-based approach applied to retinal blood vessel "
        "segmentation, IEEE Transactions on Biomedical Engineering 59(9), 2012"
    )
    source = "https://researchdata.kingston.ac.uk/96/"
    markers = ("CHASEDB1", "Image_01L.jpg")

    def __init__(
        self, *, observer: int = 1, whole_training: bool = False, field_of_view: bool = False
    ) -> None:
        self.observer = checks.integer("observer", observer, 1, 2)
        self.whole_training = checks.boolean("whole_training", whole_training)
        self.field_of_view = checks.boolean("field_of_view", field_of_view)

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Images of the split; the archive is one flat folder."""
        splits = listed_split(self.name)
        names = splits[split]
        if split == "train" and self.whole_training:
            names = sorted(names + splits["val"])
        folder = "CHASEDB1/" if (base / "CHASEDB1").is_dir() else ""
        suffix = {1: "_1stHO.png", 2: "_2ndHO.png"}[self.observer]
        return [
            Sample(n, n.removeprefix("Image_")[:2], f"{folder}{n}.jpg", f"{folder}{n}{suffix}")
            for n in names
        ]

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """1 where the observer marked a vessel; void outside the field of view if asked."""
        label = (imageio.read_index_mask(base / sample.label) > 0).astype(np.uint8)
        view = self.view_file(sample)
        if view is not None:
            inside = imageio.read_index_mask(base / view) > 0
            if inside.shape != label.shape:
                raise DataError(
                    f"{self.name}: expected a field of view of the mask's size {label.shape}, got "
                    f"{inside.shape} of {base / view}; fetch the file again"
                )
            label[~inside] = VOID
        return label

    def label_files(self, base: Path, sample: Sample) -> list[str]:
        """The observer's mask, and the field of view if asked."""
        view = self.view_file(sample)
        if view is None:
            return [sample.label]
        if not (base / view).is_file():
            raise DataError(
                f"{self.name}: expected the field of view {base / view} for field_of_view=True, "
                "found none; load without it, or add the file"
            )
        return [sample.label, view]

    def view_file(self, sample: Sample) -> str | None:
        """``fov_masks/mask_01L.png`` of Image_01L; None where the field of view is not asked for."""
        if not self.field_of_view:
            return None
        return f"fov_masks/mask_{sample.id.removeprefix('Image_')}.png"

    def registry_path(self, file: str) -> str:
        """The archive may lie unpacked without its folder."""
        return file if "/" in file else f"CHASEDB1/{file}"

"""Retinal vessels: CHASE_DB1."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lossatlas.data import checks, imageio
from lossatlas.data.dataset import Mode
from lossatlas.data.files import FileDataset, Sample, listed_split

UInt8Array = npt.NDArray[np.uint8]

VOID = 255


class ChaseDB1(FileDataset):
    """CHASE_DB1: 28 colour fundus photographs of 14 children, 960×999 pixels, vessels about 7 %.

    There is no official split. "test" is the last eight images, the rest "train" (16) and "val"
    (4): both eyes of a child lie on one side, and ``groups`` holds the child.

    Own parameters:
        observer: 1 (the customary truth) or 2.
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

    def __init__(self, *, observer: int = 1) -> None:
        self.observer = checks.integer("observer", observer, 1, 2)

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Images of the split; the archive is one flat folder."""
        folder = "CHASEDB1/" if (base / "CHASEDB1").is_dir() else ""
        suffix = {1: "_1stHO.png", 2: "_2ndHO.png"}[self.observer]
        return [
            Sample(n, n.removeprefix("Image_")[:2], f"{folder}{n}.jpg", f"{folder}{n}{suffix}")
            for n in listed_split(self.name)[split]
        ]

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """1 where the observer marked a vessel."""
        return (imageio.read_index_mask(base / sample.label) > 0).astype(np.uint8)

    def registry_path(self, file: str) -> str:
        """The archive may lie unpacked without its folder."""
        return file if "/" in file else f"CHASEDB1/{file}"

"""Infrared small targets (SIRST), where the user has the files: about 0.02 % foreground."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lossatlas.data import imageio
from lossatlas.data.dataset import Mode
from lossatlas.data.files import FileDataset, Sample, evenly_spaced, read_lines

UInt8Array = npt.NDArray[np.uint8]


class Sirst(FileDataset):
    """SIRST v1: 427 infrared images of several sizes, a target of a few pixels in each.

    Used where the user has the repository: ``images/Misc_1.png``, ``masks/Misc_1_pixels0.png`` and
    the lists ``idx_427/trainval.txt`` and ``test.txt``. "val" is every fifth name of ``trainval``
    in its order, "train" the others. Images are padded to the largest (padding is void) unless
    ``height`` and ``width`` are given; resizing by the nearest pixel may lose a small target.
    """

    name = "sirst"
    title = "SIRST"
    classes = ("background", "target")
    mode: ClassVar[Mode] = "binary"
    void = 255
    licence = "not stated by the source; for research"
    citation = (
        "Dai, Wu, Zhou, Barnard: Asymmetric contextual modulation for infrared small target "
        "detection, WACV 2021"
    )
    source = "https://github.com/YimianDai/sirst"
    mean, std = (0.4,), (0.2,)
    markers = ("masks", "idx_427")
    registered = False
    pads = True

    def split_files(self, split: str) -> list[str]:
        """The list that the split is taken from."""
        return [f"idx_427/{'test' if split == 'test' else 'trainval'}.txt"]

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Images of the split in the order of its list."""
        names = read_lines(base / self.split_files(split)[0], self.name)
        if split != "test":
            val = set(evenly_spaced(len(names), max(1, len(names) // 5)))
            names = [n for i, n in enumerate(names) if (i in val) == (split == "val")]
        return [Sample(n, n, f"images/{n}.png", f"masks/{n}_pixels0.png") for n in names]

    def read_image(self, base: Path, sample: Sample) -> UInt8Array:
        """Grey image."""
        return imageio.read_grey(base / sample.image)

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """1 where the mask is above 0."""
        mask = np.asarray(imageio.open_image(base / sample.label).convert("L"))
        return (mask > 0).astype(np.uint8)

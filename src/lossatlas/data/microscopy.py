"""Microscopy: a fly's nerve cord."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lossatlas.data import imageio
from lossatlas.data.files import FileDataset, Sample, listed_split

UInt8Array = npt.NDArray[np.uint8]


class VncSstem(FileDataset):
    """Drosophila nerve cord, 20 electron-microscopic sections of 1024×1024, synapse about 0.56 %.

    Classes come from the grey codes of ``labels/``: 255 intracellular; 0, 32, 64, 96 and 128
    membrane (four orientations and the junctions); 159 glia and extracellular; 191 mitochondria;
    223 synapse. The folders ``mitochondria/`` and ``synapses/`` of the source hold stray grey
    values and are not read. Sections 0 to 11 are "train", 12 to 15 "val", 16 to 19 "test":
    neighbours across a border are 45 nm to 50 nm apart and alike, as are all sections of this one
    stack, so that an interval over sections says nothing about another animal.

    ``positive="membrane"`` (17 %), ``"mitochondria"`` (5 %), ``"glia/extracellular"`` (3 %) or
    ``"synapse"`` (0.6 %) gives binary tasks of graded imbalance on the same images.
    """

    name = "vnc_sstem"
    title = "Drosophila VNC ssTEM"
    classes = ("intracellular", "membrane", "glia/extracellular", "mitochondria", "synapse")
    licence = "CC BY-NC-SA 3.0"
    citation = (
        "Gerhard, Funke, Martel, Cardona, Fetter: Segmented anisotropic ssTEM dataset of neural "
        "tissue, figshare 2013, doi:10.6084/m9.figshare.856713"
    )
    source = "https://github.com/unidesigner/groundtruth-drosophila-vnc"
    mean, std = (0.5,), (0.2,)
    inner = "stack1"
    markers = ("labels", "raw")
    codes: ClassVar[dict[int, int]] = {
        255: 0, 0: 1, 32: 1, 64: 1, 96: 1, 128: 1, 159: 2, 191: 3, 223: 4,
    }  # fmt: skip

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Sections of the split."""
        return [
            Sample(
                id=name,
                group=name,
                image=f"raw/{name}.png"
                if (base / "raw" / f"{name}.png").is_file()
                and not (base / "raw" / f"{name}.tif").is_file()
                else f"raw/{name}.tif",
                label=f"labels/labels{int(name):08d}.png",
            )
            for name in listed_split(self.name)[split]
        ]

    def read_image(self, base: Path, sample: Sample) -> UInt8Array:
        """Grey section."""
        return imageio.read_grey(base / sample.image)

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """Index mask of the grey codes."""
        path = base / sample.label
        return imageio.recode(imageio.read_index_mask(path), self.codes, path, "codes")

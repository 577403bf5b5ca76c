"""Microscopy: a fly's nerve cord (mirrored) and, where the user has the files, ISBI 2012, DSB."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from lossatlas.data import imageio
from lossatlas.data.dataset import Mode
from lossatlas.data.errors import DataError
from lossatlas.data.files import FileDataset, Sample, listed_split

UInt8Array = npt.NDArray[np.uint8]

VOID = 255


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


class Isbi2012(FileDataset):
    """ISBI 2012 membrane challenge: 30 sections of 512×512, membrane about 22 %.

    Used where the user has ``train-volume.tif`` and ``train-labels.tif`` (stacks of 30 pages; white
    is cell, black is membrane). The test volume has no public labels, so sections 0 to 19 are
    "train", 20 to 24 "val" and 25 to 29 "test", in the same proportions for a shorter stack.
    """

    name = "isbi2012"
    title = "ISBI 2012 (EM membranes)"
    classes = ("background", "membrane")
    mode: ClassVar[Mode] = "binary"
    licence = "as the challenge states; for research"
    citation = (
        "Arganda-Carreras et al.: Crowdsourcing the creation of image segmentation algorithms for "
        "connectomics, Frontiers in Neuroanatomy 9, 2015"
    )
    source = "https://imagej.net/events/isbi-2012-segmentation-challenge"
    mean, std = (0.5,), (0.2,)
    markers = ("train-volume.tif", "train-labels.tif")
    registered = False

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Pages of the two stacks."""
        volume, labels = self.markers
        self._check_pairs(base, [Sample("stack", "stack", volume, labels)])
        pages = [_pages(base / name) for name in (volume, labels)]
        if pages[0] != pages[1]:
            raise DataError(
                f"{self.name}: expected as many sections as masks, got {pages[0]} and {pages[1]} "
                f"pages in {base}; fetch the stacks again"
            )
        count = pages[0]
        first, second = count * 4 // 6, count * 5 // 6
        parts = {"train": (0, first), "val": (first, second), "test": (second, count)}
        return [
            Sample(f"section_{i:02d}", f"section_{i:02d}", volume, labels, page=i)
            for i in range(*parts[split])
        ]

    def read_image(self, base: Path, sample: Sample) -> UInt8Array:
        """Grey section."""
        return _page(base / sample.image, sample.page or 0)[..., None]

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """1 where the mask is black."""
        page = _page(base / sample.label, sample.page or 0)
        return imageio.recode(page, {0: 1, 255: 0}, base / sample.label, "mask values")


def _pages(path: Path) -> int:
    return int(getattr(imageio.open_image(path), "n_frames", 1))


def _page(path: Path, index: int) -> UInt8Array:
    try:
        with Image.open(path) as stack:
            stack.seek(index)
            return np.asarray(stack.convert("L"))
    except (OSError, EOFError, ValueError, SyntaxError) as error:
        raise DataError(
            f"{path}: expected page {index}, got one that does not decode ({error}); "
            "the stack is truncated or damaged: fetch it again"
        ) from None


class Dsb2018(FileDataset):
    """Data Science Bowl 2018: cell nuclei, 670 images of several sizes, about 14 % foreground.

    Used where the user has ``stage1_train/ID/images/ID.png`` with one mask a nucleus in
    ``stage1_train/ID/masks/``; the label is their union. Images are padded to the largest (padding
    is void) unless ``height`` and ``width`` are given. There is no official split of this part:
    an image goes by the SHA-256 of its id, 70 % "train", 10 % "val", 20 % "test" on average.
    """

    name = "dsb2018"
    title = "Data Science Bowl 2018"
    classes = ("background", "nucleus")
    mode: ClassVar[Mode] = "binary"
    void = VOID
    licence = "CC0 1.0 (BBBC038)"
    citation = (
        "Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science "
        "Bowl, Nature Methods 16, 2019"
    )
    source = "https://bbbc.broadinstitute.org/BBBC038"
    inner = "stage1_train"
    markers = ("*/masks",)
    registered = False
    pads = True

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Images whose id falls into the split."""
        names = sorted(p.parent.name for p in base.glob("*/masks") if p.is_dir())
        return [
            Sample(n, n, f"{n}/images/{n}.png", f"{n}/masks")
            for n in names
            if _split_of(n) == split
        ]

    def label_files(self, base: Path, sample: Sample) -> list[str]:
        """Every nucleus's mask."""
        files = sorted(p.name for p in (base / sample.label).glob("*.png"))
        if not files:
            raise DataError(
                f"{self.name}: expected a mask a nucleus in {base / sample.label}, found none; "
                "restore them or remove the image"
            )
        return [f"{sample.label}/{name}" for name in files]

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """Union of the nuclei."""
        files = [base / name for name in self.label_files(base, sample)]
        union = np.asarray(imageio.open_image(files[0]).convert("L")) > 0
        for file in files[1:]:
            mask = np.asarray(imageio.open_image(file).convert("L")) > 0
            if mask.shape != union.shape:
                raise DataError(
                    f"{file}: expected a mask of {union.shape[0]}×{union.shape[1]} as its "
                    f"neighbours, got {mask.shape[0]}×{mask.shape[1]}; fetch it again"
                )
            union |= mask
        return union.astype(np.uint8)


def _split_of(name: str) -> str:
    share = hashlib.sha256(name.encode("utf-8")).digest()[0]
    return "train" if share < 179 else "val" if share < 205 else "test"

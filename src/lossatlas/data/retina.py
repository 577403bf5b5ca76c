"""Retinal vessels: CHASE_DB1 (mirrored) and, where the user has the files, DRIVE and STARE."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from lossatlas.data import checks, imageio
from lossatlas.data.dataset import Mode
from lossatlas.data.errors import DataError
from lossatlas.data.files import FileDataset, Sample, listed_split

UInt8Array = npt.NDArray[np.uint8]

VOID = 255


class _Vessels(FileDataset):
    """What the sets of retinal vessels share: a binary task, and a round field of view."""

    classes = ("background", "vessel")
    mode: ClassVar[Mode] = "binary"
    void = VOID

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
        """Mask of the field of view, or None where it is not asked for."""
        return None


class ChaseDB1(_Vessels):
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

    def view_file(self, sample: Sample) -> str | None:
        """``fov_masks/mask_01L.png`` of Image_01L."""
        if not self.field_of_view:
            return None
        return f"fov_masks/mask_{sample.id.removeprefix('Image_')}.png"

    def registry_path(self, file: str) -> str:
        """The archive may lie unpacked without its folder."""
        return file if "/" in file else f"CHASEDB1/{file}"


class Drive(_Vessels):
    """DRIVE: 20 + 20 colour fundus photographs, 584×565 pixels, vessels about 8 % to 9 %.

    The files need a registration, so they are used where the user has them, in the original
    layout ``training/images/21_training.tif``, ``training/1st_manual/21_manual1.gif``,
    ``training/mask/21_training_mask.gif`` and the same under ``test``. "train" is the first 16 of
    ``training`` in order of name, "val" the last 4, "test" all of ``test``.

    Own parameters:
        observer: 1, or 2 (of the test images only).
        field_of_view: pixels outside the camera's round view become void.
    """

    name = "drive"
    title = "DRIVE"
    licence = "for research and education, after registration"
    citation = (
        "Staal, Abramoff, Niemeijer, Viergever, van Ginneken: Ridge based vessel segmentation in "
        "color images of the retina, IEEE Transactions on Medical Imaging 23(4), 2004"
    )
    source = "https://drive.grand-challenge.org/"
    markers = ("training", "test")
    registered = False

    def __init__(self, *, observer: int = 1, field_of_view: bool = False) -> None:
        self.observer = checks.integer("observer", observer, 1, 2)
        self.field_of_view = checks.boolean("field_of_view", field_of_view)

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Images of the split in order of name."""
        folder = "test" if split == "test" else "training"
        manual = {1: "1st_manual", 2: "2nd_manual"}[self.observer]
        if not (base / folder / manual).is_dir():
            raise DataError(
                f"{self.name}: expected masks in {base / folder / manual}, found no such folder; "
                "add the observer's masks (recent downloads leave those of the test set out)"
            )
        names = sorted(p.name for p in (base / folder / "images").glob("*.tif"))
        if split != "test":
            names = names[:-4] if split == "train" else names[-4:]
        return [
            Sample(
                id=Path(name).stem,
                group=name[:2],
                image=f"{folder}/images/{name}",
                label=f"{folder}/{manual}/{name[:2]}_manual{self.observer}.gif",
            )
            for name in names
        ]

    def view_file(self, sample: Sample) -> str | None:
        """``training/mask/21_training_mask.gif`` of 21_training.tif."""
        if not self.field_of_view:
            return None
        return f"{sample.image.split('/')[0]}/mask/{sample.id}_mask.gif"


class Stare(_Vessels):
    """STARE: 20 colour fundus photographs, 605×700 pixels, vessels about 8 % to 11 %.

    Used where the user has the files: ``im0001.ppm`` with ``im0001.ah.ppm`` (first observer) and
    ``im0001.vk.ppm`` (second), each as it is or gzipped, in one folder or in ``stare-images``,
    ``labels-ah`` and ``labels-vk``. There is no official split: in order of name the first 8 are
    "train", 2 "val" and the last 10 "test".

    Own parameters:
        observer: 1 (Adam Hoover) or 2 (Valentina Kouznetsova).
    """

    name = "stare"
    title = "STARE"
    licence = "not stated by the source; for research"
    citation = (
        "Hoover, Kouznetsova, Goldbaum: Locating blood vessels in retinal images by piecewise "
        "threshold probing of a matched filter response, IEEE Transactions on Medical Imaging "
        "19(3), 2000"
    )
    source = "https://cecas.clemson.edu/~ahoover/stare/"
    markers = ("stare-images", "im0001.ppm", "im0001.ppm.gz")
    registered = False

    def __init__(self, *, observer: int = 1) -> None:
        self.observer = checks.integer("observer", observer, 1, 2)

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Images that the observer marked, in order of name."""
        who = {1: "ah", 2: "vk"}[self.observer]
        images = self._files(base, "stare-images", ("", ".gz"))
        labels = self._files(base, f"labels-{who}", (f".{who}", f".{who}.gz"))
        names = sorted(labels)
        first, last = max(1, len(names) * 2 // 5), len(names) // 2
        names = {"train": names[:first], "val": names[first:last], "test": names[last:]}[split]
        return [Sample(n, n, images.get(n, f"{n}.ppm"), labels[n]) for n in names]

    @staticmethod
    def _files(base: Path, folder: str, endings: tuple[str, str]) -> dict[str, str]:
        plain, packed = (
            e.removesuffix(".gz") + ".ppm" + (".gz" if ".gz" in e else "") for e in endings
        )
        inside = f"{folder}/" if (base / folder).is_dir() else ""
        found = {}
        for path in sorted((base / inside).glob("im*.ppm*")):
            for ending in (packed, plain):
                name = path.name.removesuffix(ending)
                if name != path.name and "." not in name:
                    found[name] = inside + path.name
        return found

    def _open(self, path: Path) -> Image.Image:
        if path.suffix != ".gz":
            return imageio.open_image(path)
        try:
            content = gzip.decompress(path.read_bytes())
            image = Image.open(io.BytesIO(content))
            image.load()
        except (OSError, EOFError, ValueError, SyntaxError) as error:
            raise DataError(
                f"{path}: expected a whole gzipped image, got one that does not decode ({error}); "
                "fetch it again"
            ) from None
        return image

    def image_size(self, base: Path, sample: Sample) -> tuple[int, int]:
        """(height, width)."""
        image = self._open(base / sample.image)
        return image.height, image.width

    def read_image(self, base: Path, sample: Sample) -> UInt8Array:
        """Colour image."""
        return np.asarray(self._open(base / sample.image).convert("RGB"))

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """1 where the observer marked a vessel (white in a PPM)."""
        return (np.asarray(self._open(base / sample.label).convert("L")) > 127).astype(np.uint8)

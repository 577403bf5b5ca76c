"""Real sets that are no street scenes: vessels of the retina, cracks, defects of parts, a fly's nerve cord."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lossatlas.data import checks, imageio, integrity
from lossatlas.data.dataset import Mode
from lossatlas.data.errors import DataError
from lossatlas.data.files import FileDataset, Sample, first_there, listed_split

UInt8Array = npt.NDArray[np.uint8]

VOID = 255
#: Parts that KolektorSDD is cross-validated in.
FOLDS = 5
#: CrackForest image whose published mask belongs to another image.
WRONG_MASK = "042"
#: KolektorSDD items that hold the photographs of another item → that item.
TWINS = {"kos26": "kos01", "kos34": "kos27"}


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
    above_0 = True
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

    def registry_path(self, file: str) -> str:
        """The archive may lie unpacked without its folder."""
        return file if "/" in file else f"CHASEDB1/{file}"


class CrackForest(FileDataset):
    """CrackForest: 118 photographs of road surface, 320×480 pixels, cracks about 1.6 %.

    The ground truth is a MATLAB file whose codes the authors do not document. Read here as 1
    background, 2 crack, 3 background (areas that cracks enclose: filled blocks of alligator
    cracking) and 4 void (faint cracks beside the main ones). Who takes every code above 1 for crack
    makes whole blocks foreground. The mirror's ``labels/NNN.png`` holds the same reading and is
    taken where there is no ``groundTruth/NNN.mat``. The split (60 / 12 / 46) is ours: there is no
    official one. Images 201 to 329 of the download have no ground truth and are left out.

    The published ground truth of image 042 is that of 065: the two files hold the same array, the
    photographs differ, and the cracks of that array are in 065. Image 042 is in "val". The
    committed studies before December 2026 used the files as they are.

    Own parameters:
        corrected: leave 042 out, so that the split is 60 / 11 / 46. The default keeps the files
            as they are, so that earlier runs can be made again.
    """

    name = "crackforest"
    title = "CrackForest (CFD)"
    classes = ("background", "crack")
    mode: ClassVar[Mode] = "binary"
    void = VOID
    licence = "non-commercial research purposes only"
    citation = (
        "Shi, Cui, Qi, Meng, Chen: Automatic road crack detection using random structured forests, "
        "IEEE Transactions on Intelligent Transportation Systems 17(12), 2016"
    )
    source = "https://github.com/cuilimeng/CrackForest-dataset"
    markers = ("groundTruth", "labels")
    matlab_codes: ClassVar[dict[int, int]] = {1: 0, 2: 1, 3: 0, 4: VOID}

    def __init__(self, *, corrected: bool = False) -> None:
        self.corrected = checks.boolean("corrected", corrected)

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Images of the split."""
        return [
            Sample(
                id=name,
                group=name,
                image=f"image/{name}.jpg",
                label=first_there(base, f"groundTruth/{name}.mat", f"labels/{name}.png"),
            )
            for name in listed_split(self.name)[split]
            if not (self.corrected and name == WRONG_MASK)
        ]

    def read_label(self, base: Path, sample: Sample) -> UInt8Array:
        """Index mask of the MATLAB file's codes, or the mirror's."""
        path = base / sample.label
        if path.suffix == ".png":
            return super().read_label(base, sample)
        return imageio.recode(_segmentation(path), self.matlab_codes, path)


def _segmentation(path: Path) -> npt.NDArray[np.uint8]:
    """Field ``Segmentation`` of a ground truth file; SciPy reads data, runs nothing."""
    from scipy.io import loadmat

    try:
        field = loadmat(path)["groundTruth"][0, 0]["Segmentation"]
        array = np.asarray(field)
        if array.ndim != 2 or array.dtype.kind not in "ui":
            raise ValueError(f"an array {array.dtype} of shape {array.shape}")
    except Exception as error:  # a damaged file fails in SciPy in many ways
        raise DataError(
            f"{path}: expected a MATLAB file with groundTruth.Segmentation, got {error}; "
            "fetch it again"
        ) from None
    return array


class KolektorSDD(FileDataset):
    """KolektorSDD: grey images of commutators, about 500×1260 pixels, defects about 0.5 %.

    Reads ``kosNN/PartM.jpg`` with ``PartM_label.bmp`` (the original archive) or ``PartM_label.png``
    (the mirror); a pixel is a defect where the mask is above 0 (one mask holds 0, 1 and 2). Images
    differ in size: without ``height`` and ``width`` they are padded to the largest, and padding is
    void. ``groups`` holds the item, whose eight parts are alike; the split (20 / 6 / 9 defective
    images) is by item, and ours. Items whose labels the mirror lacks are in no split.

    Own parameters:
        defect_free: "none"; "some": one defect-free image of every other item (31 / 8 / 12 images);
            "all": every labelled image of the same items (in the mirror the same as "some").
        fold: None takes the split above. 0 to 4 cross-validates by item: every fifth item, from the
            ``fold``-th in order of name, is the test split, the items that follow them are the
            validation split, and the other three fifths train. The five test splits together hold
            each image once: nine test images decide nothing, 35 do.
        corrected: take the twins of the published files out. Items kos01 and kos26 are one item,
            and so are kos27 and kos34, for folds and ``groups``; of two identical images the first
            by name is kept. The split is then 18 / 6 / 9 images ("some": 28 / 8 / 12), and the
            folds hold 33. The default keeps the files as they are, so that earlier runs can be
            made again.

    The twins are images with identical bytes under two names: kos01/Part0 and kos26/Part0,
    kos01/Part5 and kos26/Part5, kos27/Part0 and kos34/Part0. Their masks were drawn twice and
    differ. In the split above all of them train. With ``fold`` and without ``corrected``, a twin of
    a test image trains in folds 0 and 2 and validates in fold 4. The committed studies before
    December 2026 used the files as they are.
    """

    name = "kolektorsdd"
    title = "KolektorSDD"
    classes = ("background", "defect")
    mode: ClassVar[Mode] = "binary"
    above_0 = True
    void = VOID
    licence = "CC BY-NC-SA 4.0"
    citation = (
        "Tabernik, Šela, Skvarč, Skočaj: Segmentation-based deep-learning approach for "
        "surface-defect detection, Journal of Intelligent Manufacturing, 2019"
    )
    source = "https://www.vicos.si/resources/kolektorsdd/"
    mean, std = (0.5,), (0.25,)
    markers = tuple(f"kos{item:02d}" for item in range(1, 51))
    pads = True

    def __init__(
        self, *, defect_free: str = "none", fold: int | None = None, corrected: bool = False
    ) -> None:
        self.defect_free = checks.choice("defect_free", defect_free, ("none", "some", "all"))
        self.fold = checks.optional_integer("fold", fold, 0, FOLDS - 1)
        self.corrected = checks.boolean("corrected", corrected)

    def samples(self, base: Path, split: str) -> list[Sample]:
        """Images of the split's items."""
        names = self._names(split)
        if self.defect_free == "all":
            # The rest of these items, where a mask says that they are labelled.
            items = sorted({name.split("/")[0] for name in names})
            labelled = {
                f"{item}/{path.name.split('_label')[0]}"
                for item in items
                for path in (base / item).glob("Part*_label.*")
            }
            names = sorted(labelled | set(names))
        if self.corrected:
            names = _without_repeats(base, names)
        return [
            Sample(
                id=name,
                group=self._item(name),
                image=f"{name}.jpg",
                label=first_there(base, f"{name}_label.bmp", f"{name}_label.png"),
            )
            for name in names
        ]

    def _names(self, split: str) -> list[str]:
        """Listed images of the split, or of the split's part of the items in this fold."""
        listed = listed_split(
            self.name if self.defect_free == "none" else f"{self.name}_with_defect_free"
        )
        if self.fold is None:
            return listed[split]
        names = sorted(name for part in listed.values() for name in part)
        items = sorted({self._item(name) for name in names})
        # how many items behind the fold's own: 0 tests, 1 validates, 2 to 4 train
        behind = {item: (index - self.fold) % FOLDS for index, item in enumerate(items)}
        wanted = {"test": {0}, "val": {1}, "train": {2, 3, 4}}[split]
        return [name for name in names if behind[self._item(name)] in wanted]

    def _item(self, name: str) -> str:
        """Item that an image belongs to."""
        item = name.split("/")[0]
        return TWINS.get(item, item) if self.corrected else item


def _without_repeats(base: Path, names: list[str]) -> list[str]:
    """The names without images of the twin items whose bytes an earlier name holds.

    The bytes decide, not a list: the full archive has parts that the mirror lacks.
    """
    twins = {*TWINS, *TWINS.values()}
    seen: set[str] = set()
    kept = []
    for name in sorted(names):
        file = base / f"{name}.jpg"
        if name.split("/")[0] in twins and file.is_file():  # a missing image is named later
            digest = integrity.sha256_of(file)
            if digest in seen:
                continue
            seen.add(digest)
        kept.append(name)
    return kept


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
                image=first_there(base, f"raw/{name}.tif", f"raw/{name}.png"),
                label=f"labels/labels{int(name):08d}.png",
            )
            for name in listed_split(self.name)[split]
        ]

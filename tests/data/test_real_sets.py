"""The other real sets: mirror figures, original layouts drawn by the tests, and their traps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from lossatlas import data
from lossatlas.data import faults, integrity, published
from lossatlas.data.files import listed_split
from lossatlas.data.registry import SOURCES, source

RNG = np.random.default_rng(0)
FREE = {"verify": False}

# Per cent of the labelled pixels and number of images, from each PROVENANCE.md of the mirror.
PROVENANCE = [
    ("camvid", "train", {}, 367, [17.538, 24.215, 1.023, 32.960, 4.671, 10.124, 1.221, 1.173, 6.107, 0.666, 0.304]),
    ("camvid", "val", {}, 101, [9.336, 26.412, 0.574, 29.455, 8.870, 16.619, 0.908, 3.131, 1.776, 0.662, 2.256]),
    ("camvid", "test", {}, 233, [17.746, 25.586, 1.224, 26.836, 9.638, 11.702, 1.050, 1.231, 4.130, 0.659, 0.197]),
    ("chase_db1", "train", {}, 16, [92.429, 7.571]),
    ("chase_db1", "val", {}, 4, [94.349, 5.651]),
    ("chase_db1", "test", {}, 8, [93.698, 6.302]),
    ("crackforest", "train", {}, 60, [98.365, 1.635]),
    ("crackforest", "val", {}, 12, [98.043, 1.957]),
    ("crackforest", "test", {}, 46, [98.498, 1.502]),
    ("kolektorsdd", "train", {}, 20, [99.481, 0.519]),
    ("kolektorsdd", "val", {}, 6, [99.609, 0.391]),
    ("kolektorsdd", "test", {}, 9, [99.334, 0.666]),
    ("kolektorsdd", "train", {"defect_free": "some"}, 31, [99.665, 0.335]),
    ("kolektorsdd", "val", {"defect_free": "some"}, 8, [99.707, 0.293]),
    ("kolektorsdd", "test", {"defect_free": "some"}, 12, [99.500, 0.500]),
    ("vnc_sstem", "train", {}, 12, [73.791, 17.141, 3.169, 5.209, 0.690]),
    ("vnc_sstem", "val", {}, 4, [73.945, 17.479, 2.695, 5.415, 0.467]),
    ("vnc_sstem", "test", {}, 4, [74.972, 16.892, 2.038, 5.844, 0.255]),
]  # fmt: skip
#: Per cent of all pixels that are void.
VOID = {("camvid", "train"): 3.948, ("camvid", "val"): 1.703, ("camvid", "test"): 3.833}


@pytest.mark.parametrize(("name", "split", "params", "count", "shares"), PROVENANCE)
def test_class_fractions_of_the_mirror_equal_its_provenance(
    mirror, name, split, params, count, shares
):
    labels = data.load_labels(name, split, **params)
    assert len(labels) == count
    np.testing.assert_allclose(100 * data.class_fractions(labels), shares, atol=0.0051)
    if (name, split) in VOID:
        void = 100 * float((labels.labels == labels.ignore_index).mean())
        assert labels.labels.shape[1:] == (360, 480)
        assert void == pytest.approx(VOID[name, split], abs=0.0051)


@pytest.mark.parametrize("name", ["camvid", "chase_db1", "crackforest", "kolektorsdd", "vnc_sstem"])
def test_the_mirror_loads_small_with_images(mirror, name):
    train = data.load(name, "train", height=64, width=48, train_size=12)
    channels = 1 if name in ("kolektorsdd", "vnc_sstem") else 3
    assert train.images.shape == (12, 64, 48, channels)
    assert len(set(train.groups)) >= 2 and len(train.checksum) == 64
    if name == "camvid":
        assert set(train.groups) == {"0001TP", "0006R0", "0016E5"}  # the videos
    images, target = train.batch([0, 2, 5])
    assert images.shape == (3, channels, 64, 48) and target.shape == (3, 64, 48)
    assert abs(float(images.mean())) < 2
    known = set(range(len(train.classes))) | {train.ignore_index}
    assert set(np.unique(target).tolist()) <= known


@pytest.mark.parametrize("name", ["chase_db1", "crackforest", "kolektorsdd", "vnc_sstem", "camvid"])
def test_no_image_and_no_group_of_related_images_is_in_two_splits(mirror, name):
    loaded = dict.fromkeys(("train", "val", "test"), SOURCES[name])
    base = source(name).locate()
    ids, groups = {}, {}
    for split, loader in loaded.items():
        samples = loader.samples(base, split)
        ids[split] = {s.id for s in samples}
        groups[split] = {s.group for s in samples}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not ids[a] & ids[b]
        if name != "camvid":  # CamVid's official split divides its videos
            assert not groups[a] & groups[b]


# ---- CHASE_DB1 --------------------------------------------------------------------------------


def test_the_two_observers_of_chase_agree_as_published(mirror):
    first = [data.load_labels("chase_db1", s).labels for s in ("train", "val", "test")]
    second = [data.load_labels("chase_db1", s, observer=2).labels for s in ("train", "val", "test")]
    pairs = zip(np.concatenate(first), np.concatenate(second), strict=True)
    dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]
    assert np.mean(dice) == pytest.approx(0.7765, abs=5e-5)  # PROVENANCE.md


def test_chase_is_read_from_a_flat_folder_too(mirror, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("Image_09L", "Image_09R", "Image_10L", "Image_10R"):
        for ending in (".jpg", "_1stHO.png"):
            shutil.copy(mirror / "chase_db1" / "CHASEDB1" / f"{name}{ending}", flat)
    shutil.copy(flat / "Image_09L.jpg", flat / "Image_01L.jpg")  # how the folder is recognised
    val = data.load("chase_db1", "val", root=str(flat), height=32, width=32)
    assert val.checksum == data.load("chase_db1", "val", height=32, width=32).checksum
    with pytest.raises(data.DataError, match="observer: expected an integer from 1 to 2"):
        data.load("chase_db1", "val", observer=3)


# ---- CrackForest ------------------------------------------------------------------------------


def draw_crackforest(root: Path, codes=(1, 2, 3, 4)) -> np.ndarray:
    """The validation images in the original layout; returns the codes of the first."""
    (root / "image").mkdir(parents=True)
    (root / "groundTruth").mkdir()
    segmentation = RNG.choice(np.array(codes, np.uint8), size=(10, 12))
    for name in listed_split("crackforest")["val"]:
        Image.fromarray(RNG.integers(0, 256, (10, 12, 3), np.uint8)).save(
            root / "image" / f"{name}.jpg"
        )
        field = np.empty((1, 1), dtype=[("Segmentation", "O"), ("Boundaries", "O")])
        field[0, 0] = (segmentation, segmentation)
        savemat(root / "groundTruth" / f"{name}.mat", {"groundTruth": field})
    return segmentation


def test_crack_codes_3_and_4_are_background_and_void(tmp_path):
    codes = draw_crackforest(tmp_path / "cfd")
    val = data.load("crackforest", "val", root=str(tmp_path / "cfd"), **FREE)
    assert val.ignore_index == 255 and val.mode == "binary"
    for code, expected in {1: 0, 2: 1, 3: 0, 4: 255}.items():
        assert (val.labels[0][codes == code] == expected).all()


def test_both_encodings_of_the_crack_masks_give_the_same_labels(mirror, tmp_path):
    png = tmp_path / "png"
    for folder in ("image", "labels"):
        shutil.copytree(mirror / "crackforest" / folder, png / folder)
    from_png = data.load_labels("crackforest", "test", root=str(png))
    assert np.array_equal(from_png.labels, data.load_labels("crackforest", "test").labels)


def test_an_unknown_crack_code_and_a_damaged_matlab_file_are_named(tmp_path):
    draw_crackforest(tmp_path / "cfd", codes=(1, 2, 7))
    with pytest.raises(data.DataError, match=r"\.mat: expected codes 1, 2, 3, 4, got 7 \("):
        data.load("crackforest", "val", root=str(tmp_path / "cfd"), **FREE)
    for path in (tmp_path / "cfd" / "groundTruth").iterdir():
        path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(data.DataError, match=r"expected a MATLAB file .* fetch it again"):
        data.load("crackforest", "val", root=str(tmp_path / "cfd"), **FREE)


# ---- KolektorSDD ------------------------------------------------------------------------------


def draw_kolektor(root: Path) -> None:
    """The validation items with BMP labels as in the archive, plus one more defect-free part."""
    for index, name in enumerate(listed_split("kolektorsdd")["val"]):
        size = (20 + index, 8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(size, 100, np.uint8)).save(root / f"{name}.jpg")
        mask = np.zeros(size, np.uint8)
        mask[2, 1:3] = (1, 2)  # one real mask holds 0, 1 and 2
        Image.fromarray(mask).save(root / f"{name}_label.bmp")
    extra = (root / name).parent / "Part9"
    Image.fromarray(np.full(size, 100, np.uint8)).save(f"{extra}.jpg")
    Image.fromarray(np.zeros(size, np.uint8)).save(f"{extra}_label.bmp")
    # An item without labels, as those of the mirror's test folder.
    (root / "kos50").mkdir()
    Image.fromarray(np.full(size, 100, np.uint8)).save(root / "kos50" / "Part0.jpg")


def test_kolektor_masks_above_zero_are_defects_and_images_are_padded_with_void(tmp_path):
    draw_kolektor(tmp_path / "ksdd")
    val = data.load("kolektorsdd", "val", root=str(tmp_path / "ksdd"), **FREE)
    assert val.labels.shape == (6, 25, 8)
    assert (val.labels == 1).sum(axis=(1, 2)).tolist() == [2] * 6
    assert (val.labels == 255).sum(axis=(1, 2)).tolist() == [40, 32, 24, 16, 8, 0]
    assert (val.images == 100).all()  # padded with the last row, not with black
    sized = data.load("kolektorsdd", "val", root=str(tmp_path / "ksdd"), height=20, width=8, **FREE)
    assert not (sized.labels == 255).any()


def test_defect_free_images_are_an_option_and_unlabelled_items_stay_out(tmp_path):
    draw_kolektor(tmp_path / "ksdd")
    _add_defect_free(tmp_path / "ksdd")
    root = str(tmp_path / "ksdd")
    some = data.load("kolektorsdd", "val", root=root, defect_free="some", **FREE)
    everything = data.load("kolektorsdd", "val", root=root, defect_free="all", **FREE)
    assert (len(some), len(everything)) == (8, 9)
    assert sum((label == 1).any() for label in everything.labels) == 6
    assert not any(i.startswith("kos50") for i in everything.ids)
    with pytest.raises(data.DataError, match="expected one of none, some, all"):
        data.load("kolektorsdd", "val", defect_free="yes")


def _add_defect_free(root: Path) -> None:
    """Add the defect-free parts that the list names."""
    for name in listed_split("kolektorsdd_with_defect_free")["val"]:
        if not (root / f"{name}.jpg").exists():
            (root / name).parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((20, 8), 90, np.uint8)).save(root / f"{name}.jpg")
            Image.fromarray(np.zeros((20, 8), np.uint8)).save(root / f"{name}_label.bmp")


@pytest.mark.parametrize("defect_free", ["none", "some"])
def test_kolektor_folds_test_every_image_once_and_share_no_item(mirror, defect_free):
    splits = ("train", "val", "test")
    tested: list[str] = []
    for fold in range(5):
        parts = {
            split: data.load_labels("kolektorsdd", split, fold=fold, defect_free=defect_free)
            for split in splits
        }
        items = {split: set(part.groups) for split, part in parts.items()}
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            assert not items[first] & items[second], (fold, first, second)
        tested += parts["test"].ids
    listed = [
        name
        for split in splits
        for name in data.load_labels("kolektorsdd", split, defect_free=defect_free).ids
    ]
    assert sorted(tested) == sorted(listed)
    with pytest.raises(data.DataError, match="fold: expected"):
        data.load_labels("kolektorsdd", "test", fold=5)


def test_of_twin_images_one_is_kept_and_twin_items_share_fold_and_group(tmp_path):
    for name in listed_split("kolektorsdd")["train"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        content = name.replace("kos26", "kos01").replace("kos34", "kos27")
        (tmp_path / f"{name}.jpg").write_text(content)
    # a part of the full archive that is no twin, though its item is one
    (tmp_path / "kos26" / "Part3.jpg").write_text("its own")
    for file in ("kos26/Part3", "kos26/Part5", "kos01/Part5"):
        (tmp_path / f"{file}_label.bmp").touch()

    def kept(**own):
        return published.KolektorSDD(**own).samples(tmp_path, "train")

    as_published = {s.id for s in kept()}
    assert as_published - {s.id for s in kept(corrected=True)} == {"kos26/Part5", "kos34/Part0"}
    every = {s.id: s.group for s in kept(corrected=True, defect_free="all")}
    assert every["kos26/Part3"] == every["kos01/Part5"] == "kos01"
    assert "kos26/Part5" not in every
    for fold in range(5):
        for split in ("train", "val", "test"):
            chosen = published.KolektorSDD(fold=fold, corrected=True, defect_free="all")
            ids = {s.id for s in chosen.samples(tmp_path, split)}
            assert ("kos01/Part5" in ids) == ("kos26/Part3" in ids)
    with pytest.raises(data.DataError, match="corrected: expected True or False, got 'yes'"):
        data.load("kolektorsdd", "train", corrected="yes")


def test_image_042_of_crackforest_is_in_no_split_of_the_corrected_set(tmp_path):
    for split, lost in (("train", set()), ("val", {"042"}), ("test", set())):
        names = {s.id for s in published.CrackForest().samples(tmp_path, split)}
        corrected = {s.id for s in published.CrackForest(corrected=True).samples(tmp_path, split)}
        assert names - corrected == lost and corrected <= names
    with pytest.raises(data.DataError, match="corrected: expected True or False, got 1"):
        data.load("crackforest", "val", corrected=1)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("camvid", {}),
        ("chase_db1", {}),
        ("crackforest", {"corrected": True}),
        ("kolektorsdd", {"corrected": True, "defect_free": "all"}),
        ("vnc_sstem", {}),
    ],
)
def test_no_image_and_no_mask_of_a_set_is_there_twice(mirror, name, own):
    for fold in (None, *range(5)) if name == "kolektorsdd" else (None,):
        chosen = own if fold is None else {**own, "fold": fold}
        assert faults.repeated(name, **chosen) == []
    assert faults.repeated(name, "mask", **own) == []


def test_the_published_files_hold_the_known_twins_and_one_wrong_mask_and_no_more(mirror):
    known = {("kos01/Part0", "kos26/Part0"), ("kos01/Part5", "kos26/Part5")}
    known |= {("kos27/Part0", "kos34/Part0")}
    for fold in (None, *range(5)):
        found = faults.repeated("kolektorsdd", fold=fold, defect_free="all")
        assert {tuple(sorted(i for _, i in group)) for group in found} == known
    assert faults.repeated("kolektorsdd", "mask", defect_free="all") == []
    assert faults.repeated("crackforest") == []
    assert faults.repeated("crackforest", "mask") == [[("train", "065"), ("val", "042")]]


def test_the_table_of_folds_says_where_a_twin_of_a_test_image_is_seen(mirror):
    table = faults.fold_table()
    tested = table["test, twin trains"]
    assert tested["fold 0"] == "kos01/Part5, kos27/Part0" and tested["fold 2"] == "kos34/Part0"
    assert table.loc["fold 4", "test, twin validates"] == "kos26/Part5"
    assert (tested != "").sum() == 2 and (table["test, twin validates"] != "").sum() == 1
    assert list(table.loc["no folds"]) == ["", "", "", "kos01/Part5, kos27/Part0"]
    assert (faults.fold_table(corrected=True) == "").all(axis=None)


def test_two_drawings_of_one_defect_agree_to_less_than_eight_tenths(mirror):
    table = faults.twin_table().set_index("image")
    assert table.loc["kos01/Part5", "Dice"] == pytest.approx(0.774, abs=5e-4)
    assert table.loc["kos27/Part0", "Dice"] == pytest.approx(0.795, abs=5e-4)
    assert np.isnan(table.loc["kos01/Part0", "Dice"])  # neither mask has a defect


def test_corrected_counts_are_those_of_the_docstring(mirror):
    for defect_free, counts in (("none", [18, 6, 9]), ("some", [28, 8, 12])):
        params = {"defect_free": defect_free, "corrected": True}
        loaded = [data.load_labels("kolektorsdd", s, **params) for s in ("train", "val", "test")]
        assert [len(each) for each in loaded] == counts
    folds = [data.load_labels("kolektorsdd", "test", fold=f, corrected=True) for f in range(5)]
    assert sum(map(len, folds)) == 33
    assert len(data.load_labels("crackforest", "val", corrected=True)) == 11


def test_neighbouring_sections_and_frames_are_as_near_as_the_docstrings_say(mirror):
    assert faults.neighbour_table().loc["mitochondria"].tolist() == [0.82, 0.68, 0.57, 0.47]
    clip = faults.clip()
    assert clip["images"] == 101 and clip["seconds"] == pytest.approx(6.7, abs=0.05)
    assert clip["before"] == pytest.approx(1.3) and clip["after"] == pytest.approx(1.03, abs=5e-3)
    assert clip["test_after"] == 1.0


def test_the_figure_shows_both_photographs_that_have_one_mask(mirror):
    import matplotlib.pyplot as plt

    figure = faults.wrong_mask_figure()
    titles = [axis.get_title(loc="left")[:3] for axis in figure.axes]
    assert titles == ["042", "065"]
    first, second = (axis.images[0].get_array() for axis in figure.axes)
    assert first.shape == second.shape and not np.array_equal(first, second)
    plt.close(figure)


# ---- Drosophila VNC ---------------------------------------------------------------------------


def draw_vnc(root: Path, stray: int | None = None) -> np.ndarray:
    """Sections 12 to 15 as TIFF with their grey codes; returns the codes."""
    codes = RNG.choice(np.array([255, 0, 32, 64, 96, 128, 159, 191, 223], np.uint8), size=(9, 9))
    if stray is not None:
        codes[4, 4] = stray
    (root / "stack1" / "raw").mkdir(parents=True)
    (root / "stack1" / "labels").mkdir()
    for i in range(12, 16):
        Image.fromarray(RNG.integers(0, 256, (9, 9), np.uint8)).save(
            root / "stack1" / "raw" / f"{i:02d}.tif"
        )
        Image.fromarray(codes).save(root / "stack1" / "labels" / f"labels{i:08d}.png")
    return codes


def test_the_grey_codes_of_the_nerve_cord_become_five_classes(tmp_path):
    codes = draw_vnc(tmp_path / "vnc")
    val = data.load("vnc_sstem", "val", root=str(tmp_path / "vnc"), **FREE)
    assert val.images.shape == (4, 9, 9, 1) and len(val.classes) == 5
    assert np.array_equal(val.labels[0] == 1, codes <= 128)
    for code, index in {255: 0, 159: 2, 191: 3, 223: 4}.items():
        assert np.array_equal(val.labels[0] == index, codes == code)
    synapse = data.load("vnc_sstem", "val", root=str(tmp_path / "vnc"), positive="synapse", **FREE)
    assert np.array_equal(synapse.labels == 1, val.labels == 4)


def test_a_stray_grey_value_of_the_nerve_cord_is_named(tmp_path):
    draw_vnc(tmp_path / "vnc", stray=77)
    with pytest.raises(data.DataError, match=r"labels00000012.*got 77 \(1 px\)"):
        data.load("vnc_sstem", "val", root=str(tmp_path / "vnc"), **FREE)


@pytest.mark.parametrize("name", [n for n in SOURCES if n not in ("digits", "folder")])
def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(name):
    assert not data.is_available(name)
    with pytest.raises(data.DataError, match="LOSSATLAS_MIRROR") as caught:
        data.load(name, "train")
    assert source(name).source in str(caught.value) or "data get" in str(caught.value)


def test_every_registered_set_has_its_checksums_and_they_are_small():
    for name, loader in SOURCES.items():
        if getattr(loader, "registered", False):
            assert len(integrity.registered(name)) > 20

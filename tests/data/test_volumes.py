"""NIfTI volumes in a folder: slices with spacing, kept together, refused where they do not fit."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from drawn import unlist
from PIL import Image

from lossatlas import data
from lossatlas.data import DataError, reading, volumes
from lossatlas.data.checking import check_folder
from lossatlas.data.folder import image_files

nibabel = pytest.importorskip("nibabel", reason="pip install nibabel")
SPACING = (0.5, 0.75, 3.0)
SHAPE = (6, 5, 4)  # right, anterior, superior: slices of 5 rows and 6 columns


def save(path, array, *, codes="RAS", spacing=SPACING, origin=(0, 0, 0)):
    """Write voxels, given along right, anterior, superior, with the axes that ``codes`` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, np.diag([*spacing, 1.0]))
    image.affine[:3, 3] = origin
    turned = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(image.as_reoriented(turned), path)


def scan(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(-1000, 2000, shape).astype(np.int16)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for index, suffix in enumerate((".nii", ".nii.gz", ".nii.gz")):
        save(root / "images" / f"p{index}{suffix}", scan(index))
        save(root / "masks" / f"p{index}{suffix}", (scan(index) > 500).astype(np.uint8))
    for split, name in zip(("train", "val", "test"), ("p0", "p1.nii.gz", "p2"), strict=True):
        (root / f"{split}.txt").write_text(name)
    return root


def refused(folder, said: str) -> None:
    """By the check and by loading, in the same words."""
    assert any(said in f.what and f.severity == "error" for f in check_folder(folder))
    with pytest.raises(DataError, match=said):
        data.load("folder", "train", root=str(folder))


def test_a_slice_has_the_voxels_and_the_spacing_of_its_file(folder):
    for name in ("p0.nii", "p1.nii.gz"):
        read = reading.read_image(folder / "images" / name / "0002")
        expected = scan(int(name[1]))[:, :, 2].T[::-1]  # rows from anterior down
        np.testing.assert_array_equal(read.array[..., 0], expected)
        assert read.array.dtype == np.int16 and read.spacing_mm == (0.75, 0.5)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SRA", "AIL", "PSR"])
def test_the_stored_orientation_changes_no_slice(tmp_path, codes):
    save(tmp_path / "a.nii.gz", scan(), codes=codes)
    read = reading.read_image(tmp_path / "a.nii.gz" / "0001")
    np.testing.assert_array_equal(read.array[..., 0], scan()[:, :, 1].T[::-1])
    assert read.spacing_mm == (0.75, 0.5)


def test_a_volume_is_cut_across_its_longest_voxels(tmp_path):
    save(tmp_path / "sagittal.nii", scan(), spacing=(4, 1, 1))
    found = volumes.geometry(tmp_path / "sagittal.nii")
    assert (found.axis, found.slices) == (0, SHAPE[0])
    read = reading.read_image(tmp_path / "sagittal.nii" / "0003")
    np.testing.assert_array_equal(read.array[..., 0], scan()[3].T[::-1])


def test_scaled_values_and_channels_are_read(tmp_path):
    image = nibabel.Nifti1Image(scan(shape=(*SHAPE, 2)), np.diag([1, 1, 2, 1]))
    image.header.set_slope_inter(2.0, -5.0)
    nibabel.save(image, tmp_path / "a.nii")
    expected = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj)[:, :, 1]
    read = reading.read_image(tmp_path / "a.nii" / "0001")
    np.testing.assert_array_equal(read.array, expected.swapaxes(0, 1)[::-1])
    assert read.array.shape == (5, 6, 2)


def test_a_folder_of_volumes_loads_as_slices_of_one_group_each(folder):
    assert [f for f in check_folder(folder) if f.severity == "error"] == []
    train = data.load("folder", "train", root=str(folder))
    assert train.ids == [f"p0/{index:04d}" for index in range(4)]
    assert set(train.groups) == {"p0"} and train.images.shape == (4, 5, 6, 1)
    np.testing.assert_array_equal(train.labels[2], (scan(0)[:, :, 2].T[::-1] > 500))
    values = scan(0).astype(float)
    expected = np.rint((values - values.min()) / (values.max() - values.min()) * 255)
    np.testing.assert_array_equal(train.images[1][..., 0], expected[:, :, 1].T[::-1])


def test_slices_of_a_volume_are_dealt_to_one_split(folder):
    unlist(folder)
    for index in range(3, 20):
        save(folder / "images" / f"p{index}.nii", scan(index))
        save(folder / "masks" / f"p{index}.nii", (scan(index) > 500).astype(np.uint8))
    groups = [
        set(data.load_labels("folder", split, root=str(folder)).groups)
        for split in ("train", "val", "test")
    ]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20


def test_slices_of_a_volume_in_two_lists_are_refused(folder):
    (folder / "train.txt").write_text("p0/0000\np0/0001")
    (folder / "test.txt").write_text("p2\np0/0003")
    refused(folder, "expected an image or volume in one split, got p0 in train.txt and test.txt")


def test_a_table_of_volumes_is_not_passed_over(folder):
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").rename(folder / f"{split}.csv")
    assert any("one a line, got test.csv" in f.what for f in check_folder(folder))


@pytest.mark.parametrize("name", ["test", "valid"])
def test_a_volume_whose_name_is_a_split_s_is_no_folder_of_it(folder, name):
    unlist(folder)
    for part in ("images", "masks"):
        (folder / part / "p2.nii.gz").rename(folder / part / f"{name}.nii.gz")
    assert not any("in a folder of" in f.what for f in check_folder(folder))


def test_a_mask_that_lies_elsewhere_in_space_is_refused_by_check_and_load(folder):
    save(folder / "masks" / "p0.nii", (scan(0) > 500).astype(np.uint8), origin=(0, 1.5, 0))
    refused(folder, "resample the mask onto its image")


def test_a_mask_of_fewer_slices_is_refused_by_check_and_load(folder):
    save(folder / "masks" / "p1.nii.gz", (scan(1) > 500).astype(np.uint8)[:, :, :3])
    assert any("a mask for each image" in f.what for f in check_folder(folder))
    with pytest.raises(DataError, match="p1/0003"):
        data.load("folder", "train", root=str(folder))


def test_volumes_of_several_spacings_are_noted(folder):
    for part, values in (("images", scan(1)), ("masks", (scan(1) > 500).astype(np.uint8))):
        save(folder / part / "p1.nii.gz", values, spacing=(0.5, 0.5, 3))
    assert any("several spacings" in f.what for f in check_folder(folder))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_damaged_volume_is_one_line_with_its_name(folder, suffix):
    path = folder / "images" / ("p0.nii" if suffix == ".nii" else "p1.nii.gz")
    whole = path.read_bytes()
    for kept in (0, 10, 200, len(whole) - 20):
        path.write_bytes(whole[:kept])
        errors = [f for f in check_folder(folder) if f.severity == "error"]
        assert any(path.name in str(f) or path.stem in str(f) for f in errors), kept
        with pytest.raises(DataError):
            for split in ("train", "val"):
                data.load("folder", split, root=str(folder))


def test_a_changed_file_is_read_again(folder):
    path = folder / "images" / "p0.nii"
    before = reading.read_image(path / "0000").array
    save(path, scan(9))
    assert not np.array_equal(reading.read_image(path / "0000").array, before)


def test_volumes_and_pictures_may_lie_side_by_side(folder):
    assert sorted(image_files(folder / "images"))[:2] == ["p0/0000", "p0/0001"]
    one = image_files(folder / "images" / "p1.nii.gz")
    assert list(one) == [f"p1/{index:04d}" for index in range(4)]
    Image.new("L", (6, 5)).save(folder / "images" / "x.png")
    assert "x" in image_files(folder / "images")


def test_without_nibabel_the_message_says_what_to_install(folder, monkeypatch):
    volumes._volume.cache_clear()
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(DataError, match=r"pip install 'lossatlas\[volumes\]'"):
        check_folder(folder)

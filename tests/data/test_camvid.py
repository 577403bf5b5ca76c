"""CamVid: both layouts, every kind of damage, and the figures of the mirror."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from lossatlas import data
from lossatlas.data import integrity, paths

FREE = {"verify": False}  # drawn fixtures are no registered files


@pytest.fixture
def drawn(tmp_path, draw_camvid):
    return draw_camvid(tmp_path / "set")


def error(*args, **params) -> str:
    with pytest.raises(data.DataError) as caught:
        data.load("camvid", *args, **params)
    message = str(caught.value)
    assert "\n" not in message and "expected" in message
    assert ";" in message, "no remedy"
    return message


def nothing_cached() -> bool:
    folder = paths.cache_dir() / "arrays"
    return not folder.exists() or not list(folder.iterdir())


def test_the_original_layout_is_read_in_the_order_of_the_split_file(drawn):
    train = data.load("camvid", "train", root=str(drawn), **FREE)
    assert train.images.shape == (3, 12, 16, 3) and train.labels.shape == (3, 12, 16)
    assert train.ids == ["0001TP_train000", "0002TP_train001", "0001TP_train002"]
    assert train.groups == ["0001TP", "0002TP", "0001TP"]
    assert (len(train.classes), train.ignore_index, train.mode) == (11, 11, "multiclass")
    first = drawn / "CamVid" / "train" / "0001TP_train000.png"
    assert np.array_equal(train.images[0], np.asarray(Image.open(first)))
    assert len(data.load("camvid", "val", root=str(drawn), **FREE)) == 2


def test_the_mirror_layout_gives_the_same_content_and_a_png_wins_over_a_webp(
    tmp_path, drawn, draw_camvid
):
    webp = draw_camvid(tmp_path / "webp", suffix=".webp")
    one = data.load("camvid", "train", root=str(drawn), **FREE)
    other = data.load("camvid", "train", root=str(webp), **FREE)
    assert one.checksum == other.checksum
    black = np.zeros((12, 16, 3), np.uint8)
    Image.fromarray(black).save(webp / "CamVid/train/0001TP_train000.png")
    assert not data.load("camvid", "train", root=str(webp), **FREE).images[0].any()


def test_root_may_be_the_folder_itself_and_default_places_are_looked_up(
    drawn, tmp_path, monkeypatch
):
    expected = data.load("camvid", "test", root=str(drawn), **FREE).checksum
    assert data.load("camvid", "test", root=str(drawn / "CamVid"), **FREE).checksum == expected
    shutil.copytree(drawn, tmp_path / "mirror" / "camvid")
    monkeypatch.setenv("LOSSATLAS_MIRROR", str(tmp_path / "mirror"))
    assert data.is_available("camvid")
    assert data.load("camvid", "test", **FREE).checksum == expected
    monkeypatch.delenv("LOSSATLAS_MIRROR")
    assert not data.is_available("camvid")
    shutil.copytree(drawn, tmp_path / "raw" / "camvid")
    assert data.load("camvid", "test", **FREE).checksum == expected


def test_resizing_keeps_label_values_and_brightness(drawn):
    full = data.load("camvid", "train", root=str(drawn), **FREE)
    half = data.load("camvid", "train", root=str(drawn), height=6, width=8, **FREE)
    assert half.images.shape == (3, 6, 8, 3) and half.labels.shape == (3, 6, 8)
    assert set(np.unique(half.labels)) <= set(np.unique(full.labels))
    assert abs(half.images.mean() - full.images.mean()) < 3
    by_ratio = data.load("camvid", "train", root=str(drawn), height=6, **FREE)
    assert by_ratio.checksum == half.checksum


def test_a_subset_is_evenly_spaced(tmp_path, draw_camvid):
    root = draw_camvid(tmp_path / "ten", counts=(10, 1, 1))
    some = data.load("camvid", "train", root=str(root), train_size=3, **FREE)
    assert [i[-3:] for i in some.ids] == ["001", "005", "008"]
    assert len(data.load("camvid", "train", root=str(root), train_size=99, **FREE)) == 10


def test_one_class_against_the_rest_keeps_void(drawn):
    full = data.load("camvid", "train", root=str(drawn), **FREE)
    car = data.load("camvid", "train", root=str(drawn), positive="Car", **FREE)
    assert car.classes == ("background", "Car")
    assert (car.mode, car.out_channels, car.ignore_index) == ("binary", 1, 11)
    assert np.array_equal(car.labels == 1, full.labels == 8)
    assert np.array_equal(car.labels == 11, full.labels == 11)
    assert "did you mean Car" in error("train", root=str(drawn), positive="Cat", **FREE)


def test_void_is_not_counted(drawn):
    train = data.load("camvid", "train", root=str(drawn), **FREE)
    assert (train.image_counts().sum(axis=1) == 11 * 16).all()  # the first row of 12 is void


def test_the_cache_is_used_and_equals_the_decoded_arrays(drawn):
    first = data.load("camvid", "train", root=str(drawn), height=6, width=8, **FREE)
    assert isinstance(first.images, np.memmap)
    loose = data.load("camvid", "train", root=str(drawn), height=6, width=8, cache=False, **FREE)
    assert not isinstance(loose.images, np.memmap)
    assert loose.checksum == first.checksum
    entries = list((paths.cache_dir() / "arrays").iterdir())
    assert len(entries) == 1
    again = data.load("camvid", "train", root=str(drawn), height=6, width=8, **FREE)
    assert again.images.filename == first.images.filename
    # Other content under the same name is another entry.
    changed = drawn / "CamVid/train/0001TP_train000.png"
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(changed)
    other = data.load("camvid", "train", root=str(drawn), height=6, width=8, **FREE)
    assert other.checksum != first.checksum
    assert len(list((paths.cache_dir() / "arrays").iterdir())) == 2


def test_labels_alone_are_loaded_without_decoding_images(drawn):
    full = data.load("camvid", "train", root=str(drawn), **FREE)
    path = drawn / "CamVid/train/0001TP_train000.png"
    path.write_bytes(path.read_bytes()[:-200])  # the header stays
    labels = data.load_labels("camvid", "train", root=str(drawn), **FREE)
    assert np.array_equal(labels.labels, full.labels)
    with pytest.raises(data.DataError, match="use load"):
        _ = labels.images


def test_missing_data_say_which_variable_brings_them(tmp_path, monkeypatch):
    message = error("train")
    assert "LOSSATLAS_MIRROR" in message and "camvid" in message
    monkeypatch.setenv("LOSSATLAS_MIRROR", str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in error("train")
    assert "root=" in error("train", root=str(tmp_path))


def test_a_missing_or_empty_split_file_is_named(drawn):
    (drawn / "CamVid/val.txt").unlink()
    assert "val.txt" in error("val", root=str(drawn), **FREE)
    (drawn / "CamVid/test.txt").write_text("\n")
    assert "empty file" in error("test", root=str(drawn), **FREE)


def test_an_image_without_its_mask_and_the_reverse_are_named(drawn):
    mask = drawn / "CamVid/trainannot/0002TP_train001.png"
    kept = mask.read_bytes()
    mask.unlink()
    message = error("train", root=str(drawn), **FREE)
    assert "mask" in message and "0002TP_train001" in message
    mask.write_bytes(kept)
    (drawn / "CamVid/train/0001TP_train000.png").unlink()
    message = error("train", root=str(drawn), **FREE)
    assert "image" in message and "0001TP_train000" in message
    (drawn / "CamVid/trainannot/0001TP_train000.png").unlink()
    message = error("train", root=str(drawn), **FREE)  # listed in train.txt, but neither is there
    assert "0001TP_train000" in message and nothing_cached()


def test_a_mask_value_outside_the_classes_is_named_with_its_pixels(drawn):
    path = drawn / "CamVid/trainannot/0002TP_train001.png"
    mask = np.array(Image.open(path))
    mask[3, :5] = 77
    Image.fromarray(mask).save(path)
    message = error("train", root=str(drawn), **FREE)
    assert "77 (5 px)" in message and "0002TP_train001" in message and "void 11" in message
    assert nothing_cached()


def test_an_image_and_mask_of_different_size_are_named(drawn):
    path = drawn / "CamVid/train/0002TP_train001.png"
    Image.open(path).resize((8, 8)).save(path)
    message = error("train", root=str(drawn), height=6, width=8, **FREE)
    assert "8×8" in message and "12×16" in message and nothing_cached()


def test_a_mask_of_three_channels_is_refused(drawn):
    path = drawn / "CamVid/trainannot/0002TP_train001.png"
    Image.open(path).convert("RGB").save(path)
    assert "one channel" in error("train", root=str(drawn), **FREE)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_truncated_image_is_named_and_leaves_nothing_behind(tmp_path, draw_camvid, suffix):
    root = draw_camvid(tmp_path / "cut", suffix=suffix)
    path = root / "CamVid/train" / f"0002TP_train001{suffix}"
    path.write_bytes(path.read_bytes()[:-100])
    message = error("train", root=str(root), **FREE)
    assert path.name in message and "truncated" in message and nothing_cached()


def test_images_of_several_sizes_ask_for_one(drawn):
    for folder in ("train", "trainannot"):
        path = drawn / "CamVid" / folder / "0002TP_train001.png"
        Image.open(path).resize((8, 8), 0).save(path)
    assert "give height and width" in error("train", root=str(drawn), **FREE)
    ok = data.load("camvid", "train", root=str(drawn), height=6, width=8, **FREE)
    assert ok.images.shape == (3, 6, 8, 3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"height": 0}, "height"),
        ({"width": -4}, "width"),
        ({"height": 12.5}, "height"),
        ({"train_size": 0}, "train_size"),
        ({"verify": 1}, "verify"),
    ],
)
def test_impossible_parameters_are_refused(drawn, params, message):
    with pytest.raises(data.DataError, match=message):
        data.load("camvid", "train", root=str(drawn), **{**FREE, **params})


def test_an_unregistered_file_and_a_wrong_checksum_stop_the_load(mirror, tmp_path, drawn):
    assert "registry" in error("train", root=str(drawn))
    copy = tmp_path / "copy" / "CamVid"
    for part in ("val.txt", "val", "valannot"):
        origin = mirror / "camvid" / "CamVid" / part
        if origin.is_dir():
            shutil.copytree(origin, copy / part)
        else:
            copy.mkdir(parents=True)
            shutil.copy(origin, copy / part)
    good = data.load("camvid", "val", root=str(copy), val_size=4, height=24, width=32)
    assert len(good) == 4
    first = sorted((copy / "valannot").iterdir())[0]
    mask = np.array(Image.open(first))
    mask[0, 0] = (mask[0, 0] + 1) % 11
    Image.fromarray(mask).save(first)
    message = error("val", root=str(copy), height=24, width=32)
    assert "wrong checksum" in message and first.name in message
    (copy / "val.txt").write_text((copy / "val.txt").read_text().replace("SegNet", "Other"))
    assert "val.txt" in error("val", root=str(copy), val_size=4, height=24, width=32)


def test_files_are_hashed_once_and_again_when_they_change(drawn, monkeypatch):
    hashed = []
    real = integrity.sha256_of
    monkeypatch.setattr(integrity, "sha256_of", lambda p: hashed.append(p.name) or real(p))
    data.load("camvid", "val", root=str(drawn), **FREE)
    assert len(hashed) == 5  # the list, two images, two masks
    data.load("camvid", "val", root=str(drawn), **FREE)
    assert len(hashed) == 5
    mask = drawn / "CamVid/valannot/0001TP_val000.png"
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(mask)
    again = data.load("camvid", "val", root=str(drawn), **FREE)
    assert hashed[5:] == ["0001TP_val000.png"] and not again.labels[0].any()


def test_a_damaged_stamp_file_or_cache_entry_is_made_anew(drawn):
    first = data.load("camvid", "val", root=str(drawn), **FREE)
    for stamp in (paths.cache_dir() / "stamps").iterdir():
        stamp.write_text("{ half")
    entry = next((paths.cache_dir() / "arrays").iterdir())
    (entry / "images.npy").write_bytes(b"")
    assert data.load("camvid", "val", root=str(drawn), **FREE).checksum == first.checksum


def test_the_registry_lists_original_and_mirror_compactly():
    folder = paths.registry_dir()
    sums = integrity.registered("camvid")
    assert len(sums) == 701 * 3 + 3
    for file in folder.glob("camvid*.sha256"):
        assert file.stat().st_size < 200_000
    with pytest.raises(data.DataError, match="line 2: expected"):
        integrity.parse_sums(f"{'0' * 64}  a\nnonsense\n", "x.sha256")

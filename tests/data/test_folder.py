"""A folder of one's own: every kind of file, every kind of mask, and everything that goes wrong."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import drawn
import numpy as np
import pytest
import yaml
from drawn import load
from PIL import Image

from lossatlas import data
from lossatlas.advise.facts import read_masks
from lossatlas.data import cli, paths
from lossatlas.data.checking import check_folder
from lossatlas.data.folder import split_of

RNG = np.random.default_rng(1)


draw = functools.partial(drawn.draw, names="abcd")


def error(root: Path, split: str = "train", **params) -> str:
    with pytest.raises(data.DataError) as caught:
        load(root, split, **params)
    message = str(caught.value)
    assert "\n" not in message and "expected" in message
    assert not list((paths.cache_dir() / "arrays").glob("*"))
    return message


# -- what works ----------------------------------------------------------------------------------


def test_a_folder_with_named_classes_is_loaded_by_its_lists(tmp_path):
    root = draw(tmp_path / "set", settings={"classes": ["sky", "tree", "car"]})
    train = load(root)
    assert train.ids == ["a", "b"] and train.classes == ("sky", "tree", "car")
    assert train.images.shape == (2, 8, 10, 3) and train.mode == "multiclass"
    assert np.array_equal(train.images[0], np.asarray(Image.open(root / "images" / "a.png")))
    assert np.array_equal(train.labels[1], np.asarray(Image.open(root / "masks" / "b.png")))
    assert load(root, "val").ids == ["c"] and load(root, "test").ids == ["d"]
    images, target = train.batch([0])
    expected = (train.images[0] / 255 - 0.5) / 0.25
    np.testing.assert_allclose(images[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert int(target.max()) == 2


def test_classes_are_inferred_and_printed(tmp_path, capsys):
    root = draw(tmp_path / "set", values=(0, 1, 3, 255))
    train = load(root)
    assert train.classes == ("background", "class_1", "class_2", "class_3")
    assert train.ignore_index == 255
    assert "class_3; void: 255" in capsys.readouterr().err
    two = load(draw(tmp_path / "two", values=(0, 1)))
    assert (two.mode, two.out_channels, two.ignore_index) == ("binary", 1, None)


@pytest.mark.parametrize(
    "suffix", [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".npy", ".PNG"]
)
def test_every_kind_of_image_file_is_read(tmp_path, suffix):
    root = draw(tmp_path / "set")
    flat = np.full((8, 10, 3), 200, np.uint8)
    (root / "images" / "a.png").unlink()
    path = root / "images" / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, flat)
    else:
        Image.fromarray(flat).save(path)
    assert abs(load(root).images[0].astype(int) - 200).max() <= 1


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".npy", ".webp"])
def test_every_lossless_kind_of_mask_file_is_read(tmp_path, suffix):
    settings = {"classes": ["x", "y"], "palette": {"x": [0, 0, 0], "y": [255, 255, 255]}}
    root = draw(tmp_path / "set", values=(0, 255), settings=settings)
    (root / "masks" / "a.png").unlink()
    mask = np.zeros((8, 10), np.uint8)
    mask[2] = 255
    if suffix == ".npy":
        np.save(root / "masks" / "a.npy", mask)
    else:
        options = {"lossless": True} if suffix == ".webp" else {}
        Image.fromarray(mask).save(root / "masks" / f"a{suffix}", **options)
    assert (load(root).labels[0] == 1).sum() == 10


def test_grey_and_multi_channel_images_are_read(tmp_path):
    grey = draw(tmp_path / "grey")
    for path in (grey / "images").iterdir():
        Image.open(path).convert("L").save(path)
    assert load(grey).in_channels == 1
    many = draw(tmp_path / "many")
    for path in (many / "images").iterdir():
        np.save(path.with_suffix(".npy"), RNG.integers(0, 256, (8, 10, 7), np.uint8))
        path.unlink()
    train = load(many, height=4, width=5)
    assert train.images.shape == (2, 4, 5, 7)
    assert train.batch([0, 1])[0].shape == (2, 7, 4, 5)


def test_images_of_16_bits_are_scaled_by_the_range_of_the_training_images(tmp_path):
    root = draw(tmp_path / "deep")
    levels = {"a": 1000, "b": 3000, "c": 2000, "d": 60000}
    for name, level in levels.items():
        Image.fromarray(np.full((8, 10), level, np.uint16)).save(root / "images" / f"{name}.png")
    assert [int(i.max()) for i in load(root).images] == [0, 255]
    assert int(load(root, "val").images.max()) == 128
    assert int(load(root, "test").images.max()) == 255  # clipped: brighter than any in training
    (root / "classes.yaml").write_text("intensity: [0, 65535]")
    assert [int(i.max()) for i in load(root).images] == [4, 12]
    assert int(load(root, "test").images.max()) == 233


def test_colour_coded_masks_are_read_by_their_palette(tmp_path):
    settings = {
        "classes": ["road", "car"],
        "palette": {"road": [128, 64, 128], "car": [0, 0, 142], "void": [0, 0, 0]},
    }
    root = draw(tmp_path / "colour", settings=settings)
    colours = np.array([[128, 64, 128], [0, 0, 142], [0, 0, 0]], np.uint8)
    index = RNG.integers(0, 3, (8, 10))
    for name in "abcd":
        Image.fromarray(colours[index]).save(root / "masks" / f"{name}.png")
    train = load(root)
    assert train.ignore_index == 255 and train.mode == "binary"
    assert np.array_equal(train.labels[0], np.array([0, 1, 255])[index])
    del settings["classes"]  # the palette's order is that of the classes
    (root / "classes.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    alone = load(root)
    assert alone.classes == ("road", "car") and alone.ignore_index == 255
    assert np.array_equal(alone.labels, train.labels)
    assert not any(finding.severity == "error" for finding in check_folder(root))
    odd = colours[index]
    odd[0, :3] = (1, 2, 3)
    Image.fromarray(odd).save(root / "masks" / "b.png")
    with pytest.raises(data.DataError, match=r"got \[1, 2, 3\] \(3 px\)"):
        load(root)


def test_splits_are_dealt_out_by_seed_and_stay_when_images_are_added(tmp_path):
    names = tuple(f"image {i}" for i in range(60))
    root = draw(tmp_path / "set", names=names, splits={})
    first = {s: load(root, s).ids for s in ("train", "val", "test")}
    assert sorted(name for ids in first.values() for name in ids) == sorted(names)
    assert 30 < len(first["train"]) < 54 and min(map(len, first.values())) > 2
    assert load(root, seed=1).ids != first["train"]
    assert all(split_of(n, 0) == s for s, ids in first.items() for n in ids)


def test_subfolders_that_are_named_so_are_the_splits(tmp_path):
    names = ["Training/a", "Training/b", "valid/c", "test/d", "test/e"]
    root = draw(tmp_path / "set", names=names, splits={})
    found = {split: load(root, split).ids for split in data.dataset.SPLITS}
    assert found == {"train": names[:2], "val": names[2:3], "test": names[3:]}
    assert check_folder(root) == [] or all(f.severity != "error" for f in check_folder(root))


@pytest.mark.parametrize("names", [["train/a", "val/b", "test/c", "d"], ["train/a", "test/b"]])
def test_a_folder_of_a_split_without_the_others_is_refused(tmp_path, names):
    message = error(draw(tmp_path / "set", names=names, splits={}))
    assert "folder of train, val or test" in message and "write train.txt" in message


def test_a_subfolder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    root = draw(tmp_path / "set", names=["day1/a", "day2/b"], splits={})
    listed = os.scandir

    def refuse(path):
        if str(path).endswith("day2"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "day2: expected a folder that can be read" in error(root)


def test_keys_of_a_value_map_may_be_text_as_in_json(tmp_path):
    root = draw(tmp_path / "set", values=(0, 7))
    (root / "classes.yaml").write_text('{"values": {"0": "background", "7": "thing"}}')
    assert set(np.unique(load(root).labels)) == {0, 1}


@pytest.mark.parametrize("side", [0, 20_000])
def test_a_side_that_loading_refuses_is_refused_by_the_check_too(tmp_path, side):
    root = draw(tmp_path / "set")
    for look in (load, check_folder):
        with pytest.raises(data.DataError, match="height: expected an integer from 1 to 16384"):
            look(root, height=side)


def test_a_void_label_that_is_a_named_class_is_warned_of(tmp_path):
    root = draw(
        tmp_path / "set", values=(0, 1), settings={"classes": ["bg", "thing"], "ignore_index": 1}
    )
    warned = [finding.what for finding in check_folder(root) if finding.severity == "warning"]
    assert any("void label 1 is the class 'thing'" in what for what in warned)


def test_a_picture_of_too_many_pixels_is_no_damaged_one(tmp_path, monkeypatch):
    root = draw(tmp_path / "set")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    message = error(root)
    assert "at most 40 pixels" in message and "damaged" not in message


@pytest.mark.parametrize("more", [{}, {"values": {0: "background", 1: "thing", 3: "void"}}])
def test_two_void_labels_are_refused_where_they_differ(tmp_path, more):
    root = draw(tmp_path / "set", {"ignore_index": 2, **more}, values=(0, 1, 3 if more else 2))
    for said in (error(root, ignore_index=1), str(check_folder(root, ignore_index=1)[0])):
        assert "expected one ignore_index, got 1 in the call and 2 in classes.yaml" in said
    assert load(root, ignore_index=2).ignore_index == load(root).ignore_index == 2


def test_a_void_label_between_the_classes_is_no_gap(tmp_path):
    assert load(draw(tmp_path / "set"), ignore_index=1).ignore_index == 1


@pytest.mark.parametrize(("root", "said"), [(2024, "got 2024; quote it"), ("", "write '.'")])
def test_a_root_that_is_no_name_is_refused(root, said):
    for look in (lambda: data.load("folder", "train", root=root), lambda: check_folder(root)):
        with pytest.raises(data.DataError, match=f"root: expected .*{said}"):
            look()


@pytest.mark.parametrize("root", [5, 5.5, ["a"], {"a": 1}, b"/tmp", True, "", "x" * 5000])
@pytest.mark.parametrize("name", [name for name in data.names() if name != "digits"])
def test_a_root_that_is_no_name_is_one_clear_line_for_every_set(name, root):
    for look in (data.is_available, lambda *_, **p: data.load(name, "train", **p)):
        with pytest.raises(data.DataError, match=r"^root: expected") as caught:
            look(name, root=root)
        assert len(str(caught.value)) < 200


def test_the_home_of_nobody_is_a_folder_that_is_not_there():
    for look in (lambda root: data.load("folder", "train", root=root), check_folder, read_masks):
        with pytest.raises(data.DataError, match="found none; correct root"):
            look("~nobody of this name/set")


def test_names_with_spaces_and_foreign_letters_work(tmp_path):
    names = ("ein Bild", "größe", "画像", "l'été 2")
    root = draw(tmp_path / "mein Ordner ñ", names=names)
    assert load(root).ids == ["ein Bild", "größe"]
    assert load(root, "val").ids == ["画像"]
    assert load(root, "test", height=4).images.shape == (1, 4, 5, 3)


def test_split_files_may_name_files_or_paths(tmp_path):
    splits = {"train": "a.png\nimages/b.png\n\n", "val": "c", "test": "d"}
    assert load(draw(tmp_path / "set", splits=splits)).ids == ["a", "b"]


def test_a_changed_setting_is_another_cache_entry(tmp_path):
    root = draw(tmp_path / "set", values=(0, 1), settings={"classes": ["x", "y"]})
    first = load(root).labels.copy()
    palette = {"x": [1, 1, 1], "y": [0, 0, 0]}
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": ["x", "y"], "palette": palette}))
    assert np.array_equal(load(root).labels, 1 - first)


# -- what is wrong -------------------------------------------------------------------------------


def test_missing_folders_and_no_images_are_named(tmp_path):
    assert "found none" in error(tmp_path / "nowhere")
    (tmp_path / "x" / "images").mkdir(parents=True)
    assert "no masks/" in error(tmp_path / "x")
    (tmp_path / "x" / "masks").mkdir()
    assert "got none of .png" in error(tmp_path / "x")
    with pytest.raises(data.DataError, match="expected root="):
        data.load("folder", "train")
    assert not data.is_available("folder", root=str(tmp_path / "nowhere"))
    assert data.is_available("folder", root=str(draw(tmp_path / "y")))


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("Images", "Masks"), "found no images/ but Images/, Masks/; put"),
        (("train/images", "val/images"), "found no images/ but train/, val/; put"),
        ((".git",), "found no images/; put the files there"),
    ],
)
def test_folders_of_other_names_are_said(tmp_path, folders, said):
    for folder in folders:
        (tmp_path / "set" / folder).mkdir(parents=True)
    assert said in error(tmp_path / "set")


def test_linked_folders_are_said_once_to_be_passed_over(tmp_path, capsys):
    root = draw(tmp_path / "set", settings={"classes": ["sky", "tree", "car"]})
    other = draw(tmp_path / "other")
    (root / "readme.md").write_text("x")
    for part in ("images", "masks"):
        (root / part / "more").symlink_to(other / part)
    load(root)
    load(root, "val")
    said = f"{root}: passed over, no image or mask that is read: "
    assert capsys.readouterr().err == f"{said}images/more, masks/more, readme.md\n"


def test_pairs_that_do_not_match_are_named(tmp_path):
    root = draw(tmp_path / "set")
    (root / "masks" / "b.png").unlink()
    assert "a mask for each image" in error(root) and "(b)" in error(root)
    (root / "masks" / "b.png").write_bytes((root / "masks" / "a.png").read_bytes())
    (root / "images" / "a.png").unlink()
    assert "an image for each mask" in error(root)
    other = draw(tmp_path / "double")
    Image.open(other / "images" / "a.png").save(other / "images" / "a.bmp")
    assert "one file a stem" in error(other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a", "expected YAML"),
        ("- a\n- a", "different names"),
        ("classes: [a]", "two or more"),
        ("clases: [a, b]", "did you mean classes"),
        ("3", "expected keys"),
        ("palette: {a: [0, 0, 0], void: [1, 1, 1]}", "palette to name 2 to 255 classes"),
        ("classes: [a, b]\npalette: {a: [0, 0, 0], c: [1, 1, 1]}", "got 'c'"),
        ("classes: [a, b]\npalette: {a: [0, 0, 0], b: [1, 1, 999]}", "three integers"),
        ("classes: [a, b]\npalette: {a: [0, 0, 0], b: [0, 0, 0]}", "one twice"),
        ("classes: [a, b]\npalette: {a: [0, 0, 0]}", "got none for 'b'"),
        ("classes: [a, b, c]\nmean: [0.5]", "mean of 3 channels"),
        ("std: [0, 1, 1]", "std to be a list"),
        ("intensity: [5, 5]", r"intensity as [low, high]"),
        ("mean: [123.7, 116.3, 103.5]", "mean on the scale 0…1"),
        ("mean: [-0.1, 0, 0]", "mean on the scale 0…1"),
        ("std: [58.4, 57.1, 57.4]", "divide by 255"),
        ("values: {1: thing, 0: Background, 2: thing}", "write background first"),
        ("classes: [Background, background, b]", "different names"),
        ("classes: [a, Void, b]", "expected classes without 'void'"),
        ("palette: {a: [0, 0, 0], void: [1, 1, 1], Void: [2, 2, 2]}", "each name once"),
        ("palette: {thing: [255, 0, 0], background: [0, 0, 0]}", "write background first"),
        ("classes: [a, background, b]", "class 0 to be the background"),
        ("classes: [a, void, b]", "expected classes without 'void'"),
    ],
)
def test_a_faulty_classes_file_is_one_clear_line(tmp_path, text, message):
    root = draw(tmp_path / "set")
    (root / "classes.yaml").write_text(text)
    assert message in error(root)


def test_a_yaml_file_cannot_run_code(tmp_path):
    root = draw(tmp_path / "set")
    flag = tmp_path / "ran"
    (root / "classes.yaml").write_text(f"classes: !!python/object/apply:os.mkdir ['{flag}']")
    assert "expected YAML" in error(root)
    assert not flag.exists()


def test_a_pickled_array_is_refused(tmp_path):
    root = draw(tmp_path / "set")
    (root / "images" / "a.png").unlink()
    np.save(root / "images" / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    assert "expected a NumPy array of numbers" in error(root)


def test_masks_of_other_kinds_are_named(tmp_path):
    names = {"classes": ["a", "b", "c"]}
    root = draw(tmp_path / "stray", values=(0, 1, 9), settings=names)
    assert "expected mask values 0…2, got 9" in error(root)
    rgb = draw(tmp_path / "rgb", settings=names)
    colours = RNG.integers(0, 256, (8, 10, 3), np.uint8)
    Image.fromarray(colours).save(rgb / "masks" / "b.png")
    assert "one channel" in error(rgb) and "palette" in error(rgb)
    ambiguous = draw(tmp_path / "black and white", values=(0, 255))
    assert "0 and 255 alone" in error(ambiguous)
    fractions = draw(tmp_path / "soft", settings=names)
    (fractions / "masks" / "a.png").unlink()
    np.save(fractions / "masks" / "a.npy", np.full((8, 10), 0.5))
    assert "got fractions" in error(fractions)


def test_split_lists_that_overlap_or_name_nothing_are_named(tmp_path):
    both = draw(tmp_path / "both", splits={"train": "a\nb", "val": "b\nc", "test": "d"})
    assert "in one split, got b" in error(both)
    none = draw(tmp_path / "none", splits={"train": "a\nzebra", "val": "c", "test": "d"})
    assert "zebra" in error(none)
    less = draw(tmp_path / "less", splits={"train": "a", "val": "b"})
    assert "test.txt" in error(less, "test")


def test_a_truncated_image_and_channels_that_differ_are_named(tmp_path):
    root = draw(tmp_path / "set", settings={"classes": ["a", "b", "c"]})
    Image.open(root / "images" / "b.png").convert("L").save(root / "images" / "b.png")
    assert "expected 3 channels" in error(root)
    path = root / "images" / "b.png"
    path.write_bytes(path.read_bytes()[:60])
    assert "truncated" in error(root)


# -- check ---------------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    return cli.data.main(["check", *arguments], standalone_mode=False) or 0


def test_check_finds_nothing_in_a_sound_folder(tmp_path, capsys):
    root = draw(tmp_path / "set", settings={"classes": ["a", "b", "c"]})
    assert check_folder(root) == []
    assert run(str(root)) == 0
    assert "0 kinds of error" in capsys.readouterr().out


def test_check_reports_everything_that_is_wrong_at_once(tmp_path, capsys):
    names = tuple("abcdefghij")
    settings = {"classes": ["x", "y", "z"], "ignore_index": 255}
    splits = {"train": "a\nb\nc\nd\ne", "val": "f\ng\ni", "test": "h\ni\nnobody"}
    root = draw(tmp_path / "set", names=names, settings=settings, splits=splits)
    images, masks = root / "images", root / "masks"
    (masks / "b.png").unlink()  # image without mask
    (images / "c.png").unlink()  # mask without image
    Image.open(images / "d.png").resize((4, 4)).save(images / "d.png")  # another size
    (images / "e.png").write_bytes((images / "e.png").read_bytes()[:80])  # truncated
    stray = np.zeros((8, 10), np.uint8)
    stray[0, 0] = 77
    Image.fromarray(stray).save(masks / "f.png")
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(masks / "g.png")  # empty
    (images / "h.png").write_bytes((images / "a.png").read_bytes())  # duplicate across splits
    Image.open(images / "i.png").convert("L").save(images / "i.png")  # other channels
    Image.fromarray(np.full((8, 10), 255, np.uint8)).save(masks / "j.png")  # void alone
    found = check_folder(root)
    expected = [
        ("error", "expected a mask for each image", ["images/b.png"]),
        ("error", "expected an image for each mask", ["masks/c.png"]),
        ("error", "image and mask of different size", ["d"]),
        ("error", "expected a whole image", ["images/e.png"]),
        ("error", "expected mask values 0…2 or void 255, got 77 (1 px)", ["masks/f.png"]),
        ("note", "empty mask (background alone)", ["masks/g.png"]),
        (
            "warning",
            "the same picture in two splits",
            ["images/a.png [train] = images/h.png [test]"],
        ),
        ("error", "expected 3 channels as the first image has, got 1", ["images/i.png"]),
        ("note", "mask of void alone", ["masks/j.png"]),
        ("error", "expected an image in one split, got i in val.txt and test.txt", ["i"]),
        ("error", "expected an image in one split, got i in test.txt and val.txt", ["i"]),
        ("error", "expected the names of train.txt", ["c"]),
        ("error", "expected the names of test.txt", ["nobody"]),
        ("note", "image in no split file", ["images/j.png"]),
    ]
    for severity, what, names in expected:
        same = [f.names for f in found if f.severity == severity and f.what.startswith(what)]
        assert same == [names], what
    assert len(found) == len(expected)
    assert run(str(root)) == 1
    assert "(images/b.png)" in capsys.readouterr().out
    assert run(str(root), "--json") == 1
    assert len(json.loads(capsys.readouterr().out)) == len(found)


def test_check_of_faulty_or_missing_folders_is_one_clear_line(tmp_path):
    with pytest.raises(data.DataError, match="expected a folder"):
        check_folder(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    (empty / "images").mkdir(parents=True)
    (empty / "masks").mkdir()
    assert [f.what for f in check_folder(empty) if "pair" in f.what]


def test_check_suspects_values_that_are_no_class_indices(tmp_path):
    root = draw(tmp_path / "set", values=(0, 255))
    findings = check_folder(root)
    [told] = [f.what for f in findings if f.severity == "error"]
    assert "values 0 and 255 alone" in told and "values: {0: background, 255: thing}" in told
    assert not any("255 alone" in f.what for f in check_folder(root, ignore_index=255))
    for name in "ab":  # from another tool, which stores the object as 1
        Image.fromarray(np.eye(8, 10, dtype=np.uint8)).save(root / "masks" / f"{name}.png")
    for said in (error(root), "".join(f.what for f in check_folder(root))):
        assert "some masks store the object as 1, others as 255? say which" in said
    assert load(root, ignore_index=255).classes == ("background", "class_1")
    (root / "classes.yaml").write_text("values: {0: background, 1: thing, 255: thing}")
    assert load(root, "val").labels.max() == load(root).labels.max() == 1
    wild = draw(tmp_path / "wild", values=(0, 130, 200))
    assert any("got values from 0 to 200" in f.what for f in check_folder(wild))


def test_background_and_void_in_capitals_are_what_they_say(tmp_path):
    values = {0: "BACKGROUND", 1: "thing", 2: "Void "}
    train = load(draw(tmp_path / "values", settings={"values": values}))
    assert train.classes == ("background", "thing") and train.ignore_index == 255
    assert (train.labels == 255).any() and train.labels.min() == 0
    palette = {"Background": [0, 0, 0], "thing": [1, 1, 1], "VOID": [2, 2, 2]}
    coloured = load(draw(tmp_path / "palette", settings={"palette": palette}))
    assert coloured.classes == ("background", "thing") and (coloured.labels == 255).any()
    listed = draw(tmp_path / "listed", settings={"classes": ["Background", "a", "b"]})
    assert load(listed).classes[0] == "background"


@pytest.mark.parametrize("name", ["ignore", "Unlabeled", "unlabelled", "Don't care"])
def test_a_class_whose_name_says_that_it_has_no_label_is_warned_of(tmp_path, name):
    for number, names in enumerate(([name, "a", "b"], ["a", "b", name])):
        root = draw(tmp_path / str(number), settings={"classes": names})
        [told] = [f for f in check_folder(root) if "call it void" in f.what]
        assert (told.severity, told.names) == ("warning", [name])
        void = names.index(name)
        assert not any("call it void" in f.what for f in check_folder(root, ignore_index=void))


def test_a_background_of_another_name_is_noted_as_it_counts_in_means(tmp_path):
    root = draw(tmp_path / "set", values=(0, 1), settings={"classes": ["bg", "thing"]})
    [told] = [f for f in check_folder(root) if "not called background" in f.what]
    assert (told.severity, told.names) == ("note", ["bg"])


def test_masks_of_16_bits_are_told_how_to_say_what_their_values_mean_once(tmp_path):
    root = draw(tmp_path / "set", values=(0, 1))
    for number, path in enumerate(sorted((root / "masks").iterdir())):
        objects = np.asarray(Image.open(path)).astype(np.uint16) * np.uint16(1000 + number)
        Image.fromarray(objects).save(path)
    assert "as 'values: {0: background, 1003: thing}' with void" in error(root)
    assert [f.what for f in check_folder(root) if f.severity == "error"] == [
        error(root).removeprefix("folder: ")
    ]
    (root / "classes.yaml").write_text("values: {0: background, 1: thing}")
    [told] = [f for f in check_folder(root) if "got 1002" in f.what]
    assert "got 1002 (" in told.what and told.names == ["masks/c.png"]


def test_files_with_one_thing_wrong_are_one_finding_whatever_number_of_pixels_has_it(tmp_path):
    root = draw(tmp_path / "set", settings={"classes": ["a", "b", "c"]})
    for count, path in enumerate(sorted((root / "masks").iterdir()), start=1):
        mask = np.zeros((8, 10), np.uint8)
        mask[0, :count] = 9
        Image.fromarray(mask).save(path)
    [told] = [f for f in check_folder(root) if f.severity == "error"]
    assert "got 9 (some px)" in told.what and len(told.names) == 4


def test_the_readme_lists_every_key_of_classes_yaml_and_every_suffix():
    from pathlib import Path

    from lossatlas.data.folder import SUFFIXES
    from lossatlas.data.settings import KEYS

    readme = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Your own folder")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = {key.strip(" `") for row in rows for key in row.split(",")}
    assert listed == set(KEYS)
    assert all(suffix[1:] in section for suffix in SUFFIXES)


def test_a_name_below_another_folder_says_how_to_write_it(tmp_path):
    splits = {"train": "a.png\nJPEGImages/b.png", "val": "c", "test": "Images/d.png"}
    root = draw(tmp_path / "set", splits=splits)
    assert "write the names as they lie there, as b" in error(root)
    (root / "train.txt").write_text("a.png\nb.png")
    assert load(root, "test").ids == ["d"]

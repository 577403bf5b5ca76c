"""What people's files really hold: each kind converted where it is clear, else refused by name."""

from __future__ import annotations

import gc
import json
import re
import sys
import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import yaml
from drawn import draw, load, loads, notes, passes, rename, unlist
from PIL import Image, features

from lossatlas import data
from lossatlas.data import settings
from lossatlas.data.checking import check_folder
from lossatlas.data.reading import header, read_image, read_mask

COLOURS = np.random.default_rng(3).integers(0, 256, (6, 9, 3), np.uint8)
DEEP = np.random.default_rng(4).integers(0, 65536, (6, 9, 3), np.uint16)


def oriented(path: Path, array: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(
        path, exif=exif, **({"lossless": True} if ".webp" in path.name else {})
    )
    return path


# The EXIF standard's table, by hand: which corner of the stored array is the top left one.
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", sorted(SHOWN))
def test_images_and_masks_are_turned_as_their_exif_orientation_says(tmp_path, orientation, suffix):
    shown = SHOWN[orientation]
    path = oriented(tmp_path / f"image{suffix}", COLOURS, orientation)
    image = read_image(path)
    assert np.array_equal(image.array, shown(COLOURS))
    assert any("EXIF" in note for note in image.notes) == (orientation != 1)
    if suffix != ".webp":
        grey = COLOURS[..., 0]
        mask = read_mask(oriented(tmp_path / f"mask{suffix}", grey, orientation))
        assert np.array_equal(mask.array, shown(grey))


def test_a_palette_image_is_read_as_its_colours_and_a_palette_mask_as_its_indices(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.fromarray(indices, "P")
    picture.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 250])
    for suffix in (".png", ".gif", ".tif"):
        path = tmp_path / f"p{suffix}"
        picture.save(path)
        expected = np.array([[10, 20, 30], [200, 0, 0], [0, 0, 250]])[indices]
        assert np.array_equal(read_image(path).array, expected)
        assert np.array_equal(read_mask(path, colours=True).array, expected)
        assert np.array_equal(read_mask(path).array, indices)


@pytest.mark.parametrize("kind", ["png", "contig", "separate", "lzw", "zlib"])
def test_colour_of_16_bits_keeps_every_level(tmp_path, kind):
    path = tmp_path / ("deep.png" if kind == "png" else "deep.tif")
    if kind == "png":
        path.write_bytes(imagecodecs.png_encode(DEEP))
    elif kind == "separate":
        tifffile.imwrite(path, np.moveaxis(DEEP, -1, 0), photometric="rgb", planarconfig=kind)
    else:
        tifffile.imwrite(
            path, DEEP, photometric="rgb", compression=None if kind == "contig" else kind
        )
    assert np.array_equal(read_image(path).array, DEEP)


def test_a_tiff_of_many_channels_or_of_float64_keeps_them(tmp_path):
    many = np.random.default_rng(0).integers(0, 256, (6, 9, 7), np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", many, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(read_image(tmp_path / "m.tif").array, many)
    fine = np.full((6, 9), 1 + 1e-12)
    tifffile.imwrite(tmp_path / "f.tif", fine)
    assert np.array_equal(read_image(tmp_path / "f.tif").array[..., 0], fine)


def test_cmyk_is_converted_to_rgb(tmp_path):
    path = tmp_path / "print.tif"
    Image.new("CMYK", (4, 3), (0, 255, 255, 0)).save(path)
    read = read_image(path)
    assert read.array.shape == (3, 4, 3) and read.array[0, 0].tolist() == [255, 0, 0]
    assert any("CMYK" in note for note in read.notes)


def test_grey_masks_of_few_bits_give_the_stored_values(tmp_path):
    indices = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
    # Two bits a pixel, grey: Pillow stretches 0…3 to 0, 85, 170, 255.
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    rows = b"".join(
        b"\0" + bytes([r[0] << 6 | r[1] << 4 | r[2] << 2 | r[3]]) for r in indices.tolist()
    )
    header = struct.pack(">IIBBBBB", 4, 2, 2, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "two.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert np.array_equal(read_mask(tmp_path / "two.png").array, indices)
    assert read_image(tmp_path / "two.png").array.max() == 255
    one = tmp_path / "one.png"
    Image.fromarray(indices > 1).save(one)
    assert np.array_equal(read_mask(one).array, indices > 1)
    assert set(np.unique(read_mask(one, colours=True).array)) == {0, 255}
    assert set(np.unique(read_image(one).array)) == {0, 255}


def test_opacity_is_left_out_where_it_is_full_and_refused_where_it_is_not(tmp_path):
    full = np.dstack([COLOURS, np.full((6, 9), 255, np.uint8)])
    Image.fromarray(full).save(tmp_path / "full.png")
    assert np.array_equal(read_image(tmp_path / "full.png").array, COLOURS)
    full[0, 0, 3] = 9
    Image.fromarray(full).save(tmp_path / "part.png")
    with pytest.raises(data.DataError, match=r"expected an opaque picture, got 1 px"):
        read_image(tmp_path / "part.png")


def test_frames_pages_and_unknown_colours_are_refused_by_name(tmp_path):
    pictures = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    for name, what in (("a.gif", "2 frames"), ("a.tif", "2 pages"), ("a.png", "2 frames")):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
        with pytest.raises(data.DataError, match=what):
            read_image(tmp_path / name)
    Image.new("LAB", (4, 3)).save(tmp_path / "lab.tif")
    with pytest.raises(data.DataError, match="colour mode LAB"):
        read_image(tmp_path / "lab.tif")
    tifffile.imwrite(tmp_path / "white.tif", COLOURS[..., 0], photometric="miniswhite")
    with pytest.raises(data.DataError, match="0 is white"):
        read_mask(tmp_path / "white.tif")
    np.save(tmp_path / "first.npy", np.zeros((3, 20, 30), np.uint8))
    with pytest.raises(data.DataError, match="channels last"):
        read_image(tmp_path / "first.npy")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    for value in (np.nan, np.inf):
        array = np.zeros((6, 9), np.float32)
        array[1, 2] = value
        tifffile.imwrite(tmp_path / "f.tif", array)
        with pytest.raises(data.DataError, match="expected finite numbers, got 1"):
            read_image(tmp_path / "f.tif")
        with pytest.raises(data.DataError, match="NaN or infinity"):
            read_mask(tmp_path / "f.tif")


# -- folders -------------------------------------------------------------------------------------


THREE = {"classes": ["a", "b", "c"]}


def test_a_photograph_on_its_side_lies_over_its_mask(tmp_path):
    root = draw(tmp_path / "set", {"classes": ["a", "b"]}, values=(0, 1))
    shown = np.zeros((8, 8), np.uint8)
    shown[1:3, 1:5] = 255
    stored = np.rot90(shown)  # orientation 6 turns it back, clockwise
    oriented(root / "images" / "n0.png", np.dstack([stored] * 3), 6)
    Image.fromarray((shown > 0).astype(np.uint8)).save(root / "masks" / "n0.png")
    train = load(root, height=8, width=8)
    assert ((train.images[0, ..., 0] > 0) == (train.labels[0] == 1)).all()
    assert "EXIF orientation" in notes(root)


def test_the_check_says_when_a_mask_fits_the_image_before_its_orientation(tmp_path):
    root = draw(tmp_path / "set", THREE)
    oriented(root / "images" / "n0.png", np.zeros((8, 10, 3), np.uint8), 6)
    assert "before its EXIF orientation is applied" in notes(root)
    assert "of one size" in loads(root) or "several" in loads(root)


def test_subfolders_are_read_on_both_sides(tmp_path):
    root = draw(tmp_path / "set", THREE)
    rename(root, {"n0": "day 2/n0"})
    (root / "train.txt").write_text("images/day 2/n0.png\nn1\nn2\nn3")
    assert load(root).ids[0] == "day 2/n0" and passes(root)


def test_values_name_what_masks_store(tmp_path):
    root = draw(tmp_path / "set", {"values": {0: "background", 255: "thing"}})
    for path in (root / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 2 * 255).save(path)
    train = load(root)
    assert train.classes == ("background", "thing") and set(np.unique(train.labels)) == {0, 1}
    stray = np.full((8, 10), 7, np.uint8)
    Image.fromarray(stray).save(root / "masks" / "n1.png")
    assert "got 7 (80 px)" in loads(root) and not passes(root)


def test_a_pattern_names_the_masks_and_is_proposed_where_it_is_missing(tmp_path):
    root = draw(tmp_path / "set", THREE)
    for path in list((root / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    assert "write masks: '{stem}_mask.png' into classes.yaml, which pairs 6" in loads(root)
    (root / "classes.yaml").write_text(yaml.safe_dump({**THREE, "masks": "{stem}_mask.png"}))
    assert loads(root) == "" and passes(root)


def test_names_that_only_look_alike_are_said_and_accents_are_the_same(tmp_path):
    root = draw(tmp_path / "set", THREE)
    (root / "masks" / "n0.png").rename(root / "masks" / "N0.png")
    assert "only look alike, as 'n0' and 'N0'" in loads(root)
    (root / "masks" / "N0.png").rename(root / "masks" / "e\u0301.png")
    (root / "images" / "n0.png").rename(root / "images" / "\u00e9.png")
    (root / "train.txt").write_text("e\u0301\nn1\nn2\nn3", encoding="utf-8")
    assert loads(root) == "" and passes(root)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("p1", "p01"),  # leading zeros
        ("p1", "\u04401"),  # a Cyrillic letter
        ("nova", "\u00f1ova"),
        ("a-1", "A_\u200b1"),  # a blank of no width
    ],
)
def test_two_names_that_a_reader_takes_for_one_are_said_to_look_alike(tmp_path, image, mask):
    root = draw(tmp_path / "set", THREE)
    (root / "images" / "n0.png").rename(root / "images" / f"{image}.png")
    (root / "masks" / "n0.png").rename(root / "masks" / f"{mask}.png")
    said = loads(root)
    assert f"1 only look alike, as {image!r} and {mask!r}" in said and not passes(root)
    assert mask.isascii() or ascii(mask) in said


@pytest.mark.parametrize(("image", "mask"), [("n100", "n10"), ("n1.05", "n1.5")])
def test_numbers_that_differ_do_not_look_alike(tmp_path, image, mask):
    root = draw(tmp_path / "set", THREE)
    (root / "masks" / "n0.png").rename(root / "masks" / f"{mask}.png")
    (root / "images" / "n0.png").rename(root / "images" / f"{image}.png")
    assert "look alike" not in loads(root) and loads(root) != ""


def test_junk_of_operating_systems_is_passed_over_and_noted(tmp_path):
    root = draw(tmp_path / "set", THREE)
    for name in ("._n0.png", ".DS_Store", "Thumbs.db"):
        (root / "images" / name).write_bytes(b"\0\5")
    (root / "images" / "readme.txt").write_text("x")
    assert loads(root) == "" and passes(root)
    assert "operating system or hidden, not read: 3" in notes(root)
    assert "entry that is not read: no known suffix, or a link: 1 (images/readme.txt)" in notes(
        root
    )


def test_a_jpeg_mask_is_said_to_be_a_jpeg_whatever_its_suffix(tmp_path):
    root = draw(tmp_path / "set", THREE)
    array = np.asarray(Image.open(root / "masks" / "n0.png")) * 100
    for name in ("n0.jpg", "n0.png"):
        (root / "masks" / "n0.png").unlink()
        with (root / "masks" / name).open("wb") as file:
            Image.fromarray(array).save(file, "JPEG")
        assert "expected a lossless mask, got a JPEG" in loads(root) and not passes(root)
        (root / "masks" / name).rename(root / "masks" / "n0.png")


@pytest.mark.parametrize(
    ("suffix", "options", "said"),
    [
        (".webp", {"quality": 80}, "a lossy WebP"),
        (".webp", {"icc_profile": b"odd"}, "a lossy WebP"),  # the long form of the file
        (".webp", {"icc_profile": b"odd", "lossless": True}, ""),
        (".tif", {"compression": "jpeg"}, "a TIFF compressed as JPEG"),
        (".tif", {"compression": "tiff_lzw"}, ""),
        (".jpg", {}, "a JPEG"),
    ],
)
def test_a_mask_of_lossy_compression_is_refused_unless_its_values_are_declared(
    tmp_path, suffix, options, said
):
    root = draw(tmp_path / "set", THREE)
    for path in list((root / "masks").iterdir()):
        picture = Image.fromarray(np.asarray(Image.open(path)) * 0)  # which survives
        picture.save(path.with_suffix(suffix), **options)
        path.unlink()
    assert header(root / "masks" / f"n0{suffix}").lossy == said
    if said:
        assert f"expected a lossless mask, got {said}" in loads(root) and not passes(root)
        (root / "classes.yaml").write_text("values: {0: background, 1: thing}")
        assert f"mask is {said}, whose compression can move edges" in notes(root)
    assert loads(root) == "" and passes(root)


@pytest.mark.parametrize(
    ("compression", "said"),
    [("jpeg2000", "JPEG 2000"), ("jpegxl", "JPEG XL"), ("jpegxr", "JPEG XR"), ("lerc", "LERC")],
)
def test_a_tiff_of_lossy_compression_is_refused_where_pillow_does_not_know_it(
    tmp_path, compression, said
):
    root = draw(tmp_path / "set", THREE)
    mask = np.zeros((64, 64), np.uint8)
    (root / "masks" / "n0.png").unlink()
    tifffile.imwrite(root / "masks" / "n0.tif", mask, compression=compression)
    wanted = f"expected a lossless mask, got a TIFF compressed as {said}, whose"
    assert wanted in loads(root) and wanted in notes(root)
    pages = np.zeros((2, 64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "p.tif", pages, compression=compression)
    with pytest.raises(data.DataError, match="got 2 pages"):
        read_mask(tmp_path / "p.tif")


def test_a_tiff_compressed_as_webp_is_read_and_as_a_mask_it_is_lossy(tmp_path, capfd):
    path = tmp_path / "w.tif"
    tifffile.imwrite(
        path, COLOURS, photometric="rgb", compression="webp", compressionargs={"lossless": True}
    )
    assert np.array_equal(read_image(path).array, COLOURS)
    assert header(path).lossy == "a TIFF compressed as WebP"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("form", "feature", "said"),
    [("JPEG2000", "jpg_2000", "a JPEG 2000"), ("AVIF", "avif", "an AVIF")],
)
def test_a_picture_of_a_lossy_format_under_another_name_is_named(tmp_path, form, feature, said):
    if not features.check(feature):
        pytest.skip(f"this Pillow writes no {form}")
    Image.fromarray(COLOURS).save(tmp_path / "m.png", form)
    assert header(tmp_path / "m.png").lossy == said


def test_palette_and_one_bit_masks_are_read_by_declared_colours(tmp_path):
    palette = {"a": [0, 0, 0], "b": [255, 255, 255]}
    root = draw(tmp_path / "set", {"classes": ["a", "b"], "palette": palette}, values=(0, 1))
    expected = []
    for i, path in enumerate(sorted((root / "masks").iterdir())):
        mask = np.asarray(Image.open(path))
        expected.append(mask)
        if i % 2:
            Image.fromarray(mask.astype(bool)).save(path)
        else:
            picture = Image.fromarray(1 - mask, "P")
            picture.putpalette([255, 255, 255, 0, 0, 0])
            picture.save(path, **({"transparency": 1} if i else {}))  # a viewer shows no background
    assert np.array_equal(load(root).labels, expected[:4]) and passes(root)


def test_settings_are_spelt_as_people_and_json_spell_them(tmp_path):
    root = draw(tmp_path / "set", values=(0, 1))
    (root / "classes.yaml").write_text("classes: [no, yes]\nmean: [5e-1, 1e-2, .5]\npalette: null")
    train = load(root)
    assert train.classes == ("no", "yes") and tuple(train.mean) == (0.5, 0.01, 0.5)
    for text in (
        "ignore_index: 300",
        "ignore_index: true",
        "std: [.inf, 1, 1]",
        "classes: [null, a]",
    ):
        (root / "classes.yaml").write_text(text)
        assert "expected" in loads(root) and not passes(root)
    assert settings.parse_yaml("[1e5, -2E-3, 1_0, yes]") == [1e5, -0.002, 10, "yes"]


# -- one reader, two callers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {f"masks/n{i}.png": np.tile(np.uint8([0, 255]), (8, 5)) for i in range(6)},
        {"masks/n0.png": np.resize(np.uint8([1, 255, 0]), (8, 10))},
        {
            "images/n0.png": np.zeros((9, 12, 3), np.uint8),
            "masks/n0.png": np.zeros((9, 12), np.uint8),
        },
        {"images/n0.npy": np.pad(np.float32([[[np.nan] * 3]]), ((2, 5), (2, 7), (0, 0)))},
        {"images/n1.png": np.zeros((8, 10, 3), np.uint16)},
    ],
    ids=["of a program", "0, 1, 255", "larger", "NaN", "16 bits among 8"],
)
def test_what_loading_refuses_the_check_refuses(tmp_path, files):
    root = draw(tmp_path / "set", THREE)
    assert passes(root) and loads(root) == ""
    for name, array in files.items():
        (root / name).with_suffix(".png").unlink()
        if name.endswith(".npy"):
            np.save(root / name, array)
        else:
            (root / name).write_bytes(imagecodecs.png_encode(array))
    assert loads(root) and not passes(root)


def test_an_array_whose_suffix_is_in_capitals_loads_and_passes(tmp_path):
    root = draw(tmp_path / "set", THREE)
    (root / "images" / "n0.png").unlink()
    np.save(root / "images" / "n0", np.zeros((8, 10, 3), np.uint8))
    (root / "images" / "n0.npy").rename(root / "images" / "n0.NPY")
    assert loads(root) == "" and passes(root)


def _mutate(root: Path, rng: np.random.Generator) -> None:
    """One change that a folder may have suffered."""
    part = str(rng.choice(["images", "masks"]))
    files = sorted(p for p in (root / part).rglob("*") if p.is_file())
    if not files:
        return
    path = files[rng.integers(len(files))]
    kind = int(rng.integers(14))
    array = rng.integers(0, 4, (8, 10), np.uint8)
    if kind == 0:
        path.write_bytes(path.read_bytes()[: int(rng.integers(200))])
    elif kind == 1:
        body = bytearray(path.read_bytes())
        if body:
            body[rng.integers(len(body))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(body))
    elif kind == 2:
        path.unlink()
    elif kind == 3:
        path.rename(
            path.with_name(str(rng.choice(["X.png", "n1 .png", "._n.png", "n0.PNG", "n2.gif"])))
        )
    elif kind == 4:
        Image.fromarray(array[:, : int(rng.integers(5, 11))]).save(path, "PNG")
    elif kind == 5:
        Image.fromarray(array).convert(str(rng.choice(["P", "RGB", "1", "RGBA", "LA"]))).save(
            path, "PNG"
        )
    elif kind == 6:
        Image.fromarray(array.astype(np.uint16) * 300).save(path, "PNG")
    elif kind == 7:
        path.unlink()
        values = rng.choice([0.0, 1.0, 0.5, np.nan], (8, 10), p=[0.6, 0.3, 0.05, 0.05])
        np.save(
            path.with_suffix(".npy"),
            values if rng.random() < 0.5 else np.rint(np.nan_to_num(values)),
        )
    elif kind == 8:
        Image.fromarray(array).save(path, "JPEG")
    elif kind == 9:
        oriented(root / part / f"{path.stem}.png", array, int(rng.integers(1, 9)))
    elif kind == 10:
        name = str(rng.choice(["train", "val", "test"]))
        (root / f"{name}.txt").write_text(
            str(rng.choice(["n0\nn1", "n5", "", "../n0", "n4\nn4", "$(x)"]))
        )
    elif kind == 11:
        lines = [
            "classes: [a, b]",
            "values: {0: a, 1: b, 2: b, 3: void}",
            "ignore_index: 2",
            "mean: [1]",
        ]
        lines += [
            "classes: [a, b, c, d]",
            "masks: '{stem}.png'",
            "",
            "classes: {",
            "std: [1, 1, 1]",
        ]
        (root / "classes.yaml").write_text(str(rng.choice(lines)))
    elif kind == 12:
        tifffile.imwrite(path.with_suffix(".png"), array)
    else:
        Image.fromarray(array).resize((20, 16)).save(path, "TIFF")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("start", range(3))
def test_a_mutated_folder_passes_the_check_exactly_when_it_loads(tmp_path, start, capsys):
    seen = {True: 0, False: 0}
    for number in range(90):
        rng = np.random.default_rng([start, number])
        root = draw(tmp_path / str(number), [THREE, None][number % 2])
        if rng.random() < 0.2:
            unlist(root)
        for _ in range(int(rng.integers(1, 4))):
            _mutate(root, rng)
        size = {"height": 8, "width": 10} if rng.random() < 0.5 else {}
        refusal = loads(root, **size)
        assert passes(root, **size) == (refusal == ""), (start, number, refusal, notes(root))
        seen[refusal == ""] += 1
    assert min(seen.values()) >= 5, seen


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.extended)])
def test_mutated_files_are_read_or_refused_by_name(tmp_path, count):
    originals = []
    for name, save in (
        ("a.png", lambda p: Image.fromarray(COLOURS).save(p)),
        ("a.jpg", lambda p: Image.fromarray(COLOURS).save(p)),
        ("a.tif", lambda p: Image.fromarray(COLOURS).save(p)),
        ("d.tif", lambda p: tifffile.imwrite(p, DEEP, photometric="rgb", compression="lzw")),
        ("d.png", lambda p: p.write_bytes(imagecodecs.png_encode(DEEP))),
        ("a.gif", lambda p: Image.fromarray(COLOURS).save(p)),
        ("a.bmp", lambda p: Image.fromarray(COLOURS).save(p)),
        ("a.webp", lambda p: Image.fromarray(COLOURS).save(p)),
        ("m.png", lambda p: Image.fromarray(COLOURS[..., 0] % 3).save(p)),
        ("a.npy", lambda p: np.save(p, COLOURS)),
    ):
        save(tmp_path / name)
        originals.append((name, (tmp_path / name).read_bytes()))
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for number in range(count):
        name, body = originals[number % len(originals)]
        damaged = bytearray(body)
        for _ in range(int(rng.integers(1, 6))):
            # Headers are short: half of the hits go there.
            high = min(64, len(damaged)) if rng.random() < 0.5 else len(damaged)
            damaged[rng.integers(high)] = int(rng.integers(256))
        if rng.random() < 0.2:
            del damaged[int(rng.integers(len(damaged))) :]
        path = tmp_path / f"damaged {name}"
        path.write_bytes(bytes(damaged))
        for read in (read_image, read_mask):
            try:
                assert read(path).array.size
                outcomes["read"] += 1
            except data.DataError as error:
                assert str(error).startswith(f"{path}: expected") and "\n" not in str(error)
                outcomes["refused"] += 1
    assert min(outcomes.values()) > count / 5, outcomes


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows forbids")
def test_names_are_names_whatever_they_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = draw(tmp_path / "set; touch ran", THREE)
    odd = ["$(touch ran)", "a\nb", "; touch ran", "`touch ran`", "..", "<b>&", "%s{stem}{0}"]
    for name in odd:
        for part in ("images", "masks"):
            body = (root / part / "n0.png").read_bytes()
            (root / part / f"x{name}.png").write_bytes(body)
    unlist(root)
    text = notes(root)
    assert "the same picture" in text and not (tmp_path / "ran").exists()
    (root / "masks" / "xa\nb.png").unlink()
    assert "\n" not in loads(root) and "a\\nb" in loads(root)
    (root / "train.txt").write_text("../../etc/passwd\n../set; touch ran/images/n0.png")
    assert not passes(root)


def test_the_check_of_a_large_folder_needs_memory_for_names_alone(tmp_path):
    peaks, counts = [], (100, 800)
    check_folder(draw(tmp_path / "first", THREE))  # what is loaded once is no cost of a pair
    for count in counts:
        root = draw(tmp_path / str(count), THREE, count=count, size=(64, 64))
        gc.collect()
        tracemalloc.start()
        assert passes(root)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # An image has 12 KiB; a pair may cost its names, digest and split: 2 KiB.
    assert (peaks[1] - peaks[0]) / (counts[1] - counts[0]) < 2048, peaks


# -- masks and lists that mean something else than they seem -------------------------------------


def undeclared(root: Path, masks: list[Image.Image], suffix: str = ".png") -> Path:
    """A folder without ``classes.yaml`` whose masks are the given pictures."""
    draw(root, count=len(masks), size=masks[0].size[::-1])
    for path, picture in zip(sorted((root / "masks").iterdir()), masks, strict=True):
        path.unlink()
        picture.save(path.with_suffix(suffix))
    return root


def squares(value: int = 255, count: int = 6) -> list[np.ndarray]:
    """Masks of 12 × 16 pixels with a rectangle each."""
    made = []
    for i in range(count):
        mask = np.zeros((12, 16), np.uint8)
        mask[2:5, 1 : 4 + i] = value
        made.append(mask)
    return made


def palette_masks(palettes: list[list[int]], high: int = 1) -> list[Image.Image]:
    """Masks of indices 0…high, each with a palette."""
    made = []
    for palette, mask in zip(palettes, squares(1, len(palettes)), strict=True):
        mask[8:10, 3:9] = high
        picture = Image.fromarray(mask, "P")
        picture.putpalette(palette)
        made.append(picture)
    return made


def test_a_mask_whose_palette_is_grey_is_read_by_its_greys(tmp_path):
    """A program that saves black and white as a palette may put white first: its indices are inverted."""
    pictures = [Image.fromarray(np.stack([m] * 3, -1)).quantize(2) for m in squares()]
    root = undeclared(tmp_path / "set", pictures)
    for path, mask in zip(sorted((root / "masks").iterdir()), squares(), strict=True):
        assert Image.open(path).mode == "P"
        assert np.array_equal(read_mask(path, greys=True).array, mask)
    assert "0 and 255 alone" in loads(root) and not passes(root)
    (root / "classes.yaml").write_text("values: {0: background, 255: thing}")
    assert loads(root) == "" and load(root).labels.mean() < 0.2


@pytest.mark.parametrize("value", [1, 2, 3])
def test_a_grey_mask_saved_as_gif_keeps_its_values(tmp_path, value):
    mask = squares(value, 1)[0]
    for name, array in (("some", mask), ("all", np.full_like(mask, value))):
        path = tmp_path / f"{name}.gif"
        Image.fromarray(array).save(path)
        assert np.array_equal(read_mask(path, greys=True).array, array)


def test_palettes_that_colour_an_index_differently_are_refused(tmp_path):
    pictures = palette_masks([[0, 0, 0, 0, 200, 0], [0, 0, 0, 200, 0, 0]] * 3)
    root = undeclared(tmp_path / "set", pictures)
    for text in ("", "classes: [background, thing]"):
        (root / "classes.yaml").write_text(text or "mean: null")
        assert "expected one palette in all masks, got index 1 as the colour" in loads(root)
        assert not passes(root)
    (root / "classes.yaml").write_text(
        "classes: [background, red, green]\n"
        "palette: {background: [0, 0, 0], red: [200, 0, 0], green: [0, 200, 0]}"
    )
    assert loads(root) == "" and set(np.unique(load(root).labels)) == {0, 1, 2}


def test_palettes_that_differ_where_no_pixel_is_are_one(tmp_path):
    palettes = [[0, 0, 0, 200, 0, 0, *([i, 9, 9] if i else [])] for i in range(6)]
    root = undeclared(tmp_path / "set", palette_masks(palettes))
    assert loads(root) == "" and passes(root)


@pytest.mark.parametrize(
    ("palettes", "high", "text"),
    [
        ([[0, 0, 0, 255, 255, 255]] * 6, 1, ""),  # the commonest binary palette
        ([[0, 0, 0, 255, 255, 255]] * 6, 1, "values: {0: background, 1: thing}"),
        ([[0, 0, 0, 255, 255, 255]] * 6, 1, "classes: [background, thing]\nignore_index: 255"),
        ([[0, 0, 0, 127, 127, 127, 255, 255, 255]] * 6, 2, ""),
        ([[0, 0, 0]] * 6, 1, ""),  # no colour for an index, as Pillow writes it by itself
        ([[0, 0, 0, 1, 1, 1, 1, 1, 1]] * 6, 2, ""),  # two indices of one grey
        # cut after the last colour that a file needs: black and white in some, red in others
        ([[0, 0, 0, 255, 255, 255], [0, 0, 0, 255, 255, 255, 200, 0, 0]] * 3, 1, ""),
    ],
)
def test_indices_count_where_a_palette_only_displays_them(tmp_path, palettes, high, text):
    pictures = palette_masks(palettes, high)
    root = undeclared(tmp_path / "set", pictures)
    (root / "classes.yaml").write_text(text or "mean: null")
    assert loads(root) == "" and passes(root)
    truth = np.stack([np.asarray(picture) for picture in pictures])
    assert np.array_equal(load(root).labels, truth[:4])


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
def test_a_palette_is_known_before_the_pixels_are_decoded(tmp_path, suffix):
    picture = Image.fromarray(np.uint8([[0, 1], [1, 0]]), "P")
    picture.putpalette([9, 8, 7, 200, 100, 50])
    picture.save(tmp_path / f"mask{suffix}")
    assert header(tmp_path / f"mask{suffix}").palette[:2] == ((9, 8, 7), (200, 100, 50))
    assert read_mask(tmp_path / f"mask{suffix}").palette == {0: (9, 8, 7), 1: (200, 100, 50)}
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / f"grey{suffix}")
    assert (header(tmp_path / f"grey{suffix}").palette is None) == (suffix != ".gif")


def test_greys_that_are_classes_themselves_count(tmp_path):
    pictures = palette_masks([[0, 0, 0, 2, 2, 2]] * 6)  # as a program numbers the values 0 and 2
    root = undeclared(tmp_path / "set", pictures)
    (root / "classes.yaml").write_text("classes: [a, b, c]")
    assert loads(root) == "" and set(np.unique(load(root).labels)) == {0, 2}


def test_values_with_gaps_and_jpeg_masks_without_declared_values_are_asked_about(tmp_path):
    fifty = undeclared(tmp_path / "fifty", [Image.fromarray(m) for m in squares(50)])
    assert "got the values 0, 50 and no 1; say in classes.yaml" in loads(fifty)
    assert not passes(fifty)
    jpeg = undeclared(tmp_path / "jpeg", [Image.fromarray(m) for m in squares(1)], ".jpg")
    assert "expected a lossless mask, got a JPEG" in loads(jpeg) and not passes(jpeg)
    kinds = [f for f in check_folder(jpeg) if f.severity == "error"]
    assert len(kinds) == 1 and len(kinds[0].names) == 6


def test_masks_without_foreground_and_inverted_ones_are_said(tmp_path):
    empty = undeclared(tmp_path / "empty", [Image.fromarray(m) for m in squares(0)])
    assert loads(empty) == "" and "no foreground in the training masks" in notes(empty)
    turned = undeclared(tmp_path / "turned", [Image.fromarray(1 - m) for m in squares(1)])
    assert loads(turned) == "" and "look whether the masks are inverted" in notes(turned)
    upright = undeclared(tmp_path / "upright", [Image.fromarray(m) for m in squares(1)])
    assert "inverted" not in notes(upright)


def test_a_class_or_a_split_that_the_other_masks_leave_out_is_warned_of(tmp_path):
    root = undeclared(tmp_path / "set", [Image.fromarray(m) for m in squares(1)])
    (root / "classes.yaml").write_text("classes: [background, a, b]\nignore_index: 255")
    for name, value in (("n4", 255), ("n5", 2)):  # val, test
        Image.fromarray(np.full((12, 16), value, np.uint8)).save(root / "masks" / f"{name}.png")
    found = {f.what: f.names for f in check_folder(root) if f.severity == "warning"}
    assert [(what[:28], names) for what, names in found.items()] == [
        ("class that no training mask ", ["b"]),
        ("no foreground in the masks o", ["val"]),
    ]
    (root / "masks" / "n4.png").write_bytes(b"")  # which may hold foreground
    assert "no foreground" not in notes(root)


def test_blank_images_in_two_splits_are_no_leak(tmp_path):
    root = draw(tmp_path / "set", THREE)
    for name in ("n0", "n5"):
        Image.fromarray(np.full((8, 10, 3), 255, np.uint8)).save(root / "images" / f"{name}.png")
    assert "the same picture" not in notes(root)


def test_a_stack_read_as_channels_and_an_intensity_without_use_are_noted(tmp_path):
    root = draw(tmp_path / "set", {**THREE, "intensity": [0, 20]})
    assert "intensity, which images of 8 bits" in notes(root) and "channels" not in notes(root)
    for path in list((root / "images").iterdir()):
        path.unlink()
        np.save(path.with_suffix(".npy"), np.random.default_rng(0).random((8, 10, 16)))
    assert "images of 16 channels" in notes(root) and "8 bits" not in notes(root) and passes(root)


@pytest.mark.parametrize(
    "names",
    [("training.txt", "valid.txt", "testing.txt"), ("Train.TXT", "VAL.txt", "test.txt")],
)
def test_lists_of_splits_are_found_by_the_names_that_people_give(tmp_path, names):
    root = draw(tmp_path / "set", THREE)
    for split, name in zip(("train", "val", "test"), names, strict=True):
        (root / f"{split}.txt").rename(root / name)
    assert loads(root) == "" and passes(root) and len(load(root)) == 4


def test_a_list_that_is_not_read_is_refused_or_said(tmp_path):
    root = draw(tmp_path / "set", THREE)
    (root / "split.csv").write_text("n0,train")
    assert "entry that is not read: no known suffix, or a link: 1 (split.csv)" in notes(root)
    (root / "training.txt").write_text("n0")
    assert "expected one list of the split train, got train.txt and training.txt" in loads(root)
    assert not passes(root)
    (root / "training.txt").unlink()
    for name in ("train.csv", "val.json"):  # a table beside the list, and another program's file
        (root / name).write_text('n0,n1,"n2"')
    assert loads(root) == ""
    assert "train.csv" in notes(root)
    (root / "train.txt").unlink()
    assert "in train.txt, one a line, got train.csv" in loads(root) and not passes(root)


def test_a_byte_order_mark_in_a_list_is_no_letter(tmp_path):
    root = draw(tmp_path / "set", THREE)
    path = root / "train.txt"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert loads(root) == "" and passes(root)


@pytest.mark.parametrize(
    "name", ["a, b", "a:b", "a;b", "a|b", 'a"b', '"a', " a", "a ", "-a-", "[a]", "ä, b"]
)
@pytest.mark.parametrize("table", ["train.csv", "train.json", "splits.csv"])
def test_a_table_with_odd_names_is_a_table_of_names(tmp_path, name, table):
    root = draw(tmp_path / "set", THREE)
    rename(root, {"n0": name})
    unlist(root)
    names = [name, "n1", "n5"]
    quoted = {each: '"' + each.replace('"', '""') + '.png"' for each in names}
    lines = [f"{quoted[each]},{'test' if each == 'n5' else 'train'}" for each in names]
    text = json.dumps([f"{each}.png" for each in names[:1]])
    (root / table).write_text(text if "json" in table else "\r\n".join(lines), encoding="utf-8-sig")
    assert f"got them in {table}" in loads(root) or f"one a line, got {table}" in loads(root)
    assert not passes(root)


#: What a refusal says of one file with all splits, and of one that is named after a split.
ALL, ONE = "a name a line, got them in {}; ", "{}.txt, one a line, got {}; save it so"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("splits.csv", "file;split\nn0.png;train\nn1.png;Validation\n", ALL),
        ("splits.txt", "n0 train\nn1 test", ALL),
        ("metadata.tsv", "n0\tday 1\ttraining\nn1\tday 2\ttesting", ALL),
        ("split.json", '{"train": ["n0.png"], "test": ["n1.png"]}', ALL),
        ("split.yaml", "train: [n0.png]\nval:\n- n1.png", ALL),
        ("splits.csv", "train,val,test\nn0.png,n1.png,n2.png\nn3.png,,", ALL),
        ("splits.csv", ",train,test\n0,n0,n1\n1,n2,", ALL),
        ("splits.xlsx", "a spreadsheet", ALL),
        ("5-fold.ods", "a spreadsheet", ALL),
        ("scaffold.xlsx", "a spreadsheet", ""),
        ("splits_final.pkl", "a pickle", ALL),  # of nnU-Net; the next one, too
        ("splits_final.json", '[{"train": ["n0", "n2"], "val": ["n1"]}]', ALL),
        ("folds.json", '{"fold0": ["n0.png", "n2.png"], "fold1": ["n1.png"]}', ALL),
        ("folds.json", '{"0": {"train": ["n0", "n1"], "val": ["n2"]}}', ALL),
        ("kfold.json", '[["n0", "n1"], ["n2"]]', ALL),
        ("folds.csv", "image,fold\nn0,0\nn1,1\nn2,0", ALL),
        ("folds.yaml", "seed: 3\ncount: 5", ""),
        ("history.csv", "epoch,train,val\n1,.5,.6\n2,.4,.5", ""),
        ("history.csv", "epoch,train,val\nn0,.5,.6\nn1,.4,.5", ""),
        ("vehicles.csv", "n0.png,train\nn1.png,bus", ""),  # a class
        ("log.csv", "epoch,phase\nn0,train\nn0,val\nn1,train\nn1,val", ""),
        ("data.yaml", "train: images/train\nval: images/val", ""),
        ("notes.txt", "n0 is odd; see train and test", ""),
        ("test.csv", "epoch,loss\n1,0.5\n", ""),
        ("test.csv", "name,label\nn3,0\n", ONE),
        ("test.csv", "my photo 1.png", ONE),
        ("test.csv", "d/2.png", ONE),
        ("test.csv", r"C:\set\images\n3.png;3", ONE),
        ("test.csv", "n3.png\t1".encode("utf-16"), ONE),
        ("test.csv", "n3.png;Köln".encode("cp1252"), ONE),
        ("test.csv", "l'été 4".encode("cp1252"), ONE),
        ("test.json", '[{"file":"n3.png"}]', ONE),
        ("test.json", json.dumps(["l'été 4.png"]), ONE),
        ("test.yaml", "- my photo 1.png", ONE),
        ("test.xlsx", "PK", ONE),
    ],
)
def test_a_file_that_gives_images_their_splits_is_never_passed_over(tmp_path, name, text, said):
    names = [f"n{i}" for i in range(27)] + ["my photo 1", "d/2", "l'été 4"]
    judged(draw(tmp_path / "set", THREE, names=names), name, text, said)


def judged(root: Path, name: str, text: str | bytes, said: str) -> None:
    """Beside lists a file counts for nothing; without them it is refused in these words, or passed over."""
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert loads(root) == "" and passes(root)
    unlist(root)
    refusal = loads(root)
    if not said:
        assert refusal == "" and passes(root) and name in notes(root)
        return
    assert said.format(*(name,) if said is ALL else (name.split(".")[0], name)) in refusal
    assert ("save those of one fold so" in refusal) == ("fold" in name) and not passes(root)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("README.txt", "The training set holds 30 images.\nThe test set holds 10 images.", ""),
        ("results.csv", "split,count,dice\ntrain,28,.9\ntest,12,.8", ""),
        ("splits.csv", "\n".join(f"{i},{'test' if i > 30 else 'train'}" for i in range(40)), ALL),
        ("splits.csv", "3.png,train\n4.png,test", ALL),
        ("train.yaml", "epochs: 3\nlr: 0.1\n", ""),
        ("test.json", '{"n": 7, "model": "unet", "seeds": [0, 1, 2], "lr": 0.01, "wd": 0.5}', ""),
        ("train.json", '["3", "4", "5"]', ONE),
        ("train.json", '{"images": [{"file_name": "3.png"}], "info": {"year": 2026}}', ONE),
        ("train.csv", "id,label\n3,0\n", ONE),
    ],
)
def test_numbers_are_names_of_images_where_half_of_them_are_told(tmp_path, name, text, said):
    names = [str(i) for i in range(40)]
    judged(draw(tmp_path / "set", THREE, names=names), name, text, said)


def test_annotations_beside_folders_of_splits_are_no_lists(tmp_path):
    root = draw(tmp_path / "set", THREE)
    for split, names in (("train", ("n0", "n1", "n2", "n3")), ("val", ("n4",)), ("test", ("n5",))):
        (root / f"{split}.txt").unlink()
        (root / f"{split}.json").write_text(json.dumps([{"file_name": f"{n}.png"} for n in names]))
        rename(root, {each: f"{split}/{each}" for each in names})
    assert loads(root) == "" and passes(root)


def test_a_list_in_another_folder_is_said_to_be_passed_over(tmp_path):
    root = draw(tmp_path / "set", THREE)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name in ("ImageSets/Segmentation/train.txt", "ImageSets/val.csv", "ImageSets/notes.txt"):
        (root / name).write_text("n0")
    assert "2 (ImageSets/Segmentation/train.txt, ImageSets/val.csv)" in notes(root)


@pytest.mark.parametrize(
    ("body", "remedy"),
    [(b"\n", "remove the lists of all splits"), ("n4".encode("utf-16"), "save it as UTF-8")],
)
def test_a_list_without_names_or_of_another_encoding_says_how_to_mend_it(tmp_path, body, remedy):
    root = draw(tmp_path / "set", THREE)
    (root / "val.txt").write_bytes(body)
    assert remedy in loads(root) and "fetch" not in loads(root) and remedy in notes(root)


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("otherset/n0.png", False),
        ("n0.png/x", False),
        ("images/n0.png", True),
        ("set/images/n0.PNG", True),
        ("copies/masks/day/n0.png", True),
        ("/scratch/copy/n0", True),
        (".nii.gz", False),
        (r"images\n0.png", True),
        (r"D:\copy\n0.png", True),
        (r"otherset\n0.png", False),
        ("  n0.png\t", True),
    ],
)
def test_a_path_in_a_list_names_no_file_of_another_folder(tmp_path, line, there):
    root = draw(tmp_path / "set", THREE)
    (root / "train.txt").write_text(f"{line}\nn1\nn2\nn3")
    assert passes(root) == there
    assert load(root).ids[0] == "n0" if there else "1 are not there" in loads(root)


def test_a_name_in_a_list_may_begin_or_end_with_a_blank(tmp_path):
    root = draw(tmp_path / "set", THREE)
    rename(root, {"n0": " n0", "n1": "n1 ", "n2": r"a\b"})
    (root / "train.txt").write_bytes(b" n0.png\r\nn1 \r\na\\b\r\nn3\r\n \r\n")
    assert load(root).ids == [" n0", "n1 ", r"a\b", "n3"] and passes(root)


@pytest.mark.parametrize("name", ["classes.yml", "Classes.YAML"])
def test_the_settings_are_found_by_the_names_that_people_give(tmp_path, name):
    root = draw(tmp_path / "set", THREE)
    (root / "classes.yaml").rename(root / name)
    assert load(root).classes == ("a", "b", "c") and "not read" not in notes(root)


def test_settings_of_nearly_the_right_name_twice_or_with_a_key_twice_are_refused(tmp_path):
    root = draw(tmp_path / "set", THREE)
    (root / "classes.yml").write_text("classes: [x, y, z]")
    assert "expected one classes.yaml, got classes.yaml and classes.yml" in loads(root)
    (root / "classes.yml").unlink()
    (root / "classes.yaml").rename(root / "class.yaml")
    assert "expected classes.yaml, got class.yaml; rename it" in loads(root)
    (root / "class.yaml").rename(root / "classes.yaml")
    (root / "classes.yaml").write_text("classes: [a, b, c]\nclasses: [c, b, a]")
    assert "expected each key once, got 'classes' twice" in loads(root)


def test_a_turned_image_over_a_mask_that_is_not_is_a_warning_where_sizes_cannot_tell(tmp_path):
    for name, size, orientation, said in (
        ("square", (12, 12), 6, True),
        ("upside", (8, 12), 3, True),
        ("side", (8, 12), 6, False),  # its size would tell
    ):
        root = draw(tmp_path / name, {"classes": ["a", "b"]}, values=(0, 1), size=size)
        stored = np.zeros(size[::-1] if orientation == 6 else size, np.uint8)
        oriented(root / "images" / "n1.png", np.stack([stored] * 3, -1), orientation)
        assert ("its mask not, and the sizes fit either way" in notes(root)) == said
        assert passes(root)


@pytest.mark.parametrize("kind", ["nothing", "a pixel", "nine pixels", "a row", "one image"])
def test_few_pixels_or_images_that_take_the_grey_levels_are_noted(tmp_path, kind):
    root = draw(tmp_path / "set", THREE, size=(256, 256), count=12)
    rng = np.random.default_rng(0)
    for i, path in enumerate(sorted((root / "images").iterdir())):
        image = rng.integers(100, 400, (256, 256)).astype(np.uint16)
        if kind == "nine pixels":
            image[0, :9] = 65535
        elif kind == "a row":
            image[7] = 65535
        elif i == 1 and kind == "a pixel":
            image[3, 3] = 65535
        elif i == 1 and kind == "one image":
            image *= 40
        Image.fromarray(image).save(path)
    said = notes(root)
    assert ("set the range" in said) == (kind != "nothing")
    assert kind == "nothing" or re.search(r"of 256 levels; set intensity: \[10\d, 39\d\]", said)
    assert ("has 2 of 256 levels" in said) == (kind not in ("nothing", "one image"))


def test_a_pattern_that_fits_no_mask_is_told_the_one_that_does(tmp_path):
    root = draw(tmp_path / "set", {**THREE, "masks": "{stem}-mask.png"})
    for path in list((root / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_seg.png"))
    assert "write masks: '{stem}_seg.png' into classes.yaml, which pairs 6" in loads(root)
    assert "mask that '{stem}-mask.png' does not fit, not read: 6" in notes(root)

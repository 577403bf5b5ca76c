"""Digit canvases: what is asked is what is there, the same on every machine."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.datasets import load_digits

from lossatlas import data
from lossatlas.data.digits import _glyph_at, _glyphs, enlarge, glyph_indices, skeleton
from lossatlas.data.errors import DataError

SMALL = {"train_size": 60, "val_size": 20, "test_size": 20}


def foreground(dataset) -> float:
    return float((dataset.labels > 0).mean())


def test_the_defaults_are_the_pilot_set():
    train = data.load("digits", "train")
    assert train.images.shape == (600, 64, 64, 1)
    assert train.images.dtype == train.labels.dtype == np.uint8
    assert (train.in_channels, train.out_channels, train.ignore_index) == (1, 11, None)
    assert train.classes == ("background", *"0123456789")
    assert foreground(train) == pytest.approx(0.043, rel=1e-4)
    # Zipf 1.2 over ten digits: from 1.74 % of the pixels down to 0.11 %.
    fractions = data.class_fractions(train)[1:]
    zipf = np.arange(1, 11.0) ** -1.2
    np.testing.assert_allclose(fractions, 0.043 * zipf / zipf.sum(), rtol=0.03)
    # Three digits a canvas, each of 58 or 59 pixels.
    assert set((train.labels > 0).sum(axis=(1, 2))) <= set(range(3 * 58, 3 * 59 + 1))


def test_a_training_set_of_600_canvases_takes_under_two_seconds():
    data.load("digits", "train", train_size=1)  # import scikit-learn, read the glyphs
    start = time.process_time()
    data.load("digits", "train", seed=3)
    assert time.process_time() - start < 2


def test_the_pixels_are_pinned_for_every_machine():
    # Integer arithmetic on PCG64: a change here changes every published number on digits.
    assert data.load("digits", "train", **SMALL).checksum == PINNED["default"]
    noisy = data.load("digits", "train", task="binary", label_noise=0.5, zipf=0, **SMALL)
    assert noisy.checksum == PINNED["noisy"]


PINNED = {
    "default": "ef071fe1d9b5e85ddee4873bd224328546ff0cc7ff43c8468b2c75a7ea9aa624",
    "noisy": "76a0a12339fe562f75a84a8b8ce869d76a3ce918095e9aa3fad9e4dd365f5585",
}


def test_the_same_parameters_make_the_same_set_and_another_seed_another():
    asked = {"val_size": 7, "label_noise": 0.3}
    first = data.load("digits", "val", seed=5, **asked).checksum
    _glyph_at.cache_clear()
    assert data.load("digits", "val", seed=5, **asked).checksum == first
    assert data.load("digits", "val", seed=6, **asked).checksum != first


def test_no_glyph_is_in_two_splits_and_every_glyph_is_in_one():
    parts = {split: np.concatenate(glyph_indices(split)) for split in ("train", "val", "test")}
    together = np.concatenate(list(parts.values()))
    assert len(np.unique(together)) == len(together) == len(_glyphs()[0]) == 1797
    for split, part in parts.items():
        digits = _glyphs()[1][part]
        assert set(digits) == set(range(10)), split


def test_the_handwriting_is_scikit_learns():
    bunch = load_digits()
    images, digits = _glyphs()
    np.testing.assert_array_equal(images, bunch.images)
    np.testing.assert_array_equal(digits, bunch.target)
    assert images.dtype == digits.dtype == np.int64


def test_a_small_run_does_not_wait_for_scikit_learn():
    code = (
        "import sys; from lossatlas import data; data.load('digits', 'val', val_size=2);"
        "print([name for name in ('sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("installed", [False, True])
def test_without_scikit_learns_file_the_error_says_what_to_install(
    monkeypatch, tmp_path, installed
):
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py")) if installed else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(DataError, match=r"expected scikit-learn.*; install the"):
        _glyphs.__wrapped__()


def test_splits_do_not_depend_on_each_others_size():
    small = data.load("digits", "test", train_size=1, val_size=1, test_size=10)
    large = data.load("digits", "test", train_size=9, val_size=9, test_size=10)
    assert small.checksum == large.checksum
    assert small.checksum != data.load("digits", "val", val_size=10).checksum


@pytest.mark.parametrize(
    "asked",
    [
        {"foreground": 0.2, "objects": 3},
        {"foreground": 0.01, "objects": 1},
        {"foreground": 0.5, "objects": None, "object_size": 16},
        {"foreground": 0.05, "objects": None, "object_size": 12},
        {"foreground": 0.0005, "objects": 0.1},
        {"foreground": 0.1, "objects": 4, "object_size": 20},
    ],
)
def test_the_foreground_fraction_is_met_to_the_pixel(asked):
    train = data.load("digits", "train", **SMALL, **asked)
    assert int((train.labels > 0).sum()) == round(asked["foreground"] * train.labels.size)


def test_objects_and_size_alone_give_the_fraction():
    train = data.load("digits", "train", foreground=None, objects=2, object_size=20, **SMALL)
    # 2 objects, 30 % of 20 × 20 each: 240 of 4096 pixels.
    assert int((train.labels > 0).sum()) == 240 * 60


def test_a_zipf_exponent_of_zero_makes_all_digits_equally_frequent():
    train = data.load("digits", "train", zipf=0, **SMALL)
    fractions = data.class_fractions(train)[1:]
    np.testing.assert_allclose(fractions, 0.0043, rtol=0.03)


def test_the_binary_task_has_the_same_images_and_one_foreground_class():
    multi = data.load("digits", "val", **SMALL)
    binary = data.load("digits", "val", task="binary", **SMALL)
    assert binary.classes == ("background", "digit")
    assert (binary.mode, binary.out_channels) == ("binary", 1)
    assert np.array_equal(binary.images, multi.images)
    assert np.array_equal(binary.labels, multi.labels > 0)


def test_distractors_per_object_follow_the_digits_and_not_the_canvases():
    def shapes(count, per_object, **params):
        """Canvases that the distractors change, by themselves or by the draws of the digits behind them."""
        common = SMALL | {"noise": 0, "train_size": count} | params
        with_them, without = (
            data.load("digits", "train", distractors_per_object=x, **common)
            for x in (per_object, 0)
        )
        return (with_them.images != without.images).any((1, 2, 3)).sum()

    few = {"foreground": None, "objects": 0.05, "object_size": 16}
    assert 10 < shapes(200, 2.0, **few) <= 30  # 10 digits and 20 distractors on 200 canvases
    assert shapes(200, 2.0, **few | {"objects": 1}) > 100
    with pytest.raises(data.DataError, match="distractors_per_object"):
        data.load("digits", "train", distractors_per_object=-1, **SMALL)


def test_a_digit_stands_out_from_the_background_and_distractors_do_not_reach_it():
    train = data.load("digits", "train", noise=0, distractors=2, **SMALL)
    pixels, truth = train.images[..., 0].astype(int), train.labels > 0
    assert pixels[truth].min() > 120
    assert np.percentile(pixels[~truth], 99.9) < 165
    assert pixels[~truth].max() < pixels[truth].max()
    assert len(np.unique(pixels[~truth])) > 10  # distractors and soft edges are there


def test_enlarging_is_exact_and_keeps_constants_and_ramps():
    ramp = np.tile(np.arange(8, dtype=np.int64), (8, 1))
    for side in (4, 8, 11, 40):
        assert (enlarge(np.full((8, 8), 7, dtype=np.int64), side) == 7 * (2 * side) ** 2).all()
        values = enlarge(ramp, side)[0] / (2 * side) ** 2
        centres = np.clip((np.arange(side) + 0.5) * 8 / side - 0.5, 0, 7)
        np.testing.assert_allclose(values, centres, atol=1e-12)


def test_batches_are_standardised_by_constants():
    train = data.load("digits", "train", **SMALL)
    images, target = train.batch([3, 0, 59])
    assert images.shape == (3, 1, 64, 64) and images.dtype == torch.float32
    assert target.shape == (3, 64, 64) and target.dtype == torch.int64
    expected = (train.images[[3, 0, 59], :, :, 0] / 255 - 0.29) / 0.09
    np.testing.assert_allclose(images[:, 0].numpy(), expected, atol=1e-5)
    assert np.array_equal(target.numpy(), train.labels[[3, 0, 59]])
    assert abs(float(images.mean())) < 0.3
    with pytest.raises(IndexError, match="below 60"):
        train.batch([60])


def test_image_counts_are_the_pixels_of_each_class():
    train = data.load("digits", "train", **SMALL)
    counts = train.image_counts()
    assert counts.shape == (60, 11) and counts.dtype == np.int64
    assert (counts.sum(axis=1) == 64 * 64).all()
    assert np.array_equal(counts, data.image_counts(train))
    assert counts[5, 0] == (train.labels[5] == 0).sum()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"foreground": 2.0}, r"foreground: expected a number in \(0, 0.6\], got 2"),
        ({"foreground": 0.0}, "foreground"),
        ({"foreground": float("nan")}, "foreground"),
        ({"foreground": True}, "foreground"),
        ({"train_size": -3}, "train_size: expected an integer from 1 to 1000000, got -3"),
        ({"train_size": 2.5}, "train_size: expected an integer"),
        ({"image_size": 0}, "image_size"),
        ({"object_size": 65, "objects": None}, "object_size: expected an integer from 4 to 64"),
        ({"objects": -1}, "objects"),
        ({"zipf": -0.1}, "zipf"),
        ({"label_noise": 1.5}, "label_noise"),
        ({"seed": -1}, "seed"),
        ({"seed": "0"}, "seed"),
        ({"task": "binry"}, "did you mean binary"),
        ({"foreground": 1e-5}, "at least 4 pixels an object.*ask fewer objects"),
        ({"foreground": 0.6, "objects": 1}, "fit a square of side 64"),
        ({"foreground": 0.3, "objects": 1, "object_size": 20}, "fit a square of side 20"),
        ({"foreground": None, "object_size": None}, "at least two of foreground"),
        ({"foreground": None, "objects": 40, "object_size": 32}, "at most 60 % foreground"),
        ({"foregruond": 0.1}, "did you mean foreground"),
        ({"shape": "thn"}, "did you mean thin"),
        ({"empty": 1.0}, r"empty: expected a number in \[0, 1\)"),
        ({"empty": 0.995}, "expected a canvas with a digit"),
        ({"contrast": 0}, "contrast"),
        ({"size_spread": -1}, "size_spread"),
        ({"label_noise": 0.6, "missed_objects": 0.6}, "an object has one fault"),
        ({"empty": 0.9, "foreground": 0.3, "objects": 40}, "at most 60 % foreground"),
    ],
)
def test_impossible_parameters_are_one_clear_line(params, message):
    with pytest.raises(data.DataError, match=message) as caught:
        data.load("digits", "train", **SMALL | params)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


# -- the laboratory: each factor alone ----------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.5, 0.2, 0.05, 0.01, 0.001, 0.0001])
@pytest.mark.parametrize(
    "factors",
    [
        {"object_size": 12},
        {"object_size": 12, "size_spread": 1.0},
        {"object_size": 8, "shape": "compact"},
        {"object_size": 20, "shape": "thin"},
        {"object_size": 12, "empty": 0.15, "contrast": 0.3, "zipf": 0},
    ],
    ids=["plain", "spread", "compact", "thin", "empty"],
)
def test_the_fraction_is_met_whatever_the_other_factors_are(fraction, factors):
    count = 30 if fraction > 0.1 else 120
    asked = {"foreground": fraction, "objects": None, "train_size": count, **factors}
    train = data.load("digits", "train", **asked)
    assert foreground(train) == pytest.approx(fraction, rel=0.02)


def components(dataset):
    """Number of connected objects over the whole split and the sides of their boxes."""
    labelled = [ndimage.label(label > 0, np.ones((3, 3))) for label in dataset.labels]
    boxes = [box for objects, _ in labelled for box in ndimage.find_objects(objects)]
    sides = [max(b[0].stop - b[0].start, b[1].stop - b[1].start) for b in boxes]
    return len(boxes), np.array(sides)


def test_object_size_and_number_follow_their_parameters_at_one_fraction():
    asked = {"foreground": 0.02, "objects": None, **SMALL}
    counts, sides = zip(
        *(components(data.load("digits", "train", object_size=s, **asked)) for s in (10, 20)),
        strict=True,
    )
    # At one fraction, twice the side is a quarter of the objects.
    assert counts[0] / counts[1] == pytest.approx(4, rel=0.25)
    assert np.median(sides[1]) / np.median(sides[0]) == pytest.approx(2, rel=0.2)


def test_the_spread_widens_the_sizes_and_keeps_the_fraction():
    asked = {"foreground": 0.03, "objects": 2, **SMALL}
    even = components(data.load("digits", "train", **asked))[1]
    wide = components(data.load("digits", "train", size_spread=1.5, **asked))[1]
    assert wide.std() > 2 * even.std()
    assert wide.max() > 1.3 * even.max()


def test_thin_shapes_have_more_edge_and_compact_ones_less_at_one_fraction():
    edge = {}
    for shape in ("thin", "natural", "compact"):
        train = data.load("digits", "train", foreground=0.03, objects=2, shape=shape, **SMALL)
        objects = train.labels > 0
        inner = np.stack([ndimage.binary_erosion(m) for m in objects])
        edge[shape] = 1 - inner.sum() / objects.sum()
        assert foreground(train) == pytest.approx(0.03, rel=1e-4)
    assert edge["thin"] > 0.85 > edge["natural"] > edge["compact"] + 0.2


def test_the_asked_share_of_canvases_is_empty():
    train = data.load("digits", "train", empty=0.4, foreground=0.02, objects=1.5, **SMALL)
    blank = (train.labels > 0).sum(axis=(1, 2)) == 0
    assert blank.sum() == 24
    assert foreground(train) == pytest.approx(0.02, rel=1e-4)


def test_contrast_lowers_the_digits_alone():
    full, faint = (
        data.load("digits", "train", contrast=c, distractors=0, noise=0, **SMALL) for c in (1, 0.25)
    )
    assert np.array_equal(full.labels, faint.labels)
    truth = full.labels > 0
    rise = [d.images[..., 0][truth].mean() - 70.0 for d in (full, faint)]
    assert rise[1] / rise[0] == pytest.approx(0.25, abs=0.03)
    assert np.median(full.images[..., 0][~truth]) == np.median(faint.images[..., 0][~truth])


def test_each_kind_of_label_noise_does_its_own_thing_and_leaves_the_images():
    asked = {"objects": 1, "foreground": 0.03, **SMALL}
    clean = data.load("digits", "train", **asked)
    pixels = (clean.labels > 0).sum(axis=(1, 2))

    def noisy(**fault):
        dataset = data.load("digits", "train", **asked, **fault)
        assert np.array_equal(dataset.images, clean.images)
        for split in ("val", "test"):
            truth = data.load("digits", split, **asked).checksum
            assert data.load("digits", split, **asked, **fault).checksum == truth
        return dataset.labels

    def assert_displaced(labels, there=True):
        changed = (labels != clean.labels).any(axis=(1, 2)) & there
        ratio = (labels > 0).sum(axis=(1, 2))[changed] / pixels[changed]
        assert 0.45 <= ratio.min() < 1 < ratio.max() <= 1.55

    half = noisy(label_noise=0.4)  # half of the 24 objects are missed, half displaced
    assert (half != clean.labels).any(axis=(1, 2)).sum() == 24
    assert ((half > 0).sum(axis=(1, 2)) == 0).sum() == 12
    assert_displaced(half, (half > 0).any(axis=(1, 2)))

    missed = noisy(missed_objects=0.25)
    assert ((missed > 0).sum(axis=(1, 2)) == 0).sum() == 15
    assert (missed[missed != clean.labels] == 0).all()

    shaken = noisy(boundary_noise=0.5)
    assert (shaken != clean.labels).any(axis=(1, 2)).sum() == 30
    assert_displaced(shaken)

    invented = noisy(false_objects=0.5)
    assert np.array_equal(invented[clean.labels > 0], clean.labels[clean.labels > 0])
    more = (invented > 0).sum() / (clean.labels > 0).sum()
    assert more == pytest.approx(1.5, abs=0.03)


def test_the_skeleton_of_a_bar_is_its_centre_line():
    bar = np.zeros((9, 20), dtype=bool)
    bar[2:7, 2:18] = True
    line = skeleton(bar)
    assert line.sum() < 18 and line[4, 6:14].all()
    assert not (line & ~bar).any()

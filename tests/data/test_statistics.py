"""The imbalance report against cases worked out by hand."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pytest
from drawn import made

from lossatlas import data
from lossatlas.data import cli, pictures, statistics, tables

matplotlib.use("Agg")


def test_fractions_and_their_spread_over_images_by_hand():
    # Image 0: 1 of 4 is class 1. Image 1: 3 of 3, one void. Image 2: none.
    labels = np.array([[[0, 0], [0, 1]], [[1, 1], [1, 9]], [[0, 0], [0, 0]]])
    rows = statistics.class_spread(made(labels, ignore_index=9).image_counts())
    assert rows[1]["fraction"] == pytest.approx(4 / 11)
    assert rows[1]["images"] == 2
    assert (rows[1]["min"], rows[1]["max"]) == (0.25, 1.0)
    assert rows[1]["median"] == pytest.approx(0.625)
    shares = np.array([0.25, 1.0, 0.0])
    assert rows[1]["variation"] == pytest.approx(shares.std() / shares.mean())
    result = statistics.report(made(labels, ignore_index=9))
    assert result["empty_share"] == pytest.approx(1 / 3)
    assert result["void_share"] == pytest.approx(1 / 12)


def test_components_are_counted_with_corners_touching():
    label = np.zeros((1, 8, 8))
    label[0, 1, 1] = label[0, 2, 2] = 1  # one: they touch at a corner
    label[0, 5:7, 5:7] = 1
    row = statistics.shape_of_classes(made(label))[1]
    assert row["components"] == 2
    assert row["area_median_px"] == 3  # of 2 and 4


@pytest.mark.parametrize("width", [1, 3, 8, 15])
def test_the_width_of_a_strip_is_its_width(width):
    label = np.zeros((1, 40, 60))
    label[0, 10 : 10 + width] = 1
    row = statistics.shape_of_classes(made(label))[1]
    # A quarter of the width on average; for odd widths the centre row adds 1/(4 width).
    assert row["width_px"] == pytest.approx(width, abs=1.1)
    assert row["edge_share"] == pytest.approx(min(1, 2 / width))


def test_void_is_no_edge():
    label = np.zeros((1, 6, 6))
    label[0, 2:4] = 1
    label[0, 1] = label[0, 4] = 9
    row = statistics.shape_of_classes(made(label, ignore_index=9))[1]
    assert row["edge_share"] == 0


def test_weights_from_few_images_vary_as_the_binomial_law_says():
    # Half of the images hold the class fully, half not at all: the share from n images has the
    # standard deviation ½/√n over a mean of ½, and a linear scheme inherits that variation.
    counts = np.array([[0, 100], [100, 0]] * 50, dtype=np.int64)

    def shares(sample):
        return sample.sum(axis=0) / sample.sum()

    found = statistics.weight_uncertainty(counts, shares, sizes=(25, 100), draws=2000)
    assert found["weights"] == [0.5, 0.5]
    for size, expected in (("25", 0.2), ("100", 0.1)):
        assert found["samples"][size]["variation"][0] == pytest.approx(expected, rel=0.1)
        assert abs(found["samples"][size]["bias"][0]) < 0.02


def test_a_weight_that_a_sample_cannot_give_is_none_and_not_a_number():
    counts = np.array([[100, 0]] * 9 + [[50, 50]], dtype=np.int64)

    def inverse(sample):
        total = sample.sum(axis=0)
        return np.where(total > 0, total.sum() / np.maximum(total, 1), 0)

    found = statistics.weight_uncertainty(counts, inverse, sizes=(3,), draws=50)
    assert found["samples"]["3"]["variation"][1] is None
    assert found["samples"]["3"]["variation"][0] is not None


def test_a_report_of_void_alone_is_one_clear_line():
    with pytest.raises(data.DataError, match="void alone"):
        statistics.report(made(np.full((1, 2, 2), 9), ignore_index=9))


# -- the command ---------------------------------------------------------------------------------


def run(*arguments: str, schemes=None) -> int:
    return cli.data.main(["stats", *arguments], standalone_mode=False, obj=schemes) or 0


def test_stats_prints_every_split_and_takes_parameters(capsys):
    schemes = {"inverse": lambda counts: counts.sum() / np.maximum(counts.sum(axis=0), 1)}
    sizes = ["-p", "train_size", "20", "-p", "val_size", "10", "-p", "test_size", "10"]
    assert run("digits", *sizes, "-p", "task", "binary", schemes=schemes) == 0
    text = capsys.readouterr().out
    assert text.count("digits ") == 3 and "inverse: " in text
    assert text.count("background") == 3
    assert run("digits", *sizes, "--split", "val", "--json", "--no-shapes") == 0
    result = json.loads(capsys.readouterr().out)
    assert [r["split"] for r in result] == ["val"]
    assert len(result[0]["classes"]) == 11 and "components" not in result[0]["classes"][0]
    with pytest.raises(data.DataError, match="did you mean zipf"):
        run("digits", "-p", "zpf", "1")


def test_stats_of_a_mirrored_set_equal_its_provenance(mirror, capsys):
    assert run("crackforest", "--split", "val", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    crack = result["classes"][1]
    assert 100 * crack["fraction"] == pytest.approx(1.957, abs=0.0051)
    assert result["images"] == 12 and crack["components"] >= 12
    assert crack["width_px"] < 12 and crack["edge_share"] > 0.2


# -- pictures ------------------------------------------------------------------------------------


def test_an_overlay_colours_the_classes_and_leaves_the_background():
    labels = np.array([[[0, 1], [2, 9]]])
    dataset = made(labels, classes=("background", "a", "b"), ignore_index=9)
    picture = pictures.overlay(dataset, 0, opacity=1.0)
    assert picture.shape == (2, 2, 3)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[0, 1].tolist() == pictures.CLASS_COLOURS[1].tolist()
    assert picture[1, 1].tolist() == [255, 255, 255]
    both = pictures.grid([[picture, picture], [picture, picture]], gap=1)
    assert both.shape == (5, 5, 3) and (both[2] == 255).all()


def test_twelve_classes_have_twelve_colours():
    assert len({tuple(c) for c in pictures.CLASS_COLOURS.tolist()}) == 12


# -- the page ------------------------------------------------------------------------------------


def test_the_tables_of_the_page_hold_the_reports_and_nothing_of_other_sets():
    schemes = {"inverse": lambda counts: counts.sum() / np.maximum(counts.sum(axis=0), 1)}
    small = {"train_size": 12, "val_size": 6, "test_size": 6}
    splits = ("train", "val", "test")
    found = [
        statistics.report(data.load("digits", s, task=task, **small), schemes, sizes=(50,))
        | {"name": task}
        for task in ("multiclass", "binary")
        for s in splits
    ]
    fractions = tables.fraction_table(found)
    assert list(fractions.columns) == list(splits)
    assert len(fractions) == 11 + 2 and not fractions.isna().any().any()
    assert fractions.loc[("binary", "background"), "val"] == pytest.approx(95.7, abs=0.01)
    assert len(tables.spread_table(found)) == 3 * 13
    assert tables.set_table(found).loc[("binary", "test"), "images"] == 6
    weights = tables.weight_table(found[:1])
    assert weights.loc[("multiclass", "background"), "inverse"].startswith("1.04 (± ")
    shares = {c["name"]: c["fraction"] for c in found[0]["classes"] if c["fraction"] > 0}
    name, thing, share = tables.rarest(found)
    assert name == "multiclass" and share == shares[thing] == min(shares.values())


def test_the_laboratory_has_a_row_for_each_factor():
    figure = tables.laboratory_figure(columns=2)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert len(titles) == len(tables.LABORATORY) == 10
    assert titles[1].startswith("foreground 0.5 %: 0.50% foreground")
    figure = tables.sample_figure(["digits"], columns=2)
    assert len(figure.axes) == 1


def test_sets_that_are_not_at_hand_are_named_with_their_command():
    here, absent = tables.split_available(["digits", "camvid", "folder"])
    assert here == ["digits"]
    assert absent[0].startswith("camvid: run `lossatlas data get camvid`")
    assert absent[1] == "folder: give root=, a folder with images/ and masks/"
    with pytest.raises(data.DataError, match="did you mean camvid"):
        tables.split_available(["camvit"])
    with pytest.raises(data.DataError, match="empty list"):
        tables.split_available([])

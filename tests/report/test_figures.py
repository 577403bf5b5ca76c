"""Figures show the records, in the losses' colours, and say in words what they show."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from lossatlas.report import figures, records, style
from lossatlas.report.figures import Drawing, Missing
from lossatlas.report.scores import Scores
from lossatlas.statistics.counts import class_metric


@pytest.fixture(autouse=True)
def _theme():
    with mpl.rc_context():
        style.set_theme()
        yield


def legend_texts(drawing):
    return [text.get_text() for legend in drawing.figure.legends for text in legend.get_texts()]


@pytest.fixture(scope="module")
def drawings(part, scores):
    """Each figure once: laying one out takes long."""
    with mpl.rc_context():
        style.set_theme()
        return {
            "intervals": figures.intervals([scores]),
            "curves": figures.training_curves(part),
            "bars": figures.class_bars(part),
            "predictions": figures.predictions(part),
        }


def test_training_curves_are_a_panel_a_loss_with_the_others_in_grey(part, drawings):
    drawing = drawings["curves"]
    axes = drawing.figure.axes
    assert [axis.get_title(loc="left") for axis in axes] == part.losses
    for axis, loss in zip(axes, part.losses, strict=True):
        colours = [to_hex(line.get_color()).upper() for line in axis.lines]
        assert colours.count(style.loss_colour(loss)) == len(part.seeds[loss])
        assert colours.count("#D9D9D9") == sum(map(len, part.seeds.values())) - len(
            part.seeds[loss]
        )
    assert len({(*axis.get_xlim(), *axis.get_ylim()) for axis in axes}) == 1
    assert "n = 3" in drawing.caption


def test_a_line_is_the_validation_dice_of_a_seed_where_it_was_evaluated(part, drawings):
    axis = drawings["curves"].figure.axes[part.losses.index("dice")]
    rows = part.curves[part.curves.loss == "dice"].dropna(subset=["val_mean_dice"])
    drawn = [
        line for line in axis.lines if to_hex(line.get_color()).upper() == style.loss_colour("dice")
    ]
    for line, (_, of_seed) in zip(drawn, rows.groupby("seed"), strict=True):
        assert list(line.get_xdata()) == list(of_seed.step)
        assert list(line.get_ydata()) == list(of_seed.val_mean_dice)


def test_without_validation_there_are_no_curves(part):
    none = dataclasses.replace(part, curves=part.curves.assign(val_mean_dice=np.nan))
    assert "no validation of unet on digits" in figures.training_curves(none)._repr_html_()


def test_of_one_seed_no_interval_is_spoken_of(make_records, tmp_path):
    made = make_records(
        tmp_path / "one", losses=("ce", "dice"), models=("unet",), seeds=(4,), images=6
    )
    one = records.load(made).parts[0]
    caption = figures.intervals([Scores(one)]).caption
    assert "n = 1 seed)" in caption and "interval" not in caption
    assert "n = 1 " in figures.training_curves(one).caption


def test_bars_are_the_mean_dice_of_each_class_most_frequent_first(part, drawings):
    drawing = drawings["bars"]
    axes = drawing.figure.axes
    assert [axis.get_title(loc="left") for axis in axes] == part.losses
    names = [label.get_text() for label in axes[-1].get_xticklabels()]
    assert [name.split(" · ")[0] for name in names] == [part.classes[c] for c in part.by_rarity]
    dice = class_metric(part.counts["focal"].sum(1), "dice")[:, part.by_rarity]
    heights = [bar.get_height() for bar in axes[part.losses.index("focal")].patches]
    assert heights == pytest.approx(np.nanmean(dice, axis=0))


def test_predictions_stand_beside_the_truth_for_every_loss_with_a_legend_of_classes(part, drawings):
    drawing = drawings["predictions"]
    axes = np.array(drawing.figure.axes).reshape(len(part.losses) + 2, figures.SHOWN)
    heads = [axis.get_ylabel().replace("\n", "") for axis in axes[:, 0]]
    assert heads == ["image", "truth", *part.losses]
    for row, loss in enumerate(part.losses, start=2):
        for column in range(figures.SHOWN):
            shown = axes[row, column].images[0].get_array()
            assert np.array_equal(shown, part.predictions[loss][column])
    assert np.array_equal(axes[1, 0].images[0].get_array(), part.targets[0])
    present = {part.classes[c] for c in np.unique(part.targets[: figures.SHOWN])}
    assert present <= set(legend_texts(drawing)) <= set(part.classes)
    assert all(name in drawing.caption for name in part.shown_ids[: figures.SHOWN])


def test_a_class_has_the_same_colour_in_truth_prediction_and_legend(part, drawings):
    drawing = drawings["predictions"]
    image = drawing.figure.axes[figures.SHOWN].images[0]
    wanted = style.class_colours(part.classes)
    for index, colour in enumerate(wanted):
        assert to_hex(image.cmap(image.norm(index))).upper() == colour.upper()
    legend = drawing.figure.legends[0]
    for patch, text in zip(legend.get_patches(), legend.get_texts(), strict=True):
        colour = wanted[part.classes.index(text.get_text())]
        assert to_hex(patch.get_facecolor()).upper() == colour.upper()


def test_unlabelled_pixels_are_masked_in_truth_and_predictions(part):
    targets = part.targets.copy()
    targets[0, :4] = 255
    drawing = figures.predictions(dataclasses.replace(part, targets=targets))
    for axis in drawing.figure.axes[figures.SHOWN :: figures.SHOWN]:
        mask = np.ma.getmaskarray(axis.images[0].get_array())
        assert mask[:4].all() and not mask[4:].any()
    assert "no label" in legend_texts(drawing)


def test_records_without_predictions_say_so(part):
    none = dataclasses.replace(part, predictions={})
    missing = figures.predictions(none)
    assert isinstance(missing, Missing)
    assert "no predictions of unet on digits" in missing._repr_html_()


def test_intervals_show_mean_band_and_each_seed(scores, drawings):
    part = scores.part
    axis = drawings["intervals"].figure.axes[0]
    interval = scores.interval("dice")
    at = [line for line in axis.lines if set(np.atleast_1d(line.get_ydata())) == {3}]
    band, seeds, mean = (np.atleast_1d(line.get_xdata()) for line in at)
    assert list(band) == [interval.low, interval.high]
    assert list(seeds) == list(scores.per_seed("dice"))
    assert list(mean) == [interval.estimate]
    assert [label.get_text() for label in axis.get_yticklabels()] == part.losses


@pytest.mark.parametrize("name", ["intervals", "curves", "bars", "predictions"])
def test_a_figure_is_as_wide_as_the_page_holds_its_text_and_has_words(part, drawings, name):
    drawing = drawings[name]
    page = drawing._repr_html_()
    picture = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', page)[1])
    height, width = imread(io.BytesIO(picture)).shape[:2]
    assert width == 1500 and 'width="750"' in page  # sharp on a screen of two dots a pixel
    assert 600 < height < 3200
    # inches: what is drawn, ticks and labels included, stays inside the figure
    box = drawing.figure.get_tightbbox()
    assert box.x0 > -0.02 and box.x1 < style.FIGURE_WIDTH + 0.02
    assert box.y0 > -0.02 and box.y1 < height / 300 + 0.02
    # and who cannot see it is told of every loss
    assert all(loss in drawing.alt for loss in part.losses)
    assert f'alt="{html.escape(drawing.alt)}"' in page and "<figcaption" in page
    assert len(drawing.alt.split()) < 100
    assert "http" not in page


def test_a_figure_drawn_twice_is_the_same_picture(scores):
    first, again = (figures.intervals([scores]).png() for _ in range(2))
    assert first == again


def test_street_scenes_in_colour_without_background_are_drawn(make_records, tmp_path):
    made = make_records(
        tmp_path / "street",
        losses=("ce",),
        models=("unet",),
        seeds=(0,),
        images=6,
        background=False,
    )
    street = records.load(made).parts[0]
    assert street.foreground == list(range(6))
    coloured = dataclasses.replace(street, images=np.repeat(street.images, 3, axis=-1))
    drawing = figures.predictions(coloured)
    assert isinstance(drawing, Drawing)
    assert drawing.figure.axes[0].images[0].get_array().shape == (32, 32, 3)
    assert figures.intervals([Scores(street)]).png()

"""Colours: one per loss, the same everywhere, told apart without seeing hue differences well."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.lines import Line2D

from lossatlas import losses
from lossatlas.report import style

QUICK = ["ce", "weighted_ce", "focal", "dice", "lovasz_softmax", "lovasz_hinge"]

NAMES = losses.names()

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
SEEN = {
    "normal vision": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}


def cielab(colour, vision):
    """CIELAB (D65) of ``#RRGGBB`` as a viewer sees it."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(SEEN[vision] @ linear, 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = (
        np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116
        for v in to_xyz @ linear / [0.95047, 1.0, 1.08883]
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_lab_of_white_and_of_pure_red_is_what_the_standard_says():
    assert cielab("#FFFFFF", "normal vision") == pytest.approx([100, 0, 0], abs=0.1)
    assert cielab("#FF0000", "normal vision") == pytest.approx([53.2, 80.1, 67.2], abs=0.2)


def test_every_loss_of_the_book_has_a_place_in_the_order():
    assert list(style.LOSS_ORDER) == list(NAMES)


def test_matplotlib_takes_every_losss_style():
    for name in NAMES:  # an unknown marker or line raises
        assert Line2D([0], [0], **style.loss_style(name)).get_color() == style.loss_colour(name)


def test_no_two_losses_share_a_colour():
    assert len({style.loss_colour(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("vision", list(SEEN))
def test_the_quick_studys_colours_are_far_apart_for_every_viewer(vision):
    # 2.3 is a just noticeable difference; lines and bars need about ten times that.
    for a, b in itertools.combinations(QUICK, 2):
        seen = [cielab(style.loss_colour(name), vision) for name in (a, b)]
        assert np.linalg.norm(seen[0] - seen[1]) > 20, (a, b)


def test_the_distance_test_would_fail_for_red_beside_green():
    red, green = (cielab(colour, "deuteranopia") for colour in ("#CC3311", "#7A6A00"))
    assert np.linalg.norm(red - green) < 20


def test_an_unknown_label_gets_the_same_style_each_time_and_no_known_losss_colour():
    first = style.loss_style("my_loss")
    assert first == style.loss_style("my_loss")
    assert first["color"] not in {style.loss_colour(name) for name in NAMES}


def test_variants_of_one_loss_in_a_study_look_different():
    losses = {"focal": "focal", "focal_g1": "focal", "focal_g5": "focal", "mine": "mine"}
    styles = style.study_styles(losses)
    assert styles["focal"] == style.loss_style("focal")
    assert len({s["color"] for s in styles.values()}) == 4
    assert len({(str(s["linestyle"]), s["marker"]) for s in styles.values()}) == 4


def test_a_single_variant_keeps_its_losss_style():
    assert style.study_styles({"focal_g1": "focal"})["focal_g1"] == style.loss_style("focal")


def test_order_is_the_books_and_unknown_labels_come_last():
    assert style.in_order(["zeta", "dice", "alpha", "ce"]) == ["ce", "dice", "alpha", "zeta"]


def test_background_is_black_void_is_white_and_classes_differ():
    classes = ["background", *map(str, range(10))]
    colours = style.class_colours(classes)
    assert colours[0] == "#000000"
    assert len(set(colours)) == 11
    assert style.VOID_COLOUR not in colours
    seen = style.class_colourmap(classes)(np.ma.masked_array([0, 3], mask=[False, True]))
    assert seen[0] == pytest.approx([0, 0, 0, 1])
    assert seen[1] == pytest.approx([1, 1, 1, 1])


@pytest.mark.parametrize("vision", list(SEEN))
def test_class_colours_differ_noticeably_for_every_viewer(vision):
    colours = style.class_colours(map(str, range(11)))
    seen = [cielab(colour, vision) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 5


def test_type_is_at_least_nine_and_a_half_points_in_every_figure():
    with mpl.rc_context():
        style.set_theme()
        sizes = ("font.size", "axes.labelsize", "xtick.labelsize", "legend.fontsize")
        assert min(mpl.rcParams[key] for key in sizes) >= 9.5
        assert mpl.rcParams["figure.figsize"][0] == style.FIGURE_WIDTH

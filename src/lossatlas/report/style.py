"""The one place of colours: a loss looks the same on every page, and comes in the same order.

Hue says the family (Okabe and Ito's palette, which people with colour-vision deficiency can tell
apart; Okabe and Ito, "Color Universal Design", 2008), lightness, line style and marker say the
member. No figure relies on hue alone.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.colors import Colormap, ListedColormap

_SOLID: Any = "-"
_DASHED: Any = (0, (5, 1.6))
_DOTTED: Any = (0, (1, 1.2))
_DASH_DOT: Any = (0, (5, 1.4, 1, 1.4))
_LONG: Any = (0, (9, 2))
_DASH_DOT_DOT: Any = (0, (5, 1.2, 1, 1.2, 1, 1.2))
_WIDE: Any = (0, (3, 3))

# name -> (colour, line style, marker), in the book's order.
_STYLES: dict[str, tuple[str, Any, str]] = {
    # cross-entropy: black, then blue
    "ce": ("#000000", _SOLID, "o"),
    "weighted_ce": ("#0072B2", _DASHED, "s"),
    "one_vs_all_ce": ("#5F5F5F", _DOTTED, "X"),
    "balanced_ce": ("#003F66", _DASH_DOT, "D"),
    "ohem_ce": ("#3F97CE", _LONG, "P"),
    "topk_ce": ("#8C8C8C", _DASH_DOT_DOT, "h"),
    "logit_adjusted_ce": ("#00507A", _WIDE, "p"),
    # focal and its like: sky blue
    "focal": ("#56B4E9", _DASH_DOT, "^"),
    "poly1": ("#2C7FB0", _DOTTED, "v"),
    "asymmetric": ("#8FD0F2", _LONG, "<"),
    # Dice: vermilion
    "dice": ("#D55E00", _SOLID, "s"),
    "dice_squared": ("#8F3F00", _DASHED, "D"),
    "weighted_dice": ("#F0863C", _DASH_DOT, "o"),
    "inverse_dice": ("#5E2A00", _DOTTED, "X"),
    "generalized_dice": ("#B8510A", _LONG, "P"),
    "log_cosh_dice": ("#F7B184", _DASH_DOT_DOT, "h"),
    # other ratios of overlap: orange
    "jaccard": ("#E69F00", _SOLID, "D"),
    "tversky": ("#A67300", _DASHED, "^"),
    "focal_tversky": ("#FFC845", _DASH_DOT, "v"),
    "dice_semimetric": ("#6E4C00", _DOTTED, "P"),
    # Lovász: green
    "lovasz_softmax": ("#009E73", _SOLID, "^"),
    "lovasz_hinge": ("#004D38", _DASHED, "v"),
    # families of their own
    "unified_focal": ("#1F5C8A", _DASH_DOT_DOT, "<"),
    "boundary": ("#B5A400", _SOLID, "P"),
    "hausdorff": ("#736800", _DASHED, "X"),
    "soft_cldice": ("#C9BE4A", _DASH_DOT, "h"),
    # compounds: reddish purple
    "dice_ce": ("#CC79A7", _SOLID, "o"),
    "dice_focal": ("#9B4577", _DASHED, "^"),
    "dice_topk": ("#6B2C50", _DASH_DOT, "h"),
    "ce_lovasz": ("#E3A9C8", _LONG, "v"),
    "nnunet_dice_ce": ("#B05E8C", _DOTTED, "D"),
    "sam2_focal_dice": ("#4A1A38", _DASH_DOT_DOT, "s"),
}

#: Every loss of the book, in the order in which tables, legends and axes have them.
LOSS_ORDER: tuple[str, ...] = tuple(_STYLES)

_SPARE_LINES = (_WIDE, _DASH_DOT_DOT, _LONG, _DOTTED, _DASH_DOT, _DASHED)
_SPARE_MARKERS = ("p", "<", ">", "*", "8", "H")
# Grey-violet hues that no loss of the list has.
_SPARE_COLOURS = ("#7A6A99", "#A08FBF", "#55486E", "#8F7F8F", "#6A5ACD", "#B39BC8")

#: Width of every figure in inches. A page shows it 350 to 750 pixels wide: type of 9.5 points is
#: then 9 pixels high or more.
FIGURE_WIDTH = 5.0
#: Pixels an inch on a page. A picture has twice as many, so that lines are sharp on a screen of two dots a pixel.
DPI = 150

#: CSS of captions of figures and tables: the theme's own is too faint.
CAPTION_STYLE = "color:inherit;font-size:0.9em;font-weight:400;text-align:left;margin:0.3rem 0 1rem"


def per_cent(fraction: float) -> str:
    """A fraction in per cent with two significant digits, as "2.7 %", not broken between lines."""
    value = 100 * float(fraction)
    digits = f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"
    return f"{digits}\N{NO-BREAK SPACE}%"


def loss_style(name: str) -> dict[str, Any]:
    """Keywords of a matplotlib line for a loss: ``color``, ``linestyle`` and ``marker``.

    A label that is not in `LOSS_ORDER` gets a style of its own that depends on the label alone, so
    that it too is the same on every page; two such labels may coincide, see `study_styles`.
    """
    if name in _STYLES:
        colour, line, marker = _STYLES[name]
    else:
        digest = hashlib.sha256(name.encode()).digest()
        colour = _SPARE_COLOURS[digest[0] % len(_SPARE_COLOURS)]
        line = _SPARE_LINES[digest[1] % len(_SPARE_LINES)]
        marker = _SPARE_MARKERS[digest[2] % len(_SPARE_MARKERS)]
    return {"color": colour, "linestyle": line, "marker": marker}


def loss_colour(name: str) -> str:
    """Colour of a loss as ``#RRGGBB``."""
    return str(loss_style(name)["color"])


def study_styles(losses: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Styles for a study's losses, by label and all different.

    `losses` maps each label to the registry name. A label that is a registry name keeps its style;
    a variant ("focal_g1" of "focal") takes its loss's colour when that is free, with a spare line
    style and marker.
    """
    styles: dict[str, dict[str, Any]] = {}
    variants: dict[str, int] = {}
    for label, name in losses.items():
        if label in _STYLES or name not in _STYLES:
            styles[label] = loss_style(label)
            continue
        styles[label] = loss_style(name)
        if name in losses or variants.get(name):
            place = variants.get(name, 0) % len(_SPARE_LINES)
            styles[label] |= {
                "linestyle": _SPARE_LINES[place],
                "marker": _SPARE_MARKERS[place],
                "color": _lighter(loss_colour(name), 0.25 + 0.12 * place),
            }
        variants[name] = variants.get(name, 0) + 1
    return styles


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels in the book's order; unknown ones behind, alphabetically."""
    places = {name: place for place, name in enumerate(LOSS_ORDER)}
    return sorted(labels, key=lambda label: (places.get(label, len(places)), label))


def _lighter(colour: str, amount: float) -> str:
    """`colour` moved by `amount` of the way to white."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    mixed = (round(part + (255 - part) * amount) for part in (red, green, blue))
    return "#" + "".join(f"{part:02X}" for part in mixed)


# Classes of a segmentation: as far apart as twelve colours go, beside black and white.
_CLASS_COLOURS = (
    "#4477AA",
    "#EE6677",
    "#CCBB44",
    "#66CCEE",
    "#AA3377",
    "#228833",
    "#EE7733",
    "#BBBBBB",
    "#88CC88",
    "#7766CC",
    "#EECC88",
    "#997700",
    "#FFAABB",
    "#44BB99",
    "#DDDDFF",
    "#884422",
)
#: Colour of pixels without a label.
VOID_COLOUR = "#FFFFFF"


def class_colours(classes: Iterable[str]) -> list[str]:
    """One colour a class, in order; black for a class called background.

    More classes than colours: the colours begin again, and the legend says which is which.
    """
    colours, place = [], 0
    for name in classes:
        if name == "background":
            colours.append("#000000")
        else:
            colours.append(_CLASS_COLOURS[place % len(_CLASS_COLOURS)])
            place += 1
    return colours


def class_colourmap(classes: Iterable[str]) -> Colormap:
    """Colour map of class indices; masked (void) pixels are white."""
    return ListedColormap(class_colours(classes)).with_extremes(bad=VOID_COLOUR)


def set_theme() -> None:
    """Set matplotlib's defaults for every figure of the book; in a notebook, pictures of twice the pixels."""
    ipython = sys.modules.get("IPython")
    if (shell := ipython and ipython.get_ipython()) is not None:
        from matplotlib_inline.config import InlineBackend

        InlineBackend.instance(parent=shell).figure_formats = {"retina"}
    mpl.rcParams.update(
        {
            "figure.figsize": (FIGURE_WIDTH, 3.0),
            "figure.dpi": DPI,
            "figure.facecolor": "white",
            "font.size": 10.0,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.labelsize": 10.0,
            "xtick.labelsize": 9.5,
            "ytick.labelsize": 9.5,
            "legend.fontsize": 9.5,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.5,
            "lines.markersize": 4.5,
            "svg.hashsalt": "lossatlas",
        }
    )

"""Points of trainings in labelled rows: each row its label, its loss's colour and marker, and all its points."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lossatlas.report.strips import strips
from lossatlas.report.style import loss_colour

TRAININGS = pd.DataFrame(
    {
        "task": ["cracks"] * 4 + ["vessels"] * 2,
        "kind": ["CE", "CE", "Dice", "Dice, 0", "Dice", "CE"],
        "loss": ["ce", "ce", "dice", "dice", "dice", "ce"],
        "score": [0.5, 0.6, 0.4, 0.3, 0.7, 0.8],
    }
)


@pytest.fixture
def axes():
    figure = strips(
        TRAININGS, "score", panel="task", row="kind", hollow=["Dice, 0"], label="test Dice"
    )
    yield figure.axes
    plt.close(figure)


def test_every_panel_has_the_labels_of_its_rows_and_their_points(axes):
    assert [axis.get_title(loc="left") for axis in axes] == ["cracks", "vessels"]
    labels = [[tick.get_text() for tick in axis.get_yticklabels()] for axis in axes]
    assert labels == [["CE", "Dice", "Dice, 0"], ["CE", "Dice"]]
    drawn = [np.concatenate([c.get_offsets() for c in axis.collections]) for axis in axes]
    assert sorted(map(tuple, drawn[0])) == [(0.3, 2), (0.4, 1), (0.5, 0), (0.6, 0)]
    assert sorted(map(tuple, drawn[1])) == [(0.7, 1), (0.8, 0)]
    assert axes[-1].get_xlabel() == "test Dice"


def test_a_row_has_the_colour_of_its_loss_and_is_filled_unless_it_is_hollow(axes):
    ce, dice, zero = axes[0].collections
    assert [to_hex(c.get_edgecolor()[0]) for c in (ce, dice, zero)] == [
        loss_colour(name).lower() for name in ("ce", "dice", "dice")
    ]
    assert len(ce.get_facecolor()) and len(dice.get_facecolor()) and not len(zero.get_facecolor())


def test_the_losses_differ_in_their_marker(axes):
    ce, dice, _ = (collection.get_paths()[0].vertices for collection in axes[0].collections)
    assert ce.shape != dice.shape


@pytest.mark.parametrize("share", [False, True])
def test_panels_share_their_axis_where_asked(share):
    figure = strips(TRAININGS, "score", panel="task", row="kind", share=share)
    ends = [axis.get_xlim() for axis in figure.axes]
    assert (ends[0] == ends[1]) == share
    plt.close(figure)

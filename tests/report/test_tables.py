"""Tables say what the records say, with n and intervals."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex

import pytest

from lossatlas.report import tables
from lossatlas.report.scores import Scores, by_dataset


@pytest.fixture(scope="module")
def both(study):
    return by_dataset(study)["digits"]


def test_rows_are_losses_columns_are_models_and_cells_have_intervals(both, study):
    table = tables.comparison(both, study.losses)
    assert list(table.frame.columns) == ["unet", "segnet"]
    assert list(table.frame.index) == [*study.losses, "best constant"]
    assert table.frame.loc["focal", "unet"].startswith(both[0].interval("focal").text())


def test_the_highest_mean_is_bold_and_losses_that_are_not_significantly_lower_are_marked(
    both, study
):
    table = tables.comparison(both, study.losses)
    for scores in both:
        leader = scores.leader()
        assert (leader, scores.part.model) in table.bold
        for loss in study.losses:
            marked = tables.NOT_LOWER in table.frame.loc[loss, scores.part.model]
            assert marked == (loss != leader and loss in scores.level_with_leader())


def test_of_fewer_than_three_seeds_no_loss_is_the_highest(both, study):
    part = both[0].part
    two = dataclasses.replace(
        part,
        seeds={loss: seeds[:2] for loss, seeds in part.seeds.items()},
        by_rule={
            rule: {loss: counts[:2] for loss, counts in of_loss.items()}
            for rule, of_loss in part.by_rule.items()
        },
        runs=part.runs[part.runs.seed.isin([0, 1])],
    )
    table = tables.comparison([Scores(two)], study.losses)
    assert not table.bold and "Bold" not in table.caption
    assert not table.frame.apply(lambda c: c.str.contains(tables.NOT_LOWER)).any(axis=None)


def test_the_caption_has_the_number_of_seeds_and_images(both, study):
    caption = tables.comparison(both, study.losses).caption
    assert "over 3 seeds" in caption
    assert "24 test images" in caption
    assert "better" not in caption


def test_a_loss_without_a_run_has_a_dash_and_one_with_fewer_seeds_its_n(both, study):
    part = both[0].part
    fewer = dataclasses.replace(
        part,
        losses=["ce", "dice"],
        seeds={"ce": [0, 1, 2], "dice": [0, 2]},
        counts={"ce": part.counts["ce"], "dice": part.counts["dice"][[0, 2]]},
    )
    frame = tables.comparison([Scores(fewer)], study.losses).frame
    assert frame.loc["focal", "unet"] == "–"
    assert "(n = 2)" in frame.loc["dice", "unet"]
    assert "(n =" not in frame.loc["ce", "unet"]


def test_details_pair_every_loss_with_cross_entropy(both):
    frame = tables.details(both[0]).frame
    assert frame.loc["ce", "Dice − ce"] == "–"
    expected = both[0].difference("dice", "ce").text(n=False)
    assert frame.loc["dice", "Dice − ce"] == expected
    assert set(frame["seeds"]) == {"3"}
    assert {"IoU", "precision", "recall", "pixel accuracy", "Dice per image"} <= set(frame.columns)


def test_a_table_is_html_with_row_heads_a_swatch_a_loss_and_nothing_from_elsewhere(both, study):
    table = tables.comparison(both, study.losses)
    page = table._repr_html_()
    assert page.count('scope="row"') == len(study.losses) + 1
    assert page.count("■") == len(study.losses)
    assert page.count("<strong>") == 2
    assert "http" not in page
    assert page == tables.comparison(both, study.losses)._repr_html_()


def test_names_with_markup_are_escaped(both):
    table = dataclasses.replace(tables.details(both[0]), caption="<script>")
    assert "<script>" not in table._repr_html_()


def test_the_command_repeats_a_cell_with_all_its_seeds(both):
    command = shlex.split(tables.command(both[0].part, "dice"))
    assert command[:5] == ["papermill", "notebooks/train.ipynb", "out.ipynb", "-k", "python3"]
    values = json.loads(command[-1])
    assert values["seeds"] == [0, 1, 2]
    assert values["loss"] == "dice" and values["model"] == "unet"
    assert "seed" not in values


def test_every_run_folder_is_listed(study):
    listed = tables.runs(study)
    assert all(run_id in listed for run_id in study.runs.run_id)
    assert len(re.findall("<li>", listed)) == 12

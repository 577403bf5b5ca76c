"""Tables say what the records say, with n and intervals."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex

import numpy as np
import pytest

from lossatlas.report import tables
from lossatlas.report.scores import Scores, by_dataset
from lossatlas.statistics.intervals import number


@pytest.fixture(scope="module")
def both(study):
    return by_dataset(study)["digits"]


def row_of(table, loss, network):
    """The row of a loss and a network, and its number."""
    (place,) = np.flatnonzero((table.frame.index == loss) & (table.frame.network == network))
    return table.frame.iloc[place], place


def test_a_row_has_mean_and_difference_with_their_ends_in_columns(both, study):
    table = tables.comparison(both, study.losses)
    assert list(table.frame.index) == 2 * [*study.losses, "best constant"]
    for scores in both:
        row, _ = row_of(table, "dice", scores.part.model)
        mean, gap = scores.interval("dice"), scores.difference("dice", "ce")
        ends = row["Dice"].split()[0], row["from"], row["to"]
        assert ends == tuple(map(number, (mean.estimate, mean.low, mean.high)))
        ends = [row[f"minus ce{end}"] for end in ("", " from", " to")]
        assert ends == [number(each, True) for each in (gap.estimate, gap.low, gap.high)]
        assert row_of(table, "ce", scores.part.model)[0]["minus ce"] == "–"


def test_no_cell_has_two_numbers(both, study):
    for table in (tables.comparison(both, study.losses), *map(tables.details, both)):
        counts = table.frame.map(lambda cell: len(re.findall(r"\d+(?:\.\d+)?", cell)))
        assert counts.to_numpy().max() == 1


def test_the_highest_mean_is_bold_and_losses_that_are_not_significantly_lower_are_marked(
    both, study
):
    table = tables.comparison(both, study.losses)
    for scores in both:
        leader = scores.leader()
        for loss in study.losses:
            row, place = row_of(table, loss, scores.part.model)
            assert ((place, "Dice") in table.bold) == (loss == leader)
            marked = tables.NOT_LOWER in row["Dice"]
            assert marked == (loss != leader and loss in scores.level_with_leader())


def test_of_fewer_than_three_seeds_no_loss_is_the_highest(both, study):
    part = both[0].part
    two = dataclasses.replace(
        part,
        seeds={loss: seeds[:2] for loss, seeds in part.seeds.items()},
        counts={loss: counts[:2] for loss, counts in part.counts.items()},
        runs=part.runs[part.runs.seed.isin([0, 1])],
    )
    table = tables.comparison([Scores(two)], study.losses)
    assert not table.bold and "Bold" not in table.caption
    assert list(table.frame.columns) == ["network", "Dice", "seeds"]
    assert not table.frame.apply(lambda c: c.str.contains(tables.NOT_LOWER)).any(axis=None)


def test_the_caption_has_the_number_of_seeds_and_images(both, study):
    caption = tables.comparison(both, study.losses).caption
    assert "from 3 seeds and 24 test images" in caption
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
    assert set(frame.loc["focal"].drop("network")) == {"–"}
    assert list(frame.loc[["ce", "dice"], "seeds"]) == ["3", "2"]


def test_details_have_the_other_metrics_and_both_ends_of_the_training(both):
    part, frame = both[0].part, tables.details(both[0]).frame
    assert frame.loc["dice", "IoU"] == number(both[0].mean("dice", "foreground_iou"))
    curves = part.curves[part.curves.loss == "dice"]
    late = curves[curves.step > 57]  # a twentieth of 60 steps
    assert frame.loc["dice", "loss, last"] == f"{late.loss_value.mean():.3g}"
    assert frame.loc["dice", "gradient, last"] == f"{late.grad_norm.mean():.3g}"
    without = dataclasses.replace(part, curves=part.curves[part.curves.loss != "dice"])
    assert tables.details(Scores(without)).frame.loc["dice", "loss, first"] == "–"


def test_a_table_is_html_with_row_heads_a_swatch_a_loss_and_nothing_from_elsewhere(both, study):
    table = tables.comparison(both, study.losses)
    page = table._repr_html_()
    assert page.count('scope="row"') == 2 * (len(study.losses) + 1)
    assert page.count("■") == 2 * len(study.losses)
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

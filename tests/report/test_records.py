"""Records are read whole, or refused with one clear line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lossatlas.report import records
from lossatlas.report.records import RecordsError
from lossatlas.report.scores import Scores


@pytest.fixture
def spoilt(folder, tmp_path):
    """A copy of the records to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "quick"))


def edit_study(folder, **changes):
    path = folder / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_table(folder, name, change):
    path = folder / f"{name}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def test_every_pair_of_data_set_and_model_becomes_a_part(study):
    assert [(p.dataset, p.model) for p in study.parts] == [("digits", "unet"), ("digits", "segnet")]
    assert study.name == "quick"
    assert study.missing_runs == 0


def test_a_part_has_every_losss_counts_seeds_and_predictions(part):
    assert part.losses == [
        *("ce", "weighted_ce", "focal", "dice", "lovasz_softmax", "lovasz_hinge")
    ]
    assert part.seeds["dice"] == [0, 1, 2]
    assert part.counts["dice"].shape == (3, 24, 11, 3)
    assert part.predictions["dice"].shape == part.targets.shape == (6, 32, 32)
    assert part.foreground == list(range(1, 11))


def test_counts_are_where_their_run_image_and_class_say(folder, part):
    table = pd.read_parquet(folder / "per_image.parquet")
    row = table[
        (table.run_id == "unet-dice-2") & (table.image_id == "test-005") & (table.class_index == 1)
    ].iloc[0]
    assert part.counts["dice"][2, 5, 1].tolist() == [row.tp, row.fp, row.fn]


def test_of_two_classes_the_second_is_enough():
    """Committed records of two classes have the foreground's rows alone; the background follows."""
    folder = Path(__file__).resolve().parents[2] / "results/begin"
    part = records.load(folder).parts[0]
    table = pd.read_parquet(folder / "per_image.parquet")
    assert set(table.class_index) == {1}
    row = table[(table.dataset == part.dataset) & (table.model == part.model)].iloc[0]
    seed, image = part.seeds[row.loss].index(row.seed), part.image_ids.index(row.image_id)
    background, foreground = part.by_rule[row.rule][row.loss][seed, image]
    missed = row.target - row.tp
    assert foreground.tolist() == [row.tp, row.fp, missed]
    assert background.tolist() == [row.pixels - row.target - row.fp, missed, row.fp]


def test_the_order_of_a_tables_rows_does_not_matter(spoilt, part):
    for name in ("runs", "per_class", "per_image", "curves"):
        edit_table(spoilt, name, lambda t: t.sample(frac=1, random_state=0))
    shuffled = records.load(spoilt).parts[0]
    assert shuffled.seeds == part.seeds
    place = [shuffled.image_ids.index(name) for name in part.image_ids]
    assert np.array_equal(shuffled.counts["focal"][:, place], part.counts["focal"])


def test_classes_run_from_the_most_to_the_least_frequent(part):
    fractions = [part.fractions[c] for c in part.by_rarity]
    assert fractions == sorted(fractions, reverse=True)
    assert 0 not in part.by_rarity
    assert part.fractions.sum() == pytest.approx(1)


def test_losses_come_in_the_books_order_whatever_the_study_has(make_records, tmp_path):
    made = make_records(tmp_path / "s", losses=("dice", "mine", "ce"), models=("unet",), images=4)
    assert records.load(made).parts[0].losses == ["ce", "dice", "mine"]
    assert records.load(made).losses == ["ce", "dice", "mine"]


def test_runs_that_did_not_finish_leave_the_others(spoilt):
    gone = "unet-dice-1"
    for name in ("runs", "per_class", "per_image", "curves"):
        edit_table(spoilt, name, lambda t: t[t.run_id != gone])
    edit_study(spoilt, missing_runs=1)
    study = records.load(spoilt)
    assert study.parts[0].seeds["dice"] == [0, 2]
    assert study.missing_runs == 1


def test_a_folder_without_records_names_the_command_that_makes_them(tmp_path):
    with pytest.raises(RecordsError, match=r"expected a study's records.*make book STUDY=quick"):
        records.load(tmp_path / "nowhere", "quick")


def without(folder, key):
    path = folder / "study.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))


def renamed(table):
    own = (table.run_id == "unet-dice-0") & (table.image_id == "test-003")
    return table.assign(image_id=table.image_id.mask(own, "another"))


def change(name, made):
    return lambda folder: edit_table(folder, name, made)


def dropped(name, column):
    return change(name, lambda t: t.drop(columns=column)), rf"{name}\.parquet.*missing: {column}"


#: What is wrong with the records, how they come to it, and what the error says.
WRONG = {
    "another schema": (
        lambda folder: edit_study(folder, schema=4),
        "expected records of schema 3, got 4",
    ),
    "a missing key of the study": (lambda folder: without(folder, "classes"), "missing: classes"),
    "another study": (
        lambda folder: edit_study(folder, study="quick_camvid"),
        "expected the study 'quick', got 'quick_camvid'",
    ),
    "a study file that is no JSON": (
        lambda folder: (folder / "study.json").write_text("{"),
        "expected JSON",
    ),
    "runs without a column": dropped("runs", "foreground_dice"),
    "classes without a column": dropped("per_class", "dice"),
    "images without a column": dropped("per_image", "fn"),
    "curves without a column": dropped("curves", "step"),
    "no curves": (
        lambda folder: (folder / "curves.parquet").unlink(),
        r"curves.parquet.*found no file",
    ),
    "no predictions": (
        lambda folder: (folder / "predictions.npz").unlink(),
        r"predictions.npz.*found no file",
    ),
    "an empty table": (change("per_class", lambda t: t.iloc[:0]), "expected at least one row"),
    "the same run twice": (
        change("runs", lambda t: pd.concat([t, t.iloc[:1]])),
        "expected one run for each",
    ),
    "a loss that the study does not announce": (
        lambda folder: edit_study(folder, losses=[{"label": "dice", "name": "dice"}]),
        r"loss 'ce' is not in study\.json",
    ),
    "tables that speak of different runs": (
        change("per_class", lambda t: t[t.run_id != "unet-ce-0"]),
        "unet-ce-0 is in one of them only",
    ),
    "an image missing from one run": (
        change("per_image", lambda t: t[(t.run_id != "unet-dice-0") | (t.image_id != "test-003")]),
        "expected a row for each of 24 images and 11 classes",
    ),
    "an image of another name": (change("per_image", renamed), r"in run unet-dice-0;"),
    "counts that contradict a run's Dice": (
        change("runs", lambda t: t.assign(foreground_dice=t.foreground_dice + 1e-3)),
        "the counts of run .* give a foreground Dice of",
    ),
    "an image to leave out that is not there": (
        lambda folder: edit_study(folder, left_out={"digits": ["test-999"]}),
        "test images of digits, got 'test-999'",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG)
def test_wrong_records_are_refused_and_what_is_wrong_is_named(spoilt, spoil, message):
    spoil(spoilt)
    with pytest.raises(RecordsError, match=message):
        records.load(spoilt, "quick")


@pytest.mark.parametrize("name", ["per_class", "per_image"])
@pytest.mark.parametrize("runs", [["unet-dice-0"], None])
def test_a_run_without_counts_by_the_largest_logit_is_named(spoilt, name, runs):
    def ruled(table):
        of = table.run_id.isin(runs or table.run_id)
        return table.assign(rule=table.rule.astype(str).mask(of, "tuned"))

    edit_table(spoilt, name, ruled)
    wanted = r"rule argmax in every run, got none in run unet-.*; collect the records anew"
    with pytest.raises(RecordsError, match=wanted):
        records.load(spoilt)


# The notebook's parameters


def test_the_reports_own_parameters_pass():
    namespace = {"study": "quick", "records": "results/quick", "_private": 1, "In": [], "sys": sys}
    records.check_parameters(namespace)


def test_an_unknown_parameter_stops_the_report_with_the_near_match():
    with pytest.raises(RecordsError, match="unknown parameter 'studdy'; did you mean 'study'"):
        records.check_parameters({"study": "a", "records": "b", "studdy": "c"})
    with pytest.raises(RecordsError, match="known: study, records"):
        records.check_parameters({"xyz": 1})


@pytest.mark.parametrize("value", [3, "", None, ["quick"]])
def test_a_parameter_that_is_no_text_stops_the_report(value):
    with pytest.raises(RecordsError, match="study: expected text"):
        records.check_parameters({"study": value, "records": "b"})


def test_a_notebook_shows_the_error_as_one_line():
    assert RecordsError("what")._render_traceback_() == ["RecordsError: what"]


def test_a_loss_with_fewer_measures_has_no_counts_by_their_rules(spoilt):
    edit_table(spoilt, "runs", lambda t: t.assign(foreground_dice_tuned=t.foreground_dice))
    tuned = lambda t: pd.concat([t, t[t.loss != "focal"].assign(rule="tuned")])  # noqa: E731
    edit_table(spoilt, "per_image", tuned)
    (part, *_) = records.load(spoilt).parts
    assert set(part.by_rule["tuned"]) == set(part.losses) - {"focal"}
    assert set(part.by_rule["argmax"]) == set(part.losses)


def test_a_test_image_that_is_left_out_counts_in_no_result(spoilt, study):
    gone = ["test-000", "test-005"]
    edit_study(spoilt, left_out={"digits": gone})
    loaded = records.load(spoilt, "quick")
    for part, before in zip(loaded.parts, study.parts, strict=True):
        assert part.image_ids == [name for name in before.image_ids if name not in gone]
        assert len(part.groups) == len(part.image_ids)
        kept = [k for k, name in enumerate(before.image_ids) if name not in gone]
        for loss in before.losses:
            assert (part.counts[loss] == before.counts[loss][:, kept]).all()
        of = Scores(part).per_seed("dice")
        runs = part.runs[part.runs.loss == "dice"].sort_values("seed")
        assert np.allclose(runs.foreground_dice, of)
        assert not np.allclose(of, Scores(before).per_seed("dice"))
    assert loaded.runs.run_id.tolist() == study.runs.run_id.tolist()
    both = loaded.runs.foreground_dice, pd.concat(part.runs for part in loaded.parts)
    assert both[0].tolist() == both[1].sort_index().foreground_dice.tolist()
    assert not set(gone) & set(loaded.per_image.image_id)


def test_the_records_of_defects_leave_out_the_twins_by_every_rule():
    loaded = records.load(Path(__file__).parents[2] / "results" / "thresholds_kolektor")
    assert sum(len(part.image_ids) for part in loaded.parts) == 31
    for part in loaded.parts:
        for rule, column in (("argmax", "foreground_dice"), ("tuned", "foreground_dice_tuned")):
            runs = part.runs[part.runs.loss == "dice"].sort_values("seed")
            assert np.allclose(runs[column], Scores(part, rule).per_seed("dice"))

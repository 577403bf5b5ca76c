"""Run folders become a study's records, and only finished runs count."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from small import change_record, tiny, train

from lossatlas import workflow
from lossatlas.experiments import ConfigError, RunConfig, Study, load_study
from lossatlas.experiments.collect import Preview, _of_two, _thin, collect, disagreement, preview
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.heartbeat import forget_failure
from lossatlas.experiments.record import read_run, run_path
from lossatlas.experiments.recorded import recorded_runs
from lossatlas.experiments.status import survey
from lossatlas.experiments.tuning import select, tuning_runs
from lossatlas.experiments.versions import component_versions
from lossatlas.metrics import confusion_per_image
from lossatlas.report import records

STUDY = tiny(losses=["ce", {"name": "dice", "label": "dice_again"}], seeds=[0, 1])
CONFIGS = [config for _, config in STUDY.reporting_runs()]


def changed(**changes):
    """The study with some of its keys replaced."""
    return Study.model_validate(STUDY.model_dump() | changes)


def study_of(folder):
    """What the records say of their study."""
    return json.loads((folder / "study.json").read_text())


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    datasets = load_datasets(STUDY.examples()[0])
    for config in CONFIGS:
        train(config, datasets, folder)
    return folder


@pytest.fixture
def copied(runs_dir, tmp_path):
    """The run folders, to change."""
    return shutil.copytree(runs_dir, tmp_path / "runs")


def test_the_records_have_one_row_a_run_and_the_study_s_labels(runs_dir, tmp_path):
    folder = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    runs = pd.read_parquet(folder / "runs.parquet")
    assert list(zip(runs.loss, runs.seed, strict=True)) == [
        ("ce", 0), ("ce", 1), ("dice_again", 0), ("dice_again", 1),
    ]  # fmt: skip
    assert list(runs.loss_name) == ["ce", "ce", "dice", "dice"]
    per_class = pd.read_parquet(folder / "per_class.parquet")
    per_image = pd.read_parquet(folder / "per_image.parquet")
    for table in (per_class, per_image):
        assert list(table.rule.unique()) == ["argmax", "tuned", "theory"]
    assert per_class.shape[0] == 4 * 11 * 3
    assert per_image.shape[0] == 4 * 11 * 6 * 3
    assert (per_image.pixels == 32 * 32).all()
    assert pd.read_parquet(folder / "curves.parquet").shape[0] == 4 * 2
    for name, column in (("curves", "loss_value"), ("runs", "foreground_dice")):
        groups = pq.ParquetFile(folder / f"{name}.parquet").metadata.row_group(0)
        of = {each["path_in_schema"]: each["encodings"] for each in groups.to_dict()["columns"]}
        assert "BYTE_STREAM_SPLIT" in of[column] and "RLE_DICTIONARY" in of["loss"]
    described = study_of(folder)
    assert described["missing_runs"] == 0
    assert described["classes"]["digits"][0] == "background"
    with np.load(folder / "predictions.npz", allow_pickle=False) as shown:
        assert shown["digits/unet/images"].shape[1:3] == shown["digits/unet/dice_again"].shape[1:3]


def test_records_keep_every_count_of_every_run(runs_dir, tmp_path):
    """The tables are sorted image by image, and false negatives follow from the labelled pixels."""
    other = changed(study="other")  # from the records of the first alone
    folders = [
        collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path),
        collect(other, runs_dir=tmp_path / "none", results_dir=tmp_path),
    ]
    for [part] in (records.load(folder).parts for folder in folders):
        for member, config in STUDY.reporting_runs():
            of_run = pd.read_parquet(run_path(runs_dir, config) / "per_image.parquet")
            seed = part.seeds[member.loss].index(member.seed)
            for rule, rows in of_run.groupby("rule"):
                image = [part.image_ids.index(name) for name in rows.image_id]
                here = part.by_rule[str(rule)][member.loss][seed, image, rows.class_index]
                assert (here == rows[["tp", "fp", "fn"]]).all(axis=None)


def test_a_preview_counts_what_collecting_would_do_and_writes_nothing(copied, tmp_path):
    places = {"runs_dir": copied, "results_dir": tmp_path / "results"}
    nothing = {"kept": 0, "renewed": 0, "added": 0, "lost": 0, "missing": 0}
    shutil.rmtree(run_path(copied, CONFIGS[0]))
    assert preview(STUDY, **places) == Preview(**nothing | {"added": 3, "missing": 1})
    assert not (tmp_path / "results").exists()
    collect(STUDY, **places)
    assert preview(STUDY, **places) == Preview(**nothing | {"kept": 3, "missing": 1})
    fewer = changed(seeds=[1, 2])
    would = preview(fewer, **places)
    assert (would.kept, would.lost, would.missing) == (2, 1, 2)
    assert "collect --fewer" in (would.refused or "")
    assert preview(fewer, **places, fewer=True).refused is None
    for folder in copied.iterdir():
        shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "results")
    nothing_there = preview(STUDY, **places)
    assert nothing_there.missing == 4 and "no run of study" in (nothing_there.refused or "")
    assert not (tmp_path / "results").exists()


def test_a_preview_sees_a_run_that_was_evaluated_again(copied, tmp_path):
    places = {"runs_dir": copied, "results_dir": tmp_path}
    folder = collect(STUDY, **places)
    again = {"utc": "2031-01-01T00:00:00+00:00", "commit": "c0ffee"}
    change_record(run_path(copied, CONFIGS[0]), evaluated=again)
    would = preview(STUDY, **places)
    assert (would.kept, would.renewed, would.added) == (3, 1, 0)
    collect(STUDY, **places)
    assert again["utc"] in set(pd.read_parquet(folder / "runs.parquet").evaluated_utc)
    assert preview(STUDY, **places).renewed == 0


def test_a_run_s_row_holds_what_each_decision_rule_found_as_its_counts_do(runs_dir, tmp_path):
    folder = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    runs = pd.read_parquet(folder / "runs.parquet").set_index("run_id")
    pooled = (
        pd.read_parquet(folder / "per_image.parquet")
        .groupby(["run_id", "rule", "class_index"])[["tp", "fp", "target"]]
        .sum()
        .query("class_index > 0")
    )
    scored = pooled.tp + pooled.fp + pooled.target
    dice = (2 * pooled.tp / scored.where(scored > 0)).groupby(["run_id", "rule"]).mean()
    for run_id, run in runs.iterrows():
        for rule, column in (("argmax", ""), ("tuned", "_tuned"), ("theory", "_theory")):
            assert run[f"foreground_dice{column}"] == pytest.approx(dice[run_id, rule], abs=1e-9)
        assert np.isfinite(run[["ece", "ece_foreground", "nll", "brier"]].astype(float)).all()
        assert run.val_foreground_dice_tuned >= run.val_foreground_dice
        assert len(json.loads(run.offsets_tuned)) == 11
        assert (run.optimizer, run.lr) == ("adamw", 0.003)


def test_every_run_says_where_it_comes_from(runs_dir, tmp_path):
    runs = pd.read_parquet(collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path) / "runs.parquet")
    for _, run in runs.iterrows():
        assert json.loads(run.packages)["torch"]
        assert json.loads(run.hardware)["device"] == "cpu"
        assert json.loads(run.code)["training"] and run.created_utc and run.dirty in (True, False)
        assert json.loads(run.config)["loss"] == run.loss_name
        assert np.isnan(run.energy_j), "no driver gives the energy of a processor"


def test_long_curves_are_thinned_but_keep_every_measurement():
    steps = np.arange(1, 1001)
    curve = pd.DataFrame({"step": steps, "val_mean_dice": np.nan, "foreground_share": np.nan})
    curve.loc[curve.step == 777, "val_mean_dice"] = 0.5
    curve.loc[curve.step % 25 == 1, "foreground_share"] = 0.1
    thin = _thin(curve)
    assert {1, 26, 777, 3, 999} <= set(thin.step)
    assert 777 in set(thin[thin.val_mean_dice.notna()].step)
    assert len(thin) < 400
    assert len(_thin(curve.head(400))) == 400


def test_what_differs_at_every_step_is_rounded_and_what_was_measured_is_not():
    rng = np.random.default_rng(0)
    steps = np.arange(1, 101)
    curve = pd.DataFrame({"step": steps, "loss_value": rng.lognormal(0, 3, 100).astype("float32")})
    curve["grad_norm"], curve["val_mean_dice"] = -curve.loss_value, rng.random(100)
    curve.loc[:2, "loss_value"] = [np.inf, np.nan, 0.0]
    kept = _thin(curve)
    np.testing.assert_allclose(kept.loss_value, curve.loss_value, rtol=2.5e-4)
    np.testing.assert_allclose(kept.grad_norm, curve.grad_norm, rtol=2.5e-4)
    assert (kept.grad_norm.to_numpy().view("uint32") % 2**12 == 0).all()
    assert kept.val_mean_dice.equals(curve.val_mean_dice)
    assert _thin(kept).equals(kept)


def test_a_tuned_study_shows_what_was_tried_and_what_was_chosen(copied, tmp_path):
    """The runs of the study above serve as tuning runs: their seeds are its seeds."""
    tuned = changed(
        study="tuned",
        losses=["ce"],
        seeds=[5],
        tuning={"lr": [0.003, 0.01], "seeds": [0, 1], "widen": 0},
        runs_per_job=2,
        predictions=[{"claim": 7, "text": "it will be so"}],
        smallest_effect=0.01,
    )
    datasets = load_datasets(tuned.examples()[0])
    for _, config in tuning_runs(tuned):
        train(config, datasets, copied)
    with pytest.raises(FileNotFoundError, match=r"no run of study 'tuned'.*4 of its 4 tuning runs"):
        collect(tuned, runs_dir=copied, results_dir=tmp_path)
    selection = select(tuned, copied)
    # another machine has no folder of them, and chooses the same
    recorded = recorded_runs(tmp_path, "tuned")
    assert select(tuned, tmp_path / "none", recorded).choices == selection.choices
    for _, config in tuned.reporting_runs(selection):
        train(config, datasets, copied)
    folder = collect(tuned, runs_dir=copied, results_dir=tmp_path)
    table = pd.read_parquet(folder / "tuning.parquet")
    assert len(table) == 4
    chosen = table[table.chosen]
    assert set(chosen.seed) == {0, 1}
    assert chosen.lr.nunique() == 1
    means = table.groupby("lr").val_foreground_dice_tuned.mean()
    assert chosen.lr.iloc[0] == means.idxmax()
    runs = pd.read_parquet(folder / "runs.parquet")
    assert list(runs.seed) == [5], "a tuning run is not reported"
    assert runs.lr.iloc[0] == chosen.lr.iloc[0]
    described = study_of(folder)
    said = {"claim": "7", "text": "it will be so", "holds": [], "bearing": "for"}
    assert described["predictions"] == [said]
    assert described["smallest_effect"] == 0.01
    assert described["tuning"]["choices"][0]["lr"] == chosen.lr.iloc[0]


def test_the_records_are_not_written_again_while_the_runs_are_the_same(runs_dir, tmp_path):
    folder = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    before = (folder / "study.json").stat().st_mtime_ns
    collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    assert (folder / "study.json").stat().st_mtime_ns == before


def test_a_missing_run_is_left_out_and_counted(copied, tmp_path):
    shutil.rmtree(run_path(copied, CONFIGS[-1]))
    folder = collect(STUDY, runs_dir=copied, results_dir=tmp_path)
    assert study_of(folder)["missing_runs"] == 1
    assert len(pd.read_parquet(folder / "runs.parquet")) == 3


def test_what_the_records_hold_stays_where_its_folder_has_gone(runs_dir, tmp_path):
    """A second machine has other run folders: the records of both are the records of one."""
    whole = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path / "whole")
    results = tmp_path / "results"
    for machine in (CONFIGS[0::2], CONFIGS[1::2]):  # each has a run of every loss
        work = tmp_path / machine[0].run_id
        for config in machine:
            shutil.copytree(run_path(runs_dir, config), run_path(work, config))
        parts = collect(STUDY, runs_dir=work, results_dir=results)
    for name in ("runs", "per_class", "per_image", "curves"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(parts / f"{name}.parquet"), pd.read_parquet(whole / f"{name}.parquet")
        )
    of_parts, of_whole = (study_of(each) for each in (parts, whole))
    assert of_parts == of_whole
    with np.load(parts / "predictions.npz") as shown:
        assert {"digits/unet/ce", "digits/unet/dice_again"} <= set(shown)


def test_an_older_run_lacks_a_column_and_keeps_its_place(copied, tmp_path):
    path = run_path(copied, CONFIGS[0]) / "curves.parquet"
    pd.read_parquet(path).drop(columns="easy_negative_share").to_parquet(path, index=False)
    curves = pd.read_parquet(
        collect(STUDY, runs_dir=copied, results_dir=tmp_path / "results") / "curves.parquet"
    )
    lacking = curves.groupby("run_id", sort=False).easy_negative_share.apply(
        lambda c: c.isna().all()
    )
    assert list(lacking) == [True, False, False, False]


def test_the_picture_keeps_its_images_where_a_loss_comes_later(runs_dir, tmp_path):
    results, work = tmp_path / "results", tmp_path / "runs"
    first = [config for member, config in STUDY.reporting_runs() if member.loss == "ce"]
    for config in first:
        shutil.copytree(run_path(runs_dir, config), run_path(work, config))
    folder = collect(STUDY, runs_dir=work, results_dir=results)
    with np.load(folder / "predictions.npz") as shown:
        before = {name: shown[name] for name in shown}
    shutil.rmtree(work)
    later = [config for member, config in STUDY.reporting_runs() if member.loss != "ce"]
    for config in later:
        shutil.copytree(run_path(runs_dir, config), run_path(work, config))
    collect(STUDY, runs_dir=work, results_dir=results)
    with np.load(folder / "predictions.npz") as shown:
        assert set(shown) == {*before, "digits/unet/dice_again"}
        assert all((shown[name] == array).all() for name, array in before.items())
        ids = list(load_datasets(later[0], splits=("test",))["test"].ids)
        at = [ids.index(name) for name in shown["digits/unet/ids"]]
        with np.load(run_path(work, later[0]) / "predictions.npz") as saved:
            assert (shown["digits/unet/dice_again"] == saved["predictions"][at]).all()


def test_a_study_that_keeps_no_images_has_none_in_its_records(runs_dir, tmp_path):
    folder = collect(changed(keep_images=False), runs_dir=runs_dir, results_dir=tmp_path)
    with np.load(folder / "predictions.npz") as shown:
        assert list(shown) == []
    assert len(pd.read_parquet(folder / "runs.parquet")) == 4


def test_a_study_that_keeps_no_pixels_leaves_those_of_another_study_to_be_found(runs_dir, tmp_path):
    folder = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    run = pd.read_parquet(folder / "runs.parquet").iloc[0]
    pixels = pd.DataFrame({"dataset": run.dataset, "model": run.model, "loss": run.loss, "seed": run.seed,
                           "run_id": run.run_id, "pixel": [0, 1], "logit": [0.5, -0.5]})  # fmt: skip
    pixels.to_parquet(folder / "pixels.parquet")
    made = {}
    for name, keep in (("without", False), ("zz_with", True)):
        renamed = changed(study=name, keep_pixels=keep)
        made[name] = collect(renamed, runs_dir=tmp_path / "none", results_dir=tmp_path)
    assert not (made["without"] / "pixels.parquet").exists()
    assert list(pd.read_parquet(made["zz_with"] / "pixels.parquet").logit) == [0.5, -0.5]


def test_a_study_may_keep_the_counts_of_groups_in_place_of_images(copied, tmp_path):
    whole, sums = changed(study="whole"), changed(study="sums", keep_each_image=False)
    for path in copied.glob("*/per_image.parquet"):  # two groups of the test images
        rows = pd.read_parquet(path)
        rows.assign(group=rows.image_id.str[-1].isin(list("02468")).map(str)).to_parquet(path)
    images, groups = (
        pd.read_parquet(
            collect(each, runs_dir=copied, results_dir=tmp_path / each.study) / "per_image.parquet"
        )
        for each in (whole, sums)
    )
    assert images.image_id.nunique() > 2 and {*groups.image_id} == {"True", "False"}
    keys = ["run_id", "rule", "class_index", "group"]
    counts = ["tp", "fp", "target", "pixels"]
    pd.testing.assert_frame_equal(images.groupby(keys)[counts].sum(), groups.set_index(keys)[counts].sort_index(),
                                  check_dtype=False)  # fmt: skip
    records.load(tmp_path / "sums" / "sums")  # the scores of the runs follow from the sums
    assert not recorded_runs(tmp_path / "sums", "another")
    assert recorded_runs(tmp_path / "sums", "sums") and recorded_runs(tmp_path / "whole", "another")


@pytest.mark.parametrize("needs", [
    {"left_out": {"digits": ["test_00000"]}},
    {"predictions": [{"claim": 7, "text": "a",
                      "holds": [{"quantity": "dice per image", "losses": ["ce"], "is": "> 0"}]}]},
], ids=["left out", "dice per image"])  # fmt: skip
def test_what_needs_single_images_needs_their_counts(needs):
    with pytest.raises(ValueError, match="keep_each_image"):
        changed(keep_each_image=False, **needs)


def test_committed_records_from_before_a_choice_are_not_written_again(tmp_path):
    shutil.copytree("results/one_vs_all", tmp_path / "one_vs_all")
    before = (tmp_path / "one_vs_all" / "study.json").read_bytes()
    assert (tmp_path / "one_vs_all" / "verdicts.json").is_file()
    collect(
        load_study("one_vs_all"),
        runs_dir=tmp_path / "none",
        results_dir=tmp_path,
        file="one_vs_all",
    )
    assert (tmp_path / "one_vs_all" / "study.json").read_bytes() == before
    assert (tmp_path / "one_vs_all" / "verdicts.json").is_file(), "it goes where rows are new"


def test_a_run_that_another_study_has_recorded_is_taken_from_there(runs_dir, tmp_path):
    collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    renamed = changed(study="second", losses=["ce", "dice"])
    folder = collect(renamed, runs_dir=tmp_path / "none", results_dir=tmp_path)
    runs = pd.read_parquet(folder / "runs.parquet")
    assert list(runs.loss) == ["ce", "ce", "dice", "dice"], "under the labels of this study"
    assert study_of(folder)["missing_runs"] == 0


def test_records_lose_no_run_that_the_study_no_longer_asks_for_unless_told(runs_dir, tmp_path):
    folder = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    before = (folder / "runs.parquet").read_bytes()
    narrower = changed(seeds=[0])
    asked = {"runs_dir": runs_dir, "results_dir": tmp_path, "file": "tiny.yaml"}
    with pytest.raises(ConfigError, match=r"does not ask for 2 of them .*collect --fewer tiny"):
        collect(narrower, **asked)
    assert (folder / "runs.parquet").read_bytes() == before
    assert len(pd.read_parquet(collect(narrower, **asked, fewer=True) / "runs.parquet")) == 2


def test_without_any_run_the_error_says_which_command_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="lossatlas run tiny"):
        collect(STUDY, runs_dir=tmp_path, results_dir=tmp_path)


def pretend_other_code(folder, kind):
    """The run's record names other code of ``kind`` than today's."""
    today = component_versions(RunConfig.model_validate(read_run(folder)["config"]))
    change_record(folder, code=today | {kind: 0})


def pretend_other_data(folder, split, **changes):
    """The run's record names other images or masks of ``split`` than today's."""
    checksums = read_run(folder)["data_checksums"] | {split: "0" * 64}
    change_record(folder, data_checksums=checksums, **changes)


def test_runs_that_all_have_older_code_are_counted_and_the_records_made_anew(
    runs_dir, copied, tmp_path
):
    folder = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    assert study_of(folder)["provenance"]["outdated_runs"] == 0
    for config in CONFIGS:
        pretend_other_code(run_path(copied, config), "training")
    collect(STUDY, runs_dir=copied, results_dir=tmp_path)
    described = study_of(folder)
    assert described["provenance"]["outdated_runs"] == 4
    assert described["provenance"]["mixed_code"] == {}, "all were made with the same code"


def test_runs_of_different_code_are_never_taken_together_silently(copied, tmp_path):
    pretend_other_code(run_path(copied, CONFIGS[0]), "loss")
    would = preview(STUDY, runs_dir=copied, results_dir=tmp_path)
    assert "loss ce: 1 and 1 runs" in (would.refused or "")
    assert preview(STUDY, runs_dir=copied, results_dir=tmp_path, mixed=True).refused is None
    with pytest.raises(ConfigError, match=r"loss ce: 1 and 1 runs.*run --stale.*collect --mixed"):
        collect(STUDY, runs_dir=copied, results_dir=tmp_path)
    assert not (tmp_path / "tiny").exists()
    folder = collect(STUDY, runs_dir=copied, results_dir=tmp_path, mixed=True)
    described = study_of(folder)
    assert list(described["provenance"]["mixed_code"]) == ["loss ce"]
    codes = pd.read_parquet(folder / "runs.parquet").code.map(json.loads)
    assert [code["loss"] == 0 for code in codes] == [True, False, False, False]


@pytest.mark.parametrize("split", ["train", "test"])
def test_runs_of_other_images_or_masks_are_never_taken_together(copied, tmp_path, split):
    """Nor with records: a run without its folder is the run that the records hold."""
    places = {"runs_dir": copied, "results_dir": tmp_path}
    collect(STUDY, **places)
    first, *others = [run_path(copied, config) for config in CONFIGS]
    pretend_other_data(first, split, created_utc="2031-01-01T00:00:00+00:00")
    for told in (str(others[0]), str(tmp_path / STUDY.study)):
        with pytest.raises(ConfigError, match=rf"other ones in {told}.* than in {first}"):
            collect(STUDY, **places)
        assert told in (preview(STUDY, **places).refused or "")
        for folder in others:
            shutil.rmtree(folder, ignore_errors=True)


def test_predictions_are_never_laid_over_other_images(copied, tmp_path):
    for config in CONFIGS:
        pretend_other_data(run_path(copied, config), "test")
    with pytest.raises(ConfigError, match="expected the test split that the run was made with"):
        collect(STUDY, runs_dir=copied, results_dir=tmp_path)


def contested(classes, found):
    """Order of images of four pixels each, of which cross-entropy finds all and Dice so many."""
    images = list("abcd"[: len(found)])
    ce, dice = (
        pd.DataFrame({"image_id": images, "loss": loss, "class_index": classes, "tp": tp, "fp": 0})
        for loss, tp in (("ce", 4), ("dice", found))
    )
    table = pd.concat([ce, dice])
    return list(disagreement(table.assign(fn=4 - table.tp), images, foreground_only=True))


def test_the_most_contested_image_comes_first():
    # two losses agree on image a (both Dice 1) and not on image b (Dice 1 against 0)
    assert contested(classes=[1, 1], found=[4, 0]) == [1, 0]


def test_each_combination_of_classes_is_shown_once_before_any_twice():
    # a, b and c hold class 1 and are contested in this order; d holds class 2 and is contested least
    assert contested(classes=[1, 1, 1, 2], found=[0, 1, 2, 3]) == [0, 3, 1, 2]


def test_of_two_classes_the_first_is_left_out_because_it_follows():
    # an image of five labelled pixels
    truth, predicted = np.array([[0, 0, 0, 1, 1]]), np.array([[0, 1, 1, 1, 0]])
    first, second = confusion_per_image(predicted, truth, 2)[0]
    rows = pd.DataFrame([first, second], columns=["tp", "fp", "fn"])
    kept = _of_two(rows.assign(rule="argmax", image_id="a", class_index=[0, 1]))
    assert kept.class_index.tolist() == [1] and kept.pixels.tolist() == [5]
    tp, fp, fn = kept[["tp", "fp", "fn"]].iloc[0]
    assert first.tolist() == [5 - tp - fp - fn, fn, fp]


def test_what_some_runs_measure_becomes_a_table_and_stays_without_their_folders(tmp_path):
    study = STUDY.model_copy(
        update={
            "seeds": [0],
            "losses": STUDY.losses[:1],
            "datasets": [
                each.model_copy(update={"params": each.params | {"task": "binary"}})
                for each in STUDY.datasets
            ],
            "training": STUDY.training.model_copy(update={"measures": ["oracle", "pixels"]}),
        }
    )
    ((_, config),) = study.reporting_runs()
    train(config, load_datasets(config), tmp_path / "runs")
    folder = collect(study, runs_dir=tmp_path / "runs", results_dir=tmp_path)
    pixels = pd.read_parquet(folder / "pixels.parquet")
    assert list(pixels.columns[:5]) == ["run_id", "dataset", "model", "loss", "seed"]
    assert pixels.weight.sum() == pytest.approx(6 * 32 * 32)
    runs = pd.read_parquet(folder / "runs.parquet")
    assert runs.foreground_dice_oracle[0] == pytest.approx(runs.oracle_dice[0])
    more = study.model_copy(update={"seeds": [0, 1]})
    collect(more, runs_dir=tmp_path / "none", results_dir=tmp_path)
    assert pd.read_parquet(folder / "pixels.parquet").equals(pixels)


def test_a_diverged_run_is_trained_again_although_records_hold_it(
    runs_dir, copied, tmp_path, monkeypatch
):
    results = tmp_path / "results"
    folder = run_path(copied, CONFIGS[0])
    earlier = {"status": "diverged at step 3", "created_utc": "2026-01-01T00:00:00+00:00"}
    change_record(folder, **earlier)
    table = collect(STUDY, runs_dir=copied, results_dir=results) / "runs.parquet"

    def states(**places):
        found = survey(STUDY, places["runs_dir"], places["results_dir"])
        return [run.state for run in found if run.member.stage == "report"]

    monkeypatch.setattr(workflow, "load_study", lambda name: STUDY)
    monkeypatch.setattr(workflow, "run_study", lambda name, **places: states(**places))
    places = {"runs_dir": str(copied), "results_dir": str(results)}
    assert states(**places) == ["diverged", "done", "done", "done"]
    assert workflow.retry("tiny", states={"diverged"}, **places) == [
        "waiting", "done", "done", "done",
    ]  # fmt: skip

    assert not folder.exists()
    shutil.copytree(runs_dir / folder.name, folder)  # as after the training
    assert states(**places) == ["done"] * 4
    collect(STUDY, **places)
    assert set(pd.read_parquet(table).status) == {"completed"}
    forget_failure(copied, folder.name)  # as the job does when the run has ended
    shutil.rmtree(folder)
    assert states(**places) == ["done"] * 4

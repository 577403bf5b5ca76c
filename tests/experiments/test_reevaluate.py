"""A trained network judged again: what the evaluation says is replaced, what the training left is not."""

from __future__ import annotations

import json
import os
import re
import shutil

import pandas as pd
import pytest
import torch
from small import QUICK, SMALL_DIGITS, change_record, file_hashes, tiny, train

from lossatlas import cli
from lossatlas.experiments import ConfigError, RunConfig, evaluate, provenance, record, versions
from lossatlas.experiments.collect import collect
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.record import read_run, replace_folder, run_path
from lossatlas.experiments.reevaluate import reassess_run, reassess_study
from lossatlas.experiments.status import needed, survey
from lossatlas.experiments.tuning import read_selection, select, tuning_runs, write_selection
from lossatlas.metrics import DecisionRule

#: Wide enough that the memory format changes the last digits.
WIDER = {"width": 16, "depth": 2}
CONFIG = RunConfig(**QUICK, loss="weighted_ce")
STUDY = tiny(tuning={"lr": [0.003, 0.01], "seeds": [7], "widen": 0}, runs_per_job=8)
#: What the training leaves in a record.
OF_THE_TRAINING = (
    *("config", "status", "hashes", "final_loss", "wall_s", "train_s", "created_utc"),
    *("packages", "hardware", "data_checksums", "parameters"),
)


@pytest.fixture(scope="module")
def datasets():
    return load_datasets(CONFIG)


@pytest.fixture(scope="module")
def trained(datasets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(CONFIG, datasets, folder)
    for _, config in tuning_runs(STUDY):
        train(config, datasets, folder)
    for _, config in STUDY.reporting_runs(_selection(folder)):
        train(config, datasets, folder)
    return folder


def _selection(runs_dir):
    selection = select(STUDY, runs_dir)
    write_selection(STUDY, selection, runs_dir)
    return selection


@pytest.fixture
def runs_dir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".progress")


@pytest.mark.parametrize("channels_last", [False, True])
def test_judged_again_by_the_same_code_a_run_is_the_same_to_the_bit(
    datasets, runs_dir, channels_last
):
    config = CONFIG.model_copy(update={"channels_last": channels_last, "model_params": WIDER})
    folder = train(config, datasets, runs_dir)
    files, before, names = file_hashes(folder), read_run(folder), visible(runs_dir)
    network = (folder / "last.ckpt").read_bytes()
    (folder / "train.ipynb").write_text("the executed notebook")
    torch.set_num_threads(before["hardware"]["threads"] + 1)
    assert reassess_run(config, datasets, runs_dir=runs_dir, accelerator="cpu") == folder
    assert torch.get_num_threads() == before["hardware"]["threads"] + 1
    torch.set_num_threads(before["hardware"]["threads"])
    after = read_run(folder)
    assert file_hashes(folder) == files
    assert (folder / "last.ckpt").read_bytes() == network
    assert (folder / "train.ipynb").read_text() == "the executed notebook"
    assert {key: value for key, value in after.items() if key != "evaluated"} == before
    assert {"utc", "packages", "hardware", *provenance.commit()} == set(after["evaluated"])
    # to the millisecond: within the second in which its training ended it is another time still
    assert re.search(r":\d\d\.\d{3}\+00:00$", after["evaluated"]["utc"])
    assert visible(runs_dir) == names


def test_another_evaluation_replaces_what_it_says_and_leaves_the_training_alone(
    datasets, runs_dir, monkeypatch
):
    folder, offsets = run_path(runs_dir, CONFIG), [0.25 * k for k in range(11)]
    files, before = file_hashes(folder), read_run(folder)
    monkeypatch.setattr(evaluate, "theory_rule", lambda *_: DecisionRule(tuple(offsets)))
    monkeypatch.setattr(versions, "EVALUATION", 2)
    reassess_run(CONFIG, datasets, runs_dir=runs_dir, accelerator="cpu")
    after = read_run(folder)
    assert after["rules"]["theory"]["offsets"] == offsets
    assert after["rules"]["theory"] != before["rules"]["theory"]
    assert after["rules"]["tuned"] == before["rules"]["tuned"]
    assert after["code"] == before["code"] | {"evaluation": 2}
    assert {key: after[key] for key in OF_THE_TRAINING} == {
        key: before[key] for key in OF_THE_TRAINING
    }
    changed = {name for name, digest in file_hashes(folder).items() if digest != files[name]}
    assert changed == {"per_image.parquet"}, "which has the counts of theory's rule"


def test_a_network_is_judged_on_the_data_that_it_was_trained_with_or_not_at_all(runs_dir):
    folder = run_path(runs_dir, CONFIG)
    before = (folder / "run.json").read_bytes()
    other = load_datasets(CONFIG.model_copy(update={"dataset_params": {**SMALL_DIGITS, "seed": 1}}))
    with pytest.raises(ConfigError, match="expected the train split that the run was made with"):
        reassess_run(CONFIG, other, runs_dir=runs_dir)
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("component", ["model", "loss"])
def test_weights_are_not_judged_in_another_network_or_loss(datasets, runs_dir, component):
    folder = run_path(runs_dir, CONFIG)
    change_record(folder, code=read_run(folder)["code"] | {component: 0})
    made = read_run(folder)
    with pytest.raises(ConfigError, match=f"that of its {component} has changed since: train it"):
        reassess_run(CONFIG, datasets, runs_dir=runs_dir)
    assert read_run(folder) == made


def test_what_was_never_trained_cannot_be_judged(datasets, tmp_path):
    with pytest.raises(ConfigError, match="expected a finished run, got none: train it first"):
        reassess_run(CONFIG, datasets, runs_dir=tmp_path)


def test_a_failure_on_the_way_leaves_the_run_as_it_was(datasets, runs_dir, monkeypatch):
    folder, names = run_path(runs_dir, CONFIG), visible(runs_dir)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("lossatlas.experiments.reevaluate.write_run", full)
    with pytest.raises(OSError, match="no space"):
        reassess_run(CONFIG, datasets, runs_dir=runs_dir, accelerator="cpu")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert visible(runs_dir) == names


@pytest.fixture
def two_folders(tmp_path):
    folders = tmp_path / "new", tmp_path / "final"
    for folder in folders:
        folder.mkdir()
        (folder / "which").write_text(folder.name)
    return folders


def test_whatever_is_raised_between_the_two_steps_of_a_replacement_the_old_folder_is_back(
    two_folders, tmp_path, monkeypatch
):
    new, final = two_folders
    rename = os.replace

    def stopped_at_the_second(source, target):
        if source == new:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(record.os, "replace", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(new, final)
    monkeypatch.undo()
    assert (final / "which").read_text() == "final"
    replace_folder(new, final)
    assert (final / "which").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def cut_short(folder):
    """As a process leaves a folder that is killed between the two steps of its replacement."""
    folder.rename(folder.with_name(f".{folder.name}-old"))
    unfinished = folder.with_name(f".{folder.name}-evaluated-abc")
    unfinished.mkdir()
    (unfinished / "run.json").write_text("{}")


def test_a_run_whose_replacement_was_cut_short_is_found_by_the_same_call(runs_dir, monkeypatch):
    names = visible(runs_dir)
    (_, config), *_ = tuning_runs(STUDY)
    before = read_run(run_path(runs_dir, config))
    cut_short(run_path(runs_dir, config))
    monkeypatch.setattr(versions, "EVALUATION", 2)
    assert reassess_study(STUDY, runs_dir=runs_dir, accelerator="cpu") == 6
    assert read_run(run_path(runs_dir, config))["hashes"] == before["hashes"]
    assert [name for name in visible(runs_dir) if name != ".replacing"] == names


def test_before_a_study_runs_it_finds_what_was_cut_short(runs_dir):
    names = visible(runs_dir)
    cut_short(run_path(runs_dir, CONFIG))
    with record.exclusive(runs_dir):
        record.undo_interrupted(runs_dir)  # whose folders they are is at work
        assert not run_path(runs_dir, CONFIG).exists()
    record.undo_interrupted(runs_dir)
    assert [name for name in visible(runs_dir) if name != ".replacing"] == names


def test_records_whose_replacement_was_cut_short_still_have_their_runs(runs_dir, tmp_path):
    results = {"runs_dir": runs_dir, "results_dir": tmp_path / "results"}
    folder = collect(STUDY, **results)
    cut_short(folder)
    *_, (_, config) = STUDY.reporting_runs(_selection(runs_dir))
    shutil.rmtree(run_path(runs_dir, config))
    collect(STUDY, **results)
    assert len(pd.read_parquet(folder / "runs.parquet")) == 2


def test_two_processes_do_not_replace_the_same_runs(runs_dir):
    with (
        record.exclusive(runs_dir),
        pytest.raises(ConfigError, match="expected to be the only process that evaluates"),
    ):
        reassess_study(STUDY, runs_dir=runs_dir)


def test_rates_are_chosen_again_from_what_the_tuning_runs_are_worth_now(
    runs_dir, monkeypatch, capsys
):
    told, tried = [], iter(range(100))
    (before,) = {choice.lr for key, choice in _selection(runs_dir).items() if "ce" in key}
    real = evaluate.assess

    def turned(model, config, *rest):
        found = real(model, config, *rest)
        score = 0.0 if config.lr == before else 0.5 + next(tried) / 1000
        found.record["validation"] = {"foreground_dice": score, "foreground_dice_tuned": score}
        return found

    monkeypatch.setattr("lossatlas.experiments.reevaluate.assess", turned)
    reassess_study(STUDY, runs_dir=runs_dir, accelerator="cpu", everything=True, say=told.append)
    assert any(f"ce from adamw {before:g} to adamw" in line for line in told), told
    assert told[-1] == "`lossatlas run tiny` trains the runs that they ask for"
    assert {c.lr for key, c in read_selection(STUDY, runs_dir).items() if "ce" in key} != {before}
    assert len(needed(survey(STUDY, runs_dir))) >= 1, "the runs at the rate that is chosen now"


def test_records_are_written_anew_when_more_of_their_code_has_changed(
    runs_dir, tmp_path, monkeypatch
):
    results = {"runs_dir": runs_dir, "results_dir": tmp_path / "results"}
    told = []
    for changed in (["evaluation"], ["evaluation", "training"]):
        monkeypatch.setattr(
            "lossatlas.experiments.collect.changed_components", lambda _, names=changed: names
        )
        folder = collect(STUDY, **results)
        told.append(json.loads((folder / "study.json").read_text())["provenance"])
    assert [source["outdated_runs"] for source in told] == [2, 2]
    assert [source["outdated_components"] for source in told] == [
        {"evaluation": 2},
        {"evaluation": 2, "training": 2},
    ]


def test_a_study_s_runs_are_judged_once_by_each_version_of_the_code(
    runs_dir, monkeypatch, tmp_path
):
    told = []
    assert reassess_study(STUDY, runs_dir=runs_dir, accelerator="cpu", say=told.append) == 0
    assert told == []
    monkeypatch.setattr(versions, "EVALUATION", 2)
    but = {next(iter(STUDY.members("tuning")))}
    assert reassess_study(STUDY, runs_dir=runs_dir, accelerator="cpu", but=but) == 5
    assert reassess_study(STUDY, runs_dir=runs_dir, accelerator="cpu", say=told.append) == 1
    assert len(told) == 1 and "1 run evaluated again" in told[0]
    assert reassess_study(STUDY, runs_dir=runs_dir, accelerator="cpu", say=told.append) == 0
    again = reassess_study(
        STUDY, runs_dir=runs_dir, accelerator="cpu", everything=True, say=told.append
    )
    assert again == 6
    assert "evaluated" not in read_run(run_path(runs_dir, CONFIG)), "it is not the study's"


def test_runs_of_two_evaluations_are_not_mixed_in_silence(
    datasets, runs_dir, tmp_path, monkeypatch
):
    results = {"runs_dir": runs_dir, "results_dir": tmp_path / "results"}
    folder = collect(STUDY, **results)
    before = pd.read_parquet(folder / "runs.parquet")
    assert list(before.evaluated_utc) == list(before.created_utc)
    assert json.loads((folder / "study.json").read_text())["provenance"]["evaluated_again"] is None

    monkeypatch.setattr(versions, "EVALUATION", 2)
    one = RunConfig.model_validate_json(before.config[0])
    reassess_run(one, datasets, runs_dir=runs_dir, accelerator="cpu")
    advice = r"got several \(evaluation: .*lossatlas evaluate tiny` re-evaluates those"
    with pytest.raises(ConfigError, match=advice):
        collect(STUDY, **results)
    reassess_study(STUDY, runs_dir=runs_dir, accelerator="cpu")
    collect(STUDY, **results)
    after = pd.read_parquet(folder / "runs.parquet")
    kept = [name for name in before if name not in ("evaluated_utc", "code")]
    pd.testing.assert_frame_equal(after[kept], before[kept])
    assert (after.evaluated_utc >= after.created_utc).all()
    source = json.loads((folder / "study.json").read_text())["provenance"]
    assert source["evaluated_again"]["runs"] == len(after) == 2


def test_the_command_says_what_it_did(runs_dir, tmp_path, monkeypatch, capsys):
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(STUDY.model_dump(exclude_none=True)))
    command = ["evaluate", str(file), "--runs-dir", str(runs_dir), "--accelerator", "cpu"]
    assert cli.main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert cli.main([*command, "--everything"]) == 0
    said = capsys.readouterr().out
    assert "6 runs evaluated; `lossatlas collect" in said
    assert f"--runs-dir {runs_dir}`" in said

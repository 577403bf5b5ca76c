"""Comparing losses on a folder: the plan fits the budget, the same command goes on, the page is whole."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictures import save
from PIL import Image

from lossatlas import data
from lossatlas.advise import compare, comparison_page
from lossatlas.cli import main
from lossatlas.data import DataError
from lossatlas.experiments import ConfigError, load_study
from lossatlas.experiments.record import is_complete
from lossatlas.report.records import load as load_records

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits as a user would have them: a folder of images, one of masks, and a name with markup in it."""
    root = tmp_path_factory.mktemp("data") / "crack <b>s"
    digits = data.load(
        "digits", "train", task="binary", image_size=32, foreground=0.1, train_size=24, val_size=4, test_size=4
    )  # fmt: skip
    for part, pictures in (("images", digits.images), ("masks", digits.labels)):
        save(root / part, {str(index): pictures[index] for index in range(24)})
    return root


@pytest.fixture
def tiny(monkeypatch):
    """A plan of seconds, whatever the machine."""
    monkeypatch.setattr(compare, "plan", lambda *_: compare.Plan(2, False, 6, 5.0))
    monkeypatch.setattr(compare, "measure", lambda *_: ({"ce": 0.1, "dice": 0.1}, 0.1))


def begin(request, out, monkeypatch):
    """The study's file of a comparison that is stopped before its first training."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(compare, "_train", stop)
        compare.compare(request, out, say=lambda _: None)
    return out / "compare.yaml"


def test_a_plan_fits_its_budget_and_prefers_seeds_and_tuning_to_steps():
    steps = {"ce": 0.05, "dice": 0.05}
    found = compare.plan(3600, steps, 1.0)
    assert found.seeds == 8 and found.tuned
    for budget in (3600, 1800, 900, 300, 120):
        planned = compare.plan(budget, steps, 1.0)
        runs = planned.seeds + 6 * planned.tuned
        assert planned.seconds == pytest.approx(runs * 2 * 1.0 + runs * planned.steps * 0.1)
        assert planned.seconds <= 0.9 * budget
        assert 100 <= planned.steps <= 2000 and planned.seeds >= 3
    assert not compare.plan(120, steps, 1.0).tuned


def test_a_budget_that_is_too_small_says_which_one_would_do():
    steps = {"ce": 1.0, "dice": 1.0}
    with pytest.raises(ConfigError, match="expected at least") as error:
        compare.plan(60, steps, 1.0)
    enough = float(re.search(r"at least (\d+) min", str(error.value))[1])
    assert compare.plan(60 * enough, steps, 1.0).seeds == 3


@pytest.mark.parametrize("spent", [15.0, 25.0, 200.0])
def test_the_budget_that_is_asked_for_is_enough_with_reading_and_measuring(spent):
    steps = {"ce": 0.02, "dice": 0.02}
    with pytest.raises(ConfigError, match="reading and measuring took") as error:
        compare.plan(30, steps, 0.5, spent)
    enough = float(re.search(r"at least (\d+) min", str(error.value))[1])
    planned = compare.plan(60 * enough, steps, 0.5, spent)
    assert planned.seconds + spent <= 60 * enough


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "0s", "inf", "nanm", "30 minutes"])
def test_a_budget_that_is_no_time_is_refused(text):
    with pytest.raises(ConfigError, match="expected a time such as 90s, 30m or 2h"):
        compare.budget_seconds(text)


def test_the_study_has_the_recipe(folder, tmp_path, tiny, monkeypatch):
    request = compare.Request(str(folder), ["ce", "dice"], 60.0)
    study = load_study(str(begin(request, tmp_path, monkeypatch)))
    (model,) = study.models
    assert model.params["head_activation"] == "none"
    assert model.params["decoder_channels"][-1] >= 16
    assert {config.bias_init for config in study.examples()} == {"prior"}
    assert not (tmp_path / "runs").exists()


def test_what_is_interrupted_goes_on_and_ends_with_records_and_a_page(
    folder, tmp_path, tiny, monkeypatch
):
    from lossatlas.experiments import training

    request = compare.Request(str(folder), ["ce", "dice"], 60.0)
    trained, original = [], training.train_run

    def twice(config, *arguments, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(config.run_id)
        return original(config, *arguments, **options)

    monkeypatch.setattr(training, "train_run", twice)
    with pytest.raises(KeyboardInterrupt):
        compare.compare(request, tmp_path, say=lambda _: None)
    runs = [config for _, config in load_study(str(tmp_path / "compare.yaml")).reporting_runs()]
    there = [run for run in runs if is_complete(tmp_path / "runs", run)]
    assert len(there) == 2
    before = {
        run.run_id: (tmp_path / "runs" / run.run_id / "run.json").stat().st_mtime_ns
        for run in there
    }

    monkeypatch.setattr(training, "train_run", original)
    said = []
    found = compare.compare(request, tmp_path, say=said.append)
    assert "going on" in said[0] and not found.failed
    assert all(is_complete(tmp_path / "runs", run) for run in runs)
    for run_id, stamp in before.items():
        assert (tmp_path / "runs" / run_id / "run.json").stat().st_mtime_ns == stamp
    page = found.page.read_text(encoding="utf-8")
    assert "<b>s" not in page and "&lt;b&gt;s" in page  # the folder's name is text
    assert "<script" not in page and not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") >= 3
    assert "Too few trainings of the same seeds" in page  # two
    for loss in ("ce", "dice"):
        assert f"<th>{loss}</th>" in page


def test_a_disk_that_fills_up_is_said_and_the_same_command_goes_on(
    folder, tmp_path, tiny, monkeypatch
):
    from lossatlas.experiments import collect, heartbeat, training

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def compared():
        return compare.compare(request, tmp_path / "out", say=lambda _: None)

    request = compare.Request(str(folder), ["ce", "dice"], 60.0)
    monkeypatch.setattr(heartbeat, "_write", full)  # neither a beat nor a note ends a training
    with monkeypatch.context() as patched:
        patched.setattr(training, "write_run", full)
        wanted = r"expected a run of the comparison to end, got none: .*No space left.*same command"
        with pytest.raises(ConfigError, match=wanted):
            compared()
    with monkeypatch.context() as patched:
        patched.setattr(collect, "_save", full)
        wanted = "the disk is full; free some space, or name another --out; what is finished stays"
        with pytest.raises(DataError, match=wanted):
            compared()
    runs = sorted((tmp_path / "out" / "runs").glob("*/run.json"))
    before = [path.stat().st_mtime_ns for path in runs]
    assert len(runs) == 4 and not compared().failed
    assert [path.stat().st_mtime_ns for path in runs] == before
    assert not list((tmp_path / "out" / "results").glob(".*-*"))


def test_losses_are_compared_at_the_validation_threshold_from_three_seeds():
    part = load_records(ROOT / "results" / "quick", "quick").parts[0]
    told = comparison_page._tuned(part)
    assert re.search(r"chosen on the validation set, Dice differs by: `\w+` − `ce`: [+−]0", told)
    fewer = dataclasses.replace(part, seeds={loss: seeds[:2] for loss, seeds in part.seeds.items()})
    assert comparison_page._tuned(fewer).startswith("Too few trainings")


def test_runs_of_other_masks_are_not_finished_with_todays(folder, tmp_path, tiny, monkeypatch):
    here = tmp_path / "set"
    shutil.copytree(folder, here)
    request = compare.Request(str(here), ["ce", "dice"], 60.0)
    begin(request, tmp_path / "out", monkeypatch)
    mask = sorted((here / "masks").iterdir())[0]
    turned = np.asarray(Image.open(mask))[::-1]
    Image.fromarray(turned).save(mask)
    with pytest.raises(ConfigError, match=r"got others in (train|val|test); bring them back"):
        compare.compare(request, tmp_path / "out", say=lambda _: None)
    assert not (tmp_path / "out" / "runs").exists()


def test_images_of_several_shapes_are_squeezed_with_a_word(tmp_path):
    for part in ("images", "masks"):
        save(tmp_path / part, {"a": np.eye(40, 30), "b": np.eye(30, 40)})
    said = []
    request = compare.Request(str(tmp_path), ["ce", "dice"], 60.0, side=20)
    assert request.dataset_params(said.append)["height"] == 20
    assert "from 0.75 to 1.33 as high as wide" in said[0]


def test_a_plan_with_tuning_chooses_a_rate_for_each_loss_before_it_reports(
    folder, tmp_path, tiny, monkeypatch
):
    monkeypatch.setattr(compare, "plan", lambda *_: compare.Plan(2, True, 4, 5.0))
    monkeypatch.setattr(compare, "RATES", (0.003, 0.03))
    monkeypatch.setattr(compare, "TUNING_SEEDS", (1000,))
    said = []
    request = compare.Request(str(folder), ["ce", "dice"], 60.0)
    found = compare.compare(request, tmp_path, say=said.append)
    assert not found.failed
    runs = pd.read_parquet(found.records / "runs.parquet")
    assert len(runs) == 4 and set(runs.lr) <= {0.003, 0.03}
    assert sum("rate" in line and line.startswith(("ce:", "dice:")) for line in said) == 2


def test_another_request_replans_until_something_is_trained(folder, tmp_path, tiny, monkeypatch):
    request = compare.Request(str(folder), ["ce", "dice"], 60.0)
    file = begin(request, tmp_path, monkeypatch)
    other = compare.Request(str(folder), ["ce", "focal"], 60.0)
    compare.compare(other, tmp_path, dry_run=True, say=lambda _: None)
    assert [loss.name for loss in load_study(str(file)).losses] == ["ce", "dice"]
    begin(other, tmp_path, monkeypatch)
    assert [loss.name for loss in load_study(str(file)).losses] == ["ce", "focal"]
    (tmp_path / "runs").mkdir()
    with pytest.raises(ConfigError, match="another losses"):
        compare.compare(request, tmp_path, dry_run=True, say=lambda _: None)


def test_the_time_of_a_step_is_measured_on_the_losses_themselves(folder, tmp_path):
    request = compare.Request(str(folder), ["ce", "lovasz_hinge"], 36000.0)
    found = compare.compare(request, tmp_path / "out", dry_run=True, say=lambda _: None)
    assert "seeds a loss" in found.plan


def test_a_dry_run_and_a_start_that_fails_write_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "measure", lambda *_: ({"ce": 0.1, "dice": 0.1}, 0.1))
    losses, out = ["ce", "dice"], tmp_path / "out"
    said = []
    request = compare.Request(str(folder), losses, 3600.0)
    compare.compare(request, out, dry_run=True, say=said.append)
    assert said[-2].startswith("plan: ") and said[-1] == "dry run: nothing is trained or written"
    for root, budget, error in (
        (tmp_path / "none", 3600.0, DataError),
        (folder, 1.0, ConfigError),  # too small
    ):
        with pytest.raises(error):
            compare.compare(compare.Request(str(root), losses, budget), out, say=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_large_images_are_made_smaller_with_their_shape_kept(tmp_path):
    for part, depth in (("images", 200), ("masks", 1)):
        save(tmp_path / part, {"a": np.full((60, 120), depth)})
    request = compare.Request(str(tmp_path), ["ce", "dice"], 60.0, side=40)
    params = request.dataset_params()
    assert (params["height"], params["width"]) == (20, 40)
    assert "height" not in compare.Request(str(tmp_path), ["ce", "dice"], 60.0).dataset_params()


def test_a_split_without_foreground_is_said_before_anything_is_trained(tmp_path, tiny):
    root = tmp_path / "data"
    save(root / "images", {str(index): np.zeros((16, 16)) for index in range(6)})
    save(root / "masks", {str(index): np.full((16, 16), index == 0) for index in range(6)})
    for split, names in (("train", "0\n1"), ("val", "2\n3"), ("test", "4\n5")):
        (root / f"{split}.txt").write_text(names)
    request = compare.Request(str(root), ["ce", "dice"], 60.0)
    with pytest.raises(DataError, match="none in val"):
        compare.compare(request, tmp_path / "out", say=lambda _: None)
    assert not (tmp_path / "out" / "compare.yaml").exists()


def test_the_result_is_json_alone_on_standard_output(folder, tmp_path, tiny, capsys):
    out = tmp_path / "o"
    arguments = [
        "compare", str(folder), "--losses", "ce,dice", "--out", str(out), "--dry-run", "--json",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["study"] == str(out / "compare.yaml")


def test_a_loss_is_compared_with_parameters_of_its_own(folder, tmp_path, tiny, monkeypatch):
    asked = ["ce", "dice", "dice:squared=true", "tversky:alpha=0.3:beta=0.7"]
    file = begin(compare.Request(str(folder), asked, 60.0), tmp_path / "out", monkeypatch)
    found = {loss.label: loss.params for loss in load_study(str(file)).losses}
    assert found["dice"] == {} and found["dice_squared"] == {"squared": True}
    assert found["tversky_alpha0.3_beta0.7"] == {"alpha": 0.3, "beta": 0.7}


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        (["ce", "dice:squared"], "expected name:parameter=value"),
        (["ce", "dice:square=true"], "'dice' reads no parameter 'square'"),
        (["ce", "dices:squared=true"], "dices"),
        (["dice:squared=true", "dice:squared=true"], "each once"),
    ],
)
def test_a_parameter_that_no_loss_has_is_refused_before_any_work(folder, tmp_path, losses, why):
    request = compare.Request(str(folder), losses, 3600.0)
    with pytest.raises(ConfigError, match=why):
        compare.compare(request, tmp_path / "out", say=lambda _: None)
    assert not (tmp_path / "out").exists()

"""A version is raised between two runs of a study: nothing is retrained unasked, nothing is mixed unsaid."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from checkouts import ROOT, checkout, in_this_process

from lossatlas import cli
from lossatlas.experiments import load_study, versions
from lossatlas.experiments.jobs import train_job
from lossatlas.experiments.record import run_path


@pytest.fixture
def raised(tmp_path, monkeypatch):
    """Raise a version of the code; the workflow trains in this process."""
    monkeypatch.chdir(tmp_path)
    in_this_process(monkeypatch)
    return lambda name, value: monkeypatch.setattr(versions, name, value)


def moments(study):
    """When the record of each run was written."""
    return {
        (member.loss, member.seed): (run_path("runs", config) / "run.json").stat().st_mtime_ns
        for member, config in study.reporting_runs()
        if (run_path("runs", config) / "run.json").is_file()
    }


def test_the_runs_of_a_loss_of_another_version_are_retrained_when_asked_and_never_mixed_in_silence(
    raised, tmp_path, capsys
):
    study = load_study(str(checkout(tmp_path, runs_per_job=4)))
    train_job(study, "report-digits-unet-0")
    trained = dict(moments(study))

    raised("LOSSES", {"dice": 2})
    study = load_study(str(checkout(tmp_path, runs_per_job=4, seeds=[0, 1])))
    train_job(study, "report-digits-unet-0")
    assert {key: moments(study)[key] for key in trained} == trained, "nobody asked for new runs"

    capsys.readouterr()
    assert cli.main(["collect", "tiny.yaml"]) == 1
    said = capsys.readouterr().err
    assert "expected runs of one version of the code" in said
    assert "loss dice: 1 and 1 runs" in said
    assert "loss ce" not in said
    assert not (tmp_path / "results").exists()
    assert cli.main(["collect", "tiny.yaml", "--mixed"]) == 0
    marked = json.loads((tmp_path / "results/tiny/study.json").read_text())
    assert list(marked["provenance"]["mixed_code"]) == ["loss dice"]

    before = moments(study)
    assert cli.main(["run", "tiny.yaml", "--stale"]) == 0, capsys.readouterr()
    after = moments(study)
    assert {key for key in after if after[key] != before[key]} == {("dice", 0)}
    runs = pd.read_parquet("results/tiny/runs.parquet")
    assert runs[runs.loss == "dice"].code.nunique() == 1
    marked = json.loads((tmp_path / "results/tiny/study.json").read_text())
    assert not marked["provenance"]["mixed_code"]


def test_where_the_evaluation_alone_has_another_version_networks_are_re_evaluated_and_not_retrained(
    raised, tmp_path, capsys
):
    study = load_study(str(checkout(tmp_path, runs_per_job=4)))
    assert cli.main(["run", "tiny.yaml"]) == 0, capsys.readouterr()
    networks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/last.ckpt")}
    assert len(networks) == 2
    before = moments(study)

    raised("EVALUATION", 2)
    capsys.readouterr()
    assert cli.main(["run", "tiny.yaml"]) == 0
    said = capsys.readouterr().out
    assert "evaluation: 2 runs" in said
    assert "`lossatlas evaluate tiny.yaml` re-evaluates the networks" in said
    assert moments(study) == before, "nobody asked for it"

    assert cli.main(["run", "tiny.yaml", "--stale"]) == 0
    assert "2 runs evaluated again" in capsys.readouterr().out
    assert all(after != before[key] for key, after in moments(study).items())
    assert {path: path.stat().st_mtime_ns for path in networks} == networks
    source = json.loads((tmp_path / "results/tiny/study.json").read_text())["provenance"]
    assert source["outdated_runs"] == 0
    assert source["evaluated_again"]["runs"] == 2


def test_on_a_fresh_machine_what_is_recorded_is_done_and_only_the_rest_is_trained(
    raised, tmp_path, capsys
):
    """The records travel with the project, the run folders do not; a study tunes and reports."""
    tuned = {"tuning": {"lr": [0.003, 0.01], "seeds": [7], "widen": 0}}
    first = load_study(str(checkout(tmp_path, runs_per_job=4, **tuned)))
    assert cli.main(["run", "tiny.yaml"]) == 0, capsys.readouterr()
    shutil.rmtree("runs")

    capsys.readouterr()
    assert cli.main(["plan", "tiny.yaml"]) == 0
    assert "nothing is left to train" in capsys.readouterr().out
    assert cli.main(["run", "tiny.yaml"]) == 0
    assert not list(tmp_path.glob("runs/*/run.json")), "everything was recorded"

    study = load_study(str(checkout(tmp_path, runs_per_job=4, seeds=[0, 1], **tuned)))
    assert cli.main(["run", "tiny.yaml"]) == 0, capsys.readouterr()
    assert len(list(tmp_path.glob("runs/*/run.json"))) == 2, "seed 1 of each loss"
    runs = pd.read_parquet("results/tiny/runs.parquet")
    assert len(runs) == len(study.members("report")) == 2 * len(first.members("report"))
    assert json.loads((tmp_path / "results/tiny/study.json").read_text())["missing_runs"] == 0

    raised("LOSSES", {"dice": 2})
    capsys.readouterr()
    assert cli.main(["status", "tiny.yaml"]) == 0
    assert "waiting" in capsys.readouterr().out, "what is recorded of an older version is not done"


def test_after_a_module_is_renamed_nothing_is_stale_and_nothing_is_missing(
    raised, tmp_path, capsys
):
    checkout(tmp_path, runs_per_job=4)
    assert cli.main(["run", "tiny.yaml"]) == 0, capsys.readouterr()
    shutil.rmtree("runs")
    package = tmp_path / "src" / "lossatlas"
    shutil.copytree(ROOT / "src/lossatlas", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data/registry", tmp_path / "data/registry")
    (package / "experiments/seeding.py").rename(package / "experiments/drawing.py")
    for path in package.rglob("*.py"):
        text = path.read_text()
        path.write_text(text.replace("experiments.seeding", "experiments.drawing"))
    said = subprocess.run(
        [sys.executable, "-c", "from lossatlas import cli; cli.main(['run', 'tiny.yaml'])"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
    )
    assert "2 runs, 2 already there" in said.stdout
    assert "older versions" not in said.stdout
    assert not list(tmp_path.glob("runs/*/run.json"))

"""A loss is edited between two runs of a study: nothing is trained anew unasked, nothing is mixed unsaid."""

from __future__ import annotations

import json
import os
import shutil

import pandas as pd
import pytest
from checkouts import ROOT, checkout

from lossatlas import cli
from lossatlas.experiments import load_study, provenance
from lossatlas.experiments.jobs import train_job
from lossatlas.experiments.record import run_path


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package: the processes that the workflow starts run it, and the versions are made from it."""
    copy = tmp_path / "src" / "lossatlas"
    shutil.copytree(ROOT / "src/lossatlas", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", tmp_path / "data")
    path = os.pathsep.join(filter(None, [str(copy.parent), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setattr(provenance, "__file__", str(copy / "experiments" / "provenance.py"))
    yield copy
    monkeypatch.undo()
    forget_versions()


def edit(copied, name, before):
    """Put a line that changes the code, and nothing that it does, in front of ``before`` in a copied file."""
    path = copied / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, f"EDITED = True\n\n\n{before}", 1))
    forget_versions()


def forget_versions():
    """A process reads the sources once; here they change under it."""
    for cached in (provenance.code_version, provenance._closure_hash, provenance.commit):
        cached.cache_clear()


@pytest.mark.timeout(1200)
def test_the_runs_of_an_edited_loss_are_trained_anew_when_asked_and_never_mixed_in_silence(
    copied, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    forget_versions()
    study = load_study(str(checkout(tmp_path, runs_per_job=4)))
    train_job(study, "report-digits-unet-0")
    trained = dict(moments(study))

    edit(copied, "losses/region.py", "class DiceLoss")
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


def moments(study):
    """When the record of each run was written."""
    return {
        (member.loss, member.seed): (run_path("runs", config) / "run.json").stat().st_mtime_ns
        for member, config in study.reporting_runs()
        if (run_path("runs", config) / "run.json").is_file()
    }


@pytest.mark.timeout(1200)
def test_where_the_evaluation_alone_has_changed_networks_are_judged_anew_and_not_trained(
    copied, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    forget_versions()
    study = load_study(str(checkout(tmp_path, runs_per_job=4)))
    assert cli.main(["run", "tiny.yaml"]) == 0, capsys.readouterr()
    networks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/last.ckpt")}
    assert len(networks) == 2
    before = moments(study)

    edit(copied, "experiments/evaluation.py", "@dataclass(frozen=True)\nclass RuleResult")
    capsys.readouterr()
    assert cli.main(["run", "tiny.yaml"]) == 0
    said = capsys.readouterr().out
    assert "evaluation: 2 runs" in said
    assert "`lossatlas evaluate tiny.yaml` judges their networks anew" in said
    assert moments(study) == before, "nobody asked for it"

    assert cli.main(["run", "tiny.yaml", "--stale"]) == 0
    assert "2 runs evaluated again" in capsys.readouterr().out
    assert all(after != before[key] for key, after in moments(study).items())
    assert {path: path.stat().st_mtime_ns for path in networks} == networks
    source = json.loads((tmp_path / "results/tiny/study.json").read_text())["provenance"]
    assert source["outdated_runs"] == 0
    assert source["evaluated_again"]["runs"] == 2

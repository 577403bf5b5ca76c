"""A study from its file to its records, through Snakemake and papermill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from lossatlas import cli, pipeline
from lossatlas.experiments import load_study
from lossatlas.experiments.progress import beats
from lossatlas.experiments.record import is_complete

ROOT = Path(__file__).resolve().parents[2]

STUDY = {
    "study": "tiny",
    "question": "does the workflow run?",
    "datasets": [
        {
            "name": "digits",
            "params": {"image_size": 32, "train_size": 12, "val_size": 4, "test_size": 4},
        }
    ],
    "models": [{"name": "unet", "params": {"width": 4, "depth": 2}}],
    "losses": ["ce", "dice"],
    "seeds": [0],
    "training": {"steps": 2, "batch_size": 4, "evaluations": 1},
}


def checkout(tmp_path):
    """The parts of a checkout that the workflow reads, with room for its own runs and results."""
    for name in ("notebooks", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    return tmp_path


def lossatlas(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "lossatlas.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(900)  # four notebooks, each a kernel that imports torch
def test_one_failed_notebook_stops_no_other_and_is_listed_and_a_second_run_mends_it(tmp_path):
    folder = checkout(tmp_path)
    study = load_study(str(folder / "tiny.yaml"))
    runs = {cell.loss: cell.runs()[0] for cell in study.cells()}
    # a file where the run folder must go: the training of dice fails at its end
    blocked = folder / "runs" / runs["dice"].run_id
    blocked.parent.mkdir()
    blocked.write_text("in the way")

    first = lossatlas(folder, "run", "tiny.yaml", "--jobs", "2")
    assert first.returncode == 1, first.stdout + first.stderr
    assert "1 of 2 notebooks failed" in first.stdout
    assert "runs/cells/tiny/digits-unet-dice.ipynb: NotADirectoryError" in first.stdout
    assert is_complete(folder / "runs", runs["ce"])
    assert (folder / "runs" / runs["ce"].run_id / "train.ipynb").is_file()
    assert json.loads((folder / "results/tiny/study.json").read_text())["missing_runs"] == 1
    assert "\r" not in first.stdout + first.stderr, "no progress line where there is no terminal"

    blocked.unlink()
    ce_record = folder / "runs" / runs["ce"].run_id / "run.json"
    trained_at = ce_record.stat().st_mtime_ns
    second = lossatlas(folder, "run", "tiny.yaml")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "2 runs, 1 already there" in second.stdout
    assert ce_record.stat().st_mtime_ns == trained_at
    assert json.loads((folder / "results/tiny/study.json").read_text())["missing_runs"] == 0
    executed = nbformat.read(folder / "runs/cells/tiny/digits-unet-ce.ipynb", as_version=4)
    assert executed.metadata.kernelspec.name == "python3"


TUNED = {
    **STUDY,
    "study": "tuned",
    "losses": ["ce"],
    "training": {"steps": 400, "batch_size": 4, "evaluations": 1},
    "tuning": {"lr": [0.003, 0.01], "seeds": [1000], "steps": 40},
    "runs_per_job": 2,
}


def wait_for(condition, process, seconds=240):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        assert process.poll() is None, f"ended with {process.returncode}"
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def under_way(runs_dir, seed, after=0):
    """The training of ``seed`` that has passed step ``after``."""
    found = [
        b for b in beats(runs_dir) if b["label"].endswith(f"seed {seed}") and b["step"] > after
    ]
    return found[0] if found else None


@pytest.mark.timeout(900)  # five processes that import torch
def test_a_tuned_study_survives_a_killed_training_a_signal_and_a_stop_and_goes_on(tmp_path):
    folder = checkout(tmp_path)
    (folder / "tuned.yaml").write_text(yaml.safe_dump(TUNED))
    runs_dir = folder / "runs"
    process = subprocess.Popen(
        [sys.executable, "-m", "lossatlas.cli", "run", "tuned.yaml", "--jobs", "1"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        # a training is killed: the workflow starts its job again, and the tuning comes to its end
        killed = wait_for(lambda: under_way(runs_dir, seed=1000), process)
        os.kill(killed["pid"], signal.SIGKILL)
        wait_for(lambda: (runs_dir / "cells/tuned/selection.json").is_file(), process)
        # a training is asked to stop: it saves itself, and the workflow starts its job again
        asked = wait_for(lambda: under_way(runs_dir, seed=0, after=20), process)
        os.kill(asked["pid"], signal.SIGTERM)
        again = wait_for(
            lambda: (b := under_way(runs_dir, seed=0)) and b["pid"] != asked["pid"] and b, process
        )
        assert again["step"] > 20, "it goes on from its checkpoint"
        # the study is stopped: nothing of it runs on
        process.terminate()
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert list(beats(runs_dir)) == []

    second = lossatlas(folder, "run", "tuned.yaml")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "3 runs, 2 already there" in second.stdout
    runs = pd.read_parquet(folder / "results/tuned/runs.parquet")
    assert list(runs.status) == ["completed"]
    assert list(runs.interruptions) == [2]
    tuning = pd.read_parquet(folder / "results/tuned/tuning.parquet")
    assert list(tuning[tuning.chosen].lr) == list(runs.lr)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loses": ["ce"]}, "unknown key 'loses' (got ['ce']): did you mean losses"),
        ({"losses": ["dise"]}, "unknown loss 'dise': did you mean dice"),
        ({"datasets": [{"name": "camvid", "params": {"root": "nowhere"}}]}, "nowhere"),
    ],
)
def test_a_wrong_study_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, change, words):
    folder = checkout(tmp_path)
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**STUDY, **change}))
    monkeypatch.chdir(folder)
    assert cli.main(["run", "tiny.yaml"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert not (folder / "runs").exists() or not list((folder / "runs").glob("*/run.json"))
    assert not (folder / "results").exists()


def test_outside_a_checkout_the_error_says_where_to_go(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "quick"]) == 1
    assert "expected the root of a Loss Atlas checkout" in capsys.readouterr().err


def test_a_mirror_that_is_named_must_be_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(checkout(tmp_path))
    monkeypatch.setenv("LOSSATLAS_MIRROR", str(tmp_path / "nowhere"))
    assert cli.main(["book"]) == 1
    assert "LOSSATLAS_MIRROR: expected a folder or an address" in capsys.readouterr().err


def test_the_progress_line_says_which_run_of_how_many_the_loss_and_the_time_left():
    beat = {"label": "digits · unet · ce · seed 1", "step": 50, "steps": 100, "loss": 0.4321}
    line = pipeline.progress_line(done=7, before=5, total=10, elapsed_s=250, under_way=[beat])
    # 2.5 runs took 250 s, 2.5 are left
    assert (
        line
        == "7/10 runs · digits · unet · ce · seed 1: step 50/100, loss 0.432 · about 4 min left"
    )
    assert pipeline.progress_line(0, 0, 10, 3.0, []) == "0/10 runs"


def test_a_study_of_one_s_own_gets_a_page_in_the_contents(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "GENERATED", tmp_path)
    monkeypatch.chdir(ROOT)
    contents = pipeline.make_contents("mine").read_text()
    assert "generated/compare_mine" in contents
    assert "generated/compare_quick" in contents
    assert contents.count("generated/compare_mine") == 1
    assert "compare_mine" not in pipeline.make_contents("quick").read_text()


def test_a_page_that_cannot_be_made_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "GENERATED", tmp_path)
    page = pipeline.make_missing_page("compare_quick_camvid", "Not here.", "make data book")
    assert "make data book" in page.read_text()
    written = page.stat().st_mtime_ns
    os.utime(page, ns=(written, written))
    pipeline.make_missing_page("compare_quick_camvid", "Not here.", "make data book")
    assert page.stat().st_mtime_ns == written, "an unchanged page is not written again"

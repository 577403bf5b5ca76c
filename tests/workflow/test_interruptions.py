"""A tuned study of which a training is killed and which is then stopped loses nothing.

What a training does with a signal of its own is in ``tests/experiments/test_resume.py``.
"""

from __future__ import annotations

import os
import signal

import pandas as pd
import pytest
from checkouts import checkout, end, start, under_way, wait_for

from lossatlas import cli
from lossatlas.experiments.heartbeat import beats


@pytest.mark.extended
@pytest.mark.timeout(1200)  # four processes that import torch
def test_a_tuned_study_survives_a_killed_training_and_a_stop_and_goes_on(
    tmp_path, monkeypatch, capsys
):
    checkout(
        tmp_path, study="tuned", losses=["ce"], training={"steps": 1000, "batch_size": 4, "evaluations": 1},
        tuning={"lr": [0.003, 0.01], "seeds": [1000], "steps": 40, "widen": 0}, runs_per_job=2,
    )  # fmt: skip
    runs_dir = tmp_path / "runs"
    process = start(tmp_path, "run", "tuned.yaml", "--jobs", "1")
    try:
        # a training is killed: the workflow starts its job again, and the tuning comes to its end
        killed = wait_for(lambda: under_way(runs_dir, seed=1000), process)
        os.kill(killed["pid"], signal.SIGKILL)
        wait_for(lambda: (runs_dir / "cells/tuned/selection.json").is_file(), process)
        # the study is stopped in the middle of a training: that saves itself, and nothing runs on
        wait_for(lambda: under_way(runs_dir, seed=0, after=20), process)
        process.terminate()
        said, _ = process.communicate(timeout=300)
    finally:
        end(process)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert beats(runs_dir) == []

    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "tuned.yaml"]) == 0, capsys.readouterr()
    assert "3 runs, 2 already there" in capsys.readouterr().out
    runs = pd.read_parquet("results/tuned/runs.parquet")
    assert list(runs.status) == ["completed"]
    assert list(runs.interruptions) == [1], "it goes on from its checkpoint"
    tuning = pd.read_parquet("results/tuned/tuning.parquet")
    assert list(tuning[tuning.chosen].lr) == list(runs.lr)

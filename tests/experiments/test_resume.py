"""A run that is killed at any moment, or told to stop, goes on and ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from small import file_hashes, train, weights

from lossatlas.experiments import RunConfig, checkpoint, training
from lossatlas.experiments.checkpoint import Checkpoints
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.record import is_complete, partial_path, read_run
from lossatlas.experiments.stopping import TRY_AGAIN, Interrupted, StopSignals

DATA = {"image_size": 32, "train_size": 12, "val_size": 4, "test_size": 4}
CONFIG = RunConfig(
    dataset_params=DATA,
    model_params={"width": 4, "depth": 2},
    loss="dice_ce",
    steps=60,
    batch_size=4,
    evaluations=4,
    share_every=3,
    augment={"shift": True, "colour": 0.1},
    checkpoint_s=0.0,  # after every step
)
#: What must be the same after an interruption; times and the count of interruptions may differ.
SAME = (
    "metrics", "rules", "per_class", "validation", "calibration", "hashes", "status", "final_loss",
)  # fmt: skip


@pytest.fixture(scope="module")
def datasets():
    return load_datasets(CONFIG)


@pytest.fixture(scope="module")
def undisturbed(datasets, tmp_path_factory):
    return train(CONFIG, datasets, tmp_path_factory.mktemp("whole"))


def assert_same_run(folder, other):
    assert file_hashes(folder) == file_hashes(other)
    ours, theirs = weights(folder), weights(other)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    records = [read_run(f) for f in (folder, other)]
    assert {k: str(records[0][k]) for k in SAME} == {k: str(records[1][k]) for k in SAME}


def wait_for(condition, process, pause_s=0.001):
    limit = time.monotonic() + 60
    while not condition():
        assert process.exitcode is None, "lengthen the run: it ended before it was killed"
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(pause_s)


@pytest.mark.timeout(900)  # twenty starts of Python and torch, each slow beside other work
def test_a_run_killed_at_twenty_moments_ends_as_one_that_was_left_alone(
    datasets, undisturbed, tmp_path, fork_server
):
    """The kills fall anywhere: while the model is built, in a step, in the middle of writing a checkpoint."""
    partial, moments = partial_path(tmp_path, CONFIG), random.Random(0)
    half_written = 0
    for kill in range(20):
        process = fork_server.Process(target=train, args=(CONFIG, datasets, tmp_path))
        before = set(partial.glob("state-*"))
        process.start()
        if kill % 4:
            wait_for(lambda before=before: set(partial.glob("state-*")) - before, process)
        if kill % 4 == 3:  # in the middle of a write, if the test is quick enough
            wait_for(lambda: any(partial.glob(".state-*")), process, pause_s=0)
        else:
            time.sleep(moments.uniform(0, 0.03))
        process.kill()
        process.join()
        half_written += any(partial.glob(".state-*"))
        for leftover in partial.glob(".state-*"):
            leftover.unlink()
    folder = train(CONFIG, datasets, tmp_path)
    assert_same_run(folder, undisturbed)
    assert read_run(folder)["interruptions"] >= 10
    assert half_written > 0, "no kill fell into a write"
    assert not partial.exists()


def stop_at(step, number, monkeypatch):
    """Send this process a signal in the middle of a step."""
    beat = training.Heartbeat.beat

    def signalling(self, at, loss):
        if at == step:
            os.kill(os.getpid(), number)
        beat(self, at, loss)

    monkeypatch.setattr(training.Heartbeat, "beat", signalling)


def test_sigterm_saves_the_run_and_asks_to_be_tried_again(
    datasets, undisturbed, tmp_path, monkeypatch
):
    config = CONFIG.model_copy(update={"checkpoint_s": 1e6})  # nothing is saved but by the signal
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        stop_at(23, signal.SIGTERM, patched)
        with pytest.raises(Interrupted, match="SIGTERM at step 23 of 60") as caught:
            train(config, datasets, tmp_path)
    assert caught.value.code == TRY_AGAIN == os.EX_TEMPFAIL
    assert signal.getsignal(signal.SIGTERM) is before
    assert [p.name for p in partial_path(tmp_path, config).iterdir()] == ["state-000000023.ckpt"]
    assert not is_complete(tmp_path, config)
    folder = train(config, datasets, tmp_path)
    assert_same_run(folder, undisturbed)
    record = read_run(folder)
    assert record["interruptions"] == 1
    assert len(pd.read_parquet(folder / "curves.parquet")) == 60


def test_ctrl_c_saves_the_run_too(datasets, tmp_path, monkeypatch):
    config = CONFIG.model_copy(update={"checkpoint_s": 1e6, "steps": 5})
    stop_at(2, signal.SIGINT, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config, datasets, tmp_path)
    assert [p.name for p in partial_path(tmp_path, config).iterdir()] == ["state-000000002.ckpt"]


def test_a_process_that_nobody_catches_the_stop_in_ends_with_status_75():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal\n"
            "from lossatlas.experiments.stopping import StopSignals\n"
            "with StopSignals():\n"
            "    os.kill(os.getpid(), signal.SIGTERM)\n"
            "    signal.pause()\n",
        ]
    )
    assert done.returncode == TRY_AGAIN


def test_a_notebook_reports_the_stop_as_an_error_with_a_clear_line():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "from lossatlas.experiments.stopping import Interrupted\n"
                "raise Interrupted('stopped by SIGTERM at step 3 of 9')"
            )
        ]
    )
    with pytest.raises(nbclient.exceptions.CellExecutionError) as caught:
        nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    assert caught.value.ename == "Interrupted"
    assert "stopped by SIGTERM at step 3 of 9" in str(caught.value)


def test_a_signal_outside_the_training_loop_ends_the_run_at_once_and_a_second_one_never_waits():
    with StopSignals() as stop, pytest.raises(Interrupted, match="outside its training loop"):
        os.kill(os.getpid(), signal.SIGTERM)
    with StopSignals() as stop:
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with StopSignals() as stop:
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            stop.obey()


def make(folder, **identity):
    return Checkpoints(folder, {"code": "a", "data": "b", **identity})


def test_two_checkpoints_are_kept_and_a_broken_one_falls_back_to_the_one_before(tmp_path):
    saver = make(tmp_path / "run")
    for step in (1, 2, 3):
        newest = saver.save(step, {"x": torch.full((3,), float(step)), "rows": [step]})
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "state-000000002.ckpt", "state-000000003.ckpt",
    ]  # fmt: skip
    assert make(tmp_path / "run").load()[0] == 3
    whole = newest.read_bytes()
    for broken in (whole[:-1], whole[:40], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        newest.write_bytes(broken)
        step, state = make(tmp_path / "run").load()
        assert (step, state["rows"], state["x"].tolist()) == (2, [2], [2.0] * 3)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_last_checkpoint_and_no_litter(tmp_path, monkeypatch, call):
    saver = make(tmp_path)
    saver.save(1, {"x": 1})

    def full(*arguments):
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, call, full)
        with pytest.raises(OSError, match="no space"):
            saver.save(2, {"x": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["state-000000001.ckpt"]
    assert make(tmp_path).load() == (1, {"x": 1})


def test_a_checkpoint_of_other_code_or_data_is_not_gone_on_from(tmp_path):
    make(tmp_path).save(1, {"x": 1})
    other = make(tmp_path, code="other")
    assert other.load() is None
    assert other.refused == "a checkpoint of other code is passed over"
    assert other.resumed == 0


def test_every_time_that_a_run_goes_on_is_counted(tmp_path):
    make(tmp_path).save(1, {"x": 1})
    for times in (1, 2, 3):
        again = make(tmp_path)
        again.load()
        assert again.resumed == times


def test_a_checkpoint_is_due_by_the_clock_and_sooner_where_there_was_an_evaluation(
    tmp_path, monkeypatch
):
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    saver = Checkpoints(tmp_path, {}, every_s=60.0)
    now = 5.0
    assert not saver.due(evaluated=True)
    now = 6.0
    assert saver.due(evaluated=True)
    assert not saver.due(evaluated=False)
    now = 60.0
    assert saver.due(evaluated=False)
    saver.save(1, {})
    assert not saver.due(evaluated=False)


def test_a_run_that_diverges_after_it_went_on_says_so(datasets, tmp_path, monkeypatch):
    """An outcome, not a crash, and the same one whether or not the run was interrupted."""
    config = CONFIG.model_copy(
        update={"loss": "ce", "lr": 1e25, "steps": 9, "optimizer": "sgd", "weight_decay": 0.0}
    )
    config = config.model_copy(update={"warmup_fraction": 0.9, "checkpoint_s": 1e6})
    whole = train(config, datasets, tmp_path / "whole")
    status = read_run(whole)["status"]
    assert status.startswith("diverged at step")
    with monkeypatch.context() as patched:
        stop_at(1, signal.SIGTERM, patched)
        with pytest.raises(Interrupted):
            train(config, datasets, tmp_path / "cut")
    again = train(config, datasets, tmp_path / "cut")
    assert_same_run(again, whole)

"""Two processes train what one does with the whole batch: real processes, gloo, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from small import train, train_as, weights
from torch import nn

from lossatlas import losses
from lossatlas.experiments import RunConfig, TrainParameters, distributed
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.distributed import (
    SynchronisedBatchNorm2d,
    sums_over_processes,
    synchronised,
)
from lossatlas.experiments.record import partial_path, read_run, run_path
from lossatlas.experiments.stopping import Interrupted

#: SGD, because AdamW divides by the gradient's size: where the true gradient is zero (a bias before batch
#: normalisation) it turns the last bit's rounding into a whole step.
COMMON = {
    "dataset_params": {"image_size": 32, "train_size": 12, "val_size": 4, "test_size": 4},
    "model_params": {"width": 4, "depth": 2}, "optimizer": "sgd", "lr": 0.05, "steps": 3, "batch_size": 4,
    "evaluations": 1, "share_every": 1, "augment": {"shift": True, "horizontal_flip": True},
}  # fmt: skip
#: A sum over pixels, regions of the batch, both; and those that sort, whose logits are gathered.
LOSSES = ("weighted_ce", "dice", "dice_ce", "ohem_ce", "lovasz_softmax")
CONFIGS = [RunConfig(**COMMON, loss=loss) for loss in LOSSES] + [
    RunConfig(**COMMON, loss="dice", micro_batch=1)
]


@pytest.fixture(scope="module")
def both(tmp_path_factory, side_by_side, free_port):
    """The folders of the same runs, made by one process and by two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    datasets = load_datasets(CONFIGS[0])
    for config in CONFIGS[:-1]:
        train(config, datasets, one)
    described, port = json.dumps([config.model_dump() for config in CONFIGS]), free_port()
    side_by_side(train_as, [(rank, port, [str(two), "cpu", described]) for rank in range(2)])
    return one, two


@pytest.mark.parametrize("config", CONFIGS[:-1], ids=LOSSES)
def test_two_processes_give_the_losses_and_the_metrics_of_one_with_the_whole_batch(both, config):
    folders = [run_path(runs_dir, config) for runs_dir in both]
    curves = [pd.read_parquet(folder / "curves.parquet") for folder in folders]
    for column in ("loss_value", "grad_norm", "foreground_share", "val_mean_dice", "val_mean_iou"):
        np.testing.assert_allclose(curves[1][column], curves[0][column], rtol=1e-5, err_msg=column)
    records = [read_run(folder) for folder in folders]
    assert records[0]["hashes"] == records[1]["hashes"]
    assert records[0]["processes"] is None
    assert records[1]["processes"] == {"count": 2, "backend": "gloo"}
    for name, value in records[0]["metrics"].items():
        assert records[1]["metrics"][name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
    ours, theirs = map(weights, folders)
    assert list(ours) == list(theirs)
    for name, values in ours.items():
        torch.testing.assert_close(theirs[name], values, rtol=1e-4, atol=1e-6)


def test_several_processes_may_take_micro_batches(both):
    record = read_run(run_path(both[1], CONFIGS[-1]))
    assert record["status"] == "completed"
    assert record["micro_batch"]["images"] == 1


def test_a_notebook_s_runs_go_to_several_processes_only_where_it_asks_for_them(
    tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(distributed, "launch", lambda *arguments: asked.append(arguments))
    values = {**COMMON, "steps": 1, "accelerator": "cpu", "runs_dir": str(tmp_path)}
    parameters = TrainParameters(**values, devices=2, seeds=[3, 4])
    folders = distributed.train_cell(parameters)
    assert folders == [run_path(tmp_path, run) for run in parameters.runs()]
    assert asked == [(parameters.runs(), str(tmp_path), "cpu", 2)]
    (folder,) = distributed.train_cell(TrainParameters(**values))
    assert read_run(folder)["processes"] is None
    assert len(asked) == 1


@pytest.mark.extended
def test_processes_that_fail_are_an_error_and_those_that_are_stopped_go_on(tmp_path):
    broken = RunConfig(**{**COMMON, "dataset_params": {"image_size": 32, "train_size": 0}})
    with pytest.raises(RuntimeError, match="training in 2 processes failed with status"):
        distributed.launch([broken], tmp_path, "cpu", devices=2)

    config = RunConfig(**{**COMMON, "steps": 200, "checkpoint_s": 0.0})
    partial = partial_path(tmp_path, config)
    threading.Thread(target=_stop_when, args=(partial,), daemon=True).start()
    with pytest.raises(Interrupted, match="SIGTERM"):
        distributed.launch([config], tmp_path, "cpu", devices=2)
    assert any(partial.glob("state-*"))
    distributed.launch([config], tmp_path, "cpu", devices=2)
    assert read_run(run_path(tmp_path, config))["interruptions"] == 1


def _stop_when(folder):
    """SIGTERM to this process once the run has saved itself the first time."""
    while not any(folder.glob("state-*")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_losses_of_sums_are_told_to_sum_and_those_that_sort_are_not():
    assert sums_over_processes(losses.build("dice"))
    dice_ce = losses.build("dice_ce")
    assert sums_over_processes(dice_ce)
    assert {part.process_group for part in dice_ce.parts} == {"world"}
    ce_lovasz = losses.build("ce_lovasz")
    assert not sums_over_processes(ce_lovasz)
    assert all(getattr(part, "process_group", None) is None for part in ce_lovasz.parts)


def test_every_batch_normalisation_is_replaced_and_keeps_its_weights_and_names():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2, eps=0.1)))
    nn.init.normal_(model[1][0].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    replaced = synchronised(model, torch.device("cpu"))
    assert isinstance(replaced[1][0], SynchronisedBatchNorm2d)
    assert replaced[1][0].eps == 0.1
    after = replaced.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())

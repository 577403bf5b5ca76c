"""The benchmarks of the training run, and say what they measure."""

from __future__ import annotations

import csv

import pytest
import torch

from lossatlas.experiments import RunConfig

TINY = {"model_params": {"width": 4, "depth": 2}, "steps": 4, "batch_size": 2, "augment": {}}


@pytest.fixture
def training(script):
    return script("benchmarks/training.py")


@pytest.fixture
def determinism(script):
    return script("benchmarks/determinism.py")


def test_the_contenders_train_the_same_network_on_the_same_pixels(training):
    dataset = training.scenes(4, 16, 16, channels=3)
    config = RunConfig(**TINY)
    assert all(
        contender(config, dataset, "cpu") > 0 for contender in (training.ours, training.bare)
    )
    first, second = (training.build(config, dataset) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_the_first_steps_are_no_part_of_a_step_s_duration(training):
    assert training.seconds_per_step([9.0, 10.0, 10.5, 11.0]) == pytest.approx(0.5)


def test_the_instrumentation_is_measured_in_turns_and_written(training, tmp_path):
    training.main(["--quick", "--only", "instrumentation", "--out", str(tmp_path)])
    with (tmp_path / "instrumentation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["unet", "segnet"]
    assert all(float(row["ms_with"]) > 0 for row in rows)


@pytest.mark.parametrize("setting", [0, 2])
def test_a_training_is_repeated_to_the_bit_on_the_cpu_under_every_setting(determinism, setting):
    config = RunConfig(
        **TINY,
        loss="lovasz_softmax",
        dataset_params={"image_size": 32, "train_size": 4, "val_size": 1, "test_size": 1},
    )
    dataset = determinism.load_datasets(config, splits=("train",))["train"]
    line = determinism.row(config, dataset, "cpu", determinism.SETTINGS[setting])
    assert line["equal"] is True
    assert line["largest_loss_difference"] == 0
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_form_is_named(determinism, monkeypatch):
    def raising(*arguments):
        raise RuntimeError("max_unpooling2d_forward_out does not have a deterministic form, but …")

    monkeypatch.setattr(determinism, "train", raising)
    line = determinism.row(RunConfig(), None, "cpu", determinism.SETTINGS[2])
    assert line["obstacle"] == "max_unpooling2d_forward_out"
    assert line["equal"] is False

"""The training loop: paired, deterministic, recorded whole or not at all."""

from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from small import QUICK, SMALL_DIGITS, file_hashes, train, weights

from lossatlas import losses
from lossatlas.experiments import ConfigError, RunConfig, TrainParameters, distributed, training
from lossatlas.experiments.components import (
    CLASS_WEIGHTS,
    as_configured,
    build_loss_for,
    build_loss_on,
    build_model_for,
    load_datasets,
)
from lossatlas.experiments.evaluate import constant_dice, evaluate, per_class
from lossatlas.experiments.forward import Logits
from lossatlas.experiments.record import is_complete, new_run_folder, read_run, run_path
from lossatlas.experiments.training import batch_indices, learning_rate_factor, train_cell


@pytest.fixture(scope="module")
def datasets():
    return load_datasets(RunConfig(**QUICK))


def test_every_image_comes_once_an_epoch_also_where_batches_straddle_epochs():
    drawn = np.concatenate(list(itertools.islice(batch_indices(10, 4, seed=0), 5)))
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))


@pytest.mark.parametrize("model", ["unet", "segnet"])
def test_the_same_run_twice_is_identical_to_the_bit(datasets, tmp_path, model):
    config = RunConfig(**{**QUICK, "model": model}, loss="dice")
    folders = [train(config, datasets, tmp_path / str(k)) for k in range(2)]
    assert file_hashes(folders[0]) == file_hashes(folders[1])
    one, other = map(weights, folders)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_folder_holds_all_that_the_run_is(datasets, tmp_path):
    config = RunConfig(**QUICK)
    folder = train(config, datasets, tmp_path)
    assert folder.name == config.run_id
    record = read_run(folder)
    assert record["config"] == config.model_dump()
    assert record["status"] == "completed"
    assert record["data_checksums"] == {split: d.checksum for split, d in datasets.items()}
    assert {"metrics", "per_class", "wall_s", "peak_memory_mb", "packages", "hardware"} <= set(
        record
    )
    curves = pd.read_parquet(folder / "curves.parquet")
    assert list(curves.step) == [1, 2, 3, 4]
    assert (curves.grad_norm > 0).all()
    assert list(curves.val_mean_dice.notna()) == [False, True, False, True]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".progress", config.run_id]
    assert list((tmp_path / ".progress").iterdir()) == []


def test_a_record_judges_the_test_split_by_three_decision_rules(datasets, tmp_path):
    config = RunConfig(**QUICK, loss="weighted_ce")
    folder = train(config, datasets, tmp_path)
    record = read_run(folder)
    assert record["schema"] == 2
    assert list(record["rules"]) == ["argmax", "tuned", "theory"]
    assert record["rules"]["argmax"]["offsets"] == [0.0] * 11
    assert record["rules"]["argmax"]["metrics"] == record["metrics"]
    assert "volume_ratio" in record["metrics"]
    # weights were trained with, so theory shifts the logits even of a network that has learnt nothing
    assert any(record["rules"]["theory"]["offsets"])
    assert set(record["calibration"]) == {"ece", "ece_foreground", "nll", "brier"}
    validation = record["validation"]
    assert 0 <= validation["foreground_dice"] <= validation["foreground_dice_tuned"] <= 1
    assert record["boundary"] == [] == record["size_recall"]
    assert record["micro_batch"] is None
    assert record["interruptions"] == 0
    table = pd.read_parquet(folder / "per_image.parquet")
    assert list(table.rule.unique()) == ["argmax", "tuned", "theory"]
    assert len(table) == 3 * 11 * len(datasets["test"])
    # the pooled counts of a rule's rows give the rule's metrics
    for name, rows in table[table.class_index > 0].groupby("rule"):
        pooled = rows.groupby("class_index")[["tp", "fp", "fn"]].sum()
        there = pooled[pooled.tp + pooled.fp + pooled.fn > 0]
        dice = 2 * there.tp / (2 * there.tp + there.fp + there.fn)
        found = record["rules"][name]["metrics"]["foreground_dice"]
        assert dice.mean() == pytest.approx(found)


def test_outlines_and_object_sizes_are_measured_where_a_study_asks(datasets, tmp_path):
    config = RunConfig(**{**QUICK, "steps": 1, "evaluations": 1}, boundary=True)
    record = read_run(train(config, datasets, tmp_path))
    assert len(record["boundary"]) > 0
    assert len(record["size_recall"]) > 0


def test_the_foreground_s_share_is_measured_every_so_many_steps_from_the_first(datasets, tmp_path):
    config = RunConfig(**{**QUICK, "steps": 5}, share_every=2, bias_init="zero")
    folder = train(config, datasets, tmp_path)
    share = pd.read_parquet(folder / "curves.parquet").foreground_share
    assert list(share.notna()) == [True, False, True, False, True]
    assert share.dropna().between(0, 1).all()
    # at the first step all probabilities are near 1/C, where the share is near the foreground's fraction
    images = next(batch_indices(24, 4, seed=0))
    _, target = datasets["train"].batch(images)
    assert share[0] == pytest.approx((target > 0).float().mean().item(), abs=0.05)


def test_a_run_measures_nothing_where_it_is_told_not_to_and_trains_the_same(datasets, tmp_path):
    folders = [train(RunConfig(**QUICK, share_every=every), datasets, tmp_path) for every in (0, 1)]
    curves = [pd.read_parquet(folder / "curves.parquet") for folder in folders]
    assert curves[0].foreground_share.isna().all()
    assert (curves[0].loss_value == curves[1].loss_value).all()


def test_sgd_is_torch_s_with_momentum_and_without_nesterov_s_step():
    model = torch.nn.Linear(1, 1, bias=False)
    config = RunConfig(optimizer="sgd", lr=0.1, weight_decay=0.5)
    optimizer = training.build_optimizer(model, config)
    with torch.no_grad():
        model.weight.fill_(1.0)
    # gradient 1, decay 0.5 · w: v₁ = 1.5, w₁ = 0.85; v₂ = 0.9 · 1.5 + 1 + 0.425, w₂ = 0.5725
    for expected in (0.85, 0.5725):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
        assert model.weight.item() == pytest.approx(expected)


def test_the_two_optimisers_start_alike_and_part(datasets, tmp_path):
    curves = [
        pd.read_parquet(
            train(RunConfig(**QUICK, optimizer=optimizer), datasets, tmp_path) / "curves.parquet"
        ).loss_value
        for optimizer in ("adamw", "sgd")
    ]
    assert curves[0][0] == curves[1][0]
    assert curves[0][3] != curves[1][3]


@pytest.mark.parametrize(
    "options", [{"precision": "bf16-mixed"}, {"channels_last": True}, {"micro_batch": 2}]
)
def test_every_option_of_speed_and_memory_trains(datasets, tmp_path, options):
    config = RunConfig(**{**QUICK, "steps": 2}, **options)
    record = read_run(train(config, datasets, tmp_path))
    assert record["status"] == "completed"


@pytest.mark.extended
def test_a_compiled_network_trains_to_the_same_losses(datasets, tmp_path):
    folders = [
        train(RunConfig(**QUICK, compile=compiled), datasets, tmp_path)
        for compiled in (False, True)
    ]
    curves = [pd.read_parquet(folder / "curves.parquet").loss_value for folder in folders]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)


def test_memory_that_is_too_short_is_met_and_recorded(datasets, tmp_path, monkeypatch):
    at_once, calls = training.BatchGradient._at_once, itertools.count(1)

    def short(self, images, target, measure):
        if next(calls) == 3:
            raise torch.cuda.OutOfMemoryError("the test's device is full")
        return at_once(self, images, target, measure)

    monkeypatch.setattr(training.BatchGradient, "_at_once", short)
    folder = train(RunConfig(**QUICK), datasets, tmp_path)
    record = read_run(folder)
    assert record["status"] == "completed"
    assert record["micro_batch"]["images"] == 2
    assert record["micro_batch"]["halved"] == [{"step": 3, "to": 2}]
    assert record["micro_batch"]["batch_normalisation"].startswith("statistics of each micro-batch")
    assert len(pd.read_parquet(folder / "curves.parquet")) == 4


def test_the_validation_curve_has_the_numbers_of_a_full_evaluation(datasets):
    model = build_model_for(RunConfig(**QUICK), datasets["train"])
    device = torch.device("cpu")
    found = training.validation_scores(model, datasets["val"], device)
    confusion = evaluate(Logits(model, datasets["val"], device)).confusion
    assert found["val_mean_dice"] == confusion.mean_dice(foreground_only=True)
    assert found["val_mean_iou"] == confusion.mean_iou(foreground_only=True)
    assert model.training


def test_a_run_that_is_there_is_not_trained_again(datasets, tmp_path):
    config = RunConfig(**QUICK)
    folder = train(config, datasets, tmp_path)
    before = (folder / "run.json").stat().st_mtime_ns
    train(config, datasets, tmp_path)
    assert (folder / "run.json").stat().st_mtime_ns == before


def test_a_run_of_other_masks_is_not_taken_for_one_of_today_s(datasets, tmp_path, capsys):
    values = QUICK | {"runs_dir": str(tmp_path), "accelerator": "cpu", "steps": 1}
    (folder,) = train_cell(TrainParameters(seeds=[0], **values), datasets)
    other = dict(datasets)
    for split in ("train", "val"):
        other[split] = copy.copy(datasets[split])
        other[split]._checksum = "0" * 64
    both = TrainParameters(seeds=[1, 0], **values)
    for again in (
        lambda: train(both.runs()[1], other, tmp_path),
        lambda: train_cell(both, other),
        lambda: distributed.train_cell(both.model_copy(update={"devices": 2}), other),
    ):
        with pytest.raises(ConfigError, match=rf"{folder}: .* \(train, val\): bring them back"):
            again()
    assert not is_complete(tmp_path, both.runs()[0])


def test_a_run_that_fails_leaves_nothing_that_could_be_taken_for_a_run(
    datasets, tmp_path, monkeypatch
):
    config = RunConfig(**QUICK)

    def full(*_, **__):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("lossatlas.experiments.training.write_run", full)
    with pytest.raises(OSError, match="no space"):
        train(config, datasets, tmp_path)
    assert not is_complete(tmp_path, config)
    assert [p.name for p in tmp_path.iterdir()] == [".progress"]


def test_a_folder_appears_under_its_name_only_when_the_block_has_ended(tmp_path):
    config = RunConfig()
    with new_run_folder(tmp_path, config) as folder:
        for name in (
            "run.json",
            "curves.parquet",
            "per_image.parquet",
            "predictions.npz",
            "last.ckpt",
        ):
            (folder / name).write_text("{}")
        assert not is_complete(tmp_path, config)
    assert is_complete(tmp_path, config)
    with pytest.raises(ValueError, match="expected schema 2"):
        read_run(run_path(tmp_path, config))


@pytest.mark.parametrize(
    ("step", "breaks"),
    [
        (3, lambda loss, logits: loss * float("nan")),
        # finite at every step; the gradient of the root at zero is infinite times zero
        (4, lambda loss, logits: loss + (logits * 0).abs().sqrt().sum()),
    ],
    ids=["loss", "gradient"],
)
def test_a_loss_or_a_gradient_that_becomes_nan_is_an_outcome_and_never_reaches_the_weights(
    datasets, tmp_path, monkeypatch, step, breaks
):
    def broken(*args, **kwargs):
        inner, calls = build_loss_on(*args, **kwargs), itertools.count(1)

        class Broken(torch.nn.Module):
            def forward(self, logits, target):
                loss = inner(logits, target)
                return breaks(loss, logits) if next(calls) == step else loss

        return Broken()

    monkeypatch.setattr(training, "build_loss_on", broken)
    folder = train(RunConfig(**QUICK), datasets, tmp_path)
    record = read_run(folder)
    assert record["status"] == f"diverged at step {step}"
    assert np.isfinite(record["metrics"]["mean_iou"])
    assert len(pd.read_parquet(folder / "curves.parquet")) == step - 1
    assert all(torch.isfinite(values).all() for values in weights(folder).values())


def test_a_folder_that_has_lost_a_file_is_no_run_any_more_and_is_made_again(datasets, tmp_path):
    config = RunConfig(**QUICK)
    folder = train(config, datasets, tmp_path)
    (folder / "curves.parquet").unlink()
    assert not is_complete(tmp_path, config)
    train(config, datasets, tmp_path)
    assert is_complete(tmp_path, config)


def test_training_lowers_the_loss(datasets, tmp_path):
    config = RunConfig(**{**QUICK, "steps": 40, "lr": 0.02})
    folder = train(config, datasets, tmp_path)
    curve = pd.read_parquet(folder / "curves.parquet").loss_value
    assert curve.tail(5).mean() < 0.5 * curve.head(5).mean()


@pytest.mark.parametrize("loss", ["ce", "dice", "lovasz_hinge", "lovasz_softmax", "focal"])
def test_a_binary_set_trains_with_one_channel(tmp_path, loss):
    config = RunConfig(
        **{**QUICK, "dataset_params": {**SMALL_DIGITS, "task": "binary"}, "steps": 2, "loss": loss}
    )
    datasets = load_datasets(config)
    assert datasets["train"].out_channels == 1
    folder = train(config, datasets, tmp_path)
    assert read_run(folder)["classes"] == list(datasets["test"].classes)


def test_a_cell_trains_all_its_seeds(datasets, tmp_path, capsys):
    parameters = TrainParameters(**QUICK, seeds=[0, 1], runs_dir=str(tmp_path), accelerator="cpu")
    folders = train_cell(parameters, datasets)
    assert [json.loads((f / "run.json").read_text())["config"]["seed"] for f in folders] == [0, 1]
    assert capsys.readouterr().out.count("trained") == 2


def test_the_learning_rate_warms_up_and_falls_to_zero():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    # half-way between the end of the warm-up and the last step the cosine is at one half
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] < 0.001
    assert learning_rate_factor(0, 100, 0.0) == 1.0


def test_the_mean_logits_say_what_each_channel_holds_of_each_class(datasets):
    model = build_model_for(RunConfig(**QUICK), datasets["train"])
    found = evaluate(Logits(model, datasets["test"], torch.device("cpu"), batch_size=4))
    images, target = datasets["test"].batch(np.arange(6))
    with torch.no_grad():
        logits = model.eval()(images)
    for channel, label in ((0, 0), (1, 0), (0, 1), (3, 1)):
        expected = logits[:, channel][target == label].double().mean().item()
        assert found.mean_logits[channel, label] == pytest.approx(expected, rel=1e-5)
    rows = per_class(found, datasets["test"].classes)
    inside = (target > 0) & (target != 1)
    assert rows[1]["logit_own"] == pytest.approx(logits[:, 1][target == 1].mean().item(), rel=1e-4)
    assert rows[1]["logit_other"] == pytest.approx(logits[:, 1][inside].mean().item(), rel=1e-4)
    assert rows[1]["logit_background"] == pytest.approx(
        logits[:, 1][target == 0].mean().item(), rel=1e-4
    )


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.45])
def test_the_best_constant_logit_of_the_lovasz_hinge_is_zero_for_a_minority(fraction):
    """Why the hinge stalls on pixels that the network cannot tell apart; the report says so of such a run."""
    target = (torch.arange(400) < 400 * fraction).long()[None]

    def loss(logit):
        return losses.functional.lovasz_hinge_loss(
            torch.full((1, 1, 400), logit), target, mode="binary"
        ).item()

    assert loss(0.0) == pytest.approx(1.0, abs=1e-6)
    assert all(loss(sign * size) > 1.0 for size in (0.01, 0.1, 1.0, 3.0) for sign in (-1, 1))


def test_the_best_constant_prediction_by_hand():
    # foreground classes with 10 % and 5 %: predicting the first everywhere gives (2·0.1/1.1 + 0) / 2
    assert constant_dice(np.array([0.85, 0.1, 0.05]), foreground_only=True) == pytest.approx(
        0.2 / 1.1 / 2
    )
    assert constant_dice(np.array([0.5, 0.5, 0.0]), foreground_only=False) == pytest.approx(
        1 / 1.5 / 2
    )


def test_class_weights_come_from_the_training_set_s_counts():
    counts = np.array([[90, 10, 0], [80, 10, 10]])
    config = RunConfig(loss="weighted_ce")
    loss = build_loss_for(config, mode="multiclass", ignore_index=None, image_counts=counts)
    expected = losses.weights.inverse_frequency(torch.tensor([170, 20, 10]))
    torch.testing.assert_close(loss.weight, expected.float())
    for scheme in CLASS_WEIGHTS:
        other = build_loss_for(
            RunConfig(loss="ce", loss_params={"class_weights": scheme}),
            mode="multiclass", ignore_index=None, image_counts=counts,
        )  # fmt: skip
        assert other.weight.shape == (3,)
        assert torch.isfinite(other.weight).all()


def test_two_classes_train_with_two_softmax_channels_where_it_is_asked(tmp_path):
    params = {"task": "binary", "image_size": 32, "train_size": 12, "val_size": 6, "test_size": 4}
    one = RunConfig(
        dataset_params=params, model_params={"width": 4, "depth": 2}, steps=2, batch_size=4, evaluations=1,
    )  # fmt: skip
    two = one.model_copy(update={"two_channels": True})
    assert one.run_id != two.run_id
    datasets = load_datasets(one)
    made = [read_run(train(config, datasets, tmp_path)) for config in (one, two)]
    assert [record["mode"] for record in made] == ["binary", "multiclass"]
    assert made[1]["parameters"] == made[0]["parameters"] + 16 + 1, "one more row of the head"
    assert datasets["train"].mode == "binary", "the data set that other runs share stays as it is"
    with pytest.raises(ConfigError, match="two_channels: expected a binary data set"):
        as_configured(two, {"train": load_datasets(RunConfig())["train"]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"measures": ["thin"]}, "measures: 'thin' needs two classes, digits has 11 classes"),
        ({"measures": ["pixels"]}, "measures: 'pixels' needs two classes in one channel"),
        ({"measures": ["oracle", "plug_in"]}, "measures: 'plug_in' needs two classes in one"),
    ],
)
def test_a_measure_that_needs_two_classes_is_refused_before_anything_is_trained(
    datasets, tmp_path, changes, words
):
    with pytest.raises(ConfigError, match=words):
        train(RunConfig(**QUICK | changes), datasets, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_place_of_runs_that_is_a_file_is_refused(datasets, tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(ConfigError, match="but it is a file; remove it, or name another runs_dir"):
        train(RunConfig(**QUICK), datasets, tmp_path / "runs")


def test_masks_of_one_class_or_of_void_alone_are_refused_before_anything_is_trained(
    datasets, tmp_path
):
    empty = copy.copy(datasets["train"])
    empty.labels, empty._counts = np.zeros_like(empty.labels), None
    with pytest.raises(ConfigError, match="two classes or more in the training masks"):
        train(RunConfig(**QUICK), datasets | {"train": empty}, tmp_path)
    void = copy.copy(datasets["val"])
    void.labels, void._counts, void.ignore_index = np.full_like(void.labels, 255), None, 255
    with pytest.raises(ConfigError, match=r"labelled pixels in the split val, got void \(255\)"):
        train(RunConfig(**QUICK), datasets | {"val": void}, tmp_path)
    assert not list(tmp_path.glob("*/run.json"))

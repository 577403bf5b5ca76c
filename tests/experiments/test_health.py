"""What a record says of a network that could, or could not, answer."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from small import QUICK, SMALL_DIGITS, train

from lossatlas import models
from lossatlas.experiments import RunConfig, health
from lossatlas.experiments.components import (
    build_model_for,
    load_datasets,
    prior_bias,
    starts_at_prior,
)
from lossatlas.experiments.evaluate import oracle
from lossatlas.experiments.forward import Logits
from lossatlas.experiments.outcome import began
from lossatlas.experiments.record import read_run

CPU = torch.device("cpu")
DIGITS = {"task": "binary", "foreground": 0.1, "objects": None, "object_size": 10}
BINARY = QUICK | {"dataset_params": SMALL_DIGITS | DIGITS}


@pytest.fixture(scope="module")
def datasets():
    return load_datasets(RunConfig(**BINARY))


def counts(*pixels, channels=1):
    """A training split of which the pixels of each class are known."""
    return SimpleNamespace(image_counts=lambda: np.array([pixels]), out_channels=channels)


def test_the_prior_is_the_log_odds_and_weights_shift_it_by_their_logarithm():
    assert prior_bias(counts(99, 1)) == pytest.approx([math.log(1 / 99)])
    assert prior_bias(counts(99, 1), torch.tensor([99.0])) == pytest.approx([0.0])
    several = prior_bias(counts(60, 30, 10, channels=3))
    probabilities = np.exp(several) / np.exp(several).sum()
    assert probabilities == pytest.approx([0.6, 0.3, 0.1])


def test_a_class_without_a_pixel_has_a_finite_prior():
    assert np.isfinite(prior_bias(counts(100, 0))).all()


@pytest.mark.parametrize(
    ("loss", "bias_init", "expected"),
    [
        ("ce", "default", True),
        ("focal", "default", True),
        ("dice", "default", False),
        ("dice_ce", "default", False),
        ("lovasz_softmax", "default", False),
        ("ce", "zero", False),
        ("dice", "prior", True),
        ("logit_adjusted_ce", "prior", False),  # it adds the prior itself
    ],
)
def test_the_last_bias_begins_where_it_is_told_to(datasets, loss, bias_init, expected):
    config = RunConfig(**BINARY, loss=loss, bias_init=bias_init)
    bias = build_model_for(config, datasets["train"]).output_layer.bias.item()
    assert starts_at_prior(config) is expected
    assert bias == pytest.approx(prior_bias(datasets["train"])[0] if expected else 0.0)


@pytest.mark.parametrize(("loss", "moved"), [("weighted_ce", True), ("weighted_dice", False)])
def test_class_weights_move_the_prior_of_means_over_pixels_alone(datasets, loss, moved):
    config = RunConfig(**BINARY, loss=loss)
    weight = torch.tensor([5.0])
    bias = build_model_for(config, datasets["train"], weight).output_layer.bias.item()
    plain = prior_bias(datasets["train"])[0]
    assert bias == pytest.approx(plain + math.log(5) if moved else plain)


def test_the_initial_cross_entropy_is_found_without_a_trace(datasets):
    model = models.build("unet", 1, 1, width=4, depth=2)
    with torch.no_grad():
        model.output_layer.weight.zero_()
        model.output_layer.bias.fill_(-4.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = health.initial_cross_entropy(model, datasets["val"], CPU)
    assert found == pytest.approx(math.log(2))  # the bias is taken as zero
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert health.is_healthy(found, 2)
    assert not health.is_healthy(1.63, 2)  # the dead start of seed 1 in the withdrawn study


def test_a_dead_head_is_seen_as_dead_channels_and_a_ceiling_at_the_bias(datasets):
    model = models.build("unet", 1, 1, width=4, depth=2, head_activation="relu")
    norm = model.decoder.blocks[-1].conv2[1]
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(-1.0)  # every channel is off
        model.output_layer.weight.fill_(2.0)
        model.output_layer.bias.fill_(-0.5)
    found = health.reach(model, datasets["val"], CPU)
    assert found["dead_channels"] == 1.0
    assert found["ceiling"] == found["head_bias"] == pytest.approx(-0.5)
    assert found["logit_max"] == found["logit_min"] == pytest.approx(-0.5)
    with torch.no_grad():
        norm.bias[0] = 1.5  # one of 16 is on, with a value of 1.5 everywhere: constant, so dead too
    found = health.reach(model, datasets["val"], CPU)
    assert found["ceiling"] == pytest.approx(-0.5 + 2 * 1.5)


def test_a_head_without_an_activation_has_no_ceiling(datasets):
    found = health.reach(models.build("unet", 1, 1, width=4, depth=2), datasets["val"], CPU)
    assert found["ceiling"] is None and found["dead_channels"] == 0.0
    assert found["logit_min"] < found["head_bias"] + 1 and found["logit_max"] > found["logit_min"]


def test_steps_without_a_gradient_and_batches_without_foreground_are_counted():
    curves = pd.DataFrame({"grad_norm": [1e-9, 0.1, 0.2, 0.0], "foreground_pixels": [0, 5, 0, 0]})
    assert health.steps(curves) == {"effective_steps": 0.5, "empty_batches": 0.75}
    assert health.steps(curves.iloc[:0]) == {"effective_steps": None, "empty_batches": None}


def test_a_run_began_where_its_best_threshold_beats_a_constant():
    constant = 2 * 0.1 / 1.1
    assert not began(constant, constant)
    assert not began(constant + 0.03, constant)
    assert began(constant + 0.05, constant)


def test_the_oracle_is_no_worse_than_one_half_and_ranks_perfect_logits_as_perfect(datasets):
    class Answers(torch.nn.Module):
        """The truth, far below one half: a network behind a ceiling."""

        def __init__(self, dataset):
            super().__init__()
            self.truth = torch.as_tensor(np.asarray(dataset.labels)).float()

        def forward(self, images):
            return (self.truth[: len(images)] - 9.0)[:, None]

    found = oracle(Logits(Answers(datasets["test"]), datasets["test"], CPU))
    assert found["oracle_dice"] == 1.0 and found["auprc"] == 1.0
    assert 8 < found["oracle_offsets"][0] < 9


def test_a_record_says_how_the_run_began_and_how_far_it_reached(datasets, tmp_path):
    folder = train(RunConfig(**BINARY, loss="ce"), datasets, tmp_path)
    record = read_run(folder)
    assert record["start"]["bias"] == "prior" and record["start"]["loss"] > 0
    assert record["start"]["healthy"] is health.is_healthy(record["start"]["cross_entropy"], 2)
    assert record["steps"]["effective_steps"] == 1.0
    assert record["reach"]["logit_max"] > record["reach"]["logit_min"]
    assert record["oracle"]["oracle_dice"] >= record["metrics"]["foreground_dice"]
    assert isinstance(record["oracle"]["began"], bool)
    curves = pd.read_parquet(folder / "curves.parquet").dropna(subset="val_loss")
    assert len(curves) == BINARY["evaluations"]
    assert (curves.val_dice_tuned >= curves.val_mean_dice).all()


def test_a_study_may_refuse_a_start_that_is_none(datasets, tmp_path, monkeypatch):
    monkeypatch.setattr(health, "initial_cross_entropy", lambda *_, **__: 1.63)
    config = RunConfig(**BINARY, healthy_start=True)
    with pytest.raises(health.UnhealthyStartError, match=r"is 1\.63, expected at most 1\.2 ln 2"):
        train(config, datasets, tmp_path)

"""For a seed every loss sees the same weights, batches and augmentations, to the bit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from small import train

from lossatlas import models
from lossatlas.experiments import RunConfig, training
from lossatlas.experiments.components import build_loss_on, load_datasets
from lossatlas.experiments.record import read_run
from lossatlas.experiments.seeding import (
    HASHED_BATCHES,
    AugmentationStream,
    batch_indices,
    hash_of_batches,
    hash_of_weights,
)

CONFIG = {
    "dataset_params": {"image_size": 32, "train_size": 12, "val_size": 2, "test_size": 2},
    "model_params": {"width": 4, "depth": 2}, "steps": 5, "batch_size": 4, "evaluations": 1,
    "augment": {"shift": True, "horizontal_flip": True, "colour": 0.1},
}  # fmt: skip


@pytest.fixture(scope="module")
def datasets():
    return load_datasets(RunConfig(**CONFIG))


def hashes(datasets, runs_dir, **changes):
    config = RunConfig(**{**CONFIG, **changes})
    return read_run(train(config, datasets, runs_dir))["hashes"]


def test_every_loss_of_a_seed_has_the_same_hashes_even_one_that_draws_random_numbers(
    datasets, tmp_path, monkeypatch
):
    found = [
        hashes(datasets, tmp_path, loss=name, seed=3)
        for name in ("ce", "weighted_ce", "ohem_ce", "dice", "lovasz_softmax")
    ]

    class Sampling(torch.nn.Module):
        """Cross-entropy of a random half of the pixels: it draws at every step."""

        def forward(self, logits, target):
            kept = torch.rand(target.shape) < 0.5
            return torch.nn.functional.cross_entropy(logits, target, reduction="none")[kept].mean()

    monkeypatch.setattr(training, "build_loss_on", lambda *a, **k: Sampling())
    found.append(hashes(datasets, tmp_path, loss="focal", seed=3))
    assert set(found[0]) == {"initial_weights", "batches", "augmentations"}
    assert all(h == found[0] for h in found)
    monkeypatch.setattr(training, "build_loss_on", build_loss_on)
    other = hashes(datasets, tmp_path, loss="ce", seed=4)
    assert all(other[key] != found[0][key] for key in other)


def test_the_hash_of_the_weights_changes_with_one_bit_and_with_a_name():
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    second.load_state_dict(first.state_dict())
    assert hash_of_weights(first) == hash_of_weights(second)
    with torch.no_grad():
        second.weight[0, 0] = torch.nextafter(second.weight[0, 0], torch.tensor(9.0))
    assert hash_of_weights(first) != hash_of_weights(second)
    assert hash_of_weights(first) != hash_of_weights(torch.nn.Sequential(first))


def test_the_hash_of_the_batches_covers_the_last_of_them():
    def digest(seed, steps):
        return hash_of_batches(batch_indices(10, 4, seed), steps)

    assert digest(0, 5) == digest(0, 5)
    assert digest(0, 5) != digest(0, 6)
    assert digest(0, 5) != digest(1, 5)


def test_the_hash_of_the_weights_leaves_out_the_bias_of_the_last_layer_alone():
    model = models.build("unet", 1, 1, width=4, depth=2)
    before = hash_of_weights(model)
    with torch.no_grad():
        model.output_layer.bias.fill_(-4.6)
    assert hash_of_weights(model) == before
    with torch.no_grad():
        model.output_layer.weight.add_(1.0)
    assert hash_of_weights(model) != before


@pytest.mark.parametrize("share", [0.25, 0.3, 1.0])
def test_a_share_of_every_batch_comes_from_the_images_with_foreground(share):
    foreground = np.zeros(50, bool)
    foreground[[3, 17, 31]] = True
    forced = math.ceil(8 * share)
    drawn = list(itertools.islice(batch_indices(50, 8, 0, foreground, share), 12))
    assert all(foreground[batch[:forced]].all() and len(batch) == 8 for batch in drawn)
    # each image with foreground once before one comes again
    in_turn = np.concatenate([batch[:forced] for batch in drawn])
    for start in range(0, len(in_turn) - 3, 3):
        assert sorted(in_turn[start : start + 3]) == [3, 17, 31]
    # the others are those of a run without a share, in the same order
    plain = np.concatenate(list(itertools.islice(batch_indices(50, 8, 0), 12)))
    rest = np.concatenate([batch[forced:] for batch in drawn])
    assert np.array_equal(rest, plain[: len(rest)])


def test_a_share_that_is_a_whole_number_of_images_is_not_rounded_up():
    foreground = np.zeros(500, bool)
    foreground[:7] = True
    batch = next(batch_indices(500, 50, 0, foreground, 0.14))
    assert sorted(batch[:7]) == list(range(7))
    # the other 43 are the first of a run without a share: no eighth image was forced
    assert np.array_equal(batch[7:], next(batch_indices(500, 50, 0))[:43])


def test_a_share_without_an_image_to_draw_from_is_refused():
    with pytest.raises(ValueError, match="expected images with foreground, got none among 5"):
        next(batch_indices(5, 2, 0, np.zeros(5, bool), 0.5))


def test_the_hash_of_the_augmentations_changes_with_a_pixel_and_with_the_draws():
    def digest(augment, change=0.0, batches=HASHED_BATCHES):
        stream = AugmentationStream(augment, seed=0)
        for k in range(batches):
            images = torch.full((1, 1, 2, 2), float(k))
            images[..., 0] += change
            stream(images, torch.zeros(1, 2, 2, dtype=torch.long), torch.Generator())
        return stream.hash()

    def draws(images, target, generator):
        torch.rand(1, generator=generator)
        return images, target

    assert digest(None) == digest(None)
    assert digest(None) != digest(None, change=1e-6)
    # the same pixels, but another state of the generator: later batches would differ
    assert digest(None) != digest(draws)
    # what comes after the hashed batches follows from that state
    assert digest(draws) == digest(draws, batches=HASHED_BATCHES + 2)

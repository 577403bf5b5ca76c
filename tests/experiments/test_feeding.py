"""Batches from the device are those from the host, to the bit."""

from __future__ import annotations

import itertools

import pytest
import torch

from lossatlas.experiments import RunConfig, feeding
from lossatlas.experiments.augment import build_augmentation
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.seeding import AugmentationStream, batch_indices

CPU = torch.device("cpu")
CONFIG = RunConfig(
    dataset_params={"image_size": 32, "train_size": 10, "val_size": 2, "test_size": 2}
)


@pytest.fixture(scope="module")
def dataset():
    return load_datasets(CONFIG, splits=("train",))["train"]


def collected(source, dataset):
    stream = AugmentationStream(build_augmentation({"shift": True, "colour": 0.2}, None), seed=1)
    order = itertools.islice(batch_indices(len(dataset), 4, seed=1), 5)
    return list(source(dataset, order, CPU, stream)), stream.hash()


def test_pixels_on_the_device_give_the_same_batches_as_those_on_the_host(dataset):
    ahead, ahead_hash = collected(feeding.batches, dataset)
    resident, resident_hash = collected(feeding.from_device, dataset)
    assert ahead_hash == resident_hash
    for (images, target), (others, other_target) in zip(ahead, resident, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(target, other_target)
        assert images.is_contiguous() and others.is_contiguous()


def test_the_runs_of_a_process_share_one_copy_that_goes_with_the_data_set():
    dataset = load_datasets(CONFIG, splits=("val",))["val"]
    collected(feeding.from_device, dataset)
    before = feeding._on_device[dataset][CPU][0]
    collected(feeding.from_device, dataset)
    assert feeding._on_device[dataset][CPU][0] is before
    there = len(feeding._on_device)
    del dataset
    assert len(feeding._on_device) == there - 1


def test_a_set_that_would_fill_the_gpu_stays_on_the_host(dataset, monkeypatch):
    size = dataset.images.nbytes + dataset.labels.nbytes
    for free, fits in ((size * 4 + 4, True), (size * 4 - 4, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        feeding._on_device.pop(dataset, None)
        assert feeding._fits(dataset, torch.device("cuda")) is fits

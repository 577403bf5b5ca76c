"""SegNet's unpooling and architecture."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lossatlas import models
from lossatlas.models._common import unpool


def test_unpooling_equals_torchs_max_unpool_and_its_gradient():
    torch.manual_seed(0)
    pooled, indices = F.max_pool2d(torch.randn(2, 3, 8, 12), 2, return_indices=True)
    ours = pooled.clone().requires_grad_()
    torchs = pooled.clone().requires_grad_()
    weight = torch.randn(2, 3, 8, 12)
    a, b = unpool(ours, indices), F.max_unpool2d(torchs, indices, 2)
    assert torch.equal(a, b)
    (a * weight).sum().backward()
    (b * weight).sum().backward()
    assert torch.equal(ours.grad, torchs.grad)


@pytest.mark.parametrize("name", ["segnet", "segnet_basic"])
def test_each_decoder_stage_unpools_with_the_indices_of_its_own_level(name):
    # Record where the decoder's inputs are non-zero; each must be the encoder's maxima there.
    torch.manual_seed(0)
    model = models.build(name, 1, 2, depth=3, width=4).eval()
    before_pooling, after_unpooling = [], []
    for stage in model.encoder:
        stage.register_forward_hook(lambda _m, _i, out: before_pooling.append(out))
    for stage in model.decoder:
        stage.register_forward_pre_hook(lambda _m, args: after_unpooling.append(args[0]))
    model(torch.randn(1, 1, 32, 32))
    assert len(after_unpooling) == 3
    for fine, sparse in zip(reversed(before_pooling), after_unpooling, strict=True):
        _, indices = F.max_pool2d(fine, 2, return_indices=True)
        allowed = unpool(torch.ones(indices.shape), indices) > 0
        assert sparse.shape == fine.shape
        assert (sparse != 0).any()
        assert not (sparse != 0)[~allowed].any()


def test_segnet_basic_normalises_its_input_and_has_no_relu_in_the_decoder():
    model = models.build("segnet_basic", 3, 11, size="published")
    stem = model.stem
    assert isinstance(stem, torch.nn.LocalResponseNorm)
    assert (stem.size, stem.alpha, stem.beta, stem.k) == (5, 1e-4, 0.75, 1.0)
    assert not any(isinstance(m, torch.nn.ReLU) for m in model.decoder.modules())
    assert sum(isinstance(m, torch.nn.ReLU) for m in model.encoder.modules()) == 4
    kernels = {m.kernel_size for m in model.modules() if isinstance(m, torch.nn.Conv2d)}
    assert kernels == {(7, 7), (1, 1)}

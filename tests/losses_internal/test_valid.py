"""Void pixels are left out by their bits, as a choice by bools would leave them out."""

from __future__ import annotations

import pytest
import torch

from lossatlas import losses
from lossatlas.losses import _valid

DTYPES = (torch.float32, torch.float64, torch.float16, torch.uint8, torch.int16, torch.int64)


def same(x: torch.Tensor, y: torch.Tensor) -> bool:
    """To the bit, NaN and the sign of 0 included."""
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x.dtype == y.dtype and torch.equal(x.view(kind), y.view(kind))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_choose_as_bools_do(dtype: torch.dtype) -> None:
    x = torch.arange(24).reshape(2, 3, 4).to(dtype)
    if dtype.is_floating_point:
        x[0, 0] = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0])
    labels = torch.tensor([[0, 255, 1, 255], [1, 1, 0, 255]])
    valid = _valid.differs(labels, 255)
    assert torch.equal(valid, labels != 255)
    kept = _valid.bits(valid, torch.zeros(1))[:, None]  # of another width than most
    assert same(_valid.masked(x, kept), torch.where(valid[:, None], x, 0))
    for value in (-1.0, 7.0) if dtype != torch.uint8 else (7.0, 255.0):
        assert same(_valid.filled(x, kept, value), torch.where(valid[:, None], x, int(value)))
    changed = x.transpose(1, 2).clone().transpose(1, 2)  # not contiguous
    assert same(_valid.masked_(changed, kept), torch.where(valid[:, None], x, 0))
    assert torch.equal(valid, labels != 255), "the mask itself stays"
    assert _valid.masked(x, None) is x and _valid.filled(x, None, 1.0) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64])
def test_labels_that_differ_are_found_in_every_dtype(dtype: torch.dtype) -> None:
    labels = torch.tensor([0, 1, 255, 3, 255]).to(dtype)
    assert _valid.differs(labels, 255).tolist() == [True, True, False, True, False]


def test_valid_pixels_are_counted_and_the_ends_are_those_of_valid_pixels() -> None:
    g = torch.Generator().manual_seed(0)
    valid = torch.rand(3, 2, 70_001, generator=g) < 0.7
    assert torch.equal(_valid.count(valid), valid.sum(-1).double())
    x = torch.rand(3, 2, 70_001, generator=g) - 0.5
    x[~valid] = 9
    assert _valid.ends(x, valid) == (x[valid].min().item(), x[valid].max().item())
    x[0, 0, torch.nonzero(valid[0, 0])[0]] = torch.nan
    assert _valid.ends(x, valid)[0] != _valid.ends(x, valid)[0]


def test_logits_that_are_negated_only_when_read_are_read() -> None:
    z = torch.randn(2, 1, 4, 4, dtype=torch.complex64).conj().imag
    y = torch.randint(0, 2, (2, 1, 4, 4)).float()
    y[0, 0, 0, 0] = 255
    loss = losses.DiceLoss(mode="binary", ignore_index=255)
    assert z.is_neg() and loss(z, y) == loss(z.clone(), y)

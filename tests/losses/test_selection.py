"""The chunked choice of the pixels of largest loss, against a full sort."""

from __future__ import annotations

import pytest
import torch
from cases import gradient, named
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lossatlas import losses
from lossatlas.losses import _order

# How the surprisals of a map may lie; -1 is a void pixel.
MAPS = {
    "random": lambda u: u,
    "ties": lambda u: (u * 5).floor(),
    "equal": lambda u: torch.full_like(u, 0.7),
    "void": lambda u: torch.where(u < 0.3, -1.0, u),
    "all void": lambda u: torch.full_like(u, -1.0),
    "zeros": lambda u: torch.where(u < 0.8, 0.0, u),
}


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    kind=st.sampled_from(sorted(MAPS)),
    pixels=st.integers(1, 1000),
    count=st.integers(0, 2000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
@example(kind="ties", pixels=1000, count=999, dtype=torch.float32, seed=0)
@example(kind="void", pixels=1000, count=1000, dtype=torch.float32, seed=0)
@example(kind="zeros", pixels=1000, count=500, dtype=torch.float32, seed=0)
@example(kind="random", pixels=1000, count=1, dtype=torch.float64, seed=0)
def test_all_but_the_largest_are_dropped(
    kind: str, pixels: int, count: int, dtype: torch.dtype, seed: int
) -> None:
    u = MAPS[kind](torch.rand(pixels, generator=torch.Generator().manual_seed(seed), dtype=dtype))
    expected = u[u >= 0].sort(descending=True).values[:count]
    left = u.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_order, "_PART", 256)  # several parts
        cut = _order.drop_all_but(left, count)
    kept = left[left >= cut]
    kept = kept[kept >= 0]
    torch.testing.assert_close(kept.sort(descending=True).values, expected, rtol=0, atol=0)
    assert torch.equal(left[left >= 0], u[left >= 0])  # what is kept is as it was


@pytest.mark.parametrize("name", ["ohem_ce", "topk_ce"])
def test_the_chunked_form_chooses_what_the_plain_one_does(name: str) -> None:
    for mode, channels in (("binary", 1), ("multilabel", 3)):
        for options in ({}, {"weight": [2.5] * channels}):
            loss = losses.build(name, mode=mode, ignore_index=255, **options)
            with named(mode, options):
                assert_one_choice(loss, channels)


def assert_one_choice(loss: losses.SegmentationLoss, channels: int) -> None:
    """Chunks and radix in float32 choose as a plain sort in float64."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, channels, 300, 400, generator=generator) * 3
    target = (torch.rand(logits.shape, generator=generator) < 0.2).float()
    target[0, 0, :40] = 255
    value, grad = gradient(loss, logits, target)
    exact, exact_grad = gradient(loss, logits.double(), target.double())
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0)
    # one pixel whose loss rounds across the cut may be chosen by one of them alone
    moved = (grad.double() - exact_grad).abs() > 1e-5 * exact_grad.abs().max()
    assert moved.sum() <= 2


@pytest.mark.parametrize("n", [2**25 + 1, 10**8 + 3])
def test_the_number_kept_is_exact_where_float32_counts_no_more(n):
    everything = losses.TopKCrossEntropyLoss(k=1.0), losses.OHEMCrossEntropyLoss(min_kept=1.0)
    assert [int(loss.fewest(torch.tensor(n))) for loss in everything] == [n, n]

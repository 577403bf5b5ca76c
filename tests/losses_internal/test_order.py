"""What orders errors on the CPU does so whichever sort is the faster one there."""

from __future__ import annotations

import time

import torch

from lossatlas.losses import _order


def test_both_sorts_agree_on_keys_that_are_equal():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randint(0, 50, (4000,), dtype=torch.int32, generator=generator)
    keys[::7] = 0x7FFFFFFF
    for by_torch, by_numpy in zip(
        _order._sorted_by_torch(keys), _order._sorted_by_numpy(keys), strict=True
    ):
        assert torch.equal(by_torch, by_numpy)


def test_the_sort_is_chosen_once_and_torch_sorts_where_numpy_is_missing(monkeypatch):
    calls = []

    def slow(keys):
        calls.append(len(keys))
        time.sleep(0.02)
        return keys, keys

    with monkeypatch.context() as patch:
        patch.setattr(_order, "_sorted_by_numpy", slow)
        _order._fastest_sort.cache_clear()
        assert _order._fastest_sort() is _order._sorted_by_torch
        asked = len(calls)
        assert _order._fastest_sort() is _order._sorted_by_torch and len(calls) == asked > 1
    _order._fastest_sort.cache_clear()

    def without(tensor):  # what torch itself does then
        raise RuntimeError("Numpy is not available")

    monkeypatch.setattr(torch.Tensor, "numpy", without)
    assert _order._fastest_sort.__wrapped__() is _order._sorted_by_torch

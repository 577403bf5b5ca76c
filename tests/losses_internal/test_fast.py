"""The chunked forms against the plain formulas: value, gradient, second backward, memory."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.losses import _chunked, _layout

MODES = ["multiclass", "binary", "binary, floating", "binary, soft", "multilabel"]
OPTIONS: list[dict[str, Any]] = [
    {}, {"ignore_index": 1}, {"weight": True}, {"per_image": True, "classes": "all"}, {"bins": 32},
    {"reduction": "sum"},
]  # fmt: skip


def _case(mode: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 9, generator=generator, dtype=torch.float64)
    if mode == "multiclass":
        target = torch.randint(0, 4, (3, 5, 9), generator=generator)
        target[1] = 2  # an image of one class
        return logits, target
    if mode == "multilabel":
        return logits, torch.randint(0, 2, (3, 4, 5, 9), generator=generator)
    target = torch.randint(0, 2, (3, 5, 9), generator=generator)
    target[2] = 0  # an image without foreground
    if mode == "binary":
        return logits[:, :1], target
    if mode == "binary, floating":
        return logits[:, :1], target.double()
    return logits[:, :1], torch.rand(3, 5, 9, generator=generator, dtype=torch.float64)


def _build(name: str, mode: str, options: dict[str, Any]) -> losses.SegmentationLoss:
    mode = mode.split(",")[0]
    params = dict(options)
    if name.startswith("weighted") or "weight" in params:
        params["weight"] = torch.tensor([0.5, 2.0, 1.0, 0.3][: 2 if mode == "binary" else 4])
    return losses.build(name, mode=mode, **params)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", losses.names())
def test_chunked_and_plain_forms_agree_across_chunk_borders(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The chunked Lovász form exists in float32 alone.
    dtype = torch.float32 if "lovasz" in name else torch.float64
    monkeypatch.setattr(_chunked, "_CHUNK", 64)
    logits, target = _case(mode)
    logits = logits.to(dtype)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-6
    for options in OPTIONS:
        if any(key not in losses.parameters(name) for key in options):
            continue
        if name == "unified_focal" and "reduction" in options:
            continue
        loss = _build(name, mode, options)
        fast, plain = (logits.clone().requires_grad_() for _ in range(2))
        given = target.clone()
        value = loss(fast, target)
        value.backward(retain_graph=True)
        first = fast.grad
        assert first is not None
        again = torch.autograd.grad(3 * value, fast)[0]  # the buffer is gone: recomputed
        with monkeypatch.context() as patch:
            patch.setattr(_layout, "eager_cpu", lambda tensor: False)
            expected = loss(plain, target)
            expected.backward()
        scale = max(1.0, float(expected.detach().abs()))
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance * scale)
        torch.testing.assert_close(first, plain.grad, rtol=tolerance, atol=tolerance * scale)
        torch.testing.assert_close(again, 3 * first, rtol=tolerance, atol=tolerance * scale)
        assert torch.equal(fast, logits) and torch.equal(target, given)


@pytest.mark.parametrize("name", ["ce", "dice", "dice_ce", "lovasz_softmax"])
def test_a_step_leaves_no_reference_cycle_that_holds_the_logits(name: str) -> None:
    gc.disable()
    try:
        logits = torch.randn(1, 3, 8, 8, requires_grad=True)
        losses.build(name)(logits, torch.randint(0, 3, (1, 8, 8))).backward()
        held = weakref.ref(logits)
        del logits
        assert held() is None
    finally:
        gc.enable()


def test_ignored_pixels_may_hold_inf_and_nan_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_chunked, "_CHUNK", 16)
    logits, target = torch.randn(2, 3, 6), torch.randint(0, 3, (2, 6))
    target[:, 4:] = 255
    logits[:, :, 4], logits[:, :, 5] = torch.nan, torch.inf
    for name in ("ce", "ohem_ce", "focal", "dice", "lovasz_softmax", "dice_ce"):
        full = logits.clone().requires_grad_()
        cut = logits[:, :, :4].clone().requires_grad_()
        loss = losses.build(name, ignore_index=255)
        value, expected = loss(full, target), loss(cut, target[:, :4])
        value.backward()
        expected.backward()
        assert full.grad is not None and cut.grad is not None
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(full.grad[:, :, :4], cut.grad)
        assert not full.grad[:, :, 4:].any()


@pytest.mark.parametrize("size", [7, 8, 12, 4096])
def test_the_logarithm_of_products_is_the_sum_of_logarithms(size: int) -> None:
    for largest in (0.5, 1e-7):  # a sure network's terms are tiny, and must not be lost
        q = torch.rand(size, generator=torch.Generator().manual_seed(0)) * largest
        expected = q.double().neg().log1p().sum().item()
        assert _chunked._log_complement_sum(q) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 1 << 20), (3, 3, 1 << 20), (2, 19, 1 << 20)])
def test_up_to_four_threads_have_a_chunk_as_large_as_one_alone_each(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    for threads in (1, 2, 4, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        images, pixels = _chunked._size(torch.Size(shape))
        assert images == 1
        sizes.append(pixels)
    assert sizes == pytest.approx([sizes[0], 2 * sizes[0], 4 * sizes[0], 4 * sizes[0]], abs=4)

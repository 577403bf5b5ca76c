"""Many gradients in one call (``is_grads_batched=True``) are those of as many calls, first and second order."""

from __future__ import annotations

import pytest
import torch

from lossatlas import losses


@pytest.mark.parametrize("name", losses.names())
def test_a_batch_of_gradients_is_the_gradients_one_by_one(name):
    for mode in ("multiclass", "binary"):
        channels = 3 if mode == "multiclass" else 1
        params = (
            {"weight": [1.0, 2.0, 3.0][: max(channels, 2)]} if name.startswith("weighted") else {}
        )
        try:
            loss = losses.build(name, mode=mode, **params)
        except (TypeError, ValueError):
            continue
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(1, channels, 3, 3, generator=generator).requires_grad_()
        target = torch.randint(0, max(channels, 2), (1, 3, 3), generator=generator)
        (plain,) = torch.autograd.grad(loss(logits, target), logits)
        factors = torch.tensor([1.0, 2.0])
        (many,) = torch.autograd.grad(loss(logits, target), logits, factors, is_grads_batched=True)
        torch.testing.assert_close(
            many, torch.stack([plain, 2 * plain]), msg=f"{mode}, first order"
        )

        (gradient,) = torch.autograd.grad(loss(logits, target), logits, create_graph=True)
        if not gradient.requires_grad:
            continue  # linear in the logits
        units = torch.eye(gradient.numel()).view(-1, *gradient.shape)
        (hessian,) = torch.autograd.grad(
            gradient, logits, units, is_grads_batched=True, retain_graph=True
        )
        rows = [torch.autograd.grad(gradient, logits, u, retain_graph=True)[0] for u in units]
        torch.testing.assert_close(
            hessian, torch.stack(rows), atol=1e-5, rtol=1e-4, msg=f"{mode}, second order"
        )

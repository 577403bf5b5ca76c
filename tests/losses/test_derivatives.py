"""First and second derivatives by finite differences of the library itself (gradcheck, gradgradcheck), in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import SPECS, VOID, Spec, combinations, example, gradient, label, seed_of

DEFAULTS = [pytest.param(*c, id=label(*c)) for c in combinations(SPECS, variants=False)]


def smooth_case(spec: Spec, mode: str, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A tiny example away from the kinks (sorted errors that swap, hinges at 0, p = t)."""
    return example(
        mode, kind, seed=seed_of("derivative", spec.name, mode, kind), shape=(3,), void=0.2
    )


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), DEFAULTS)
def test_first_and_second_derivatives_pass_gradcheck(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = smooth_case(spec, mode, kind)
    loss = spec.build(mode, ignore_index=VOID, **params)
    z = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), z, fast_mode=True, atol=1e-6)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, target), z, fast_mode=True, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"), [c for c in DEFAULTS if c.values[3] == "hard"]
)
def test_every_reduction_and_per_image_passes_gradcheck(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = smooth_case(spec, mode, kind)
    options: list[dict[str, Any]] = [{"reduction": r} for r in spec.reductions[1:]]
    if spec.is_region:
        options.append({"per_image": True})
    for option in options:
        loss = spec.build(mode, ignore_index=VOID, **params, **option)
        z = logits.requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, f=loss: f(x, target), z, fast_mode=True, atol=1e-6
        ), option


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"), [c for c in DEFAULTS if c.values[3] == "soft"]
)
def test_the_gradient_of_a_gradient_is_symmetric(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    """u' H v = v' H u for random u and v: a wrong double backward rarely passes."""
    logits, target = smooth_case(spec, mode, kind)
    g = torch.Generator().manual_seed(0)
    u, v = (torch.randn(logits.shape, generator=g, dtype=torch.float64) for _ in range(2))
    loss = spec.build(mode, ignore_index=VOID, **params)
    z = logits.requires_grad_()
    grad = torch.autograd.grad(loss(z, target), z, create_graph=True)[0]
    products = []
    for a in (u, v):
        if grad.requires_grad:
            products.append(
                torch.autograd.grad((grad * a).sum(), z, retain_graph=True, allow_unused=True)[0]
            )
    if not products or products[0] is None:
        assert spec.name == "lovasz_hinge"  # piecewise linear in the logits: no curvature
        return
    assert (products[0] * v).sum().item() == pytest.approx(
        (products[1] * u).sum().item(), rel=1e-8, abs=1e-12
    )


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"), [c for c in DEFAULTS if c.values[3] == "hard"]
)
def test_the_gradient_scales_with_the_incoming_one(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = smooth_case(spec, mode, kind)
    loss = spec.build(mode, ignore_index=VOID, **params)
    _, grad = gradient(loss, logits, target)
    z = logits.clone().requires_grad_()
    (loss(z, target) * -3.5).backward()
    torch.testing.assert_close(z.grad, -3.5 * grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"), [c for c in DEFAULTS if c.values[3] == "hard"]
)
def test_backward_twice_over_one_graph_gives_the_same(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    """Buffers saved for the backward must not be consumed or changed by it."""
    logits, target = smooth_case(spec, mode, kind)
    loss = spec.build(mode, ignore_index=VOID, **params)
    z, before = logits.clone().requires_grad_(), target.clone()
    value = loss(z, target)
    first = torch.autograd.grad(value, z, retain_graph=True)[0]
    second = torch.autograd.grad(value, z)[0]
    assert torch.equal(first, second)
    assert torch.equal(target, before) and torch.equal(z.detach(), logits)

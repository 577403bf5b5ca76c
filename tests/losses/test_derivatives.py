"""First and second derivatives by finite differences of the library itself (gradcheck, gradgradcheck), in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from cases import PRIMITIVES, VOID, Scene, Spec, each, gradient, named, scenes, text


def smooth_case(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """A tiny example away from the kinks (sorted errors that swap, hinges at 0, p = t)."""
    return scene.example("derivative", shape=(3,), void=0.2)


@each()
def test_first_and_second_derivatives_pass_gradcheck(spec: Spec) -> None:
    """Second ones by default; first ones also of every reduction, and of statistics per image."""
    others: list[dict[str, Any]] = [{"reduction": r} for r in spec.reductions[1:]]
    if spec.is_region:
        others.append({"per_image": True})
    for scene in scenes(spec):
        logits, target = smooth_case(scene)
        logits.requires_grad_()
        for options in [{}, *others] if scene.kind == "hard" else [{}]:
            loss = partial(scene.build(ignore_index=VOID, **options), target=target)
            with named(scene, text(options)):
                assert torch.autograd.gradcheck(loss, logits, fast_mode=True, atol=1e-6)
                if not options:
                    assert torch.autograd.gradgradcheck(loss, logits, fast_mode=True, atol=1e-6)


@each(*PRIMITIVES)
def test_a_backward_scales_with_the_incoming_gradient_and_can_be_repeated(spec: Spec) -> None:
    """Buffers saved for the backward must not be consumed or changed by it."""
    for scene in scenes(spec, kinds=("hard",)):
        logits, target = smooth_case(scene)
        loss = scene.build(ignore_index=VOID)
        _, grad = gradient(loss, logits, target)
        z, before = logits.clone().requires_grad_(), target.clone()
        value = loss(z, target)
        with named(scene):
            scaled = torch.autograd.grad(-3.5 * value, z, retain_graph=True)[0]
            torch.testing.assert_close(scaled, -3.5 * grad, rtol=1e-12, atol=1e-15)
            assert torch.equal(torch.autograd.grad(value, z, retain_graph=True)[0], grad)
            assert torch.equal(torch.autograd.grad(value, z)[0], grad)
            assert torch.equal(target, before)
            assert torch.equal(z.detach(), logits)

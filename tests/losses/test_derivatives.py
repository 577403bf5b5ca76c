"""First and second derivatives by finite differences of the library itself (gradcheck, gradgradcheck), in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from cases import VOID, Spec, each, named, scenes, text


@each()
def test_first_and_second_derivatives_pass_gradcheck(spec: Spec) -> None:
    """Second ones by default; first ones also of every reduction, and of statistics per image."""
    others: list[dict[str, Any]] = [{"reduction": r} for r in spec.reductions[1:]]
    if spec.is_region:
        others.append({"per_image": True})
    for scene in scenes(spec):
        # a tiny example away from the kinks (sorted errors that swap, hinges at 0, p = t)
        logits, target = scene.example("derivative", shape=(3,), void=0.2)
        logits.requires_grad_()
        for options in [{}, *others] if scene.kind == "hard" else [{}]:
            loss = partial(scene.build(ignore_index=VOID, **options), target=target)
            with named(scene, text(options)):
                assert torch.autograd.gradcheck(loss, logits, fast_mode=True, atol=1e-6)
                if not options:
                    assert torch.autograd.gradgradcheck(loss, logits, fast_mode=True, atol=1e-6)

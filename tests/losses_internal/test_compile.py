"""A functional form may be compiled: it builds its loss while it is traced."""

from __future__ import annotations

import torch

from lossatlas import losses


def _case(mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    channels = 1 if mode == "binary" else 3
    logits = torch.randn(2, channels, 4, 5, generator=generator)
    shape = (2, 3, 4, 5) if mode == "multilabel" else (2, 4, 5)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    return logits, target


def test_a_function_builds_its_loss_inside_the_graph() -> None:
    logits, target = _case("multiclass")
    torch._dynamo.reset()
    compiled = torch.compile(losses.functional.focal_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(logits, target, gamma=1.0),
        losses.functional.focal_loss(logits, target, gamma=1.0),
    )

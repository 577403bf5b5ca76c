"""What torch.compile, torch.export and the chunked forms promise."""

from __future__ import annotations

import pytest
import torch

from lossatlas import losses


def _case(mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    channels = 1 if mode == "binary" else 3
    logits = torch.randn(2, channels, 4, 5, generator=generator)
    shape = (2, 3, 4, 5) if mode == "multilabel" else (2, 4, 5)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    return logits, target


def _build(name: str, mode: str) -> losses.SegmentationLoss:
    params = {"weight": [1.0, 2.0, 3.0]} if name.startswith("weighted") else {}
    return losses.build(name, mode=mode, ignore_index=2, **params)


#: One of every kind of formula: compiling all of them takes minutes and traces the same code.
KINDS = [
    "ce",
    "one_vs_all_ce",
    "balanced_ce",
    "ohem_ce",
    "topk_ce",
    "focal",
    "dice",
    "lovasz_softmax",
    "unified_focal",
    "boundary",
    "dice_ce",
]


@pytest.mark.parametrize("name", KINDS)
def test_a_compiled_loss_is_one_graph_and_equals_the_eager_one(name: str) -> None:
    loss = _build(name, "multiclass")
    logits, target = _case("multiclass")
    torch._dynamo.reset()
    # The backend that runs the captured forward and backward graphs without generating code.
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    a, b = (logits.clone().requires_grad_() for _ in range(2))
    value, expected = compiled(a, target), loss(b, target)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["ce", "topk_ce", "dice", "lovasz_softmax", "hausdorff"])
def test_an_exported_loss_equals_the_eager_one(name: str) -> None:
    loss = _build(name, "multiclass")
    logits, target = _case("multiclass")
    exported = torch.export.export(loss, (logits, target)).module()
    torch.testing.assert_close(exported(logits, target), loss(logits, target))


@pytest.mark.parametrize(
    ("name", "mode"), [("focal", "binary"), ("dice", "multilabel"), ("lovasz_hinge", "binary")]
)
def test_sigmoid_losses_compile_to_one_graph(name: str, mode: str) -> None:
    loss, (logits, target) = losses.build(name, mode=mode), _case(mode)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


def test_a_function_builds_its_loss_inside_the_graph() -> None:
    logits, target = _case("multiclass")
    torch._dynamo.reset()
    compiled = torch.compile(losses.functional.focal_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(logits, target, gamma=1.0),
        losses.functional.focal_loss(logits, target, gamma=1.0),
    )

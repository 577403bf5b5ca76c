"""The losses as citizens of torch: compile, export, func, copies, state, devices.

``torch.compile`` runs with the backend "aot_eager": it captures forward and backward with fullgraph=True and fails at a
graph break exactly as the default backend does, without waiting for a C++ compiler. Capturing takes a second each, so
the default run captures one loss of each kind; all the others, and the default backend, belong to the extended run.
"""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from cases import EXTENDED, SPECS, VOID, WEIGHT, Spec, combinations, example, gradient, label

from lossatlas import losses

DEFAULTS = [pytest.param(*c, id=label(*c)) for c in combinations(SPECS, variants=False)]
HARD = [c for c in DEFAULTS if c.values[3] == "hard"]
MULTICLASS = [c for c in HARD if c.values[2] == "multiclass"]


def captured(*default: str) -> list[Any]:
    """Every loss, of which the default run takes those named."""
    return [
        pytest.param(*c.values, id=c.id, marks=() if c.values[0].name in default else EXTENDED)
        for c in MULTICLASS
    ]


def compiled_equals_eager(
    loss: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor, backend: str
) -> None:
    torch.compiler.reset()
    value, grad = gradient(loss, logits, target)
    other, other_grad = gradient(
        torch.compile(loss, fullgraph=True, backend=backend), logits, target
    )
    torch.testing.assert_close(other, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other_grad, grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"),
    captured("ce", "ohem_ce", "dice", "lovasz_softmax", "dice_ce"),
)
def test_the_whole_graph_compiles(spec: Spec, params: dict[str, Any], mode: str, kind: str) -> None:
    logits, target = example(mode, kind, void=0.2)
    compiled_equals_eager(
        spec.build(mode, ignore_index=VOID, **params), logits, target, "aot_eager"
    )


@pytest.mark.parametrize(
    ("name", "mode", "kind"),
    [
        ("dice", "binary", "hard"),
        *(
            pytest.param(name, mode, kind, marks=EXTENDED)
            for name in ("ce", "lovasz_softmax", "focal")
            for mode, kind in (("binary", "hard"), ("multilabel", "soft"), ("multiclass", "soft"))
        ),
    ],
)
def test_other_modes_and_soft_targets_compile(name: str, mode: str, kind: str) -> None:
    logits, target = example(mode, kind, void=0.2)
    loss = losses.build(name, mode=mode, ignore_index=VOID, weight=WEIGHT[mode])
    compiled_equals_eager(loss, logits, target, "aot_eager")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=EXTENDED) for n in ("ce", "dice", "lovasz_softmax")]
)
def test_the_default_backend_gives_the_eager_values(name: str) -> None:
    logits, target = example("multiclass", void=0.2)
    compiled_equals_eager(losses.build(name, ignore_index=VOID), logits, target, "inductor")


@pytest.mark.parametrize("name", ["dice", pytest.param("ce", marks=EXTENDED)])
def test_a_compiled_loss_takes_another_shape_without_a_graph_break(name: str) -> None:
    loss = losses.build(name, ignore_index=VOID)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((3, 2), (5, 4), (7, 3)):
        logits, target = example("multiclass", shape=shape, void=0.2)
        torch.testing.assert_close(
            compiled(logits, target), loss(logits, target), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_func_grad_equals_autograd(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, void=0.2)
    loss = spec.build(mode, ignore_index=VOID, **params)
    value, grad = gradient(loss, logits, target)
    got_grad, got = torch.func.grad_and_value(loss)(logits, target)
    torch.testing.assert_close(got, value, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(got_grad, grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_vmap_over_a_stack_equals_a_loop(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    pairs = [example(mode, kind, void=0.2, seed=s) for s in range(3)]
    z, t = (torch.stack(x) for x in zip(*pairs, strict=True))
    loss = spec.build(mode, ignore_index=VOID, **params)
    torch.testing.assert_close(
        torch.func.vmap(loss)(z, t), torch.stack([loss(*p) for p in pairs]), rtol=1e-9, atol=1e-12
    )
    grads = torch.func.vmap(torch.func.grad(loss))(z, t)
    expected = torch.stack([gradient(loss, *p)[1] for p in pairs])
    torch.testing.assert_close(grads, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ce", "focal", "dice", "jaccard"])
def test_a_hessian_vector_product_by_forward_over_reverse_equals_reverse_over_reverse(
    name: str,
) -> None:
    logits, target = example("multiclass")
    loss = losses.build(name)
    v = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, forward = torch.func.jvp(torch.func.grad(lambda z: loss(z, target)), (logits,), (v,))
    z = logits.clone().requires_grad_()
    g = torch.autograd.grad(loss(z, target), z, create_graph=True)[0]
    reverse = torch.autograd.grad((g * v).sum(), z)[0]
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"), captured("ce", "dice", "lovasz_softmax")
)
def test_an_exported_program_gives_the_same_value(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, void=0.2)
    loss = spec.build(mode, ignore_index=VOID, **params)
    program = torch.export.export(loss, (logits, target))
    other, other_target = example(mode, kind, void=0.2, seed=1)
    torch.testing.assert_close(
        program.module()(other, other_target), loss(other, other_target), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_copies_and_pickles_compute_the_same(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, void=0.2)
    loss = spec.build(mode, ignore_index=VOID, weight=WEIGHT[mode], **params)
    expected = loss(logits, target)
    buffer = io.BytesIO()
    torch.save(loss, buffer)
    buffer.seek(0)
    for twin in (
        copy.deepcopy(loss),
        pickle.loads(pickle.dumps(loss)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(twin(logits, target), expected)
        assert repr(twin) == repr(loss)


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), MULTICLASS)
def test_weights_travel_in_the_state_dict(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind)
    loss = spec.build(mode, weight=WEIGHT[mode], **params)
    other = spec.build(mode, weight=torch.ones(4, dtype=torch.float64), **params)
    assert loss.state_dict()
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(logits, target), loss(logits, target))
    assert not list(loss.parameters())


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), MULTICLASS)
def test_weights_move_with_the_module(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    loss = spec.build(mode, weight=WEIGHT[mode], **params).to("meta")
    assert all(b.device.type == "meta" for b in loss.buffers())
    assert all(
        b.dtype == torch.float32 for b in spec.build(mode, weight=WEIGHT[mode]).float().buffers()
    )


def test_weights_given_as_a_list_or_in_another_dtype_are_the_same_weights() -> None:
    logits, target = example("multiclass")
    expected = losses.build("ce", weight=WEIGHT["multiclass"])(logits, target)
    for weight in (
        [0.5, 1.0, 2.0, 3.5],
        (0.5, 1, 2, 3.5),
        WEIGHT["multiclass"].float(),
        WEIGHT["multiclass"].half(),
    ):
        torch.testing.assert_close(losses.build("ce", weight=weight)(logits, target), expected)


def test_changing_the_tensor_of_weights_afterwards_does_not_matter_to_a_compound_part() -> None:
    """The weights live in the modules: what a compound holds is what its parts hold."""
    compound = losses.build("dice", weight=WEIGHT["multiclass"]) + losses.build("ce")
    assert [tuple(b.shape) for b in compound.buffers()] == [(4,)]
    assert compound.state_dict().keys() == {"parts.0.weight"}


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), MULTICLASS)
def test_the_repr_names_the_parameters(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    text = repr(spec.build(mode, ignore_index=VOID, **params))
    assert "ignore_index=255" in text
    assert "mode='multiclass'" in text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_values_of_the_cpu() -> None:
    for spec, params, mode, kind in combinations(SPECS, variants=False):
        logits, target = example(mode, kind, void=0.2)
        loss = spec.build(mode, ignore_index=VOID, **params)
        value, grad = gradient(loss, logits, target)
        other, other_grad = gradient(copy.deepcopy(loss).cuda(), logits.cuda(), target.cuda())
        torch.testing.assert_close(other.cpu(), value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(other_grad.cpu(), grad, rtol=1e-8, atol=1e-12)

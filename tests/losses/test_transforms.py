"""The losses as citizens of torch: compile, export, func, copies, state, devices.

All captures run with the backend "aot_eager": it captures forward and backward with fullgraph=True and fails at a
graph break as the default backend does, without waiting for a C++ compiler. What the default backend computes is
compared in ``test_nan_and_inf.py``.
"""

from __future__ import annotations

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from cases import PRIMITIVES, SPECS, VOID, WEIGHT, Spec, each, example, gradient, named, scenes

from lossatlas import losses

captured = partial(torch.compile, fullgraph=True, backend="aot_eager")
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)


def compiled_equals_eager(
    loss: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor
) -> None:
    torch.compiler.reset()
    value, grad = gradient(loss, logits, target)
    other, other_grad = gradient(captured(loss), logits, target)
    close(other, value)
    close(other_grad, grad, rtol=1e-8)


@each(*PRIMITIVES)
def test_the_whole_graph_compiles(spec: Spec) -> None:
    loss = spec.build("multiclass", ignore_index=VOID)
    compiled_equals_eager(loss, *example("multiclass", void=0.2))


@each("ce", "dice", "lovasz_softmax")
def test_soft_targets_compile(spec: Spec) -> None:
    for mode in ("multilabel", "multiclass"):
        loss = spec.build(mode, ignore_index=VOID, weight=WEIGHT[mode])
        with named(mode):
            compiled_equals_eager(loss, *example(mode, "soft", void=0.2))


def test_a_compiled_loss_takes_another_shape_without_a_graph_break() -> None:
    loss = losses.build("dice_ce", ignore_index=VOID)
    compiled = captured(loss, dynamic=True)
    for shape in ((3, 2), (5, 4), (7, 3)):
        inputs = example("multiclass", shape=shape, void=0.2)
        with named(shape):
            close(compiled(*inputs), loss(*inputs))


@each(*PRIMITIVES)
def test_func_grad_and_vmap_equal_autograd_in_a_loop(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",)):
        pairs = [example(scene.mode, void=0.2, seed=seed) for seed in range(3)]
        z, t = (torch.stack(x) for x in zip(*pairs, strict=True))
        loss = scene.build(ignore_index=VOID)
        each_value, each_grad = zip(*(gradient(loss, *pair) for pair in pairs), strict=True)
        value, grad = torch.stack(each_value), torch.stack(each_grad)
        with named(scene, "grad_and_value"):
            got_grad, got = torch.func.grad_and_value(loss)(*pairs[0])
            close(got, value[0], rtol=1e-10, atol=1e-13)
            close(got_grad, grad[0], atol=1e-13)
        with named(scene, "vmap"):
            close(torch.func.vmap(loss)(z, t), value)
            close(torch.func.vmap(torch.func.grad(loss))(z, t), grad)


@each("ce", "focal", "dice", "jaccard")
def test_a_hessian_vector_product_by_forward_over_reverse_equals_reverse_over_reverse(
    spec: Spec,
) -> None:
    logits, target = example("multiclass")
    loss = spec.build("multiclass")
    v = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, forward = torch.func.jvp(torch.func.grad(lambda z: loss(z, target)), (logits,), (v,))
    z = logits.clone().requires_grad_()
    g = torch.autograd.grad(loss(z, target), z, create_graph=True)[0]
    reverse = torch.autograd.grad((g * v).sum(), z)[0]
    close(forward, reverse)


@each("ce", "dice", "lovasz_softmax", "boundary", "dice_ce")
def test_an_exported_program_gives_the_same_value(spec: Spec) -> None:
    loss = spec.build("multiclass", ignore_index=VOID)
    program = torch.export.export(loss, example("multiclass", void=0.2))
    others = example("multiclass", void=0.2, seed=1)
    close(program.module()(*others), loss(*others))


@each()
def test_copies_and_pickles_compute_the_same_and_the_repr_names_the_parameters(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",)):
        logits, target = example(scene.mode, void=0.2)
        loss = scene.build(ignore_index=VOID, weight=WEIGHT[scene.mode])
        expected = loss(logits, target)
        buffer = io.BytesIO()
        torch.save(loss, buffer)
        buffer.seek(0)
        twins = {
            "deepcopy": copy.deepcopy(loss),
            "pickle": pickle.loads(pickle.dumps(loss)),
            "torch.save": torch.load(buffer, weights_only=False),
        }
        for how, twin in twins.items():
            with named(scene, how):
                assert torch.equal(twin(logits, target), expected)
                assert repr(twin) == repr(loss)
        with named(scene, repr(loss)):
            assert "ignore_index=255" in repr(loss)
            assert f"mode='{scene.mode}'" in repr(loss)


def test_weights_move_with_the_module() -> None:
    for spec in SPECS.values():
        for scene in scenes(spec, kinds=("hard",)):
            moved = scene.build(weight=WEIGHT[scene.mode]).to("meta")
            narrow = scene.build(weight=WEIGHT[scene.mode]).float()
            with named(scene):
                assert all(buffer.device.type == "meta" for buffer in moved.buffers())
                assert all(buffer.dtype == torch.float32 for buffer in narrow.buffers())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_values_of_the_cpu() -> None:
    for scene in (scene for spec in SPECS.values() for scene in scenes(spec)):
        logits, target = example(scene.mode, scene.kind, void=0.2)
        loss = scene.build(ignore_index=VOID)
        value, grad = gradient(loss, logits, target)
        other, other_grad = gradient(copy.deepcopy(loss).cuda(), logits.cuda(), target.cuda())
        with named(scene):
            close(other.cpu(), value)
            close(other_grad.cpu(), grad, rtol=1e-8)


@each("ce", "dice", "focal", "lovasz_softmax", "ohem_ce", "unified_focal", "dice_ce", "soft_cldice")
def test_vmap_over_something_else_than_logits_and_target_equals_a_loop(spec: Spec) -> None:
    logits, target = example("multiclass", void=0.2)
    weights = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factors = weights[:, 0]
    loss = spec.build("multiclass", ignore_index=VOID)
    z = logits.clone().requires_grad_()

    def weighted(weight: torch.Tensor) -> torch.Tensor:
        return spec.build("multiclass", ignore_index=VOID, weight=weight)(logits, target)

    def scaled(factor: torch.Tensor) -> torch.Tensor:
        return factor * loss(z, target)

    for function, over in ((weighted, weights), (scaled, factors)):
        expected = torch.stack([function(x) for x in over])
        close(torch.func.vmap(function)(over), expected)
    torch.func.vmap(scaled)(factors).sum().backward()
    close(z.grad, factors.sum() * gradient(loss, logits, target)[1])


def test_a_function_builds_its_loss_inside_the_graph() -> None:
    logits, target = example("multiclass")
    focal = losses.functional.focal_loss
    torch.compiler.reset()
    got = captured(focal)(logits, target, gamma=1.0)
    torch.testing.assert_close(got, focal(logits, target, gamma=1.0))


def test_a_prior_is_taken_inside_a_compiled_function_and_a_transform() -> None:
    logits, target = example("multiclass")
    priors = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)

    def adjusted(prior: torch.Tensor) -> torch.Tensor:
        return losses.LogitAdjustedCrossEntropyLoss(prior=prior)(logits, target)

    expected = torch.stack([adjusted(prior) for prior in priors])
    torch.compiler.reset()
    torch.testing.assert_close(captured(adjusted)(priors[0]), expected[0])
    torch.testing.assert_close(torch.func.vmap(adjusted)(priors), expected)


@pytest.mark.parametrize(("dtype", "classes"), [(torch.int8, 200), (torch.uint8, 300)])
def test_labels_of_eight_bits_fit_more_classes_than_they_can_name(
    dtype: torch.dtype, classes: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 30, generator=generator)
    labels = torch.randint(0, 100, (2, 30), generator=generator)
    labels[:, ::5] = -1 if dtype == torch.int8 else 255
    void = int(labels[0, 0])
    short = labels.to(dtype)
    for name in ("ce", "dice", "lovasz_softmax", "generalized_dice"):
        classes_counted = {} if name == "ce" else {"classes": "all"}
        loss = losses.build(name, ignore_index=void, **classes_counted)
        expected = gradient(loss, logits, labels)
        torch.compiler.reset()
        for form, given in (("eager", loss), ("compiled", captured(loss))):
            with named(name, form):
                torch.testing.assert_close(gradient(given, logits, short), expected)
    stray = torch.full((2, 30), -7, dtype=torch.int8)
    with pytest.raises(ValueError, match="integer labels from 0 to 199"):
        losses.CrossEntropyLoss()(torch.randn(2, 200, 30), stray)


@each("ce", "dice", "lovasz_softmax", "soft_cldice", "dice_ce")
def test_a_program_exported_with_open_sizes_takes_every_size(spec: Spec) -> None:
    batch, height, width = (torch.export.Dim(name, min=2, max=64) for name in "nhw")
    # each further erosion repeats the graph of the one before
    fewer = {"iterations": 1} if spec.name == "soft_cldice" else {}
    for mode in ("multiclass", "binary", "multilabel"):
        logits, target = example(mode, shape=(5, 6), images=3)
        loss = spec.build(mode, **fewer)
        of_logits = {0: batch, 2: height, 3: width}
        of_target = {0: batch, 1: height, 2: width} if target.ndim == 3 else of_logits
        program = torch.export.export(loss, (logits, target), dynamic_shapes=(of_logits, of_target))
        # one side as long as there are classes, or as 3
        for images, shape in ((2, (4, 3)), (5, (3, 4)), (4, (4, 4))):
            others = example(mode, shape=shape, images=images, seed=1)
            with named(mode, images, shape):
                close(program.module()(*others), loss(*others))

"""Behaviour that every network shares."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lossatlas import models

NAMES = ["unet", "segnet", "segnet_basic"]

# (name, in_channels, out_channels, parameters) -> trainable weights, as the docstrings state them.
COUNTS = {
    ("unet", 1, 11, "small"): 125_987,
    ("segnet", 1, 11, "small"): 56_915,
    ("segnet_basic", 1, 11, "small"): 32_779,
    ("unet", 3, 11, "published"): 31_385_483,
    ("segnet", 3, 11, "published"): 29_441_419,
    # by hand: kernels of 7 × 7 there and back, batch norms, head
    ("segnet_basic", 3, 11, "published"): (
        49 * 64 * (3 + 3 * 64) + 4 * 49 * 64 * 64 + 8 * 2 * 64 + 64 * 11 + 11
    ),
}


def test_names_come_in_the_books_order():
    assert models.names() == [*NAMES, "plain"]


@pytest.mark.parametrize(("key", "count"), COUNTS.items(), ids=lambda value: str(value))
def test_the_weights_number_as_the_docstring_says(key, count):
    name, in_channels, out_channels, size = key
    model = models.build(name, in_channels, out_channels, size=size)
    assert models.count_parameters(model) == count
    stated = re.sub(r"(?<=\d) (?=\d{3})", "", inspect.getdoc(type(model)))
    assert str(count) in stated


def test_published_segnet_has_13_convolutions_each_way():
    model = models.build("segnet", 3, 11, size="published")
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    widths = [m.out_channels for m in convolutions]
    encoder = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    decoder = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 11]
    assert widths == encoder + decoder
    assert all(m.kernel_size == (3, 3) for m in convolutions)


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (1, 3, 37, 53), (1, 5, 1, 1), (2, 2, 9, 40)])
@pytest.mark.parametrize("training", [True, False])
def test_any_size_and_channel_count_gives_logits_of_that_size(name, shape, training):
    model = models.build(name, shape[1], 4).train(training)
    logits = model(torch.randn(shape))
    assert logits.shape == (shape[0], 4, *shape[2:])
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_padding_leaves_an_image_of_a_fitting_size_alone(name):
    model = models.build(name, 1, 3).eval()
    images = torch.randn(1, 1, 48, 32)
    assert torch.equal(model(images), model.forward_padded(images))


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_image_gets_the_crop_of_what_its_edge_continued_would_get(name):
    model = models.build(name, 1, 3).eval()
    images = torch.randn(2, 1, 45, 50)
    continued = F.pad(images, (0, 6, 0, 3), mode="replicate")  # 48 x 56, multiples of 8
    assert torch.equal(model(images), model(continued)[..., :45, :50])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_torch_seed_gives_the_same_weights_and_logits(name):
    images = torch.randn(2, 1, 32, 32)

    def logits(seed):
        torch.manual_seed(seed)
        return models.build(name, 1, 4)(images)

    first, again, other = logits(5), logits(5), logits(6)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_runs_under_torchs_deterministic_mode_and_reaches_every_weight(name):
    torch.manual_seed(0)
    model = models.build(name, 1, 4)
    torch.use_deterministic_algorithms(True)
    try:
        logits = model(torch.randn(2, 1, 32, 32))
        F.cross_entropy(logits, torch.randint(0, 4, (2, 32, 32))).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    for key, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_fit_one_batch(name):
    torch.manual_seed(0)
    model = models.build(name, 1, 3)
    target = torch.zeros(4, 32, 32, dtype=torch.int64)
    target[:, 8:20, 4:16] = 1
    target[:, 18:28, 18:30] = 2
    images = F.one_hot(target, 3)[..., 1:].sum(-1).float().unsqueeze(1)
    images += torch.linspace(0, 1, 32)  # tells the two objects apart by place
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(images), target)
        loss.backward()
        optimiser.step()
    assert (model(images).argmax(1) == target).float().mean() > 0.97


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_start_with_hes_standard_deviation(name):
    torch.manual_seed(0)
    model = models.build(name, 3, 11, size="small", width=32)
    checked = 0
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 5000:
            fan_in = module.in_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.06)
            checked += 1
    assert checked >= 4


@pytest.mark.parametrize("name", NAMES)
def test_width_and_depth_scale_the_network(name):
    def count(**params):
        return models.count_parameters(models.build(name, 1, 4, **params))

    base = count(width=4, depth=2)
    assert count(width=8, depth=2) > 2 * base
    assert count(width=4, depth=3) > base


# Bad input


def test_an_unknown_model_is_refused_with_the_near_matches():
    with pytest.raises(ValueError, match="unknown model 'segnet_basik'; did you mean 'segnet_b"):
        models.build("segnet_basik", 1, 2)
    with pytest.raises(
        ValueError, match=r"unknown model 'xyz'; known: unet, segnet, segnet_basic, plain"
    ):
        models.parameters("xyz")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_exactly_what_build_takes_beside_the_channels(name):
    known = models.parameters(name)
    assert {"size", "width", "depth"} <= set(known)
    assert not {"in_channels", "out_channels", "self"} & set(known)
    defaults = {key: parameter.default for key, parameter in known.items()}
    torch.manual_seed(0)
    spelt_out = models.build(name, 1, 2, **defaults)
    torch.manual_seed(0)
    plain = models.build(name, 1, 2)
    pairs = zip(spelt_out.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# (network, or None for all of them; parameters; error; what the message says)
RESNET = {"encoder": "resnet18"}
THREE = "decoder_channels: expected 3 integers, one per halving"
REFUSED = [
    (None, {"size": "tiny"}, ValueError, "size: expected one of small, published, got 'tiny'"),
    (None, {"size": "publisht"}, ValueError, "did you mean 'published'"),
    (None, {"size": "published", "width": 64}, ValueError, "drop size or drop width"),
    (None, {"size": "published", "depth": 4}, ValueError, "drop size or drop depth"),
    (None, {"width": 0}, ValueError, "width: expected at least 1, got 0"),
    (None, {"width": 8.0}, TypeError, r"width: expected an integer, got 8\.0"),
    (None, {"width": True}, TypeError, "width: expected an integer, got True"),
    (None, {"depth": 0}, ValueError, "depth: expected between 1 and"),
    (None, {"depth": 7}, ValueError, "depth: expected between 1 and"),
    (None, {"depth": "3"}, TypeError, "depth: expected an integer, got '3'"),
    (None, {"in_channels": 0}, ValueError, "channels: expected at least 1"),
    (None, {"in_channels": -1}, ValueError, "channels: expected at least 1"),
    (None, {"out_channels": 0}, ValueError, "channels: expected at least 1"),
    ("segnet", {"depth": 6}, ValueError, "depth: expected between 1 and 5, got 6"),
    ("segnet_basic", {"kernel_size": 4}, ValueError, "kernel_size: expected an odd number.*got 4"),
    ("plain", {"kernel_size": 4}, ValueError, "kernel_size: expected an odd number"),
    ("unet", {"decoder_channels": [8]}, ValueError, THREE),
    ("unet", {"decoder_channels": [8, 4, 2, 1]}, ValueError, THREE),
    ("unet", {"decoder_channels": "864"}, ValueError, THREE),
    ("unet", {"decoder_channels": 8}, ValueError, THREE),
    ("unet", RESNET | {"width": 8}, ValueError, "only encoder='plain' reads it"),
    ("unet", RESNET | {"depth": 2}, ValueError, "depth: expected between 3 and 5"),
    ("unet", RESNET | {"depth": 6}, ValueError, "depth: expected between 3 and 5"),
    ("unet", {"encoder": "resnet81"}, ValueError, "encoder: expected 'plain' or an encoder"),
    ("unet", {"encoder": 18}, ValueError, "encoder: expected 'plain' or an encoder"),
    ("unet", {"encoder": "resnet_18"}, ValueError, "did you mean .*'resnet18'"),
    ("unet", {"skips": 1}, TypeError, "skips: expected True or False"),
    ("unet", {"head_activation": "gelu"}, ValueError,
     "head_activation: expected one of none, relu, leaky_relu"),
    # parameters that nothing reads
    ("segnet", {"encoder": 3}, TypeError,
     "model 'segnet' has no parameter 'encoder'.*segnet reads size, width, depth"),
    ("segnet", {"kernel_size": 3}, TypeError,
     "model 'segnet' has no parameter 'kernel_size'.*segnet reads"),
    ("unet", {"kernel_size": 3}, TypeError, "model 'unet' has no parameter 'kernel_size'.*unet reads"),
    ("segnet_basic", {"kernelsize": 3}, TypeError,
     "model 'segnet_basic' has no parameter 'kernelsize'.*did you mean 'kernel_size'"),
    ("unet", {"decoder_chanels": 3}, TypeError,
     "model 'unet' has no parameter 'decoder_chanels'.*did you mean 'decoder_channels'"),
]  # fmt: skip


@pytest.mark.parametrize(("network", "params", "error", "message"), REFUSED, ids=str)
def test_a_bad_parameter_is_refused_with_what_was_expected(network, params, error, message):
    for name in [network] if network else NAMES:
        with pytest.raises(error, match=message):
            models.build(name, **{"in_channels": 1, "out_channels": 2} | params)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 2, 32, 32), (1, 1, 0, 32)])
def test_images_of_another_shape_are_refused_with_the_expected_one(name, shape):
    model = models.build(name, 1, 2)
    expected = rf"expected images of shape \(N, 1, H, W\), got {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=expected):
        model(torch.zeros(shape))


def test_the_models_import_torch_alone_until_a_unet_is_built():
    # Read from the source: the statements that run at import, not those inside functions.
    roots = set()
    for path in Path(inspect.getfile(models)).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                roots |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots.add(node.module)
    others = {name for name in roots if name.split(".")[0] not in sys.stdlib_module_names}
    ours = {name for name in others if name.startswith("lossatlas")}
    assert all(name.startswith("lossatlas.models") for name in ours)
    assert {name.split(".")[0] for name in others - ours} == {"torch"}


# --- what stands before the last layer


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
def test_the_head_sees_what_the_activation_leaves(name, activation):
    model = models.build(name, 1, 1, head_activation=activation)
    seen: list[torch.Tensor] = []
    model.output_layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 32, 32))
    negative = seen[0].min().item()
    assert logits.shape == (2, 1, 32, 32)
    assert seen[0].shape[1] >= 16, "few channels behind a ReLU can all be off at once"
    if activation == "relu":
        assert negative == 0
    elif activation == "leaky_relu":  # the slope is a hundredth
        assert -0.2 < negative < 0
    else:
        assert negative < -0.5


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("unet", "published", "relu"),
        ("segnet", "published", "relu"),
        ("segnet_basic", "published", "none"),
        ("unet", "small", "none"),
        ("segnet", "small", "none"),
        ("segnet_basic", "small", "none"),
    ],
)
def test_the_published_sizes_keep_the_activation_of_their_papers(name, size, expected):
    assert models.build(name, 3, 11, size=size).head_activation == expected

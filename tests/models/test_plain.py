"""A stack of convolutions at full resolution: what it sees, and that it answers for any size."""

from __future__ import annotations

import inspect

import pytest
import torch

from lossatlas import models


@pytest.mark.parametrize(("layers", "kernel", "side"), [(3, 3, 7), (2, 3, 5), (2, 5, 9)])
def test_a_pixel_of_the_answer_sees_what_the_layers_reach(layers, kernel, side):
    torch.manual_seed(0)
    model = models.build("plain", 1, 1, layers=layers, kernel_size=kernel, width=8).eval()
    image = torch.rand(1, 1, 31, 31, requires_grad=True)
    model(image)[0, 0, 15, 15].backward()
    seen = image.grad[0, 0].abs() > 0
    reach = side // 2
    inside = torch.zeros_like(seen)
    inside[15 - reach : 16 + reach, 15 - reach : 16 + reach] = True
    assert not (seen & ~inside).any()
    assert seen[15 - reach, 15 - reach : 16 + reach].any(), "as far as it can"


def test_the_weights_number_as_the_docstring_says_and_each_is_reached():
    torch.manual_seed(0)
    model = models.build("plain", 1, 1)
    assert models.count_parameters(model) == 1 * 9 * 64 + 2 * 9 * 64 * 64 + 3 * 128 + 65
    stated = inspect.getdoc(type(model)).replace(" ", "")
    assert f"{models.count_parameters(model)}weights" in stated
    model(torch.randn(2, 1, 16, 16)).square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())

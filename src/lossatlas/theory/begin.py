"""Who begins: the ceiling that a ReLU before the last layer puts over the logits, and a toy that meets it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pandas as pd
import sympy as sp
import torch
from torch import nn

from lossatlas import losses, models
from lossatlas.theory.calculus import ClosedFormError

# A library below segmentation-models-pytorch asks for notebook widgets, and warns on a page without them.
warnings.filterwarnings("ignore", message="IProgress not found")

#: What may stand between the normalised features and the last layer of the toy.
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "none": nn.Identity}


def prove_ceiling() -> list[str]:
    """The steps of the proof that z ≤ b, each checked by computer algebra; raises where one fails.

    z = b + w relu(f) for one channel: a sum of channels is bounded term by term.

    Returns:
        the steps, as formulas.
    """
    b, f = sp.symbols("b f", real=True)
    w = sp.Symbol("w", nonpositive=True)
    any_w = sp.Symbol("w", real=True)
    relu = sp.Max(f, 0)
    steps = {
        "relu(f) >= 0": sp.simplify(relu >= 0),
        "w <= 0 implies w relu(f) <= 0": (w * relu).is_nonpositive,
        "so z = b + w relu(f) <= b": (b + w * relu - b).is_nonpositive,
        "f < 0 implies relu(f) = 0, whatever w": sp.simplify((any_w * relu).subs(f, -1)) == 0,
        "f < 0 implies dz/df = 0: the channel stays off": sp.diff(any_w * relu, f).subs(f, -1) == 0,
    }
    for step, holds in steps.items():
        if not bool(holds):
            raise ClosedFormError(f"a step of the ceiling's proof fails: {step}")
    return list(steps)


def highest_above_bias(activation: str, seed: int = 0) -> float:
    """Largest z - b of a U-Net whose head weights are all negative, on random images.

    At most 0 behind a ReLU, and above 0 without it.
    """
    torch.manual_seed(seed)
    model = models.build("unet", 1, 1, width=4, depth=2, head_activation=activation)
    with torch.no_grad():
        layer = model.output_layer
        layer.weight.copy_(-layer.weight.abs())
        bias = layer.bias
        assert bias is not None
        bias.fill_(-1.0)
        return float((model(torch.randn(4, 1, 32, 32)) + 1.0).max())


def gradient_into_off_channels(seed: int = 0) -> float:
    """Largest gradient that cross-entropy sends into channels that a ReLU has switched off: 0."""
    torch.manual_seed(seed)
    features = -torch.rand(4, 4, 100) - 0.1  # every channel is off at every pixel
    features.requires_grad_()
    logits = torch.einsum("k,nkp->np", torch.rand(4), features.relu())[:, None]
    target = torch.randint(0, 2, (4, 1, 100))
    losses.build("ce", mode="binary")(logits, target).backward()
    assert features.grad is not None
    return float(features.grad.abs().max())


@dataclass(frozen=True)
class Toy:
    """A network of one hidden layer on pixels of two classes, with the head of the withdrawn study.

    Attributes:
        pixels: of the training set.
        foreground: fraction of them.
        inputs: numbers a pixel; those of the foreground are shifted.
        shift: by so many standard deviations, in every input.
        channels: hidden channels, normalised over the pixels as batch norm does.
        steps, lr: of AdamW.
    """

    pixels: int = 4000
    foreground: float = 0.01
    inputs: int = 8
    shift: float = 1.0
    channels: int = 4
    steps: int = 300
    lr: float = 0.03

    def descend(self, loss: str, activation: str, prior: bool, seed: int) -> pd.DataFrame:
        """Train once, all head weights positive at the start.

        Returns:
            a row a step: ``step``, ``highest`` (the largest logit of the foreground pixels), ``bias``, and ``off``,
            the share of the channels that are off at every foreground pixel.
        """
        torch.manual_seed(seed)
        count = round(self.pixels * self.foreground)
        x = torch.randn(self.pixels, self.inputs)
        x[:count] += self.shift
        target = (torch.arange(self.pixels) < count).long()[None, None]
        body = nn.Sequential(
            nn.Linear(self.inputs, self.channels, bias=False),
            nn.BatchNorm1d(self.channels),
            ACTIVATIONS[activation](),
        )
        head = nn.Linear(self.channels, 1)
        with torch.no_grad():
            head.weight.abs_()
            odds = self.foreground / (1 - self.foreground)
            head.bias.fill_(float(torch.tensor(odds).log()) if prior else 0.0)
        criterion = losses.build(loss, mode="binary")
        optimizer = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=self.lr)
        rows = []
        for step in range(self.steps):
            features = body(x)
            logits = head(features)[:, 0]
            own = features[:count].detach()
            rows.append(
                {
                    "step": step,
                    "highest": float(logits[:count].detach().max()),
                    "bias": head.bias.item(),
                    "off": float((own <= 0).all(0).float().mean()) if activation == "relu" else 0.0,
                }
            )
            optimizer.zero_grad()
            criterion(logits[None, None], target).backward()
            optimizer.step()
        return pd.DataFrame(rows)

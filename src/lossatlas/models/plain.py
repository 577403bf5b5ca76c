"""Convolutions at full resolution and nothing else: what a network without a stride can see."""

from __future__ import annotations

from torch import Tensor, nn

from lossatlas.models._common import (
    AnySize,
    check_count,
    check_head_activation,
    check_kernel_size,
    conv_norm,
    initialise_he,
)


class Plain(AnySize):
    """A few convolutions of stride 1, each with batch norm, and a 1x1 convolution to the logits.

    A pixel of the answer sees ``layers * (kernel_size - 1) + 1`` pixels a side: 7 with three layers
    of 3x3.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the images and of the logits.
    layers
        Convolutions before the last, at least 1.
    width
        Channels of each.
    kernel_size
        Odd side of the convolutions, in pixels.
    head_activation : {"none", "relu", "leaky_relu"}, optional
        What stands between the last batch norm and the 1x1 convolution; see `UNet`.

    By default 74 753 weights for 1 channel and 1 logit. Weights are drawn as He et al. (2015)
    propose. Source: none; it is the network that answers on the web call enough.

    Raises
    ------
    TypeError, ValueError
        For a value of the wrong type or out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        layers: int = 3,
        width: int = 64,
        kernel_size: int = 3,
        head_activation: str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.head_activation = check_head_activation(head_activation, "none")
        layers, width = check_count(layers, "layers", 1), check_count(width, "width", 1)
        kernel = check_kernel_size(kernel_size)
        self.multiple = 1
        activations = [*["relu"] * (layers - 1), self.head_activation]
        self.body = nn.Sequential(
            *(
                conv_norm(width if k else in_channels, width, kernel, activation)
                for k, activation in enumerate(activations)
            )
        )
        self.head = nn.Conv2d(width, out_channels, 1)
        initialise_he(self)

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits of the images."""
        logits: Tensor = self.head(self.body(images))
        return logits

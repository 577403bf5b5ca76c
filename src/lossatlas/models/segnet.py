"""SegNet and SegNet-Basic: encoder and decoder joined by pooling indices alone.

Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", 2017 (arXiv 1511.00561), and the model files of the authors' tutorial.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.models._common import (
    HEAD_CHANNELS,
    AnySize,
    check_count,
    check_head_activation,
    check_kernel_size,
    check_size,
    conv_norm,
    initialise_he,
    unpool,
)

# VGG-16 without its fully connected layers: (convolutions, channels as a multiple of the width).
_VGG_STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


class _IndexUnpoolingNetwork(AnySize):
    """Encoder stages with 2x2 max pooling, decoder stages with unpooling by the saved indices."""

    stem: nn.Module
    encoder: nn.ModuleList
    decoder: nn.ModuleList
    head: nn.Module

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits of images whose sides are multiples of ``self.multiple``."""
        x = self.stem(images)
        saved = []
        for stage in self.encoder:
            x, indices = F.max_pool2d(stage(x), 2, return_indices=True)
            saved.append(indices)
        for stage, indices in zip(self.decoder, reversed(saved), strict=True):
            x = stage(unpool(x, indices))
        logits: Tensor = self.head(x)
        return logits


class SegNet(_IndexUnpoolingNetwork):
    """SegNet with the 13 convolutions of VGG-16 as encoder and their mirror image as decoder.

    Every convolution is 3x3 and followed by batch norm and ReLU, in the decoder too, except the
    last, which gives the logits. Upsampling puts each value back where the encoder's 2x2 max
    pooling found its maximum; nothing else passes from encoder to decoder.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the images and of the logits.
    size
        "published": width 64 and five stages, 29 441 419 weights for 3 channels and 11
        classes (13 + 13 convolutions; with the biases below it is the 29.45 M of the paper).
        "small" (default): width 8, three stages and 16 channels into the last layer, 56 915 weights
        for 1 channel and 11 classes.
    width
        Channels of the first stage; the stages have 1, 2, 4, 8, 8 times as many. Not with
        ``size="published"``.
    depth
        Stages, 1 to 5, and so the number of poolings. Not with ``size="published"``.
    head_channels
        Channels that enter the last convolution; by default those of the first stage, at least 16.
        Not with ``size="published"``.
    head_activation : {"none", "relu", "leaky_relu"}, optional
        What stands between the last batch norm and the last convolution. By default "none", and
        "relu" for ``size="published"``, as in the paper; see `UNet` for why.

    Convolutions before batch norm have no bias (batch norm cancels it), where the authors' files
    have one. Weights are drawn as He et al. (2015) propose. Images are padded to a multiple of
    2**depth; see `AnySize`.

    Raises
    ------
    TypeError, ValueError
        For a value of the wrong type or out of range, and for ``size="published"`` together with
        `width` or `depth`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        size: str = "small",
        width: int | None = None,
        depth: int | None = None,
        head_channels: int | None = None,
        head_activation: str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels)
        overrides = {"width": width, "depth": depth, "head_channels": head_channels}
        small = check_size(size, overrides) == "small"
        self.head_activation = check_head_activation(head_activation, "none" if small else "relu")
        width = check_count((8 if small else 64) if width is None else width, "width", 1)
        depth = check_count((3 if small else 5) if depth is None else depth, "depth", 1, 5)
        if head_channels is None:
            head_channels = max(width, HEAD_CHANNELS)
        check_count(head_channels, "head_channels", 1)
        self.multiple = 2**depth
        self.stem = nn.Identity()
        encoder, decoder = [], []
        channels = in_channels
        for stage, (convolutions, factor) in enumerate(_VGG_STAGES[:depth]):
            wide = factor * width
            encoder.append(
                nn.Sequential(
                    *(conv_norm(channels if i == 0 else wide, wide, 3) for i in range(convolutions))
                )
            )
            # The mirror image: its last convolution narrows to what the stage above expects.
            # The first stage's last convolution is the head.
            mirror = [conv_norm(wide, wide, 3) for _ in range(convolutions - 1)]
            if stage > 0:
                mirror.append(conv_norm(wide, channels, 3))
            else:
                mirror[-1] = conv_norm(wide, head_channels, 3, self.head_activation)
            decoder.append(nn.Sequential(*mirror))
            channels = wide
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(reversed(decoder))
        self.head = nn.Conv2d(head_channels, out_channels, 3, padding=1)
        initialise_he(self)


class SegNetBasic(_IndexUnpoolingNetwork):
    """SegNet-Basic: four levels of one wide-kernel convolution each, the paper's ablation network.

    Local response normalisation of the input (size 5, alpha 1e-4, beta 0.75, k 1); `depth` times
    [convolution, batch norm, ReLU, 2x2 max pooling with saved indices]; `depth` times [unpooling by
    these indices, convolution, batch norm, no ReLU]; a 1x1 convolution to the logits.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the images and of the logits.
    size
        "published": 64 channels, 7x7, four levels; 1 416 075 weights for 3 channels and 11 classes.
        "small" (default): 16 channels, 5x5, three levels; 32 779 weights for 1 channel and 11
        classes.
    width
        Channels of every level. Not with ``size="published"``.
    depth
        Levels, 1 to 6. Not with ``size="published"``.
    kernel_size
        Odd side of the convolutions, in pixels. Not with ``size="published"``.
    head_activation : {"none", "relu", "leaky_relu"}, optional
        What stands between the last batch norm and the 1x1 convolution: by default "none", as in
        the authors' files.

    The normalisation's alpha was chosen by the authors for grey values up to 255. On standardised
    images its divisor is within about 1e-4 of one, so that it hardly acts; it is kept because the
    architecture has it. Weights are drawn as He et al. (2015) propose. Images are padded to a
    multiple of 2**depth; see `AnySize`.

    Raises
    ------
    TypeError, ValueError
        For a value of the wrong type or out of range, and for ``size="published"`` together with
        `width`, `depth` or `kernel_size`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        size: str = "small",
        width: int | None = None,
        depth: int | None = None,
        kernel_size: int | None = None,
        head_activation: str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.head_activation = check_head_activation(head_activation, "none")
        overrides = {"width": width, "depth": depth, "kernel_size": kernel_size}
        small = check_size(size, overrides) == "small"
        width = check_count((16 if small else 64) if width is None else width, "width", 1)
        depth = check_count((3 if small else 4) if depth is None else depth, "depth", 1, 6)
        kernel = check_kernel_size((5 if small else 7) if kernel_size is None else kernel_size)
        self.multiple = 2**depth
        self.stem = nn.LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=1.0)
        self.encoder = nn.ModuleList(
            conv_norm(in_channels if level == 0 else width, width, kernel) for level in range(depth)
        )
        self.decoder = nn.ModuleList(
            conv_norm(width, width, kernel, activation)
            for activation in (*["none"] * (depth - 1), self.head_activation)
        )
        self.head = nn.Conv2d(width, out_channels, 1)
        initialise_he(self)

"""U-Net: encoder and decoder joined by skip connections.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
2015 (arXiv 1505.04597). Decoder, head and the many encoders are those of
segmentation-models-pytorch (smp); its plain encoder, which the paper describes, is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.models._common import (
    HEAD_CHANNELS,
    AnySize,
    activation_layer,
    check_count,
    check_head_activation,
    check_size,
    conv_norm,
    initialise_he,
    near_matches,
)

# smp's own default for five levels; fewer levels take the last of them.
_SMP_DECODER_CHANNELS = (256, 128, 64, 32, 16)


class PlainEncoder(nn.Module):
    """The U-Net paper's contracting path: two 3x3 convolutions per level, 2x2 max pooling between.

    Maps images (N, in_channels, H, W) to ``depth + 2`` maps, as smp's decoders expect them: the
    images, then level l of ``width * 2**l`` channels at 1/2**l of the resolution for l = 0..depth.
    Batch norm follows each convolution and the border is padded, where the paper has neither.
    """

    def __init__(self, in_channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.out_channels = [in_channels, *(width * 2**level for level in range(depth + 1))]
        self.levels = nn.ModuleList(
            nn.Sequential(
                conv_norm(before, channels, 3),
                conv_norm(channels, channels, 3),
            )
            for before, channels in zip(self.out_channels, self.out_channels[1:], strict=False)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps, finest first."""
        features = [images]
        for level, block in enumerate(self.levels):
            below = features[-1] if level == 0 else F.max_pool2d(features[-1], 2)
            features.append(block(below))
        return features


class UNet(AnySize):
    """U-Net on smp's decoder (nearest upsampling, concatenation, two 3x3 convolutions) and head.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the images and of the logits.
    encoder
        "plain" (default): `PlainEncoder`, whose first level has the full resolution and reaches the
        decoder by a skip connection, as in the paper. Otherwise the name of any smp encoder, such
        as "resnet18" or "tu-<timm model>"; no pretrained weights are loaded.
    size
        "published": for "plain" width 64 and depth 4 (64 to 1024 channels), 31 385 483 weights for
        3 channels and 11 classes; for an smp encoder smp's defaults, depth 5 and decoder channels
        (256, 128, 64, 32, 16).
        "small" (default): for "plain" width 8, depth 3 and 16 channels into the last layer,
        125 987 weights for 1 channel and 11 classes; for an smp encoder depth 3 and decoder channels (64, 32, 16).
    width
        Channels of the plain encoder's first level, doubled at each level. Only with "plain", and
        not with ``size="published"``.
    depth
        Number of halvings: 1 to 6 for "plain", 3 to 5 for an smp encoder. Not with
        ``size="published"``.
    decoder_channels
        Channels of the decoder's blocks, coarsest first, one per halving. By default the plain
        encoder's in reverse, the last of them at least 16, or the last `depth` of (256, 128, 64,
        32, 16). Not with ``size="published"``.
    skips
        False gives the decoder zeros in place of the skip connections, so that the number of weights
        and their initial values stay, and only the answer lacks what they bring.
    head_activation : {"none", "relu", "leaky_relu"}, optional
        What stands between the last batch norm and the 1x1 convolution that gives the logits. By
        default "none", and "relu" for ``size="published"``, as the paper has it. With "relu" and a
        single logit z = b + Σ w·relu(f): where the channels with a positive weight are off no pixel
        rises above b, and no gradient brings them back. The fewer channels, the likelier.

    The paper's 2x2 up-convolutions, which halve the channels, are nearest upsampling here, so that
    the count differs from the paper's 31.0 M. The plain form is drawn as He et al. (2015) propose;
    an smp encoder keeps its own initialisation. Images are padded to a multiple of 2**depth; see
    `AnySize`.

    Raises
    ------
    TypeError, ValueError
        For a value of the wrong type or out of range, an unknown encoder, `width` beside an smp
        encoder (nothing reads it), and an override beside ``size="published"``.
    ImportError
        When segmentation-models-pytorch is not installed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        encoder: str = "plain",
        size: str = "small",
        width: int | None = None,
        depth: int | None = None,
        decoder_channels: Sequence[int] | None = None,
        skips: bool = True,
        head_activation: str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels)
        overrides = {"width": width, "depth": depth, "decoder_channels": decoder_channels}
        if not isinstance(skips, bool):
            raise TypeError(f"skips: expected True or False, got {skips!r}")
        self.skips = skips
        small = check_size(size, overrides) == "small"
        self.head_activation = check_head_activation(head_activation, "none" if small else "relu")
        if encoder == "plain":
            width = check_count((8 if small else 64) if width is None else width, "width", 1)
            depth = check_count((3 if small else 4) if depth is None else depth, "depth", 1, 6)
            default = [width * 2**level for level in reversed(range(depth))]
            default[-1] = max(default[-1], HEAD_CHANNELS)
            channels = _check_channels(decoder_channels, default)
            self._build_plain(width, depth, channels)
        else:
            if width is not None:
                raise ValueError(
                    f"width: only encoder='plain' reads it, got encoder={encoder!r} and "
                    f"width={width!r}; drop width or set decoder_channels"
                )
            depth = check_count((3 if small else 5) if depth is None else depth, "depth", 3, 5)
            default = list(_SMP_DECODER_CHANNELS[-depth:])
            channels = _check_channels(decoder_channels, default)
            self._build_smp(encoder, depth, channels)
        # smp's blocks end in convolution, batch norm, ReLU
        self.decoder.blocks[-1].conv2[-1] = activation_layer(self.head_activation)
        self.multiple = 2**depth

    def _build_plain(self, width: int, depth: int, channels: list[int]) -> None:
        _smp()
        from segmentation_models_pytorch.base import SegmentationHead
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        self.encoder = PlainEncoder(self.in_channels, width, depth)
        # With as many blocks as halvings the last block gets level 0 as its skip connection; smp's
        # own encoders start at half the resolution and need one more block, without a skip.
        self.decoder = UnetDecoder(self.encoder.out_channels, channels, n_blocks=depth)
        self.head = SegmentationHead(channels[-1], self.out_channels, kernel_size=1)
        initialise_he(self)

    def _build_smp(self, encoder: object, depth: int, channels: list[int]) -> None:
        smp = _smp()
        known = ["plain", *smp.encoders.get_encoder_names()]
        if not isinstance(encoder, str) or not (encoder in known or encoder.startswith("tu-")):
            raise ValueError(
                f"encoder: expected 'plain' or an encoder of segmentation-models-pytorch, "
                f"got {encoder!r}; {near_matches(encoder, known)}"
            )
        network = smp.Unet(
            encoder,
            encoder_depth=depth,
            encoder_weights=None,
            decoder_channels=channels,
            in_channels=self.in_channels,
            classes=self.out_channels,
        )
        self.encoder = network.encoder
        self.decoder = network.decoder
        self.head = network.segmentation_head

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits of images whose sides are multiples of ``self.multiple``."""
        features = self.encoder(images)
        if not self.skips:
            features = [*(torch.zeros_like(each) for each in features[:-1]), features[-1]]
        logits: Tensor = self.head(self.decoder(features))
        return logits


def _check_channels(given: Sequence[int] | None, default: list[int]) -> list[int]:
    """Channels of the decoder's blocks, checked: one positive integer per halving."""
    if given is None:
        return default
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != len(default):
        raise ValueError(
            f"decoder_channels: expected {len(default)} integers, one per halving, coarsest first "
            f"(such as {default}), got {given!r}"
        )
    return [check_count(value, "decoder_channels", 1) for value in given]


def _smp() -> ModuleType:
    """Import segmentation-models-pytorch; late, because it takes seconds and is an extra."""
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise ImportError(
            "the U-Net needs segmentation-models-pytorch: pip install 'lossatlas[experiments]'"
        ) from error
    return segmentation_models_pytorch

"""What all networks share: argument checks, padding to a multiple, initialisation."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

SIZES = ("small", "published")
#: What may stand between the last batch norm and the layer that gives the logits.
HEAD_ACTIVATIONS = ("none", "relu", "leaky_relu")
#: Channels that enter a small network's last layer unless it is told otherwise: with 4 of them behind
#: a ReLU all can be off at once, and then no pixel rises above the bias.
HEAD_CHANNELS = 16


def near_matches(name: object, known: Iterable[str]) -> str:
    """Hint for an error message: the known names closest to `name`, or all when few."""
    options = list(known)
    close = difflib.get_close_matches(str(name), options, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    if len(options) <= 12:
        return f"known: {', '.join(options)}"
    return f"{len(options)} names are known, {options[0]!r} among them"


def check_count(value: object, what: str, low: int, high: int | None = None) -> int:
    """Return `value` as an int in [low, high]; TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what}: expected an integer, got {value!r} ({type(value).__name__})")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{what}: expected {limits}, got {value}")
    return value


def check_size(size: object, overrides: Mapping[str, object]) -> str:
    """Return a valid size name.

    The published size fixes every number, so that a run labelled "published" is what its paper
    describes: an override (a value that is not None) beside it is an error.
    """
    if size not in SIZES:
        raise ValueError(
            f"size: expected one of {', '.join(SIZES)}, got {size!r}; " + near_matches(size, SIZES)
        )
    given = [name for name, value in overrides.items() if value is not None]
    if size == "published" and given:
        raise ValueError(
            f"size='published' fixes every number of the architecture, got {', '.join(given)} too: "
            f"drop size or drop {', '.join(given)}"
        )
    return str(size)


def check_head_activation(name: object, default: str) -> str:
    """Return a valid name of `HEAD_ACTIVATIONS`; `default` where none is given."""
    if name is None:
        return default
    if name not in HEAD_ACTIVATIONS:
        raise ValueError(
            f"head_activation: expected one of {', '.join(HEAD_ACTIVATIONS)}, got {name!r}; "
            + near_matches(name, HEAD_ACTIVATIONS)
        )
    return str(name)


def check_kernel_size(value: object) -> int:
    """Return a side of a kernel that keeps the size of a map: odd, at least 1."""
    side = check_count(value, "kernel_size", 1)
    if side % 2 == 0:
        raise ValueError(
            f"kernel_size: expected an odd number, so that the map keeps its size, got {side}"
        )
    return side


def activation_layer(name: str) -> nn.Module:
    """The layer of a name in `HEAD_ACTIVATIONS`; the slope of "leaky_relu" is 0.01, nnU-Net's."""
    if name == "relu":
        return nn.ReLU(inplace=True)
    return nn.LeakyReLU(0.01, inplace=True) if name == "leaky_relu" else nn.Identity()


def initialise_he(module: nn.Module) -> None:
    """Draw every convolution from He's normal distribution, in place.

    Standard deviation sqrt(2 / fan_in) (He et al., 2015, eq. 10); biases 0; batch norm scale 1 and
    shift 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


class AnySize(nn.Module):
    """Base of the networks: `forward` accepts any height and width.

    The image is padded at its right and lower edge (by repeating the edge) to a multiple of
    ``self.multiple`` = 2**(number of poolings), `forward_padded` runs, and the logits are cropped
    back. The padded side is at least two multiples, so that the deepest map has four pixels or
    more and batch norm has a variance to measure in training even for a batch of one.
    """

    in_channels: int
    out_channels: int
    multiple: int
    head: nn.Module
    #: What stands between the last batch norm and `output_layer`, one of `HEAD_ACTIVATIONS`.
    head_activation: str

    @property
    def output_layer(self) -> nn.Conv2d:
        """The last convolution, whose output is the logits: its input is what the head sees."""
        layers = [part for part in self.head.modules() if isinstance(part, nn.Conv2d)]
        return layers[-1]

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = check_count(in_channels, "in_channels", 1)
        self.out_channels = check_count(out_channels, "out_channels", 1)

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits of images whose sides are multiples of ``self.multiple``."""
        raise TypeError(f"{type(self).__name__} does not define forward_padded")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, out_channels, H, W) of float images (N, in_channels, H, W).

        Raises ValueError for another number of dimensions or channels, or an empty side.
        """
        if images.dim() != 4 or images.shape[1] != self.in_channels or 0 in images.shape[2:]:
            raise ValueError(
                f"{type(self).__name__}: expected images of shape (N, {self.in_channels}, H, W), "
                f"got {tuple(images.shape)}"
            )
        height, width = images.shape[-2:]
        bottom = _padding(height, self.multiple)
        right = _padding(width, self.multiple)
        if bottom or right:
            images = F.pad(images, (0, right, 0, bottom), mode="replicate")
        return self.forward_padded(images)[..., :height, :width]


def _padding(side: int, multiple: int) -> int:
    """Pixels to add to `side` for the next multiple that is at least two multiples."""
    return max(2, -(-side // multiple)) * multiple - side


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, activation: str = "relu"
) -> nn.Sequential:
    """Convolution that keeps the size, batch norm and an activation of `HEAD_ACTIVATIONS`.

    The convolution has no bias: batch norm subtracts it again.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        activation_layer(activation),
    )


def unpool(values: Tensor, indices: Tensor) -> Tensor:
    """Map of twice the size with `values` at `indices` and zero elsewhere.

    `values` and `indices` are (N, C, H, W), `indices` as `torch.nn.functional.max_pool2d` with
    kernel 2 returns them: positions in the flattened 2H x 2W plane. The windows do not overlap, so
    no position occurs twice; a scatter says so to torch's deterministic mode, which refuses
    `max_unpool2d` outright.
    """
    n, c, h, w = values.shape
    plane = values.new_zeros(n, c, 4 * h * w)
    return plane.scatter(2, indices.flatten(2), values.flatten(2)).view(n, c, 2 * h, 2 * w)

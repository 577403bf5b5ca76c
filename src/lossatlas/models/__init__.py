"""Networks of the studies: U-Net, SegNet, SegNet-Basic, and a plain stack of convolutions.

Every model maps images ``(N, in_channels, H, W)`` to logits ``(N, out_channels, H, W)`` for any
height and width, and draws its weights from torch's global generator: the same
``torch.manual_seed`` gives the same network. Nothing here downloads pretrained weights.

>>> import torch
>>> from lossatlas import models
>>> model = models.build("segnet", in_channels=1, out_channels=11)
>>> tuple(model(torch.zeros(2, 1, 50, 70)).shape)
(2, 11, 50, 70)
"""

from __future__ import annotations

from lossatlas.models._registry import build, count_parameters, names, parameters
from lossatlas.models.plain import Plain
from lossatlas.models.segnet import SegNet, SegNetBasic
from lossatlas.models.unet import UNet

__all__ = [
    "Plain",
    "SegNet",
    "SegNetBasic",
    "UNet",
    "build",
    "count_parameters",
    "names",
    "parameters",
]

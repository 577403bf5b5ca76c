"""U-Net on segmentation-models-pytorch's parts."""

from __future__ import annotations

import sys

import pytest
import torch

from lossatlas import models
from lossatlas.models.unet import PlainEncoder


def test_the_plain_encoder_halves_the_resolution_and_doubles_the_channels():
    encoder = PlainEncoder(2, width=4, depth=3)
    features = encoder(torch.randn(1, 2, 32, 16))
    shapes = [tuple(f.shape[1:]) for f in features]
    assert shapes == [(2, 32, 16), (4, 32, 16), (8, 16, 8), (16, 8, 4), (32, 4, 2)]
    assert encoder.out_channels == [2, 4, 8, 16, 32]


def test_every_level_of_the_plain_encoder_reaches_the_decoder():
    model = models.build("unet", 1, 2, width=4, depth=3)
    skips = [block.conv1[0].in_channels for block in model.decoder.blocks]
    # From below and from the side: 32+16, 16+8, 8+4.
    assert skips == [48, 24, 12]


@pytest.mark.parametrize("depth", [3, 5])
def test_an_smp_encoder_gives_logits_of_the_images_size(depth):
    model = models.build("unet", 1, 5, encoder="resnet18", depth=depth).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 1, 50, 70)).shape == (1, 5, 50, 70)


def test_the_published_size_with_an_smp_encoder_is_smps_default_network():
    import segmentation_models_pytorch as smp

    ours = models.build("unet", 3, 11, encoder="resnet18", size="published")
    theirs = smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=11)
    assert models.count_parameters(ours) == models.count_parameters(theirs)


def test_decoder_channels_set_the_decoders_width():
    model = models.build("unet", 1, 3, width=8, depth=2, decoder_channels=[12, 6])
    assert [block.conv2[0].out_channels for block in model.decoder.blocks] == [12, 6]
    assert model(torch.randn(1, 1, 16, 16)).shape == (1, 3, 16, 16)


def test_without_smp_the_unet_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ImportError, match=r"lossatlas\[experiments\]"):
        models.build("unet", 1, 2)


def test_without_skips_the_weights_are_the_same_and_the_answer_lacks_what_they_bring():
    def built(skips):
        torch.manual_seed(0)
        return models.build("unet", 1, 1, skips=skips).eval()

    with_skips, without = built(True), built(False)
    for one, other in zip(with_skips.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)
    image = torch.rand(1, 1, 32, 32)
    features = without.encoder(image)
    assert not torch.equal(with_skips(image), without(image))
    hidden = without.decoder([*(0 * f for f in features[:-1]), features[-1]])
    assert torch.equal(without.head(hidden), without(image))

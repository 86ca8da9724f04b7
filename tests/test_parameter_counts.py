"""Exact sizes of the published networks: the cheapest proof that a network is the paper's."""

import pytest
import torch
from torch import nn

from thermal_search.architectures import build
from thermal_search.networks import (
    DcganDiscriminator,
    DcganGenerator,
    PatchDiscriminator,
    ResidualTranslator,
    UNet,
)


def count(make) -> int:
    with torch.device("meta"):
        network: nn.Module = make()
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("size", "expected"),
    [(32, 16_654_977), (64, 29_239_937), (128, 41_824_897), (256, 54_409_857), (512, 66_994_817)],
)
def test_pix2pix(size, expected):
    assert count(lambda: build("pix2pix", size, {}).generator) == expected


def test_unet_256_of_three_channels_is_the_known_one():
    assert count(lambda: UNet(size=256, out_channels=3)) == 54_413_955


def test_unet_512_of_four_channels_is_thermalgans():
    assert count(lambda: UNet(size=512, in_channels=4)) == 66_995_841


def test_patch_discriminators():
    assert count(lambda: PatchDiscriminator(in_channels=4)) == 2_766_657
    assert count(lambda: PatchDiscriminator(in_channels=6)) == 2_768_705


def test_cyclegan():
    def part(name):
        return count(lambda: getattr(build("cyclegan", 256, {}), name))

    assert part("generator") == 11_371_905
    assert part("return_generator") == 11_378_179
    assert part("thermal_discriminator") == 2_762_689
    assert part("rgb_discriminator") == 2_764_737


def test_residual_translator_of_six_blocks_is_the_known_one():
    assert count(lambda: ResidualTranslator(out_channels=3, blocks=6)) == 7_837_699


@pytest.mark.parametrize(
    ("size", "generator", "critic"),
    [
        (32, 1_168_385, 664_385),
        (64, 3_808_129, 2_766_657),
        (128, 13_281_025, 11_165_505),
        (256, 30_585_473, 27_944_769),
        (512, 47_889_921, 44_724_033),
    ],
)
def test_wgan(size, generator, critic):
    assert count(lambda: build("wgan", size, {}).generator) == generator
    assert count(lambda: build("wgan", size, {}).critic) == critic


def test_dcgan_without_the_rgb_picture_is_the_papers():
    assert count(lambda: DcganGenerator(size=64, condition_channels=None)) == 3_574_657
    assert count(lambda: DcganGenerator(size=256, condition_channels=None)) == 29_563_777
    assert count(lambda: DcganDiscriminator(size=64)) == 2_766_657

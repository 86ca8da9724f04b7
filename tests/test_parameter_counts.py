"""Exact parameter counts of the published networks."""

import pytest
import torch
from torch import nn

from thermal_search.architectures import biggan, build, progressive_gan, stylegan, wgan_gp
from thermal_search.networks import (
    DcganDiscriminator,
    DcganGenerator,
    PatchDiscriminator,
    ResidualTranslator,
    UNet,
)
from thermal_search.networks.progressive import (
    Growth,
    ProgressiveDiscriminator,
    progressive_channels,
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


def test_unet_256_of_three_channels_has_the_official_count():
    assert count(lambda: UNet(size=256, out_channels=3)) == 54_413_955


def test_unet_512_of_four_channels_has_thermalgans_count():
    assert count(lambda: UNet(size=512, in_channels=4)) == 66_995_841


def test_patch_discriminators():
    assert count(lambda: PatchDiscriminator(in_channels=4)) == 2_766_657
    assert count(lambda: PatchDiscriminator(in_channels=6)) == 2_768_705


def test_cyclegan():
    def part(name):
        return count(lambda: getattr(build("cyclegan", 256, {}), name))

    assert part("generator") == 11_371_905
    assert part("rgb_generator") == 11_378_179
    assert part("thermal_discriminator") == 2_762_689
    assert part("rgb_discriminator") == 2_764_737


def test_residual_translator_of_six_blocks_has_the_official_count():
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
def test_dcgan_and_wgan_have_the_same_networks(size, generator, critic):
    for name, player in (("dcgan", "discriminator"), ("wgan", "critic")):
        assert count(lambda name=name: build(name, size, {}).generator) == generator
        assert count(lambda n=name, p=player: getattr(build(n, size, {}), p)) == critic


def test_dcgan_without_the_rgb_image_has_the_papers_count():
    assert count(lambda: DcganGenerator(size=64, condition_channels=None)) == 3_574_657
    assert count(lambda: DcganGenerator(size=256, condition_channels=None)) == 29_563_777
    assert count(lambda: DcganDiscriminator(size=64)) == 2_766_657


SIZES = (32, 64, 128, 256, 512)


def check(name, network, expected):
    counts = [count(lambda size=size: getattr(build(name, size, {}), network)) for size in SIZES]
    assert counts == expected


def test_gan():
    generators = [34_326_849, 35_720_641, 40_603_969, 50_632_385, 60_660_801]
    discriminators = [5_226_617, 10_449_145, 21_099_001, 32_568_185, 34_411_769]
    check("gan", "generator", generators)
    check("gan", "discriminator", discriminators)


def test_cgan():
    generators = [1_635_105, 5_734_177, 12_795_297, 21_448_993, 30_102_689]
    discriminators = [1_143_905, 4_620_129, 10_946_401, 19_337_057, 27_727_713]
    check("cgan", "generator", generators)
    check("cgan", "discriminator", discriminators)


def test_improved_gan():
    discriminators = [506_174, 1_996_606, 7_828_286, 12_547_902, 17_267_518]
    check("improved_gan", "discriminator", discriminators)
    # DCGAN's generator and the gain of its weight-normalized last layer.
    assert count(lambda: build("improved_gan", 256, {}).generator) == 30_585_473 + 1


def test_wgan_gp():
    generators = [3_701_761, 8_850_369, 13_998_977, 19_147_585, 24_296_193]
    critics = [2_508_609, 7_492_417, 12_476_225, 17_460_033, 22_443_841]
    check("wgan_gp", "generator", generators)
    check("wgan_gp", "critic", critics)


def test_wgan_gp_without_the_rgb_image_has_the_papers_count():
    def generator(size):
        return wgan_gp.ResidualGenerator(size=size, condition_channels=None)

    assert count(lambda: generator(256)) == 18_506_945
    assert count(lambda: generator(64)) == 8_539_329
    assert count(lambda: wgan_gp.ResidualCritic(size=64, in_channels=3)) == 7_491_841


def test_progressive_gan():
    discriminators = [20_728_833, 22_500_353, 22_943_745, 23_054_849, 23_082_753]
    check("progressive_gan", "discriminator", discriminators)
    # One bias per channel of the first layer, as in the official networks.
    generators = [21_308_932, 23_153_797, 23_634_310, 23_764_423, 23_802_280]
    check("progressive_gan", "generator", generators)


def test_progressive_gan_without_the_rgb_image_has_the_official_count():
    full = Growth(1024, 1.0)
    thermal = count(
        lambda: progressive_gan.ProgressiveGenerator(size=1024, start=full, condition_channels=None)
    )
    # The official count, 23,079,115, is for three channels: two more at each of nine resolutions.
    widths = sum(progressive_channels(1024).values())
    assert thermal + 2 * (widths + 9) == 23_079_115
    assert (
        count(lambda: ProgressiveDiscriminator(size=1024, start=full, in_channels=3)) == 23_087_249
    )


def test_stylegan():
    generators = [23_791_108, 26_161_797, 26_905_222, 27_166_791, 27_270_376]
    check("stylegan", "generator", generators)
    assert count(lambda: build("stylegan", 256, {}).discriminator) == 23_054_849


def test_stylegan_without_the_rgb_image_has_the_official_count():
    def generator(size):
        return stylegan.StyleGenerator(size=size, start=Growth(size, 1.0), condition_channels=None)

    assert count(lambda: generator(256)) == 26_080_711
    assert count(lambda: generator(1024)) == 26_214_009


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [
        (32, 5_294_306, 4_281_602),
        (64, 34_510_946, 19_546_562),
        (128, 34_736_098, 38_422_978),
        (256, 40_673_634, 43_420_610),
        (512, 40_864_162, 43_498_626),
    ],
)
def test_biggan(size, generator, discriminator):
    # Built once, because spectral norm makes it slow.
    with torch.device("meta"):
        translator = build("biggan", size, {})
    rgb_branch = count(lambda: translator.discriminator.rgb_branch)

    assert count(lambda: translator.generator) == generator
    assert count(lambda: translator.discriminator) - rgb_branch == discriminator
    if size == 256:
        assert rgb_branch == 2_979_121


def test_biggan_128_of_a_thousand_classes_has_the_official_count():
    embedding = 1000 * 128
    generator = count(
        lambda: biggan.BigGANGenerator(size=128, width=96, out_channels=3, condition_channels=None)
    )
    projection = 1000 * 16 * 96
    discriminator = count(
        lambda: biggan.ProjectionDiscriminator(
            size=128, width=96, in_channels=3, is_conditional=False
        )
    )

    assert generator + embedding == 70_433_988
    assert discriminator + projection == 87_982_370


def test_thermalgan():
    def part(name):
        return [
            count(lambda size=size: build("thermalgan", size, {}).get_submodule(name))
            for size in SIZES
        ]

    assert part("generator.base") == [16_842_113, 29_491_585, 42_141_057, 54_790_529, 67_440_001]
    assert part("generator.contrast") == [
        16_656_001,
        29_240_961,
        41_825_921,
        54_410_881,
        66_995_841,
    ]
    assert part("encoder") == [122_256, 517_008, 1_342_032, 2_587_984, 2_587_984]
    assert count(lambda: build("thermalgan", 256, {}).contrast_discriminator) == 2_767_681
    # At full and at half width, as BicycleGAN's.
    assert count(lambda: build("thermalgan", 256, {}).encoded_discriminator) == 2_762_689 + 693_217


def test_unit():
    def generators(translator):
        networks = translator.generator, translator.thermal_encoder, translator.rgb_decoder
        return sum(p.numel() for network in networks for p in network.parameters())

    with torch.device("meta"):
        assert [generators(build("unit", size, {})) for size in SIZES] == [19_908_100] * 5
    assert count(lambda: build("unit", 256, {}).thermal_discriminator) == 8_265_027

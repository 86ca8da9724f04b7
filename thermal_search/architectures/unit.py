"""UNIT: Unsupervised Image-to-Image Translation Networks.

Liu et al., NeurIPS 2017. https://arxiv.org/abs/1703.00848

RGB and thermal images of one scene are thought to have one code. A variational autoencoder a
domain, their inner layers shared, meets there: what one encodes the other decodes, and must be able
to encode back. Discriminators judge what crosses over, at several scales. Needs no pairs.

Left out: the authors' later code can also compare VGG features of an image and its crossing
(weight 1 from game to city streets, 0 from summer to winter). The paper does not, and a search
would need a file of ImageNet weights on every machine, for features that were never shown a thermal
image.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.architectures import translator
from thermal_search.architectures.translator import OptimizerConfig, Player, Translator, Turn
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import ADVERSARIAL_LOSSES, AdversarialLoss, pixel_loss
from thermal_search.networks import MultiScale, ResidualBlock, initialize
from thermal_search.networks.padding import Reflect

Code = Float[Tensor, "batch channels rows columns"]


@final
class UNIT(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.Config):
        generator_lr: float = 1e-4
        discriminator_lr: float = 1e-4
        weight_decay: float = 1e-4
        """Of Adam, for all networks."""

        gan_weight: float = 1.0
        """These five are the authors' later values, the paper's divided by ten."""

        recon_weight: float = 10.0
        """Weight of decoding an image's own code."""

        kl_weight: float = 0.01
        cycle_weight: float = 10.0
        """Weight of what is lost on the way to the other domain and back."""

        cycle_kl_weight: float = 0.01
        gan_mode: Literal["lsgan", "vanilla"] = "lsgan"
        """The paper's is vanilla; the authors' later code has lsgan."""

        blocks: int = 3
        """Residual blocks that each encoder and decoder has to itself."""

        shared_blocks: int = 1
        """Residual blocks that the encoders share, and the decoders."""

        generator_width: int = 64
        discriminator_width: int = 64
        scales: int = 3
        """Sizes at which an image is judged; fewer where it is too small for them."""

        patch_layers: int = 4
        """Strided layers of each discriminator."""

        lr_halving_images: int = 100_000
        """Images after which the learning rates halve."""

    config: Config
    needs_pairs: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, blocks, shared = config.generator_width, config.blocks, config.shared_blocks
        self.generator = _initialize(
            CrossDomainGenerator(width, blocks=blocks, shared_blocks=shared)
        )
        self.thermal_encoder = _initialize(encoder(1, width, blocks))
        self.rgb_decoder = _initialize(decoder(3, width, blocks))
        self.thermal_discriminator = self._discriminator(channels=1)
        self.rgb_discriminator = self._discriminator(channels=3)

    def _discriminator(self, channels: int) -> MultiScale:
        config = self.config
        most = int(math.log2(config.size)) - config.patch_layers + 1
        return initialize(
            MultiScale(
                [
                    StridedDiscriminator(channels, config.discriminator_width, config.patch_layers)
                    for _ in range(min(config.scales, most))
                ]
            )
        )

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb)

    def players(self) -> Mapping[str, Player]:
        config = self.config

        def recipe(lr: float) -> OptimizerConfig:
            return OptimizerConfig(
                algorithm="adam", lr=lr, betas=(0.5, 0.999), weight_decay=config.weight_decay
            )

        return {
            "discriminators": Player(
                (self.thermal_discriminator, self.rgb_discriminator),
                recipe(config.discriminator_lr),
            ),
            # What both directions share is the generator's, and so counted once.
            "generators": Player(
                (self.generator, self.thermal_encoder, self.rgb_decoder),
                recipe(config.generator_lr),
            ),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        game = ADVERSARIAL_LOSSES[self.config.gan_mode]
        batch = next(batches)
        rgb, thermal = batch.rgb, batch.thermal
        rgb_code, thermal_code = self.encode_rgb(rgb), self.encode_thermal(thermal)
        fake_thermal = self.decode_thermal(_with_noise(rgb_code))
        fake_rgb = self.decode_rgb(_with_noise(thermal_code))

        judge_thermal, judge_rgb = self.thermal_discriminator, self.rgb_discriminator
        yield Turn(
            "discriminators",
            {
                "thermal": self._weigh(_judge(game, judge_thermal, thermal, fake_thermal)),
                "rgb": self._weigh(_judge(game, judge_rgb, rgb, fake_rgb)),
            },
        )

        # The generators have not moved: what they painted still stands.
        yield Turn(
            "generators",
            {
                "adversarial_thermal": self._weigh(_fool(game, judge_thermal, fake_thermal)),
                "adversarial_rgb": self._weigh(_fool(game, judge_rgb, fake_rgb)),
                **self._reconstruction_losses(rgb, thermal, rgb_code, thermal_code),
                **self._cycle_losses(rgb, thermal, fake_rgb, fake_thermal),
            },
        )

    def _weigh(self, loss: Tensor) -> Tensor:
        return self.config.gan_weight * loss

    def _reconstruction_losses(
        self, rgb: Rgb, thermal: Thermal, rgb_code: Code, thermal_code: Code
    ) -> dict[str, Tensor]:
        """The two autoencoders."""
        config = self.config
        rgb_again = self.decode_rgb(_with_noise(rgb_code))
        thermal_again = self.decode_thermal(_with_noise(thermal_code))
        return {
            "recon_rgb": pixel_loss(rgb_again, rgb, config.recon_weight),
            "recon_thermal": pixel_loss(thermal_again, thermal, config.recon_weight),
            "kl": config.kl_weight * (_divergence(rgb_code) + _divergence(thermal_code)),
        }

    def _cycle_losses(
        self, rgb: Rgb, thermal: Thermal, fake_rgb: Rgb, fake_thermal: Thermal
    ) -> dict[str, Tensor]:
        config = self.config
        rgb_code, thermal_code = self.encode_thermal(fake_thermal), self.encode_rgb(fake_rgb)
        rgb_again = self.decode_rgb(_with_noise(rgb_code))
        thermal_again = self.decode_thermal(_with_noise(thermal_code))
        return {
            "cycle_rgb": pixel_loss(rgb_again, rgb, config.cycle_weight),
            "cycle_thermal": pixel_loss(thermal_again, thermal, config.cycle_weight),
            "cycle_kl": config.cycle_kl_weight
            * (_divergence(rgb_code) + _divergence(thermal_code)),
        }

    def encode_rgb(self, rgb: Rgb) -> Code:
        return self._cross_domain_generator.shared_encoder(
            self._cross_domain_generator.rgb_encoder(rgb)
        )

    def encode_thermal(self, thermal: Thermal) -> Code:
        return self._cross_domain_generator.shared_encoder(self.thermal_encoder(thermal))

    def decode_rgb(self, code: Code) -> Rgb:
        return self.rgb_decoder(self._cross_domain_generator.shared_decoder(code)).float()

    def decode_thermal(self, code: Code) -> Thermal:
        return self._cross_domain_generator.thermal_decoder(
            self._cross_domain_generator.shared_decoder(code)
        ).float()

    @property
    def _cross_domain_generator(self) -> "CrossDomainGenerator":
        assert isinstance(self.generator, CrossDomainGenerator)
        return self.generator

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.halved(images, self.config.lr_halving_images)


def _with_noise(code: Code) -> Code:
    """A draw from N(code, 1): the posterior whose mean the encoder gives."""
    return code + torch.randn_like(code)


def _divergence(code: Code) -> Tensor:
    """Of N(code, 1) from N(0, 1), up to a factor, as the authors weigh it: a mean of squares."""
    return code.float().square().mean()


def _judge(game: AdversarialLoss, judge: MultiScale, real: Tensor, fake: Tensor) -> Tensor:
    pairs = zip(judge(real), judge(fake.detach()), strict=True)
    return torch.stack([game.discriminator(a, b) for a, b in pairs]).sum()


def _fool(game: AdversarialLoss, judge: MultiScale, fake: Tensor) -> Tensor:
    return torch.stack([game.generator(score) for score in judge(fake)]).sum()


class CrossDomainGenerator(nn.Module):
    """RGB to code to thermal; the layers at the code belong to the way back too."""

    def __init__(self, width: int = 64, *, blocks: int = 3, shared_blocks: int = 1) -> None:
        super().__init__()
        self.rgb_encoder = encoder(3, width, blocks)
        self.shared_encoder = _residual(4 * width, shared_blocks)
        self.shared_decoder = _residual(4 * width, shared_blocks)
        self.thermal_decoder = decoder(1, width, blocks)

    def forward(self, rgb: Rgb) -> Thermal:
        code = self.shared_encoder(self.rgb_encoder(rgb))
        return self.thermal_decoder(self.shared_decoder(code)).float()


def encoder(channels: int, width: int, blocks: int) -> nn.Sequential:
    """An image to features of a quarter of its size."""
    return nn.Sequential(
        Reflect(3),
        nn.Conv2d(channels, width, 7),
        nn.InstanceNorm2d(width),
        nn.ReLU(),
        *_downsample(width, 2 * width),
        *_downsample(2 * width, 4 * width),
        *_residual(4 * width, blocks),
    )


def decoder(channels: int, width: int, blocks: int) -> nn.Sequential:
    """Features to an image four times their size."""
    return nn.Sequential(
        *_residual(4 * width, blocks),
        *_upsample(4 * width, 2 * width),
        *_upsample(2 * width, width),
        Reflect(3),
        nn.Conv2d(width, channels, 7),
        nn.Tanh(),
    )


def _residual(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))


def _downsample(before: int, wide: int) -> tuple[nn.Module, ...]:
    return (
        Reflect(1),
        nn.Conv2d(before, wide, 4, 2),
        nn.InstanceNorm2d(wide),
        nn.ReLU(),
    )


def _upsample(before: int, wide: int) -> tuple[nn.Module, ...]:
    return (
        nn.Upsample(scale_factor=2),
        Reflect(2),
        nn.Conv2d(before, wide, 5),
        nn.GroupNorm(1, wide),  # over an image's channels and pixels
        nn.ReLU(),
    )


class StridedDiscriminator(nn.Module):
    """Reflected strided convolutions without any norm, then one of 1 x 1."""

    def __init__(self, in_channels: int, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        before = in_channels
        for layer in range(layers):
            wide = width * 2**layer
            parts += [
                Reflect(1),
                nn.Conv2d(before, wide, 4, 2),
                nn.LeakyReLU(0.2),
            ]
            before = wide
        self.layers = nn.Sequential(*parts, nn.Conv2d(before, 1, 1))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 1 rows columns"]:
        return self.layers(images)


def _initialize(network: nn.Sequential | CrossDomainGenerator) -> nn.Module:
    """He's, as in the authors' code."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network

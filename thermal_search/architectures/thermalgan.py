"""ThermalGAN: Multimodal Color-to-Thermal Image Translation for Person Re-Identification.

Kniaz et al., ECCV Workshops 2018. https://link.springer.com/chapter/10.1007/978-3-030-11024-6_46
Zhu et al., Toward Multimodal Image-to-Image Translation (BicycleGAN), NeurIPS 2017.
https://arxiv.org/abs/1711.11586

Two stages: stage one generates a base image, which has few uniform temperatures (the paper's
thermal segmentation) and is multimodal: one RGB image can have several. Stage two adds the contrast
of each pixel to its base temperature. The authors' base images come from labeled object
temperatures; FLIR has none, so here they are computed from the thermal image. Stage one is
BicycleGAN, stage two pix2pix. Needs aligned pairs.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermal_search.architectures import translator
from thermal_search.architectures.additions import (
    DiscriminatorConfig,
    PerceptualConfig,
    augmented,
    perceptual_terms,
)
from thermal_search.architectures.translator import (
    Player,
    Translator,
    Turn,
    adam_player,
    normal_latent,
)
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import (
    ADVERSARIAL_LOSSES,
    discriminator_loss,
    generator_loss,
    patch_r1_penalty,
    pixel_loss,
)
from thermal_search.networks import MultiScale, PatchDiscriminator, UNet, initialize
from thermal_search.networks.latent_encoder import LatentEncoder
from thermal_search.networks.patch import (
    feature_matching_loss,
    fitting_layers,
    patch_discriminators,
)
from thermal_search.networks.spectral_norm import apply_spectral_norm


@final
class ThermalGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DiscriminatorConfig, PerceptualConfig):
        generator_lr: float = 2e-4
        """For both stages and the encoder."""

        discriminator_lr: float = 2e-4
        base_method: Literal["levels", "lowpass"] = "levels"
        """How the base image is computed: as mean temperatures of gray-level ranges, or by blurring
        the image."""

        levels: int = 8
        """Largest number of uniform temperatures in a base image."""

        contrast_range: float = 0.25
        """Largest contrast that stage two can generate, in network range. In the authors' release
        it is 10 of 40 degrees."""

        base_l1_weight: float = 10.0
        contrast_l1_weight: float = 100.0
        kl_weight: float = 0.01
        latent_weight: float = 0.5
        """Weight of the mean absolute error of the latent that the encoder recovers from a base
        generated from it."""

        latent_size: int = 8
        predicted_base_probability: float = 0.0
        """Probability that stage two trains on a generated base in a step; 0: always on the real
        one, as in the authors' release."""

        width: int = 64
        """Channels after the first convolution of every network; half of it in the base
        discriminators' second scale, as in BicycleGAN's release."""

        dropout: float = 0.5
        """For stage two."""

        test_norm_stats: Literal["image", "running"] = "image"
        """Statistics of stage two's batch normalization at test time: each image's own, as in the
        authors' release, or the running averages of training. Stage one has instance
        normalization."""

        contrast_discriminator_norm: Literal["batch", "instance"] = "batch"
        """Normalization of stage two's discriminator. Instance normalization, which stage one's
        have, keeps the images of a batch apart, so that R1 is one image's own."""

        patch_layers: int = 3
        """Strided layers of the discriminators; fewer if the image is too small."""

        contrast_scales: int = 1
        """Scales of stage two's discriminator, as in pix2pixHD. Not part of the paper."""

        feature_matching: bool = False
        """Whether stage two also matches the features of its discriminator, as in pix2pixHD. Not
        part of the paper."""

        feature_matching_weight: float = 10.0
        base_gan_mode: Literal["lsgan", "vanilla", "hinge"] = "lsgan"
        """Adversarial loss of stage one; lsgan in BicycleGAN's release."""

        contrast_gan_mode: Literal["vanilla", "lsgan", "hinge"] = "vanilla"
        """Adversarial loss of stage two; vanilla in the authors' release, as in pix2pix."""

        decay_start: float = 0.5
        """Fraction of the budget after which the learning rates fall linearly to 0."""

        crop_scale: float = 542 / 512
        """See `translator.Config`: the authors' release crops 542 to 512 pixels."""

        batch_size: int = 2

        @property
        def coupling(self) -> str | None:
            norm = self.contrast_discriminator_norm
            return "contrast_discriminator_norm=batch" if norm == "batch" else None

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.batch_size % 2:
            raise ValueError(
                f"thermalgan needs an even batch_size, but got {config.batch_size}: it encodes one "
                "half of a batch and compares random bases with the other."
            )
        self.config = config
        self.generator = TwoStageGenerator(config)
        self.uses_predicted_base = False
        self.encoder = initialize(
            LatentEncoder(size=config.size, latent_size=config.latent_size, width=config.width)
        )
        self.encoded_discriminator = self._base_discriminator()
        self.random_discriminator = self._base_discriminator()
        self.contrast_discriminator = initialize(
            patch_discriminators(
                config.contrast_scales,
                in_channels=1 + 3 + 1,
                size=config.size,
                width=config.width,
                layers=config.patch_layers,
                norm=config.contrast_discriminator_norm,
            )
        )
        if config.spectral_norm:
            for discriminator in (
                self.encoded_discriminator,
                self.random_discriminator,
                self.contrast_discriminator,
            ):
                apply_spectral_norm(discriminator)

    def _base_discriminator(self) -> MultiScale:
        config = self.config

        def at_scale(factor: int) -> PatchDiscriminator:
            layers = fitting_layers(config.patch_layers, config.size // factor)
            return PatchDiscriminator(
                in_channels=1, width=config.width // factor, layers=layers, norm="instance"
            )

        return initialize(MultiScale([at_scale(1), at_scale(2)]))

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    @property
    def size_multiple(self) -> int:
        return self.config.size  # the U-Nets' bottleneck has at least one pixel

    draw_latent = normal_latent

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (0.5, 0.999)
        assert isinstance(self.generator, TwoStageGenerator)
        return {
            "base_discriminators": adam_player(
                self.encoded_discriminator,
                self.random_discriminator,
                lr=config.discriminator_lr,
                betas=betas,
            ),
            "base": adam_player(
                self.generator.base, self.encoder, lr=config.generator_lr, betas=betas
            ),
            "contrast_discriminator": adam_player(
                self.contrast_discriminator, lr=config.discriminator_lr, betas=betas
            ),
            "contrast": adam_player(self.generator.contrast, lr=config.generator_lr, betas=betas),
        }

    def begin_step(self, images: int, budget_images: int) -> bool:
        probability = self.config.predicted_base_probability
        self.uses_predicted_base = bool(probability) and torch.rand(()).item() < probability
        return False

    def graph_key(self) -> bool:
        return self.uses_predicted_base

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        batch = next(batches)
        base = self.base_of(batch.thermal)
        yield from self._base_turns(batch.rgb, base)
        yield from self._contrast_turns(batch, base)

    def base_of(self, thermal: Thermal) -> Thermal:
        """The real base image, which stage one learns to generate."""
        if self.config.base_method == "lowpass":
            return _blurred(thermal, self.config.size / 32)
        return average_levels(thermal, self.config.levels)

    def _base_turns(self, rgb: Rgb, base: Thermal) -> Iterator[Turn]:
        """BicycleGAN: a base is generated from the code of the real one, and from a random code,
        which the encoder must recover from it."""
        config, loss = self.config, ADVERSARIAL_LOSSES[self.config.base_gan_mode]
        assert isinstance(self.generator, TwoStageGenerator)
        rgb, _ = rgb.chunk(2)
        # The first half is encoded; the second half serves as real images for the random codes.
        real, other_real = base.chunk(2)
        mean, log_variance = self.encoder(real)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        random_code = self.latent_for(rgb, None)
        encoded = self.generator.base(rgb, code)
        random = self.generator.base(rgb, random_code)

        encoded_loss = discriminator_loss(
            loss,
            self.encoded_discriminator(augmented(config, real)),
            self.encoded_discriminator(augmented(config, encoded.detach())),
        )
        random_loss = discriminator_loss(
            loss,
            self.random_discriminator(augmented(config, other_real)),
            self.random_discriminator(augmented(config, random.detach())),
        )
        terms = {"encoded": 0.5 * encoded_loss, "random": 0.5 * random_loss}
        if config.r1:
            weight = 0.5 * config.r1_gamma
            terms["r1_encoded"] = weight * patch_r1_penalty(self.encoded_discriminator, real)
            terms["r1_random"] = weight * patch_r1_penalty(self.random_discriminator, other_real)
        yield Turn("base_discriminators", terms)

        encoded_scores = self.encoded_discriminator(augmented(config, encoded))
        random_scores = self.random_discriminator(augmented(config, random))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        yield Turn(
            "base",
            {
                "encoded": generator_loss(loss, encoded_scores),
                "random": generator_loss(loss, random_scores),
                "l1": pixel_loss(encoded, real, config.base_l1_weight),
                "kl": config.kl_weight * divergence.sum(1).mean(),
                "latent": config.latent_weight
                * F.l1_loss(self._recovered_code(random), random_code),
            },
        )

    def _recovered_code(self, base: Thermal) -> Latent:
        """The mean code of a generated base.

        The encoder gets no gradient here: it would learn to cooperate with the generator in hiding
        the code in the image.
        """
        frozen = {name: p.detach() for name, p in self.encoder.named_parameters()}
        mean, _ = torch.func.functional_call(self.encoder, frozen, (base,))
        return mean

    def _contrast_turns(self, batch: Batch, base: Thermal) -> Iterator[Turn]:
        """pix2pix: from RGB and base, real or predicted, to the contrast."""
        config, loss = self.config, ADVERSARIAL_LOSSES[self.config.contrast_gan_mode]
        assert isinstance(self.generator, TwoStageGenerator)
        if self.uses_predicted_base:
            with torch.no_grad():
                base = self.generator.base(batch.rgb, self.latent_for(batch.rgb, None))
        difference = (batch.thermal - base) / config.contrast_range
        real = difference.clamp(-1, 1)
        condition = torch.cat([base, batch.rgb], dim=1)
        fake = self.generator.contrast(condition)

        def pair(contrast: Thermal) -> Tensor:
            return torch.cat([condition, contrast], dim=1)

        def scores(contrast: Thermal) -> list[Tensor]:
            return self.contrast_discriminator(augmented(config, pair(contrast)))

        adversarial = discriminator_loss(loss, scores(real), scores(fake.detach()))
        terms = {"adversarial": 0.5 * adversarial}
        if config.r1:
            penalty = patch_r1_penalty(
                lambda contrast: self.contrast_discriminator(pair(contrast)), real
            )
            terms["r1"] = 0.5 * config.r1_gamma * penalty
        clipped = (difference.abs() > 1).float().mean()
        yield Turn("contrast_discriminator", terms, logged={"clipped_fraction": clipped})

        terms = {
            "adversarial": generator_loss(loss, scores(fake)),
            "l1": pixel_loss(fake, real, config.contrast_l1_weight),
            **perceptual_terms(config, self.generator.thermal(base, fake), batch.thermal),
        }
        if config.feature_matching:
            terms["feature_matching"] = config.feature_matching_weight * feature_matching_loss(
                self.contrast_discriminator, pair(real), pair(fake)
            )
        yield Turn("contrast", terms)

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)


def average_levels(thermal: Thermal, levels: int) -> Thermal:
    """Divides the gray levels of each image into at most `levels` ranges and replaces each pixel by
    the mean of its range.

    The ranges are bounded by quantiles, so that each covers about as many pixels. They are taken
    from a blurred copy (sigma: size / 64), so that noise does not fragment them.
    """
    with torch.autocast(thermal.device.type, enabled=False):
        smooth = _blurred(thermal, thermal.shape[-1] / 64).flatten(1)
        pixels = thermal.float().flatten(1)
        ranks = torch.arange(1, levels, device=thermal.device) * pixels.shape[1] // levels
        bounds = smooth.sort(dim=1).values[:, ranks].contiguous()
        level = torch.searchsorted(bounds, smooth, right=True)
        sums = pixels.new_zeros(len(pixels), levels).scatter_add_(1, level, pixels)
        counts = torch.zeros_like(sums).scatter_add_(1, level, torch.ones_like(pixels))
        means = sums / counts.clamp(min=1)
        return means.gather(1, level).view_as(thermal)


def _blurred(thermal: Thermal, sigma: float) -> Thermal:
    # Here: torchvision takes two seconds to import.
    from torchvision.transforms.v2.functional import gaussian_blur

    radius = max(1, min(math.ceil(3 * sigma), thermal.shape[-1] // 2 - 1))
    return gaussian_blur(thermal.float(), [2 * radius + 1] * 2, [sigma] * 2)


class TwoStageGenerator(nn.Module):
    """A base image from RGB and latent, then the contrast from base and RGB."""

    def __init__(self, config: ThermalGAN.Config) -> None:
        super().__init__()
        self.contrast_range = config.contrast_range
        self.base = initialize(
            UNet(
                size=config.size,
                width=config.width,
                norm="instance",
                dropout=0.0,
                latent_size=config.latent_size,
            )
        )
        self.contrast = initialize(
            UNet(
                size=config.size,
                in_channels=1 + 3,
                width=config.width,
                test_norm_stats=config.test_norm_stats,
                dropout=config.dropout,
            )
        )

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        base = self.base(rgb, z)
        contrast = self.contrast(torch.cat([base, rgb], dim=1))
        return self.thermal(base, contrast)

    def thermal(self, base: Thermal, contrast: Thermal) -> Thermal:
        """The thermal image with this base image and contrast, each in -1 .. 1."""
        return (base + self.contrast_range * contrast).clamp(-1, 1)

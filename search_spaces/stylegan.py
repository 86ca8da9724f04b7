"""Search space for StyleGAN.

thermal-search search --data D --output O --architectures stylegan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "generator_lr": FloatDistribution(2e-4, 5e-3, log=True),
    "discriminator_lr": FloatDistribution(2e-4, 5e-3, log=True),
    "r1_gamma": FloatDistribution(0.05, 100.0, log=True),
    "r1_interval": CategoricalDistribution([1, 4, 16]),
    "mapping_layers": CategoricalDistribution([2, 4, 8]),
    "mapping_lr_multiplier": FloatDistribution(1e-3, 0.1, log=True),
    "condition_mapping": CategoricalDistribution([True, False]),
    "latent_size": CategoricalDistribution([64, 256, 512]),
    "w_size": CategoricalDistribution([128, 256, 512]),
    "style_mixing_probability": FloatDistribution(0.0, 1.0),
    "noise": CategoricalDistribution([True, False]),
    "channel_base": CategoricalDistribution([2048, 4096, 8192]),
    "condition_channels": CategoricalDistribution([0, 16, 32, 64]),
    "rgb_encoder": CategoricalDistribution(["pooled", "strided"]),
    "growing": CategoricalDistribution([True, False]),
    "growth_fraction": FloatDistribution(0.3, 0.9),
    "start_resolution": CategoricalDistribution([8, 16]),
    "fade_fraction": FloatDistribution(0.2, 0.8),
    "diff_augment": CategoricalDistribution([False, True]),
    "l1": CategoricalDistribution([False, True]),
    "l1_weight": FloatDistribution(1.0, 200.0, log=True),
    # Left out of a search that measures with the same network.
    "perceptual_network": CategoricalDistribution(["none", "efficientnet-lite0"]),
    "perceptual_weight": FloatDistribution(1.0, 100.0, log=True),
    "decay_start": CategoricalDistribution([1.0, 0.5, 0.0]),
    "batch_size": CategoricalDistribution([4, 8, 16, 32]),
    "ema_half_life_images": CategoricalDistribution([1000, 5000, 10_000, 20_000]),
    "crop_scale": CategoricalDistribution([1.0, 286 / 256, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "rgb_encoder": ("condition_channels", (16, 32, 64)),
    "growth_fraction": ("growing", (True,)),
    "start_resolution": ("growing", (True,)),
    "fade_fraction": ("growing", (True,)),
    "l1_weight": ("l1", (True,)),
    "perceptual_weight": ("perceptual_network", ("efficientnet-lite0",)),
}

# Learning rates and loss weights: what `--scheduler pbt` changes while a trial trains.
IN_FLIGHT = (
    "generator_lr",
    "discriminator_lr",
    "r1_gamma",
    "l1_weight",
    "perceptual_weight",
)

# The settings of Karras et al.
PUBLISHED = {
    "generator_lr": 0.001,
    "discriminator_lr": 0.001,
    "r1_gamma": 10.0,
    "r1_interval": 1,
    "mapping_layers": 8,
    "mapping_lr_multiplier": 0.01,
    "condition_mapping": True,
    "latent_size": 512,
    "w_size": 512,
    "style_mixing_probability": 0.9,
    "noise": True,
    "channel_base": 8192,
    "condition_channels": 32,
    "rgb_encoder": "pooled",
    "growing": True,
    "growth_fraction": 0.65,
    "start_resolution": 8,
    "fade_fraction": 0.5,
    "diff_augment": False,
    "l1": False,
    "perceptual_network": "none",
    "decay_start": 1.0,
    "batch_size": 16,
    "ema_half_life_images": 10_000,
    "crop_scale": 1.0,
    "color_jitter": 0.0,
}

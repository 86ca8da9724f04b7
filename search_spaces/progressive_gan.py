"""Search space for Progressive GAN.

thermal-search search --data D --output O --architectures progressive_gan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "generator_lr": FloatDistribution(2e-4, 5e-3, log=True),
    "discriminator_lr": FloatDistribution(2e-4, 5e-3, log=True),
    "channel_base": CategoricalDistribution([2048, 4096, 8192]),
    "channel_max": CategoricalDistribution([128, 256, 512]),
    "latent_size": CategoricalDistribution([64, 128, 256, 512]),
    "condition_channels": CategoricalDistribution([0, 16, 32, 64]),
    "rgb_encoder": CategoricalDistribution(["pooled", "strided"]),
    "penalty_weight": FloatDistribution(1.0, 50.0, log=True),
    "drift_weight": FloatDistribution(1e-4, 1e-2, log=True),
    "n_critic": IntDistribution(1, 3),
    "growth_fraction": FloatDistribution(0.3, 0.9),
    "start_resolution": CategoricalDistribution([4, 8, 16]),
    "fade_fraction": FloatDistribution(0.2, 0.8),
    "mbstd_group_size": CategoricalDistribution([1, 2, 4, 8]),
    "diff_augment": CategoricalDistribution([False, True]),
    "l1": CategoricalDistribution([False, True]),
    "l1_weight": FloatDistribution(1.0, 200.0, log=True),
    # Left out of a search that measures with the same network.
    "perceptual_network": CategoricalDistribution(["none", "efficientnet-lite0"]),
    "perceptual_weight": FloatDistribution(1.0, 100.0, log=True),
    "decay_start": CategoricalDistribution([1.0, 0.5, 0.0]),
    "batch_size": CategoricalDistribution([4, 8, 16, 32]),
    "ema_half_life_images": CategoricalDistribution([1000, 2000, 11_000, 22_000]),
    "crop_scale": CategoricalDistribution([1.0, 286 / 256, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "rgb_encoder": ("condition_channels", (16, 32, 64)),
    "l1_weight": ("l1", (True,)),
    "perceptual_weight": ("perceptual_network", ("efficientnet-lite0",)),
}

# Learning rates and loss weights: what `--scheduler pbt` changes while a trial trains.
IN_FLIGHT = (
    "generator_lr",
    "discriminator_lr",
    "penalty_weight",
    "drift_weight",
    "l1_weight",
    "perceptual_weight",
)

# The settings of Karras et al.
PUBLISHED = {
    "generator_lr": 0.001,
    "discriminator_lr": 0.001,
    "channel_base": 8192,
    "channel_max": 512,
    "latent_size": 512,
    "condition_channels": 32,
    "rgb_encoder": "pooled",
    "penalty_weight": 10.0,
    "drift_weight": 0.001,
    "n_critic": 1,
    "growth_fraction": 0.65,
    "start_resolution": 4,
    "fade_fraction": 0.5,
    "mbstd_group_size": 4,
    "diff_augment": False,
    "l1": False,
    "perceptual_network": "none",
    "decay_start": 1.0,
    "batch_size": 16,
    "ema_half_life_images": 11_000,
    "crop_scale": 1.0,
    "color_jitter": 0.0,
}

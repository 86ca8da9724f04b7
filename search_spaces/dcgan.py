"""Search space for DCGAN.

thermal-search search --data D --output O --architectures dcgan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "generator_lr": FloatDistribution(2e-5, 2e-3, log=True),
    "discriminator_lr": FloatDistribution(2e-5, 2e-3, log=True),
    "beta1": FloatDistribution(0.0, 0.9),
    "real_label": FloatDistribution(0.8, 1.0),
    "latent_size": CategoricalDistribution([32, 64, 100, 128, 256]),
    "latent_prior": CategoricalDistribution(["uniform", "normal"]),
    "width": CategoricalDistribution([32, 64, 96, 128]),
    "max_width_multiplier": CategoricalDistribution([8, 16]),
    "condition_channels": CategoricalDistribution([0, 16, 32, 64]),
    "rgb_encoder": CategoricalDistribution(["pooled", "strided"]),
    "rgb_fusion": CategoricalDistribution(["early", "late"]),
    "init_std": FloatDistribution(0.005, 0.05, log=True),
    "spectral_norm": CategoricalDistribution([False, True]),
    "discriminator_norm": CategoricalDistribution(["batch", "layer"]),
    "r1": CategoricalDistribution([False, True]),
    "r1_gamma": FloatDistribution(0.1, 100.0, log=True),
    "diff_augment": CategoricalDistribution([False, True]),
    "l1": CategoricalDistribution([False, True]),
    "l1_weight": FloatDistribution(1.0, 200.0, log=True),
    # Left out of a search that measures with the same network.
    "perceptual_network": CategoricalDistribution(["none", "efficientnet-lite0"]),
    "perceptual_weight": FloatDistribution(1.0, 100.0, log=True),
    "decay_start": CategoricalDistribution([1.0, 0.5, 0.0]),
    "batch_size": CategoricalDistribution([8, 16, 32, 64, 128]),
    "ema_half_life_images": CategoricalDistribution([0, 1000, 10_000]),
    "crop_scale": CategoricalDistribution([1.0, 286 / 256, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "rgb_encoder": ("condition_channels", (16, 32, 64)),
    # Batch normalization would mix the gradients of different images.
    "r1": ("discriminator_norm", ("layer",)),
    "r1_gamma": ("r1", (True,)),
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

# The settings of Radford et al., with the width of most ports.
PUBLISHED = {
    "generator_lr": 0.0002,
    "discriminator_lr": 0.0002,
    "beta1": 0.5,
    "real_label": 1.0,
    "latent_size": 100,
    "latent_prior": "uniform",
    "width": 64,
    "max_width_multiplier": 16,
    "condition_channels": 32,
    "rgb_encoder": "pooled",
    "rgb_fusion": "early",
    "init_std": 0.02,
    "spectral_norm": False,
    "discriminator_norm": "batch",
    "diff_augment": False,
    "l1": False,
    "perceptual_network": "none",
    "decay_start": 1.0,
    "batch_size": 128,
    "ema_half_life_images": 0,
    "crop_scale": 1.0,
    "color_jitter": 0.0,
}

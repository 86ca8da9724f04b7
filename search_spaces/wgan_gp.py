"""Search space for WGAN-GP.

thermal-search search --data D --output O --architectures wgan_gp
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "generator_lr": FloatDistribution(1e-5, 1e-3, log=True),
    "critic_lr": FloatDistribution(1e-5, 1e-3, log=True),
    "beta1": FloatDistribution(0.0, 0.5),
    "beta2": CategoricalDistribution([0.9, 0.99, 0.999]),
    "penalty_weight": FloatDistribution(0.1, 100.0, log=True),
    "penalty": CategoricalDistribution(["two-sided", "one-sided"]),
    "n_critic": IntDistribution(1, 10),
    "critic_norm": CategoricalDistribution(["layer", "none"]),
    "lr_decay": CategoricalDistribution([False, True]),
    "latent_size": CategoricalDistribution([64, 128, 256]),
    "width": CategoricalDistribution([16, 32, 48, 64]),
    "condition_channels": CategoricalDistribution([0, 16, 32, 64]),
    "rgb_encoder": CategoricalDistribution(["pooled", "strided"]),
    "diff_augment": CategoricalDistribution([False, True]),
    "l1": CategoricalDistribution([False, True]),
    "l1_weight": FloatDistribution(1.0, 200.0, log=True),
    # Left out of a search that measures with the same network.
    "perceptual_network": CategoricalDistribution(["none", "efficientnet-lite0"]),
    "perceptual_weight": FloatDistribution(1.0, 100.0, log=True),
    "batch_size": CategoricalDistribution([8, 16, 32, 64]),
    "ema_half_life_images": CategoricalDistribution([0, 1000, 10_000]),
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
    "critic_lr",
    "penalty_weight",
    "l1_weight",
    "perceptual_weight",
)

# The settings of Gulrajani et al.
PUBLISHED = {
    "generator_lr": 0.0001,
    "critic_lr": 0.0001,
    "beta1": 0.0,
    "beta2": 0.9,
    "penalty_weight": 10.0,
    "penalty": "two-sided",
    "n_critic": 5,
    "critic_norm": "layer",
    "lr_decay": False,
    "latent_size": 128,
    "width": 64,
    "condition_channels": 32,
    "rgb_encoder": "pooled",
    "diff_augment": False,
    "l1": False,
    "perceptual_network": "none",
    "batch_size": 64,
    "ema_half_life_images": 0,
    "crop_scale": 1.0,
    "color_jitter": 0.0,
}

"""Search space for CycleGAN.

thermal-search search --data D --output O --architectures cyclegan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "generator_lr": FloatDistribution(2e-5, 2e-3, log=True),
    "discriminator_lr": FloatDistribution(2e-5, 2e-3, log=True),
    "beta1": FloatDistribution(0.0, 0.9),
    "cycle_weight": FloatDistribution(1.0, 100.0, log=True),
    "identity_ratio": FloatDistribution(0.0, 1.0),
    "pool_size": CategoricalDistribution([0, 25, 50, 100]),
    # 0: the paper's choice for the size, 9 from 256 pixels and 6 below.
    "blocks": CategoricalDistribution([0, 3, 6, 9]),
    "gan_mode": CategoricalDistribution(["vanilla", "lsgan", "hinge"]),
    "spectral_norm": CategoricalDistribution([False, True]),
    "r1": CategoricalDistribution([False, True]),
    "r1_gamma": FloatDistribution(0.1, 100.0, log=True),
    "diff_augment": CategoricalDistribution([False, True]),
    "generator_width": CategoricalDistribution([32, 48, 64]),
    "discriminator_width": CategoricalDistribution([32, 48, 64]),
    "patch_layers": IntDistribution(1, 4),
    "decay_start": FloatDistribution(0.0, 1.0),
    "batch_size": CategoricalDistribution([1, 2, 4]),
    "ema_half_life_images": CategoricalDistribution([0, 1000, 10_000]),
    "crop_scale": CategoricalDistribution([1.0, 286 / 256, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "r1_gamma": ("r1", (True,)),
}

# Learning rates and loss weights: what `--scheduler pbt` changes while a trial trains.
IN_FLIGHT = (
    "generator_lr",
    "discriminator_lr",
    "cycle_weight",
    "identity_ratio",
    "r1_gamma",
)

# The settings of Zhu et al.
PUBLISHED = {
    "generator_lr": 2e-4,
    "discriminator_lr": 2e-4,
    "beta1": 0.5,
    "cycle_weight": 10.0,
    "identity_ratio": 0.5,
    "pool_size": 50,
    "blocks": 0,
    "gan_mode": "lsgan",
    "spectral_norm": False,
    "r1": False,
    "diff_augment": False,
    "generator_width": 64,
    "discriminator_width": 64,
    "patch_layers": 3,
    "decay_start": 0.5,
    "batch_size": 1,
    "ema_half_life_images": 0,
    "crop_scale": 286 / 256,
    "color_jitter": 0.0,
}

"""Search space for UNIT.

thermal-search search --data D --output O --architectures unit
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "generator_lr": FloatDistribution(1e-5, 1e-3, log=True),
    "discriminator_lr": FloatDistribution(1e-5, 1e-3, log=True),
    "weight_decay": CategoricalDistribution([0.0, 1e-05, 0.0001, 0.001]),
    "gan_weight": FloatDistribution(0.1, 20.0, log=True),
    "recon_weight": FloatDistribution(1.0, 100.0, log=True),
    "kl_weight": FloatDistribution(1e-4, 1.0, log=True),
    "cycle_weight": FloatDistribution(1.0, 100.0, log=True),
    "cycle_kl_weight": FloatDistribution(1e-4, 1.0, log=True),
    "gan_mode": CategoricalDistribution(["lsgan", "vanilla", "hinge"]),
    "blocks": IntDistribution(2, 5),
    "shared_blocks": IntDistribution(1, 2),
    "generator_width": CategoricalDistribution([32, 48, 64]),
    "discriminator_width": CategoricalDistribution([32, 48, 64]),
    "scales": IntDistribution(1, 3),
    "patch_layers": IntDistribution(2, 4),
    "spectral_norm": CategoricalDistribution([False, True]),
    "r1": CategoricalDistribution([False, True]),
    "r1_gamma": FloatDistribution(0.1, 100.0, log=True),
    "diff_augment": CategoricalDistribution([False, True]),
    # 1: constant.
    "lr_halving": CategoricalDistribution([0.1, 0.2, 0.5, 1.0]),
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
    "gan_weight",
    "recon_weight",
    "kl_weight",
    "cycle_weight",
    "cycle_kl_weight",
    "r1_gamma",
)

# The settings of Liu et al., with the weights of their later code.
PUBLISHED = {
    "generator_lr": 0.0001,
    "discriminator_lr": 0.0001,
    "weight_decay": 0.0001,
    "gan_weight": 1.0,
    "recon_weight": 10.0,
    "kl_weight": 0.01,
    "cycle_weight": 10.0,
    "cycle_kl_weight": 0.01,
    "gan_mode": "lsgan",
    "blocks": 3,
    "shared_blocks": 1,
    "generator_width": 64,
    "discriminator_width": 64,
    "scales": 3,
    "patch_layers": 4,
    "spectral_norm": False,
    "r1": False,
    "diff_augment": False,
    "lr_halving": 0.1,
    "batch_size": 1,
    "ema_half_life_images": 0,
    "crop_scale": 1.0,
    "color_jitter": 0.0,
}

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
    "l1": CategoricalDistribution([False, True]),
    "l1_weight": FloatDistribution(1.0, 200.0, log=True),
    "batch_size": CategoricalDistribution([8, 16, 32, 64]),
    "ema_half_life_images": CategoricalDistribution([0, 1000, 10_000]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "l1_weight": ("l1", (True,)),
}

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
    "l1": False,
    "batch_size": 64,
    "ema_half_life_images": 0,
}

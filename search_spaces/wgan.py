"""Search space for WGAN.

thermal-search search --data D --output O --architectures wgan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "generator_lr": FloatDistribution(5e-6, 5e-4, log=True),
    "critic_lr": FloatDistribution(5e-6, 5e-4, log=True),
    "optimizer": CategoricalDistribution(["rmsprop", "adam"]),
    "beta1": FloatDistribution(0.0, 0.5),
    "weight_clip": FloatDistribution(1e-3, 0.1, log=True),
    "n_critic": IntDistribution(1, 10),
    "warmup_n_critic": CategoricalDistribution([0, 25, 100]),
    "latent_size": CategoricalDistribution([32, 64, 100, 128, 256]),
    "width": CategoricalDistribution([32, 64, 96, 128]),
    "max_width_multiplier": CategoricalDistribution([8, 16]),
    "condition_channels": CategoricalDistribution([0, 16, 32, 64]),
    "rgb_encoder": CategoricalDistribution(["pooled", "strided"]),
    "generator_norm": CategoricalDistribution(["batch", "none"]),
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
    "beta1": ("optimizer", ("adam",)),
    "l1_weight": ("l1", (True,)),
    "perceptual_weight": ("perceptual_network", ("efficientnet-lite0",)),
}

# Learning rates and loss weights: what `--scheduler pbt` changes while a trial trains.
IN_FLIGHT = (
    "generator_lr",
    "critic_lr",
    "l1_weight",
    "perceptual_weight",
)

# The settings of Arjovsky et al.
PUBLISHED = {
    "generator_lr": 5e-5,
    "critic_lr": 5e-5,
    "optimizer": "rmsprop",
    "weight_clip": 0.01,
    "n_critic": 5,
    "warmup_n_critic": 100,
    "latent_size": 100,
    "width": 64,
    "max_width_multiplier": 16,
    "condition_channels": 32,
    "rgb_encoder": "pooled",
    "generator_norm": "batch",
    "diff_augment": False,
    "l1": False,
    "perceptual_network": "none",
    "decay_start": 1.0,
    "batch_size": 64,
    "ema_half_life_images": 0,
    "crop_scale": 1.0,
    "color_jitter": 0.0,
}

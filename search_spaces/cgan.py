"""Search space for cGAN.

thermal-search search --data D --output O --architectures cgan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "generator_lr": FloatDistribution(2e-5, 1e-3, log=True),
    "discriminator_lr": FloatDistribution(2e-5, 1e-3, log=True),
    "beta1": FloatDistribution(0.0, 0.9),
    "mismatch_weight": FloatDistribution(0.0, 0.9),
    "embedding_size": CategoricalDistribution([64, 128, 256]),
    "manifold_interpolation": CategoricalDistribution([False, True]),
    "manifold_interpolation_weight": FloatDistribution(0.05, 1.0),
    "latent_size": CategoricalDistribution([32, 64, 100, 128]),
    "width": CategoricalDistribution([32, 48, 64, 96]),
    "condition_channels": CategoricalDistribution([0, 16, 32, 64]),
    # 1: constant.
    "lr_halving": CategoricalDistribution([0.1, 0.2, 0.5, 1.0]),
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
    "batch_size": CategoricalDistribution([8, 16, 32, 64]),
    "ema_half_life_images": CategoricalDistribution([0, 1000, 10_000]),
    "crop_scale": CategoricalDistribution([1.0, 76 / 64, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "manifold_interpolation_weight": ("manifold_interpolation", (True,)),
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
    "mismatch_weight",
    "manifold_interpolation_weight",
    "r1_gamma",
    "l1_weight",
    "perceptual_weight",
)

# The settings of Reed et al. Mirza & Osindero do not give all of them.
PUBLISHED = {
    "generator_lr": 0.0002,
    "discriminator_lr": 0.0002,
    "beta1": 0.5,
    "mismatch_weight": 0.5,
    "embedding_size": 128,
    "manifold_interpolation": False,
    "latent_size": 100,
    "width": 64,
    "condition_channels": 32,
    "lr_halving": 0.2,
    "spectral_norm": False,
    "discriminator_norm": "batch",
    "diff_augment": False,
    "l1": False,
    "perceptual_network": "none",
    "batch_size": 64,
    "ema_half_life_images": 0,
    "crop_scale": 76 / 64,
    "color_jitter": 0.0,
}

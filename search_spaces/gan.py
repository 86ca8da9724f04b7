"""Search space for GAN.

thermal-search search --data D --output O --architectures gan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "generator_loss": CategoricalDistribution(["nonsaturating", "minimax"]),
    "optimizer": CategoricalDistribution(["sgd", "adam"]),
    "generator_lr": FloatDistribution(1e-4, 0.1, log=True),
    "discriminator_lr": FloatDistribution(1e-4, 0.1, log=True),
    "final_momentum": FloatDistribution(0.5, 0.9),
    "generator_adam_lr": FloatDistribution(1e-5, 1e-3, log=True),
    "discriminator_adam_lr": FloatDistribution(1e-5, 1e-3, log=True),
    "latent_size": CategoricalDistribution([32, 64, 100, 128, 256]),
    "latent_prior": CategoricalDistribution(["normal", "uniform"]),
    "input_dropout": FloatDistribution(0.0, 0.4),
    "hidden_dropout": FloatDistribution(0.2, 0.7),
    "maxout_pieces": IntDistribution(2, 5),
    "generator_width": CategoricalDistribution([32, 48, 64, 96]),
    "discriminator_width": CategoricalDistribution([16, 32, 48]),
    "condition_channels": CategoricalDistribution([0, 16, 32, 64]),
    "rgb_encoder": CategoricalDistribution(["pooled", "strided"]),
    "spectral_norm": CategoricalDistribution([False, True]),
    "r1": CategoricalDistribution([False, True]),
    "r1_gamma": FloatDistribution(0.1, 100.0, log=True),
    "diff_augment": CategoricalDistribution([False, True]),
    "l1": CategoricalDistribution([False, True]),
    "l1_weight": FloatDistribution(1.0, 200.0, log=True),
    # Left out of a search that measures with the same network.
    "perceptual_network": CategoricalDistribution(["none", "efficientnet-lite0"]),
    "perceptual_weight": FloatDistribution(1.0, 100.0, log=True),
    "batch_size": CategoricalDistribution([8, 16, 32, 64, 128]),
    "ema_half_life_images": CategoricalDistribution([0, 1000, 10_000]),
    "crop_scale": CategoricalDistribution([1.0, 286 / 256, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "rgb_encoder": ("condition_channels", (16, 32, 64)),
    "generator_lr": ("optimizer", ("sgd",)),
    "discriminator_lr": ("optimizer", ("sgd",)),
    "final_momentum": ("optimizer", ("sgd",)),
    "generator_adam_lr": ("optimizer", ("adam",)),
    "discriminator_adam_lr": ("optimizer", ("adam",)),
    "r1_gamma": ("r1", (True,)),
    "l1_weight": ("l1", (True,)),
    "perceptual_weight": ("perceptual_network", ("efficientnet-lite0",)),
}

# Learning rates and loss weights: what `--scheduler pbt` changes while a trial trains.
IN_FLIGHT = (
    "generator_lr",
    "discriminator_lr",
    "generator_adam_lr",
    "discriminator_adam_lr",
    "r1_gamma",
    "l1_weight",
    "perceptual_weight",
)

# The settings of Goodfellow et al. for CIFAR-10.
PUBLISHED = {
    "generator_loss": "nonsaturating",
    "optimizer": "sgd",
    "generator_lr": 0.004,
    "discriminator_lr": 0.004,
    "final_momentum": 0.7,
    "latent_size": 100,
    "latent_prior": "normal",
    "input_dropout": 0.2,
    "hidden_dropout": 0.5,
    "maxout_pieces": 2,
    "generator_width": 64,
    "discriminator_width": 32,
    "condition_channels": 32,
    "rgb_encoder": "pooled",
    "spectral_norm": False,
    "r1": False,
    "diff_augment": False,
    "l1": False,
    "perceptual_network": "none",
    "batch_size": 128,
    "ema_half_life_images": 0,
    "crop_scale": 1.0,
    "color_jitter": 0.0,
}

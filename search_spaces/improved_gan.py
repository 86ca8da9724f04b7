"""Search space for Improved GAN.

thermal-search search --data D --output O --architectures improved_gan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "generator_lr": FloatDistribution(3e-5, 1e-3, log=True),
    "discriminator_lr": FloatDistribution(3e-5, 1e-3, log=True),
    "beta1": FloatDistribution(0.0, 0.9),
    "n_generator": IntDistribution(1, 3),
    "real_label": FloatDistribution(0.7, 1.0),
    "generator_loss": CategoricalDistribution(["both", "feature_matching", "adversarial"]),
    "feature_matching_weight": FloatDistribution(0.1, 10.0, log=True),
    "feature_matching_norm": CategoricalDistribution(["l1", "l2"]),
    "minibatch_discrimination": CategoricalDistribution([True, False]),
    "num_kernels": IntDistribution(25, 300),
    "dim_per_kernel": IntDistribution(3, 50),
    "reference_batch_size": CategoricalDistribution([8, 16, 32, 64]),
    "historical_averaging": CategoricalDistribution([True, False]),
    "historical_averaging_weight": FloatDistribution(1e-3, 1.0, log=True),
    "input_noise": FloatDistribution(0.0, 0.3),
    "dropout": FloatDistribution(0.0, 0.6),
    "latent_size": CategoricalDistribution([50, 100, 200]),
    "width": CategoricalDistribution([32, 64, 96]),
    "condition_channels": CategoricalDistribution([0, 16, 32, 64]),
    "rgb_encoder": CategoricalDistribution(["pooled", "strided"]),
    "rgb_fusion": CategoricalDistribution(["early", "late"]),
    "spectral_norm": CategoricalDistribution([False, True]),
    "r1": CategoricalDistribution([False, True]),
    "r1_gamma": FloatDistribution(0.1, 100.0, log=True),
    "diff_augment": CategoricalDistribution([False, True]),
    "l1": CategoricalDistribution([False, True]),
    "l1_weight": FloatDistribution(1.0, 200.0, log=True),
    # Left out of a search that measures with the same network.
    "perceptual_network": CategoricalDistribution(["none", "efficientnet-lite0"]),
    "perceptual_weight": FloatDistribution(1.0, 100.0, log=True),
    "batch_size": CategoricalDistribution([8, 16, 32, 64, 100]),
    "ema_half_life_images": CategoricalDistribution([0, 1000, 10_000]),
    "crop_scale": CategoricalDistribution([1.0, 286 / 256, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "rgb_encoder": ("condition_channels", (16, 32, 64)),
    "feature_matching_weight": ("generator_loss", ("both",)),
    "feature_matching_norm": ("generator_loss", ("both", "feature_matching")),
    "num_kernels": ("minibatch_discrimination", (True,)),
    "dim_per_kernel": ("minibatch_discrimination", (True,)),
    "historical_averaging_weight": ("historical_averaging", (True,)),
    # Minibatch discrimination would mix the gradients of different images.
    "r1": ("minibatch_discrimination", (False,)),
    "r1_gamma": ("r1", (True,)),
    "l1_weight": ("l1", (True,)),
    "perceptual_weight": ("perceptual_network", ("efficientnet-lite0",)),
}

# Learning rates and loss weights: what `--scheduler pbt` changes while a trial trains.
IN_FLIGHT = (
    "generator_lr",
    "discriminator_lr",
    "feature_matching_weight",
    "historical_averaging_weight",
    "r1_gamma",
    "l1_weight",
    "perceptual_weight",
)

# The settings of Salimans et al., whose code has no historical averaging.
PUBLISHED = {
    "generator_lr": 0.0003,
    "discriminator_lr": 0.0003,
    "beta1": 0.5,
    "n_generator": 3,
    "real_label": 0.9,
    "generator_loss": "both",
    "feature_matching_weight": 1.0,
    "feature_matching_norm": "l1",
    "minibatch_discrimination": True,
    "num_kernels": 100,
    "dim_per_kernel": 5,
    "reference_batch_size": 32,
    "historical_averaging": False,
    "input_noise": 0.2,
    "dropout": 0.5,
    "latent_size": 100,
    "width": 64,
    "condition_channels": 32,
    "rgb_encoder": "pooled",
    "rgb_fusion": "early",
    "spectral_norm": False,
    "diff_augment": False,
    "l1": False,
    "perceptual_network": "none",
    "batch_size": 100,
    "ema_half_life_images": 0,
    "crop_scale": 1.0,
    "color_jitter": 0.0,
}

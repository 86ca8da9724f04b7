"""Search space for BigGAN.

thermal-search search --data D --output O --architectures biggan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "generator_lr": FloatDistribution(1e-5, 5e-4, log=True),
    "discriminator_lr": FloatDistribution(4e-5, 1e-3, log=True),
    "beta1": FloatDistribution(0.0, 0.5),
    "n_discriminator": CategoricalDistribution([1, 2, 4]),
    "width": CategoricalDistribution([16, 32, 48, 64, 96]),
    "attention_resolution": CategoricalDistribution([0, 32, 64, 128]),
    "latent_chunk_size": CategoricalDistribution([8, 12, 17, 20]),
    "embedding_size": CategoricalDistribution([64, 128, 256]),
    "orthogonal_regularization": CategoricalDistribution([True, False]),
    "orthogonal_regularization_weight": FloatDistribution(1e-6, 1e-3, log=True),
    "projection": CategoricalDistribution(["spatial", "vector"]),
    "condition_channels": CategoricalDistribution([0, 16, 32, 64]),
    "rgb_encoder": CategoricalDistribution(["pooled", "strided"]),
    "diff_augment": CategoricalDistribution([False, True]),
    "l1": CategoricalDistribution([False, True]),
    "l1_weight": FloatDistribution(1.0, 200.0, log=True),
    # Left out of a search that measures with the same network.
    "perceptual_network": CategoricalDistribution(["none", "efficientnet-lite0"]),
    "perceptual_weight": FloatDistribution(1.0, 100.0, log=True),
    "decay_start": CategoricalDistribution([1.0, 0.5, 0.0]),
    "batch_size": CategoricalDistribution([8, 16, 32, 64, 128, 256]),
    "microbatch_size": CategoricalDistribution([8, 16, 32, 64]),
    "ema_half_life_images": CategoricalDistribution([0, 177_000, 355_000, 1_774_000]),
    "crop_scale": CategoricalDistribution([1.0, 286 / 256, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "rgb_encoder": ("condition_channels", (16, 32, 64)),
    "orthogonal_regularization_weight": ("orthogonal_regularization", (True,)),
    "l1_weight": ("l1", (True,)),
    "perceptual_weight": ("perceptual_network", ("efficientnet-lite0",)),
}

# Learning rates and loss weights: what `--scheduler pbt` changes while a trial trains.
IN_FLIGHT = (
    "generator_lr",
    "discriminator_lr",
    "orthogonal_regularization_weight",
    "l1_weight",
    "perceptual_weight",
)

# The settings of Brock et al., with a smaller width and batch.
PUBLISHED = {
    "generator_lr": 5e-5,
    "discriminator_lr": 0.0002,
    "beta1": 0.0,
    "n_discriminator": 2,
    "width": 64,
    "attention_resolution": 64,
    "latent_chunk_size": 20,
    "embedding_size": 128,
    "orthogonal_regularization": True,
    "orthogonal_regularization_weight": 0.0001,
    "projection": "spatial",
    "condition_channels": 32,
    "rgb_encoder": "pooled",
    "diff_augment": False,
    "l1": False,
    "perceptual_network": "none",
    "decay_start": 1.0,
    "batch_size": 256,
    "microbatch_size": 16,
    "ema_half_life_images": 1_774_000,
    "crop_scale": 1.0,
    "color_jitter": 0.0,
}

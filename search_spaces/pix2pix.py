"""Search space for pix2pix.

thermal-search search --data D --output O --architectures pix2pix
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "generator_lr": FloatDistribution(2e-5, 2e-3, log=True),
    "discriminator_lr": FloatDistribution(2e-5, 2e-3, log=True),
    "beta1": FloatDistribution(0.0, 0.9),
    # Down to 1: if pairs are not aligned to the pixel, a large L1 weight blurs the images.
    "l1_weight": FloatDistribution(1.0, 1000.0, log=True),
    "gan_mode": CategoricalDistribution(["vanilla", "lsgan"]),
    "generator_width": CategoricalDistribution([32, 48, 64, 96]),
    "discriminator_width": CategoricalDistribution([32, 48, 64, 96]),
    "patch_layers": IntDistribution(1, 5),
    "norm": CategoricalDistribution(["batch", "instance"]),
    # "running" can be better for large batches, on whose joint statistics the generator trains.
    "test_norm_stats": CategoricalDistribution(["image", "running"]),
    "dropout": FloatDistribution(0.0, 0.6),
    "test_dropout": CategoricalDistribution([True, False]),
    "decay_start": FloatDistribution(0.0, 1.0),
    "batch_size": CategoricalDistribution([1, 2, 4, 8, 16]),
    "ema_half_life_images": CategoricalDistribution([0, 1000, 10_000]),
    "crop_scale": CategoricalDistribution([1.0, 286 / 256, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "test_norm_stats": ("norm", ("batch",)),
}

# The settings of Isola et al.
PUBLISHED = {
    "generator_lr": 2e-4,
    "discriminator_lr": 2e-4,
    "beta1": 0.5,
    "l1_weight": 100.0,
    "gan_mode": "vanilla",
    "generator_width": 64,
    "discriminator_width": 64,
    "patch_layers": 3,
    "norm": "batch",
    "test_norm_stats": "image",
    "dropout": 0.5,
    "test_dropout": True,
    "decay_start": 0.5,
    "batch_size": 1,
    "ema_half_life_images": 0,
    "crop_scale": 286 / 256,
    "color_jitter": 0.0,
}

"""Search space for ThermalGAN.

thermal-search search --data D --output O --architectures thermalgan
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "generator_lr": FloatDistribution(2e-5, 2e-3, log=True),
    "discriminator_lr": FloatDistribution(2e-5, 2e-3, log=True),
    "base_method": CategoricalDistribution(["levels", "lowpass"]),
    "levels": IntDistribution(4, 32),
    "contrast_range": FloatDistribution(0.1, 0.6),
    "base_l1_weight": FloatDistribution(1.0, 100.0, log=True),
    "contrast_l1_weight": FloatDistribution(1.0, 500.0, log=True),
    "kl_weight": FloatDistribution(1e-4, 1.0, log=True),
    "latent_weight": FloatDistribution(0.0, 5.0),
    "latent_size": CategoricalDistribution([4, 8, 16, 32]),
    "predicted_base_probability": FloatDistribution(0.0, 1.0),
    "width": CategoricalDistribution([32, 48, 64]),
    "dropout": FloatDistribution(0.0, 0.6),
    # "running" can be better for large batches, on whose joint statistics stage two trains.
    "test_norm_stats": CategoricalDistribution(["image", "running"]),
    "patch_layers": IntDistribution(1, 5),
    "contrast_scales": IntDistribution(1, 3),
    "base_gan_mode": CategoricalDistribution(["lsgan", "vanilla", "hinge"]),
    "contrast_gan_mode": CategoricalDistribution(["vanilla", "lsgan", "hinge"]),
    "perceptual_network": CategoricalDistribution(["none", "efficientnet-lite0"]),
    "perceptual_weight": FloatDistribution(1.0, 100.0, log=True),
    "feature_matching": CategoricalDistribution([False, True]),
    "feature_matching_weight": FloatDistribution(1.0, 100.0, log=True),
    "spectral_norm": CategoricalDistribution([False, True]),
    "contrast_discriminator_norm": CategoricalDistribution(["batch", "instance"]),
    "r1": CategoricalDistribution([False, True]),
    "r1_gamma": FloatDistribution(0.1, 100.0, log=True),
    "diff_augment": CategoricalDistribution([False, True]),
    "decay_start": FloatDistribution(0.0, 1.0),
    "batch_size": CategoricalDistribution([2, 4, 8, 16]),
    "ema_half_life_images": CategoricalDistribution([0, 1000, 10_000]),
    "crop_scale": CategoricalDistribution([1.0, 542 / 512, 1.25]),
    "color_jitter": CategoricalDistribution([0.0, 0.2, 0.4]),
}

# Suggested only if the other parameter has one of these values.
CONDITIONS = {
    "levels": ("base_method", ("levels",)),
    "perceptual_weight": ("perceptual_network", ("efficientnet-lite0",)),
    "feature_matching_weight": ("feature_matching", (True,)),
    # Batch normalization would mix the gradients of different images.
    "r1": ("contrast_discriminator_norm", ("instance",)),
    "r1_gamma": ("r1", (True,)),
}

# Learning rates and loss weights: what `--scheduler pbt` changes while a trial trains.
IN_FLIGHT = (
    "generator_lr",
    "discriminator_lr",
    "base_l1_weight",
    "contrast_l1_weight",
    "kl_weight",
    "latent_weight",
    "perceptual_weight",
    "feature_matching_weight",
    "r1_gamma",
)

# The settings of Kniaz et al., and of BicycleGAN for stage one.
PUBLISHED = {
    "generator_lr": 0.0002,
    "discriminator_lr": 0.0002,
    "base_method": "levels",
    "levels": 8,
    "contrast_range": 0.25,
    "base_l1_weight": 10.0,
    "contrast_l1_weight": 100.0,
    "kl_weight": 0.01,
    "latent_weight": 0.5,
    "latent_size": 8,
    "predicted_base_probability": 0.0,
    "width": 64,
    "dropout": 0.5,
    "test_norm_stats": "image",
    "patch_layers": 3,
    "contrast_scales": 1,
    "base_gan_mode": "lsgan",
    "contrast_gan_mode": "vanilla",
    "perceptual_network": "none",
    "feature_matching": False,
    "spectral_norm": False,
    "contrast_discriminator_norm": "batch",
    "diff_augment": False,
    "decay_start": 0.5,
    "batch_size": 2,
    "ema_half_life_images": 0,
    "crop_scale": 542 / 512,
    "color_jitter": 0.0,
}

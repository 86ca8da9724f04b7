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
    "gan_mode": CategoricalDistribution(["vanilla", "lsgan", "hinge"]),
    "generator_network": CategoricalDistribution(["unet", "resnet"]),
    # 0: CycleGAN's choice for the size, 9 from 256 pixels and 6 below.
    "blocks": CategoricalDistribution([0, 3, 9]),
    "generator_width": CategoricalDistribution([32, 48, 64, 96]),
    "discriminator_width": CategoricalDistribution([32, 48, 64, 96]),
    "patch_layers": IntDistribution(1, 5),
    "scales": IntDistribution(1, 3),
    "perceptual_network": CategoricalDistribution(["none", "efficientnet-lite0"]),
    "perceptual_weight": FloatDistribution(1.0, 100.0, log=True),
    "feature_matching": CategoricalDistribution([False, True]),
    "feature_matching_weight": FloatDistribution(1.0, 100.0, log=True),
    "spectral_norm": CategoricalDistribution([False, True]),
    "discriminator_norm": CategoricalDistribution(["batch", "instance"]),
    "r1": CategoricalDistribution([False, True]),
    "r1_gamma": FloatDistribution(0.1, 100.0, log=True),
    "diff_augment": CategoricalDistribution([False, True]),
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
    "blocks": ("generator_network", ("resnet",)),
    "perceptual_weight": ("perceptual_network", ("efficientnet-lite0",)),
    "feature_matching_weight": ("feature_matching", (True,)),
    # Batch normalization would mix the gradients of different images.
    "r1": ("discriminator_norm", ("instance",)),
    "r1_gamma": ("r1", (True,)),
    "norm": ("generator_network", ("unet",)),
    "test_norm_stats": ("norm", ("batch",)),
    "dropout": ("generator_network", ("unet",)),
    "test_dropout": ("generator_network", ("unet",)),
}

# Learning rates and loss weights: what `--scheduler pbt` changes while a trial trains.
IN_FLIGHT = (
    "generator_lr",
    "discriminator_lr",
    "l1_weight",
    "perceptual_weight",
    "feature_matching_weight",
    "r1_gamma",
)

# The settings of Isola et al.
PUBLISHED = {
    "generator_lr": 2e-4,
    "discriminator_lr": 2e-4,
    "beta1": 0.5,
    "l1_weight": 100.0,
    "gan_mode": "vanilla",
    "generator_network": "unet",
    "generator_width": 64,
    "discriminator_width": 64,
    "patch_layers": 3,
    "scales": 1,
    "perceptual_network": "none",
    "feature_matching": False,
    "spectral_norm": False,
    "discriminator_norm": "batch",
    "diff_augment": False,
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

"""A tiny setting of each architecture with all its parts; a new architecture needs one here."""

from collections.abc import Iterator

import torch

from thermal_search.images import Batch

SIZE, BATCH = 32, 4

TINY: dict[str, dict[str, object]] = {
    "biggan": {
        "width": 8,
        "latent_chunk_size": 2,
        "embedding_size": 8,
        "condition_channels": 4,
        "microbatch_size": 2,
        "n_discriminator": 1,
    },
    "cgan": {"width": 8, "latent_size": 8, "embedding_size": 8, "manifold_interpolation": True},
    "cyclegan": {
        "generator_width": 4,
        "discriminator_width": 4,
        "blocks": 1,
        "pool_size": 3,
        "color_jitter": 0.2,
    },
    "dcgan": {"width": 4, "latent_size": 8},
    "gan": {"generator_width": 4, "discriminator_width": 4, "latent_size": 8},
    "improved_gan": {
        "width": 4,
        "latent_size": 8,
        "num_kernels": 6,
        "dim_per_kernel": 3,
        "reference_batch_size": 3,
        "historical_averaging": True,
    },
    "pix2pix": {"generator_width": 4, "discriminator_width": 4, "color_jitter": 0.2},
    "progressive_gan": {
        "channel_base": 512,
        "channel_max": 16,
        "latent_size": 8,
        "batch_size": BATCH // 4,  # BATCH at 32 pixels, twice as many below
    },
    "stylegan": {
        "start_resolution": 4,
        "channel_base": 64,
        "latent_size": 8,
        "w_size": 8,
        "mapping_layers": 2,
        "batch_size": BATCH // 4,
    },
    "thermalgan": {"width": 4, "latent_size": 4},
    "unit": {
        "generator_width": 4,
        "discriminator_width": 4,
        "blocks": 1,
        "scales": 2,
        "patch_layers": 2,
    },
    "wgan": {"width": 4, "latent_size": 8, "n_critic": 2},
    "wgan_gp": {"width": 4, "latent_size": 8, "n_critic": 2},
}
for setting in TINY.values():
    setting.setdefault("batch_size", BATCH)


def random_batches(seed: int = 0, size: int = SIZE, batch: int = BATCH) -> Iterator[Batch]:
    random = torch.Generator().manual_seed(seed)
    while True:
        yield Batch(
            rgb=torch.rand(batch, 3, size, size, generator=random) * 2 - 1,
            thermal=torch.rand(batch, 1, size, size, generator=random) * 2 - 1,
        )

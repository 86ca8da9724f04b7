"""The smallest setting of each architecture that still has all its parts; add yours here."""

from collections.abc import Iterator

import torch

from thermal_search.images import Batch

SIZE, BATCH = 32, 4

TINY: dict[str, dict[str, object]] = {
    "cyclegan": {
        "generator_width": 4,
        "discriminator_width": 4,
        "blocks": 1,
        "batch_size": BATCH,
        "pool_size": 3,
    },
    "pix2pix": {"generator_width": 4, "discriminator_width": 4, "batch_size": BATCH},
    "wgan": {"width": 4, "latent_size": 8, "critic_turns": 2, "batch_size": BATCH},
}


def random_batches(seed: int = 0, size: int = SIZE, batch: int = BATCH) -> Iterator[Batch]:
    random = torch.Generator().manual_seed(seed)
    while True:
        yield Batch(
            rgb=torch.rand(batch, 3, size, size, generator=random) * 2 - 1,
            thermal=torch.rand(batch, 1, size, size, generator=random) * 2 - 1,
        )

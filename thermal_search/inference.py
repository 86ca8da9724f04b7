"""Images from an exported generator, in the same way for all who generate some."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from thermal_search.architectures.translator import Translator
from thermal_search.images import to_network_range
from thermal_search.networks.unet import Dropout


def share_dropout(translator: Translator) -> None:
    """Gives all images of a batch one dropout mask: an image's result then follows from the image
    and the seed, not from its place among others."""
    for module in translator.modules():
        if isinstance(module, Dropout):
            module.one_mask = True


@torch.inference_mode()
def generate(
    translator: Translator,
    rgb: UInt8[Tensor, "batch 3 height width"],
    seed: int,
    *,
    share_latent: bool,
) -> Float[Tensor, "batch 1 height width"]:
    """Thermal images in -1 .. 1, on the CPU, by a translator in evaluation mode on any device.

    Leaves the random state of the process unchanged.

    Args:
        share_latent: whether all images have the first latent of the seed, instead of one each.
    """
    device = next(translator.generator.parameters()).device
    random = torch.Generator().manual_seed(seed)
    z = translator.draw_latent(1 if share_latent else len(rgb), random)
    if z is not None:
        z = z.expand(len(rgb), -1).to(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return translator.translate(to_network_range(rgb.to(device)), z).float().cpu()

"""junyanz/pytorch-CycleGAN-and-pix2pix: its two architectures, with its default options."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from peers.comparison import Comparison, Draw, Networks, Step, full, load_module, squared
from thermal_search.architectures.cyclegan import forward_batched
from thermal_search.architectures.translator import Turn
from thermal_search.images import Batch
from thermal_search.networks import ImagePool

Optimizers = Mapping[str, Optimizer]


def freeze(networks: list[nn.Module], frozen: bool) -> None:
    for network in networks:
        network.requires_grad_(not frozen)


# pix2pix: the discriminator is updated first, and is frozen while the generator is updated; the
# original GAN loss.


def peer_pix2pix_step(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    bce, l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()

    def step() -> None:
        batch = draw()
        fake = n["g"](batch.rgb)
        freeze([n["d"]], False)
        optimizers["d"].zero_grad()
        fake_score = n["d"](torch.cat((batch.rgb, fake), 1).detach())
        real_score = n["d"](torch.cat((batch.rgb, batch.thermal), 1))
        loss_d = (
            bce(fake_score, full(fake_score, 0.0)) + bce(real_score, full(real_score, 1.0))
        ) * 0.5
        loss_d.backward()
        optimizers["d"].step()
        freeze([n["d"]], True)
        optimizers["g"].zero_grad()
        fake_score = n["d"](torch.cat((batch.rgb, fake), 1))
        loss_g = bce(fake_score, full(fake_score, 1.0)) + 100 * l1(fake, batch.thermal)
        loss_g.backward()
        optimizers["g"].step()

    return step


def logistic(score: Tensor, target: float) -> Tensor:
    score = score.float()
    return nn.functional.softplus(-score if target else score).mean()


def pix2pix_turns(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    batch = next(batches)
    fake = n["g"](batch.rgb)
    loss_d = logistic(n["d"](torch.cat((batch.rgb, fake.detach()), 1)), 0)
    loss_d = loss_d + logistic(n["d"](torch.cat((batch.rgb, batch.thermal), 1)), 1)
    yield Turn("d", {"adversarial": loss_d / 2})
    adversarial = logistic(n["d"](torch.cat((batch.rgb, fake), 1)), 1)
    yield Turn("g", {"adversarial": adversarial, "l1": 100 * (fake - batch.thermal).abs().mean()})


# cyclegan: the generators are updated first; one optimizer for both discriminators; the
# least-squares loss.


def peer_cyclegan_step(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    mse, l1 = nn.MSELoss(), nn.L1Loss()
    pools = ImagePool(50), ImagePool(50)
    discriminators = [n["d_a"], n["d_b"]]

    def step() -> None:
        batch = draw()
        a, b = batch.rgb, batch.thermal
        fake_b, fake_a = n["g_a"](a), n["g_b"](b)
        cycled_a, cycled_b = n["g_b"](fake_b), n["g_a"](fake_a)
        freeze(discriminators, True)
        optimizers["g"].zero_grad()
        identity = l1(n["g_a"](b), b) * 5 + l1(n["g_b"](a), a) * 5
        score_b, score_a = n["d_a"](fake_b), n["d_b"](fake_a)
        adversarial = mse(score_b, full(score_b, 1.0)) + mse(score_a, full(score_a, 1.0))
        cycle = l1(cycled_a, a) * 10 + l1(cycled_b, b) * 10
        (adversarial + cycle + identity).backward()
        optimizers["g"].step()
        freeze(discriminators, False)
        optimizers["d"].zero_grad()
        for discriminator, real, fake, pool in (
            (n["d_a"], b, fake_b, pools[0]),
            (n["d_b"], a, fake_a, pools[1]),
        ):
            real_score, fake_score = discriminator(real), discriminator(pool.swap(fake).detach())
            loss_d = mse(real_score, full(real_score, 1.0)) + mse(fake_score, full(fake_score, 0.0))
            (loss_d * 0.5).backward()
        optimizers["d"].step()

    return step


def cyclegan_turns() -> Callable[[Networks, Iterator[Batch]], Iterator[Turn]]:
    pool_a, pool_b = ImagePool(50), ImagePool(50)

    def play(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
        batch = next(batches)
        a, b = batch.rgb, batch.thermal
        fake_b, same_b = forward_batched(n["g_a"], a, b)
        fake_a, same_a, cycled_a = forward_batched(n["g_b"], b, a, fake_b)
        adversarial = squared(n["d_a"](fake_b), 1) + squared(n["d_b"](fake_a), 1)
        cycle = (cycled_a - a).abs().mean() + (n["g_a"](fake_a) - b).abs().mean()
        identity = (same_b - b).abs().mean() + (same_a - a).abs().mean()
        yield Turn("g", {"adversarial": adversarial, "cycle": 10 * cycle, "identity": 5 * identity})
        real_score, fake_score = forward_batched(n["d_a"], b, pool_b.swap(fake_b))
        loss_d = squared(real_score, 1) + squared(fake_score, 0)
        real_score, fake_score = forward_batched(n["d_b"], a, pool_a.swap(fake_a))
        loss_d = loss_d + squared(real_score, 1) + squared(fake_score, 0)
        yield Turn("d", {"adversarial": loss_d / 2})

    return play


def comparisons(checkout: Path, size: int) -> dict[str, Comparison]:
    """The comparisons by architecture."""
    path = checkout / "models" / "networks.py"

    def pix2pix() -> Mapping[str, nn.Module]:
        module = load_module(path)
        norm = module.get_norm_layer("batch")
        downs = size.bit_length() - 1
        return {
            "g": module.UnetGenerator(3, 3, downs, 64, norm_layer=norm, use_dropout=True),
            "d": module.NLayerDiscriminator(6, 64, n_layers=3, norm_layer=norm),
        }

    def cyclegan() -> Mapping[str, nn.Module]:
        module = load_module(path)
        norm = module.get_norm_layer("instance")
        generators = {
            name: module.ResnetGenerator(3, 3, 64, norm_layer=norm, n_blocks=9)
            for name in ("g_a", "g_b")
        }
        discriminators = {
            name: module.NLayerDiscriminator(3, 64, n_layers=3, norm_layer=norm)
            for name in ("d_a", "d_b")
        }
        return generators | discriminators

    return {
        "pix2pix": Comparison(
            pix2pix, {"g": ("g",), "d": ("d",)}, peer_pix2pix_step, pix2pix_turns
        ),
        "cyclegan": Comparison(
            cyclegan,
            {"g": ("g_a", "g_b"), "d": ("d_a", "d_b")},
            peer_cyclegan_step,
            cyclegan_turns(),
        ),
    }

"""junyanz/pytorch-CycleGAN-and-pix2pix: its two systems, with its default options."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import OptimizerConfig

from peers.match import Draw, Match, Networks, Step, full, load_module, squared
from thermal_search.architectures.cyclegan import forward_batched
from thermal_search.architectures.translator import Turn
from thermal_search.images import Batch
from thermal_search.networks import ImagePool

Optimizers = Mapping[str, OptimizerConfig]


def freeze(networks: list[nn.Module], frozen: bool) -> None:
    for network in networks:
        network.requires_grad_(not frozen)


# pix2pix: the discriminator first, frozen while the generator moves; the plain GAN loss.


def peer_pix2pix(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    bce, l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()

    def step() -> None:
        batch = draw()
        fake = n["g"](batch.rgb)
        freeze([n["d"]], False)
        optimizers["d"].zero_grad()
        on_fake = n["d"](torch.cat((batch.rgb, fake), 1).detach())
        on_real = n["d"](torch.cat((batch.rgb, batch.thermal), 1))
        loss_d = (bce(on_fake, full(on_fake, 0.0)) + bce(on_real, full(on_real, 1.0))) * 0.5
        loss_d.backward()
        optimizers["d"].step()
        freeze([n["d"]], True)
        optimizers["g"].zero_grad()
        on_fake = n["d"](torch.cat((batch.rgb, fake), 1))
        loss_g = bce(on_fake, full(on_fake, 1.0)) + 100 * l1(fake, batch.thermal)
        loss_g.backward()
        optimizers["g"].step()

    return step


def logistic(score: Tensor, target: float) -> Tensor:
    score = score.float()
    return nn.functional.softplus(-score if target else score).mean()


def play_pix2pix(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    batch = next(batches)
    fake = n["g"](batch.rgb)
    judged = logistic(n["d"](torch.cat((batch.rgb, fake.detach()), 1)), 0)
    judged = judged + logistic(n["d"](torch.cat((batch.rgb, batch.thermal), 1)), 1)
    yield Turn("d", {"evaluator": judged / 2})
    fooled = logistic(n["d"](torch.cat((batch.rgb, fake), 1)), 1)
    yield Turn("g", {"fool": fooled, "l1": 100 * (fake - batch.thermal).abs().mean()})


# cyclegan: the generators first, one optimizer for both discriminators; the least-squares loss.


def peer_cyclegan(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    mse, l1 = nn.MSELoss(), nn.L1Loss()
    pools = ImagePool(50), ImagePool(50)
    evaluators = [n["d_a"], n["d_b"]]

    def step() -> None:
        batch = draw()
        a, b = batch.rgb, batch.thermal
        fake_b, fake_a = n["g_a"](a), n["g_b"](b)
        again_a, again_b = n["g_b"](fake_b), n["g_a"](fake_a)
        freeze(evaluators, True)
        optimizers["g"].zero_grad()
        identity = l1(n["g_a"](b), b) * 5 + l1(n["g_b"](a), a) * 5
        score_b, score_a = n["d_a"](fake_b), n["d_b"](fake_a)
        fooled = mse(score_b, full(score_b, 1.0)) + mse(score_a, full(score_a, 1.0))
        cycle = l1(again_a, a) * 10 + l1(again_b, b) * 10
        (fooled + cycle + identity).backward()
        optimizers["g"].step()
        freeze(evaluators, False)
        optimizers["d"].zero_grad()
        for evaluator, real, fake, pool in (
            (n["d_a"], b, fake_b, pools[0]),
            (n["d_b"], a, fake_a, pools[1]),
        ):
            on_real, on_fake = evaluator(real), evaluator(pool.swap(fake).detach())
            judged = mse(on_real, full(on_real, 1.0)) + mse(on_fake, full(on_fake, 0.0))
            (judged * 0.5).backward()
        optimizers["d"].step()

    return step


def play_cyclegan() -> Callable[[Networks, Iterator[Batch]], Iterator[Turn]]:
    pool_a, pool_b = ImagePool(50), ImagePool(50)

    def play(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
        batch = next(batches)
        a, b = batch.rgb, batch.thermal
        fake_b, same_b = forward_batched(n["g_a"], a, b)
        fake_a, same_a, again_a = forward_batched(n["g_b"], b, a, fake_b)
        fooled = squared(n["d_a"](fake_b), 1) + squared(n["d_b"](fake_a), 1)
        cycle = (again_a - a).abs().mean() + (n["g_a"](fake_a) - b).abs().mean()
        identity = (same_b - b).abs().mean() + (same_a - a).abs().mean()
        yield Turn("g", {"fool": fooled, "cycle": 10 * cycle, "identity": 5 * identity})
        on_b, on_fake_b = forward_batched(n["d_a"], b, pool_b.swap(fake_b))
        on_a, on_fake_a = forward_batched(n["d_b"], a, pool_a.swap(fake_a))
        judged = squared(on_b, 1) + squared(on_fake_b, 0) + squared(on_a, 1) + squared(on_fake_a, 0)
        yield Turn("d", {"evaluator": judged / 2})

    return play


def matches(checkout: Path, size: int) -> dict[str, Match]:
    """By our systems' names."""
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
        evaluators = {
            name: module.NLayerDiscriminator(3, 64, n_layers=3, norm_layer=norm)
            for name in ("d_a", "d_b")
        }
        return generators | evaluators

    return {
        "pix2pix": Match(pix2pix, {"g": ("g",), "d": ("d",)}, peer_pix2pix, play_pix2pix),
        "cyclegan": Match(
            cyclegan, {"g": ("g_a", "g_b"), "d": ("d_a", "d_b")}, peer_cyclegan, play_cyclegan()
        ),
    }

"""eriklindernoren/PyTorch-GAN: every system it shares with us."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import OptimizerConfig

from peers.match import (
    ADAM,
    Draw,
    Match,
    Networks,
    Step,
    full,
    load_definitions,
    load_module,
    squared,
)
from thermal_search.architectures.cyclegan import forward_batched
from thermal_search.architectures.translator import OptimizerConfig as ResizeConfig
from thermal_search.architectures.translator import Turn
from thermal_search.images import Batch
from thermal_search.networks import ImagePool

LATENT, CLASSES, CRITIC_TURNS, CLIP, PENALTY = 100, 10, 5, 0.01, 10.0
Optimizers = Mapping[str, OptimizerConfig]


def latent(batch: Tensor) -> Tensor:
    return torch.randn(len(batch), LATENT, device=batch.device)


# gan, dcgan: the same game over dense and over convolutional networks.


def bce(probability: Tensor, target: float) -> Tensor:
    with torch.autocast(probability.device.type, enabled=False):
        probability = probability.float()
        return F.binary_cross_entropy(probability, full(probability, target))


def peer_classic(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    def step() -> None:
        real = draw().thermal
        optimizers["g"].zero_grad()
        fake = n["g"](latent(real))
        loss_g = bce(n["d"](fake), 1.0)
        loss_g.backward()
        optimizers["g"].step()
        optimizers["d"].zero_grad()
        loss_d = (bce(n["d"](real), 1.0) + bce(n["d"](fake.detach()), 0.0)) / 2
        loss_d.backward()
        optimizers["d"].step()
        loss_d.item(), loss_g.item()

    return step


def play_classic(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    real = next(batches).thermal
    fake = n["g"](latent(real))
    yield Turn("g", {"fool": bce(n["d"](fake), 1.0)})
    yield Turn("d", {"evaluator": (bce(n["d"](real), 1.0) + bce(n["d"](fake.detach()), 0.0)) / 2})


# cgan: on labels of its own, as the script draws them.


def labels(batch: Tensor) -> Tensor:
    return torch.randint(CLASSES, (len(batch),), device=batch.device)


def peer_cgan(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    mse = nn.MSELoss()

    def step() -> None:
        real = draw().thermal
        optimizers["g"].zero_grad()
        wanted = labels(real)
        fake = n["g"](latent(real), wanted)
        score = n["d"](fake, wanted)
        loss_g = mse(score, full(score, 1.0))
        loss_g.backward()
        optimizers["g"].step()
        optimizers["d"].zero_grad()
        on_real = n["d"](real, labels(real))
        on_fake = n["d"](fake.detach(), wanted)
        loss_d = (mse(on_real, full(on_real, 1.0)) + mse(on_fake, full(on_fake, 0.0))) / 2
        loss_d.backward()
        optimizers["d"].step()
        loss_d.item(), loss_g.item()

    return step


def play_cgan(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    real = next(batches).thermal
    wanted = labels(real)
    fake = n["g"](latent(real), wanted)
    yield Turn("g", {"fool": squared(n["d"](fake, wanted), 1)})
    judged = squared(n["d"](real, labels(real)), 1) + squared(n["d"](fake.detach(), wanted), 0)
    yield Turn("d", {"evaluator": judged / 2})


# wgan, wgan_gp: one step is five critic moves and one of the generator.


def peer_wgan(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    def step() -> None:
        for turn in range(CRITIC_TURNS):
            real = draw().thermal
            optimizers["d"].zero_grad()
            z = latent(real)
            fake = n["g"](z).detach()
            loss_d = -n["d"](real).mean() + n["d"](fake).mean()
            loss_d.backward()
            optimizers["d"].step()
            for p in n["d"].parameters():
                p.data.clamp_(-CLIP, CLIP)
            if turn == 0:
                optimizers["g"].zero_grad()
                loss_g = -n["d"](n["g"](z)).mean()
                loss_g.backward()
                optimizers["g"].step()
                loss_d.item(), loss_g.item()

    return step


def play_wgan(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    for _ in range(CRITIC_TURNS):
        real = next(batches).thermal
        with torch.no_grad():
            fake = n["g"](latent(real))
        # Nothing in this critic couples images.
        on_real, on_fake = forward_batched(n["d"], real, fake)
        yield Turn("d", {"distance": on_fake.float().mean() - on_real.float().mean()})
        with torch.no_grad():
            for parameter in n["d"].parameters():
                parameter.clamp_(-CLIP, CLIP)
    yield Turn("g", {"fool": -n["d"](n["g"](latent(real))).float().mean()})


def peer_wgan_gp(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    def step() -> None:
        for turn in range(CRITIC_TURNS):
            real = draw().thermal
            optimizers["d"].zero_grad()
            z = latent(real)
            fake = n["g"](z)
            on_real, on_fake = n["d"](real), n["d"](fake)
            loss_d = -on_real.mean() + on_fake.mean() + PENALTY * penalty(n["d"], real, fake.data)
            loss_d.backward()
            optimizers["d"].step()
            optimizers["g"].zero_grad()
            if turn == 0:
                loss_g = -n["d"](n["g"](z)).mean()
                loss_g.backward()
                optimizers["g"].step()
                loss_d.item(), loss_g.item()

    return step


def play_wgan_gp(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    for _ in range(CRITIC_TURNS):
        real = next(batches).thermal
        with torch.no_grad():
            fake = n["g"](latent(real))
        on_real, on_fake = forward_batched(n["d"], real, fake)
        distance = on_fake.float().mean() - on_real.float().mean()
        with torch.autocast(real.device.type, enabled=False):
            slope = PENALTY * penalty(n["d"], real, fake.float())
        yield Turn("d", {"distance": distance, "penalty": slope})
    yield Turn("g", {"fool": -n["d"](n["g"](latent(real))).float().mean()})


def penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    score = critic(between)
    (slope,) = torch.autograd.grad(score, between, torch.ones_like(score), create_graph=True)
    return ((slope.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


# pix2pix


def peer_pix2pix(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    mse, l1 = nn.MSELoss(), nn.L1Loss()

    def step() -> None:
        batch = draw()
        rgb, thermal = batch.rgb, batch.thermal
        optimizers["g"].zero_grad()
        fake = n["g"](rgb)
        score = n["d"](fake, rgb)
        loss_g = mse(score, full(score, 1.0)) + 100 * l1(fake, thermal)
        loss_g.backward()
        optimizers["g"].step()
        optimizers["d"].zero_grad()
        on_real = n["d"](thermal, rgb)
        on_fake = n["d"](fake.detach(), rgb)
        loss_d = 0.5 * (mse(on_real, full(on_real, 1.0)) + mse(on_fake, full(on_fake, 0.0)))
        loss_d.backward()
        optimizers["d"].step()
        loss_d.item(), loss_g.item()

    return step


def play_pix2pix(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    batch = next(batches)
    fake = n["g"](batch.rgb)
    fooled = squared(n["d"](fake, batch.rgb), 1)
    yield Turn("g", {"fool": fooled, "l1": 100 * (fake - batch.thermal).abs().mean()})
    judged = squared(n["d"](batch.thermal, batch.rgb), 1)
    judged = judged + squared(n["d"](fake.detach(), batch.rgb), 0)
    yield Turn("d", {"evaluator": judged / 2})


# cyclegan


def peer_cyclegan(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    mse, l1 = nn.MSELoss(), nn.L1Loss()
    pools = {"a": ImagePool(50), "b": ImagePool(50)}

    def step() -> None:
        batch = draw()
        a, b = batch.rgb, batch.thermal
        optimizers["g"].zero_grad()
        identity = (l1(n["g_ba"](a), a) + l1(n["g_ab"](b), b)) / 2
        fake_b, fake_a = n["g_ab"](a), n["g_ba"](b)
        score_b, score_a = n["d_b"](fake_b), n["d_a"](fake_a)
        fooled = (mse(score_b, full(score_b, 1.0)) + mse(score_a, full(score_a, 1.0))) / 2
        cycle = (l1(n["g_ba"](fake_b), a) + l1(n["g_ab"](fake_a), b)) / 2
        loss = fooled + 10 * cycle + 5 * identity
        loss.backward()
        optimizers["g"].step()
        for side, real, fake in (("a", a, fake_a), ("b", b, fake_b)):
            evaluator, optimizer = n[f"d_{side}"], optimizers[f"d_{side}"]
            optimizer.zero_grad()
            on_real, on_fake = evaluator(real), evaluator(pools[side].swap(fake.detach()))
            judged = mse(on_real, full(on_real, 1.0)) + mse(on_fake, full(on_fake, 0.0))
            (judged / 2).backward()
            optimizer.step()
        loss.item()

    return step


def play_cyclegan() -> Callable[[Networks, Iterator[Batch]], Iterator[Turn]]:
    pool_a, pool_b = ImagePool(50), ImagePool(50)

    def play(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
        batch = next(batches)
        a, b = batch.rgb, batch.thermal
        fake_b, same_b = forward_batched(n["g_ab"], a, b)
        fake_a, same_a, again_a = forward_batched(n["g_ba"], b, a, fake_b)
        fooled = squared(n["d_b"](fake_b), 1) + squared(n["d_a"](fake_a), 1)
        cycle = (again_a - a).abs().mean() + (n["g_ab"](fake_a) - b).abs().mean()
        identity = (same_a - a).abs().mean() + (same_b - b).abs().mean()
        yield Turn("g", {"fool": fooled / 2, "cycle": 5 * cycle, "identity": 2.5 * identity})
        on_a, on_fake_a = forward_batched(n["d_a"], a, pool_a.swap(fake_a))
        judged = squared(on_a, 1) + squared(on_fake_a, 0)
        yield Turn("d_a", {"evaluator": judged / 2})
        on_b, on_fake_b = forward_batched(n["d_b"], b, pool_b.swap(fake_b))
        judged = squared(on_b, 1) + squared(on_fake_b, 0)
        yield Turn("d_b", {"evaluator": judged / 2})

    return play


# unit


def terms_of_unit(n: Networks, a: Tensor, b: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    mu_a, z_a = n["e_a"](a)
    mu_b, z_b = n["e_b"](b)
    again_a, again_b = n["g_a"](z_a), n["g_b"](z_b)
    fake_a, fake_b = n["g_a"](z_b), n["g_b"](z_a)
    mu_b2, z_b2 = n["e_a"](fake_a)
    mu_a2, z_a2 = n["e_b"](fake_b)
    cycle_a, cycle_b = n["g_a"](z_a2), n["g_b"](z_b2)
    l1 = F.l1_loss
    terms = {
        "fool": 10 * (squared(n["d_a"](fake_a), 1) + squared(n["d_b"](fake_b), 1)),
        "kl": 0.1 * sum(m.float().square().mean() for m in (mu_a, mu_b, mu_a2, mu_b2)),
        "reconstruction": 100 * (l1(again_a, a) + l1(again_b, b)),
        "cycle": 100 * (l1(cycle_a, a) + l1(cycle_b, b)),
    }
    return terms, fake_a, fake_b


def peer_unit(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    mse = nn.MSELoss()

    def step() -> None:
        batch = draw()
        a, b = batch.rgb, batch.thermal
        optimizers["g"].zero_grad()
        terms, fake_a, fake_b = terms_of_unit(n, a, b)
        loss = sum(terms.values())
        loss.backward()
        optimizers["g"].step()
        for side, real, fake in (("d_a", a, fake_a), ("d_b", b, fake_b)):
            optimizers[side].zero_grad()
            on_real, on_fake = n[side](real), n[side](fake.detach())
            judged = mse(on_real, full(on_real, 1.0)) + mse(on_fake, full(on_fake, 0.0))
            judged.backward()
            optimizers[side].step()
        loss.item()

    return step


def play_unit(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    batch = next(batches)
    terms, fake_a, fake_b = terms_of_unit(n, batch.rgb, batch.thermal)
    yield Turn("g", terms)
    for side, real, fake in (("d_a", batch.rgb, fake_a), ("d_b", batch.thermal, fake_b)):
        judged = squared(n[side](real), 1) + squared(n[side](fake.detach()), 0)
        yield Turn(side, {"evaluator": judged})


def matches(checkout: Path, size: int) -> dict[str, Match]:
    """By our systems' names."""
    folder = checkout / "implementations"

    def scripted(name: str) -> Callable[[], Mapping[str, nn.Module]]:
        def build() -> Mapping[str, nn.Module]:
            script = load_definitions(
                folder / name / f"{name}.py",
                img_size=size,
                channels=1,
                latent_dim=LATENT,
                n_classes=CLASSES,
            )
            return {"g": script.Generator(), "d": script.Discriminator()}

        return build

    def pix2pix() -> Mapping[str, nn.Module]:
        module = load_module(folder / "pix2pix" / "models.py")
        return {"g": module.GeneratorUNet(), "d": module.Discriminator()}

    def cyclegan() -> Mapping[str, nn.Module]:
        module = load_module(folder / "cyclegan" / "models.py")
        shape = (3, size, size)
        generators = {name: module.GeneratorResNet(shape, 9) for name in ("g_ab", "g_ba")}
        return generators | {name: module.Discriminator(shape) for name in ("d_a", "d_b")}

    def unit() -> Mapping[str, nn.Module]:
        module = load_module(folder / "unit" / "models.py")
        shared_e, shared_g = (module.ResidualBlock(features=256) for _ in range(2))
        encoders = {name: module.Encoder(shared_block=shared_e) for name in ("e_a", "e_b")}
        generators = {name: module.Generator(shared_block=shared_g) for name in ("g_a", "g_b")}
        evaluators = {name: module.Discriminator((3, size, size)) for name in ("d_a", "d_b")}
        return encoders | generators | evaluators

    two = {"g": ("g",), "d": ("d",)}
    single = (3, 1)
    return {
        "gan": Match(scripted("gan"), two, peer_classic, play_classic, channels=single),
        "cgan": Match(scripted("cgan"), two, peer_cgan, play_cgan, channels=single),
        "dcgan": Match(
            scripted("dcgan"), two, peer_classic, play_classic, channels=single, views=True
        ),
        "wgan": Match(
            scripted("wgan"),
            two,
            peer_wgan,
            play_wgan,
            ResizeConfig(algorithm="rmsprop", lr=5e-5),
            channels=single,
        ),
        "wgan_gp": Match(scripted("wgan_gp"), two, peer_wgan_gp, play_wgan_gp, channels=single),
        "pix2pix": Match(pix2pix, two, peer_pix2pix, play_pix2pix),
        "cyclegan": Match(
            cyclegan,
            {"g": ("g_ab", "g_ba"), "d_a": ("d_a",), "d_b": ("d_b",)},
            peer_cyclegan,
            play_cyclegan(),
        ),
        "unit": Match(
            unit,
            {"g": ("e_a", "e_b", "g_a", "g_b"), "d_a": ("d_a",), "d_b": ("d_b",)},
            peer_unit,
            play_unit,
            ADAM,
        ),
    }

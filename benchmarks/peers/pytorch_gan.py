"""eriklindernoren/PyTorch-GAN: every architecture that this project has too."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from peers.comparison import (
    ADAM,
    Comparison,
    Draw,
    Networks,
    Step,
    full,
    load_definitions,
    load_module,
    squared,
)
from thermal_search.architectures.cyclegan import forward_batched
from thermal_search.architectures.translator import OptimizerConfig, Turn
from thermal_search.images import Batch
from thermal_search.networks import ImagePool

LATENT, CLASSES, N_CRITIC, CLIP, PENALTY = 100, 10, 5, 0.01, 10.0
Optimizers = Mapping[str, Optimizer]


def latent(batch: Tensor) -> Tensor:
    return torch.randn(len(batch), LATENT, device=batch.device)


# gan, dcgan: the same losses, over fully connected and over convolutional networks.


def bce(probability: Tensor, target: float) -> Tensor:
    with torch.autocast(probability.device.type, enabled=False):
        probability = probability.float()
        return F.binary_cross_entropy(probability, full(probability, target))


def peer_classic_step(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
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


def classic_turns(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    real = next(batches).thermal
    fake = n["g"](latent(real))
    yield Turn("g", {"adversarial": bce(n["d"](fake), 1.0)})
    yield Turn("d", {"adversarial": (bce(n["d"](real), 1.0) + bce(n["d"](fake.detach()), 0.0)) / 2})


# cgan: conditioned on class labels, which the script draws at random.


def labels(batch: Tensor) -> Tensor:
    return torch.randint(CLASSES, (len(batch),), device=batch.device)


def peer_cgan_step(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    mse = nn.MSELoss()

    def step() -> None:
        real = draw().thermal
        optimizers["g"].zero_grad()
        fake_labels = labels(real)
        fake = n["g"](latent(real), fake_labels)
        score = n["d"](fake, fake_labels)
        loss_g = mse(score, full(score, 1.0))
        loss_g.backward()
        optimizers["g"].step()
        optimizers["d"].zero_grad()
        real_score = n["d"](real, labels(real))
        fake_score = n["d"](fake.detach(), fake_labels)
        loss_d = (
            mse(real_score, full(real_score, 1.0)) + mse(fake_score, full(fake_score, 0.0))
        ) / 2
        loss_d.backward()
        optimizers["d"].step()
        loss_d.item(), loss_g.item()

    return step


def cgan_turns(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    real = next(batches).thermal
    fake_labels = labels(real)
    fake = n["g"](latent(real), fake_labels)
    yield Turn("g", {"adversarial": squared(n["d"](fake, fake_labels), 1)})
    loss_d = squared(n["d"](real, labels(real)), 1)
    loss_d = loss_d + squared(n["d"](fake.detach(), fake_labels), 0)
    yield Turn("d", {"adversarial": loss_d / 2})


# wgan, wgan_gp: one step updates the critic five times and the generator once.


def peer_wgan_step(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    def step() -> None:
        for turn in range(N_CRITIC):
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


def wgan_turns(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    for _ in range(N_CRITIC):
        real = next(batches).thermal
        with torch.no_grad():
            fake = n["g"](latent(real))
        # This critic has no batch normalization: both pass through it at once.
        real_score, fake_score = forward_batched(n["d"], real, fake)
        yield Turn("d", {"distance": fake_score.float().mean() - real_score.float().mean()})
        with torch.no_grad():
            for parameter in n["d"].parameters():
                parameter.clamp_(-CLIP, CLIP)
    yield Turn("g", {"adversarial": -n["d"](n["g"](latent(real))).float().mean()})


def peer_wgan_gp_step(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    def step() -> None:
        for turn in range(N_CRITIC):
            real = draw().thermal
            optimizers["d"].zero_grad()
            z = latent(real)
            fake = n["g"](z)
            real_score, fake_score = n["d"](real), n["d"](fake)
            loss_d = (
                -real_score.mean() + fake_score.mean() + PENALTY * penalty(n["d"], real, fake.data)
            )
            loss_d.backward()
            optimizers["d"].step()
            optimizers["g"].zero_grad()
            if turn == 0:
                loss_g = -n["d"](n["g"](z)).mean()
                loss_g.backward()
                optimizers["g"].step()
                loss_d.item(), loss_g.item()

    return step


def wgan_gp_turns(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    for _ in range(N_CRITIC):
        real = next(batches).thermal
        with torch.no_grad():
            fake = n["g"](latent(real))
        real_score, fake_score = forward_batched(n["d"], real, fake)
        distance = fake_score.float().mean() - real_score.float().mean()
        with torch.autocast(real.device.type, enabled=False):
            weighted = PENALTY * penalty(n["d"], real, fake.float())
        yield Turn("d", {"distance": distance, "penalty": weighted})
    yield Turn("g", {"adversarial": -n["d"](n["g"](latent(real))).float().mean()})


def penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    epsilon = torch.rand(len(real), 1, 1, 1, device=real.device)
    interpolated = (epsilon * real + (1 - epsilon) * fake).requires_grad_(True)
    score = critic(interpolated)
    (gradient,) = torch.autograd.grad(
        score, interpolated, torch.ones_like(score), create_graph=True
    )
    return ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


# pix2pix


def peer_pix2pix_step(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
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
        real_score = n["d"](thermal, rgb)
        fake_score = n["d"](fake.detach(), rgb)
        loss_d = 0.5 * (
            mse(real_score, full(real_score, 1.0)) + mse(fake_score, full(fake_score, 0.0))
        )
        loss_d.backward()
        optimizers["d"].step()
        loss_d.item(), loss_g.item()

    return step


def pix2pix_turns(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    batch = next(batches)
    fake = n["g"](batch.rgb)
    adversarial = squared(n["d"](fake, batch.rgb), 1)
    yield Turn("g", {"adversarial": adversarial, "l1": 100 * (fake - batch.thermal).abs().mean()})
    loss_d = squared(n["d"](batch.thermal, batch.rgb), 1)
    loss_d = loss_d + squared(n["d"](fake.detach(), batch.rgb), 0)
    yield Turn("d", {"adversarial": loss_d / 2})


# cyclegan


def peer_cyclegan_step(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    mse, l1 = nn.MSELoss(), nn.L1Loss()
    pools = {"a": ImagePool(50), "b": ImagePool(50)}

    def step() -> None:
        batch = draw()
        a, b = batch.rgb, batch.thermal
        optimizers["g"].zero_grad()
        identity = (l1(n["g_ba"](a), a) + l1(n["g_ab"](b), b)) / 2
        fake_b, fake_a = n["g_ab"](a), n["g_ba"](b)
        score_b, score_a = n["d_b"](fake_b), n["d_a"](fake_a)
        adversarial = (mse(score_b, full(score_b, 1.0)) + mse(score_a, full(score_a, 1.0))) / 2
        cycle = (l1(n["g_ba"](fake_b), a) + l1(n["g_ab"](fake_a), b)) / 2
        loss = adversarial + 10 * cycle + 5 * identity
        loss.backward()
        optimizers["g"].step()
        for side, real, fake in (("a", a, fake_a), ("b", b, fake_b)):
            discriminator, optimizer = n[f"d_{side}"], optimizers[f"d_{side}"]
            optimizer.zero_grad()
            real_score = discriminator(real)
            fake_score = discriminator(pools[side].swap(fake.detach()))
            loss_d = mse(real_score, full(real_score, 1.0)) + mse(fake_score, full(fake_score, 0.0))
            (loss_d / 2).backward()
            optimizer.step()
        loss.item()

    return step


def cyclegan_turns() -> Callable[[Networks, Iterator[Batch]], Iterator[Turn]]:
    pool_a, pool_b = ImagePool(50), ImagePool(50)

    def play(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
        batch = next(batches)
        a, b = batch.rgb, batch.thermal
        fake_b, same_b = forward_batched(n["g_ab"], a, b)
        fake_a, same_a, cycled_a = forward_batched(n["g_ba"], b, a, fake_b)
        adversarial = squared(n["d_b"](fake_b), 1) + squared(n["d_a"](fake_a), 1)
        cycle = (cycled_a - a).abs().mean() + (n["g_ab"](fake_a) - b).abs().mean()
        identity = (same_a - a).abs().mean() + (same_b - b).abs().mean()
        yield Turn(
            "g", {"adversarial": adversarial / 2, "cycle": 5 * cycle, "identity": 2.5 * identity}
        )
        real_score, fake_score = forward_batched(n["d_a"], a, pool_a.swap(fake_a))
        loss_d = squared(real_score, 1) + squared(fake_score, 0)
        yield Turn("d_a", {"adversarial": loss_d / 2})
        real_score, fake_score = forward_batched(n["d_b"], b, pool_b.swap(fake_b))
        loss_d = squared(real_score, 1) + squared(fake_score, 0)
        yield Turn("d_b", {"adversarial": loss_d / 2})

    return play


# unit


def unit_terms(n: Networks, a: Tensor, b: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    mu_a, z_a = n["e_a"](a)
    mu_b, z_b = n["e_b"](b)
    reconstructed_a, reconstructed_b = n["g_a"](z_a), n["g_b"](z_b)
    fake_a, fake_b = n["g_a"](z_b), n["g_b"](z_a)
    mu_b2, z_b2 = n["e_a"](fake_a)
    mu_a2, z_a2 = n["e_b"](fake_b)
    cycle_a, cycle_b = n["g_a"](z_a2), n["g_b"](z_b2)
    l1 = F.l1_loss
    terms = {
        "adversarial": 10 * (squared(n["d_a"](fake_a), 1) + squared(n["d_b"](fake_b), 1)),
        "kl": 0.1 * sum(m.float().square().mean() for m in (mu_a, mu_b, mu_a2, mu_b2)),
        "reconstruction": 100 * (l1(reconstructed_a, a) + l1(reconstructed_b, b)),
        "cycle": 100 * (l1(cycle_a, a) + l1(cycle_b, b)),
    }
    return terms, fake_a, fake_b


def peer_unit_step(n: Networks, optimizers: Optimizers, draw: Draw) -> Step:
    mse = nn.MSELoss()

    def step() -> None:
        batch = draw()
        a, b = batch.rgb, batch.thermal
        optimizers["g"].zero_grad()
        terms, fake_a, fake_b = unit_terms(n, a, b)
        loss = sum(terms.values())
        loss.backward()
        optimizers["g"].step()
        for side, real, fake in (("d_a", a, fake_a), ("d_b", b, fake_b)):
            optimizers[side].zero_grad()
            real_score, fake_score = n[side](real), n[side](fake.detach())
            loss_d = mse(real_score, full(real_score, 1.0)) + mse(fake_score, full(fake_score, 0.0))
            loss_d.backward()
            optimizers[side].step()
        loss.item()

    return step


def unit_turns(n: Networks, batches: Iterator[Batch]) -> Iterator[Turn]:
    batch = next(batches)
    terms, fake_a, fake_b = unit_terms(n, batch.rgb, batch.thermal)
    yield Turn("g", terms)
    for side, real, fake in (("d_a", batch.rgb, fake_a), ("d_b", batch.thermal, fake_b)):
        loss_d = squared(n[side](real), 1) + squared(n[side](fake.detach()), 0)
        yield Turn(side, {"adversarial": loss_d})


def comparisons(checkout: Path, size: int) -> dict[str, Comparison]:
    """The comparisons by architecture."""
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
        discriminators = {name: module.Discriminator((3, size, size)) for name in ("d_a", "d_b")}
        return encoders | generators | discriminators

    two = {"g": ("g",), "d": ("d",)}
    single = (3, 1)
    return {
        "gan": Comparison(scripted("gan"), two, peer_classic_step, classic_turns, channels=single),
        "cgan": Comparison(scripted("cgan"), two, peer_cgan_step, cgan_turns, channels=single),
        "dcgan": Comparison(
            scripted("dcgan"),
            two,
            peer_classic_step,
            classic_turns,
            channels=single,
            uses_view=True,
        ),
        "wgan": Comparison(
            scripted("wgan"),
            two,
            peer_wgan_step,
            wgan_turns,
            OptimizerConfig(algorithm="rmsprop", lr=5e-5),
            channels=single,
        ),
        "wgan_gp": Comparison(
            scripted("wgan_gp"), two, peer_wgan_gp_step, wgan_gp_turns, channels=single
        ),
        "pix2pix": Comparison(pix2pix, two, peer_pix2pix_step, pix2pix_turns),
        "cyclegan": Comparison(
            cyclegan,
            {"g": ("g_ab", "g_ba"), "d_a": ("d_a",), "d_b": ("d_b",)},
            peer_cyclegan_step,
            cyclegan_turns(),
        ),
        "unit": Comparison(
            unit,
            {"g": ("e_a", "e_b", "g_a", "g_b"), "d_a": ("d_a",), "d_b": ("d_b",)},
            peer_unit_step,
            unit_turns,
            ADAM,
        ),
    }

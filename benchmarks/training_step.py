"""Our training step against eriklindernoren/PyTorch-GAN's, for the same network, interleaved.

    git clone https://github.com/eriklindernoren/PyTorch-GAN
    python benchmarks/training_step.py PyTorch-GAN --size 256 --steps 8

The peer's own networks (implementations/pix2pix/models.py, implementations/cyclegan/models.py) play
the peer's own step, as its scripts write it: plain Adam, float32, a new target tensor a step. Ours
drives the same peer networks through our trainer, wrapped as a Translator whose turns are the
peer's losses: the networks are equal, only the step differs. Rounds alternate; the median of the
rounds' ratios is what counts.
"""

import argparse
import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from thermal_search.architectures.translator import Config, Optimizer, Player, Translator, Turn
from thermal_search.images import Batch
from thermal_search.networks import ImagePool
from thermal_search.training.group import Group
from thermal_search.training.step import autocast_for, fastest_precision, take_seats, train_step

ADAM = {"lr": 2e-4, "betas": (0.5, 0.999)}


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = fastest_precision(device) if args.precision == "auto" else args.precision
    print(f"torch {torch.__version__}, {device}, {args.threads} threads, ours in {precision}")
    for name, (peers, ours) in SYSTEMS.items():
        if args.system in (name, "both"):
            module = load(args.peer / "implementations" / name / "models.py")
            torch.manual_seed(0)
            compare(
                name,
                peers(module, args.size, device),
                ours(module, args.size, device, precision),
                args,
                device,
            )


def compare(name, peer_step, our_step, args, device) -> None:
    def pictures():
        return (
            torch.rand(args.batch, 3, args.size, args.size, device=device) * 2 - 1,
            torch.rand(args.batch, 3, args.size, args.size, device=device) * 2 - 1,
        )

    def timed(step) -> float:
        rgb, thermal = pictures()
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        step(rgb, thermal)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    for step in (peer_step, our_step):
        timed(step)
    rounds = [(timed(peer_step), timed(our_step)) for _ in range(args.steps)]
    ratios = [peer / ours for peer, ours in rounds]
    peer, ours = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(
        f"{name} {args.size} px, batch {args.batch}: peer {peer:.3f} s, ours {ours:.3f} s, "
        f"{statistics.median(ratios):.2f}x as fast ({min(ratios):.2f} to {max(ratios):.2f})"
    )


# pix2pix


def peer_pix2pix(module: ModuleType, size: int, device: torch.device) -> Callable:
    generator, judge = module.GeneratorUNet().to(device), module.Discriminator().to(device)
    optimizer_g = torch.optim.Adam(generator.parameters(), **ADAM)
    optimizer_d = torch.optim.Adam(judge.parameters(), **ADAM)
    mse, l1 = nn.MSELoss(), nn.L1Loss()

    def step(rgb, thermal):
        valid = torch.ones(len(rgb), 1, size // 16, size // 16, device=device)
        fake_target = torch.zeros_like(valid)
        optimizer_g.zero_grad()
        fake = generator(rgb)
        loss_g = mse(judge(fake, rgb), valid) + 100 * l1(fake, thermal)
        loss_g.backward()
        optimizer_g.step()
        optimizer_d.zero_grad()
        real_loss = mse(judge(thermal, rgb), valid)
        fake_loss = mse(judge(fake.detach(), rgb), fake_target)
        (0.5 * (real_loss + fake_loss)).backward()
        optimizer_d.step()
        loss_g.item()

    return step


class PeerPix2Pix(Translator):
    needs_pairs = True

    def __init__(self, module: ModuleType, size: int) -> None:
        super().__init__()
        self.config = Config(size=size)
        self.generator, self.judge = module.GeneratorUNet(), module.Discriminator()

    def translate(self, rgb, z=None):
        return self.generator(rgb)

    def players(self):
        recipe = Optimizer(algorithm="adam", **ADAM)
        return {"g": Player((self.generator,), recipe), "d": Player((self.judge,), recipe)}

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        batch = next(batches)
        fake = self.generator(batch.rgb)
        fooled = (self.judge(fake, batch.rgb).float() - 1).square().mean()
        yield Turn("g", {"fool": fooled, "l1": 100 * (fake - batch.thermal).abs().mean()})
        real = (self.judge(batch.thermal, batch.rgb).float() - 1).square().mean()
        judged = self.judge(fake.detach(), batch.rgb).float().square().mean()
        yield Turn("d", {"judge": 0.5 * (real + judged)})


# CycleGAN


def peer_cyclegan(module: ModuleType, size: int, device: torch.device) -> Callable:
    shape, blocks = (3, size, size), 9
    g_ab, g_ba = (module.GeneratorResNet(shape, blocks).to(device) for _ in range(2))
    d_a, d_b = (module.Discriminator(shape).to(device) for _ in range(2))
    generators = itertools.chain(g_ab.parameters(), g_ba.parameters())
    optimizer_g = torch.optim.Adam(generators, **ADAM)
    optimizers = [torch.optim.Adam(d.parameters(), **ADAM) for d in (d_a, d_b)]
    mse, l1 = nn.MSELoss(), nn.L1Loss()
    pools = ImagePool(50), ImagePool(50)

    def step(a, b):
        valid = torch.ones(len(a), *d_a.output_shape, device=device)
        none = torch.zeros_like(valid)
        optimizer_g.zero_grad()
        identity = (l1(g_ba(a), a) + l1(g_ab(b), b)) / 2
        fake_b, fake_a = g_ab(a), g_ba(b)
        fooled = (mse(d_b(fake_b), valid) + mse(d_a(fake_a), valid)) / 2
        cycle = (l1(g_ba(fake_b), a) + l1(g_ab(fake_a), b)) / 2
        loss = fooled + 10 * cycle + 5 * identity
        loss.backward()
        optimizer_g.step()
        for judge, real, fake, pool, optimizer in (
            (d_a, a, fake_a, pools[0], optimizers[0]),
            (d_b, b, fake_b, pools[1], optimizers[1]),
        ):
            optimizer.zero_grad()
            shown = pool.swap(fake.detach())
            ((mse(judge(real), valid) + mse(judge(shown), none)) / 2).backward()
            optimizer.step()
        loss.item()

    return step


class PeerCycleGAN(Translator):
    needs_pairs = False

    def __init__(self, module: ModuleType, size: int) -> None:
        super().__init__()
        shape = (3, size, size)
        self.config = Config(size=size)
        self.generator, self.back = (module.GeneratorResNet(shape, 9) for _ in range(2))
        self.d_a, self.d_b = (module.Discriminator(shape) for _ in range(2))
        self.pool_a, self.pool_b = ImagePool(50), ImagePool(50)

    def translate(self, rgb, z=None):
        return self.generator(rgb)

    def players(self):
        recipe = Optimizer(algorithm="adam", **ADAM)
        return {
            "g": Player((self.generator, self.back), recipe),
            "d": Player((self.d_a, self.d_b), recipe),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        batch = next(batches)
        a, b = batch.rgb, batch.thermal
        fake_b, fake_a = self.generator(a), self.back(b)
        fooled = _to(self.d_b(fake_b), 1) + _to(self.d_a(fake_a), 1)
        cycle = (self.back(fake_b) - a).abs().mean() + (self.generator(fake_a) - b).abs().mean()
        identity = (self.back(a) - a).abs().mean() + (self.generator(b) - b).abs().mean()
        yield Turn("g", {"fool": fooled / 2, "cycle": 5 * cycle, "identity": 2.5 * identity})
        shown_a, shown_b = self.pool_a.swap(fake_a), self.pool_b.swap(fake_b)
        judged = _to(self.d_a(a), 1) + _to(self.d_a(shown_a), 0)
        judged = judged + _to(self.d_b(b), 1) + _to(self.d_b(shown_b), 0)
        yield Turn("d", {"judge": judged / 2})


def _to(score, target):
    return (score.float() - target).square().mean()


def trained_by_us(kind: type[Translator]) -> Callable:
    def make(module, size, device, precision):
        translator = kind(module, size).to(device)  # pyright: ignore[reportCallIssue]
        seats, group = take_seats(translator), Group()
        autocast = autocast_for(device, precision)

        def step(rgb, thermal):
            batches = iter([Batch(rgb, thermal)])
            train_step(translator, seats, batches, group=group, autocast=autocast)

        return step

    return make


SYSTEMS = {
    "pix2pix": (peer_pix2pix, trained_by_us(PeerPix2Pix)),
    "cyclegan": (peer_cyclegan, trained_by_us(PeerCycleGAN)),
}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"peer_{path.parent.name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        sys.exit(f"{path} must be a file of a PyTorch-GAN checkout: pass the checkout's folder.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", type=Path, help="a checkout of eriklindernoren/PyTorch-GAN")
    parser.add_argument("--system", choices=["pix2pix", "cyclegan", "both"], default="both")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()

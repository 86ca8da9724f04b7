"""The losses of each side of every game, and the inputs of every discriminator, in one step."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import BATCH, SIZE, TINY, random_batches

from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.networks import MultiScale
from thermal_search.networks.progressive import ProgressiveNetwork

REAL, FAKE = 0.3, -0.7
"""The scores that every discriminator is made to return."""

# So that every discriminator gets whole batches of real and newly generated images.
PLAIN = {
    "biggan": {"microbatch_size": BATCH},
    "cgan": {"manifold_interpolation": False},
    "cyclegan": {"pool_size": 0},
}


def softplus(value):
    return F.softplus(torch.tensor(value)).item()


def logistic(real, fake):
    return softplus(-real) + softplus(fake)


def smoothed(real, fake):
    return 0.9 * softplus(-real) + 0.1 * softplus(real) + softplus(fake)


def squares(real, fake):
    return (real - 1) ** 2 + fake**2


def wasserstein(real, fake):
    return fake - real


def hinge(real, fake):
    return max(0, 1 - real) + max(0, 1 + fake)


def generator_logistic(fake):
    return softplus(-fake)


def generator_squares(fake):
    return (fake - 1) ** 2


def generator_wasserstein(fake):
    return -fake


@dataclass(frozen=True)
class Game:
    """A discriminator or critic, and the losses of the two sides of its game."""

    architecture: str
    discriminator: str
    discriminator_loss: Callable[[float, float], float]
    discriminator_terms: tuple[str, ...]
    generator_loss: Callable[[float], float]
    generator_terms: tuple[str, ...]
    weight: float = 1.0
    """Weight of the discriminator's terms; the generator's have 1."""

    discriminator_player: str = "discriminator"
    generator_player: str = "generator"


ADVERSARIAL = ("adversarial",)
GAMES = [
    Game("biggan", "discriminator", hinge, ADVERSARIAL, generator_wasserstein, ADVERSARIAL),
    Game(
        "cgan", "discriminator",
        logistic, ("real", "mismatched", "fake"), generator_logistic, ADVERSARIAL,
    ),
    Game(
        "cyclegan", "thermal_discriminator",
        squares, ("thermal",), generator_squares, ("adversarial_thermal",),
        0.5, "discriminators", "generators",
    ),
    Game(
        "cyclegan", "rgb_discriminator",
        squares, ("rgb",), generator_squares, ("adversarial_rgb",),
        0.5, "discriminators", "generators",
    ),
    Game("dcgan", "discriminator", logistic, ADVERSARIAL, generator_logistic, ADVERSARIAL),
    Game("gan", "discriminator", logistic, ADVERSARIAL, generator_logistic, ADVERSARIAL),
    Game("improved_gan", "discriminator", smoothed, ADVERSARIAL, generator_logistic, ADVERSARIAL),
    Game("pix2pix", "discriminator", logistic, ADVERSARIAL, generator_logistic, ADVERSARIAL, 0.5),
    Game(
        "progressive_gan", "discriminator",
        wasserstein, ("wasserstein",), generator_wasserstein, ADVERSARIAL,
    ),
    Game("stylegan", "discriminator", logistic, ADVERSARIAL, generator_logistic, ADVERSARIAL),
    Game(
        "thermalgan", "encoded_discriminator",
        squares, ("encoded",), generator_squares, ("encoded",), 0.5, "base_discriminators", "base",
    ),
    Game(
        "thermalgan", "random_discriminator",
        squares, ("random",), generator_squares, ("random",), 0.5, "base_discriminators", "base",
    ),
    Game(
        "thermalgan", "contrast_discriminator",
        logistic, ADVERSARIAL, generator_logistic, ADVERSARIAL,
        0.5, "contrast_discriminator", "contrast",
    ),
    Game(
        "unit", "thermal_discriminator",
        squares, ("thermal",), generator_squares, ("adversarial_thermal",),
        1.0, "discriminators", "generators",
    ),
    Game(
        "unit", "rgb_discriminator",
        squares, ("rgb",), generator_squares, ("adversarial_rgb",),
        1.0, "discriminators", "generators",
    ),
    Game(
        "wgan", "critic",
        wasserstein, ("wasserstein",), generator_wasserstein, ADVERSARIAL,
        1.0, "critic", "generator",
    ),
    Game(
        "wgan_gp", "critic",
        wasserstein, ("wasserstein",), generator_wasserstein, ADVERSARIAL,
        1.0, "critic", "generator",
    ),
]  # fmt: skip


def games(names=ARCHITECTURES):
    chosen = [game for game in GAMES if game.architecture in names]
    return pytest.mark.parametrize(
        "game", chosen, ids=lambda game: f"{game.architecture}-{game.discriminator}"
    )


@pytest.fixture
def batch():
    return next(random_batches())


def make(name):
    torch.manual_seed(0)
    translator = build(name, SIZE, TINY[name] | PLAIN.get(name, {}))
    translator.init_from_data(next(random_batches(7, batch=8)))
    # No warm-up of WGAN's critic; progressive networks in the middle of fading in a layer.
    translator.begin_step(0 if name == "wgan" else 370, 0 if name == "wgan" else 1000)
    return translator


def real_images(translator, discriminator, batch):
    """The real images that a discriminator gets at its finest scale, in the order of the batch."""
    if discriminator == "rgb_discriminator":
        return batch.rgb
    if isinstance(network := translator.get_submodule(discriminator), ProgressiveNetwork):
        return network.downsample(batch.thermal)
    if discriminator in ("encoded_discriminator", "random_discriminator"):
        halves = translator.base_of(batch.thermal).chunk(2)
        return halves[discriminator == "random_discriminator"]
    if discriminator == "contrast_discriminator":
        difference = batch.thermal - translator.base_of(batch.thermal)
        return (difference / translator.config.contrast_range).clamp(-1, 1)
    return batch.thermal


def real_rows(inputs, real):
    """Whether each image, in the last channels of a discriminator's inputs, is the real one."""
    images = inputs[-1][:, -real.shape[1] :]
    repeated = real.repeat(-(-len(images) // len(real)), 1, 1, 1)[: len(images)]
    return (images == repeated).flatten(1).all(1)


def scales_of(discriminator):
    return list(discriminator.scales) if isinstance(discriminator, MultiScale) else [discriminator]


def fix_scores(discriminator, real):
    """Makes every scale of a discriminator return REAL for real images and FAKE for all others,
    plus 0.1 for each coarser scale."""
    for number, scale in enumerate(scales_of(discriminator)):

        def score(_, inputs, out, number=number, real=real):
            logits = out[0] if isinstance(out, tuple) else out
            is_real = real_rows(inputs, real).view(-1, *[1] * (logits.dim() - 1))
            fixed = torch.where(is_real, REAL, FAKE) + 0.1 * number + 0 * logits
            return (fixed, *out[1:]) if isinstance(out, tuple) else fixed

        scale.register_forward_hook(score)
        real = F.avg_pool2d(real, 3, 2, 1, count_include_pad=False)


def terms_of_a_step(translator, batch):
    terms = {}
    for turn in translator.turns(itertools.repeat(batch)):
        terms.setdefault(turn.player, {k: v.item() for k, v in turn.terms.items()})
    return terms


@games()
def test_both_sides_minimize_the_papers_losses(game, batch):
    translator = make(game.architecture)
    network = translator.get_submodule(game.discriminator)
    fix_scores(network, real_images(translator, game.discriminator, batch))
    terms = terms_of_a_step(translator, batch)
    offsets = [0.1 * number for number in range(len(scales_of(network)))]

    expected = sum(game.weight * game.discriminator_loss(REAL + x, FAKE + x) for x in offsets)
    loss = sum(terms[game.discriminator_player][term] for term in game.discriminator_terms)
    assert loss == pytest.approx(expected, abs=1e-5)
    expected = sum(game.generator_loss(FAKE + x) for x in offsets)
    loss = sum(terms[game.generator_player][term] for term in game.generator_terms)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_every_architecture_has_a_game():
    assert {game.architecture for game in GAMES} == ARCHITECTURES.keys()


@games(ARCHITECTURES.keys() - {"cyclegan", "gan", "thermalgan", "unit"})
def test_discriminator_of_pairs_always_gets_the_rgb_image(game, batch):
    translator, inputs = make(game.architecture), []
    network = translator.get_submodule(game.discriminator)
    network.register_forward_hook(lambda _, x, __: inputs.append(x))
    list(translator.turns(itertools.repeat(batch)))
    rgb = batch.rgb
    if isinstance(network, ProgressiveNetwork):
        assert 0 < network.growth.alpha < 1
        rgb = network.downsample(rgb)

    for pair in inputs:
        condition = pair[0] if len(pair) == 2 else pair[0][:, :3]
        assert torch.equal(condition, rgb.repeat(len(condition) // BATCH, 1, 1, 1))
    first, *others = (images.detach().clone().requires_grad_() for images in inputs[0])
    out = network(first, *others)
    (out if isinstance(out, torch.Tensor) else out[0]).square().sum().backward()
    assert first.grad[:, :3].any()  # the score depends on it


@games(ARCHITECTURES.keys() - {"biggan", "cyclegan", "gan", "unit", "wgan_gp"})
def test_discriminator_that_couples_images_never_gets_mixed_batches(game, batch):
    translator, sizes = make(game.architecture), []
    network = translator.get_submodule(game.discriminator)
    network.register_forward_hook(lambda _, x, __: sizes.append(len(x[-1])))
    list(translator.turns(itertools.repeat(batch)))

    halves = game.discriminator_player == "base_discriminators"
    assert set(sizes) == {BATCH // 2 if halves else BATCH}


GENERATORS = {
    "cyclegan": ["generator", "rgb_generator"],
    "gan": ["generator"],
    "thermalgan": ["generator.base", "generator.contrast"],
    "unit": ["generator.thermal_decoder", "rgb_decoder"],
}


@games(GENERATORS)
def test_discriminator_of_single_images_gets_them_as_generated(game, batch):
    translator, generated, inputs = make(game.architecture), [], []
    for generator in GENERATORS[game.architecture]:
        translator.get_submodule(generator).register_forward_hook(
            lambda _, __, out: generated.extend(out)
        )
    network = translator.get_submodule(game.discriminator)
    network.register_forward_hook(lambda _, x, __: inputs.append(x))
    list(translator.turns(itertools.repeat(batch)))
    real = real_images(translator, game.discriminator, batch)

    assert len(inputs) > 1
    for images in inputs:
        is_real = real_rows(images, real)
        for image, image_is_real in zip(images[-1][:, -real.shape[1] :], is_real, strict=True):
            assert image_is_real or any(torch.equal(image, other) for other in generated)


@games()
def test_generator_learns_from_the_updated_discriminator(game, batch):
    def generator_turn(update):
        """The generator's loss after `update` of the discriminator, and if it has a gradient."""
        translator = make(game.architecture)
        networks = translator.players()[game.generator_player].networks
        parameters = [p for network in networks for p in network.parameters()]
        for turn in translator.turns(itertools.repeat(batch)):
            if turn.player == game.generator_player:
                loss = sum(turn.terms[term] for term in game.generator_terms)
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                return loss.item(), any(g is not None and g.any() for g in gradients)
            if turn.player == game.discriminator_player:
                for parameter in translator.get_submodule(game.discriminator).parameters():
                    parameter.data += update

    (loss, has_gradient), (updated_loss, _) = generator_turn(0.0), generator_turn(0.1)

    assert has_gradient
    # CycleGAN's generators take their turn first.
    assert (loss != updated_loss) == (game.architecture != "cyclegan")

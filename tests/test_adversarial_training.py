"""What each side of every game minimizes, and what it is shown, read off a step of the game."""

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

REAL, FALSE = 0.3, -0.7
"""The scores every judge is made to give."""

# Nothing that would show a judge something else than a whole batch, or play a hundred turns.
PLAIN = {
    "biggan": {"part_size": BATCH},
    "cgan": {"interpolate": False},
    "cyclegan": {"pool_size": 0},
}


def softplus(value):
    return F.softplus(torch.tensor(value)).item()


def logistic(real, false):
    return softplus(-real) + softplus(false)


def smoothed(real, false):
    return 0.9 * softplus(-real) + 0.1 * softplus(real) + softplus(false)


def squares(real, false):
    return (real - 1) ** 2 + false**2


def wasserstein(real, false):
    return false - real


def hinge(real, false):
    return max(0, 1 - real) + max(0, 1 + false)


def fool_logistic(false):
    return softplus(-false)


def fool_squares(false):
    return (false - 1) ** 2


def raise_score(false):
    return -false


@dataclass(frozen=True)
class Game:
    """A judge, and what the two sides that it stands between minimize."""

    name: str
    judge: str
    judged: Callable[[float, float], float]
    judging_terms: tuple[str, ...]
    fooled: Callable[[float], float]
    fooling_terms: tuple[str, ...]
    weight: float = 1.0
    """Of the judging side's terms; the painting side's have 1."""

    judging: str = "discriminator"
    painting: str = "generator"


ADVERSARIAL = ("adversarial",)
GAMES = [
    Game("biggan", "discriminator", hinge, ADVERSARIAL, raise_score, ADVERSARIAL),
    Game(
        "cgan", "discriminator",
        logistic, ("real", "mismatched", "painted"), fool_logistic, ADVERSARIAL,
    ),
    Game(
        "cyclegan", "thermal_discriminator",
        squares, ("thermal",), fool_squares, ("adversarial_thermal",),
        0.5, "discriminators", "generators",
    ),
    Game(
        "cyclegan", "rgb_discriminator",
        squares, ("rgb",), fool_squares, ("adversarial_rgb",),
        0.5, "discriminators", "generators",
    ),
    Game("dcgan", "discriminator", logistic, ADVERSARIAL, fool_logistic, ADVERSARIAL),
    Game("gan", "discriminator", logistic, ADVERSARIAL, fool_logistic, ADVERSARIAL),
    Game("improved_gan", "discriminator", smoothed, ADVERSARIAL, fool_logistic, ADVERSARIAL),
    Game("pix2pix", "discriminator", logistic, ADVERSARIAL, fool_logistic, ADVERSARIAL, 0.5),
    Game(
        "progressive_gan", "discriminator",
        wasserstein, ("wasserstein",), raise_score, ADVERSARIAL,
    ),
    Game("stylegan", "discriminator", logistic, ADVERSARIAL, fool_logistic, ADVERSARIAL),
    Game(
        "thermalgan", "encoded_discriminator",
        squares, ("encoded",), fool_squares, ("encoded",), 0.5, "base_discriminators", "base",
    ),
    Game(
        "thermalgan", "random_discriminator",
        squares, ("random",), fool_squares, ("random",), 0.5, "base_discriminators", "base",
    ),
    Game(
        "thermalgan", "contrast_discriminator",
        logistic, ADVERSARIAL, fool_logistic, ADVERSARIAL,
        0.5, "contrast_discriminator", "contrast",
    ),
    Game(
        "unit", "thermal_discriminator",
        squares, ("thermal",), fool_squares, ("adversarial_thermal",),
        1.0, "discriminators", "generators",
    ),
    Game(
        "unit", "rgb_discriminator",
        squares, ("rgb",), fool_squares, ("adversarial_rgb",),
        1.0, "discriminators", "generators",
    ),
    Game(
        "wgan", "critic",
        wasserstein, ("wasserstein",), raise_score, ADVERSARIAL, 1.0, "critic", "generator",
    ),
    Game(
        "wgan_gp", "critic",
        wasserstein, ("wasserstein",), raise_score, ADVERSARIAL, 1.0, "critic", "generator",
    ),
]  # fmt: skip


def games(names=ARCHITECTURES):
    chosen = [game for game in GAMES if game.name in names]
    return pytest.mark.parametrize("game", chosen, ids=lambda game: f"{game.name}-{game.judge}")


@pytest.fixture
def batch():
    return next(random_batches())


def make(name):
    torch.manual_seed(0)
    translator = build(name, SIZE, TINY[name] | PLAIN.get(name, {}))
    translator.init_from_data(next(random_batches(7, batch=8)).rgb)
    # No long rounds of a critic, and in the midst of fading where images grow.
    translator.begin_step(0 if name == "wgan" else 370, 0 if name == "wgan" else 1000)
    return translator


def real_pictures(translator, judge, batch):
    """The real images that a judge is shown at its finest scale, in the order of the batch."""
    if judge == "rgb_discriminator":
        return batch.rgb
    if isinstance(network := translator.get_submodule(judge), ProgressiveNetwork):
        return network.shown(batch.thermal)
    if judge in ("encoded_discriminator", "random_discriminator"):
        halves = translator.base_of(batch.thermal).chunk(2)
        return halves[judge == "random_discriminator"]
    if judge == "contrast_discriminator":
        difference = batch.thermal - translator.base_of(batch.thermal)
        return (difference / translator.config.contrast_range).clamp(-1, 1)
    return batch.thermal


def each_row_is_real(shown, real):
    """Whether each image shown, by its last channels, is the real one in its place."""
    pictures = shown[-1][:, -real.shape[1] :]
    repeated = real.repeat(-(-len(pictures) // len(real)), 1, 1, 1)[: len(pictures)]
    return (pictures == repeated).flatten(1).all(1)


def scales_of(judge):
    return list(judge.scales) if isinstance(judge, MultiScale) else [judge]


def scored_by_rule(judge, real):
    """Makes every scale of a judge say REAL of real images and FALSE of all others, and a tenth
    more at each coarser scale."""
    for number, scale in enumerate(scales_of(judge)):

        def score(_, shown, out, number=number, real=real):
            logits = out[0] if isinstance(out, tuple) else out
            is_real = each_row_is_real(shown, real).view(-1, *[1] * (logits.dim() - 1))
            ruled = torch.where(is_real, REAL, FALSE) + 0.1 * number + 0 * logits
            return (ruled, *out[1:]) if isinstance(out, tuple) else ruled

        scale.register_forward_hook(score)
        real = F.avg_pool2d(real, 3, 2, 1, count_include_pad=False)


def terms_of_a_step(translator, batch):
    found = {}
    for turn in translator.turns(itertools.repeat(batch)):
        found.setdefault(turn.player, {k: v.item() for k, v in turn.terms.items()})
    return found


@games()
def test_both_sides_play_the_papers_game(game, batch):
    translator = make(game.name)
    network = translator.get_submodule(game.judge)
    scored_by_rule(network, real_pictures(translator, game.judge, batch))
    terms = terms_of_a_step(translator, batch)
    scales = [0.1 * number for number in range(len(scales_of(network)))]

    expected = sum(game.weight * game.judged(REAL + more, FALSE + more) for more in scales)
    found = sum(terms[game.judging][term] for term in game.judging_terms)
    assert found == pytest.approx(expected, abs=1e-5)
    expected = sum(game.fooled(FALSE + more) for more in scales)
    found = sum(terms[game.painting][term] for term in game.fooling_terms)
    assert found == pytest.approx(expected, abs=1e-5)


def test_every_architecture_plays_here():
    assert {game.name for game in GAMES} == ARCHITECTURES.keys()


@games(ARCHITECTURES.keys() - {"cyclegan", "gan", "thermalgan", "unit"})
def test_a_judge_of_pairs_always_sees_the_rgb_picture(game, batch):
    translator, shown = make(game.name), []
    network = translator.get_submodule(game.judge)
    network.register_forward_hook(lambda _, x, __: shown.append(x))
    list(translator.turns(itertools.repeat(batch)))
    rgb = batch.rgb
    if isinstance(network, ProgressiveNetwork):
        assert 0 < network.growth.alpha < 1
        rgb = network.shown(rgb)

    for pair in shown:
        seen = pair[0] if len(pair) == 2 else pair[0][:, :3]
        assert torch.equal(seen, rgb.repeat(len(seen) // BATCH, 1, 1, 1))
    first, *others = (images.detach().clone().requires_grad_() for images in shown[0])
    out = network(first, *others)
    (out[0] if isinstance(out, tuple) else out).square().sum().backward()
    assert first.grad[:, :3].any()  # and its score hangs on it


@games(ARCHITECTURES.keys() - {"biggan", "cyclegan", "gan", "unit", "wgan_gp"})
def test_a_judge_that_couples_images_never_sees_real_and_false_ones_together(game, batch):
    translator, shown = make(game.name), []
    network = translator.get_submodule(game.judge)
    network.register_forward_hook(lambda _, x, __: shown.append(len(x[-1])))
    list(translator.turns(itertools.repeat(batch)))

    halves = game.judging == "base_discriminators"
    assert set(shown) == {BATCH // 2 if halves else BATCH}


PAINTERS = {
    "cyclegan": ["generator", "return_generator"],
    "gan": ["generator"],
    "thermalgan": ["generator.base", "generator.contrast"],
    "unit": ["generator.thermal_decoder", "rgb_decoder"],
}


@games(PAINTERS)
def test_a_judge_of_pictures_sees_them_as_they_were_painted(game, batch):
    translator, painted, shown = make(game.name), [], []
    for painter in PAINTERS[game.name]:
        translator.get_submodule(painter).register_forward_hook(
            lambda _, __, out: painted.extend(out)
        )
    network = translator.get_submodule(game.judge)
    network.register_forward_hook(lambda _, x, __: shown.append(x))
    list(translator.turns(itertools.repeat(batch)))
    real = real_pictures(translator, game.judge, batch)

    assert len(shown) > 1
    for pictures in shown:
        is_real = each_row_is_real(pictures, real)
        for image, is_own in zip(pictures[-1][:, -real.shape[1] :], is_real, strict=True):
            assert is_own or any(torch.equal(image, other) for other in painted)


@games()
def test_whoever_paints_learns_from_the_judge_as_it_is_then(game, batch):
    def played(moved):
        """The painting side's terms after the judge has moved so far, and whether it learns."""
        translator = make(game.name)
        painter = [p for n in translator.players()[game.painting].networks for p in n.parameters()]
        for turn in translator.turns(itertools.repeat(batch)):
            if turn.player == game.painting:
                total = sum(turn.terms[term] for term in game.fooling_terms)
                slopes = torch.autograd.grad(total, painter, allow_unused=True)
                return total.item(), any(s is not None and s.any() for s in slopes)
            if turn.player == game.judging:
                for parameter in translator.get_submodule(game.judge).parameters():
                    parameter.data += moved

    (still, learns), (anew, _) = played(0.0), played(0.1)

    assert learns
    # CycleGAN's generators move first.
    assert (still != anew) == (game.name != "cyclegan")

"""What a search can add to discriminators: R1, spectral normalization, DiffAugment."""

import itertools
from contextlib import nullcontext

import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

import search_spaces
from thermal_search.architectures import build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.networks.spectral_norm import SpectralNetwork, SpectralNorm
from thermal_search.networks.weight_norm import WeightNorm
from thermal_search.training.augmentation import Augmentation
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step

APART = {
    "cgan": {"discriminator_norm": "layer"},
    "cyclegan": {},
    "dcgan": {"discriminator_norm": "layer"},
    "gan": {"input_dropout": 0.0, "hidden_dropout": 0.0},
    "improved_gan": {"minibatch_discrimination": False, "dropout": 0.0, "input_noise": 0.0},
    "pix2pix": {"discriminator_norm": "instance"},
    "thermalgan": {"contrast_discriminator_norm": "instance"},
    "unit": {},
}
"""The architectures that may have R1, with settings that score each image by itself and without
noise."""


def make(name, **parameters):
    torch.manual_seed(0)
    translator = build(name, SIZE, TINY[name] | parameters)
    translator.init_from_data(next(random_batches()))
    translator.begin_step(900, 1000)
    return translator


def terms_of(translator, batch=None):
    torch.manual_seed(1)
    turns = translator.turns(itertools.repeat(batch) if batch else random_batches())
    return {(turn.player, name): term for turn in turns for name, term in turn.terms.items()}


def squared_gradient(discriminator, images):
    images = images.clone().requires_grad_(True)
    scores = discriminator(images)
    scores = scores if isinstance(scores, list) else [scores]
    score = torch.stack([patches.mean((1, 2, 3)) for patches in scores]).sum()
    (gradient,) = torch.autograd.grad(score, images)
    return gradient.square().sum((1, 2, 3)).mean().item()


@pytest.mark.parametrize("name", ["cyclegan", "unit"])
def test_r1_is_the_squared_gradient_at_real_images_of_both_domains(name):
    translator, batch = make(name, r1=True, r1_gamma=4.0), next(random_batches())
    terms = terms_of(translator, batch)

    for domain in ("thermal", "rgb"):
        discriminator = getattr(translator, f"{domain}_discriminator")
        assert terms["discriminators", f"r1_{domain}"].item() == pytest.approx(
            2 * squared_gradient(discriminator, getattr(batch, domain)), rel=1e-4
        )


def test_r1_of_thermalgan_is_of_the_real_bases_and_the_real_contrast():
    translator = make("thermalgan", r1=True, r1_gamma=4.0, **APART["thermalgan"])
    batch = next(random_batches())
    terms = terms_of(translator, batch)
    base = translator.base_of(batch.thermal)
    encoded, other = base.chunk(2)
    for name, real in (("encoded", encoded), ("random", other)):
        expected = squared_gradient(getattr(translator, f"{name}_discriminator"), real)
        assert terms["base_discriminators", f"r1_{name}"].item() == pytest.approx(
            2 * expected, rel=1e-4
        )
    condition = torch.cat([base, batch.rgb], 1)
    expected = squared_gradient(
        lambda contrast: translator.contrast_discriminator(torch.cat([condition, contrast], 1)),
        ((batch.thermal - base) / translator.config.contrast_range).clamp(-1, 1),
    )
    assert terms["contrast_discriminator", "r1"].item() == pytest.approx(2 * expected, rel=1e-4)


@pytest.mark.parametrize("name", ["cgan", "dcgan", "gan", "improved_gan"])
def test_r1_is_the_squared_gradient_at_the_real_thermal_images_alone(name):
    translator = make(name, r1=True, r1_gamma=4.0, **APART[name])
    batch, discriminator = next(random_batches()), translator.discriminator
    thermal = batch.thermal.clone().requires_grad_(True)
    rgb = batch.rgb.clone().requires_grad_(True)
    match name:
        case "gan":
            score = discriminator(thermal)
        case "cgan":
            score = discriminator(rgb, thermal)
        case "dcgan":
            score = discriminator(torch.cat([rgb, thermal], 1))
        case _:
            score, _ = discriminator(torch.cat([rgb, thermal], 1))
    (gradient,) = torch.autograd.grad(score.sum(), thermal)
    expected = 2 * gradient.square().sum((1, 2, 3)).mean().item()
    terms = terms_of(translator, batch)

    assert terms["discriminator", "r1"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", APART)
def test_r1_of_an_image_does_not_depend_on_the_others_of_its_batch(name):
    translator, batch = make(name, r1=True, **APART[name]), next(random_batches())
    # Of stage one, a batch has real images in its halves.
    players = {"discriminator", "discriminators", "contrast_discriminator"}

    def penalties(rows):
        terms = terms_of(translator, Batch(batch.rgb[rows], batch.thermal[rows]))
        penalties = [t for (of, term), t in terms.items() if of in players and "r1" in term]
        assert all(penalty > 0 for penalty in penalties)
        return torch.stack(penalties)

    halves = torch.stack([penalties(slice(0, 2)), penalties(slice(2, 4))])
    assert torch.allclose(penalties(slice(0, 4)), halves.mean(0), rtol=1e-4)


COUPLED = {
    "cgan": "discriminator_norm=batch",
    "dcgan": "discriminator_norm=batch",
    "improved_gan": "minibatch_discrimination=True",
    "pix2pix": "discriminator_norm=batch",
    "thermalgan": "contrast_discriminator_norm=batch",
}


@pytest.mark.parametrize("name", COUPLED)
def test_r1_is_refused_and_never_suggested_where_the_images_of_a_batch_are_compared(name):
    with pytest.raises(ValueError, match=rf"r1 needs .* got {COUPLED[name]}, which .*leave r1 off"):
        make(name, r1=True)
    setting, values = search_spaces.load(name).conditions["r1"]

    assert COUPLED[name].startswith(f"{setting}=")
    for value in values:
        assert make(name, r1=True, **{setting: value}).config.r1


@pytest.mark.parametrize("name", APART)
def test_without_r1_and_spectral_norm_there_is_neither(name):
    translator = make(name)

    assert not any(term.startswith("r1") for _, term in terms_of(translator))
    assert not any(isinstance(m, SpectralNorm) for m in translator.modules())


def test_spectral_norm_of_improved_gan_is_in_place_of_weight_norm():
    discriminator = make("improved_gan", spectral_norm=True).discriminator

    assert any(isinstance(m, SpectralNorm) for m in discriminator.modules())
    assert not any(isinstance(m, WeightNorm) for m in discriminator.modules())


@pytest.mark.parametrize("name", APART)
def test_spectral_norm_bounds_the_weights_of_all_discriminators(name):
    translator = make(name, spectral_norm=True).train()
    for _ in range(2):
        train_step(
            translator,
            build_optimizers(translator),
            random_batches(),
            group=WorkerGroup(),
            autocast=nullcontext(),
        )
    translator.eval()
    networks = [m for m in translator.modules() if isinstance(m, SpectralNetwork)]
    layers = [m for n in networks for m in n.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]

    # Of two domains, at two scales; of stage one twice, and of stage two.
    assert len(networks) == {"cyclegan": 2, "unit": 4, "thermalgan": 5}.get(name, 1)
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
        assert largest == pytest.approx(1, abs=0.2)
    assert not any(isinstance(m, SpectralNorm) for m in translator.generator.modules())


@pytest.mark.parametrize(
    ("setting", "player"),
    [("base_gan_mode", "base_discriminators"), ("contrast_gan_mode", "contrast_discriminator")],
)
def test_each_stage_of_thermalgan_has_its_adversarial_loss(setting, player):
    def values(mode):
        terms = terms_of(make("thermalgan", **{setting: mode}))
        return [term.item() for (of, _), term in terms.items() if of == player]

    by_mode = [values(mode) for mode in ("lsgan", "vanilla", "hinge")]
    assert len({tuple(v) for v in by_mode}) == 3
    published = {"base_gan_mode": 0, "contrast_gan_mode": 1}[setting]
    default = [t.item() for (of, _), t in terms_of(make("thermalgan")).items() if of == player]
    assert default == by_mode[published]


@pytest.mark.parametrize("name", ["progressive_gan", "stylegan"])
def test_players_of_growing_networks_have_their_own_learning_rates(name):
    players = make(name, generator_lr=1e-4, discriminator_lr=3e-4).players()

    assert players["generator"].optimizer.lr == 1e-4
    assert players["discriminator"].optimizer.lr == 3e-4


DISCRIMINATORS = {
    "biggan": ["discriminator"],
    "dcgan": ["discriminator"],
    "gan": ["discriminator"],
    "improved_gan": ["discriminator"],
    "progressive_gan": ["discriminator"],
    "stylegan": ["discriminator"],
    "thermalgan": ["encoded_discriminator", "random_discriminator", "contrast_discriminator"],
    "unit": ["thermal_discriminator", "rgb_discriminator"],
    "wgan": ["critic"],
    "wgan_gp": ["critic"],
}


@pytest.mark.parametrize("is_on", [True, False])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_score_augmented_images_if_switched_on(name, is_on):
    translator, scored = make(name, diff_augment=is_on), []
    for discriminator in DISCRIMINATORS[name]:
        network = translator.get_submodule(discriminator)
        network.register_forward_hook(lambda _, inputs, __: scored.append(inputs[-1][:, -1]))
    terms_of(translator)

    assert len(scored) >= 2
    for images in scored:
        # A quarter of the thermal image is cut out.
        assert ((images == 0).float().mean() > 0.15) == is_on


@pytest.mark.parametrize("name", ["progressive_gan", "stylegan"])
def test_growing_networks_crop_the_full_size_pair_before_they_reduce_it(name):
    translator = make(name, crop_scale=1.25, color_jitter=0.3)
    translator.begin_step(0, 1000)
    batch, scored = next(random_batches()), []
    torch.manual_seed(2)
    augmented = Augmentation.of(translator)(batch)
    downsample = translator.discriminator.downsample
    translator.discriminator.register_forward_hook(lambda _, x, __: scored.append(x))
    torch.manual_seed(2)
    train_step(
        translator,
        build_optimizers(translator),
        iter([batch]),
        group=WorkerGroup(),
        autocast=nullcontext(),
    )

    assert augmented.thermal.shape == batch.thermal.shape
    assert translator.discriminator.growth.resolution < SIZE
    assert any(
        torch.equal(rgb, downsample(augmented.rgb))
        and torch.equal(thermal, downsample(augmented.thermal))
        for rgb, thermal in scored
    )

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.losses import smoothed_cross_entropy
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step


def make(**parameters):
    torch.manual_seed(0)
    return build("dcgan", SIZE, TINY["dcgan"] | parameters)


@pytest.mark.parametrize("rgb_fusion", ["early", "late"])
def test_no_layer_is_dense_or_pooling(rgb_fusion):
    for module in make(rgb_fusion=rgb_fusion).modules():
        assert not isinstance(module, nn.Linear)
        assert "Pool" not in type(module).__name__


def test_convolutions_are_strided():
    translator = make()
    strides = [m.stride for m in translator.discriminator.modules() if isinstance(m, nn.Conv2d)]
    doublings = [
        m.stride for m in translator.generator.modules() if isinstance(m, nn.ConvTranspose2d)
    ]

    assert strides == [(2, 2)] * 3 + [(1, 1)]
    assert doublings == [(1, 1)] + [(2, 2)] * 3


def test_all_but_the_outermost_layers_are_normalized():
    translator = make()

    def norms(network):
        return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())

    assert norms(translator.generator) == 3
    assert norms(translator.discriminator) == 2
    assert isinstance(translator.generator.levels[-1][-1], nn.Tanh)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in translator.generator.levels[-1])
    assert not any(isinstance(m, nn.BatchNorm2d) for m in translator.discriminator.features[:3])


def test_generator_has_relu_and_discriminator_leaky_relu():
    translator = make()
    slopes = {
        m.negative_slope for m in translator.discriminator.modules() if isinstance(m, nn.LeakyReLU)
    }

    assert slopes == {0.2}
    assert not any(isinstance(m, nn.LeakyReLU) for m in translator.generator.modules())
    assert sum(isinstance(m, nn.ReLU) for m in translator.generator.modules()) == 3
    assert not any(isinstance(m, nn.ReLU) for m in translator.discriminator.modules())


@pytest.mark.parametrize("rgb_fusion", ["early", "late"])
def test_initial_weights_have_the_published_std(rgb_fusion):
    torch.manual_seed(0)
    translator = build("dcgan", SIZE, {"rgb_fusion": rgb_fusion})
    for network in (translator.generator, translator.discriminator):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.weight.numel() > 1e5:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            if isinstance(module, nn.BatchNorm2d):
                assert module.weight.mean().item() == pytest.approx(1, abs=0.02)
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_adam_has_the_published_settings():
    for player_optimizer in build_optimizers(make()).values():
        assert isinstance(player_optimizer.optimizer, torch.optim.Adam)
        assert player_optimizer.optimizer.defaults["lr"] == 2e-4
        assert player_optimizer.optimizer.defaults["betas"] == (0.5, 0.999)


def test_latents_are_uniform_in_minus_one_to_one():
    z = make().draw_latent(2000)

    assert z.abs().max() <= 1
    assert z.std().item() == pytest.approx(1 / 3**0.5, rel=0.03)
    assert make(latent_prior="normal").draw_latent(2000).abs().max() > 2


def test_real_and_fake_pairs_are_scored_in_separate_passes():
    translator = make()
    sizes = []
    translator.discriminator.register_forward_hook(lambda _, x, __: sizes.append(x[0].shape))
    list(translator.turns(random_batches()))

    assert [shape[0] for shape in sizes] == [4, 4, 4]
    assert {shape[1] for shape in sizes} == {4}


def test_label_smoothing_leaves_the_fake_target_at_zero():
    real, fake = torch.randn(8), torch.randn(8)
    plain = smoothed_cross_entropy(real, fake, 1.0)
    smoothed = smoothed_cross_entropy(real, fake, 0.9)

    assert plain.item() == pytest.approx((F.softplus(-real) + F.softplus(fake)).mean().item())
    # Only the real pairs' term changes, by a tenth of the mean logit.
    assert (smoothed - plain).item() == pytest.approx(0.1 * real.mean().item(), abs=1e-5)


@pytest.mark.parametrize("rgb_fusion", ["early", "late"])
def test_step_updates_every_weight(rgb_fusion):
    translator = make(rgb_fusion=rgb_fusion)
    before = [parameter.detach().clone() for parameter in translator.parameters()]
    batches, optimizers = random_batches(), build_optimizers(translator)
    train_step(translator, optimizers, batches, group=WorkerGroup(), autocast=nullcontext())

    assert not any(map(torch.equal, before, translator.parameters()))


def test_late_fusion_is_at_four_by_four():
    discriminator, thermal_features = make(rgb_fusion="late").discriminator, []
    discriminator.features[0].thermal_branch.register_forward_hook(
        lambda _, __, out: thermal_features.append(out)
    )
    thermal = next(random_batches()).thermal
    scores = [
        discriminator(torch.cat([next(random_batches(seed)).rgb, thermal], dim=1))
        for seed in (1, 2)
    ]

    assert thermal_features[0].shape[2:] == (4, 4)
    assert torch.equal(*thermal_features)
    assert not torch.allclose(*scores, rtol=0.01)

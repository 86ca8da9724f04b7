import math

import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.architectures.gan import Maxout
from thermal_search.losses import cross_entropy, minimax
from thermal_search.training.optimizers import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    return build("gan", SIZE, TINY["gan"] | parameters)


def test_discriminator_gets_only_thermal_images():
    translator = make()
    scored = []
    translator.discriminator.register_forward_hook(lambda _, inputs, __: scored.append(inputs))
    batch = next(random_batches())
    list(translator.turns(iter([batch])))

    assert torch.equal(scored[0][0][: len(batch.thermal)], batch.thermal)
    assert torch.equal(scored[0][0][len(batch.thermal) :], scored[1][0])  # the generated images
    assert all(len(inputs) == 1 and inputs[0].shape[1] == 1 for inputs in scored)


def test_maxout_is_the_maximum_of_its_pieces():
    pieces = torch.tensor([[1.0, 5.0, -3.0, -4.0]])

    assert Maxout(2)(pieces).tolist() == [[5.0, -3.0]]


def test_only_the_discriminator_has_maxout_and_dropout():
    translator = make()

    def kinds(network):
        return [type(module) for module in network.modules()]

    assert kinds(translator.discriminator).count(Maxout) == 3
    assert translator.discriminator.layers[0].p == 0.2
    assert kinds(translator.discriminator).count(nn.Dropout) >= 4
    assert nn.Dropout not in kinds(translator.generator)


def test_generator_has_relu_and_sigmoid_and_starts_dense():
    kinds = [type(module) for module in make().generator.modules()]

    assert nn.ReLU in kinds
    assert nn.Sigmoid in kinds
    assert kinds.index(nn.Linear) < kinds.index(nn.ConvTranspose2d)


def test_no_layer_is_normalized():
    assert not [m for m in make().modules() if "Norm" in type(m).__name__]


def test_only_the_nonsaturating_gradient_is_large_for_a_losing_generator():
    score = torch.full((4,), -10.0, requires_grad=True)
    (nonsaturating,) = torch.autograd.grad(cross_entropy.generator(score), score)
    (saturating,) = torch.autograd.grad(minimax.generator(score), score)

    assert nonsaturating.norm() > 1000 * saturating.norm() > 0
    assert torch.sign(nonsaturating).equal(torch.sign(saturating))


def test_generator_loss_is_a_setting():
    terms = {}
    for name in ("nonsaturating", "minimax"):
        *_, generator = make(generator_loss=name).turns(random_batches())
        terms[name] = generator.terms["adversarial"].item()

    assert terms["nonsaturating"] > 0 > terms["minimax"]


def test_sgd_momentum_rises_and_learning_rate_decays_per_update():
    translator = make()
    player_optimizer = build_optimizers(translator)["generator"]
    assert isinstance(player_optimizer.optimizer, torch.optim.SGD)
    momenta = []
    for progress in (0.0, 0.5, 1.0):
        player_optimizer.schedule(1.0, progress)
        momenta.append(player_optimizer.optimizer.param_groups[0]["momentum"])

    assert momenta == pytest.approx([0.5, 0.6, 0.7])
    assert translator.learning_rate_factor(4 * 1000, 10**6) == pytest.approx(1.000004**-1000)


def test_learning_rate_decays_per_update_with_several_workers():
    translator = make()
    translator.workers = 2

    assert translator.learning_rate_factor(4 * 1000, 10**6) == pytest.approx(1.000004**-500)


def test_learning_rate_has_a_minimum():
    translator = make(generator_lr=0.004)

    assert translator.learning_rate_factor(10**9, 10**9) == pytest.approx(1e-6 / 0.004)


def test_discriminator_and_generator_take_one_turn_each():
    assert [turn.player for turn in make().turns(random_batches())] == [
        "discriminator",
        "generator",
    ]


def test_both_priors_have_unit_variance():
    for prior in ("normal", "uniform"):
        z = make(latent_prior=prior).draw_latent(4000)
        assert z.std().item() == pytest.approx(1, abs=0.02)
    assert z.abs().max() <= math.sqrt(3)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_initialization_preserves_the_signal_scale(size):
    torch.manual_seed(0)
    translator = build("gan", size, {"generator_width": 16, "discriminator_width": 16})
    thermal = torch.rand(8, 1, size, size) * 2 - 1
    fake = translator.translate(torch.rand(8, 3, size, size) * 2 - 1)

    assert 0.05 < translator.discriminator(thermal).std() < 2
    assert 0.1 < fake.std() < 0.7


def test_first_two_pools_overlap():
    with torch.device("meta"):
        discriminator = build("gan", 64, {}).discriminator
    pools = [
        (m.kernel_size, m.stride) for m in discriminator.modules() if isinstance(m, nn.MaxPool2d)
    ]

    assert pools == [(4, 2), (4, 2), (2, 2)]


def test_dense_layers_get_the_latent_and_an_rgb_thumbnail():
    translator, rgb = make(), next(random_batches()).rgb
    z, inputs = translator.draw_latent(len(rgb)), []
    translator.generator.dense.register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    translator.translate(rgb, z)

    thumbnail = rgb.unflatten(3, (8, -1)).unflatten(2, (8, -1)).mean((3, 5)).flatten(1)
    assert torch.allclose(inputs[0], torch.cat([z, thumbnail], dim=1), atol=1e-6)

from contextlib import nullcontext

import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.networks import PatchDiscriminator, UNet
from thermal_search.networks.unet import Dropout
from thermal_search.training.moving_average import MovingAverage, recompute_batch_norm
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step


def make(**parameters):
    torch.manual_seed(0)
    return build("pix2pix", SIZE, TINY["pix2pix"] | parameters)


@pytest.mark.parametrize("is_on", [True, False])
def test_dropout_is_the_only_noise_at_test_time(is_on):
    translator = make(test_dropout=is_on).eval()
    rgb = next(random_batches()).rgb

    is_same = torch.equal(translator.translate(rgb), translator.translate(rgb))

    assert is_same != is_on


@torch.enable_grad()
def trained(**parameters):
    """After two steps on one image at a time, as in the paper."""
    translator = make(dropout=0.0, batch_size=1, **parameters).train()
    batches, optimizers = random_batches(batch=1), build_optimizers(translator)
    for _ in range(2):
        train_step(translator, optimizers, batches, group=WorkerGroup(), autocast=nullcontext())
    return translator


@torch.no_grad()
def test_image_is_translated_with_its_own_statistics_in_any_batch():
    translator, rgb = trained(), next(random_batches(3)).rgb
    as_in_training = torch.cat([translator.translate(image) for image in rgb.split(1)])
    translator.eval()

    alone = torch.cat([translator.translate(image) for image in rgb.split(1)])
    assert torch.allclose(alone, as_in_training, atol=1e-6)
    assert torch.allclose(translator.translate(rgb), alone, atol=1e-6)


@torch.no_grad()
def test_running_averages_are_a_setting():
    translator, rgb = trained(test_norm_stats="running"), next(random_batches(3)).rgb
    as_in_training = translator.translate(rgb[:1])
    translator.eval()

    assert not torch.allclose(translator.translate(rgb[:1]), as_in_training, atol=1e-2)
    assert torch.allclose(translator.translate(rgb)[:1], translator.translate(rgb[:1]), atol=1e-6)


def test_moving_average_has_no_statistics_to_recompute():
    average = MovingAverage(trained().eval().generator, 100).network

    def refuse(_):
        raise AssertionError("translated a batch")

    recompute_batch_norm(average, refuse, random_batches())
    assert list(average.buffers()) == []


def test_at_most_three_decoder_layers_have_dropout():
    def dropout_layers(size):
        with torch.device("meta"):
            network = UNet(size=size, width=4)
        return sum(isinstance(m, Dropout) for m in network.modules())

    assert [dropout_layers(size) for size in (8, 16, 32, 64, 256)] == [1, 2, 3, 3, 3]


def test_dropout_layers_start_at_the_bottleneck():
    has_dropout = [isinstance(layer[-1], Dropout) for layer in UNet(size=64, width=2).decoder]

    assert has_dropout == [True, True, True, False, False]


def test_first_bottleneck_and_output_layers_have_no_normalization():
    network = UNet(size=64, width=4)
    is_normalized = [isinstance(layer[-1], nn.BatchNorm2d) for layer in network.encoder]

    assert is_normalized == [False, True, True, True, True, False]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.output)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_batch_size_of_one_trains(norm):
    translator = make(norm=norm, batch_size=1).train()
    before = [parameter.detach().clone() for parameter in translator.parameters()]
    batches, optimizers = random_batches(batch=1), build_optimizers(translator)
    losses = train_step(
        translator, optimizers, batches, group=WorkerGroup(), autocast=nullcontext()
    )

    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.isfinite().all() for parameter in translator.parameters())
    assert not any(map(torch.equal, before, translator.parameters()))


@pytest.mark.parametrize(("layers", "pixels"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_receptive_field_of_a_patch_is_the_papers(layers, pixels):
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(in_channels=4, width=2, layers=layers, norm="none").double()
    images = torch.zeros(1, 4, 256, 256, dtype=torch.float64, requires_grad=True)
    scores = discriminator(images)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()

    gradient = images.grad[0].abs().sum(0)
    assert int((gradient.sum(1) > 0).sum()) == pixels
    assert int((gradient.sum(0) > 0).sum()) == pixels


def test_discriminator_scores_30_x_30_patches_at_256_pixels():
    with torch.device("meta"):
        translator = build("pix2pix", 256, {})
        scores = translator.discriminator(torch.zeros(1, 4, 256, 256))

    assert scores.shape == (1, 1, 30, 30)


def test_discriminator_has_fewer_layers_for_small_images():
    with torch.device("meta"):
        assert build("pix2pix", 32, {}).discriminator(torch.zeros(1, 4, 32, 32)).shape[-1] == 6
        assert build("pix2pix", 64, {}).discriminator(torch.zeros(1, 4, 64, 64)).shape[-1] == 6


def test_discriminator_plays_first_with_half_the_loss():
    translator = make()
    nn.init.zeros_(translator.discriminator.layers[-1].weight)
    turns = translator.turns(random_batches())
    first = next(turns)

    assert first.player == "discriminator"
    # Logits of 0: -log(1/2) each for real and fake, halved.
    assert first.loss.item() == pytest.approx(torch.tensor(2.0).log().item())
    assert next(turns).player == "generator"
    assert next(turns, None) is None


def test_l1_term_has_its_weight():
    translator = make(l1_weight=7.0, dropout=0.0)
    batch = next(random_batches())
    *_, generator_turn = translator.turns(iter([batch]))

    expected = 7 * (translator.generator(batch.rgb) - batch.thermal).abs().mean()
    assert generator_turn.terms["l1"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_learning_rates_are_constant_then_fall_to_zero():
    translator = make(decay_start=0.5)

    assert [translator.learning_rate_factor(n, 100) for n in (0, 50, 75, 100)] == [1, 1, 0.5, 0]
    assert make(decay_start=1.0).learning_rate_factor(100, 100) == 1


def test_both_players_use_adam_with_published_settings():
    for player in build("pix2pix", SIZE, {}).players().values():
        assert player.optimizer.algorithm == "adam"
        assert (player.optimizer.lr, player.optimizer.betas) == (2e-4, (0.5, 0.999))


def test_weights_start_with_a_std_of_0_02():
    torch.manual_seed(0)
    weights = build("pix2pix", SIZE, {}).generator.encoder[2][1].weight

    assert weights.std().item() == pytest.approx(0.02, rel=0.02)


def test_encoder_and_discriminator_use_leaky_relu_and_decoder_relu():
    network = UNet(size=32, width=2)
    slopes = [m.negative_slope for m in network.encoder.modules() if isinstance(m, nn.LeakyReLU)]

    assert slopes == [0.2] * 4
    assert [type(layer[0]) for layer in network.decoder] == [nn.ReLU] * 4
    assert isinstance(network.output[0], nn.ReLU)
    modules = make().discriminator.modules()
    activations = [m for m in modules if isinstance(m, (nn.ReLU, nn.LeakyReLU))]
    assert [m.negative_slope for m in activations] == [0.2] * 3


def test_skip_connections_carry_gradients_past_a_blocked_decoder_layer():
    network = UNet(size=32, width=2, dropout=0.0)
    for blocked in range(len(network.decoder)):
        network.zero_grad()
        weight = network.decoder[blocked][1].weight
        original = weight.detach().clone()
        nn.init.zeros_(weight)
        network(torch.randn(2, 3, 32, 32)).sum().backward()
        weight.data = original
        has_gradient = [bool(layer[1].weight.grad.any()) for layer in network.encoder]
        assert has_gradient == [True] * (4 - blocked) + [False] * (blocked + 1)


def test_discriminator_normalizes_all_but_its_first_and_last_layer():
    discriminator = PatchDiscriminator(in_channels=4, width=2)
    kinds = [type(m) for m in discriminator.layers if not isinstance(m, nn.LeakyReLU)]

    assert kinds == [nn.Conv2d] + [nn.Conv2d, nn.BatchNorm2d] * 3 + [nn.Conv2d]

from contextlib import nullcontext

import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

import search_spaces
from thermal_search.architectures import build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.networks import PatchDiscriminator, ResidualBlock, ResidualTranslator, UNet
from thermal_search.networks.patch import feature_matching_loss
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
    average = MovingAverage(trained().eval().generator).network

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
    translator = make(norm=norm, discriminator_norm=norm, batch_size=1).train()
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
        (scores,) = translator.discriminator(torch.zeros(1, 4, 256, 256))

    assert scores.shape == (1, 1, 30, 30)


def test_discriminator_has_fewer_layers_for_small_images():
    with torch.device("meta"):
        for size in (32, 64):
            (scores,) = build("pix2pix", size, {}).discriminator(torch.zeros(1, 4, size, size))
            assert scores.shape[-1] == 6


def test_discriminator_plays_first_with_half_the_loss():
    translator = make()
    nn.init.zeros_(translator.discriminator.scales[0].layers[-1].weight)
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


@pytest.mark.parametrize("size", [32, 256])
def test_each_scale_of_the_discriminator_scores_an_image_half_as_large(size):
    with torch.device("meta"):
        translator = build("pix2pix", size, {"scales": 3})
        inputs = []
        for scale in translator.discriminator.scales:
            scale.register_forward_hook(lambda _, x, __: inputs.append(x[0].shape[-1]))
        scores = translator.discriminator(torch.zeros(1, 4, size, size))

    assert inputs == [size, size // 2, size // 4]
    assert len(scores) == 3


def test_feature_matching_compares_every_layer_but_the_scores():
    translator, batch = make(feature_matching=True, scales=2), next(random_batches())
    discriminator = translator.discriminator
    real = torch.cat([batch.rgb, batch.thermal], 1)
    fake = torch.cat([batch.rgb, -batch.thermal], 1)
    pairs = zip(discriminator.features(real), discriminator.features(fake), strict=True)
    by_layer = [
        (one - other).abs().mean()
        for layers, others in pairs
        for one, other in zip(layers[:-1], others[:-1], strict=True)
    ]

    # Two strided layers at each scale of so small an image, and the layer after them.
    assert len(by_layer) == 3 + 2
    expected = 4 * torch.stack(by_layer).mean()
    assert feature_matching_loss(discriminator, real, fake).item() == pytest.approx(
        expected.item(), rel=1e-5
    )
    assert feature_matching_loss(discriminator, real, real) == 0


def test_feature_matching_trains_the_generator_if_switched_on():
    def terms(**parameters):
        *_, turn = make(dropout=0.0, **parameters).turns(random_batches())
        return turn.terms

    assert "feature_matching" not in terms()
    once, twice = (
        terms(feature_matching=True, feature_matching_weight=weight) for weight in (1.0, 2.0)
    )
    assert twice["feature_matching"].item() == pytest.approx(
        2 * once["feature_matching"].item(), rel=1e-5
    )
    assert once["feature_matching"].requires_grad


def test_r1_is_the_squared_gradient_at_real_thermal_images():
    translator = make(r1=True, r1_gamma=4.0, discriminator_norm="instance")
    batch = next(random_batches())
    turn = next(translator.turns(iter([batch])))
    real = batch.thermal.clone().requires_grad_(True)
    (scores,) = translator.discriminator(torch.cat([batch.rgb, real], 1))
    (gradient,) = torch.autograd.grad(scores.mean((1, 2, 3)).sum(), real)

    expected = 2 * gradient.square().sum((1, 2, 3)).mean()
    assert turn.terms["r1"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_spectral_norm_bounds_the_discriminators_weights():
    translator = make(spectral_norm=True).train()
    train_step(
        translator,
        build_optimizers(translator),
        random_batches(),
        group=WorkerGroup(),
        autocast=nullcontext(),
    )
    translator.eval()
    weights = [
        m.weight.flatten(1) for m in translator.discriminator.modules() if isinstance(m, nn.Conv2d)
    ]

    assert len(weights) == 4
    for weight in weights:
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=0.2)
    assert not any(hasattr(m, "parametrizations") for m in translator.generator.modules())


def test_residual_generator_is_cyclegans():
    translator = build("pix2pix", 64, {"generator_network": "resnet", "generator_width": 4})

    assert isinstance(translator.generator, ResidualTranslator)
    blocks = sum(isinstance(m, ResidualBlock) for m in translator.generator.modules())
    assert blocks == 6
    assert not any(isinstance(m, Dropout) for m in translator.generator.modules())


def test_discriminator_scores_augmented_pairs_if_switched_on():
    translator, batch, scored = make(diff_augment=True), next(random_batches()), []
    translator.discriminator.register_forward_hook(lambda _, x, __: scored.append(x[0]))
    *_, turn = translator.turns(iter([batch]))

    assert len(scored) == 3
    for pair in scored:
        assert not torch.equal(pair[:, :3], batch.rgb)
        # A quarter of the thermal image is cut out, and the RGB image is only moved.
        assert (pair[:, 3:] == 0).float().mean() > 0.15
        assert (pair[:, :3] == 0).float().mean() < 0.3
    assert turn.terms["adversarial"].requires_grad


@pytest.mark.parametrize(
    ("chosen", "is_active"),
    [
        ({"generator_network": "unet", "norm": "batch"}, True),
        ({"generator_network": "unet", "norm": "instance"}, False),
        ({"generator_network": "resnet"}, False),
    ],
)
def test_statistics_at_test_time_are_searched_only_for_a_unet_with_batch_normalization(
    chosen, is_active
):
    space = search_spaces.load("pix2pix")

    assert space.is_active("norm", chosen) == ("norm" in chosen)
    assert space.is_active("test_norm_stats", chosen) == is_active
    translator = build("pix2pix", SIZE, TINY["pix2pix"] | chosen)
    has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in translator.generator.modules())
    assert has_batch_norm == is_active

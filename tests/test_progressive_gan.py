import itertools
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn
from training_helpers import plan_of, trial_of

from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.networks.progressive import (
    EqualizedConv2d,
    EqualizedLinear,
    Growth,
    GrowthSchedule,
    MinibatchStd,
    ProgressiveNetwork,
    pixel_norm,
)
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step


def make(**parameters):
    torch.manual_seed(0)
    return build("progressive_gan", SIZE, TINY["progressive_gan"] | parameters)


def grown(translator, resolution, alpha):
    translator.generator.growth = translator.discriminator.growth = Growth(resolution, alpha)
    return translator


def test_growth_is_a_function_of_the_budget_fraction():
    schedule = GrowthSchedule(size=32, start_resolution=4)
    stages = [schedule.at(step / 200) for step in range(200)]

    assert stages[0] == Growth(4, 1.0)
    assert stages[-1] == Growth(32, 1.0)
    assert {stage.resolution for stage in stages} == {4, 8, 16, 32}
    for before, after in itertools.pairwise(stages):
        assert (before.resolution, before.alpha) <= (after.resolution, after.alpha) or (
            after.resolution == 2 * before.resolution
        )
    # Three doublings take 0.65 of the budget; half of that is fading.
    fading = sum(stage.alpha < 1 for stage in stages) / 200
    assert fading == pytest.approx(0.65 / 2, abs=0.02)
    assert schedule.at(0.65) == Growth(32, 1.0)
    assert schedule.at(0.64).alpha < 1


def test_growth_depends_on_the_full_budget():
    translator = make()
    translator.begin_step(100, 100_000)
    assert translator.generator.growth.resolution == 4
    translator.begin_step(100, 100)
    assert translator.generator.growth.resolution == 32


def test_new_resolution_starts_as_the_enlarged_old_one():
    translator = make()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    old = grown(translator, 8, 1.0).generator(rgb, z)
    new = grown(translator, 16, 0.0).generator(rgb, z)

    assert torch.equal(new, F.interpolate(old, scale_factor=2))


def test_alpha_of_one_half_is_the_mean_of_both_resolutions():
    translator = make()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    first = grown(translator, 16, 0.0).generator(rgb, z)
    last = grown(translator, 16, 1.0).generator(rgb, z)

    assert torch.allclose(
        grown(translator, 16, 0.5).generator(rgb, z), (first + last) / 2, atol=1e-6
    )


def test_discriminator_fades_in_new_layers_too():
    translator, batch = make(), next(random_batches())
    coarse = [F.avg_pool2d(images, 4) for images in (batch.rgb, batch.thermal)]
    fine = [F.interpolate(images, scale_factor=2) for images in coarse]
    old = grown(translator, 8, 1.0).discriminator(*coarse)

    assert torch.allclose(grown(translator, 16, 0.0).discriminator(*fine), old, atol=1e-5)


def test_real_images_are_blended_while_fading():
    translator, image = make(), torch.randn(1, 1, 32, 32)
    fine, coarse = F.avg_pool2d(image, 2), F.interpolate(F.avg_pool2d(image, 4), scale_factor=2)
    discriminator = translator.discriminator

    for alpha in (1.0, 0.25, 0.0):
        expected = coarse * (1 - alpha) + fine * alpha
        assert torch.allclose(
            grown(translator, 16, alpha).discriminator.downsample(image), expected
        )
    grown(translator, 16, 0.25)
    scored, batch = [], next(random_batches())
    discriminator.register_forward_hook(lambda _, x, __: scored.append(x))
    next(translator.turns(iter([batch])))
    assert torch.equal(scored[0][0], discriminator.downsample(batch.rgb))
    assert torch.equal(scored[0][1], discriminator.downsample(batch.thermal))


def test_translation_has_full_size_before_growth_ends():
    translator = grown(make(), 8, 1.0)
    thermal = translator.translate(next(random_batches()).rgb)

    assert thermal.shape == (BATCH, 1, SIZE, SIZE)
    assert torch.allclose(thermal, F.interpolate(F.avg_pool2d(thermal, 4), scale_factor=4))


def test_state_dict_contains_the_growth():
    translator = grown(make(), 16, 0.25)
    other = make()
    other.generator.load_state_dict(translator.generator.state_dict())

    assert other.generator.growth == Growth(16, 0.25)


def test_optimizers_are_reset_at_both_ends_of_a_fade():
    translator, was_fading, resets = make(), False, []
    for images in range(0, 1000, 10):
        is_reset = translator.begin_step(images, 1000)
        assert is_reset == (translator.generator.is_fading != was_fading)
        was_fading = translator.generator.is_fading
        resets.append(is_reset)

    assert sum(resets) == 6
    restored = make()
    restored.load_state_dict(translator.state_dict())
    assert not restored.begin_step(990, 1000)


def test_reset_clears_adams_state():
    translator = grown(make(), 8, 1.0)
    player_optimizer = build_optimizers(translator)["generator"]
    *_, turn = translator.turns(random_batches())
    turn.loss.backward(inputs=player_optimizer.parameters)
    player_optimizer.optimizer.step()
    assert player_optimizer.optimizer.state
    player_optimizer.reset()

    assert not player_optimizer.optimizer.state


@pytest.mark.parametrize("layer", [EqualizedConv2d(64, 64, 3), EqualizedLinear(256, 256)])
def test_weights_have_unit_std_and_are_scaled_by_their_fan_in(layer):
    fan_in = layer.weight[0].numel()

    assert layer.weight.std().item() == pytest.approx(1, rel=0.05)
    assert layer.scale == pytest.approx((2 / fan_in) ** 0.5)
    is_dense = layer.weight.dim() == 2
    out = layer(torch.ones(1, fan_in) if is_dense else torch.ones(1, fan_in // 9, 3, 3))
    middle = out[0] if is_dense else out[0, :, 1, 1]
    assert torch.allclose(middle, layer.weight.flatten(1).sum(1) * layer.scale, atol=1e-4)


def test_gain_is_one_in_output_layers_and_a_quarter_in_the_first_dense_layer():
    translator = make(latent_size=8)
    for output in (translator.generator.to_thermal["8"], translator.discriminator.head[-1]):
        assert output.scale == pytest.approx(output.weight[0].numel() ** -0.5)
    assert translator.generator.dense.scale == pytest.approx(2**0.5 / 4 / 8**0.5)


def test_generator_normalizes_pixels_after_every_convolution():
    features = pixel_norm(torch.randn(2, 8, 4, 4) * 9)
    assert torch.allclose(features.square().mean(1), torch.ones(2, 4, 4), atol=1e-4)
    translator = grown(make(), 32, 1.0)
    inputs = []
    generator = translator.generator
    for convolution in [*generator.second_conv.values(), *generator.to_thermal.values()]:
        convolution.register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    generator(next(random_batches()).rgb, 5 * translator.draw_latent(BATCH))

    generator.first_conv["4"].register_forward_hook(lambda _, x, __: inputs.append(x[0][:, :16]))
    generator(next(random_batches()).rgb, 5 * translator.draw_latent(BATCH))

    assert len(inputs) == 4 + 4 + 1
    for x in inputs:
        assert torch.allclose(x.square().mean(1), torch.ones_like(x[:, 0]), atol=1e-3)


def test_latent_is_normalized():
    translator = grown(make(), 8, 1.0)
    # Without a bias, the normalization of the features would hide the latent's length.
    translator.generator.dense_bias.data.fill_(1.0)
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)

    assert torch.allclose(
        translator.generator(rgb, z), translator.generator(rgb, 10 * z), atol=1e-5
    )


def test_minibatch_std_is_one_channel_that_is_zero_for_equal_images():
    layer = MinibatchStd(4)
    equal = layer(torch.ones(8, 3, 4, 4))
    different = layer(torch.randn(8, 3, 4, 4))

    assert equal.shape == (8, 4, 4, 4)
    assert equal[:, 3].max() < 1e-3
    assert 0.5 < different[:, 3].mean() < 1.2
    assert layer(torch.randn(6, 3, 4, 4)).shape == (6, 4, 4, 4)  # groups of two


def test_minibatch_std_groups_every_second_image_of_eight():
    images = torch.randn(8, 3, 4, 4)
    images[::2] = 1
    std = MinibatchStd(4)(images)[:, 3].mean((1, 2))

    assert std[::2].max() < 1e-3
    assert std[1::2].min() > 0.5


def test_minibatch_std_is_computed_in_float32():
    images = torch.randn(256, 1, 1, 1).bfloat16()
    exact = MinibatchStd(4)(images.float())[:, 1:]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(MinibatchStd(4)(images)[:, 1:], exact.bfloat16())


def test_score_depends_on_the_other_images_of_its_group():
    batch = next(random_batches())
    pair = [F.avg_pool2d(images, 4) for images in (batch.rgb, batch.thermal)]
    repeated = [images[:1].expand_as(images) for images in pair]
    grouped, single = (grown(make(mbstd_group_size=n), 8, 1.0).discriminator for n in (4, 1))

    assert not torch.allclose(grouped(*pair)[0], grouped(*repeated)[0], atol=1e-4)
    assert torch.allclose(single(*pair)[0], single(*repeated)[0], atol=1e-5)


def test_discriminator_has_no_norm_layers_and_generator_no_tanh():
    translator = make()

    assert not [m for m in translator.discriminator.modules() if "Norm" in type(m).__name__]
    assert not [m for m in translator.generator.modules() if isinstance(m, nn.Tanh)]
    translator.generator.to_thermal["4"].weight.data *= 100
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    assert translator.generator(rgb, z).abs().max() > 2
    assert translator.translate(rgb, z).abs().max() == 1


def test_default_settings_are_the_published_ones():
    translator = make()
    turn = next(translator.turns(random_batches()))
    config = build("progressive_gan", SIZE, {"channel_base": 64}).config

    assert set(turn.terms) == {"wasserstein", "penalty", "drift"}
    assert (config.penalty_weight, config.drift_weight) == (10, 1e-3)
    for player_optimizer in build_optimizers(translator).values():
        assert player_optimizer.optimizer.defaults["betas"] == (0.0, 0.99)
    assert 0.5 ** (16 / config.ema_half_life_images) == pytest.approx(0.999, abs=1e-4)


def test_half_life_follows_the_batch_size_so_that_the_decay_per_step_stays():
    config = ARCHITECTURES["progressive_gan"].Config(size=512, growth_fraction=0.7)
    half_lives = {}
    for step in range(100):
        progress = step / 100
        half_life, batch = config.ema_half_life_at(progress), config.batch_size_at(progress)
        half_lives[config.schedule.at(progress).resolution] = half_life
        assert 0.5 ** (batch / half_life) == pytest.approx(0.999, abs=1e-5)

    assert half_lives == {
        4: 88_000, 8: 88_000, 16: 88_000, 32: 44_000, 64: 22_000, 128: 11_000, 256: 5500, 512: 2750
    }  # fmt: skip
    # StyleGAN's code has a half-life in images.
    config = ARCHITECTURES["stylegan"].Config(size=512)
    assert {config.ema_half_life_at(step / 100) for step in range(100)} == {10_000}


def test_trial_averages_with_the_half_life_of_the_resolution_reached(tmp_path):
    parameters = {"ema_half_life_images": 100}  # as many steps, of one image each at 128 pixels
    trial = trial_of(plan_of(tmp_path, "progressive_gan", parameters=parameters, images=10**6))
    for images, resolution in ((100_000, 4), (900_000, SIZE)):
        trial.progress.images = images
        before = parameters_of(trial.average.network)
        trial.step()
        live, after = (
            parameters_of(network)
            for network in (trial.translator.generator, trial.average.network)
        )

        assert trial.translator.generator.growth.resolution == resolution
        share = (after - before).norm() / (live - before).norm()
        assert share.item() == pytest.approx(1 - 0.5 ** (1 / 100), rel=0.02)


def parameters_of(network):
    return torch.cat([p.detach().double().flatten() for p in network.parameters()])


def test_discriminator_downsamples_before_the_activation():
    block = make().discriminator.blocks[str(SIZE)]
    features = torch.randn(2, block[0].weight.shape[1], SIZE, SIZE)
    block[3].bias.data.normal_()
    hidden = F.leaky_relu(block[0](features), 0.2)
    expected = F.leaky_relu(F.avg_pool2d(block[3](hidden), 2), 0.2)

    assert torch.allclose(block(features), expected, atol=1e-6)


class Product(ProgressiveNetwork):
    """Scores a pair by the product of its red and its thermal channel, so that the gradient with
    respect to the thermal image is the red channel."""

    def __init__(self):
        super().__init__(Growth(SIZE, 1.0))

    def forward(self, rgb, thermal):
        return (rgb[:, 0] * thermal[:, 0]).sum((1, 2))


def test_penalty_targets_a_gradient_norm_of_one_with_respect_to_thermal():
    translator, batch = grown(make(penalty_weight=3.0), SIZE, 1.0), next(random_batches())
    translator.discriminator = Product()
    turn = next(translator.turns(iter([batch])))
    norm = batch.rgb[:, 0].flatten(1).norm(dim=1)

    assert turn.terms["penalty"].item() == pytest.approx(
        3 * (norm - 1).square().mean().item(), rel=1e-4
    )


def test_drift_term_is_the_squared_score_of_real_pairs():
    translator, batch = make(drift_weight=1.0), next(random_batches())
    discriminator = translator.discriminator
    score = discriminator(*map(discriminator.downsample, (batch.rgb, batch.thermal)))
    turn = next(translator.turns(iter([batch])))

    assert turn.terms["drift"].item() == pytest.approx(score.square().mean().item(), rel=1e-4)


def test_trial_and_its_moving_average_grow_to_full_size(tmp_path):
    plan = plan_of(tmp_path, "progressive_gan", parameters={"ema_half_life_images": 50})
    trial = trial_of(plan)
    list(trial.evaluations())

    assert trial.average is not None
    assert trial.average.network.growth == trial.translator.generator.growth == Growth(32, 1.0)
    # Of four steps, Adam's state covers only the two since the last fade.
    player_optimizer = trial.optimizers["generator"]
    assert player_optimizer.optimizer.state[player_optimizer.parameters[0]]["step"] == 2


def test_images_shown_count_the_batches_of_each_resolution(tmp_path):
    trial, scored, shown = trial_of(plan_of(tmp_path, "progressive_gan")), [], []
    trial.translator.discriminator.register_forward_hook(lambda _, x, __: scored.append(len(x[0])))
    while not trial.is_done:
        before = trial.progress.images
        trial.step()
        shown.append((trial.progress.images - before, {*scored}))
        scored.clear()

    assert shown == [(8, {8}), (8, {8}), (4, {4}), (4, {4})]


@pytest.mark.parametrize("name", ["progressive_gan", "stylegan"])
def test_batch_size_by_resolution_is_that_of_the_authors_code_for_one_gpu(name):
    def batch_sizes(**parameters):
        config = ARCHITECTURES[name].Config(size=1024, start_resolution=4, **parameters)
        return {
            config.schedule.at(step / 1000).resolution: config.batch_size_at(step / 1000)
            for step in range(1000)
        }

    published = {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4, 1024: 4}
    assert batch_sizes() == published
    assert batch_sizes(batch_size=4)[128] == 4
    assert min(batch_sizes(batch_size=1).values()) == 1


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("progressive_gan", {1024: 1.5}),
        ("stylegan", {128: 1.5, 256: 2.0, 512: 3.0, 1024: 3.0}),
    ],
)
def test_learning_rate_by_resolution_is_that_of_the_authors_code(name, factors):
    with torch.device("meta"):
        translator = build(name, 1024, {"channel_base": 1024})
    for step in range(1000):
        resolution = translator.schedule.at(step / 1000).resolution
        assert translator.learning_rate_factor(step, 1000) == factors.get(resolution, 1.0)


def test_layers_no_longer_used_get_no_gradient():
    translator = grown(make(), 8, 1.0)
    optimizers = build_optimizers(translator)

    def step():
        train_step(
            translator, optimizers, random_batches(), group=WorkerGroup(), autocast=nullcontext()
        )

    step()
    assert translator.generator.to_thermal["8"].weight.grad is not None
    grown(translator, 16, 1.0)
    step()
    assert translator.generator.to_thermal["8"].weight.grad is None

import itertools
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.networks.progressive import (
    EqualizedConv2d,
    EqualizedLinear,
    Growth,
    MinibatchStd,
    ProgressiveNetwork,
    growth_at,
    pixel_norm,
)
from thermal_search.training.step import build_optimizers, train_step


def make(**parameters):
    torch.manual_seed(0)
    return build("progressive_gan", SIZE, TINY["progressive_gan"] | parameters)


def at(translator, resolution, alpha):
    translator.generator.growth = translator.discriminator.growth = Growth(resolution, alpha)
    return translator


def test_growth_is_a_function_of_the_share_of_the_budget():
    stages = [growth_at(share / 200, start=4, size=32) for share in range(200)]

    assert stages[0] == Growth(4, 1.0)
    assert stages[-1] == Growth(32, 1.0)
    assert {stage.resolution for stage in stages} == {4, 8, 16, 32}
    for before, after in itertools.pairwise(stages):
        assert (before.resolution, before.alpha) <= (after.resolution, after.alpha) or (
            after.resolution == 2 * before.resolution
        )
    # Three doublings share 0.65 of the budget; half of each is fading.
    fading = sum(stage.alpha < 1 for stage in stages) / 200
    assert fading == pytest.approx(0.65 / 2, abs=0.02)
    assert growth_at(0.65, start=4, size=32) == Growth(32, 1.0)
    assert growth_at(0.64, start=4, size=32).alpha < 1


def test_growth_follows_the_full_budget_however_short_the_rung():
    translator = make()
    translator.begin_step(100, 100_000)
    assert translator.generator.growth.resolution == 4
    translator.begin_step(100, 100)
    assert translator.generator.growth.resolution == 32


def test_a_new_resolution_begins_as_the_enlarged_old_one():
    translator = make()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    old = at(translator, 8, 1.0).generator(rgb, z)
    new = at(translator, 16, 0.0).generator(rgb, z)

    assert torch.equal(new, F.interpolate(old, scale_factor=2))


def test_half_way_is_half_of_each():
    translator = make()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    first = at(translator, 16, 0.0).generator(rgb, z)
    last = at(translator, 16, 1.0).generator(rgb, z)

    assert torch.allclose(at(translator, 16, 0.5).generator(rgb, z), (first + last) / 2, atol=1e-6)


def test_the_discriminator_fades_in_the_same_way():
    translator, batch = make(), next(random_batches())
    coarse = [F.avg_pool2d(images, 4) for images in (batch.rgb, batch.thermal)]
    fine = [F.interpolate(images, scale_factor=2) for images in coarse]
    old = at(translator, 8, 1.0).discriminator(*coarse)

    assert torch.allclose(at(translator, 16, 0.0).discriminator(*fine), old, atol=1e-5)


def test_real_pictures_are_faded_too():
    image = torch.randn(1, 1, 32, 32)
    fine, coarse = F.avg_pool2d(image, 2), F.interpolate(F.avg_pool2d(image, 4), scale_factor=2)

    translator = make()
    judge = translator.discriminator
    assert torch.allclose(at(translator, 16, 1.0).discriminator.shown(image), fine)
    assert torch.allclose(
        at(translator, 16, 0.25).discriminator.shown(image), coarse * 0.75 + fine * 0.25
    )
    assert torch.allclose(at(translator, 16, 0.0).discriminator.shown(image), coarse)
    seen = []
    translator.discriminator.register_forward_hook(lambda _, x, __: seen.append(x))
    batch = next(random_batches())
    next(translator.turns(iter([batch])))
    assert torch.equal(seen[0][1], judge.shown(batch.thermal))
    assert torch.equal(seen[0][0], judge.shown(batch.rgb))


def test_before_it_has_grown_it_paints_the_full_size_enlarged():
    translator = at(make(), 8, 1.0)
    thermal = translator.translate(next(random_batches()).rgb)

    assert thermal.shape == (BATCH, 1, SIZE, SIZE)
    assert torch.allclose(thermal, F.interpolate(F.avg_pool2d(thermal, 4), scale_factor=4))


def test_growth_travels_with_the_generators_weights():
    translator = at(make(), 16, 0.25)
    other = make()
    other.generator.load_state_dict(translator.generator.state_dict())

    assert other.generator.growth == Growth(16, 0.25)


def test_optimizers_start_afresh_when_the_resolution_doubles_and_only_then():
    translator = make()
    fresh = [translator.begin_step(images, 1000) for images in range(0, 1000, 10)]
    resolutions = sum(fresh)

    assert resolutions == 3
    again = make()
    again.load_state_dict(translator.state_dict())
    assert not again.begin_step(990, 1000)  # restored, not doubled


def test_forgetting_clears_what_adam_has_gathered():
    translator = at(make(), 8, 1.0)
    player_optimizer = build_optimizers(translator)["generator"]
    *_, turn = translator.turns(random_batches())
    turn.loss.backward(inputs=player_optimizer.parameters)
    player_optimizer.optimizer.step()
    assert player_optimizer.optimizer.state
    player_optimizer.reset()

    assert not player_optimizer.optimizer.state


@pytest.mark.parametrize("layer", [EqualizedConv2d(64, 64, 3), EqualizedLinear(256, 256)])
def test_weights_are_stored_with_unit_spread_and_scaled_by_their_fan_in(layer):
    fan_in = layer.weight[0].numel()

    assert layer.weight.std().item() == pytest.approx(1, rel=0.05)
    assert layer.scale == pytest.approx((2 / fan_in) ** 0.5)
    is_dense = layer.weight.dim() == 2
    out = layer(torch.ones(1, fan_in) if is_dense else torch.ones(1, fan_in // 9, 3, 3))
    middle = out[0] if is_dense else out[0, :, 1, 1]
    assert torch.allclose(middle, layer.weight.flatten(1).sum(1) * layer.scale, atol=1e-4)


def test_gains_are_one_where_no_rectifier_follows_and_a_quarter_at_the_root():
    translator = make(latent_size=8)
    paint = translator.generator.paint["8"]
    last = translator.discriminator.head[-1]

    assert paint.scale == pytest.approx(paint.weight[0].numel() ** -0.5)
    assert last.scale == pytest.approx(last.weight[0].numel() ** -0.5)
    assert translator.generator.root.scale == pytest.approx(2**0.5 / 4 / 8**0.5)


def test_pixels_are_normalised_after_every_convolution_of_the_generator():
    features = pixel_norm(torch.randn(2, 8, 4, 4) * 9)
    assert torch.allclose(features.square().mean(1), torch.ones(2, 4, 4), atol=1e-4)
    translator = at(make(), 32, 1.0)
    inputs = []
    for convolution in [
        *translator.generator.second.values(),
        *translator.generator.paint.values(),
    ]:
        convolution.register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    translator.generator(next(random_batches()).rgb, 5 * translator.draw_latent(BATCH))

    translator.generator.first["4"].register_forward_hook(
        lambda _, x, __: inputs.append(x[0][:, :16])
    )
    translator.generator(next(random_batches()).rgb, 5 * translator.draw_latent(BATCH))

    assert len(inputs) == 4 + 4 + 1
    for seen in inputs:
        assert torch.allclose(seen.square().mean(1), torch.ones_like(seen[:, 0]), atol=1e-3)


def test_the_length_of_the_latent_does_not_matter():
    translator = at(make(), 8, 1.0)
    translator.generator.root_bias.data.fill_(1.0)  # or what follows would hide the length
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)

    assert torch.allclose(
        translator.generator(rgb, z), translator.generator(rgb, 10 * z), atol=1e-5
    )


def test_minibatch_deviation_is_one_channel_that_tells_sameness():
    deviation = MinibatchStd(4)
    same = deviation(torch.ones(8, 3, 4, 4))
    spread = deviation(torch.randn(8, 3, 4, 4))

    assert same.shape == (8, 4, 4, 4)
    assert same[:, 3].max() < 1e-3
    assert 0.5 < spread[:, 3].mean() < 1.2
    assert deviation(torch.randn(6, 3, 4, 4)).shape == (6, 4, 4, 4)  # groups of two
    # Every second image is of one group: one of equal images, one of different ones.
    mixed = torch.randn(8, 3, 4, 4)
    mixed[::2] = 1
    told = deviation(mixed)[:, 3].mean((1, 2))
    assert told[::2].max() < 1e-3
    assert told[1::2].min() > 0.5
    coarse = torch.randn(256, 1, 1, 1).bfloat16()
    exact = deviation(coarse.float())[:, 1:]
    with torch.autocast("cpu", torch.bfloat16):  # rounded once, at the end
        assert torch.equal(deviation(coarse)[:, 1:], exact.bfloat16())


def test_how_an_image_is_judged_depends_on_its_neighbours():
    batch = next(random_batches())
    pair = [F.avg_pool2d(images, 4) for images in (batch.rgb, batch.thermal)]
    crowd = [images[:1].expand_as(images) for images in pair]
    judge, blind = (at(make(mbstd_group_size=n), 8, 1.0).discriminator for n in (4, 1))

    assert not torch.allclose(judge(*pair)[0], judge(*crowd)[0], atol=1e-4)
    assert torch.allclose(blind(*pair)[0], blind(*crowd)[0], atol=1e-5)


def test_no_norm_layer_in_the_discriminator_and_no_tanh_at_the_end_of_the_generator():
    translator = make()

    assert not [m for m in translator.discriminator.modules() if "Norm" in type(m).__name__]
    assert not [m for m in translator.generator.modules() if isinstance(m, nn.Tanh)]
    translator.generator.paint["4"].weight.data *= 100
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    assert translator.generator(rgb, z).abs().max() > 2
    assert translator.translate(rgb, z).abs().max() == 1


def test_the_published_game():
    translator = make()
    turn = next(translator.turns(random_batches()))
    config = build("progressive_gan", SIZE, {"channel_base": 64}).config

    assert set(turn.terms) == {"wasserstein", "penalty", "drift"}
    assert (config.penalty_weight, config.drift_weight) == (10, 1e-3)
    for player_optimizer in build_optimizers(translator).values():
        assert player_optimizer.optimizer.defaults["betas"] == (0.0, 0.99)
    assert 0.5 ** (16 / config.ema_half_life_images) == pytest.approx(0.999, abs=1e-4)


class Product(ProgressiveNetwork):
    """Scores a pair by the product of its red and its thermal channel: with the RGB image held
    fixed, its slope is the red channel."""

    def __init__(self):
        super().__init__(Growth(SIZE, 1.0))

    def forward(self, rgb, thermal):
        return (rgb[:, 0] * thermal[:, 0]).sum((1, 2))


def test_the_penalty_wants_a_slope_of_one_by_the_thermal_picture_alone():
    translator, batch = at(make(penalty_weight=3.0), SIZE, 1.0), next(random_batches())
    translator.discriminator = Product()
    turn = next(translator.turns(iter([batch])))
    slope = batch.rgb[:, 0].flatten(1).norm(dim=1)

    assert turn.terms["penalty"].item() == pytest.approx(
        3 * (slope - 1).square().mean().item(), rel=1e-4
    )


def test_drift_is_the_squared_score_of_real_pairs():
    translator, batch = make(drift_weight=1.0), next(random_batches())
    judge = translator.discriminator
    score = judge(judge.shown(batch.rgb), judge.shown(batch.thermal))
    turn = next(translator.turns(iter([batch])))

    assert turn.terms["drift"].item() == pytest.approx(score.square().mean().item(), rel=1e-4)


def test_a_trial_grows_to_full_size_and_its_average_with_it(tmp_path):
    from test_training import plan_of, trial_of

    plan = plan_of(tmp_path, "progressive_gan", parameters={"ema_half_life_images": 50})
    trial = trial_of(plan)
    list(trial.evaluations())

    assert trial.average is not None
    assert trial.average.network.growth == trial.translator.generator.growth == Growth(32, 1.0)
    # Six steps were taken; Adam has gathered over those since the last doubling only.
    player_optimizer = trial.optimizers["generator"]
    assert player_optimizer.optimizer.state[player_optimizer.parameters[0]]["step"] < 6


def test_layers_left_behind_get_no_gradient_and_so_do_not_drift():
    translator = at(make(), 8, 1.0)
    optimizers = build_optimizers(translator)

    def step():
        train_step(
            translator, optimizers, random_batches(), group=WorkerGroup(), autocast=nullcontext()
        )

    step()
    assert translator.generator.paint["8"].weight.grad is not None
    at(translator, 16, 1.0)
    step()
    assert translator.generator.paint["8"].weight.grad is None

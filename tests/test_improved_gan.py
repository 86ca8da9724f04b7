import itertools
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn
from torch.nn.utils import parametrize

from thermal_search.architectures import build
from thermal_search.architectures.improved_gan import MinibatchDiscriminator, feature_matching
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.networks.historical_average import HistoricalAverage
from thermal_search.networks.minibatch_discrimination import MinibatchDiscrimination
from thermal_search.networks.virtual_batch_norm import VirtualBatchNorm
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step


def make(**parameters):
    torch.manual_seed(0)
    translator = build("improved_gan", SIZE, TINY["improved_gan"] | parameters)
    translator.init_from_data(next(random_batches(7, batch=8)))
    return translator


def last_turn(translator):
    *_, turn = translator.turns(random_batches())
    return turn


def test_matched_features_exclude_minibatch_discrimination():
    translator = make()
    pair = torch.randn(4, 4, SIZE, SIZE)
    _, features = translator.discriminator(pair)

    assert translator.discriminator.minibatch_discrimination is not None
    assert features.shape[1] == translator.discriminator.head.in_features - 6
    assert "feature_matching" in last_turn(translator).terms


def test_generator_turn_gives_the_discriminator_no_gradient():
    translator = make()
    optimizers = build_optimizers(translator)
    turns = translator.turns(random_batches())
    next(turns)
    turn = next(turns)
    turn.loss.backward(inputs=optimizers["generator"].parameters)

    assert all(p.grad is None for p in translator.discriminator.parameters())
    assert all(p.grad is not None for p in translator.generator.parameters())


def test_feature_matching_is_a_distance_of_mean_features():
    features = torch.randn(4, 8)

    assert feature_matching(features, features, "l1") == 0
    assert feature_matching(features, features + 1, "l1") == pytest.approx(1)
    assert feature_matching(features, features + 1, "l2") == pytest.approx(8)


@pytest.mark.parametrize(
    ("generator_loss", "terms"),
    [
        ("both", {"adversarial", "feature_matching", "historical_averaging"}),
        ("feature_matching", {"feature_matching", "historical_averaging"}),
        ("adversarial", {"adversarial", "historical_averaging"}),
    ],
)
def test_generator_loss_selects_the_terms(generator_loss, terms):
    assert set(last_turn(make(generator_loss=generator_loss)).terms) == terms


def test_minibatch_discrimination_counts_similar_images():
    compare = MinibatchDiscrimination(5, num_kernels=7, dim_per_kernel=3)
    compare.bias.data.zero_()
    same = torch.randn(1, 5).expand(6, -1)
    distant = 1e4 * torch.randn(6, 5)

    assert torch.allclose(compare(same), torch.full((6, 7), 5.0))
    assert torch.allclose(compare(distant), torch.zeros(6, 7))
    few = torch.randn(3, 5)
    kernels = compare.kernels / compare.kernels.norm(dim=2, keepdim=True)
    rows = torch.einsum("bf,kdf->bkd", few, kernels)
    near = [(-(rows[0] - rows[other]).abs().sum(1)).exp() for other in (1, 2)]
    assert torch.allclose(compare(few)[0], near[0] + near[1], atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compare(few), compare(few.float()))
        assert torch.allclose(compare(few)[0], near[0] + near[1], atol=1e-5)


def test_scale_of_the_kernels_does_not_affect_minibatch_discrimination():
    compare, features = (
        MinibatchDiscrimination(5, num_kernels=7, dim_per_kernel=3),
        torch.randn(4, 5),
    )
    before = compare(features)
    compare.kernels.data.mul_(100)

    assert torch.allclose(compare(features), before, atol=1e-5)


def test_minibatch_discrimination_starts_centered_and_at_the_scale_of_the_data():
    compare = MinibatchDiscrimination(5, num_kernels=7, dim_per_kernel=3)
    features = 1000 * torch.randn(16, 5)
    assert compare(features).add(1).abs().max() < 0.1  # all are unlike at first
    compare.init_from_data(features)

    assert torch.allclose(compare(features).mean(0), torch.zeros(7), atol=1e-5)
    assert compare(features).std(0).min() > 0.05
    compare.init_from_data(torch.ones(4, 5))  # copies of one image
    assert compare(features).isfinite().all()


def smooth_pairs(size, count=16):
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 4, 8, 8, generator=random) * 2 - 1
    pairs = F.interpolate(coarse, size=size, mode="bilinear")
    return Batch(pairs[:, :3], pairs[:, 3:])


def test_statistics_at_the_start_are_alike_from_32_to_256_pixels():
    measured = []
    for size in (32, 64, 128, 256):
        torch.manual_seed(0)
        translator = build("improved_gan", size, TINY["improved_gan"] | {"num_kernels": 20})
        batch = smooth_pairs(size)
        translator.init_from_data(batch)
        discriminator = translator.discriminator
        with torch.no_grad():
            logits, features = discriminator(torch.cat([batch.rgb, batch.thermal], dim=1))
            similarity = discriminator.minibatch_discrimination(features)
            thermal = translator.translate(batch.rgb)
        measured.append([features.abs().mean(), similarity.std(), thermal.std()])
        # Neither saturated nor blind: at 256 pixels the logit was -76, the similarity 0.
        assert logits.abs().max() < 1
        assert similarity.abs().mean() < 1

    low, high = torch.tensor(measured).aminmax(dim=0)
    assert (high < 2 * low).all()
    assert low.min() > 0.02


def test_weight_normalized_layers_start_with_standardized_outputs():
    translator, batch = make(dropout=0.0, input_noise=0.0), smooth_pairs(SIZE)
    translator.init_from_data(batch)
    outputs = {}
    for module in translator.modules():
        if parametrize.is_parametrized(module, "weight"):
            module.register_forward_hook(lambda module, _, out: outputs.update({module: out}))
    logits, _ = translator.discriminator(torch.cat([batch.rgb, batch.thermal], dim=1))
    images = translator.generator.body.levels[-1][0]

    *hidden, head = [outputs[m] for m in outputs if m is not images]
    assert torch.equal(head.flatten(), logits)
    for output in hidden:
        std, mean = torch.std_mean(output, (0, 2, 3), correction=0)
        assert torch.allclose(mean, torch.zeros_like(mean), atol=1e-4)
        assert torch.allclose(std, torch.ones_like(std), atol=1e-3)
    assert logits.std(correction=0).item() == pytest.approx(0.1, rel=1e-2)
    assert logits.mean().item() == pytest.approx(0, abs=1e-3)


def test_only_the_outputs_have_a_learned_gain():
    translator = make()
    names = {name for name, _ in translator.named_parameters() if name.endswith("gain")}

    assert {name.split(".parametrizations")[0] for name in names} == {
        "discriminator.head",
        "generator.body.levels.2.0",
    }


def test_historical_average_begins_with_the_initialized_weights():
    translator = make()

    for network, average in (
        (translator.discriminator, translator.discriminator_average),
        (translator.generator, translator.generator_average),
    ):
        assert average.distance(network) == 0


def test_generator_takes_three_turns_on_new_batches():
    drawn = []

    def counted():
        for batch in random_batches():
            drawn.append(batch)
            yield batch

    players = [turn.player for turn in make().turns(counted())]
    assert players == ["discriminator"] + ["generator"] * 3
    assert len(drawn) == 4
    assert make().config.generator_turns == 3


def test_minibatch_discrimination_affects_the_score():
    rgb = next(random_batches(1)).rgb
    translator = make(input_noise=0.0, dropout=0.0)
    pad = torch.zeros(BATCH, 1, SIZE, SIZE)
    different = torch.cat([rgb, pad], 1)
    equal = different[:1].expand(BATCH, -1, -1, -1)
    alone, among_copies = (translator.discriminator(x)[0][0] for x in (different, equal))
    without = make(input_noise=0.0, dropout=0.0, minibatch_discrimination=False).discriminator

    assert alone != among_copies
    assert torch.allclose(without(different)[0][0], without(equal)[0][0], atol=1e-6)


def test_output_does_not_depend_on_other_images_of_the_batch():
    translator = make()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    for mode in (True, False):
        translator.train(mode)
        together = translator.translate(rgb, z)
        translator.train(mode)
        alone = translator.translate(rgb[:1], z[:1])
        assert torch.allclose(together[:1], alone, atol=1e-5)


def test_output_depends_on_the_reference_batch():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    before = translator.translate(rgb, z)
    translator.generator.set_reference_batch(-next(random_batches(9, batch=8)).rgb)

    assert not torch.allclose(before, translator.translate(rgb, z))


def test_evaluation_passes_the_reference_batch_once():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    rows = []
    translator.generator.body.register_forward_hook(lambda _, x, __: rows.append(len(x[0])))
    first, second = translator.translate(rgb, z), translator.translate(rgb, z)

    assert rows == [BATCH + 3, BATCH]
    assert torch.allclose(first, second, atol=1e-6)


def test_loading_weights_renews_the_reference_statistics():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    before = translator.translate(rgb, z)
    state = {k: v * 1.5 if v.is_floating_point() else v for k, v in translator.state_dict().items()
             if isinstance(v, torch.Tensor)}  # fmt: skip
    translator.load_state_dict(state, strict=False)
    after = translator.translate(rgb, z)
    translator.train().eval()

    assert not torch.allclose(before, after)
    assert torch.allclose(after, translator.translate(rgb, z), atol=1e-6)


def test_image_counts_as_one_more_reference():
    norm = VirtualBatchNorm(1)
    norm.reference_count = 3
    features = torch.randn(4, 1, 8, 8)
    features[3] = features[3] * 3 + 2
    weights = torch.tensor([0.25, 0.25, 0.25, 0.25])
    mean = (features.mean((1, 2, 3)) * weights).sum()
    square = (features.square().mean((1, 2, 3)) * weights).sum()
    expected = (features[3] - mean) / (square - mean.square() + 1e-5).sqrt()

    assert torch.allclose(norm(features)[3], expected, atol=1e-5)


def test_gradients_flow_through_the_reference_statistics():
    norm = VirtualBatchNorm(2)
    norm.reference_count = 3
    features = torch.randn(5, 2, 4, 4, requires_grad=True)
    norm(features)[3:].square().sum().backward()

    assert features.grad[:3].abs().sum() > 0


def test_state_dict_holds_the_reference_batch():
    translator = make()
    other = build("improved_gan", SIZE, TINY["improved_gan"])
    other.load_state_dict(translator.state_dict())

    assert translator.generator.reference_rgb.float().std() > 10
    assert torch.equal(other.generator.reference_rgb, translator.generator.reference_rgb)
    assert torch.equal(other.generator.reference_z, translator.generator.reference_z)


def test_historical_average_is_the_mean_of_all_weights_so_far():
    network = nn.Linear(2, 1, bias=False)
    network.weight.data.fill_(0.5)
    average = HistoricalAverage(network)
    values = [0.5, 2.0, 5.0, -1.0]
    for value in values[1:]:
        network.weight.data.fill_(value)
        average.append(network)
    mean = sum(values) / len(values)

    assert average.means[0].flatten().tolist() == pytest.approx([mean, mean])
    # The sum over both weights.
    assert average.distance(network).item() == pytest.approx(2 * (-1.0 - mean) ** 2, rel=1e-5)
    other = HistoricalAverage(network)
    other.load_state_dict(average.state_dict())
    for restored in (average, other):
        restored.append(network)
    assert torch.equal(average.means[0], other.means[0])


def test_historical_averaging_has_a_share_in_the_gradient_of_a_network_of_real_size():
    config = build("improved_gan", SIZE, {}).config
    torch.manual_seed(0)
    discriminator = MinibatchDiscriminator(size=128, dropout=0.0)
    batch = smooth_pairs(128, count=2)
    pairs = torch.cat([batch.rgb, batch.thermal], dim=1)
    discriminator.init_from_data(pairs)
    average = HistoricalAverage(discriminator)
    weights = list(discriminator.parameters())
    adversarial = F.softplus(-discriminator(pairs)[0]).mean()
    # Adam moves a weight by its learning rate in each step: this far at random in a thousand steps.
    distance = config.discriminator_lr * 1000**0.5
    means = [mean.sub_(distance * torch.randn_like(mean)) for mean in average.means]
    penalty = config.historical_averaging_weight * average.distance(discriminator)

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])

    share = gradient(penalty).norm().item() / gradient(adversarial).norm().item()
    assert sum(map(torch.numel, means)) > 7_000_000
    assert 0.003 < share < 3


def test_both_players_have_historical_averaging():
    translator = make(historical_averaging_weight=1.0, n_generator=1)
    start = next(translator.generator.parameters()).detach().clone()
    optimizers = build_optimizers(translator)
    for turn in translator.turns(random_batches()):
        assert turn.terms["historical_averaging"] == 0  # before the first update
        optimizers[turn.player].optimizer.zero_grad()
        turn.loss.backward(inputs=optimizers[turn.player].parameters)
        optimizers[turn.player].optimizer.step()
    updated = next(translator.generator.parameters()).detach().clone()
    for turn in translator.turns(random_batches()):
        assert turn.terms["historical_averaging"] > 0
    # The initial weights, those after the first step, and the same again without an update.
    expected = (start + 2 * updated) / 3
    assert torch.allclose(translator.generator_average.means[0], expected, atol=1e-6)
    assert translator.discriminator_average.steps == translator.generator_average.steps == 2


def test_discriminator_has_weight_norm_noise_and_dropout():
    translator = make()
    convolutions = [m for m in translator.discriminator.modules() if isinstance(m, nn.Conv2d)]
    pair = torch.randn(4, 4, SIZE, SIZE)

    assert all(parametrize.is_parametrized(m, "weight") for m in convolutions)
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in translator.modules())
    noisy = make(dropout=0.0).discriminator
    assert not torch.equal(noisy(pair)[0], noisy(pair)[0])
    deterministic = make(dropout=0.0, input_noise=0.0).discriminator
    assert torch.equal(deterministic(pair)[0], deterministic(pair)[0])


def test_learning_rate_decays_in_the_last_third():
    factors = [make().learning_rate_factor(images, 600) for images in (0, 400, 500, 600)]

    assert factors == pytest.approx([1, 1, 0.5, 0], abs=1e-6)


def test_feature_matching_compares_fake_and_real_features():
    translator, batch = make(dropout=0.0, input_noise=0.0), next(random_batches())
    generated = []
    translator.generator.register_forward_hook(lambda _, __, out: generated.append(out))
    *_, turn = translator.turns(itertools.repeat(batch))
    (_, real), (_, fake) = (
        translator.discriminator(torch.cat([batch.rgb, thermal], dim=1))
        for thermal in (batch.thermal, generated[-1])
    )
    expected = (real.mean(0) - fake.mean(0)).abs().mean()

    assert turn.terms["feature_matching"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_training_renews_the_reference_statistics():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    before = translator.translate(rgb, z)
    translator.train()
    with torch.no_grad():
        for parameter in translator.generator.parameters():
            parameter.mul_(1.5)
    after = translator.eval().translate(rgb, z)
    restored = make().eval()
    restored.load_state_dict(translator.state_dict())

    assert not torch.allclose(before, after)
    assert torch.allclose(after, restored.translate(rgb, z), atol=1e-6)


def test_latents_are_uniform_in_zero_to_one():
    z = make().draw_latent(2000)

    assert 0 <= z.min() < 0.01
    assert 0.99 < z.max() <= 1


@pytest.mark.parametrize("rgb_fusion", ["early", "late"])
def test_step_updates_and_averages_every_weight(rgb_fusion):
    translator = make(rgb_fusion=rgb_fusion)
    discriminator, average = translator.discriminator, translator.discriminator_average
    before = [parameter.detach().clone() for parameter in discriminator.parameters()]
    batches, optimizers = random_batches(), build_optimizers(translator)
    train_step(translator, optimizers, batches, group=WorkerGroup(), autocast=nullcontext())

    for old, new, mean in zip(before, discriminator.parameters(), average.means, strict=True):
        assert not torch.equal(old, new)
        assert torch.allclose(mean, (old + new) / 2, atol=1e-6)


def test_late_fusion_is_at_eight_by_eight():
    discriminator, thermal_features = (
        make(rgb_fusion="late", dropout=0.0, input_noise=0.0).discriminator,
        [],
    )
    discriminator.layers[0].thermal_branch.register_forward_hook(
        lambda _, __, out: thermal_features.append(out)
    )
    thermal = next(random_batches()).thermal
    (score, features), (other_score, other_features) = (
        discriminator(torch.cat([next(random_batches(seed)).rgb, thermal], dim=1))
        for seed in (1, 2)
    )

    assert thermal_features[0].shape[2:] == (8, 8)
    assert torch.equal(*thermal_features)
    assert not torch.allclose(features, other_features, rtol=0.01)
    assert not torch.equal(score, other_score)

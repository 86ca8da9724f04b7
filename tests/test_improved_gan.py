from contextlib import nullcontext

import pytest
import torch
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn
from torch.nn.utils import parametrize

from thermal_search.architectures import build
from thermal_search.architectures.improved_gan import HistoricalAverage, MinibatchDiscrimination
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.networks.virtual_batch_norm import VirtualBatchNorm
from thermal_search.training.step import build_optimizers, train_step


def make(**parameters):
    torch.manual_seed(0)
    translator = build("improved_gan", SIZE, TINY["improved_gan"] | parameters)
    translator.init_from_data(next(random_batches(7, batch=8)).rgb)
    return translator


def last_turn(translator):
    *_, turn = translator.turns(random_batches())
    return turn


def test_features_are_matched_before_images_are_compared():
    translator = make()
    pair = torch.randn(4, 4, SIZE, SIZE)
    _, features = translator.discriminator(pair)

    assert translator.discriminator.compare is not None
    assert features.shape[1] == translator.discriminator.head.in_features - 6
    assert "features" in last_turn(translator).terms


def test_matching_features_moves_the_generator_alone():
    translator = make()
    optimizers = build_optimizers(translator)
    turns = translator.turns(random_batches())
    next(turns)
    turn = next(turns)
    turn.loss.backward(inputs=optimizers["generator"].parameters)

    assert all(p.grad is None for p in translator.discriminator.parameters())
    assert all(p.grad is not None for p in translator.generator.parameters())


def test_features_of_equal_batches_match():
    translator = make()
    features = torch.randn(4, 8)

    assert translator._mismatch(features, features) == 0
    assert translator._mismatch(features, features + 1) == pytest.approx(1)
    assert make(feature_norm="l2")._mismatch(features, features + 1) == pytest.approx(8)


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        ("both", {"adversarial", "features", "history"}),
        ("features", {"features", "history"}),
        ("adversarial", {"adversarial", "history"}),
    ],
)
def test_the_generators_objective_is_a_choice(objective, terms):
    assert set(last_turn(make(objective=objective)).terms) == terms


def test_minibatch_discrimination_counts_the_images_that_are_alike():
    compare = MinibatchDiscrimination(5, kernels=7, kernel_size=3)
    same = torch.randn(1, 5).expand(6, -1)
    apart = 1e4 * torch.randn(6, 5)

    assert torch.allclose(compare(same), torch.full((6, 7), 5.0))
    assert torch.allclose(compare(apart), torch.zeros(6, 7))
    few = torch.randn(3, 5)
    rows = compare.project(few).unflatten(1, (7, 3))
    near = [(-(rows[0] - rows[other]).abs().sum(1)).exp() for other in (1, 2)]
    assert torch.allclose(compare(few)[0], near[0] + near[1], atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compare(few), compare(few.float()))
        assert torch.allclose(compare(few)[0], near[0] + near[1], atol=1e-5)


def test_minibatch_discrimination_leads_to_the_score():
    one, other = next(random_batches(1)).rgb, next(random_batches(2)).rgb
    translator = make(input_noise=0.0, dropout=0.0)
    pad = torch.zeros(BATCH, 1, SIZE, SIZE)
    first = torch.cat([one, pad], 1)
    neighbors = torch.cat([one[:1].expand(BATCH - 1, -1, -1, -1), pad[1:]], 1)
    crowd = torch.cat([first[:1], neighbors])
    alone, among_copies = translator.discriminator(first)[0][0], translator.discriminator(crowd)[0]
    without = make(input_noise=0.0, dropout=0.0, compare=False).discriminator

    assert alone != among_copies[0]
    assert torch.allclose(without(first)[0][0], without(crowd)[0][0], atol=1e-6)
    assert other is not one


def test_only_real_labels_are_smoothed():
    torch.manual_seed(1)
    smooth = next(make(real_label=0.9).turns(random_batches())).terms["adversarial"]
    torch.manual_seed(1)
    plain = next(make(real_label=1.0).turns(random_batches())).terms["adversarial"]

    assert smooth != plain


def test_a_painted_image_does_not_depend_on_its_neighbours():
    translator = make()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    for mode in (True, False):
        translator.train(mode)
        together = translator.translate(rgb, z)
        translator.train(mode)
        alone = translator.translate(rgb[:1], z[:1])
        assert torch.allclose(together[:1], alone, atol=1e-5)


def test_a_painted_image_depends_on_the_reference_batch():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    before = translator.translate(rgb, z)
    translator.init_from_data(-next(random_batches(9, batch=8)).rgb)

    assert not torch.allclose(before, translator.translate(rgb, z))


def test_judged_the_reference_passes_once_and_says_the_same():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    rows = []
    translator.generator.body.register_forward_hook(lambda _, x, __: rows.append(len(x[0])))
    first, second = translator.translate(rgb, z), translator.translate(rgb, z)

    assert rows == [BATCH + 3, BATCH]
    assert torch.allclose(first, second, atol=1e-6)


def test_new_weights_are_measured_anew():
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


def test_an_image_counts_as_one_among_the_references():
    norm = VirtualBatchNorm(1)
    norm.references = 3
    features = torch.randn(4, 1, 8, 8)
    features[3] = features[3] * 3 + 2
    shares = torch.tensor([0.25, 0.25, 0.25, 0.25])
    mean = (features.mean((1, 2, 3)) * shares).sum()
    square = (features.square().mean((1, 2, 3)) * shares).sum()
    expected = (features[3] - mean) / (square - mean.square() + 1e-5).sqrt()

    assert torch.allclose(norm(features)[3], expected, atol=1e-5)


def test_gradients_flow_through_the_reference_statistics():
    norm = VirtualBatchNorm(2)
    norm.references = 3
    features = torch.randn(5, 2, 4, 4, requires_grad=True)
    norm(features)[3:].square().sum().backward()

    assert features.grad[:3].abs().sum() > 0


def test_the_reference_batch_comes_back_with_the_state():
    translator = make()
    other = build("improved_gan", SIZE, TINY["improved_gan"])
    other.load_state_dict(translator.state_dict())

    assert translator.generator.reference_rgb.float().std() > 10
    assert torch.equal(other.generator.reference_rgb, translator.generator.reference_rgb)
    assert torch.equal(other.generator.reference_z, translator.generator.reference_z)


def test_the_past_is_the_mean_of_the_weights_so_far():
    network = nn.Linear(2, 1, bias=False)
    network.weight.data.fill_(0.5)
    past = HistoricalAverage(network)
    seen = [0.5]
    for value in (2.0, 5.0, -1.0):
        network.weight.data.fill_(value)
        past.append(network)
        seen.append(value)
    mean = sum(seen) / len(seen)

    assert past.mean_0.flatten().tolist() == pytest.approx([mean, mean])
    # A mean over the weights, not their sum: however large the network, the weight means the same.
    assert past.distance(network).item() == pytest.approx((-1.0 - mean) ** 2, rel=1e-5)
    other = HistoricalAverage(network)
    other.load_state_dict(past.state_dict())
    for restored in (past, other):
        restored.append(network)
    assert torch.equal(past.mean_0, other.mean_0)


def test_both_players_are_drawn_to_their_past():
    translator = make(history_weight=1.0)
    start = next(translator.generator.parameters()).detach().clone()
    optimizers = build_optimizers(translator)
    for turn in translator.turns(random_batches()):
        assert turn.terms["history"] == 0  # nothing has moved yet
        optimizers[turn.player].optimizer.zero_grad()
        turn.loss.backward(inputs=optimizers[turn.player].parameters)
        optimizers[turn.player].optimizer.step()
    moved = next(translator.generator.parameters()).detach().clone()
    for turn in translator.turns(random_batches()):
        assert turn.terms["history"] > 0
    # The start, what the first step made of it, and the same again: this time nothing moved.
    expected = (start + 2 * moved) / 3
    assert torch.allclose(translator.generator_past.means[0], expected, atol=1e-6)
    assert translator.discriminator_past.steps == translator.generator_past.steps == 2


def test_the_discriminator_is_weight_normalised_noisy_and_drops_out():
    translator = make()
    convolutions = [m for m in translator.discriminator.modules() if isinstance(m, nn.Conv2d)]
    pair = torch.randn(4, 4, SIZE, SIZE)

    assert all(parametrize.is_parametrized(m, "weight") for m in convolutions)
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in translator.modules())
    quiet = make(dropout=0.0)
    assert not torch.equal(quiet.discriminator(pair)[0], quiet.discriminator(pair)[0])
    silent = make(dropout=0.0, input_noise=0.0)
    assert torch.equal(silent.discriminator(pair)[0], silent.discriminator(pair)[0])


def test_the_learning_rate_falls_in_the_last_third():
    factors = [make().learning_rate_factor(images, 600) for images in (0, 400, 500, 600)]

    assert factors == pytest.approx([1, 1, 0.5, 0], abs=1e-6)


def test_painted_features_are_matched_with_real_ones():
    translator, batch = make(dropout=0.0, input_noise=0.0), next(random_batches())
    painted = []
    translator.generator.register_forward_hook(lambda _, __, out: painted.append(out))
    *_, turn = translator.turns(iter([batch]))
    (_, real), (_, fake) = (
        translator.discriminator(torch.cat([batch.rgb, thermal], dim=1))
        for thermal in (batch.thermal, painted[0])
    )
    expected = (real.mean(0) - fake.mean(0)).abs().mean()

    assert turn.terms["features"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_after_training_the_reference_is_measured_anew():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    before = translator.translate(rgb, z)
    translator.train()
    with torch.no_grad():
        for parameter in translator.generator.parameters():
            parameter.mul_(1.5)
    after = translator.eval().translate(rgb, z)
    fresh = make().eval()
    fresh.load_state_dict(translator.state_dict())

    assert not torch.allclose(before, after)
    assert torch.allclose(after, fresh.translate(rgb, z), atol=1e-6)


def test_latents_are_uniform_in_zero_to_one():
    z = make().draw_latent(2000)

    assert 0 <= z.min() < 0.01
    assert 0.99 < z.max() <= 1


@pytest.mark.parametrize("joins", ["early", "late"])
def test_a_step_moves_and_remembers_every_weight_wherever_the_rgb_picture_joins(joins):
    translator = make(rgb_fusion=joins)
    discriminator, past = translator.discriminator, translator.discriminator_past
    before = [parameter.detach().clone() for parameter in discriminator.parameters()]
    batches, optimizers = random_batches(), build_optimizers(translator)
    train_step(translator, optimizers, batches, group=WorkerGroup(), autocast=nullcontext())

    for old, new, mean in zip(before, discriminator.parameters(), past.means, strict=True):
        assert not torch.equal(old, new)
        assert torch.allclose(mean, (old + new) / 2, atol=1e-6)


def test_late_the_rgb_picture_joins_at_eight_by_eight_and_not_before():
    discriminator, looked = make(rgb_fusion="late", dropout=0.0, input_noise=0.0).discriminator, []
    discriminator.layers[0].look.register_forward_hook(lambda _, __, out: looked.append(out))
    thermal = next(random_batches()).thermal
    (score, features), (other_score, other_features) = (
        discriminator(torch.cat([next(random_batches(seed)).rgb, thermal], dim=1))
        for seed in (1, 2)
    )

    assert looked[0].shape[2:] == (8, 8)
    assert torch.equal(*looked)
    assert not torch.allclose(features, other_features, rtol=0.01)
    assert not torch.equal(score, other_score)

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn
from torch.nn.utils import parametrize

from thermal_search.architectures import build
from thermal_search.architectures.biggan import AdaptiveNorm, DownBlock
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.losses import hinge
from thermal_search.networks.attention import SelfAttention
from thermal_search.networks.spectral_norm import layer_orthogonality
from thermal_search.training.step import autocast_for, build_optimizers, train_step


def make(**parameters):
    torch.manual_seed(0)
    return build("biggan", SIZE, TINY["biggan"] | parameters)


def plain_layers(network):
    """Names of convolutions and dense layers that are not under the spectral norm."""
    return {
        name
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
        and not parametrize.is_parametrized(module, "weight")
    }


def test_every_weight_is_under_the_spectral_norm_but_those_that_are_ours():
    translator = make()

    assert plain_layers(translator.discriminator) == set()
    # The embedding, as in the paper, and where the RGB image is seen place by place.
    allowed = ("embed.", "condition.", "blocks.")
    names = plain_layers(translator.generator)
    assert all(name.startswith(allowed) for name in names)
    assert all(name.endswith(".maps") for name in names if name.startswith("blocks."))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_largest_singular_value_is_one(precision):
    translator = make()
    optimizers = build_optimizers(translator)
    for _ in range(8):
        translator.begin_step(0, 100)
        train_step(
            translator,
            optimizers,
            random_batches(),
            group=WorkerGroup(),
            autocast=autocast_for(torch.device("cpu"), precision),
        )
    translator.eval()
    for network in (translator.generator, translator.discriminator):
        for module in network.modules():
            if parametrize.is_parametrized(module, "weight"):
                largest = torch.linalg.matrix_norm(module.weight.flatten(1), 2)
                assert 0.95 < largest < 1.05


def test_weights_are_measured_once_a_pass():
    translator = make()
    layer = translator.discriminator.look[0].first
    before = layer.parametrizations.weight[0]._u.clone()
    used = []
    layer.parametrizations.weight[0].register_forward_hook(lambda *_: used.append(1))
    list(translator.discriminator(torch.randn(2, 3, SIZE, SIZE), torch.randn(2, 1, SIZE, SIZE)))

    assert len(used) == 1
    assert not torch.equal(before, layer.parametrizations.weight[0]._u)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_weights_are_measured_in_float32_under_bf16():
    # On a GPU alone: on a CPU, bf16 leaves products of a matrix and a vector as they are.
    judge = make().discriminator.eval().cuda()
    exact = judge.look[0].first.weight
    with parametrize.cached(), torch.autocast("cuda", torch.bfloat16):
        judge.measure_weights()
        assert torch.equal(judge.look[0].first.weight, exact)


def test_weights_start_orthogonal():
    weight = make().generator.blocks[0].first.parametrizations.weight.original.flatten(1)

    assert torch.allclose(weight @ weight.T, torch.eye(len(weight)), atol=1e-5)


def test_attention_is_silent_at_first_then_looks_everywhere():
    attention = SelfAttention(16)
    features = torch.randn(2, 16, 8, 8)
    assert torch.equal(attention(features), features)
    attention.gain.data.fill_(1.0)
    changed = features.clone()
    changed[:, :, 0, 0] += 5

    assert ((attention(changed) - attention(features))[:, :, 7, 7].abs() > 0).any()
    # Products are not scaled by the number of channels, unlike in transformers.
    query, key, value = (
        seen.flatten(2)
        for seen in (
            attention.query(features),
            F.max_pool2d(attention.key(features), 2),
            F.max_pool2d(attention.value(features), 2),
        )
    )
    weights = (query.transpose(1, 2) @ key).softmax(2)
    found = attention.output((value @ weights.transpose(1, 2)).unflatten(2, (8, 8)))
    assert torch.allclose(attention(features), features + found, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "resolution"), [(64, SIZE // 2), (16, 16), (0, None)], ids=["capped", "fits", "none"]
)
def test_both_networks_attend_at_the_resolution_asked_for(asked, resolution):
    translator = make(attention=asked)
    networks = translator.generator, translator.discriminator.look, translator.discriminator.see
    seen = [set(), set(), set()]
    for network, resolutions in zip(networks, seen, strict=True):
        for module in network.modules():
            if isinstance(module, SelfAttention):
                module.register_forward_hook(lambda _, x, __, r=resolutions: r.add(x[0].shape[-1]))
    list(translator.turns(random_batches()))

    assert seen == [{resolution} if resolution else set()] * 3


def test_each_chunk_of_the_latent_reaches_its_own_block_and_those_after():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    chunk = TINY["biggan"]["latent_chunk"]

    def features(z):
        seen = []
        handles = [
            block.register_forward_hook(lambda _, __, out: seen.append(out))
            for block in translator.generator.blocks
        ]
        translator.translate(rgb, z)
        for handle in handles:
            handle.remove()
        return seen

    plain = features(z)
    assert z.shape[1] == chunk * (len(plain) + 1)
    for number in range(len(plain)):
        other = z.clone()
        other[:, chunk * (number + 1) : chunk * (number + 2)] += 3
        same = [torch.equal(a, b) for a, b in zip(plain, features(other), strict=True)]
        assert same == [True] * number + [False] * (len(plain) - number)


def test_norms_begin_as_the_papers_and_learn_to_see_the_picture():
    norm = AdaptiveNorm(4, 3)
    norm.see(2)
    features, code, seen = torch.randn(2, 4, 8, 8), torch.zeros(2, 3), torch.randn(2, 2, 8, 8)
    plain = nn.BatchNorm2d(4, affine=False)(features)

    assert torch.allclose(norm(features, code, seen), plain, atol=1e-6)
    nn.init.normal_(norm.maps.weight)
    assert not torch.allclose(norm(features, code, seen), plain)


def test_all_norms_share_one_embedding():
    translator = make()
    calls, codes = [], []
    translator.generator.embed.register_forward_hook(lambda *_: calls.append(1))
    for module in translator.modules():
        if isinstance(module, AdaptiveNorm):
            module.register_forward_hook(lambda _, x, __: codes.append(x[1][:, :8]))
    translator.translate(next(random_batches()).rgb)

    assert len(calls) == 1
    assert len(codes) == 6
    assert all(torch.equal(code, codes[0]) for code in codes)


def test_hinge_ignores_what_is_already_told_apart():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])

    assert hinge.discriminator(real, fake).item() == pytest.approx(0.25 + 0.5)
    assert hinge.generator(fake).item() == pytest.approx(1.5)


def test_scoring_the_same_pair_by_place_and_as_a_whole_differs_only_in_projection():
    rgb, thermal = torch.randn(2, 3, SIZE, SIZE), torch.randn(2, 1, SIZE, SIZE)
    for projection in ("spatial", "vector"):
        judge = make(projection=projection).discriminator.eval()
        assert not torch.allclose(judge(rgb, thermal), judge(-rgb, thermal))
    # Where the RGB looks alike at all nine places: the mean of what the other sums.
    features, seen = torch.randn(2, 5, 3, 3), torch.randn(2, 5, 1, 1).expand(2, 5, 3, 3)
    agreements = [make(projection=p).discriminator._agreement(features, seen)
                  for p in ("spatial", "vector")]  # fmt: skip
    assert torch.allclose(agreements[0], agreements[1] / 9, atol=1e-5)


def test_two_discriminator_turns_on_fresh_images_by_default():
    translator = make(n_discriminator=2, part_size=BATCH)
    drawn = []

    def counted():
        for batch in random_batches():
            drawn.append(batch)
            yield batch

    players = [turn.player for turn in translator.turns(counted())]
    assert players == ["discriminator"] * 2 + ["generator"]
    assert len(drawn) == 3
    assert build("biggan", SIZE, {"width": 8}).config.n_discriminator == 2


def test_parts_of_a_batch_gather_into_one_move():
    turns = list(make(part_size=2).turns(random_batches()))
    moves = [(turn.player, turn.steps_optimizer) for turn in turns]
    assert ["orthogonal" in turn.terms for turn in turns] == [False, False, False, True]

    assert moves == [
        ("discriminator", False),
        ("discriminator", True),
        ("generator", False),
        ("generator", True),
    ]


def test_gathered_gradients_are_those_of_the_whole_batch():
    # Judged, no network couples images, so the parts must add up to the whole.
    def gradients(part_size):
        translator = make(
            part_size=part_size, orthogonal=False, generator_lr=0.0, discriminator_lr=0.0
        )
        latents = iter(torch.randn(2, BATCH, translator.draw_latent(1).shape[1]).flatten(0, 1))
        translator.draw_latent = lambda n, **_: torch.stack([next(latents) for _ in range(n)])
        optimizers = build_optimizers(translator.eval())
        train_step(
            translator, optimizers, random_batches(), group=WorkerGroup(), autocast=nullcontext()
        )
        return {
            player: torch.cat([p.grad.flatten() for p in player_optimizer.parameters])
            for player, player_optimizer in optimizers.items()
        }

    whole, parts = gradients(BATCH), gradients(1)
    for player, gradient in whole.items():
        assert torch.allclose(parts[player], gradient, atol=1e-5)


def test_filters_are_kept_from_being_alike():
    translator = make()
    *_, turn = translator.turns(random_batches())
    layer = translator.generator.blocks[0].first.parametrizations.weight
    before = turn.terms["orthogonal"].item()
    layer.original.data[1] = layer.original.data[0]
    *_, turn = translator.turns(random_batches())

    # Two equal filters of unit length: their product stands twice off the diagonal.
    assert turn.terms["orthogonal"].item() - before == pytest.approx(2 * 1e-4, rel=0.05)
    *_, without = make(orthogonal=False).turns(random_batches())
    assert "orthogonal" not in without.terms


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4)])
def test_the_likeness_of_filters_is_the_sum_over_all_pairs(shape):
    filters = torch.randn(shape)
    expected = sum(
        (filters[i] @ filters[j]).item() ** 2
        for i in range(len(filters))
        for j in range(len(filters))
        if i != j
    )

    assert layer_orthogonality(filters).item() == pytest.approx(expected, rel=1e-4)


def test_truncation_bounds_latents_when_judged_only():
    translator = make(truncation=0.5)
    assert translator.draw_latent(200).abs().max() > 1
    assert translator.eval().draw_latent(200).abs().max() <= 0.5
    assert make().eval().draw_latent(200).abs().max() > 1


def test_sizes_without_a_plan_are_refused():
    with pytest.raises(ValueError, match="biggan paints 32, 64, 128, 256, 512 pixels"):
        build("biggan", 1024, {})


def test_an_averaged_generator_is_judged_with_statistics_of_its_own(tmp_path):
    from test_training import plan_of, trial_of

    plan = plan_of(tmp_path, "biggan", parameters={"ema_half_life_images": 1000})
    trial = trial_of(plan)
    list(trial.evaluations())
    kept = torch.load(tmp_path / "generator.pt", weights_only=True)["generator"]
    live = trial.translator.generator.state_dict()
    variances = [name for name in live if name.endswith("running_var")]

    assert variances
    norm, seen = trial.average.network.output[0], []
    norm.register_forward_hook(lambda _, x, __: seen.append(x[0].mean((0, 2, 3))))
    with trial.averaged_weights():
        assert len(seen) == 16
    assert torch.allclose(norm.running_mean, torch.stack(seen).mean(0), atol=1e-5)
    assert any(not torch.equal(live[name], trial.average.network.state_dict()[name])
               for name in variances)  # fmt: skip
    assert all(kept[name].isfinite().all() for name in variances)
    assert all(n.momentum == 0.1 for n in trial.average.network.modules()
               if isinstance(n, nn.BatchNorm2d))  # fmt: skip


def test_the_score_rests_on_the_rectified_features_summed_over_all_places():
    judge, seen = make().discriminator.eval(), []
    judge.look.register_forward_hook(lambda _, __, out: seen.append(out))
    judge.head.register_forward_hook(lambda _, x, __: seen.append(x[0]))
    judge(torch.randn(2, 3, SIZE, SIZE), torch.randn(2, 1, SIZE, SIZE))

    assert torch.allclose(seen[1], seen[0].relu().sum((2, 3)), atol=1e-5)


def test_only_the_first_block_of_the_discriminator_sees_what_is_negative():
    features = -torch.rand(2, 4, 8, 8)
    for is_first in (True, False):
        block, given = DownBlock(4, 6, is_first=is_first, halves=True), []
        block.first.register_forward_hook(lambda _, x, __, given=given: given.append(x[0]))
        block(features)
        assert torch.equal(given[0], features if is_first else torch.zeros_like(features))


def test_adaptive_norms_normalise_over_the_batch():
    norm, features = (
        AdaptiveNorm(4, 3),
        torch.randn(6, 4, 8, 8) + torch.arange(6.0).view(6, 1, 1, 1),
    )
    found = norm(features, torch.zeros(6, 3), None)

    assert torch.allclose(found.mean((0, 2, 3)), torch.zeros(4), atol=1e-5)
    assert found.mean((1, 2, 3)).abs().max() > 0.5

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn
from torch.nn.utils import parametrize

from thermal_search.architectures import build
from thermal_search.architectures.biggan import ConditionalBatchNorm, DownBlock
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.losses import hinge
from thermal_search.networks.attention import SelfAttention
from thermal_search.networks.spectral_norm import layer_orthogonality_penalty
from thermal_search.training.hardware import autocast_for
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step


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


def test_every_weight_of_the_paper_has_spectral_norm():
    translator = make()

    assert plain_layers(translator.discriminator) == set()
    # The embedding has none in the paper; the condition and its convolutions are not part of it.
    allowed = ("embed.", "condition.", "blocks.")
    names = plain_layers(translator.generator)
    assert all(name.startswith(allowed) for name in names)
    assert all(name.endswith(".spatial") for name in names if name.startswith("blocks."))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_largest_singular_value_is_one(precision):
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


def test_forward_pass_normalizes_each_weight_once():
    translator = make()
    computed = []
    for name, module in translator.discriminator.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            module.parametrizations.weight.register_forward_hook(
                lambda *_, name=name: computed.append(name)
            )
    translator.discriminator(torch.randn(2, 3, SIZE, SIZE), torch.randn(2, 1, SIZE, SIZE))

    assert len(computed) > 10
    assert len(computed) == len(set(computed))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_weights_are_normalized_in_float32_under_bf16():
    # Only on a GPU: on a CPU autocast does not cover products of a matrix and a vector.
    discriminator = make().discriminator.eval().cuda()
    exact = discriminator.thermal_branch[0].conv_1.weight
    with parametrize.cached(), torch.autocast("cuda", torch.bfloat16):
        discriminator.cache_weights()
        assert torch.equal(discriminator.thermal_branch[0].conv_1.weight, exact)


def test_initial_weights_are_orthogonal():
    weight = make().generator.blocks[0].conv_1.parametrizations.weight.original.flatten(1)

    assert torch.allclose(weight @ weight.T, torch.ones(len(weight)).diag(), atol=1e-5)


def test_attention_is_the_identity_at_first_then_global():
    attention = SelfAttention(16)
    features = torch.randn(2, 16, 8, 8)
    assert torch.equal(attention(features), features)
    attention.gain.data.fill_(1.0)
    changed = features.clone()
    changed[:, :, 0, 0] += 5

    assert ((attention(changed) - attention(features))[:, :, 7, 7].abs() > 0).any()
    # Dot products are not scaled by the number of channels, unlike in transformers.
    query, key, value = (
        projected.flatten(2)
        for projected in (
            attention.query(features),
            F.max_pool2d(attention.key(features), 2),
            F.max_pool2d(attention.value(features), 2),
        )
    )
    weights = (query.transpose(1, 2) @ key).softmax(2)
    attended = attention.output((value @ weights.transpose(1, 2)).unflatten(2, (8, 8)))
    assert torch.allclose(attention(features), features + attended, atol=1e-5)


@pytest.mark.parametrize(
    ("chosen", "resolution"), [(64, SIZE // 2), (16, 16), (0, None)], ids=["capped", "fits", "none"]
)
def test_both_networks_attend_at_the_chosen_resolution(chosen, resolution):
    translator = make(attention_resolution=chosen)
    discriminator = translator.discriminator
    networks = translator.generator, discriminator.thermal_branch, discriminator.rgb_branch
    attended = [set(), set(), set()]
    for network, resolutions in zip(networks, attended, strict=True):
        for module in network.modules():
            if isinstance(module, SelfAttention):
                module.register_forward_hook(lambda _, x, __, r=resolutions: r.add(x[0].shape[-1]))
    list(translator.turns(random_batches()))

    assert attended == [{resolution} if resolution else set()] * 3


def test_each_latent_chunk_enters_at_its_own_block():
    translator = make().eval()
    rgb, z = next(random_batches()).rgb, translator.draw_latent(BATCH)
    chunk = TINY["biggan"]["latent_chunk_size"]

    def features(z):
        outputs = []
        handles = [
            block.register_forward_hook(lambda _, __, out: outputs.append(out))
            for block in translator.generator.blocks
        ]
        translator.translate(rgb, z)
        for handle in handles:
            handle.remove()
        return outputs

    plain = features(z)
    assert z.shape[1] == chunk * (len(plain) + 1)
    for number in range(len(plain)):
        other = z.clone()
        other[:, chunk * (number + 1) : chunk * (number + 2)] += 3
        same = [torch.equal(a, b) for a, b in zip(plain, features(other), strict=True)]
        assert same == [True] * number + [False] * (len(plain) - number)


def test_spatial_conditioning_starts_at_zero():
    norm = ConditionalBatchNorm(4, 3)
    norm.add_spatial(2)
    features, code, condition = torch.randn(2, 4, 8, 8), torch.zeros(2, 3), torch.randn(2, 2, 8, 8)
    plain = nn.BatchNorm2d(4, affine=False)(features)

    assert torch.allclose(norm(features, code, condition), plain, atol=1e-6)
    nn.init.normal_(norm.spatial.weight)
    assert not torch.allclose(norm(features, code, condition), plain)


def test_all_norms_share_one_embedding():
    translator = make()
    calls, codes = [], []
    translator.generator.embed.register_forward_hook(lambda *_: calls.append(1))
    for module in translator.modules():
        if isinstance(module, ConditionalBatchNorm):
            module.register_forward_hook(lambda _, x, __: codes.append(x[1][:, :8]))
    translator.translate(next(random_batches()).rgb)

    assert len(calls) == 1
    assert len(codes) == 6
    assert all(torch.equal(code, codes[0]) for code in codes)


def test_hinge_ignores_scores_beyond_the_margin():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])

    assert hinge.discriminator(real, fake).item() == pytest.approx(0.25 + 0.5)
    assert hinge.generator(fake).item() == pytest.approx(1.5)


@pytest.mark.parametrize("projection", ["spatial", "vector"])
def test_score_depends_on_the_rgb_image(projection):
    rgb, thermal = torch.randn(2, 3, SIZE, SIZE), torch.randn(2, 1, SIZE, SIZE)
    discriminator = make(projection=projection).discriminator.eval()

    assert not torch.allclose(discriminator(rgb, thermal), discriminator(-rgb, thermal))


def test_spatial_projection_of_constant_rgb_features_is_the_vector_projection():
    rgb, thermal = torch.randn(2, 3, SIZE, SIZE), torch.randn(2, 1, SIZE, SIZE)

    def projected(projection):
        """The part of the score that is due to the RGB image, if its features are constant."""
        discriminator = make(projection=projection).discriminator.eval()
        factor = torch.ones(())
        discriminator.rgb_branch.register_forward_hook(
            lambda _, __, out: factor * out.mean((2, 3), keepdim=True).expand_as(out)
        )
        score = discriminator(rgb, thermal)
        factor.zero_()
        return score - discriminator(rgb, thermal)

    assert torch.allclose(projected("spatial"), projected("vector"), rtol=1e-3, atol=1e-5)
    assert projected("vector").abs().min() > 1e-3


def test_swapped_rgb_image_moves_the_score_as_much_in_both_projections():
    batch = next(random_batches(size=64))

    def change(projection):
        torch.manual_seed(0)
        parameters = TINY["biggan"] | {"width": 16, "projection": projection}
        discriminator = build("biggan", 64, parameters).discriminator.eval()
        score = discriminator(batch.rgb, batch.thermal)
        return (discriminator(batch.rgb.roll(1, 0), batch.thermal) - score).abs().mean().item()

    # Averaged over the 16 positions, the spatial projection moved it by a fourteenth of the other.
    assert 0.5 < change("spatial") / change("vector") < 4


def test_discriminator_takes_two_turns_on_new_batches_by_default():
    translator = make(n_discriminator=2, microbatch_size=BATCH)
    drawn = []

    def counted():
        for batch in random_batches():
            drawn.append(batch)
            yield batch

    players = [turn.player for turn in translator.turns(counted())]
    assert players == ["discriminator"] * 2 + ["generator"]
    assert len(drawn) == 3
    assert build("biggan", SIZE, {"width": 8}).config.n_discriminator == 2


def test_microbatches_accumulate_into_one_update():
    turns = list(make(microbatch_size=2).turns(random_batches()))
    updates = [(turn.player, turn.steps_optimizer) for turn in turns]
    is_regularized = ["orthogonal_regularization" in turn.terms for turn in turns]

    assert is_regularized == [False, False, False, True]
    assert updates == [
        ("discriminator", False),
        ("discriminator", True),
        ("generator", False),
        ("generator", True),
    ]


def test_accumulated_gradients_equal_those_of_the_whole_batch():
    # In evaluation mode no network couples images, so the microbatches must add up to the batch.
    def gradients(microbatch_size):
        translator = make(
            microbatch_size=microbatch_size,
            orthogonal_regularization=False,
            generator_lr=0.0,
            discriminator_lr=0.0,
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
        assert (parts[player] - gradient).norm() < 1e-3 * gradient.norm()


def test_orthogonal_regularization_penalizes_equal_filters():
    translator = make()
    *_, turn = translator.turns(random_batches())
    layer = translator.generator.blocks[0].conv_1.parametrizations.weight
    before = turn.terms["orthogonal_regularization"].item()
    layer.original.data[1] = layer.original.data[0]
    *_, turn = translator.turns(random_batches())

    # The dot product of the two equal filters, which have unit length.
    change = turn.terms["orthogonal_regularization"].item() - before
    assert change == pytest.approx(1e-4, rel=0.05)
    *_, without = make(orthogonal_regularization=False).turns(random_batches())
    assert "orthogonal_regularization" not in without.terms


def test_orthogonal_regularization_has_the_gradient_of_the_authors_code():
    translator = make(orthogonal_regularization_weight=0.3)
    weight = translator.generator.blocks[0].conv_1.parametrizations.weight.original
    weight.data.normal_()
    *_, turn = translator.turns(random_batches())
    (gradient,) = torch.autograd.grad(turn.terms["orthogonal_regularization"], weight)
    filters = weight.detach().flatten(1)
    products = filters @ filters.T
    expected = 0.3 * 2 * (products - products.diag().diag()) @ filters

    assert torch.allclose(gradient.flatten(1), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4)])
def test_orthogonality_penalty_sums_over_all_pairs_of_filters(shape):
    filters = torch.randn(shape)
    expected = sum(
        (filters[i] @ filters[j]).item() ** 2
        for i in range(len(filters))
        for j in range(len(filters))
        if i != j
    )

    assert layer_orthogonality_penalty(filters).item() == pytest.approx(expected, rel=1e-4)


def test_truncation_bounds_latents_in_evaluation_only():
    translator = make(truncation=0.5)
    assert translator.draw_latent(200).abs().max() > 1
    assert translator.eval().draw_latent(200).abs().max() <= 0.5
    assert make().eval().draw_latent(200).abs().max() > 1


def test_unsupported_size_is_rejected():
    with pytest.raises(ValueError, match="size of 32, 64, 128, 256, 512 pixels, but got 1024"):
        build("biggan", 1024, {})


def test_averaged_generator_is_evaluated_with_its_own_batch_statistics(tmp_path):
    from training_helpers import plan_of, trial_of

    plan = plan_of(tmp_path, "biggan", parameters={"ema_half_life_images": 1000})
    trial = trial_of(plan)
    list(trial.evaluations())
    exported = torch.load(tmp_path / "generator.pt", weights_only=True)["generator"]
    live = trial.translator.generator.state_dict()
    variances = [name for name in live if name.endswith("running_var")]

    assert variances
    norm, means = trial.average.network.output[0], []
    norm.register_forward_hook(lambda _, x, __: means.append(x[0].mean((0, 2, 3))))
    with trial.averaged_weights():
        assert len(means) == 16
    assert torch.allclose(norm.running_mean, torch.stack(means).mean(0), atol=1e-5)
    assert any(not torch.equal(live[name], trial.average.network.state_dict()[name])
               for name in variances)  # fmt: skip
    assert all(exported[name].isfinite().all() for name in variances)
    assert all(n.momentum == 0.1 for n in trial.average.network.modules()
               if isinstance(n, nn.BatchNorm2d))  # fmt: skip


def test_head_gets_the_sum_of_the_rectified_features():
    discriminator, features, inputs = make().discriminator.eval(), [], []
    discriminator.thermal_branch.register_forward_hook(lambda _, __, out: features.append(out))
    discriminator.head.register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    discriminator(torch.randn(2, 3, SIZE, SIZE), torch.randn(2, 1, SIZE, SIZE))

    assert torch.allclose(inputs[0], features[0].relu().sum((2, 3)), atol=1e-5)


def test_only_the_first_discriminator_block_skips_the_first_relu():
    features = -torch.rand(2, 4, 8, 8)
    for is_first in (True, False):
        block, inputs = DownBlock(4, 6, is_first=is_first, downsamples=True), []
        block.conv_1.register_forward_hook(lambda _, x, __, inputs=inputs: inputs.append(x[0]))
        block(features)
        assert torch.equal(inputs[0], features if is_first else torch.zeros_like(features))


def test_conditional_norm_normalizes_over_the_batch():
    norm, features = (
        ConditionalBatchNorm(4, 3),
        torch.randn(6, 4, 8, 8) + torch.arange(6.0).view(6, 1, 1, 1),
    )
    normalized = norm(features, torch.zeros(6, 3), None)

    assert torch.allclose(normalized.mean((0, 2, 3)), torch.zeros(4), atol=1e-5)
    assert normalized.mean((1, 2, 3)).abs().max() > 0.5

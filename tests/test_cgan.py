import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.architectures.cgan import ResidualBottleneck, mismatched
from thermal_search.images import Batch
from thermal_search.training.optimizers import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    return build("cgan", SIZE, TINY["cgan"] | parameters)


def test_discriminator_scores_real_mismatched_and_fake_pairs():
    translator, batch = make(manifold_interpolation=False), next(random_batches())
    scored = []
    translator.discriminator.register_forward_hook(
        lambda _, inputs, __: scored.append([x.detach() for x in inputs])
    )
    turn = next(translator.turns(iter([batch])))

    assert set(turn.terms) == {"real", "mismatched", "fake"}
    assert all(torch.equal(rgb, batch.rgb) for rgb, _ in scored)
    assert torch.equal(scored[0][1], batch.thermal)
    other = scored[1][1]
    assert torch.equal(other.sort(0).values, batch.thermal.sort(0).values)  # the same images
    assert not any(torch.equal(a, b) for a, b in zip(other, batch.thermal, strict=True))


def test_mismatched_and_fake_pairs_share_a_weight_of_one():
    def terms(weight):
        torch.manual_seed(3)
        return next(make(mismatch_weight=weight).turns(random_batches())).terms

    none, half = terms(0.0), terms(0.5)
    assert none["mismatched"] == 0
    assert half["fake"].item() == pytest.approx(none["fake"].item() / 2, rel=1e-5)
    assert half["mismatched"] > 0


@pytest.mark.parametrize("count", [2, 3, 8])
def test_mismatched_moves_every_image(count):
    images = torch.arange(float(count))[:, None, None, None].expand(-1, 1, 4, 4)
    for seed in range(20):
        torch.manual_seed(seed)
        other, is_mismatch = mismatched(images)
        assert (other != images).all()
        assert is_mismatch.all()


def test_neighboring_frames_are_no_mismatch():
    frame = torch.rand(1, 1, 8, 8)
    recording = torch.cat([frame, frame + 0.01, -frame - 0.5])
    for seed in range(10):
        torch.manual_seed(seed)
        other, is_mismatch = mismatched(recording)
        is_similar = (other - recording).abs().mean((1, 2, 3)) < 0.05
        assert is_mismatch.bool().equal(~is_similar)


def test_batch_of_equal_frames_has_no_mismatch_loss():
    translator, batch = make(), next(random_batches())
    same = Batch(batch.rgb, batch.thermal[:1].expand(len(batch.thermal), -1, -1, -1))
    turn = next(translator.turns(iter([same])))

    assert turn.terms["mismatched"] == 0


def test_batch_of_one_is_rejected():
    with pytest.raises(ValueError, match="batch_size of at least 2"):
        build("cgan", SIZE, TINY["cgan"] | {"batch_size": 1})


def test_discriminator_fuses_rgb_and_thermal_at_four_by_four():
    translator = make()
    discriminator = translator.discriminator
    fused, inputs, batch = [], [], next(random_batches())
    discriminator.head.register_forward_hook(lambda _, x, __: fused.append(x[0].shape))
    discriminator.thermal_branch.register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    list(translator.turns(iter([batch])))

    assert {shape[2:] for shape in fused} == {(4, 4)}
    assert torch.equal(inputs[0], batch.thermal)


def test_generator_fuses_latent_and_embedding_after_separate_layers():
    translator, inputs = make(), []
    generator = translator.generator
    generator.root.register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    z = translator.draw_latent(4)
    translator.translate(next(random_batches()).rgb, z)
    first = next(m for m in generator.fusion.modules() if isinstance(m, nn.Conv2d))
    root = next(m for m in generator.root.modules() if isinstance(m, nn.ConvTranspose2d))

    assert first.in_channels == root.out_channels + TINY["cgan"]["embedding_size"]
    assert torch.equal(inputs[0].flatten(1), z)


def test_discriminator_learns_to_prefer_matching_pairs():
    torch.manual_seed(0)
    # Thermal is the red channel, so only matching pairs agree.
    batch = next(random_batches())
    batch = Batch(batch.rgb, batch.rgb[:, :1].clone())
    translator = build("cgan", SIZE, TINY["cgan"] | {"discriminator_lr": 1e-3})
    optimizers = build_optimizers(translator)
    for _ in range(60):
        turn = next(translator.turns(iter([batch])))
        optimizers["discriminator"].optimizer.zero_grad()
        turn.loss.backward(inputs=optimizers["discriminator"].parameters)
        optimizers["discriminator"].optimizer.step()
    discriminator = translator.discriminator.eval()

    other, _ = mismatched(batch.thermal)
    real_score = discriminator(batch.rgb, batch.thermal).mean()
    assert real_score > discriminator(batch.rgb, other).mean() + 1


def test_learning_rates_halve_with_every_fifth_of_the_budget():
    translator = build("cgan", SIZE, {})
    for budget in (1000, 10**6):
        factors = [
            translator.learning_rate_factor(images, budget)
            for images in (0, budget // 5 - 1, budget // 5, budget // 2, budget - 1)
        ]
        assert factors == [1, 1, 1 / 2, 1 / 4, 1 / 16]


def test_interpolated_embedding_is_halfway_between_two_images():
    translator, rgb = make(), next(random_batches()).rgb
    for network in (translator.generator, translator.discriminator):
        encoder = network.rgb_encoder.eval()
        embeddings = encoder(rgb)
        halfway = (embeddings[0] + embeddings[1]) / 2
        assert torch.allclose(encoder(rgb, interpolate=True)[1], halfway)


def test_manifold_interpolation_trains_the_generator_if_switched_on():
    def terms(**parameters):
        *_, generator = make(**parameters).turns(random_batches())
        return set(generator.terms)

    assert "interpolated" in terms(manifold_interpolation=True)
    assert "interpolated" not in terms(manifold_interpolation=False)
    translator = make(manifold_interpolation=True)
    *_, generator = translator.turns(random_batches())
    generator.terms["interpolated"].backward()
    assert translator.generator.root[0].weight.grad.any()


def test_bottlenecks_get_normalized_features_of_both_signs():
    translator, inputs = make().train(), []
    for module in translator.modules():
        if isinstance(module, ResidualBottleneck):
            module.register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    next(translator.turns(random_batches()))

    assert len(inputs) == 2 + 3
    # Without an activation before it, half of a normalized feature map is negative.
    assert all(0.3 < (features < -0.1).float().mean() < 0.6 for features in inputs)


def test_bottleneck_is_residual():
    bottleneck, features = ResidualBottleneck(8, nn.ReLU()), torch.randn(2, 8, 4, 4)
    nn.init.zeros_(bottleneck.layers[-1].weight)

    assert torch.equal(bottleneck(features), features.relu())


def test_discriminator_scores_augmented_pairs_if_switched_on():
    translator, batch = (
        make(diff_augment=True, manifold_interpolation=False),
        next(random_batches()),
    )
    scored = []
    translator.discriminator.register_forward_hook(lambda _, x, __: scored.append(x))
    list(translator.turns(iter([batch])))

    assert len(scored) == 4
    for rgb, thermal in scored:
        assert (thermal == 0).float().mean() > 0.15
        assert (rgb == 0).float().mean() < 0.3
        assert not torch.equal(rgb, batch.rgb)

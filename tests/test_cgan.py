import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.architectures.cgan import Bottleneck, mismatched
from thermal_search.images import Batch
from thermal_search.training.step import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    return build("cgan", SIZE, TINY["cgan"] | parameters)


def test_the_discriminator_sees_three_kinds_of_pairs():
    translator, batch = make(interpolate=False), next(random_batches())
    shown = []
    translator.discriminator.register_forward_hook(
        lambda _, inputs, __: shown.append([x.detach() for x in inputs])
    )
    turn = next(translator.turns(iter([batch])))

    assert set(turn.terms) == {"real", "mismatched", "painted"}
    assert all(torch.equal(rgb, batch.rgb) for rgb, _ in shown)
    assert torch.equal(shown[0][1], batch.thermal)
    other = shown[1][1]
    assert torch.equal(other.sort(0).values, batch.thermal.sort(0).values)  # the same images
    assert not any(torch.equal(a, b) for a, b in zip(other, batch.thermal, strict=True))


def test_the_false_kinds_share_one_weight():
    def terms(share):
        torch.manual_seed(3)
        return next(make(mismatch_weight=share).turns(random_batches())).terms

    none, half = terms(0.0), terms(0.5)
    assert none["mismatched"] == 0
    assert half["painted"].item() == pytest.approx(none["painted"].item() / 2, rel=1e-5)
    assert half["mismatched"] > 0


@pytest.mark.parametrize("count", [2, 3, 8])
def test_no_picture_stays_in_its_place(count):
    pictures = torch.arange(float(count))[:, None, None, None].expand(-1, 1, 4, 4)
    for seed in range(20):
        torch.manual_seed(seed)
        other, is_mismatch = mismatched(pictures)
        assert (other != pictures).all()
        assert is_mismatch.all()


def test_neighbouring_frames_are_no_mismatch():
    frame = torch.rand(1, 1, 8, 8)
    recording = torch.cat([frame, frame + 0.01, -frame - 0.5])
    for seed in range(10):
        torch.manual_seed(seed)
        other, is_mismatch = mismatched(recording)
        alike = (other - recording).abs().mean((1, 2, 3)) < 0.05
        assert is_mismatch.bool().equal(~alike)


def test_a_batch_of_nothing_but_neighbours_teaches_no_mismatch():
    translator, batch = make(), next(random_batches())
    same = Batch(batch.rgb, batch.thermal[:1].expand(len(batch.thermal), -1, -1, -1))
    turn = next(translator.turns(iter([same])))

    assert turn.terms["mismatched"] == 0


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="batch_size of at least 2"):
        build("cgan", SIZE, TINY["cgan"] | {"batch_size": 1})


def test_rgb_and_thermal_meet_only_at_four_by_four():
    translator = make()
    joined, looked, batch = [], [], next(random_batches())
    translator.discriminator.join.register_forward_hook(lambda _, x, __: joined.append(x[0].shape))
    translator.discriminator.look.register_forward_hook(lambda _, x, __: looked.append(x[0]))
    list(translator.turns(iter([batch])))

    assert {shape[2:] for shape in joined} == {(4, 4)}
    first = next(m for m in translator.discriminator.look.modules() if isinstance(m, nn.Conv2d))
    assert first.in_channels == 1
    assert torch.equal(looked[0], batch.thermal)


def test_noise_and_code_have_layers_of_their_own_in_the_generator():
    translator, rooted = make(), []
    generator = translator.generator
    generator.root.register_forward_hook(lambda _, x, __: rooted.append(x[0]))
    z = translator.draw_latent(4)
    translator.translate(next(random_batches()).rgb, z)
    first = next(m for m in generator.join.modules() if isinstance(m, nn.Conv2d))
    root = next(m for m in generator.root.modules() if isinstance(m, nn.ConvTranspose2d))

    assert first.in_channels == root.out_channels + TINY["cgan"]["code_size"]
    assert torch.equal(rooted[0].flatten(1), z)


def test_learns_that_a_matching_pair_is_better_than_a_mismatched_one():
    torch.manual_seed(0)
    # Thermal is the red channel: only the match tells.
    batch = next(random_batches())
    batch = Batch(batch.rgb, batch.rgb[:, :1].clone())
    translator = build("cgan", SIZE, TINY["cgan"] | {"discriminator_lr": 1e-3})
    optimizers = build_optimizers(translator)
    for _ in range(60):
        turn = next(translator.turns(iter([batch])))
        optimizers["discriminator"].optimizer.zero_grad()
        turn.loss.backward(inputs=optimizers["discriminator"].parameters)
        optimizers["discriminator"].optimizer.step()
    judge = translator.discriminator.eval()

    other, _ = mismatched(batch.thermal)
    assert judge(batch.rgb, batch.thermal).mean() > judge(batch.rgb, other).mean() + 1


def test_learning_rates_halve_after_every_forty_epochs_of_the_paper():
    translator = make()

    assert translator.learning_rate_factor(353_999, 10**6) == 1
    assert translator.learning_rate_factor(354_000, 10**6) == 0.5
    assert translator.learning_rate_factor(10**6, 10**6) == 0.25


def test_between_two_pictures_their_codes_are_halfway():
    translator, rgb = make(), next(random_batches()).rgb
    for coder in (translator.generator.see.eval(), translator.discriminator.see.eval()):
        codes = coder(rgb)
        assert torch.allclose(coder(rgb, is_between=True)[1], (codes[0] + codes[1]) / 2)


def test_codes_between_two_pictures_teach_the_generator_when_asked_for():
    def terms(**parameters):
        *_, generator = make(**parameters).turns(random_batches())
        return set(generator.terms)

    assert "interpolated" in terms(interpolate=True)
    assert "interpolated" not in terms(interpolate=False)
    translator = make(interpolate=True)
    *_, generator = translator.turns(random_batches())
    generator.terms["interpolated"].backward()
    assert translator.generator.root[0].weight.grad.any()


def test_a_bottleneck_adds_to_what_it_was_given():
    bottleneck, features = Bottleneck(8, nn.ReLU()), torch.randn(2, 8, 4, 4)
    nn.init.zeros_(bottleneck.layers[-1].weight)

    assert torch.equal(bottleneck(features), features.relu())

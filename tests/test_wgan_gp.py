import pytest
import torch
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.architectures.wgan_gp import DownBlock, UpBlock
from thermal_search.losses import gradient_penalty
from thermal_search.training.optimizers import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    return build("wgan_gp", SIZE, TINY["wgan_gp"] | parameters)


def test_penalty_of_a_linear_critic_is_exact():
    gradient = torch.tensor([0.3, -2.0, 1.1, 0.7]).view(1, 1, 2, 2)
    real, fake = torch.rand(5, 1, 2, 2), torch.rand(5, 1, 2, 2)
    penalty = gradient_penalty(lambda y: (gradient * y).sum((1, 2, 3)), real, fake)

    assert penalty.item() == pytest.approx((gradient.norm().item() - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize(("norm", "two_sided", "one_sided"), [(0.5, 0.25, 0.0), (3.0, 4.0, 4.0)])
def test_one_sided_penalty_ignores_small_gradients(norm, two_sided, one_sided):
    def critic(y):
        return norm * y.flatten(1)[:, 0]

    images = torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)
    penalties = [gradient_penalty(critic, *images, one_sided=x).item() for x in (False, True)]

    assert penalties == pytest.approx([two_sided, one_sided], abs=1e-4)


def test_each_image_has_its_own_interpolation_weight():
    inputs = []

    def critic(y):
        inputs.append(y.detach())
        return y.sum((1, 2, 3))

    gradient_penalty(critic, torch.zeros(64, 1, 2, 2), torch.ones(64, 1, 2, 2))
    weights = inputs[0]

    assert (weights == weights[:, :, :1, :1]).all()
    assert weights[:, 0, 0, 0].unique().numel() == 64
    assert 0 <= weights.min() < 0.2
    assert 0.8 < weights.max() <= 1


def test_constant_critic_has_a_finite_gradient():
    weight = torch.zeros(1, requires_grad=True)
    gradient_penalty(
        lambda y: (weight * y).sum((1, 2, 3)), torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)
    ).backward()

    assert weight.grad.isfinite()


def test_penalty_has_a_gradient_in_the_critics_first_layer():
    translator = make()
    turn = next(translator.turns(random_batches()))
    turn.terms["penalty"].backward()

    assert translator.critic.layers[0].weight.grad.abs().sum() > 0


class Product(nn.Module):
    """Scores a pair by the product of its red and thermal channels.

    Its gradient by the thermal image is the red channel.
    """

    def forward(self, pair):
        return (pair[:, 0] * pair[:, 3]).sum((1, 2))


def test_penalty_differentiates_by_the_thermal_image_only():
    translator, batch = make(penalty_weight=3.0), next(random_batches())
    translator.critic = Product()
    turn = next(translator.turns(iter([batch])))
    norm = batch.rgb[:, 0].flatten(1).norm(dim=1)

    assert turn.terms["penalty"].item() == pytest.approx(
        3 * (norm - 1).square().mean().item(), rel=1e-4
    )


def test_penalty_is_computed_in_float32_under_bf16():
    translator = make()
    dtypes = []
    translator.critic.layers[0].register_forward_hook(lambda _, __, out: dtypes.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        next(translator.turns(random_batches()))

    assert dtypes == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_critic_does_not_couple_images(norm):
    translator = make(critic_norm=norm)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in translator.critic.modules())
    pairs = torch.randn(BATCH, 4, SIZE, SIZE, requires_grad=True)
    translator.critic(pairs)[0].backward()

    assert pairs.grad[0].abs().sum() > 0
    assert pairs.grad[1:].abs().sum() == 0


def test_layer_norm_covers_the_whole_image():
    norms = [m for m in make().critic.modules() if isinstance(m, nn.GroupNorm)]

    assert norms
    assert all(norm.num_groups == 1 for norm in norms)


def test_critic_takes_five_turns_on_new_batches_before_the_generator():
    drawn = []

    def counted():
        for batch in random_batches():
            drawn.append(batch)
            yield batch

    turns = [turn.player for turn in make(n_critic=5).turns(counted())]

    assert turns == ["critic"] * 5 + ["generator"]
    assert len(drawn) == 6


def test_optimizers_have_the_published_settings():
    translator = build("wgan_gp", SIZE, {"width": 4})

    assert translator.config.n_critic == 5
    assert translator.config.penalty_weight == 10
    for player_optimizer in build_optimizers(translator).values():
        assert isinstance(player_optimizer.optimizer, torch.optim.Adam)
        assert player_optimizer.optimizer.defaults["betas"] == (0.0, 0.9)
        assert player_optimizer.optimizer.defaults["lr"] == 1e-4


def test_weights_are_not_clipped():
    translator = make()
    largest = max(p.abs().max().item() for p in translator.critic.parameters())
    list(translator.turns(random_batches()))

    assert max(p.abs().max().item() for p in translator.critic.parameters()) == largest > 0.1


def test_learning_rates_decay_only_if_switched_on():
    assert make().learning_rate_factor(70, 100) == 1
    assert make(lr_decay=True).learning_rate_factor(70, 100) == pytest.approx(0.3)


def test_blocks_normalize_then_relu_then_convolve():
    kinds = [type(module) for module in DownBlock(4, 6, "layer").layers]
    assert kinds == [nn.GroupNorm, nn.ReLU, nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.Conv2d]
    block = UpBlock(4, 6)
    kinds = [type(module) for module in (*block.first, block.convolution, *block.second)]
    assert kinds == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]


def test_residual_convolutions_have_he_initialization_and_others_glorot():
    torch.manual_seed(0)
    critic = build("wgan_gp", 64, {"width": 16}).critic
    block = critic.layers[2]
    fan_in = block.layers[2].weight[0].numel()

    assert block.layers[2].weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
    ends = sum(block.shortcut.weight.shape[:2])
    assert block.shortcut.weight.std().item() == pytest.approx((2 / ends) ** 0.5, rel=0.1)

import itertools

import pytest
import torch
from tiny_settings import SIZE, TINY, random_batches
from torch import nn

from thermal_search.architectures import build
from thermal_search.architectures.wgan import WARMUP_GENERATOR_STEPS
from thermal_search.training.optimizers import build_optimizers


def make(**parameters):
    torch.manual_seed(0)
    return build("wgan", SIZE, TINY["wgan"] | parameters)


def players(translator, images=0, budget=0):
    translator.begin_step(images, budget)
    return [turn.player for turn in translator.turns(random_batches())]


def test_critic_weights_are_clipped_after_every_critic_turn():
    translator = make(weight_clip=0.01, n_critic=3)
    optimizers = build_optimizers(translator)
    largest = []
    for number, turn in enumerate(translator.turns(random_batches())):
        if number > 0:
            largest.append(max(p.abs().max().item() for p in translator.critic.parameters()))
        turn.loss.backward(inputs=optimizers[turn.player].parameters)
        optimizers[turn.player].optimizer.step()

    assert len(largest) == 3
    assert max(largest) <= 0.01 + 1e-9


def test_generator_weights_are_not_clipped():
    translator = make(weight_clip=0.001)
    list(translator.turns(random_batches()))

    assert max(p.abs().max().item() for p in translator.generator.parameters()) > 0.1


def test_critic_takes_its_turns_before_the_generator():
    assert players(make(n_critic=3)) == ["critic"] * 3 + ["generator"]


def test_every_turn_draws_a_new_batch():
    drawn = []

    def counted():
        for batch in random_batches():
            drawn.append(batch)
            yield batch

    list(make(n_critic=4).turns(counted()))
    assert len(drawn) == 5


def test_warmup_takes_at_most_a_twentieth_of_the_budget():
    translator = make(n_critic=2, warmup_n_critic=100)
    budget = 4 * 10_000
    lengths = [len(players(translator, 0, budget)) - 1 for _ in range(WARMUP_GENERATOR_STEPS)]

    assert lengths[0] == 100
    assert sum(lengths) * 4 <= budget * 0.05 + 2 * 4 * WARMUP_GENERATOR_STEPS
    assert lengths[-1] == 2


def test_warmup_is_shorter_in_a_short_trial():
    assert len(players(make(warmup_n_critic=100), 0, 100 * 4)) - 1 == 5


def test_warmup_is_shorter_with_several_workers():
    translator = make(warmup_n_critic=100)
    translator.workers = 2

    assert len(players(translator, 0, 2 * 10 * 20 * 4)) - 1 == 10


def test_warmup_turns_repeat_every_five_hundredth_step():
    translator = make(n_critic=2, warmup_n_critic=10)
    translator.generator_steps = 499
    assert len(players(translator, 0, 10**9)) - 1 == 2
    assert len(players(translator, 0, 10**9)) - 1 == 10


def test_default_is_rmsprop_without_momentum():
    translator = build("wgan", SIZE, TINY["wgan"])

    for player_optimizer in build_optimizers(translator).values():
        assert isinstance(player_optimizer.optimizer, torch.optim.RMSprop)
        assert player_optimizer.optimizer.defaults["momentum"] == 0
        assert player_optimizer.optimizer.defaults["lr"] == 5e-5


def test_critic_scores_without_sigmoid_in_float32_under_bf16():
    translator = make()
    assert not any(isinstance(m, nn.Sigmoid) for m in translator.critic.modules())

    with torch.autocast("cpu", torch.bfloat16):
        assert translator.critic(torch.zeros(2, 4, SIZE, SIZE)).dtype == torch.float32


def test_wasserstein_estimate_grows_as_the_critic_learns():
    translator = make(n_critic=40, weight_clip=0.1, critic_lr=1e-3)
    batch = next(random_batches())
    estimates = []
    optimizers = build_optimizers(translator)
    for turn in translator.turns(itertools.repeat(batch)):
        if turn.player == "critic":
            estimates.append(-turn.loss.item())
        optimizers[turn.player].optimizer.zero_grad()
        turn.loss.backward(inputs=optimizers[turn.player].parameters)
        optimizers[turn.player].optimizer.step()

    assert sum(estimates[-10:]) / 10 > estimates[0] + 0.1


def test_wasserstein_estimate_is_logged():
    turn = next(make().turns(random_batches()))

    assert turn.logged["distance"] == -turn.terms["wasserstein"]


def test_output_is_determined_by_the_latent():
    translator = make().eval()
    rgb = torch.zeros(2, 3, SIZE, SIZE)
    z = translator.draw_latent(2, torch.Generator().manual_seed(1))
    other = translator.draw_latent(2, torch.Generator().manual_seed(2))

    assert torch.equal(translator.translate(rgb, z), translator.translate(rgb, z))
    assert not torch.equal(translator.translate(rgb, z), translator.translate(rgb, other))


def test_warmup_state_is_restored():
    translator, other = make(), make()
    assert len(players(translator, 0, 20 * 10 * 4)) - 1 == 10
    other.load_state_dict(translator.state_dict())

    assert other.generator_steps == translator.generator_steps == 1
    assert other.warmup_images == translator.warmup_images == 10 * 4


def test_initial_weights_are_those_of_the_release():
    torch.manual_seed(0)
    translator = build("wgan", SIZE, {})
    norms = [m.weight for m in translator.critic.modules() if isinstance(m, nn.BatchNorm2d)]

    assert translator.critic.features[3].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert norms[0].mean().item() == pytest.approx(1, abs=0.02)


def test_latents_are_normal():
    z = make().draw_latent(2000)

    assert z.mean().item() == pytest.approx(0, abs=0.05)
    assert z.std().item() == pytest.approx(1, rel=0.03)

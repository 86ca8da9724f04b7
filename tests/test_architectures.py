"""Rules every architecture keeps; they run for each line of the table."""

import io
import itertools
import math
from contextlib import nullcontext
from dataclasses import fields

import optuna
import pytest
import torch
from tiny_settings import BATCH, SIZE, TINY, random_batches

import search_spaces
from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.architectures.biggan import AdaptiveNorm
from thermal_search.architectures.translator import Translator
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.networks.attention import SelfAttention
from thermal_search.training.step import build_optimizers, train_step
from thermal_search.tuning.space import ConditionalSpace


@pytest.fixture(params=sorted(ARCHITECTURES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def translator(name: str) -> Translator:
    torch.manual_seed(0)
    return build(name, SIZE, TINY[name])


def play(translator, optimizers, batches, steps=1):
    losses = {}
    for step in range(steps):
        translator.begin_step(step * BATCH, 1000)
        losses = train_step(
            translator, optimizers, batches, group=WorkerGroup(), autocast=nullcontext()
        )
    return {key: value.item() for key, value in losses.items()}


def test_paints_one_thermal_channel_in_network_range(translator):
    thermal = translator.translate(next(random_batches()).rgb)

    assert thermal.shape == (BATCH, 1, SIZE, SIZE)
    assert thermal.dtype == torch.float32
    assert thermal.abs().max() <= 1


def test_stays_in_range_however_large_its_weights(translator):
    for parameter in translator.generator.parameters():
        parameter.data *= 100

    assert translator.translate(next(random_batches()).rgb).abs().max() <= 1


@pytest.mark.parametrize("size", [64, 128, 256])
def test_paints_other_sizes(name, size):
    # StyleGAN's tiny channels_by_resolution would have no channel left at 256 pixels.
    wider = {"channel_base": 512} if name == "stylegan" else {}
    thermal = build(name, size, TINY[name] | wider).translate(torch.zeros(2, 3, size, size))

    assert thermal.shape == (2, 1, size, size)


def test_as_published_builds_at_512_pixels(name):
    with torch.device("meta"):
        assert build(name, 512, {}).config.size == 512


def test_what_it_paints_depends_on_the_rgb_picture(translator):
    translator.eval()
    one, other = next(random_batches(0)).rgb, next(random_batches(1)).rgb
    z = translator.draw_latent(BATCH, torch.Generator().manual_seed(0))

    torch.manual_seed(0)
    first = translator.translate(one, z)
    torch.manual_seed(0)
    second = translator.translate(other, z)

    assert not torch.allclose(first, second)


def test_networks_belong_to_exactly_one_player(translator):
    owned = [
        id(p)
        for player in translator.players().values()
        for network in player.networks
        for p in network.parameters()
    ]

    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in translator.parameters()}


def test_the_whole_generator_is_moved_by_players(translator):
    networks = [n for player in translator.players().values() for n in player.networks]
    moved = {id(p) for network in networks for p in network.parameters()}

    assert {id(p) for p in translator.generator.parameters()} <= moved


def test_each_turn_moves_only_its_own_player_and_every_player_moves(translator):
    optimizers = build_optimizers(translator)
    moved = set()
    translator.begin_step(0, 1000)
    before = {
        name: [p.clone() for p in player_optimizer.parameters]
        for name, player_optimizer in optimizers.items()
    }
    for turn in translator.turns(random_batches()):
        # Between the turns an architecture may change its own player (clipping): look only at
        # what the turn itself moves.
        before = {
            name: [p.clone() for p in player_optimizer.parameters]
            for name, player_optimizer in optimizers.items()
        }
        optimizers[turn.player].optimizer.zero_grad()
        turn.loss.backward(inputs=optimizers[turn.player].parameters)
        optimizers[turn.player].optimizer.step()
        for name, player_optimizer in optimizers.items():
            same = all(
                torch.equal(a, b)
                for a, b in zip(before[name], player_optimizer.parameters, strict=True)
            )
            assert same == (name != turn.player)
        moved.add(turn.player)

    assert moved == set(optimizers)


def test_only_the_moving_player_gets_gradients(translator):
    moving = []
    optimizers = build_optimizers(translator)
    game = translator.turns

    def logged(batches):
        for turn in game(batches):
            moving.append(turn.player)
            yield turn

    translator.turns = logged
    given = []
    for player, player_optimizer in optimizers.items():
        for parameter in player_optimizer.parameters:
            parameter.register_post_accumulate_grad_hook(
                lambda _, player=player: given.append((player, moving[-1]))
            )
    play(translator, optimizers, random_batches())

    assert {receiver for receiver, _ in given} == set(optimizers)
    assert all(receiver == mover for receiver, mover in given)


def test_every_parameter_learns_in_the_course_of_the_budget(translator):
    for part in translator.modules():
        # What begins at zero, and until it has moved keeps silent what comes before it.
        if isinstance(part, SelfAttention):
            part.gain.data.fill_(0.5)
        if isinstance(part, AdaptiveNorm) and part.maps:
            torch.nn.init.normal_(part.maps.weight)
    optimizers = build_optimizers(translator)
    # Networks that grow use all their layers only one after another.
    grows = hasattr(translator.generator, "growth")
    for images in range(0, 1000, 50 if grows else 1000):
        translator.begin_step(images, 1000)
        for turn in translator.turns(random_batches()):
            turn.loss.backward(inputs=optimizers[turn.player].parameters)
    idle = {name for name, p in translator.named_parameters() if p.grad is None or not p.grad.any()}

    # A difference of means does not feel what is added to every score.
    assert idle - {"critic.head.bias"} == set()


def test_what_it_paints_depends_on_the_latent_where_there_is_one(translator):
    translator.eval()
    rgb = next(random_batches()).rgb
    one, other = translator.draw_latent(BATCH), translator.draw_latent(BATCH)
    torch.manual_seed(0)
    first = translator.translate(rgb, one)
    torch.manual_seed(0)

    assert torch.equal(first, translator.translate(rgb, other)) == (one is None)


def test_losses_are_finite_and_named_by_player(translator):
    losses = play(translator, build_optimizers(translator), random_batches(), steps=3)

    assert all(math.isfinite(value) for value in losses.values())
    assert {key.split("/")[0] for key in losses} == set(translator.players())


@pytest.mark.parametrize(
    "name", [n for n, kind in ARCHITECTURES.items() if hasattr(kind.Config(size=32), "l1")]
)
def test_the_absolute_error_is_minimised_only_when_asked_for(name):
    def terms(**parameters):
        translator = build(name, SIZE, TINY[name] | parameters)
        translator.begin_step(0, 1000)
        return {key for turn in translator.turns(random_batches()) for key in turn.terms}

    assert "l1" not in terms()
    assert "l1" in terms(l1=True)


def test_the_same_seed_gives_the_same_losses(name):
    def run():
        torch.manual_seed(5)
        translator = build(name, SIZE, TINY[name])
        return play(translator, build_optimizers(translator), random_batches(), steps=3)

    assert run() == run()


def test_a_restored_translator_goes_on_exactly(name):
    torch.manual_seed(5)
    translator = build(name, SIZE, TINY[name])
    optimizers = build_optimizers(translator)
    play(translator, optimizers, random_batches(1), steps=3)
    file = io.BytesIO()
    state = {
        "translator": translator.state_dict(),
        "optimizers": {
            key: player_optimizer.optimizer.state_dict()
            for key, player_optimizer in optimizers.items()
        },
        "random": torch.get_rng_state(),
    }
    torch.save(state, file)
    expected = play(translator, optimizers, random_batches(2), steps=3)

    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = build(name, SIZE, TINY[name])
    other.load_state_dict(state["translator"])
    optimizers = build_optimizers(other)
    for key, player_optimizer in optimizers.items():
        player_optimizer.optimizer.load_state_dict(state["optimizers"][key])
    torch.set_rng_state(state["random"])

    assert play(other, optimizers, random_batches(2), steps=3) == expected
    for (key, a), b in zip(translator.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), key


ON_DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("device", ON_DEVICES)
# As it begins, while a growing network fades in new layers, and at the end.
@pytest.mark.parametrize("images", [0, 370, 999])
def test_trains_under_bf16_with_float32_weights_and_losses(translator, device, images):
    translator.to(device)
    translator.begin_step(images, 1000)
    losses = train_step(
        translator,
        build_optimizers(translator),
        (type(b)(b.rgb.to(device), b.thermal.to(device)) for b in random_batches()),
        group=WorkerGroup(),
        autocast=torch.autocast(device, torch.bfloat16),
    )

    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    assert all(p.dtype == torch.float32 for p in translator.parameters())


def test_the_learning_rate_stays_within_its_published_value(translator):
    factors = [
        translator.learning_rate_factor(images, 10**6) for images in range(0, 10**6 + 1, 10**5)
    ]

    assert factors[0] == 1
    assert all(0 <= later <= earlier for earlier, later in itertools.pairwise(factors))


def test_published_settings_lie_inside_the_space(name):
    loaded = search_spaces.load(name)
    study = optuna.create_study()
    study.enqueue_trial(dict(loaded.published))

    active = {key: value for key, value in loaded.space.items() if key in loaded.published}
    # Optuna warns when an enqueued value is out of range; warnings are errors here.
    assert study.ask(fixed_distributions=active).params == loaded.published


def test_the_published_setting_names_what_is_active_and_nothing_else(name):
    loaded = search_spaces.load(name)
    active = [key for key in loaded.space if loaded.is_active(key, loaded.published)]

    assert list(loaded.published) == active


def test_conditions_name_a_parameter_that_is_suggested_before(name):
    loaded = search_spaces.load(name)
    order = list(loaded.space)
    for parameter, (other, values) in loaded.conditions.items():
        assert order.index(other) < order.index(parameter)
        distribution = loaded.space[other]
        assert set(values) < set(distribution.choices)


def test_a_suggested_point_builds(name):
    space = ConditionalSpace([name])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(3):
        trial = study.ask()
        space(trial)
        chosen = {k.split("/")[1]: v for k, v in trial.params.items() if "/" in k}
        for size in (32, 64):
            with torch.device("meta"):
                build(name, size, chosen)


def test_the_published_setting_is_the_default_of_every_field(name):
    defaults = ARCHITECTURES[name].Config(size=256)

    for parameter, value in search_spaces.load(name).published.items():
        assert getattr(defaults, parameter) == value, parameter


def test_every_searched_parameter_is_a_field(name):
    known = {field.name for field in fields(ARCHITECTURES[name].Config)} - {"size"}

    assert set(search_spaces.load(name).space) <= known


def trained(name, parameters):
    """All that training shows, at the start, in the middle and near the end of a budget."""
    torch.manual_seed(5)
    translator = build(name, SIZE, TINY[name] | parameters)
    translator.init_from_data(next(random_batches(7, batch=8)).rgb)
    optimizers, batches, budget = build_optimizers(translator), random_batches(), 10**6
    shown = []
    for images in (0, 400_000, 900_000):
        translator.begin_step(images, budget)
        for player_optimizer in optimizers.values():
            player_optimizer.schedule(
                translator.learning_rate_factor(images, budget), images / budget
            )
        losses = train_step(
            translator, optimizers, batches, group=WorkerGroup(), autocast=nullcontext()
        )
        shown += [value.item() for value in losses.values()]
    translator.eval()
    rgb = next(random_batches(3)).rgb
    thermal = translator.translate(rgb, translator.draw_latent(BATCH))
    weights = [
        p.sum().item()
        for player_optimizer in optimizers.values()
        for p in player_optimizer.parameters
    ]
    return [*shown, thermal.double().mean().item(), *weights]


def other_value(distribution, value):
    """One that may be suggested, small where sizes are meant, other than `value`."""
    choices = getattr(distribution, "choices", None) or (distribution.low, distribution.high)
    return next(choice for choice in choices if choice != value)


def test_a_searched_parameter_changes_training_exactly_where_it_is_suggested(name):
    loaded = search_spaces.load(name)
    defaults = vars(ARCHITECTURES[name].Config(size=SIZE)) | TINY[name]
    # A tiny network must not hide one parameter behind another, nor play a hundred turns.
    base = {"wgan": {"warmup_n_critic": 0}, "progressive_gan": {"channel_max": 64}}.get(name, {})
    known = {}

    def training(parameters):
        key = tuple(sorted(parameters.items()))
        if key not in known:
            known[key] = trained(name, parameters)
        return known[key]

    # The trial's own for every architecture alike, and what caps large images only.
    for parameter in loaded.space.keys() - {"batch_size", "ema_half_life_images", "channel_cap"}:
        distribution = loaded.space[parameter]
        value = (defaults | base)[parameter]
        changed = {parameter: other_value(distribution, value)}
        if parameter not in loaded.conditions:
            assert training(base) != training(base | changed), parameter
            continue
        other, values = loaded.conditions[parameter]
        on = base | {other: values[0]}
        assert training(on) != training(on | changed), parameter
        for choice in set(loaded.space[other].choices) - set(values):
            off = base | {other: choice}
            assert training(off) == training(off | changed), parameter


@pytest.mark.parametrize("name", ["dcgan", "wgan"])
def test_the_channel_cap_narrows_large_pictures(name):
    def parameters(cap):
        with torch.device("meta"):
            translator = build(name, 256, {"channel_cap": cap})
        return sum(p.numel() for p in translator.generator.parameters())

    assert parameters(8) < parameters(16)


def test_every_architecture_has_a_space_and_a_tiny_setting():
    assert set(search_spaces.names()) == set(ARCHITECTURES) == set(TINY)


def test_an_unknown_architecture_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown architecture 'pixpix'.*biggan, cgan, cyclegan"):
        build("pixpix", 64, {})


def test_an_unknown_parameter_is_named_with_the_known_ones(name):
    with pytest.raises(
        ValueError, match=rf"Unknown parameters of {name}: speed\. Available: .*batch_size"
    ):
        build(name, 64, {"speed": 1})


@pytest.mark.parametrize("size", [16, 48, 100])
def test_a_size_that_is_no_power_of_two_is_refused(name, size):
    with pytest.raises(ValueError, match=f"power of two from 32, but got {size}"):
        build(name, size, {})

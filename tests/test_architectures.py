"""Contract tests that run for every architecture of the table."""

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
from thermal_search.architectures.biggan import ConditionalBatchNorm
from thermal_search.architectures.translator import Translator
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.networks.attention import SelfAttention
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step
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


def test_output_is_one_thermal_channel_in_network_range(translator):
    thermal = translator.translate(next(random_batches()).rgb)

    assert thermal.shape == (BATCH, 1, SIZE, SIZE)
    assert thermal.dtype == torch.float32
    assert thermal.abs().max() <= 1


def test_output_range_holds_for_large_weights(translator):
    for parameter in translator.generator.parameters():
        parameter.data *= 100

    assert translator.translate(next(random_batches()).rgb).abs().max() <= 1


@pytest.mark.parametrize("size", [64, 128, 256])
def test_output_has_the_requested_size(name, size):
    # Tiny StyleGAN would have no channel left at 256 pixels.
    wider = {"channel_base": 512} if name == "stylegan" else {}
    thermal = build(name, size, TINY[name] | wider).translate(torch.zeros(2, 3, size, size))

    assert thermal.shape == (2, 1, size, size)


def test_published_setting_builds_at_512_pixels(name):
    with torch.device("meta"):
        assert build(name, 512, {}).config.size == 512


def test_output_depends_on_the_rgb_image(translator):
    translator.eval()
    one, other = next(random_batches(0)).rgb, next(random_batches(1)).rgb
    z = translator.draw_latent(BATCH, torch.Generator().manual_seed(0))

    torch.manual_seed(0)
    first = translator.translate(one, z)
    torch.manual_seed(0)
    second = translator.translate(other, z)

    assert not torch.allclose(first, second)


def test_every_parameter_belongs_to_exactly_one_player(translator):
    owned = [
        id(p)
        for player in translator.players().values()
        for network in player.networks
        for p in network.parameters()
    ]

    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in translator.parameters()}


def test_each_turn_updates_only_its_own_player(translator):
    optimizers = build_optimizers(translator)
    updated = set()
    translator.begin_step(0, 1000)
    for turn in translator.turns(random_batches()):
        # Between turns an architecture may change its own player (weight clipping).
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
        updated.add(turn.player)

    assert updated == set(optimizers)


def test_only_the_current_player_gets_gradients(translator):
    current = []
    optimizers = build_optimizers(translator)
    turns = translator.turns

    def recorded_turns(batches):
        for turn in turns(batches):
            current.append(turn.player)
            yield turn

    translator.turns = recorded_turns
    gradients = []
    for player, player_optimizer in optimizers.items():
        for parameter in player_optimizer.parameters:
            parameter.register_post_accumulate_grad_hook(
                lambda _, player=player: gradients.append((player, current[-1]))
            )
    play(translator, optimizers, random_batches())

    assert {owner for owner, _ in gradients} == set(optimizers)
    assert all(owner == player for owner, player in gradients)


def test_every_parameter_gets_a_gradient_during_the_budget(translator):
    for module in translator.modules():
        # A gain or weight of 0 blocks the gradient of the layers before it.
        if isinstance(module, SelfAttention):
            module.gain.data.fill_(0.5)
        if isinstance(module, ConditionalBatchNorm) and module.spatial:
            torch.nn.init.normal_(module.spatial.weight)
    optimizers = build_optimizers(translator)
    # Progressive networks use their layers one after another.
    is_progressive = hasattr(translator.generator, "growth")
    for images in range(0, 1000, 50 if is_progressive else 1000):
        translator.begin_step(images, 1000)
        for turn in translator.turns(random_batches()):
            turn.loss.backward(inputs=optimizers[turn.player].parameters)
    idle = {name for name, p in translator.named_parameters() if p.grad is None or not p.grad.any()}

    # A constant added to every score cancels in the Wasserstein loss.
    assert idle - {"critic.head.bias"} == set()


def test_output_depends_on_the_latent_if_there_is_one(translator):
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
def test_l1_is_a_term_only_if_switched_on(name):
    def terms(**parameters):
        translator = build(name, SIZE, TINY[name] | parameters)
        translator.begin_step(0, 1000)
        return {key for turn in translator.turns(random_batches()) for key in turn.terms}

    assert "l1" not in terms()
    assert "l1" in terms(l1=True)


def test_same_seed_gives_the_same_losses(name):
    def run():
        torch.manual_seed(5)
        translator = build(name, SIZE, TINY[name])
        return play(translator, build_optimizers(translator), random_batches(), steps=3)

    assert run() == run()


def test_restored_translator_resumes_exactly(name):
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
# At the start, while a progressive network fades in new layers, and at the end.
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


def test_learning_rate_never_exceeds_its_published_value(translator):
    factors = [
        translator.learning_rate_factor(images, 10**6) for images in range(0, 10**6 + 1, 10**5)
    ]

    assert factors[0] == 1
    assert all(0 <= later <= earlier for earlier, later in itertools.pairwise(factors))


def test_published_setting_lies_inside_the_space(name):
    loaded = search_spaces.load(name)
    study = optuna.create_study()
    study.enqueue_trial(dict(loaded.published))

    active = {key: value for key, value in loaded.space.items() if key in loaded.published}
    # Optuna warns when an enqueued value is out of range; warnings are errors here.
    assert study.ask(fixed_distributions=active).params == loaded.published


def test_published_setting_has_exactly_the_active_parameters(name):
    loaded = search_spaces.load(name)
    active = [key for key in loaded.space if loaded.is_active(key, loaded.published)]

    assert list(loaded.published) == active


def test_conditions_refer_to_an_earlier_parameter(name):
    loaded = search_spaces.load(name)
    order = list(loaded.space)
    for parameter, (other, values) in loaded.conditions.items():
        assert order.index(other) < order.index(parameter)
        distribution = loaded.space[other]
        assert set(values) < set(distribution.choices)


def test_suggested_point_builds(name):
    space = ConditionalSpace([name])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(3):
        chosen = space.suggest(study.ask()).parameters
        for size in (32, 64):
            with torch.device("meta"):
                build(name, size, chosen)


def test_published_setting_equals_the_default_fields(name):
    defaults = ARCHITECTURES[name].Config(size=256)

    for parameter, value in search_spaces.load(name).published.items():
        assert getattr(defaults, parameter) == value, parameter


def test_every_searched_parameter_is_a_config_field(name):
    names = {field.name for field in fields(ARCHITECTURES[name].Config)} - {"size"}

    assert set(search_spaces.load(name).space) <= names


def trained(name, parameters):
    """Losses, output and weights of steps at the start of a budget and near its end, and between
    them if the networks grow."""
    torch.manual_seed(5)
    translator = build(name, SIZE, TINY[name] | parameters)
    translator.init_from_data(next(random_batches(7, batch=8)))
    optimizers, batches, budget = build_optimizers(translator), random_batches(), 10**6
    values = []
    for images in (0, 400_000, 900_000) if ARCHITECTURES[name].grows else (0, 900_000):
        translator.begin_step(images, budget)
        for player_optimizer in optimizers.values():
            player_optimizer.schedule(
                translator.learning_rate_factor(images, budget), images / budget
            )
        losses = train_step(
            translator, optimizers, batches, group=WorkerGroup(), autocast=nullcontext()
        )
        values += [value.item() for value in losses.values()]
    translator.eval()
    rgb = next(random_batches(3)).rgb
    thermal = translator.translate(rgb, translator.draw_latent(BATCH))
    weights = [
        p.sum().item()
        for player_optimizer in optimizers.values()
        for p in player_optimizer.parameters
    ]
    return [*values, thermal.double().mean().item(), *weights]


def other_value(distribution, value):
    """A value of the distribution other than `value`; the smallest if it is a size."""
    choices = getattr(distribution, "choices", None) or (distribution.low, distribution.high)
    return next(choice for choice in choices if choice != value)


def test_searched_parameter_changes_training_exactly_if_it_is_active(name):
    loaded = search_spaces.load(name)
    defaults = vars(ARCHITECTURES[name].Config(size=SIZE)) | TINY[name]
    # In a tiny network one parameter may mask another, and warm-up takes a hundred turns.
    base = {"wgan": {"warmup_n_critic": 0}, "progressive_gan": {"channel_max": 64}}.get(name, {})
    results = {}

    def key(parameters):
        return tuple(sorted((defaults | parameters).items()))

    def training(parameters):
        if key(parameters) not in results:
            results[key(parameters)] = trained(name, parameters)
        return results[key(parameters)]

    def activated(parameter):
        """`base`, changed so that a parameter applies."""
        if parameter not in loaded.conditions:
            return base
        other, values = loaded.conditions[parameter]
        on = activated(other)
        return on if (defaults | on)[other] in values else on | {other: values[0]}

    inactive = {}
    """By settings: values of parameters that do not apply there."""

    # Left out: what the trial itself uses, and a cap that applies to large images only.
    for parameter in loaded.space.keys() - {
        "batch_size",
        "ema_half_life_images",
        "max_width_multiplier",
    }:
        distribution = loaded.space[parameter]
        on = activated(parameter)
        changed = {parameter: other_value(distribution, (defaults | on)[parameter])}
        assert training(on) != training(on | changed), parameter
        if parameter == "r1":
            continue  # where it does not apply it is refused (test_discriminators)
        condition = parameter
        while condition in loaded.conditions:
            condition, values = loaded.conditions[condition]
            for choice in set(loaded.space[condition].choices) - set(values):
                off = activated(condition) | {condition: choice}
                inactive.setdefault(key(off), (off, {}))[1].update(changed)
    for off, changed in inactive.values():
        assert training(off) == training(off | changed), changed


@pytest.mark.parametrize("name", ["dcgan", "wgan"])
def test_max_width_multiplier_limits_channels_of_large_images(name):
    def parameters(multiplier):
        with torch.device("meta"):
            translator = build(name, 256, {"max_width_multiplier": multiplier})
        return sum(p.numel() for p in translator.generator.parameters())

    assert parameters(8) < parameters(16)


def test_every_architecture_has_a_search_space_and_a_tiny_setting():
    assert set(search_spaces.names()) == set(ARCHITECTURES) == set(TINY)


def test_unknown_architecture_error_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown architecture 'pixpix'.*biggan, cgan, cyclegan"):
        build("pixpix", 64, {})


def test_unknown_parameter_error_lists_the_known_ones(name):
    with pytest.raises(
        ValueError, match=rf"Unknown parameters of {name}: speed\. Available: .*batch_size"
    ):
        build(name, 64, {"speed": 1})


@pytest.mark.parametrize("size", [16, 48, 100])
def test_size_that_is_not_a_power_of_two_is_rejected(name, size):
    with pytest.raises(ValueError, match=f"power of two from 32, but got {size}"):
        build(name, size, {})

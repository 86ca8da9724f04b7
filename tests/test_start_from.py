"""--start-from: trials that begin from an exported generator."""

import json
from dataclasses import replace

import pytest
import torch
from generator_helpers import config_of, save_untrained
from tiny_settings import SIZE, TINY
from training_helpers import plan_of, trial_of

from thermal_search import generator
from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.errors import SearchError, SettingsError
from thermal_search.storage import Location
from thermal_search.training.starting_weights import take_over
from thermal_search.training.trial_plan import StartingPoint, TrialEvaluation
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings, resume_plan
from thermal_search.tuning.slots.messages import TrialConfig, TrialReport
from thermal_search.tuning.starting_point import (
    describe_start,
    recorded_start,
    require_same_start,
    starting_point,
)


def save_model(folder, architecture, seed=5, **parameters):
    """An exported generator that differs from the one that the trials of tests begin with."""
    torch.manual_seed(seed)
    translator = build(architecture, SIZE, TINY[architecture] | parameters)
    config = config_of(architecture).model_copy(
        update={"parameters": TINY[architecture] | parameters}
    )
    generator.save(Location.of(folder), config, translator.generator.state_dict())
    return folder


def start_of(folder):
    architecture = generator.load_config(folder).architecture
    digest = generator.load_weights(folder).digest
    return StartingPoint(Location.of(folder), architecture, digest)


def images_of(translator):
    translator.eval()
    rgb = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = translator.draw_latent(2, torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    with torch.no_grad():
        return translator.translate(rgb, z)


class TestTrial:
    @pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
    def test_generates_at_step_0_what_the_model_generates(self, tmp_path, architecture):
        model = save_model(tmp_path / "model", architecture)
        parameters = {"ema_half_life_images": 100}
        plan = plan_of(
            tmp_path / "trial", architecture, start_from=start_of(model), parameters=parameters
        )
        trial = trial_of(plan)
        expected = images_of(generator.load(model))

        assert trial.taken_over.taken_over > 0
        assert trial.taken_over.left_out == 0
        assert torch.equal(images_of(trial.translator), expected)
        trial.translator.generator = trial.average.network
        assert torch.equal(images_of(trial.translator), expected)

    def test_of_another_architecture_begins_as_without(self, tmp_path):
        start = start_of(save_model(tmp_path / "model", "unit"))
        with_start = trial_of(plan_of(tmp_path / "a", start_from=start))
        without = trial_of(plan_of(tmp_path / "b"))

        assert with_start.taken_over is None
        assert torch.equal(images_of(with_start.translator), images_of(without.translator))

    def test_takes_over_what_has_its_shape(self, tmp_path):
        model = save_model(tmp_path / "model", "cyclegan", blocks=2)
        trial = trial_of(plan_of(tmp_path / "trial", "cyclegan", start_from=start_of(model)))
        own = dict(trial.translator.generator.named_parameters())
        theirs = generator.load_weights(model).tensors

        first = "layers.1.weight"
        assert torch.equal(own[first], theirs[first])
        assert trial.taken_over.left_out > 0
        count = trial.taken_over.taken_over + trial.taken_over.left_out
        assert count == len(trial.translator.generator.state_dict())

    def test_trains_and_resumes_on(self, tmp_path):
        start = start_of(save_model(tmp_path / "model", "pix2pix"))
        plan = plan_of(tmp_path / "trial", start_from=start, images=16)
        evaluations = trial_of(plan).evaluations()
        next(evaluations)
        evaluations.close()
        resumed = trial_of(plan)

        assert resumed.progress.images == 8
        model = generator.load_weights(start.model).tensors
        trained = resumed.translator.generator.state_dict()
        assert not torch.equal(trained["encoder.0.1.weight"], model["encoder.0.1.weight"])
        # Another start is another trial.
        assert trial_of(replace(plan, start_from=None)).progress.images == 0

    def test_changed_weights_are_refused(self, tmp_path):
        start = start_of(save_model(tmp_path / "model", "pix2pix"))
        save_model(tmp_path / "model", "pix2pix", seed=6)
        with pytest.raises(SearchError, match="has other weights than when the search began"):
            trial_of(plan_of(tmp_path / "trial", start_from=start))


def test_growth_is_taken_over_only_with_every_tensor():
    torch.manual_seed(0)
    large = build("progressive_gan", 2 * SIZE, TINY["progressive_gan"])
    large.begin_step(100, 100)
    small = build("progressive_gan", SIZE, TINY["progressive_gan"])
    before = small.generator.growth
    result = take_over(small.generator, large.generator.state_dict())

    assert large.generator.growth.resolution == 2 * SIZE
    assert result.taken_over > 0
    assert small.generator.growth == before


@pytest.fixture
def model(tmp_path):
    return save_untrained(tmp_path / "model")


def settings_of(tmp_path, **changes):
    settings = {"data": "data", "output": tmp_path / "search", "architectures": "pix2pix,wgan"}
    return SearchSettings(**settings | changes)


class TestPlan:
    def test_search_of_other_architectures_is_refused(self, tmp_path, model):
        plan = plan_from_settings(settings_of(tmp_path, start_from=model, architectures="wgan"))
        with pytest.raises(SettingsError, match=r"generator of pix2pix, which is not among .*wgan"):
            starting_point(plan)

    def test_folder_without_a_generator_is_refused(self, tmp_path):
        plan = plan_from_settings(settings_of(tmp_path, start_from=tmp_path))
        with pytest.raises(SearchError, match="holds no exported generator"):
            starting_point(plan)

    def test_resumes_with_the_same_weights_only(self, tmp_path, model):
        plan = plan_from_settings(settings_of(tmp_path, start_from=model))
        plan = plan.started_on("digest", {}, starting_point(plan).digest)
        plan.save()
        kept = json.loads((tmp_path / "search" / "search.json").read_text())
        moved = tmp_path / "moved"
        model.rename(moved)
        resumed = resume_plan(
            SearchPlan.load(tmp_path / "search"),
            SearchSettings(output=tmp_path / "search", start_from=moved),
        )

        assert kept["start_from"] == str(model)
        assert kept["start_digest"] == plan.start_digest != ""
        require_same_start(resumed, starting_point(resumed))
        assert recorded_start(resumed) == StartingPoint(
            Location.of(moved), "pix2pix", plan.start_digest
        )
        save_model(moved, "pix2pix", seed=6)
        with pytest.raises(SearchError, match="other weights than when the search began"):
            require_same_start(resumed, starting_point(resumed))

    def test_search_that_began_without_does_not_resume_with_it(self, tmp_path, model):
        plan = plan_from_settings(settings_of(tmp_path)).started_on("digest", {})
        require_same_start(plan, starting_point(plan))
        changed = plan.replace(start_from=Location.of(model))
        with pytest.raises(SearchError, match="began without --start-from"):
            require_same_start(changed, starting_point(changed))

    def test_published_point_with_other_shapes_names_the_parameters(self, tmp_path, model):
        save_model(model, "pix2pix", generator_width=32)
        plan = plan_from_settings(settings_of(tmp_path, start_from=model))
        text = describe_start(plan, starting_point(plan), SIZE)
        fixed = plan.replace(fix=("pix2pix.generator_width=32",))
        fits = describe_start(fixed, starting_point(fixed), SIZE)

        assert "left out. For its shapes pass --fix" in text
        assert "pix2pix.generator_width=32" in text
        assert fits.endswith(" 0 left out.")


def test_record_says_how_much_was_taken_over(tmp_path):
    plan = plan_from_settings(settings_of(tmp_path, images=100)).started_on("digest", {})
    plan.save()
    record = SearchRecord.of(plan)
    trial = record.add(0, TrialConfig("pix2pix", {}))
    evaluation = TrialEvaluation(
        images=1, metrics={"fid": 1.0}, losses={}, seconds=1.0, images_per_second=1.0, grid=None
    )
    record.add_evaluation(
        trial.id, TrialReport(status="running", evaluation=evaluation, start=(40, 2))
    )

    start = record.summary.trials[0].start
    assert (start.taken_over, start.left_out) == (40, 2)

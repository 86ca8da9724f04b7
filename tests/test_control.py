"""What people say about the search space and the first trials: --narrow, --first, --space,
--architecture-file, --learn-from. No Ray."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from search_command import parse
from summaries import evaluate, record_of, started_plan

from thermal_search.architectures import ARCHITECTURES, from_file
from thermal_search.cli import main
from thermal_search.errors import SearchError, SettingsError
from thermal_search.tuning.analysis import analyze
from thermal_search.tuning.first_settings import read_first
from thermal_search.tuning.learned import FILE as LEARNED_FILE
from thermal_search.tuning.learned import learn, load_learned
from thermal_search.tuning.own_code import read_own_code
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.proposals import Proposals
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.space import load_spaces
from thermal_search.tuning.space_flags import parse_narrowed

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SMALL_GAN = Path(__file__).parent / "files" / "small_gan.py"
SPACE = """
from optuna.distributions import CategoricalDistribution, FloatDistribution
SPACE = {
    "generator_lr": FloatDistribution(1e-4, 1e-3, log=True),
    "feature_matching": CategoricalDistribution([False, True]),
    "feature_matching_weight": FloatDistribution(1.0, 10.0, log=True),
}
CONDITIONS = {"feature_matching_weight": ("feature_matching", (True,))}
PUBLISHED = {"generator_lr": 2e-4, "feature_matching": False}
"""


@pytest.fixture(autouse=True)
def quick_writes(monkeypatch):
    """Nothing here is about a machine that loses power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(autouse=True)
def table():
    """The table of architectures as it was."""
    before, registered = {**ARCHITECTURES}, {**from_file.registered}
    yield
    ARCHITECTURES.clear()
    ARCHITECTURES.update(before)
    from_file.registered.clear()
    from_file.registered.update(registered)


def file_of(folder, name, text):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def propose(record, count=1):
    """The next settings of a search, each of which completes."""
    proposals, configs = Proposals(record, record.plan.architectures), []
    for _ in range(count):
        number, config = proposals.propose()
        trial = record.add(number, config)
        evaluate(record, trial.id, 50.0 + number % 7)
        record.end(trial.id, "completed", "")
        configs.append(config)
    return configs


# --narrow


def test_narrowed_ranges_and_choices_hold_every_proposal(tmp_path):
    record = record_of(
        tmp_path,
        narrow=(
            "pix2pix.generator_lr=3e-5:1e-4",
            "pix2pix.gan_mode=lsgan|hinge",
            "pix2pix.scales=2:3",
        ),
    )
    published, *others = propose(record, 14)

    # As published, but for what is not inside: the nearest that is.
    assert (published.parameters["generator_lr"], published.parameters["scales"]) == (1e-4, 2)
    assert published.parameters["gan_mode"] == "lsgan"
    assert published.parameters["l1_weight"] == 100.0
    for config in others:
        assert 3e-5 <= config.parameters["generator_lr"] <= 1e-4
        assert config.parameters["gan_mode"] in ("lsgan", "hinge")
        assert config.parameters["scales"] in (2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generator_lr=1:2", "must name a parameter of pix2pix, wgan, as in pix2pix.generator_lr="),
        ("pix2pix.generator_rl=1e-5:1e-3", "has no parameter .*Available: .*Did you mean generato"),
        ("pix2pix.generator_lr=1e-5:1e-3", r"must be a range within 2e-05:0.002"),
        ("pix2pix.generator_lr=1e-3:1e-4", "the lower bound first"),
        ("pix2pix.generator_lr=1e-4", "must be a range within .*LOW:HIGH"),
        ("pix2pix.generator_lr=a:b", "must be two numbers within"),
        ("pix2pix.scales=1.5:2", "must be two numbers within 1:3"),
        ("pix2pix.norm=batch|layer", "must be one of batch, instance"),
        ("pix2pix.norm=batch|batch", "must name each choice once"),
        ("pix2pix.batch_size=1|2", "--fix has a value for this parameter"),
    ],
)
def test_narrowing_to_something_else_is_one_sentence(text, message):
    spaces = load_spaces(["pix2pix", "wgan"])
    with pytest.raises(SettingsError, match=message):
        parse_narrowed([text], spaces, {"pix2pix": {"batch_size": 8}})


# --first


def test_first_settings_are_tried_before_the_published_points(tmp_path):
    path = file_of(
        tmp_path,
        "first.yaml",
        "- architecture: wgan\n"
        "- architecture: pix2pix\n"
        "  parameters: {discriminator_norm: instance, r1: true, l1_weight: 5e1, batch_size: 8}\n",
    )
    settings = SearchSettings(
        data="data",
        output=tmp_path / "o",
        architectures=("pix2pix", "wgan"),
        first=path,
        images=200_000,
    )
    plan = plan_from_settings(settings)
    plan.save()
    wgan, pix2pix, next_one = propose(SearchRecord.of(plan), 3)

    assert wgan == plan.search_space().published("wgan")
    assert pix2pix.parameters["l1_weight"] == 50.0
    assert pix2pix.parameters["r1_gamma"] == ARCHITECTURES["pix2pix"].Config(size=64).r1_gamma
    assert pix2pix.parameters["dropout"] == 0.5
    # The published point of wgan was first already.
    assert next_one == plan.search_space().published("pix2pix")
    resumed = plan_from_settings(SearchSettings(output=tmp_path / "o"), resume=True)
    assert resumed.first_settings == plan.first_settings
    assert plan_from_settings(SearchSettings(output=tmp_path / "o", first=path), resume=True)
    path.write_text("- architecture: wgan\n")
    with pytest.raises(SearchError, match="has other settings than the search began with"):
        plan_from_settings(SearchSettings(output=tmp_path / "o", first=path), resume=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "must be a list of settings"),
        ("[", "must be YAML or JSON"),
        ("[5]", "setting 1 must have an architecture and parameters, but is 5"),
        ("[{architecture: pixpix}]", "'pixpix' is not an arch.*Available: pix2pix.*mean pix2pix"),
        ("[{architecture: pix2pix, params: {}}]", "unknown key 'params'.*Did you mean parameters"),
        ("[{architecture: pix2pix, parameters: 5}]", "parameters must be names with values"),
        ("[{architecture: pix2pix, parameters: {lr: 5}}]", "pix2pix has no parameter 'lr'"),
        (
            "[{architecture: pix2pix, parameters: {beta1: 5}}]",
            "beta1 must be a number from 0.0 to 0.9, but is 5",
        ),
        ("[{architecture: pix2pix, parameters: {beta1: true}}]", "beta1 must be a number from"),
        ("[{architecture: pix2pix, parameters: {r1: 1}}]", "r1 must be one of False, True, but is"),
        ("[{architecture: pix2pix, parameters: {norm: 5}}]", "norm must be one of batch, instance"),
        ("[{architecture: pix2pix, parameters: {r1_gamma: 5}}]", "applies only if r1 is True"),
        ("[{architecture: pix2pix}, {architecture: pix2pix}]", "the same as setting 1"),
    ],
)
def test_mistake_in_first_settings_is_one_sentence(tmp_path, text, message):
    path = file_of(tmp_path, "first.yaml", text)

    with pytest.raises(SettingsError, match=message):
        read_first(path, load_spaces(["pix2pix"]))


# --space


def settings_with(tmp_path, **changes):
    settings = {"data": "data", "output": tmp_path / "o", "architectures": ("pix2pix",)}
    settings["images"] = 200_000
    return SearchSettings(**settings | changes)


def test_space_of_ones_own_is_searched_and_kept_as_data(tmp_path):
    path = file_of(tmp_path, "pix2pix.py", SPACE)
    plan = plan_from_settings(settings_with(tmp_path, space=(str(path),)))
    plan.save()
    path.unlink()
    record = SearchRecord.load(tmp_path / "o")
    published, *others = propose(record, 12)

    assert published.parameters == {"generator_lr": 2e-4, "feature_matching": False}
    assert all(1e-4 <= config.parameters["generator_lr"] <= 1e-3 for config in others)
    assert any("feature_matching_weight" in config.parameters for config in others)
    assert str(path) not in (tmp_path / "o" / "search.json").read_text()


def test_resume_under_another_space_is_refused(tmp_path):
    path = file_of(tmp_path / "mine", "pix2pix.py", SPACE)
    plan_from_settings(settings_with(tmp_path, space=(str(path),))).save()
    output = tmp_path / "o"

    assert plan_from_settings(SearchSettings(output=output, space=(str(path),)), resume=True)
    path.write_text(SPACE.replace("1e-3", "2e-3"))
    with pytest.raises(SearchError, match="space of pix2pix is not the one that the search began"):
        plan_from_settings(SearchSettings(output=output, space=(str(path),)), resume=True)
    started_plan(tmp_path / "packaged")
    settings = SearchSettings(output=tmp_path / "packaged", space=(str(path),))
    with pytest.raises(SearchError, match=r"is not the one .*that of the package"):
        plan_from_settings(settings, resume=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SPACE = {", "SPACE = [", r"pix2pix.py, line \d+: SyntaxError"),
        ("from optuna", "import nothing_of_this_name\nfrom optuna", "line 2: ModuleNotFoundError"),
        ("SPACE = {", "SPICE = {", "must define SPACE"),
        ('"generator_lr": F', '"lr": F', "pix2pix has no parameter 'lr'"),
        (
            "FloatDistribution(1.0, 10.0, log=True)",
            "5",
            "feature_matching_weight must be a distribution of Optuna",
        ),
        (
            '("feature_matching", (True,))',
            '("matching", (True,))',
            "the condition of 'feature_matching_weight' must be",
        ),
        (
            '("feature_matching", (True,))',
            '("feature_matching", ("on",))',
            "has feature_matching = 'on', but it must be one of False, True",
        ),
        (
            '"generator_lr": 2e-4',
            '"generator_lr": 2',
            "generator_lr = 2, but it must be a number f",
        ),
        ('"generator_lr": 2e-4, ', "", "PUBLISHED must have generator_lr"),
        (
            '"feature_matching": False}',
            '"feature_matching": False, "feature_matching_weight": 2.0}',
            "PUBLISHED must not have feature_matching_weight",
        ),
    ],
)
def test_mistake_in_a_space_is_one_sentence(tmp_path, old, new, message):
    assert old in SPACE
    path = file_of(tmp_path, "pix2pix.py", SPACE.replace(old, new, 1))

    with pytest.raises(SettingsError, match=message):
        read_own_code([str(path)], [])


def test_space_needs_the_name_of_its_architecture(tmp_path):
    path = file_of(tmp_path, "mine.py", SPACE)

    assert read_own_code([f"pix2pix={path}"], []).spaces.keys() == {"pix2pix"}
    with pytest.raises(SettingsError, match=r"pix2pix=FILE.py. Available: .*pix2pix"):
        read_own_code([str(path)], [])
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_own_code([str(tmp_path / "pix2pix.py")], [])
    settings = settings_with(tmp_path, architectures=("wgan",), space=(f"pix2pix={path}",))
    with pytest.raises(SettingsError, match="pix2pix has a file, but is not searched"):
        plan_from_settings(settings)


# --architecture-file


def test_architecture_of_ones_own_is_searched_and_named_again_on_resume(tmp_path):
    path = shutil.copy(SMALL_GAN, tmp_path)
    names = ("small_gan", "wgan")
    settings = settings_with(tmp_path, architectures=names, architecture_file=(path,))
    plan = plan_from_settings(settings)
    plan.save()
    plan.require_known_architectures()
    first, *_ = propose(SearchRecord.of(plan), 4)
    assert first == TrialConfig("small_gan", from_file.register(
        from_file.registered["small_gan"]).PUBLISHED)  # fmt: skip

    # Another process, which has not read the file.
    del ARCHITECTURES["small_gan"], from_file.registered["small_gan"]
    output = SearchSettings(output=tmp_path / "o")
    with pytest.raises(SearchError, match=r"keeps no copy of: pass --architecture-file small_gan."):
        plan_from_settings(output, resume=True)
    again = SearchSettings(output=tmp_path / "o", architecture_file=(path,))
    assert plan_from_settings(again, resume=True).architectures == names
    del ARCHITECTURES["small_gan"], from_file.registered["small_gan"]
    Path(path).write_text(SMALL_GAN.read_text() + "\n")
    with pytest.raises(SearchError, match=r"small_gan\.py is not the file that the search"):
        plan_from_settings(again, resume=True)


def test_report_analyzes_an_architecture_from_a_file(tmp_path):
    path = shutil.copy(SMALL_GAN, tmp_path)
    settings = settings_with(
        tmp_path, architectures=("small_gan",), architecture_file=(path,), images=10
    )
    plan = plan_from_settings(settings).started_on("digest", {})
    plan.save()
    record = SearchRecord.of(plan)
    propose(record, 12)
    # The report reads what the search has written, in another process.
    del ARCHITECTURES["small_gan"], from_file.registered["small_gan"]
    analysis = analyze(SearchRecord.load(tmp_path / "o"), "small_gan")

    assert analysis.parameters
    assert analysis.compared_trials == 12


def test_reading_a_search_runs_none_of_its_code(tmp_path):
    marker = tmp_path / "marker"
    path = file_of(
        tmp_path, "small_gan.py", SMALL_GAN.read_text() + f"\nopen({str(marker)!r}, 'w')\n"
    )
    settings = settings_with(tmp_path, architectures=("small_gan",), architecture_file=(path,))
    plan_from_settings(settings).save()
    assert marker.exists()
    marker.unlink()
    file = tmp_path / "o" / "search.json"
    # As a search from someone else might have it.
    content = json.loads(file.read_text()) | {"architecture_file": [str(path)]}
    file.write_text(json.dumps(content | {"space": [f"small_gan={path}"], "first": str(path)}))
    SearchRecord.load(tmp_path / "o")
    SearchPlan.load(tmp_path / "o").search_space()
    with pytest.raises(SearchError):
        SearchPlan.load(tmp_path / "p")

    assert not marker.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "class SmallGAN(Translator)",
            "class SmallGAN(nn.Module)",
            "must define one subclass of Tr",
        ),
        ("    def turns(", "    def turn(", "must define one subclass of Translator"),
        ("    needs_pairs = True\n", "", "must set needs_pairs"),
        ("width: int = 16", "width: int", "must have a Config in SmallGAN with defaults for"),
        ("SPACE = {", "SPICE = {", "has no search space: define SPACE and PUBLISHED"),
    ],
)
def test_mistake_in_an_architecture_is_one_sentence(tmp_path, old, new, message):
    text = SMALL_GAN.read_text()
    assert old in text
    path = file_of(tmp_path, "other_gan.py", text.replace(old, new, 1))

    with pytest.raises(SettingsError, match=message):
        read_own_code([], [path])


def test_architecture_file_must_not_hide_a_packaged_one(tmp_path):
    path = file_of(tmp_path, "pix2pix.py", SMALL_GAN.read_text())

    with pytest.raises(SettingsError, match="has the name of an architecture of thermal-search"):
        read_own_code([], [path])


def test_contract_tests_run_on_an_architecture_from_a_file():
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider"]
    command += ["tests/test_architectures.py", "--architecture-file", str(SMALL_GAN)]
    command += ["-k", "range or published or player or searched_parameter"]
    result = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)

    assert result.returncode == 0, result.stdout
    assert "small_gan" not in result.stderr
    assert "passed" in result.stdout
    assert int(result.stdout.split(" passed")[0].split()[-1]) >= 8


# --learn-from


def earlier_search(folder, **changes):
    record = record_of(folder, images=2, evaluate_every=1, trials=12, **changes)
    proposals = Proposals(record, record.plan.architectures)
    for number in range(12):
        _, config = proposals.propose()
        trial = record.add(number, config)
        evaluate(record, trial.id, 90.0, 60.0 + (7 * number) % 11)
        record.end(trial.id, "completed" if number % 4 else "stopped", "")
    return record


def learning_plan(folder, earlier, protocol=9, **changes):
    """The plan of a new search that learns from another, as `search` begins it."""
    settings = {"data": "data", "architectures": ("pix2pix",), "images": 2, "evaluate_every": 1}
    settings |= {"learn_from": earlier, "average_last": 1} | changes
    plan = plan_from_settings(SearchSettings(output=folder, **settings))
    plan = plan.started_on("digest", {"images": protocol})
    learned = learn(plan)
    assert learned
    plan = plan.replace(learned_digest=learned.digest)
    learned.write_with_backup(plan.output / LEARNED_FILE)
    plan.save()
    return plan


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_trials_of_the_same_protocol_are_told_to_the_sampler(tmp_path, sampler):
    earlier = earlier_search(tmp_path / "earlier")
    plan = learning_plan(tmp_path / "o", tmp_path / "earlier", sampler=sampler)
    learned = load_learned(plan)
    assert len(learned.trials) == 9
    assert learned.trials[0].values == [67.0]
    assert not learned.first
    whole = propose(SearchRecord.of(plan), 4)
    # 9 are known and 1 was published: the next one is not random.
    unlearned = plan.replace(output=tmp_path / "u", learn_from=None, learned_digest="")
    unlearned.save()
    assert propose(SearchRecord.of(unlearned), 4)[2:] != whole[2:]

    # The earlier search is no longer there, and the new one resumes exactly.
    shutil.rmtree(tmp_path / "earlier")
    parts_plan = plan.replace(output=tmp_path / "parts")
    parts_plan.save()
    shutil.copy(tmp_path / "o" / LEARNED_FILE, tmp_path / "parts")
    parts = propose(SearchRecord.load(tmp_path / "parts"), 2)
    parts += propose(SearchRecord.load(tmp_path / "parts"), 2)
    assert parts == whole
    assert earlier.trials


def test_best_settings_of_another_protocol_are_tried_first(tmp_path, caplog):
    earlier = earlier_search(tmp_path / "earlier", architectures=("pix2pix", "wgan"))
    plan = learning_plan(tmp_path / "o", tmp_path / "earlier", protocol=10)
    best = next(t for t in earlier.ranking() if t.architecture == "pix2pix")
    first, second = propose(SearchRecord.of(plan), 2)

    assert first.parameters == best.parameters
    assert second == plan.search_space().published("pix2pix")
    assert "has another protocol, so its numbers do not compare" in caplog.text


def test_trials_of_another_length_are_not_told(tmp_path):
    earlier_search(tmp_path / "earlier")
    plan = learning_plan(tmp_path / "o", tmp_path / "earlier", images=4)

    learned = load_learned(plan)
    assert (len(learned.trials), len(learned.first)) == (0, 1)


def test_search_without_usable_trials_teaches_nothing(tmp_path):
    earlier_search(tmp_path / "earlier")

    with pytest.raises(SearchError, match="has no completed trial in the space of this search"):
        learning_plan(tmp_path / "o", tmp_path / "earlier", architectures=("wgan",))
    with pytest.raises(SearchError, match="holds no search"):
        learning_plan(tmp_path / "o", tmp_path / "nothing")


def test_changed_lessons_are_refused(tmp_path):
    earlier_search(tmp_path / "earlier")
    plan = learning_plan(tmp_path / "o", tmp_path / "earlier")
    file = tmp_path / "o" / LEARNED_FILE
    file.write_text(file.read_text().replace("67.0", "1.0"))
    with pytest.raises(SearchError, match="is not what the search began with"):
        load_learned(plan)
    file.unlink()
    assert load_learned(plan)  # from its backup
    (tmp_path / "o" / f"{LEARNED_FILE}.bak").unlink()
    with pytest.raises(SearchError, match=r"learned\.json is missing"):
        load_learned(plan)


# --config


def test_files_of_settings_steer_a_search_but_name_no_code(tmp_path, capsys):
    text = "narrow: pix2pix.scales=1:2\nfirst: first.yaml\nsampler: gp\nno_published: true\n"
    text += "scheduler: median\nstartup_trials: 3\nlearn_from: searches/first\n"
    config = file_of(tmp_path, "search.yaml", text)
    settings, _ = parse("--output", tmp_path / "o", "--config", config)

    assert settings.narrow == ("pix2pix.scales=1:2",)
    assert (settings.sampler, settings.scheduler, settings.startup_trials) == ("gp", "median", 3)
    assert (settings.no_published, settings.first) == (True, Path("first.yaml").absolute())
    assert settings.learn_from.name == "first"
    for name in ("space", "architecture_file"):
        config.write_text(f"{name}: pix2pix.py\n")
        with pytest.raises(SystemExit):
            main(["search", "--output", str(tmp_path / "o"), "--config", str(config)])
        assert f"{name} names files whose code is run: pass --" in capsys.readouterr().err


def test_flags_name_files_of_code():
    settings, _ = parse("--output", "o", "--architecture-file", "a.py,b.py", "--space", "p=c.py")

    assert settings.architecture_file == (Path("a.py"), Path("b.py"))
    assert settings.space == ("p=c.py",)

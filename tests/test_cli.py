"""The command line: a search's flags come from one model, and every error is one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from search_command import parse

import search_spaces
from thermal_search import command_line
from thermal_search.cli import app, main
from thermal_search.errors import SearchError, SettingsError
from thermal_search.flags_table import flags_table
from thermal_search.storage import Location
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.settings import LaunchSettings, SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings

ROOT = Path(__file__).parent.parent
COMMANDS = (
    "demo", "prepare", "search", "ui", "report", "export", "translate", "evaluate", "fid",
)  # fmt: skip


def fail(capsys, *arguments: object) -> tuple[int, str]:
    """The exit code and the sentence of a command that must fail."""
    with pytest.raises(SystemExit) as exit:
        main([*map(str, arguments)])
    captured = capsys.readouterr()
    if isinstance(exit.value.code, str):  # Python prints it at the end of the process.
        return 1, exit.value.code
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return exit.value.code, captured.err.strip()


class TestHelp:
    def test_the_bare_command_prints_the_commands(self, capsys):
        main([])
        text = capsys.readouterr().out

        assert all(command in text for command in COMMANDS)

    def test_help_of_search_shows_every_setting_in_a_group(self, capsys):
        main(["search", "--help"])
        text = capsys.readouterr().out

        for name in SearchSettings.model_fields | LaunchSettings.model_fields:
            assert f"--{name.replace('_', '-')}" in text
        groups = ["Data and output", "Search space and budget", "Resources", "Evaluation"]
        positions = [
            text.index(f" {group} ")
            for group in [*groups, "Objective and finalists", "Ray cluster"]
        ]
        assert positions == sorted(positions)
        assert "[default: tpe]" in text

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_and_every_flag_has_help(self, command):
        assert app[command].help
        for argument in app[command].assemble_argument_collection(parse_docstring=True):
            if argument.show:
                assert argument.parameter.help, argument.name

    def test_version_is_that_of_the_package(self, capsys):
        main(["--version"])

        assert capsys.readouterr().out.strip() == command_line.version()

    def test_help_is_quick(self):
        code = (
            "import sys; from thermal_search.cli import main; main(['search', '--help']); "
            "assert not {'torch', 'ray', 'optuna', 'mlflow', 'pyarrow'} & set(sys.modules)"
        )
        before = os.times().children_user
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

        # Less than 1 s on a machine that does nothing else: the limit leaves room for a busy one.
        assert os.times().children_user - before < 3

    def test_the_page_of_flags_is_current(self):
        assert (ROOT / "docs/flags.md").read_text() == flags_table(), (
            "run python -m thermal_search.flags_table > docs/flags.md"
        )

    def test_the_script_for_clusters_has_the_same_flags(self):
        script = ROOT / "cluster/search.py"
        shown = subprocess.run(
            [sys.executable, script, "--help"], capture_output=True, text=True, check=True
        ).stdout

        for name in SearchSettings.model_fields | LaunchSettings.model_fields:
            assert f"--{name.replace('_', '-')}" in shown


class TestFlags:
    def test_flags_become_settings(self):
        settings, launch = parse(
            "--data", "s3://bucket/flir", "--output=out", "--architectures", "wgan, gan",
            "--trials", 7, "--gpus-per-worker", 0.5, "--placement", "pack", "--resume",
            "--wait-for-nodes", 3,
        )  # fmt: skip

        assert settings.data == Location("bucket/flir", "s3")
        assert settings.output == Location(str(Path("out").absolute()))
        assert settings.architectures == ("wgan", "gan")
        assert (settings.trials, settings.gpus_per_worker, settings.placement) == (7, 0.5, "pack")
        assert (launch.resume, launch.wait_for_nodes, launch.address) == (True, 3, None)

    def test_only_what_was_passed_counts_as_passed(self):
        settings, _ = parse("--output", "out", "--slots", 2)

        assert settings.model_fields_set == {"output", "slots"}

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--trails", "3"], "unknown flag --trails: did you mean --trials?"),
            (["--trial", "3"], "unknown flag --trial: did you mean --trials?"),
            (["--res"], "unknown flag --res: did you mean --resume?"),
            (["--no-resume"], "unknown flag --no-resume: did you mean --resume?"),
            (["--trials"], "--trials needs a value: see --help."),
            (["--data", "--trials", "3"], "--data needs a value: see --help."),
            (["--trials", "1.5"], "--trials must be a whole number, but is 1.5."),
            (["--trials", "0"], "--trials must be at least 1, but is 0."),
            (["--trials", "-5"], "--trials must be at least 1, but is -5."),
            (["--trials="], "--trials must be a whole number, but is empty."),
            (["--reduction", "nan"], "--reduction must be a finite number, but is nan."),
            (["--reduction", "1"], "--reduction must be above 1, but is 1."),
            (["--seed", "4294967296"], "--seed must be at most 4294967295, but is 4294967296."),
            (["--slots", "10001"], "--slots must be at most 10000, but is 10001."),
            (["--gpus-per-worker", "inf"], "--gpus-per-worker must be a finite number"),
            (["--placement", "packed"], "--placement must be pack or spread, but is packed."),
            (["--wait-minutes", "-1"], "--wait-minutes must be at least 0, but is -1."),
            (["--architectures", ","], "--architectures must name at least one architecture"),
            (["--data", "s3://"], "--data: s3:// needs a bucket"),
            (["--seeds", "2", "--seeds", "3"], "--seeds must be given once"),
            (["more"], "unexpected argument more: see --help."),
        ],
    )
    def test_a_wrong_command_line_is_one_sentence(self, capsys, arguments, sentence):
        code, text = fail(capsys, "search", "--output", "out", *arguments)

        assert code == command_line.USAGE
        assert text.startswith(f"thermal-search: {sentence}")

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["serch"], "unknown command serch: did you mean search?"),
            (["search", "--outpt", "x"], "unknown flag --outpt: did you mean --output?"),
            (["search", "--outpt=x"], "unknown flag --outpt=x: did you mean --output?"),
            (["xyz"], "unknown command xyz: known are demo, prepare, search, ui, report,"),
            (["search"], "--output is required: see --help."),
            (["ui"], "OUTPUT is required: see --help."),
            (["ui", "gs://"], "OUTPUT: gs:// needs a bucket"),
            (["prepare", "a"], "SOURCE and OUTPUT are required, or --verify DATASET: see --help."),
            (["prepare", "a", "b", "--celsius", "40,-10"], "--celsius must be LOW HIGH with LOW"),
            (["ui", "out", "--port", "1.5"], "--port must be a whole number, but is 1.5."),
            (["evaluate", "model", "--data", "d", "--split", "x"], "--split must be val or test"),
            (["fid", "a", "b", "--features-precision", "fp8"], "--features-precision must be"),
        ],
    )
    def test_a_wrong_command_is_one_sentence(self, capsys, arguments, sentence):
        code, text = fail(capsys, *arguments)

        assert code == command_line.USAGE
        assert text.startswith(f"thermal-search: {sentence}")

    @pytest.mark.parametrize(
        ("arguments", "code", "sentence"),
        [
            ([], 2, "needs --data"),
            (["--data", "nowhere"], 1, "nowhere"),
            (["--data", "nowhere", "--architectures", "gam"], 2, "Unknown architecture 'gam'"),
            (["--data", "nowhere", "--objective", "fit"], 2, "unknown metric 'fit'"),
        ],
    )
    def test_a_search_that_cannot_start_ends_with_one_sentence(
        self, capsys, tmp_path, arguments, code, sentence
    ):
        result, text = fail(capsys, "search", "--output", tmp_path / "out", *arguments)

        assert (result, sentence in text) == (code, True)

    @pytest.mark.parametrize("words", [["--pair=-1,2"], ["--pair", "-1,2"], ["--pair", "-1", "2"]])
    def test_a_pair_may_have_a_comma(self, words):
        taken = []
        app = command_line.create_app("pairs", "Takes a pair.")

        @app.default
        def take(rest: str, /, *, pair: tuple[float, float]) -> None:
            taken.append((pair, rest))

        command_line.run(app, [*words, "rest"], pairs=["--pair"])

        assert taken == [((-1.0, 2.0), "rest")]

    def test_an_interrupt_ends_with_exit_code_130(self, capsys):
        stopped = command_line.create_app("stopped", "Stops.")

        @stopped.default
        def stop() -> None:
            raise KeyboardInterrupt

        with pytest.raises(SystemExit) as exit:
            command_line.run(stopped, [])

        assert exit.value.code == 130
        assert capsys.readouterr().err.strip() == "stopped: interrupted"

    def test_a_reader_that_has_ended_is_no_error(self):
        code = "from thermal_search.cli import main; main(['search', '--help'])"
        command = f'{sys.executable} -c "{code}" 2>&1 >&- | cat'
        shown = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)

        assert "Traceback" not in shown.stdout


class TestConfigFile:
    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "search.yaml"

    def test_a_file_sets_what_the_command_line_leaves_out(self, file):
        file.write_text(
            "output: out\ntrials: 7\nevaluate-every: 20\nslots: null\narchitectures: [wgan, gan]\n"
            "resume: true\nreduction: 2.5\nwait_minutes: 1\n"
        )
        settings, launch = parse("--config", file, "--trials", 8)

        assert (settings.trials, settings.evaluate_every, settings.slots) == (8, 20, None)
        assert settings.architectures == ("wgan", "gan")
        assert (settings.reduction, launch.resume, launch.wait_minutes) == (2.5, True, 1.0)
        assert "slots" not in settings.model_fields_set

    def test_an_empty_file_sets_nothing(self, file):
        file.write_text("")

        assert parse("--config", file, "--output", "out")[0].model_fields_set == {"output"}

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ("trails: 3", "unknown setting trails: did you mean trials?"),
            ("learning_rate: 3", "unknown setting learning_rate: did you mean"),
            ("config: other.yaml", "unknown setting config: "),
            ("trials: {a: 3}", "trials must be one value, but holds settings."),
            ("trials", "must hold lines such as `trials: 60`"),
            ("- trials", "must hold lines such as `trials: 60`"),
            ("trials: [3", "must be a YAML file, but is not: line 1: expected ',' or ']'."),
            ("trials: [3, 4]", "trials must be one value, but is 3,4."),
            ("output: [/tmp/a, b]", "output must be one value, but is /tmp/a,b."),
            ("evaluate-every: 3\nevaluate_every: 4", "evaluate_every is given twice"),
        ],
    )
    def test_a_wrong_file_is_one_sentence(self, capsys, file, content, sentence):
        file.write_text(content)
        code, text = fail(capsys, "search", "--output", "out", "--config", file)

        assert code == command_line.USAGE
        assert text.startswith(f"thermal-search: --config {file}")
        assert sentence in text

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ("trials: many", "--trials must be a whole number, but is many."),
            ("evaluate_every: 0", "--evaluate-every must be at least 1, but is 0."),
            ("data: s3://", "--data: s3:// needs a bucket"),
            ("reduction: .inf", "--reduction must be a finite number, but is inf."),
        ],
    )
    def test_a_wrong_value_in_a_file_is_one_sentence(self, capsys, file, content, sentence):
        file.write_text(content)
        code, text = fail(capsys, "search", "--output", "out", "--config", file)

        assert code == command_line.USAGE
        assert text.startswith(f"thermal-search: --config {file}: {sentence}")

    def test_a_wrong_flag_is_not_blamed_on_the_file(self, capsys, file):
        file.write_text("trials: 3")
        _, text = fail(capsys, "search", "--output", "out", "--config", file, "--trials", 0)

        assert text == "thermal-search: --trials must be at least 1, but is 0."

    def test_a_missing_file_is_one_sentence(self, capsys, file):
        code, text = fail(capsys, "search", "--output", "out", "--config", file)

        assert code == command_line.USAGE
        assert f"--config {file} cannot be read: No such file or directory." in text


class TestSearchFile:
    @pytest.fixture
    def plan(self, tmp_path):
        settings = SearchSettings(data=tmp_path, output=tmp_path, trials=4, images=200_000)
        plan = plan_from_settings(settings)
        plan.save()
        return plan

    def test_a_plan_is_read_as_it_was_written(self, plan, tmp_path):
        assert SearchPlan.load(tmp_path) == plan

    def test_the_file_holds_every_setting(self, plan, tmp_path):
        content = json.loads((tmp_path / "search.json").read_text())

        assert set(SearchSettings.model_fields) < set(content)
        assert content["version"] == 3

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"version": 2}, r"has version 2, but this release reads version 3"),
            ({"trials": "four"}, r"is damaged \(trials: "),
            ({"trials": 0}, r"is damaged \(trials: "),
            ({"evaluate_every": 10**9}, r"is damaged \(evaluate_every: "),
            ({"learning_rate": 1}, r"is damaged \(learning_rate: "),
        ],
    )
    def test_a_file_of_another_release_is_one_sentence(self, plan, tmp_path, changes, sentence):
        file = tmp_path / "search.json"
        edited = json.dumps(json.loads(file.read_text()) | changes)
        for copy in (file, tmp_path / "search.json.bak"):
            copy.write_text(edited)

        with pytest.raises(SearchError, match=f"search.json {sentence}") as error:
            SearchPlan.load(tmp_path)
        assert "\n" not in str(error.value)

    def test_mlflow_shows_no_path_of_this_machine(self, tmp_path):
        output = tmp_path / "out"
        encoder = tmp_path / "encoder.onnx"
        settings = SearchSettings(data=tmp_path, output=output, features=str(encoder))
        params = plan_from_settings(settings).mlflow_params()

        assert params["features"] == "encoder.onnx"
        assert str(tmp_path) not in str(params)


class TestDefaults:
    @pytest.mark.parametrize(
        ("values", "average_last", "finalists"),
        [
            ({}, 3, 3),
            ({"trials": 7, "images": 192, "evaluate_every": 64}, 1, 0),
            ({"images": 200_000, "evaluate_every": 33_000}, 2, 3),
            ({"hours": 12}, 3, 3),
            ({"objective": "pareto:fid,l1"}, 3, 0),
            ({"finalists": 2, "trials": 4}, 3, 2),
        ],
    )
    def test_averaging_and_finalists_fit_the_size_of_the_search(
        self, values, average_last, finalists
    ):
        plan = plan_from_settings(SearchSettings(data="data", output="out", **values))

        assert (plan.average_last, plan.finalists) == (average_last, finalists)

    def test_a_trial_is_evaluated_ten_times(self):
        plan = plan_from_settings(SearchSettings(data="data", output="out", images=500))

        assert plan.evaluate_every == 50

    def test_all_architectures_with_a_search_space_are_searched(self):
        plan = plan_from_settings(SearchSettings(data="data", output="out"))

        assert plan.architectures == tuple(search_spaces.names())


class TestResume:
    def test_paths_and_resources_may_change(self, tmp_path):
        output = tmp_path / "out"
        plan = plan_from_settings(SearchSettings(data=tmp_path, output=output, trials=4))
        plan.save()
        changed = SearchSettings(output=output, slots=2, gpus_per_worker=0.5, workers=2)
        resumed = plan_from_settings(changed, resume=True)

        assert resumed == plan.replace(slots=2, gpus_per_worker=0.5, workers=2)

    def test_another_number_of_workers_is_said_to_change_the_numbers(self, tmp_path, caplog):
        plan_from_settings(SearchSettings(data=tmp_path, output=tmp_path, workers=2)).save()

        plan_from_settings(SearchSettings(output=tmp_path, workers=2, slots=3), resume=True)
        assert not caplog.messages
        plan_from_settings(SearchSettings(output=tmp_path, workers=4), resume=True)
        (sentence,) = caplog.messages
        assert sentence.startswith("--workers was 2 and is now 4, which changes a trial's numbers")

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"objective": "kid"}, "--objective was fid and is now kid"),
            ({"trials": 3}, "--trials was 4 and is now 3, which is less"),
            ({"architectures": "gan"}, "--architectures was wgan and is now gan"),
            ({"images": 5}, "--images was 200000 and is now 5"),
            ({"compute": 5}, "--compute was not given and is now 5"),
            ({"evaluate_every": 7}, "--evaluate-every was 20000 and is now 7"),
        ],
    )
    def test_what_the_search_computes_may_not_change(self, tmp_path, change, sentence):
        settings = {"data": tmp_path, "output": tmp_path, "architectures": "wgan", "trials": 4}
        settings |= {"images": 200_000}
        plan_from_settings(SearchSettings(**settings)).save()

        assert plan_from_settings(SearchSettings(**settings), resume=True)
        with pytest.raises(SearchError, match=sentence):
            plan_from_settings(SearchSettings(output=tmp_path, **change), resume=True)

    def test_a_folder_without_a_search_is_one_sentence(self, tmp_path):
        with pytest.raises(SearchError, match="holds no search"):
            plan_from_settings(SearchSettings(output=tmp_path), resume=True)


numbers = st.one_of(
    st.integers(-(10**30), 10**30), st.floats(), st.integers(-2, 12), st.booleans(), st.none()
)
NUMERIC = (
    "trials", "images", "evaluate_every", "reduction", "seed", "slots", "workers",
    "gpus_per_worker", "average_last", "finalists", "seeds", "hours", "compute",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(NUMERIC), numbers, max_size=4))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_numbers_make_a_plan_or_one_sentence(values):
    plan, sentence = None, ""
    try:
        plan = plan_from_settings(SearchSettings(data="data", output="out", **values))
    except SettingsError as error:
        sentence = str(error)

    if plan:
        assert not plan.images or 1 <= plan.evaluate_every <= plan.images
        assert plan == SearchPlan.model_validate_json(plan.model_dump_json(), strict=True)
    else:
        assert any(f"--{name.replace('_', '-')} must" in sentence for name in values)
        assert "\n" not in sentence


@given(st.sampled_from(NUMERIC), st.one_of(numbers.map(str), st.text(max_size=20)))
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_text_of_a_flag_makes_settings_or_one_sentence(name, text):
    flag, sentence = f"--{name.replace('_', '-')}", ""
    try:
        parse("--output", "out", f"{flag}={text}")
    except SettingsError as error:
        sentence = str(error)

    assert not sentence or sentence.startswith(f"{flag} must")
    assert "\n" not in sentence

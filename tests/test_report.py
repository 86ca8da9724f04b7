"""The report of a search: its contents, that it loads nothing, and that no text becomes HTML."""

import base64
import hashlib
import io
import itertools
import json
import re
import shlex
import time
from html.parser import HTMLParser
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from reported_search import BASELINES, retrain, searched, write_grid, write_grids
from summaries import evaluate, record_of, run_trial

import search_spaces
from thermal_search.cli import main
from thermal_search.errors import SearchError
from thermal_search.report import page
from thermal_search.report.charts import Label, scale_of, spread_labels
from thermal_search.report.gallery import read_grid
from thermal_search.report.page import render, write_after_search, write_report
from thermal_search.report.suggestions import _grown, _new_search, suggest
from thermal_search.storage import Location
from thermal_search.tuning.analysis import MIN_TRIALS, analyze
from thermal_search.tuning.ownership import own
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import TrialConfig

SIZE = 32


class Page(HTMLParser):
    """What a browser would read: elements, texts by section, and addresses that would be loaded."""

    LOADING: ClassVar = {"src", "srcset", "poster", "data", "background", "action", "formaction"}
    VOID: ClassVar = {"meta", "img", "input", "link", "br", "rect", "circle", "path", "base"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.section = ""
        self.scripts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "section":
            self.section = attributes["id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("style", "script"):
            self.scripts.append(data)
        else:
            self.texts.setdefault(self.section, []).append(data)

    def text(self, section: str) -> str:
        return " ".join(" ".join(self.texts.get(section, [])).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def assert_loads_nothing(self) -> None:
        assert not self.open
        for tag, attributes in self.elements:
            assert tag not in ("link", "iframe", "object", "embed", "base", "use")
            assert "style" not in attributes  # the policy would ignore it
            assert not [name for name in attributes if name.startswith("on")]
            for name, value in attributes.items():
                if name in self.LOADING:
                    assert value.startswith("data:image/webp;base64,")
                if name in ("href", "xlink:href"):
                    assert value.startswith("#")
        assert not re.search(r"url\(|@import|https?://|fetch\(|import\(", "".join(self.scripts))


def page_of(record: SearchRecord) -> Page:
    parsed = Page(render(record))
    parsed.assert_loads_nothing()
    return parsed


@pytest.fixture(scope="module")
def scenes():
    random = torch.Generator().manual_seed(0)
    return (
        torch.randint(0, 256, (4, 3, SIZE, SIZE), generator=random, dtype=torch.uint8),
        torch.randint(0, 256, (4, 1, SIZE, SIZE), generator=random, dtype=torch.uint8),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scenes):
    """A search with every state of a trial, finalists and images."""
    output = tmp_path_factory.mktemp("report") / "<b>&\"'{{7*7}}"
    record = searched(output, ("pix2pix", "wgan", "dcgan"), 40, finalists=2, seeds=2)
    record.end("00004", "diverged", "generator/gan is <script>alert(1)</script>")
    retrain(record)
    write_grids(record, *scenes)
    return record


@pytest.fixture(scope="module")
def html(finished):
    return render(finished)


@pytest.fixture(scope="module")
def parsed(html):
    return Page(html)


class TestContents:
    def test_the_page_loads_nothing_and_its_policy_allows_nothing(self, parsed):
        parsed.assert_loads_nothing()
        (policy,) = (
            meta["content"]
            for meta in parsed.named("meta")
            if meta.get("http-equiv") == "Content-Security-Policy"
        )
        style, data, script = parsed.scripts

        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for text in (style, script):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
        assert json.loads(data)["axes"] == ["fid"]

    def test_texts_from_outside_are_no_html(self, html, parsed):
        assert '<b>&"' not in html
        assert "<script>alert" not in html
        assert "&lt;b&gt;&amp;" in html
        assert "<b>&\"'{{7*7}}" in parsed.text("")
        assert "generator/gan is <script>alert(1)</script>" in parsed.text("stopped")

    def test_ranking_has_every_trial_and_what_it_beats(self, finished, parsed):
        text = parsed.text("ranking")
        best = finished.best

        assert all(trial.id in text for trial in finished.ranking())
        assert f"The best trial, {best.architecture} {best.id}" in text
        assert "Against inverted grey: better in" in text
        assert "beats ridge in" in text
        assert "published point" in text
        for name in ("real halves", "inverted grey", "mean thermal", "ridge"):
            assert name in text

    def test_finalists_have_mean_and_std(self, finished, parsed):
        final = finished.final_ranking
        winner = final.winner

        assert f"{winner.objective.mean:.2f} ± {winner.objective.std:.2f}" in parsed.text("ranking")
        tested = winner.test_metrics["fid"]
        assert f"{tested.mean:.2f} ± {tested.std:.2f}" in parsed.text("ranking")
        assert "generator on the test split" in parsed.text("ranking")

    def test_curves_are_against_images_and_against_time(self, finished, parsed):
        titles = [svg["aria-label"] for svg in parsed.named("svg") if "aria-label" in svg]

        for name in finished.plan.architectures:
            count = sum(t.architecture == name for t in finished.ranking())
            for unit in ("images shown", "minutes of the trial"):
                assert f"fid of {count} {name} trials against {unit}" in titles

    def test_stopped_trials_have_a_time_and_a_reason(self, finished, parsed):
        text = parsed.text("stopped")
        stopped = [t for t in finished.trials.values() if t.status == "stopped"]

        assert stopped
        assert all(trial.reason in text for trial in stopped)
        assert "stopped at 10 %" in text

    def test_gallery_has_the_best_of_each_architecture(self, finished, parsed):
        images = parsed.named("img")
        names = ["RGB", "real", "winner", *finished.plan.architectures, "inverted grey"]

        alts = [image["alt"] for image in images]
        for name in names:
            assert [f"{name}, scene {number}" in alts for number in (1, 2, 3, 4)] == [True] * 4
        # The test split has four columns more.
        assert len(images) == 4 * (len(names) + 4)

    def test_images_are_those_of_the_grids(self, scenes, parsed):
        by_alt = {image["alt"]: image["src"] for image in reversed(parsed.named("img"))}
        rgb = decoded(by_alt["RGB, scene 1"])
        grey = decoded(by_alt["inverted grey, scene 1"])
        expected = scenes[0][0].permute(1, 2, 0).numpy()
        weights = np.array([0.2989, 0.587, 0.114])

        assert np.array_equal(rgb, expected)
        assert np.abs(grey[..., 0] - (255 - expected @ weights)).max() <= 1

    def test_importance_and_slices_of_each_architecture(self, finished, parsed):
        text = parsed.text("parameters")
        slices = [svg for svg in parsed.named("svg") if " trials by " in svg.get("aria-label", "")]

        assert "PED-ANOVA (Optuna) over" in text
        assert len(slices) == sum(
            len(analyze(finished, name).parameters) for name in finished.plan.architectures
        )
        assert "generator_lr" in text

    def test_cost_is_by_architecture_with_machine_hours(self, finished, parsed):
        text = parsed.text("cost")
        trials = [*finished.trials.values(), *finished.retrainings.values()]

        assert f"{sum(trial.images for trial in trials):,}" in text
        hours = sum(trial.seconds for trial in trials) / 3600
        assert f"Machine time: {hours:.2f} hours of one slot" in text
        assert "of their training was saved" in text

    def test_commands_name_the_folder_as_a_shell_reads_it(self, finished, parsed):
        text = "".join(parsed.texts["next"])

        assert shlex.join(["thermal-search", "export", str(finished.output)]) in text


def decoded(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(float)


class TestEveryState:
    def test_search_without_trials(self, tmp_path):
        text = page_of(record_of(tmp_path)).text("ranking")

        assert "No trial has been evaluated yet." in text

    def test_trials_that_only_failed(self, tmp_path):
        record = record_of(tmp_path, trials=2)
        for number in (0, 1):
            record.add(number, TrialConfig("pix2pix", {}))
            record.end(f"0000{number}", "failed", "out of memory: 3 GiB")
        parsed = page_of(record)

        assert "out of memory: 3 GiB" in parsed.text("ranking")
        assert "ran out of memory" in parsed.text("next")

    def test_one_trial_with_one_evaluation(self, tmp_path):
        record = record_of(tmp_path, trials=1)
        run_trial(record, 5.0)
        parsed = page_of(record)

        assert "Importance needs 10 trials" in parsed.text("parameters")
        assert "there is no file images-00000001.png" in parsed.text("images")

    def test_equal_values_and_zero_time(self, tmp_path):
        record = record_of(tmp_path, trials=12)
        for _ in range(12):
            run_trial(record, 0.0, 0.0)

        assert "No parameter stands out" in page_of(record).text("parameters")

    def test_huge_and_negative_values(self, tmp_path):
        record = record_of(tmp_path, objective="psnr", trials=3)
        for value in (20.0, -3.0, 1e-9):
            run_trial(record, {"fid": 1e30 * abs(value), "psnr": value})

        assert "-20.00" in page_of(record).text("ranking")

    def test_two_objectives(self, tmp_path):
        record = searched(tmp_path, ("pix2pix",), 12, objective="pareto:fid,l1")
        parsed = page_of(record)
        titles = [svg.get("aria-label", "") for svg in parsed.named("svg")]

        assert any("on the Pareto front" in title for title in titles)
        assert any(title.startswith("l1 of 1") for title in titles)
        assert parsed.text("ranking").count("Pareto front") > len(record.pareto_front())

    def test_fixed_parameters_are_no_axes(self, tmp_path):
        fix = ("pix2pix.batch_size=8", "pix2pix.norm=instance")
        record = searched(tmp_path, ("pix2pix",), 12, fix=fix)
        text = page_of(record).text("parameters")

        assert "Fixed, not searched: norm=instance , batch_size=8" in text
        assert "batch_size" not in {p.name for p in analyze(record, "pix2pix").parameters}

    def test_trial_outside_the_search_space_is_left_out_of_the_analysis(self, tmp_path):
        record = searched(tmp_path, ("pix2pix",), 3)
        record["00001"].parameters["l1_weight"] = -1.0

        assert "not in today's search space: 1 trial." in page_of(record).text("parameters")
        assert analyze(record, "pix2pix").left_out == 1

    def test_thousand_trials_take_seconds_and_stay_readable(self, tmp_path):
        names = tuple(search_spaces.names())
        record = record_of(tmp_path, architectures=names, trials=1000, images=4, evaluate_every=1)
        record._save = lambda _: None  # 2,000 files would take longer than all of the report
        for number in range(1000):
            name = names[number % len(names)]
            trial = record.add(number, TrialConfig(name, search_spaces.load(name).published))
            evaluate(record, trial.id, *(100.0 / k + number % 17 for k in (1, 2, 3, 4)))
            record.end(trial.id, "completed", "")
        began = time.process_time()
        html = render(record)

        assert time.process_time() - began < 30
        assert len(html) < 10e6
        assert "All 1000: show the other 988" in " ".join(Page(html).texts["ranking"])


class TestAnalysis:
    def test_the_parameter_that_matters_is_the_most_important(self, tmp_path):
        record = searched(tmp_path, ("pix2pix",), 60)
        analysis = analyze(record, "pix2pix")
        shares = [parameter.importance for parameter in analysis.parameters]

        assert analysis.parameters[0].name == "generator_lr"
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1)

    def test_trials_are_compared_after_equally_many_evaluations(self, tmp_path):
        record = searched(tmp_path, ("pix2pix",), 40)
        analysis = analyze(record, "pix2pix")
        counts = [len(trial.history) for trial in record.ranking()]

        assert analysis.compared_trials == sum(c >= analysis.compared_at for c in counts)
        assert analysis.compared_trials >= len(counts) / 2 >= MIN_TRIALS
        assert sum(c > analysis.compared_at for c in counts) < len(counts) / 2


class TestGallery:
    def test_grid_of_another_shape_is_said(self, tmp_path, scenes):
        record = searched(tmp_path, ("pix2pix", "wgan"), 2)
        write_grids(record, *scenes)
        for trial in record.ranking()[:1]:
            (grid,) = (p for p in (tmp_path / "trials" / trial.id).glob("*.png"))
            Image.new("RGB", (100, 37)).save(grid)
        text = page_of(record).text("images")

        assert "100 x 37 pixels are no grid of square images" in text
        assert text.count("baseline") == 1

    def test_other_scenes_have_a_gallery_of_their_own(self, tmp_path, scenes):
        record = searched(tmp_path, ("pix2pix", "wgan"), 2)
        write_grids(record, *scenes)
        other = next(iter((tmp_path / "trials" / "00001").glob("*.png")))
        write_grid(Location.of(other), scenes[0].flip(0), scenes[1].flip(0))
        parsed = page_of(record)

        assert "evaluated on other scenes" in parsed.text("images")
        assert len(parsed.named("img")) == 2 * 4 * 4

    def test_damaged_grid_is_said(self, tmp_path, scenes):
        record = searched(tmp_path, ("pix2pix",), 1)
        write_grids(record, *scenes)
        grid = next(iter((tmp_path / "trials" / "00000").glob("*.png")))
        grid.write_bytes(grid.read_bytes()[:300])

        assert "cannot be read" in page_of(record).text("images")

    def test_grid_is_cut_as_it_was_laid_out(self, tmp_path, scenes):
        path = Location.of(tmp_path / "grid.png")
        write_grid(path, *scenes)
        grid = read_grid(path)

        assert len(grid.rgb) == 4
        assert np.array_equal(grid.rgb[2], scenes[0][2].permute(1, 2, 0).numpy())
        assert np.array_equal(grid.real[3][..., 0], scenes[1][3, 0].numpy())


class TestSuggestions:
    @staticmethod
    def titles(record: SearchRecord, *, is_running: bool = False) -> list[str]:
        analyses = {t.architecture: analyze(record, t.architecture) for t in record.ranking()}
        return [s.title for s in suggest(record, analyses, is_running=is_running)]

    def test_running_search_is_waited_for_and_an_unfinished_one_resumed(self, tmp_path):
        record = record_of(tmp_path, trials=2)
        run_trial(record, 5.0)

        assert self.titles(record, is_running=True)[0] == "Wait for the end of the search"
        assert self.titles(record)[0] == "Resume the search"

    def test_generator_that_beats_nothing_is_not_recommended(self, tmp_path):
        record = record_of(tmp_path, trials=1)
        run_trial(record, {"fid": 900.0, "kid": 9.0, "l1": 99.0, "psnr": 1.0}, baselines=BASELINES)

        assert self.titles(record)[0] == "Do not use the best generator yet"

    def test_best_trial_that_still_improves_is_trained_longer(self, tmp_path):
        record = record_of(
            tmp_path, trials=1, images=6, evaluate_every=1, fix=("pix2pix.batch_size=8",)
        )
        run_trial(record, 90.0, 80.0, 70.0, 60.0, 50.0, 40.0)
        (found,) = [s for s in suggest(record, {}, is_running=False) if "longer" in s.title]

        words = shlex.split(found.command)
        assert words[:2] == ["thermal-search", "search"]
        flags = dict(zip(words[2::2], words[3::2], strict=True))
        assert flags["--images"] == "12"
        assert flags["--evaluate-every"] == "2"
        assert flags["--fix"] == "pix2pix.batch_size=8"
        assert flags["--output"] == f"{tmp_path}-longer"

        flat = record_of(tmp_path / "flat", trials=1, images=6, evaluate_every=1)
        run_trial(flat, 90.0, 50.0, 41.0, 40.0, 41.0, 40.0)
        assert not [t for t in self.titles(flat) if "longer" in t]

    def test_finalists_within_their_std_need_more_seeds(self, tmp_path):
        record = record_of(tmp_path, trials=2, finalists=2, seeds=2)
        for value in (5.0, 6.0):
            run_trial(record, value)
        for finalist, values in zip(record.finalists(), ((4.0, 8.0), (5.0, 8.0)), strict=True):
            for seed, value in zip(record.retraining_seeds(), values, strict=True):
                retraining = record.add_retraining(finalist, seed)
                evaluate(record, retraining.id, value)
                record.end(retraining.id, "completed", "")

        assert "Train the finalists with more seeds" in self.titles(record)

    def test_range_whose_edge_is_best_is_to_be_widened(self, tmp_path):
        record = record_of(tmp_path, trials=12)
        published = search_spaces.load("pix2pix").published
        for number in range(12):
            weight = 990.0 if number < 6 else 10.0
            trial = record.add(number, TrialConfig("pix2pix", {**published, "l1_weight": weight}))
            evaluate(record, trial.id, 10.0 + number)
            record.end(trial.id, "completed", "")

        titles = self.titles(record)
        assert "Widen the range of l1_weight of pix2pix" in titles
        assert not [t for t in titles if t.startswith("Widen") and "l1_weight" not in t]


class TestWriting:
    def test_command_writes_the_report_in_the_folder_of_the_search(self, tmp_path, capsys):
        run_trial(record_of(tmp_path, trials=1), 5.0)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
        main(["report", str(tmp_path)])
        main(["report", str(tmp_path)])  # replaces its own
        main(["report", str(tmp_path), "--to", str(tmp_path / "other" / "a.html")])

        assert str(tmp_path / "report.html") in capsys.readouterr().out
        assert (tmp_path / "other" / "a.html").is_file()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.json*")} == before

    def test_report_of_a_running_search_says_so(self, tmp_path):
        record = record_of(tmp_path, trials=2)
        run_trial(record, 5.0, status="running")
        with own(record.output, print):
            html = write_report(record.output).read_text()

        assert '<span class="badge running">running</span>' in html
        assert "Wait for the end of the search" in html

    def test_file_of_somebody_else_is_not_replaced(self, tmp_path):
        record = record_of(tmp_path)
        own_file = tmp_path / "mine.html"
        own_file.write_text("<html>mine")
        with pytest.raises(SearchError, match=r"mine.html exists and is not an earlier report"):
            write_report(record.output, Location.of(own_file))
        with pytest.raises(SearchError, match="exists and is not an earlier report"):
            write_report(record.output, Location.of(tmp_path))

        assert own_file.read_text() == "<html>mine"

    def test_folder_without_a_search_is_one_sentence(self, tmp_path):
        with pytest.raises(SearchError, match="holds no search"):
            write_report(Location.of(tmp_path))

    def test_report_that_cannot_be_written_fails_no_search(self, tmp_path, caplog):
        record = record_of(tmp_path)
        (tmp_path / "report.html").mkdir()
        write_after_search(record)

        assert caplog.text.count("The report was not written") == 1
        assert "is not an earlier report" in caplog.text

    def test_format_is_in_the_first_bytes(self, html):
        assert page.FORMAT in html[: page.MAGIC_BYTES]


class TestCharts:
    @pytest.mark.parametrize(
        "values",
        [
            [],
            [0.0],
            [5.0, 5.0],
            [-1e9, 1e9],
            [1e-12, 1e12],
            [0, 1, 2],
            [3.1, 3.2],
            [1.0] * 99 + [1e6],
        ],
    )
    def test_scales_place_all_values_inside_and_have_ticks_in_order(self, values):
        scale = scale_of(values, 0.0, 100.0)
        ticks = scale.ticks()

        assert all(0 <= scale(value) <= 100 for value in values)
        assert [scale(v) for v in sorted(values)] == sorted(scale(v) for v in values)
        assert [tick.at for tick in ticks] == sorted(tick.at for tick in ticks)
        assert 2 <= len(ticks) <= 12
        assert len({tick.text for tick in ticks}) == len(ticks)

    def test_labels_do_not_overlap(self):
        labels = spread_labels([Label(0, y, str(y)) for y in (5, 5, 6, 98, 99)], 10, 0, 100)
        places = [label.y for label in labels]

        assert all(b - a >= 9.99 for a, b in itertools.pairwise(places))
        assert places[-1] <= 100


@pytest.mark.parametrize(
    ("settings", "longer", "more"),
    [
        ({"images": 1000, "trials": 10}, "--images 2000", "--trials 20"),
        ({"images": None, "trials": 10}, "--compute 400000", "--trials 20"),
        ({"images": None, "hours": 5.0, "is_calibrated": True}, "--hours 10.0", "--hours 10"),
    ],
)
def test_suggested_searches_keep_the_kind_of_budget(tmp_path, settings, longer, more):
    is_calibrated = settings.pop("is_calibrated", False)
    record = record_of(tmp_path / "o", **settings)
    plan = record.plan.replace(is_calibrated=is_calibrated)
    record = SearchRecord(plan)
    command = _new_search(record, ("pix2pix",), "longer", times=2)

    assert longer in command
    assert "--evaluate-every" not in command or settings["images"]
    assert "--trials 1000000" not in command
    assert _grown(plan, 2.0) == [more]

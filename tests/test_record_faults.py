"""The record of a search that is killed at each of its writes, and whose files are damaged.

A loop calls trial source, scheduler and record as Ray Tune does; test_search_faults kills whole
searches."""

import contextlib
import hashlib
import shutil

import pytest
from killed_writes import Killed, kill_at
from ray import tune
from ray.tune.experiment import Experiment
from summaries import record_of

from thermal_search.documents import backup_of
from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.schedulers.asha import ASHA
from thermal_search.tuning.slots.messages import REPORT, TrialConfig, TrialReport
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.trial_source import TrialSource, proposed_trials, retrainings

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SETTINGS = {
    "architectures": ("gan", "pix2pix"),
    "trials": 4,
    "seed": 8,  # with which trials are stopped, and the best is not the first
    "images": 3,
    "evaluate_every": 1,
    "reduction": 2.0,
    "finalists": 2,
    "seeds": 1,
}


def report_of(config, images):
    """The evaluation after so many images: it follows from the configuration alone."""
    digest = hashlib.sha256(repr(sorted(config.items(), key=str)).encode()).digest()
    evaluation = TrialEvaluation(
        images=images,
        metrics={"fid": digest[0] + 100 / images},
        losses={},
        seconds=float(images),
        images_per_second=1.0,
        grid=None,
    )
    is_last = images == SETTINGS["images"]
    return TrialReport(
        status="completed" if is_last else "running",
        evaluation=evaluation,
        baselines={"inverted_grey": {"fid": 60.0}},
        test_metrics={"fid": 1.0} if is_last and config["seed"] is not None else {},
    )


def run_phase(record, trials, scheduler):
    """What Ray Tune and SearchCallback do with one slot; a slot reports from the start again."""
    source = TrialSource(record.plan, trials, 1, SearchStopper("the same command"))
    source.add_configurations([Experiment("trials", tune.Trainable)])
    while trial := source.next_trial():
        id, config = trial.trial_id, trial.config
        if scheduler:
            scheduler.on_trial_add(None, trial)
        record.start(id)
        for images in range(1, SETTINGS["images"] + 1):
            report = report_of(config, images)
            result = {"status": report.status, "images": images, REPORT: report}
            decision = scheduler.on_trial_result(None, trial, result) if scheduler else "CONTINUE"
            record.add_evaluation(id, report)
            record.flush()
            if report.is_last or decision == "STOP":
                break
        status = report.status if report.is_last else "stopped"
        if scheduler:
            scheduler.on_trial_complete(None, trial, result)
        source.on_trial_complete(id)
        record.end(id, status, "")


def search(output):
    """Begins a search, or resumes the one in `output`."""
    record = SearchRecord.load(output)
    run_phase(record, proposed_trials(record), ASHA(record))
    run_phase(record, retrainings(record), None)
    record.flush()
    return record


def begin(output):
    record_of(output, **SETTINGS)


def results(record):
    """Everything but the search's own identity."""
    return record.summary.model_dump()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    begin(output)
    record = search(output)
    assert {trial.status for trial in record.trials.values()} == {"completed", "stopped"}
    assert record.final_ranking
    return results(record)


def test_search_killed_at_each_write_ends_as_an_undisturbed_one(tmp_path, monkeypatch, undisturbed):
    step = 0
    while True:
        step += 1
        output = tmp_path / str(step)
        begin(output)
        with monkeypatch.context() as patch:
            kill_at(patch, step)
            try:
                search(output)
                break  # there is no such step
            except Killed:
                pass
        before = SearchRecord.load(output)
        if step % 5 == 0:  # killed again while it resumes
            with monkeypatch.context() as patch:
                kill_at(patch, 1 + step % 7)
                with contextlib.suppress(Killed):  # there may be fewer writes left
                    search(output)
        record = search(output)

        assert results(record) == undisturbed, step
        for trial in before.trials.values():
            assert record[trial.id].history[: len(trial.history)] == trial.history
        shutil.rmtree(output)
    assert step > 60


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "trial": {"id"', None])
def test_damaged_files_of_the_record_cost_nothing(tmp_path, content, undisturbed):
    begin(tmp_path)
    whole = search(tmp_path)
    last = list(whole.trials.values())[-1]
    names = [f"trials/{id}/trial.json" for id in whole.trials]
    names += [f"retrainings/{id}/trial.json" for id in whole.retrainings]
    for name in ["search.json", "baselines.json", "summary.json", *names]:
        path = tmp_path / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    assert results(search(tmp_path)) == undisturbed
    both = Location.of(tmp_path) / "trials" / last.id / "trial.json"
    for path in (both, backup_of(both)):
        path.write_bytes(b"torn")
    with pytest.raises(SearchError, match=rf"{last.id}/trial.json is damaged.*remove the trial's"):
        search(tmp_path)
    shutil.rmtree(tmp_path / "trials" / last.id)
    assert results(search(tmp_path)) == undisturbed


def test_search_with_a_full_disk_continues_when_there_is_room(tmp_path, monkeypatch, undisturbed):
    begin(tmp_path)

    def full(location, **settings):
        raise OSError(28, "No space left on device", str(location))

    record = SearchRecord.load(tmp_path)
    source = proposed_trials(record)
    next(source)
    with monkeypatch.context() as patch:
        patch.setattr(Location, "open_output", full)
        with pytest.raises(OSError, match="No space"):
            record.add_evaluation("00000", report_of({"seed": None}, 1))
    assert results(search(tmp_path)) == undisturbed


def test_copy_continues_on_its_own(tmp_path, undisturbed):
    original, copy = tmp_path / "original", tmp_path / "copy"
    begin(original)
    record = SearchRecord.load(original)
    trials = proposed_trials(record)
    first = next(trials)
    record.add_evaluation(first.id, report_of(TrialConfig.of(
        {"architecture": first.architecture, "parameters": first.parameters, "seed": None,
         "budget": first.budget}
    ).to_tune(), 1))  # fmt: skip
    shutil.copytree(original, copy)
    before = {path: path.read_bytes() for path in original.rglob("*") if path.is_file()}

    assert results(search(copy)) == undisturbed
    assert {p: p.read_bytes() for p in original.rglob("*") if p.is_file()} == before


def test_output_that_goes_while_a_trial_is_written_is_not_made_again(tmp_path, monkeypatch):
    output = tmp_path / "output"
    record = record_of(output)
    write_bytes = Location.write_bytes

    def rename_before_the_backup(path, content, **settings):
        if path.name == "trial.json.bak":
            output.rename(tmp_path / "renamed")
        write_bytes(path, content, **settings)

    monkeypatch.setattr(Location, "write_bytes", rename_before_the_backup)
    with pytest.raises(OSError, match="is no longer the folder it began in"):
        record.add(0, TrialConfig("pix2pix", {}))
    assert not output.exists()

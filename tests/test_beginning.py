"""A search that is cut off while it writes its first files: it resumes, or begins again."""

import shlex
import signal
from pathlib import Path

import pytest
from killed_writes import Killed, kill_at
from simulated_search import fill_disk_after
from summaries import started_plan

from thermal_search.errors import SearchError, SearchInterrupted, SearchStopped
from thermal_search.storage import Location
from thermal_search.tuning.beginning import holds_search, require_new, write_plan
from thermal_search.tuning.budgets import Calibration
from thermal_search.tuning.learned import Learned
from thermal_search.tuning.ownership import Claim, own
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.stopping import SearchStopper, resume_command

LEARNED = Learned(search="earlier", trials=[], first=[])
CALIBRATION = Calibration(size=32, compute=1.0, device="cpu", speeds={}, failures={})
FILES = 7
"""Of a search that begins: its claim, and three files with their backups."""


@pytest.fixture
def plan(tmp_path):
    return started_plan(tmp_path / "elsewhere").replace(output=Location.of(tmp_path / "output"))


def begin(plan, learned=LEARNED, calibration=CALIBRATION):
    """Begins the search, or resumes it if its folder holds one, as its command does."""
    resume = holds_search(plan.output)
    if not resume:
        require_new(plan.output)
    stopper = SearchStopper("--resume", can_resume=resume)
    with stopper.on_storage_faults(), own(plan.output, stopper.report_fault):
        try:
            write_plan(plan, resume=resume, learned=learned, calibration=calibration)
        finally:
            stopper.can_resume = holds_search(plan.output)
    stopper.raise_reason()


@pytest.mark.parametrize("step", range(1, 2 * FILES + 1))
def test_search_killed_at_any_of_its_first_writes_begins_again_or_resumes(plan, monkeypatch, step):
    with monkeypatch.context() as context:
        kill_at(context, step)
        with pytest.raises(Killed):
            begin(plan)
    begin(plan)

    assert SearchPlan.load(plan.output).id == plan.id


@pytest.mark.parametrize("files", range(FILES))
def test_disk_that_is_full_at_the_beginning_names_a_command_that_works(plan, monkeypatch, files):
    with monkeypatch.context() as context:
        context.setattr(Location, "open_output", Location.open_output)  # put back at the end
        fill_disk_after(files)
        with pytest.raises(SearchStopped, match="No space left on device") as caught:
            begin(plan)
    if holds_search(plan.output):
        assert "continue with --resume" in str(caught.value)
        SearchPlan.load(plan.output)
    else:
        assert "begin it with the same command" in str(caught.value)
        require_new(plan.output)
    begin(plan)


def test_search_that_begins_again_keeps_nothing_of_what_it_left(plan):
    plan.output.make_folder()
    Claim.new().model_copy(update={"renewed": 0.0}).write(plan.output / "owner-old.json")
    LEARNED.write_with_backup(plan.output / "learned.json")
    CALIBRATION.write(plan.output / "calibration.json")
    (plan.output / ".unfinished-0123456789abcdef").write_text("{")
    begin(plan, learned=None, calibration=None)

    names = {file.name for file in plan.output.list()}
    assert names == {"search.json", "search.json.bak", ".unfinished-0123456789abcdef"}


@pytest.mark.parametrize("name", ["notes.txt", "learned.json", "owner-a.json", "trials"])
def test_folder_with_anything_else_is_refused(plan, name):
    (plan.output / name).write_text("of somebody else")

    with pytest.raises(SearchError, match=f"must be empty, but holds {name}"):
        require_new(plan.output)


def test_search_that_began_meanwhile_is_not_replaced(plan):
    begin(plan)
    other = plan.replace(id="another")

    with pytest.raises(SearchError, match="pass --resume to resume the search in it"):
        write_plan(other, resume=False)
    assert SearchPlan.load(plan.output).id == plan.id


def test_command_that_continues_has_what_the_plan_lacks_but_no_password():
    output = Location.of("/data/a search")
    assert resume_command(output) == "thermal-search search --output '/data/a search' --resume"
    command = resume_command(
        output,
        address="auto",
        storage="postgresql://me:ge@heim@host/optuna?sslmode=off&password=geheim",
        architecture_files=[Path("my_gan.py"), Path("two.py")],
    )

    assert shlex.split(command)[5:] == [
        "--address", "auto",
        "--storage", "postgresql://me:PASSWORD@host/optuna?sslmode=off&password=PASSWORD",
        "--architecture-file", "my_gan.py", "--architecture-file", "two.py",
    ]  # fmt: skip


def test_signal_before_the_search_began_names_the_same_command():
    stopper = SearchStopper("--resume", can_resume=False)
    stopper.signal = signal.SIGINT

    with pytest.raises(SearchInterrupted, match="SIGINT before the search began: the same command"):
        stopper.raise_reason()


def test_database_that_the_search_itself_makes_in_its_folder_is_not_refused(plan):
    """Of --storage or of MLflow, opened after the folder was looked at and before it is owned."""
    require_new(plan.output)
    (plan.output / "study.db").write_text("")
    write_plan(plan, resume=False)

    assert SearchPlan.load(plan.output).id == plan.id

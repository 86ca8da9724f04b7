"""The MLflow UI of a search, driven in a real browser from the printed address to the comparison of
two trials and their images."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from summaries import record_of

from thermal_search.storage import Location
from thermal_search.tracking.store import client_of, store_of
from thermal_search.training.trial_plan import TrialEvaluation, grid_name
from thermal_search.tuning.callback import SearchCallback
from thermal_search.tuning.slots.messages import REPORT, TrialConfig, TrialReport
from thermal_search.tuning.stopping import SearchStopper

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore"),  # warnings of MLflow and selenium
]
WAIT_S = 90
ARCHITECTURES = ("pix2pix", "wgan", "cyclegan")
FINAL = (150.0, 90.0, 120.0)
"""The last FID of each trial: the second is the best."""

BASELINES = {"inverted_grey": {"fid": 151.3, "l1": 61.0}}


def draw(file, shade):
    with file.open_output() as opened:
        Image.new("RGB", (96, 64), (shade, 30, 30)).save(opened, format="png")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """A search with three trials, logged as a search logs them."""
    output = Location.of(tmp_path_factory.mktemp("ui") / "search")
    record = record_of(
        output, architectures=ARCHITECTURES, trials=3, images=300, evaluate_every=100
    )
    callback = SearchCallback(record, "trials", SearchStopper("the same command"))
    callback.setup()
    for number, (architecture, final) in enumerate(zip(ARCHITECTURES, FINAL, strict=True)):
        id = f"0000{number}"
        record.add(number, TrialConfig(architecture, {"generator_lr": 0.0002 * (number + 1)}))
        trial = SimpleNamespace(trial_id=id, last_result={})
        callback.on_trial_start(0, [trial], trial)
        folder = output / "trials" / id
        folder.make_folder()
        draw(folder / grid_name(0), 10)
        for images in (100, 200, 300):
            draw(folder / grid_name(images), images // 2 + number)
            evaluation = TrialEvaluation(
                images=images,
                metrics={"fid": final + 300 - images, "l1": 30.0 + number},
                losses={"generator/l1": 0.5, "discriminator/adversarial": 0.7},
                seconds=images / 10,
                images_per_second=10.0,
                grid=grid_name(images),
                system={"worker_cpu_percent": 97.0},
            )
            report = TrialReport(
                status="completed" if images == 300 else "running",
                evaluation=evaluation,
                baselines=BASELINES,
            )
            trial.last_result = {REPORT: report}
            callback.on_trial_result(0, [trial], trial, trial.last_result)
        callback.on_trial_complete(0, [trial], trial)
    callback.finish()
    return output


@pytest.fixture(scope="module")
def address(output):
    """The address that `thermal-search ui` prints, on a free port of this machine only."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "thermal_search.cli", "ui", str(output), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout
    printed = server.stdout.readline()
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None, printed
            assert time.monotonic() < deadline
            time.sleep(0.5)
    address, words = printed.split(" ", 1)
    assert words.startswith(f"shows the search in {output}")
    yield address
    server.terminate()
    server.wait(30)
    server.stdout.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1500,1100",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


def text_of(browser):
    return browser.find_element(By.TAG_NAME, "body").text


def wait_for(browser, *words):
    try:
        WebDriverWait(browser, WAIT_S).until(lambda _: all(w in text_of(browser) for w in words))
    except Exception:
        raise AssertionError(text_of(browser)[:3000]) from None


def click(browser, path):
    """Clicks on what an XPath finds, as soon as it is there."""

    def clicked(_):
        found = browser.find_elements(By.XPATH, path)
        if not found:
            return False
        browser.execute_script("arguments[0].click()", found[0])
        return True

    WebDriverWait(browser, WAIT_S).until(clicked)


def test_printed_address_opens_the_trials_ordered_by_the_objective(address, browser, tmp_path):
    browser.get(address)
    wait_for(browser, "4 matching runs", "wgan 00001", "search search", "fid")
    browser.save_screenshot(str(tmp_path / "runs.png"))
    text = text_of(browser)

    order = [text.index(name) for name in ("wgan 00001", "cyclegan 00002", "pix2pix 00000")]
    assert order == sorted(order)
    assert "Sort: fid" in text
    assert (tmp_path / "runs.png").stat().st_size > 10_000


def test_two_trials_are_compared_with_their_curves_and_images(address, output, browser, tmp_path):
    browser.get(address)
    wait_for(browser, "wgan 00001")
    ids = {run.data.tags.get("thermal_search.trial"): run.info.run_id for run in runs_of(output)}
    chosen = ",".join(f'"{ids[id]}"' for id in ("00000", "00001"))
    experiment = re.search(r"/experiments/(\d+)/", address)[1]
    server = address.partition("/#/")[0]
    browser.get(f'{server}/#/compare-runs?runs=[{chosen}]&experiments=["{experiment}"]')
    wait_for(browser, "pix2pix 00000", "wgan 00001", "generator_lr", "0.0002", "0.0004", "fid")
    browser.save_screenshot(str(tmp_path / "compared.png"))

    assert (tmp_path / "compared.png").stat().st_size > 10_000


def runs_of(output):
    client = client_of(store_of(output))
    (experiment,) = [e for e in client.search_experiments() if e.name == "thermal-search"]
    return client.search_runs([experiment.experiment_id])


def test_search_has_a_description_its_dataset_and_its_files(output):
    (parent,) = [run for run in runs_of(output) if "thermal_search.trial" not in run.data.tags]
    tags, client = parent.data.tags, client_of(store_of(output))
    note = tags["mlflow.note.content"]
    (dataset,) = parent.inputs.dataset_inputs

    assert "| 1 | 00001 | wgan | 90 | 300 | completed |" in note
    assert "| inverted grey | 151.3 | 61 |" in note
    assert "thermal-search export search" in note
    assert (dataset.dataset.name, dataset.dataset.digest) == ("data", "digest")
    assert tags["mlflow.source.name"] == "thermal-search search"
    assert tags["mlflow.user"]
    assert re.fullmatch("[0-9a-f]{40}", tags["mlflow.source.git.commit"])
    assert tags["best_trial"] == "00001"
    assert tags["objective"] == "fid of the last evaluation, minimized"
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"search.json", "summary.json", "baselines.json"}
    assert parent.data.metrics == {"result/best_fid": 90.0}


def test_trial_has_tags_to_search_by_and_no_number_twice(output):
    client = client_of(store_of(output))
    (best,) = [run for run in runs_of(output) if run.data.tags.get("status") == "completed"][:1]
    tags = best.data.tags

    assert tags["architecture"] in ARCHITECTURES
    assert (tags["phase"], tags["stopped_at"], tags["rung"]) == ("trial", "300", "300")
    assert set(best.data.metrics) == {
        "fid", "l1", "seconds", "images_per_second", "system/worker_cpu_percent",
        "loss/generator/l1", "loss/discriminator/adversarial",
    }  # fmt: skip
    names = {file.path for file in client.list_artifacts(best.info.run_id, "images")}
    steps = sorted(int(re.search(r"step[%+](\d+)", name)[1]) for name in names if "png" in name)
    assert steps == [0, 100, 200, 300]

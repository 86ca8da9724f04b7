"""The MLflow UI of a search, driven in a real browser to the comparison of two trials."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from summaries import started_plan

from thermal_search.storage import Location
from thermal_search.tracking.runs import SearchLogger

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore"),  # warnings of MLflow and selenium
]
WAIT_S = 90


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A search with two trials, logged as a search logs them."""
    output = Location.of(tmp_path_factory.mktemp("ui") / "search")
    started_plan(output)
    log = SearchLogger(output, "search-id", {"trials": 2})
    log.open()
    grid = output / "grid.png"
    Image.new("RGB", (96, 64), (200, 30, 30)).save(grid)
    for number, architecture in enumerate(("pix2pix", "wgan")):
        id = f"0000{number}"
        log.start_trial(id, architecture, {"generator_lr": 0.0002 * (number + 1)})
        for images in (100, 200, 300):
            log.log_evaluation(id, images, {"fid": 300 - images / 3 - 20 * number}, grid)
        log.end_trial(id, "completed", "")
    log.end("fid", ("00001", 180.0), "completed")
    runs = [log.runs[f"0000{number}"].info.run_id for number in (0, 1)]
    return output, log.experiment_id, runs


@pytest.fixture(scope="module")
def address(logged):
    """`thermal-search ui`, on a free port of this machine only."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "thermal_search.cli", "ui", str(logged[0]), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
    yield url
    server.terminate()
    server.wait(30)


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


def wait_for(browser, *words):
    def all_there(_):
        text = browser.find_element(By.TAG_NAME, "body").text
        return all(word in text for word in words)

    try:
        WebDriverWait(browser, WAIT_S).until(all_there)
    except Exception:
        raise AssertionError(browser.find_element(By.TAG_NAME, "body").text[:3000]) from None


def test_two_trials_are_compared_side_by_side(logged, address, browser, tmp_path):
    _, experiment, runs = logged
    browser.get(f"{address}/#/experiments/{experiment}/runs")
    # The trials are nested in the run of their search.
    wait_for(browser, "search search", "3 matching runs")
    chosen = ",".join(f'"{run}"' for run in runs)
    browser.get(f'{address}/#/compare-runs?runs=[{chosen}]&experiments=["{experiment}"]')
    wait_for(browser, "pix2pix 00000", "wgan 00001", "generator_lr", "0.0002", "0.0004", "fid")
    browser.save_screenshot(str(tmp_path / "compared.png"))

    assert Path(tmp_path / "compared.png").stat().st_size > 10_000


def test_parameters_of_a_trial_are_shown(logged, address, browser):
    _, experiment, runs = logged
    browser.get(f"{address}/#/experiments/{experiment}/runs/{runs[0]}")
    wait_for(browser, "pix2pix 00000", "generator_lr")

"""The package as a wheel, used without a checkout: its contents, its command, and process.py."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from recordings import folders
from wheels import METADATA, PACKAGES, ROOT, build_wheel, package_files

import search_spaces


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    copy = tmp_path_factory.mktemp("sources")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in METADATA:
        shutil.copy(ROOT / name, copy)
    return build_wheel(copy)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the installed package: a wheel of Python alone is only unpacked."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def command(installed, tmp_path):
    """Runs `thermal-search`, by the entry point of the wheel, in an empty folder."""
    metadata = next(installed.glob("*.dist-info"))
    code = (
        "from importlib.metadata import Distribution\n"
        f"found = Distribution.at({str(metadata)!r}).entry_points\n"
        "(script,) = found.select(group='console_scripts', name='thermal-search')\n"
        "script.load()()"
    )

    def run(*words: object) -> str:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", code, *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


def test_wheel_holds_the_two_packages_and_every_file_of_theirs(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert names == package_files()


def test_version_is_that_of_the_project(command):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert command("--version").strip() == project["version"]


def test_search_and_its_spaces_come_along(command, installed):
    spaces = subprocess.run(
        [sys.executable, "-P", "-c", "import search_spaces as s; print(s.__file__, *s.names())"],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=installed,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert "--architectures" in command("search", "--help")
    assert spaces[0].startswith(str(installed))
    assert spaces[1:] == [*search_spaces.names()]


def test_process_py_comes_along_as_a_command(command, tmp_path):
    folders(tmp_path / "raw", count=24, gap_every=8)

    printed = command("prepare", "raw", "data", "--size", 32, "--workers", 1)
    assert "8 train, 8 val, 8 test" in printed
    assert (tmp_path / "data" / "manifest.json").exists()

"""cluster/Dockerfile: a build needs a registry of images, so its instructions are checked.

The copied files alone, without what the ignore file leaves out, make the wheel.
"""

import fnmatch
import itertools
import re
import shlex
import shutil
import tomllib
import zipfile
from pathlib import PurePosixPath

import pytest
from wheels import ROOT, build_wheel, package_files

FILE = ROOT / "cluster" / "Dockerfile"
IGNORED = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().splitlines()


@pytest.fixture(scope="module")
def instructions():
    """Instruction and arguments, in their order."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def arguments_of(instructions, name):
    return [arguments for instruction, arguments in instructions if instruction == name]


def is_ignored(path: str) -> bool:
    """As Docker decides: the last pattern that matches the path or one of its folders."""
    ignored = False
    parents = [str(parent) for parent in PurePosixPath(path).parents][:-1]
    for line in IGNORED:
        pattern = line.removeprefix("!").removeprefix("**/")
        if line and not line.startswith("#"):
            names = [path, *parents]
            names += [PurePosixPath(name).name for name in names] if "**/" in line else []
            if any(fnmatch.fnmatchcase(name, pattern) for name in names):
                ignored = not line.startswith("!")
    return ignored


def test_base_image_is_pinned_and_has_a_python_that_the_project_supports(instructions):
    (base,) = arguments_of(instructions, "FROM")
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-\w+", base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"])

    assert version
    assert least
    assert tuple(map(int, version.groups())) >= tuple(map(int, least.groups()))


def test_dependencies_have_the_pinned_versions_and_existing_extras(instructions):
    (install,) = (run for run in arguments_of(instructions, "RUN") if "pyproject.toml" in run)
    words = shlex.split(install)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [after for word, after in itertools.pairwise(words) if word == "--extra"]

    assert words[words.index("-c") + 1] == "constraints.txt"
    assert extras
    assert set(extras) <= set(project["optional-dependencies"])


def test_copied_files_make_the_wheel(instructions, tmp_path):
    for copy in arguments_of(instructions, "COPY"):
        *sources, target = copy.split()
        for source in sources:
            files = [ROOT / source, *(ROOT / source).rglob("*")]
            for file in filter(lambda path: path.is_file(), files):
                if not is_ignored(str(file.relative_to(ROOT))):
                    # As Docker copies: a folder's content, but a file under its name.
                    inner = file.relative_to(ROOT / source if file != ROOT / source else ROOT)
                    (tmp_path / target / inner).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, tmp_path / target / inner)
    assert (tmp_path / "constraints.txt").exists()
    assert not [*tmp_path.rglob("__pycache__")]
    names = zipfile.ZipFile(build_wheel(tmp_path)).namelist()

    assert package_files() == {name for name in names if ".dist-info/" not in name}


@pytest.mark.parametrize("path", ["data/x", ".git/config", "searches/a", "tests/conftest.py"])
def test_nothing_else_is_sent_to_the_build(path):
    assert is_ignored(path)


def test_command_runs_as_another_user_than_root(instructions):
    names = [name for name, _ in instructions]
    (user,) = arguments_of(instructions, "USER")
    (entrypoint,) = arguments_of(instructions, "ENTRYPOINT")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert int(user) > 0
    assert names.index("USER") > max(n for n, name in enumerate(names) if name == "RUN")
    assert entrypoint in [f'["{script}"]' for script in project["scripts"]]

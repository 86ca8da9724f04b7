"""The documentation says what is there: commands, flags, files, anchors, messages, and the site.

Commands are parsed as the program parses them, and searches planned, but not run. What they do is
tested with each command, and the whole workflow by test_tutorial.py, in Python.
"""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from cyclopts import App
from documentation import ROOT, Command, anchors, commands, links, pages

import process
import search_spaces
from thermal_search.cli import app
from thermal_search.command_line import _split_pairs
from thermal_search.preparation.command import PAIRS
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings

SITE = ROOT / "docs" / "site" / "mkdocs.yml"

NOT_PARSED = {
    "apt-get": "installs on a server",
    "su": "sets a server up",
    "useradd": "sets a server up",
    "mlflow": "MLflow's own; test_served_model.py and test_cluster.py run servers",
    "--allowed-hosts": "flags of mlflow server",
    "ssh": "a tunnel between machines; test_cluster.py opens one",
    "printf": "writes a request to a served model; test_served_model.py sends it",
    "base64": "the same",
    "curl": "the same",
    "git": "needs the repository's address",
    "kubectl": "needs a Kubernetes cluster; test_cluster_files.py checks the manifests",
    "docker": "needs a registry of images; test_container.py checks the files",
    "chmod": "a system's own",
    "cd": "a system's own",
    "ls": "a system's own",
    "unzip": "needs a download that asks for a registration",
    ".": "activates an environment",
    "python3": "creates an environment",
    "uv": "creates an environment; .ci/run does",
    "pre-commit": "installs hooks",
}
"""Programs that the documentation names, and why their commands are not checked here."""

NEEDS_FILES = {
    "--config", "--first", "--space", "--architecture-file", "--learn-from", "--start-from",
    "--resume",
}  # fmt: skip
"""Flags of `search` with which a plan cannot be made without the files that they name."""

COMMANDS = commands()


def flags_known_by(parsed: App, words: list[str]) -> None:
    """Parses a command line; raises if a flag is unknown or has a value that it cannot have."""
    split = _split_pairs(words, PAIRS)
    if "--help" in words:
        return
    _, bound, _ = parsed.parse_args(split, print_error=False, exit_on_error=False)
    settings = bound.kwargs.get("settings")
    if isinstance(settings, SearchSettings) and not NEEDS_FILES & {*words} and settings.data:
        plan = plan_from_settings(settings)
        plan.require_known_architectures()
        plan.search_space()
        assert plan.parsed_objective


def check_search(words: list[str]) -> None:
    flags_known_by(app, ["search", *words])


def check_ray(words: list[str]) -> None:
    match words:
        case ["submit", config, script, *flags]:
            assert (ROOT / config).exists()
            assert (ROOT / script).exists()
            # The remote shell splits them once more.
            check_search(shlex.split(" ".join(flags)))
        case ["job", "submit", *rest]:
            check("", rest[rest.index("--") + 1 :])
        case ["up" | "down" | "dashboard" | "attach", config, *_]:
            assert (ROOT / config).exists()
        case _:
            assert words[0] in ("get-auth-token", "start", "status")


def check_python(words: list[str]) -> None:
    match words:
        case ["process.py", *rest]:
            flags_known_by(process.app, rest)
        case ["cluster/search.py", *rest]:
            check_search(rest)
        case ["-m", module, *_]:
            assert importlib.util.find_spec(module)
        case ["-c", code, *_]:
            ast.parse(code)
        case [script, *_]:
            assert (ROOT / script).exists(), script


def check_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"\[([\w,]+)\]", " ".join(words).replace("moto[server]", ""))
    for extra in ",".join(extras).split(",") if extras else []:
        assert extra in project["optional-dependencies"], extra
    for constraints in [words[n + 1] for n, word in enumerate(words) if word == "-c"]:
        assert constraints == "constraints.txt"


def check_pytest(words: list[str]) -> None:
    for word in words:
        if word.startswith("tests/"):
            assert (ROOT / word).exists(), word
    markers = (ROOT / "pyproject.toml").read_text()
    if "-m" in words:
        names = set(words[words.index("-m") + 1].split()) - {"not", "and", "or"}
        assert all(f'"{name}: ' in markers for name in names)


def check(page: str, words: list[str]) -> None:
    """Raises if a command is none of this project's, or would be refused."""
    program, *rest = words
    match program:
        case flag if flag.startswith("--") and page == "docs/control.md":
            check_search(["--output", "out", *words])
        case script if (ROOT / script).is_file():
            pass
        case "thermal-search":
            flags_known_by(app, rest)
        case "python":
            check_python(rest)
        case "ray":
            check_ray(rest)
        case "pip":
            check_pip(rest)
        case "pytest":
            check_pytest(rest)
        case "mkdocs":
            assert (ROOT / rest[rest.index("--config-file") + 1]) == SITE
        case "sbatch":
            script = rest.index("cluster/slurm.sh")
            check_search(rest[script + 1 :])
        case "apptainer" | "docker":
            if "search" in rest:
                check_search(rest[rest.index("search") + 1 :])
        case _:
            assert program in NOT_PARSED, f"{program}: check it, or say in NOT_PARSED why not"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_is_one_that_the_program_accepts(command: Command, monkeypatch):
    monkeypatch.chdir(ROOT)
    check(command.page, [*command.words])


@pytest.mark.parametrize(
    "words",
    [
        ["thermal-search", "search", "--output", "x", "--trails", "3"],
        ["thermal-search", "serch", "--output", "x"],
        ["thermal-search", "search", "--data", "d", "--output", "x", "--architectures", "pix3pix"],
        ["thermal-search", "search", "--data", "d", "--output", "x", "--fix", "wgan.size=3"],
        ["thermal-search", "search", "--data", "d", "--output", "x", "--objective", "fit"],
        ["python", "process.py", "a", "b", "--size", "100"],
        ["ray", "submit", "cluster/cluster.yaml", "cluster/search.py", "--outptu", "x"],
        ["pip", "install", ".[tests]"],
        ["pytest", "-m", "slow"],
        ["some-program"],
    ],
)
def test_wrong_command_would_be_found(words):
    with pytest.raises(Exception):  # noqa: B017, PT011 - of cyclopts, of ours, or an assertion
        check("README.md", words)


def test_no_reason_is_left_over():
    assert not NOT_PARSED.keys() - {command.words[0] for command in COMMANDS}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path):
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target == ROOT / "docs" / "decisions" / "index.md":
            continue  # the site writes it
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_navigation_of_the_site_has_every_page_once():
    text = SITE.read_text()
    named = re.findall(r": ([\w-]+\.md)$", text, re.M)
    generated = {"clusters.md", "contributing.md"}

    assert len(named) == len(set(named))
    assert {*named} - generated == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_every_command_has_a_page_and_every_architecture_a_line():
    table = (ROOT / "docs" / "architectures.md").read_text()

    assert all((ROOT / "docs" / f"{name}.md").exists() for name in app if name[0] != "-")
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.M)) == sorted(search_spaces.names())


def test_messages_of_the_page_on_troubleshooting_are_in_the_source():
    """By their fixed parts: strings of the source that the message contains, or that contain it."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    cells = re.findall(r"^\| (.*?) \|", text, re.M)
    messages = [m[1] for cell in cells if (m := re.match(r"`([^`]{12,})`$", cell))]
    strings = [
        node.value
        for path in (ROOT / "thermal_search").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]

    assert len(messages) > 25
    for message in messages:
        assert any(message.strip() in string for string in strings), message


def test_site_builds_without_warnings_and_names_no_other_server(tmp_path):
    if not importlib.util.find_spec("mkdocs"):
        pytest.skip("mkdocs is not installed (the extra `docs`)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", SITE]
    built = subprocess.run(
        [*command, "--site-dir", tmp_path], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert 'href="0001-trial-slots.html"' in (tmp_path / "decisions" / "index.html").read_text()
    assert (tmp_path / "style.css").exists()
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?://\S+)", page.read_text()
        )
        assert not loaded, page
    fonts = [path for path in tmp_path.rglob("*.css") if "fonts.googleapis" in path.read_text()]
    assert not fonts
    config = yaml.unsafe_load(SITE.read_text())
    assert config["theme"]["font"] is False

"""Builds the wheel of the project, from its sources and nothing else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("thermal_search", "search_spaces")
METADATA = ("pyproject.toml", "README.md", "LICENSE")

BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"


def build_wheel(sources: Path) -> Path:
    """Builds as pip does, but without pip and its network. Leaves files in `sources`: a copy."""
    built = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD],
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return sources / "dist" / built.stdout.split()[-1]


def package_files() -> set[str]:
    """Every file of the packages in the checkout, which a wheel must hold."""
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

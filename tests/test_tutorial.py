"""The notebook of the documentation runs, cell by cell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def code_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_outputs_are_small():
    assert NOTEBOOK.stat().st_size < 20_000


@pytest.mark.ray
def test_notebook_runs(tmp_path):
    for name, cell in enumerate(code_cells()):
        compile(cell, f"cell {name}", "exec")
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join(code_cells()))
    ended = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (tmp_path / "thermal.png").exists()
    assert (tmp_path / "generator" / "generator.pt2").exists()

"""Programs in place of NVIDIA's, for machines without a GPU: they record what they are told."""

import os
from pathlib import Path

CONTROL = """#!/bin/sh
# A control daemon is up if its folder says so.
up="${CUDA_MPS_PIPE_DIRECTORY:-SYSTEM}/up"
if [ "$1" = -d ]; then
    echo "start $CUDA_MPS_PIPE_DIRECTORY ${CUDA_VISIBLE_DEVICES:-all}" >> LOG
    if [ -e FAILS ]; then echo "no permission"; exit 1; fi
    touch "$up"
    exit 0
fi
read -r told
echo "$told $CUDA_MPS_PIPE_DIRECTORY" >> LOG
[ -e "$up" ] || exit 1
case "$told" in quit*) rm "$up" ;; esac
"""

QUERY = """#!/bin/sh
cat MODES
"""


class FakeMps:
    """The programs in a folder, which must come first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "programs"
        self.log, self.modes = folder / "log", folder / "modes"
        self.fails, self.system = folder / "fails", folder / "system"
        self.programs.mkdir(parents=True)
        self.system.mkdir()
        self.modes.write_text("Disabled, Default\n")
        self._write("nvidia-cuda-mps-control", CONTROL)
        self._write("nvidia-smi", QUERY)

    @property
    def path(self) -> str:
        return f"{self.programs}{os.pathsep}{os.environ['PATH']}"

    @property
    def told(self) -> list[str]:
        """What the control program was told so far, one line for each call."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def _write(self, name: str, script: str) -> None:
        for word in ("LOG", "FAILS", "MODES", "SYSTEM"):
            script = script.replace(word, str(self.folder / word.lower()))
        (self.programs / name).write_text(script)
        (self.programs / name).chmod(0o755)

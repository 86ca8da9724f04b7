"""Architectures from files outside the package, which people name on the command line.

Such a file is code. It runs in the process that was told its name, and in the workers that this
process starts, which get its text; nothing that a search keeps names it or runs it again.
"""

import hashlib
import inspect
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thermal_search.architectures import ARCHITECTURES
from thermal_search.architectures.translator import Translator
from thermal_search.errors import SettingsError

PACKAGED = frozenset(ARCHITECTURES)
FLAG = "--architecture-file"


@dataclass(frozen=True)
class SourceFile:
    """The text of a Python file that a person has named."""

    name: str
    """What it defines: an architecture, or the search space of one."""

    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def read(cls, path: Path, flag: str, name: str | None = None) -> "SourceFile":
        """The file at `path`, by default named like it; SettingsError if there is none."""
        name = name or path.stem
        if path.suffix != ".py" or not name.isidentifier():
            raise SettingsError(
                f"{flag} must be a Python file that is named like its architecture, such as "
                f"my_gan.py, but is {str(path)!r}."
            )
        try:
            return cls(name, path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SettingsError(f"{flag} {path} cannot be read: {reason}.") from None

    def run(self, flag: str) -> types.ModuleType:
        """Runs the file as a module of its own; SettingsError with the line if that fails."""
        module = types.ModuleType(f"thermal_search_file_{self.digest[:12]}_{self.name}")
        module.__file__ = f"{self.name}.py"
        sys.modules[module.__name__] = module  # dataclasses look their module up
        try:
            exec(compile(self.text, module.__file__, "exec"), module.__dict__)
        except Exception as error:  # any, from code that is not ours
            del sys.modules[module.__name__]
            reason = " ".join(str(error).split())[:200]
            raise SettingsError(
                f"{flag} {module.__file__}, line {_line(error, module.__file__)}: "
                f"{type(error).__name__}: {reason}."
            ) from None
        return module


registered: dict[str, SourceFile] = {}
"""By name: the files whose architectures this process has in its table."""


def register(file: SourceFile) -> types.ModuleType:
    """Adds the architecture of a file to the table of this process, and returns the file's module.

    SettingsError if the file defines not exactly one, or has the name of another architecture.
    """
    if file.name in PACKAGED:
        raise SettingsError(
            f"{FLAG} {file.name}.py has the name of an architecture of thermal-search: rename the "
            "file."
        )
    if (known := registered.get(file.name)) and known.digest != file.digest:
        raise SettingsError(f"{FLAG} {file.name}.py is given twice, as different files.")
    module = file.run(FLAG)
    classes = [kind for kind in vars(module).values() if _is_architecture(kind, module)]
    if len(classes) != 1:
        raise SettingsError(
            f"{FLAG} {file.name}.py must define one subclass of Translator that implements all of "
            f"it, but defines {len(classes)}."
        )
    _require_config(file, classes[0])
    ARCHITECTURES[file.name] = classes[0]
    registered[file.name] = file
    return module


def read_and_register(path: Path) -> SourceFile:
    """The file at `path`, whose architecture is then in the table of this process."""
    file = SourceFile.read(path, FLAG)
    register(file)
    return file


def _is_architecture(kind: Any, module: types.ModuleType) -> bool:
    return (
        isinstance(kind, type)
        and issubclass(kind, Translator)
        and kind.__module__ == module.__name__
        and not inspect.isabstract(kind)
    )


def _require_config(file: SourceFile, kind: type[Translator]) -> None:
    try:
        kind.Config(size=256)
    except Exception as error:  # any, from code that is not ours
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"{FLAG} {file.name}.py must have a Config in {kind.__name__} with defaults for every "
            f"field but size ({type(error).__name__}: {reason})."
        ) from None
    if not isinstance(getattr(kind, "needs_pairs", None), bool):
        raise SettingsError(f"{FLAG} {file.name}.py: {kind.__name__} must set needs_pairs.")


def _line(error: Exception, name: str) -> int:
    """The line of the file that an error comes from."""
    if isinstance(error, SyntaxError) and error.filename == name:
        return error.lineno or 1
    frame, line = error.__traceback__, 1
    while frame:
        if frame.tb_frame.f_code.co_filename == name:
            line = frame.tb_lineno
        frame = frame.tb_next
    return line

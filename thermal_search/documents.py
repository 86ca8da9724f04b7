"""The JSON files that people keep: each carries a version and is validated when it is read."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from thermal_search.errors import SearchError, ThermalSearchError
from thermal_search.storage import Location

MAX_BYTES = 32 * 2**20
"""A larger file is no document: parsed, it would fill the memory."""


class Section(BaseModel):
    """A typed part of a document: an unknown key or a number that is not finite is an error."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class Document(Section):
    """One kind of JSON file. A subclass declares `version: Literal[N] = N` and its fields.

    Files are read strictly: a missing key, an unknown key or a value of another type is an error.
    """

    ERROR: ClassVar[type[ThermalSearchError]] = SearchError
    """What `read` raises for a file that is not such a document."""

    REMEDY: ClassVar[str]
    """What to do about such a file: the end of the sentence that names the fault."""

    @classmethod
    def read(cls, path: Location) -> Self:
        """The document in a file.

        Raises FileNotFoundError if there is none, and ERROR with one sentence if it is of another
        version, is not JSON, or does not have the fields of this document.
        """
        try:
            content = path.read_bytes(MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(str(path)) from None
        except OSError as error:
            raise cls.ERROR(
                f"{path} cannot be read ({error.strerror or error}): {cls.REMEDY}."
            ) from None
        expected = cls.model_fields["version"].default
        try:
            version = _Versioned.model_validate_json(content).version
        except ValidationError as error:
            raise cls.ERROR(f"{path} is damaged ({_first(error)}): {cls.REMEDY}.") from None
        if type(version) is not int or version != expected:
            raise cls.ERROR(
                f"{path} has version {version!r:.40}, but this release reads version {expected}: "
                f"{cls.REMEDY}."
            )
        try:
            return cls.model_validate_json(content, strict=True)
        except ValidationError as error:
            raise cls.ERROR(f"{path} is damaged ({_first(error)}): {cls.REMEDY}.") from None

    @classmethod
    def read_or_backup(cls, path: Location) -> Self:
        """As `read`; from the backup that `write_with_backup` made if the file is lost or damaged.

        Raises what `read` raises for the file if the backup is of no use either.
        """
        try:
            return cls.read(path)
        except (FileNotFoundError, cls.ERROR) as error:
            try:
                return cls.read(backup_of(path))
            except (FileNotFoundError, cls.ERROR):
                raise error from None

    def write(self, path: Location, *, make_folder: bool = True) -> None:
        """Writes the file so that a reader sees the old content or the new, never a part.
        `make_folder`: as for `Location.open_output`."""
        path.write_text(self._text(), make_folder=make_folder)

    def write_with_backup(self, path: Location, *, make_folder: bool = True) -> None:
        """Writes the file twice: a disk that fails, or a person, may damage one of them."""
        text = self._text()
        path.write_text(text, make_folder=make_folder)
        backup_of(path).write_text(text, make_folder=make_folder)

    def _text(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def backup_of(path: Location) -> Location:
    """Where `Document.write_with_backup` writes the second copy of a file."""
    return path.parent / f"{path.name}.bak"


class _Versioned(BaseModel):
    version: Any


def _first(error: ValidationError) -> str:
    """The first of the faults, in one line: where, what is wrong, and the value if it is short."""
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in fault["loc"])[:120]
    text = fault["msg"].removeprefix("Value error, ").removesuffix(".")
    text = f"{where}: {text}" if where else text
    value = fault["input"]
    if fault["type"] != "missing" and isinstance(value, (str, int, float, bool)):
        text += f", not {value!r:.60}"
    return " ".join(text.split())

"""Command lines from typed settings: flags, files of settings, and errors of one sentence."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self

import yaml
from cyclopts import App, Argument, ArgumentCollection, Group, Parameter, Token
from cyclopts.config import Dict
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from pydantic import ModelWrapValidatorHandler, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails

from thermal_search.documents import Section
from thermal_search.errors import (
    SearchInterrupted,
    SettingsError,
    StorageError,
    ThermalSearchError,
    nearest,
    printable,
)
from thermal_search.storage import Location
from thermal_search.storage import describe_fault as describe_os_error

USAGE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
"""Exit codes. USAGE: the command line or a file of settings is wrong, and nothing was started."""

CONFIG = "--config"
CODE = {"--space", "--architecture-file"}
"""Flags whose files are run. A file of settings, which may come from someone else, has none."""

OPTIONS_LAST = 100
"""Sort key in --help of flags without a group of their own."""

VALUE_CHARACTERS = 60
"""Longest value that a message repeats."""

REQUIREMENTS = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_type": "must be text",
    "path_type": "must be a path",
    "tuple_type": "must be names separated by commas",
    "bool_parsing": "must be true or false",
    "extra_forbidden": "is not a setting",
}
"""By pydantic's type of an error: what must hold."""

_config_files: dict[str, str] = {}
"""By flag: the file of settings with its value, in the command line that was parsed last."""


class InvalidSetting(SettingsError):
    """The error of one field of Settings."""

    def __init__(self, sentence: str, flag: str = "") -> None:
        super().__init__(sentence)
        self.flag = flag


class Settings(Section, frozen=True):  # pyright: ignore[reportGeneralTypeIssues] - Section has no fields, so none can change
    """The settings of a command: each field is a flag, and its docstring is the flag's help.

    Values come from flags, from a file of settings or from Python, and are checked here alone: a
    value that a field cannot have raises SettingsError with one sentence. A field's validator in a
    subclass raises ValueError with the predicate of that sentence ("must be even"), or with a
    sentence of its own. Validate relations between fields in the last field's validator, through
    info.data: errors of model validators are not turned into sentences.
    """

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Joins the lines of docstrings: --help breaks lines itself."""
        for field in cls.model_fields.values():
            field.description = " ".join((field.description or "").split())

    @model_validator(mode="wrap")
    @classmethod
    def _explain(
        cls, values: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            if info.mode == "json":
                raise  # A file: its reader names it.
            fault = error.errors(include_url=False)[0]
            raise InvalidSetting(describe_fault(fault), _flag_of(fault)) from None


def whole_number(_: Any, tokens: Sequence[Token]) -> int:
    """Converts a flag's text to int; cyclopts itself would round 1.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"must be a whole number, but is {_shorten(tokens[0].value)}.") from None


def location(_: Any, tokens: Sequence[Token]) -> Location:
    """Converts a flag's text to a Location, which cyclopts itself would take for three flags."""
    try:
        return Location.of(tokens[0].value)
    except StorageError as error:
        raise ValueError(str(error)) from None


Switch = Annotated[bool, Parameter(show_default=False)]
"""A flag without a value, off by default."""

WholeNumber = Annotated[int, Parameter(converter=whole_number)]
"""For a parameter of a command; a field of Settings is `int`."""

LocationFlag = Annotated[Location, Parameter(converter=location, n_tokens=1, accepts_keys=False)]
"""For a parameter of a command and for a field of Settings."""


def create_app(name: str, help: str) -> App:
    """An empty application: `@app.command` adds a command, `@app.default` the only one."""
    return App(
        name=name,
        help=help,
        help_format="plaintext",
        version=version,
        config=read_config,
        default_parameter=Parameter(negative=()),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        group_parameters=Group("Options", sort_key=OPTIONS_LAST),
    )


def version() -> str:
    """The version of the installed package."""
    try:
        return metadata.version("thermal-search")
    except metadata.PackageNotFoundError:
        return "unknown (the package is not installed)"


def run(
    app: App,
    arguments: Sequence[str] | None = None,
    *,
    interrupted: str = "interrupted",
    pairs: Sequence[str] = (),
) -> None:
    """Runs one command. An error meant for people ends with one sentence and an exit code.

    Args:
        arguments: by default those of the process.
        interrupted: what to say after Ctrl-C.
        pairs: flags of two values, which a comma may separate as well.
    """
    try:
        app(
            _split_pairs(sys.argv[1:] if arguments is None else arguments, pairs),
            print_error=False,
            exit_on_error=False,
        )
    except CycloptsError as error:
        flag = error.argument.name if error.argument else ""
        _exit(app, _name_file(flag, describe_usage(error)), USAGE)
    except InvalidSetting as error:
        _exit(app, _name_file(error.flag, str(error)), USAGE)
    except SettingsError as error:
        _exit(app, str(error), USAGE)
    except SearchInterrupted as error:
        _exit(app, str(error), error.exit_code)
    except ThermalSearchError as error:
        sys.exit(printable(f"{app.name[0]}: {error}"))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        _exit(app, interrupted, INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has ended (`| head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        fault = describe_os_error(error)
        sys.exit(printable(f"{app.name[0]}: {fault}: fix it, then run the same command again."))


def read_config(app: App, commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Fills what the command line leaves out from the file named by --config, if the command has
    that flag.

    Raises SettingsError if the file cannot be read or holds anything but flags of the command.
    """
    _config_files.clear()
    flags = {flag: argument for argument in arguments for flag in _flags(argument)}
    if CONFIG not in flags or not flags[CONFIG].tokens:
        return
    path = flags[CONFIG].tokens[0].value
    known = {flag.removeprefix("--").replace("-", "_"): flag for flag in flags if flag != CONFIG}
    settings: dict[str, Any] = {}
    names: set[str] = set()
    for name, value in _load_yaml(path).items():
        key = str(name).replace("-", "_")
        if key not in known:
            raise SettingsError(
                f"{CONFIG} {path}: unknown setting {_shorten(name)}: {nearest(key, list(known))}"
            )
        if key in names:
            raise SettingsError(f"{CONFIG} {path}: {key} is given twice: leave one out.")
        names.add(key)
        if known[key] in CODE:
            raise SettingsError(
                f"{CONFIG} {path}: {key} names files whose code is run: pass {known[key]} on the "
                "command line."
            )
        argument = flags[known[key]]
        tokens, takes_any_number = argument.token_count()
        if isinstance(value, dict):
            raise SettingsError(f"{CONFIG} {path}: {key} must be one value, but holds settings.")
        if isinstance(value, list) and tokens < 2 and not takes_any_number:
            raise SettingsError(
                f"{CONFIG} {path}: {key} must be one value, but is {_shorten(value)}."
            )
        if tokens > 1 and value is not None:
            value = value.split(",") if isinstance(value, str) else value
            if not isinstance(value, list) or len(value) != tokens:
                raise SettingsError(
                    f"{CONFIG} {path}: {key} must be {tokens} values, "
                    f"{argument.parameter.metavar}, but is {_shorten(value)}."
                )
        if value is not None:
            settings[key] = value
            if not argument.tokens:
                _config_files[argument.name] = path
    Dict(settings, source=path, use_commands_as_keys=False)(app, tuple(commands), arguments)


def describe_fault(fault: ErrorDetails) -> str:
    """The sentence about one of pydantic's errors: the flag, what must hold, and the value."""
    flag = _flag_of(fault)
    text = fault["msg"].removeprefix("Value error, ").removesuffix(".")
    if requirement := REQUIREMENTS.get(fault["type"]):
        bounds = {
            key: f"{bound:g}" if isinstance(bound, float) else str(bound).replace("'", "")
            for key, bound in fault.get("ctx", {}).items()
        }
        text = requirement.format(**bounds)
    if fault["type"] in ("missing", "extra_forbidden"):
        return f"{flag} {text}."
    if text.startswith("must "):
        return f"{flag} {text}, but is {_shorten(fault['input'])}."
    return f"{flag}: {text}."


def describe_usage(error: CycloptsError) -> str:
    """The sentence about a command line that cannot be understood."""
    argument, unused = error.argument, error.unused_tokens or [""]
    name = argument.name if argument else ""
    match error:
        case UnknownOptionError():
            return _describe_unknown_flag(
                error.token.keyword or error.token.value, error.argument_collection
            )
        case UnknownCommandError():
            known = [name for name in error.app or () if not name.startswith("-")]
            return f"unknown command {_shorten(unused[0])}: {nearest(unused[0], known)}"
        case MissingArgumentError():
            return _describe_missing(error)
        case RepeatArgumentError():
            return f"{error.token.keyword} must be given once, but is given several times."
        case UnusedCliTokensError():
            return f"unexpected argument {_shorten(unused[0])}: see --help."
        case CoercionError() if error.token and error.msg is None:
            return f"{name} must be {_kind(error)}, but is {_shorten(error.token.value)}."
        case CoercionError() if error.msg is not None:
            return f"{name}{'' if str(error.msg).startswith('must') else ':'} {error.msg}"
        case _:
            return " ".join(str(error).split())


def _kind(error: CoercionError) -> str:
    """What a value must be, in words."""
    assert error.argument
    if choices := error.argument.get_choices():
        return " or ".join(choices)
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "one text",
        Path: "one path",
    }
    return names.get(error.argument.hint, "one value")


def _describe_missing(error: MissingArgumentError) -> str:
    """A flag without its values, or a required argument that is missing: perhaps because its flag
    is mistyped, which is then the sentence."""
    argument = error.argument
    assert argument
    tokens, _ = argument.token_count()
    if tokens > 1:
        return f"{argument.name} needs {tokens} values, {argument.parameter.metavar}: see --help."
    if error.keyword:
        return f"{argument.name} needs a value: see --help."
    unknown = [token for token in error.unused_tokens or () if token.startswith("--")]
    if unknown and error.app:
        return _describe_unknown_flag(unknown[0], error.app.assemble_argument_collection())
    return f"{argument.name} is required: see --help."


def _describe_unknown_flag(flag: str, arguments: ArgumentCollection) -> str:
    known = [known for argument in arguments for known in _flags(argument)]
    return f"unknown flag {_shorten(flag)}: {nearest(flag.split('=')[0], known)}"


def _name_file(flag: str, sentence: str) -> str:
    """The sentence about a flag, after the file of settings if its value comes from one."""
    path = _config_files.get(flag)
    return f"{CONFIG} {path}: {sentence}" if path else sentence


def _split_pairs(words: Sequence[str], pairs: Sequence[str]) -> list[str]:
    """`--celsius=-10,40` and `--celsius -10,40` as `--celsius -10 40`."""
    result: list[str] = []
    for word in words:
        flag, _, text = word.partition("=")
        follows = bool(result) and result[-1] in pairs
        values = (word if follows else text).split(",")
        if len(values) == 2 and (follows or flag in pairs):
            result += values if follows else [flag, *values]
        else:
            result.append(word)
    return result


def _flag_of(fault: ErrorDetails) -> str:
    return "--" + str(next(iter(fault["loc"]), "settings")).replace("_", "-")


def _flags(argument: Argument) -> list[str]:
    return [name for name in argument.names if name.startswith("--")] if argument.parse else []


def _shorten(value: object) -> str:
    """A value as a message repeats it: on one line, and not too long."""
    texts = [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]
    text = " ".join(",".join(texts).split())
    return (text[:VALUE_CHARACTERS] + ("..." if len(text) > VALUE_CHARACTERS else "")) or "empty"


def _load_yaml(path: str) -> Mapping[Any, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise SettingsError(f"{CONFIG} {path} cannot be read: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
            problem = error.problem.partition(", but got")[0]
            reason = f"line {error.problem_mark.line + 1}: {problem}"
        raise SettingsError(f"{CONFIG} {path} must be a YAML file, but is not: {reason}.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(
            f"{CONFIG} {path} must hold lines such as `trials: 60`, but holds one value."
        )
    return content


def _exit(app: App, sentence: str, code: int) -> NoReturn:
    print(printable(f"{app.name[0]}: {sentence}"), file=sys.stderr)
    sys.exit(code)

"""Writes docs/flags.md: the flags of `thermal-search search`, `thermal-search translate` and
process.py, from the models that declare them.

python -m thermal_search.flags_table > docs/flags.md
"""

from collections.abc import Mapping

from cyclopts import Group, Parameter
from pydantic.fields import FieldInfo

from thermal_search.command_line import CODE, CONFIG
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.translation.settings import TranslationSettings
from thermal_search.tuning.settings import LaunchSettings, SearchSettings

HEADER = f"""# Flags

All flags of search and process.py can also be set in a YAML file passed with {CONFIG}, with
underscores in their names (`evaluate_every: 20000`), but {CONFIG} itself and those that name
code: {" and ".join(sorted(CODE))}.

This page is written by `python -m thermal_search.flags_table > docs/flags.md` from
`thermal_search/tuning/settings.py`, `thermal_search/translation/settings.py` and
`thermal_search/preparation/settings.py`."""

SEARCH = """## thermal-search search

`cluster/search.py` has the same flags."""

TRANSLATE = """## thermal-search translate

[translate.md](translate.md) explains them. There is no `--config`."""

PROCESS = f"""## process.py

`thermal-search prepare` has the same flags. Those of files and folders, `--scratch`, `--verify`
and `{CONFIG}`, are in `python process.py --help`."""


def flags_table() -> str:
    """The flags in Markdown, one table a group."""
    search = SearchSettings.model_fields | LaunchSettings.model_fields
    sections = [HEADER, SEARCH, *_tables(search)]
    sections += [TRANSLATE, *_tables(TranslationSettings.model_fields), PROCESS]
    return "\n\n".join([*sections, *_tables(PreparationSettings.model_fields)]) + "\n"


def _tables(fields: Mapping[str, FieldInfo]) -> list[str]:
    groups: dict[Group, list[str]] = {}
    for name, field in fields.items():
        groups.setdefault(_group(field), []).append(_row(name, field))
    header = "| Flag | Default | Meaning |\n|---|---|---|\n"
    return [
        f"### {group.name}\n\n{header}" + "\n".join(groups[group])
        for group in sorted(groups, key=_position)
    ]


def _group(field: FieldInfo) -> Group:
    groups = [p.group for p in field.metadata if isinstance(p, Parameter) and p.group]
    (group,) = groups[0] if isinstance(groups[0], tuple) else groups
    assert isinstance(group, Group)
    return group


def _position(group: Group) -> int:
    """In --help."""
    assert isinstance(group.sort_key, int)
    return group.sort_key


def _row(name: str, field: FieldInfo) -> str:
    if field.is_required():
        default = "required"
    elif field.default is None or field.default is False:
        default = ""
    elif isinstance(field.default, tuple):
        default = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in field.default)
    else:
        default = str(field.default)
    return f"| `--{name.replace('_', '-')}` | {default} | {_cell(field.description)} |"


def _cell(text: str | None) -> str:
    """A text in a table, where a bar would end the cell."""
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    print(flags_table(), end="")

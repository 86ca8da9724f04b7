"""Writes docs/flags.md: the flags of `thermal-search search`, from the models that declare them.

python -m thermal_search.flags_table > docs/flags.md
"""

from cyclopts import Group, Parameter
from pydantic.fields import FieldInfo

from thermal_search.command_line import CONFIG
from thermal_search.tuning.settings import LaunchSettings, SearchSettings

HEADER = f"""# Flags of thermal-search search

`cluster/search.py` has the same flags. All but {CONFIG} may also stand in a YAML file, with
underscores in their names (`evaluate_every: 20000`), which {CONFIG} names.

This page is written by `python -m thermal_search.flags_table > docs/flags.md` from
`thermal_search/tuning/settings.py`."""


def flags_table() -> str:
    """The flags in Markdown, one table a group."""
    sections: dict[Group, list[str]] = {}
    for name, field in (SearchSettings.model_fields | LaunchSettings.model_fields).items():
        sections.setdefault(_group(field), []).append(_row(name, field))
    parts = [HEADER]
    for group in sorted(sections, key=_position):
        rows = ["| Flag | Default | Meaning |", "|---|---|---|", *sections[group]]
        parts.append(f"## {group.name}\n\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


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
        default = ",".join(map(str, field.default))
    else:
        default = str(field.default)
    return f"| `--{name.replace('_', '-')}` | {default} | {field.description} |"


if __name__ == "__main__":
    print(flags_table(), end="")

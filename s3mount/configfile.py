"""The config file: TOML text -> settings. Knows the table of options, not the file system.

A flat table; names are those of the options, with dashes or underscores. Every error names
the file and, where TOML lets one know, the line.
"""

from __future__ import annotations

import re
import tomllib

from s3mount.errors import UsageError
from s3mount.options import FILE, Option, Setting, find, suggestion


def parse(text: str, name: str) -> list[Setting]:
    """The settings in `text`, in its order; `name` is the file's, for messages.

    Raises `UsageError`.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{name} is not TOML: {error}",
            'a line is NAME = VALUE, with text in quotes, as in cache_size = "10G"',
        ) from None
    return [
        _setting(key, value, f"{name}{_line(text, key)}: {key}") for key, value in table.items()
    ]


def _line(text: str, key: str) -> str:
    """Which line sets `key`, as ", line N"; "" when it cannot be told."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return f", line {number}"
    return ""


def _setting(key: str, value: object, where: str) -> Setting:
    found = find(key, FILE)
    if found is None:
        meant = suggestion(key, FILE)
        raise UsageError(
            f"{where}: there is no such option",
            f"did you mean {meant.replace('-', '_')}?"
            if meant
            else "the names are those of s3mount --help",
        )
    option, negated = found
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{where} = {_shown(value)} is neither true nor false", "give one")
        return Setting(option, value != negated, where)
    return Setting(option, option.parse(_text(option, value, where), where), where)


def _text(option: Option, value: object, where: str) -> str:
    """`value` as one would write it on the command line."""
    # bool is an int to Python, and never a number to us.
    if isinstance(value, bool) or not isinstance(value, option.kind.toml_types):
        cure = f"give {option.permitted}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            cure += ", in quotes"
        raise UsageError(f"{where} = {_shown(value)} is of the wrong type", cure)
    return f"{value:f}" if isinstance(value, float) else str(value)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{...}"
    return repr(value)

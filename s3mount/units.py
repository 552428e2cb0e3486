"""Pure: the units in which people write values, to plain numbers and back.

Every `parse_*` takes the text as written and raises `ValueError` with a clause that
fits behind the text ("is not a size"). For every value that a parser can give,
`parse(format(value)) == value`.

Must not know: options, files, the environment. (User and group names are looked up in
the system's database: that is what those names mean.)
"""

from __future__ import annotations

import grp
import math
import pwd
import re

# Powers of 1024, whatever the spelling: K, KB and KiB are the same to mount(8)'s users.
_SIZE_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_SIZE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,18}))? ?(?:([kmgtp])(?:i?b)?|b)?", re.I | re.A)

_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "": 1000}
_DURATION_PART = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,12}))? ?(ms|s|m|h|d)", re.I | re.A)
_SECONDS = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,12}))?", re.A)
_FOREVER = ("forever", "inf", "infinite")

_MODE = re.compile(r"(?:0o)?([0-7]{1,4})", re.A)

# (uid_t)-1 means "no change" to chown(2) and is no one's.
_MAX_ID = 2**32 - 2

_FLAGS = {"yes": True, "true": True, "on": True, "1": True} | {
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}


def _scaled(whole: str, fraction: str | None, unit: int) -> tuple[int, int]:
    """`whole.fraction * unit` as an exact numerator and denominator."""
    fraction = fraction or ""
    return int(whole + fraction) * unit, 10 ** len(fraction)


def parse_size(text: str) -> int:
    """Bytes: "4096", "10G", "512 MiB", "1.5GiB"; parts of a byte are dropped."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a size")
    whole, fraction, unit = match.groups()
    numerator, denominator = _scaled(whole, fraction, _SIZE_UNITS[(unit or "").lower()])
    return numerator // denominator


def format_size(size: int) -> str:
    """`size` bytes in the largest unit that divides it: "10G", "1536M", "4097"."""
    for letter in "PTGMK":
        unit = _SIZE_UNITS[letter.lower()]
        if size and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def parse_duration(text: str) -> float:
    """Seconds: "30s", "5m", "1h30m", "250ms", "0", "2.5" (a bare number is seconds).

    "forever" is `math.inf`.
    """
    text = text.strip().lower()
    if text in _FOREVER:
        return math.inf
    if match := _SECONDS.fullmatch(text):
        numerator, denominator = _scaled(match[1], match[2], 1000)
        return numerator / (denominator * 1000)
    total, position = 0.0, 0
    while match := _DURATION_PART.match(text, position):
        numerator, denominator = _scaled(match[1], match[2], _MILLISECONDS[match[3]])
        total += numerator / (denominator * 1000)
        position = match.end()
    if position == 0 or position != len(text):
        raise ValueError("is not a duration")
    return total


def format_duration(seconds: float) -> str:
    """`seconds`, to the millisecond, in the largest unit that divides them: "5m", "250ms"."""
    if math.isinf(seconds):
        return "forever"
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _MILLISECONDS[unit] == 0:
            return f"{milliseconds // _MILLISECONDS[unit]}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0"


def parse_mode(text: str) -> int:
    """Permission bits in octal: "0644", "644", "0o644"; at most 0777."""
    match = _MODE.fullmatch(text.strip())
    if match is None or int(match[1], 8) > 0o777:
        raise ValueError("is not an octal mode")
    return int(match[1], 8)


def format_mode(mode: int) -> str:
    """Four octal digits: "0644"."""
    return f"{mode:04o}"


def _parse_id(text: str, kind: str, by_name: dict[str, int]) -> int:
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) <= len(str(_MAX_ID)) else _MAX_ID + 1
        if number > _MAX_ID:
            raise ValueError(f"is not a {kind} id")
        return number
    if text not in by_name:
        raise ValueError(f"is not a {kind} known on this machine")
    return by_name[text]


def parse_uid(text: str) -> int:
    """A user id, by number or by name."""
    try:
        known = {text: pwd.getpwnam(text).pw_uid}
    except (KeyError, ValueError):  # ValueError: a NUL in the name
        known = {}
    return _parse_id(text, "user", known)


def parse_gid(text: str) -> int:
    """A group id, by number or by name."""
    try:
        known = {text: grp.getgrnam(text).gr_gid}
    except (KeyError, ValueError):
        known = {}
    return _parse_id(text, "group", known)


def parse_count(text: str) -> int:
    """A whole number, 0 or more."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError("is not a whole number")
    return int(text)


def parse_flag(text: str) -> bool:
    """yes, true, on, 1; no, false, off, 0."""
    value = _FLAGS.get(text.strip().lower())
    if value is None:
        raise ValueError("is neither yes nor no")
    return value


def format_flag(value: bool) -> str:
    """The word for `value`: "yes" or "no"."""
    return "yes" if value else "no"

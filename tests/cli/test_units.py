"""The units people write: every value survives being written and read again."""

from __future__ import annotations

import grp
import math
import os
import pwd
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount import units


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("1k", 1024),
        ("1KB", 1024),
        ("1KiB", 1024),
        ("10G", 10 * 2**30),
        ("512M", 2**29),
        ("512 MiB", 2**29),
        (" 512M ", 2**29),
        ("1.5GiB", 3 * 2**29),
        ("0.3K", 307),
        ("2t", 2**41),
        ("1P", 2**50),
    ],
)
def test_size(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "+1", "1e3", "10X", "1.", ".5G", "1,5G", "10 G B", "٣", "9" * 30, "1_0"]
)
def test_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        units.parse_size(text)


@given(st.integers(0, 2**60))
def test_size_round_trip(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size


@given(st.integers(0, 999), st.sampled_from("KMGTP"))
def test_size_is_shown_in_its_largest_unit(number: int, letter: str) -> None:
    size = number * units.parse_size(f"1{letter}")
    assert units.format_size(size) == (f"{number}{letter}" if number else "0")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("60", 60.0),
        ("2.5", 2.5),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("5m", 300.0),
        ("5M", 300.0),
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        ("1d", 86400.0),
        ("forever", math.inf),
        ("Infinite", math.inf),
        ("inf", math.inf),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1e3", "nan", "5x", "5 minutes", "1h 30", "1h30", "1:30", "٣s"]
)
def test_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        units.parse_duration(text)


@given(st.integers(0, 10**12))
def test_duration_round_trip(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert units.parse_duration(units.format_duration(seconds)) == seconds


def test_forever_round_trip() -> None:
    assert units.format_duration(math.inf) == "forever"
    assert units.format_duration(0.0) == "0"
    assert units.format_duration(90.0) == "90s"


@given(st.integers(0, 0o777))
def test_mode_round_trip(mode: int) -> None:
    text = units.format_mode(mode)
    assert len(text) == 4
    assert units.parse_mode(text) == mode
    assert units.parse_mode(f"{mode:o}") == mode
    assert units.parse_mode(f"0o{mode:o}") == mode


@pytest.mark.parametrize("text", ["", "888", "4755", "01000", "u=rw", "-1", "0x1", "00644"])
def test_not_a_mode(text: str) -> None:
    with pytest.raises(ValueError, match="is not an octal mode"):
        units.parse_mode(text)


@given(st.integers(0, 2**32 - 2))
def test_ids_by_number(number: int) -> None:
    assert units.parse_uid(str(number)) == number
    assert units.parse_gid(str(number)) == number


def test_ids_by_name() -> None:
    user = pwd.getpwuid(os.getuid())
    group = grp.getgrgid(user.pw_gid)
    assert units.parse_uid(user.pw_name) == user.pw_uid
    assert units.parse_gid(group.gr_name) == group.gr_gid


@pytest.mark.parametrize("text", ["-1", "4294967295", "9" * 5000, "no-such-name", "", "a\0b", "٣"])
def test_not_an_id(text: str) -> None:
    with pytest.raises(ValueError, match="is not a user"):
        units.parse_uid(text)
    with pytest.raises(ValueError, match="is not a group"):
        units.parse_gid(text)


@given(st.integers(0, 999_999_999))
def test_count(number: int) -> None:
    assert units.parse_count(f" {number} ") == number


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1K", "9" * 10, "٣"])
def test_not_a_count(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        units.parse_count(text)


@pytest.mark.parametrize("value", [True, False])
def test_flag_round_trip(value: bool) -> None:
    assert units.parse_flag(units.format_flag(value)) is value


@pytest.mark.parametrize(
    ("text", "value"), [("Yes", True), ("on", True), ("1", True), ("OFF", False), ("0", False)]
)
def test_flag(text: str, value: bool) -> None:
    assert units.parse_flag(text) is value


def test_not_a_flag() -> None:
    with pytest.raises(ValueError, match="neither yes nor no"):
        units.parse_flag("maybe")


def problem(parse: Callable[[str], object], text: str) -> str:
    """What `parse` has against `text`; "is none" if nothing."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return "is none"


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (
        units.parse_size,
        units.parse_duration,
        units.parse_mode,
        units.parse_uid,
        units.parse_gid,
        units.parse_count,
        units.parse_flag,
    ):
        assert problem(parse, text).startswith("is n")  # a clause of ours, not Python's words

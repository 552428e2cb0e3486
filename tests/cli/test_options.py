"""The table of options against Config, itself, and wrong input."""

from __future__ import annotations

import contextlib
import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.config import Config
from s3mount.errors import UsageError
from s3mount.options import (
    COMMAND_LINE,
    FILE,
    GROUPS,
    MOUNT_OPTION,
    OPTIONS,
    Option,
    find,
    suggestion,
)

FIELDS = {field.name: field for field in dataclasses.fields(Config)}
# What `Config` holds and no option of its own sets.
DERIVED = {"bucket", "prefix", "mount_options"}


def named(name: str) -> Option:
    return next(option for option in OPTIONS if option.name == name)


def test_every_field_has_its_option_and_every_option_its_field() -> None:
    fields = {option.config_field for option in OPTIONS if option.name != "config"}
    assert fields == set(FIELDS) - DERIVED


def test_names_are_unique_also_when_negated() -> None:
    names = [option.name for option in OPTIONS]
    names += [option.negated_name for option in OPTIONS if option.is_flag]
    assert len(names) == len(set(names))


def test_every_row_is_complete() -> None:
    for option in OPTIONS:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", option.name)
        assert option.help
        assert not option.help.endswith(".")
        assert option.places
        assert option.group in GROUPS or COMMAND_LINE not in option.places
        assert option.permitted


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_default_shown_is_the_default_in_use(option: Option) -> None:
    if not option.default or option.default_text or option.config_field == "source":
        return
    assert option.parse(option.default, "here") == FIELDS[option.config_field].default


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cache-size", "10X", "--cache-size '10X' is not a size; give a size such as"),
        ("cache-size", "1M", "is too small; give a size such as 512M or 10G, at least 16M"),
        ("memory-limit", "31M", "is too small; .* from 32M to 1T"),
        ("memory-limit", "2P", "is too large; .* from 32M to 1T"),
        ("block-size", "3M", "is not a power of two; give 128K, 256K, .* or 16M"),
        ("block-size", "64K", "is too small; give 128K"),
        ("block-size", "32M", "is too large; give 128K"),
        ("metadata-ttl", "-1", "is not a duration; give a time such as .*forever"),
        ("deadline", "forever", "is too large; .*from 100ms to 1d"),
        ("deadline", "0", "is too small; .*from 100ms to 1d"),
        ("max-connections", "0", "is too small; give a whole number, from 1 to 1024"),
        ("retries", "many", "is not a whole number; give a whole number, from 0 to 1000"),
        ("file-mode", "9", "is not an octal mode; give octal digits"),
        ("uid", "no-such-user", "is not a user known on this machine; give a number or the name"),
        ("gid", "no-such-group", "is not a group known on this machine; give a number or"),
        ("log-level", "loud", "is unknown; give one of debug, info, warning, error"),
        ("endpoint-url", "minio:9000", "is not a URL of a service; give http://HOST"),
        ("endpoint-url", "ftp://minio", "is not a URL of a service"),
        ("expected-bucket-owner", "1234", "is not an account id; give the 12 digits"),
        ("region", "eu central", "is not the name of a region; give a name such as"),
        ("region", "evil.example/", "is not the name of a region"),
        ("cache-dir", "", "is empty; give a directory or none"),
        ("log-file", "a\0b", "holds a NUL; give a path"),
    ],
)
def test_wrong_values_say_which_and_what_is_allowed(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        named(name).parse(text, f"--{name}")
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cache-dir", "none", None),
        ("block-size", "128K", 2**17),
        ("endpoint-url", "http://minio:9000/", "http://minio:9000"),
        ("endpoint-url", "https://gateway/s3", "https://gateway/s3"),
        ("retries", "0", 0),
        ("umask", "022", 0o022),
        ("region", "us-east-1", "us-east-1"),
        ("expected-bucket-owner", "012345678901", "012345678901"),
    ],
)
def test_right_values(name: str, text: str, value: object) -> None:
    assert named(name).parse(text, "here") == value


@given(st.sampled_from(OPTIONS), st.text())
def test_any_text_is_a_value_or_a_usage_error(option: Option, text: str) -> None:
    with contextlib.suppress(UsageError):
        option.parse(text, "here")


@given(st.sampled_from(OPTIONS), st.sampled_from([COMMAND_LINE, MOUNT_OPTION, FILE]))
def test_dashes_and_underscores_are_the_same(option: Option, place: str) -> None:
    expected = (option, False) if place in option.places else None
    assert find(option.name, place) == find(option.name.replace("-", "_"), place) == expected


def test_negated_names() -> None:
    assert find("no_sign_request", FILE) == (named("no-sign-request"), False)
    assert find("sign-request", FILE) == (named("no-sign-request"), True)
    assert find("no-fips", FILE) == (named("fips"), True)
    assert find("no-region", FILE) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--cach-dir", "cache-dir"),
        ("--cache", "cache-dir"),
        ("cache_dri", "cache-dir"),
        ("--endpoint", "endpoint-url"),
        ("url", "endpoint-url"),
        ("use_path_request_style", "path-style"),
        ("--metadata", "metadata-ttl"),
        ("--no-fip", "no-fips"),
        ("-d", "debug"),
        ("--xyzzy", None),
        ("", None),
    ],
)
def test_suggestion(typed: str, meant: str | None) -> None:
    assert suggestion(typed, COMMAND_LINE) == meant


def test_other_names_are_suggested_too() -> None:
    assert suggestion("noatim", MOUNT_OPTION, ("noatime",)) == "noatime"

"""The config file: native values, and errors that name the file and the line."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount import configfile, units
from s3mount.errors import UsageError


def values_of(text: str) -> dict[str, object]:
    return {
        setting.option.name: setting.value for setting in configfile.parse(text, "/etc/logs.toml")
    }


def test_native_values_and_both_spellings() -> None:
    text = """
        bucket = "logs/2026"
        mountpoint = "/mnt/logs"
        cache_dir = "none"
        "cache-size" = "20G"
        block-size = 1048576
        metadata-ttl = 90
        negative_ttl = 0.5
        deadline = "2m"
        uid = 1000
        file_mode = "0640"
        allow_other = true
        no_sign_request = false
        no_fips = true
        retries = 3
    """
    assert values_of(text) == {
        "bucket": "logs/2026",
        "mountpoint": Path("/mnt/logs"),
        "cache-dir": None,
        "cache-size": 20 * 2**30,
        "block-size": 2**20,
        "metadata-ttl": 90.0,
        "negative-ttl": 0.5,
        "deadline": 120.0,
        "uid": 1000,
        "file-mode": 0o640,
        "allow-other": True,
        "no-sign-request": False,
        "fips": False,
        "retries": 3,
    }


def test_forever() -> None:
    assert values_of("metadata_ttl = inf") == {"metadata-ttl": math.inf}
    assert values_of("metadata_ttl = 'forever'") == {"metadata-ttl": math.inf}


@given(st.integers(2**24, 2**59))
def test_a_size_is_the_same_as_number_and_as_text(size: int) -> None:
    text = units.format_size(size)
    assert (
        values_of(f"cache_size = {size}")
        == values_of(f'cache_size = "{text}"')
        == {"cache-size": size}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = \n", r"/etc/logs.toml is not TOML: .*line 1.*; a line is NAME = VALUE"),
        ("retries = 1\nretries = 2\n", r"is not TOML: .*line 2"),
        (
            "\n\ncach_dir = '/x'",
            r"/etc/logs.toml, line 3: cach_dir: there is no such option; did you mean cache_dir\?",
        ),
        ("xyzzy = 1", r"line 1: xyzzy: there is no such option; the names are those of s3mount"),
        ("config = '/x'", "config: there is no such option"),
        ("[cache]\nsize = 1", r"line 1: cache: there is no such option; did you mean cache_dir\?"),
        ("uid.x = 1", r"line 1: uid = \{\.\.\.\} is of the wrong type; give a number or the name"),
        ("allow_other = 1", r"line 1: allow_other = 1 is neither true nor false"),
        ("allow_other = 'yes'", r"allow_other = 'yes' is neither true nor false"),
        ("cache_size = '10X'", r"line 1: cache_size '10X' is not a size; give a size such as"),
        ("cache_size = -1", r"cache_size '-1' is not a size"),
        ("cache_size = 1.5", r"cache_size = 1.5 is of the wrong type; give a size .*in quotes"),
        ("cache_size = true", r"cache_size = true is of the wrong type; give a size"),
        ("cache_size = [1]", r"cache_size = \[1\] is of the wrong type"),
        ("metadata_ttl = nan", r"metadata_ttl 'nan' is not a duration"),
        ("file_mode = 644", r"file_mode = 644 is of the wrong type; give octal digits .*in quotes"),
        ("expected_bucket_owner = 123456789012", r"of the wrong type; give the 12.*in quotes"),
        ("retries = 1.0", r"retries = 1.0 is of the wrong type; give a whole number"),
        ("log_file = 5", r"log_file = 5 is of the wrong type; give a path, in quotes"),
    ],
)
def test_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        values_of(text)
    assert re.search(message, str(caught.value))


def test_line_is_left_out_where_it_cannot_be_told() -> None:
    with pytest.raises(UsageError, match=r"^/etc/logs\.toml: cach_dir: there is no such option"):
        values_of('"cach\\u005fdir" = 1')


@given(st.text())
def test_any_text_is_understood_or_a_usage_error(text: str) -> None:
    try:
        values_of(text)
    except UsageError as error:
        message = str(error)
    else:
        message = "/etc/logs.toml"
    assert message.startswith("/etc/logs.toml")

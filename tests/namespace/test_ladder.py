"""Guesses of names further on: near where names are even, harmless where they are not."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.namespace.ladder import name_ahead

NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)

KINDS = {
    "numbers": [f"file{number:07}.dat" for number in range(20_000)],
    "numbers without zeros": sorted(str(number) for number in range(20_000)),
    "hex": sorted(hashlib.md5(b"%d" % number).hexdigest() for number in range(20_000)),
    "hex in upper case": sorted(f"{number * 997 % 65_536:04X}.bin" for number in range(20_000)),
    "uuids": sorted(f"{n * 7919 % 2**32:08x}-{n % 65_536:04x}" for n in range(20_000)),
    "dates": [f"{NOON + timedelta(seconds=9 * n):%Y-%m-%dT%H:%M:%S}.log" for n in range(20_000)],
    "pairs": [f"IMG_{n // 2:05}.{'jpg' if n % 2 else 'json'}" for n in range(20_000)],
    "letters": [f"{a}{b}{c}" for a in "abcdefgh" for b in "klmnopqrstuvwxyz" for c in "abcdefgh"],
}  # fmt: skip


@pytest.mark.parametrize("names", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("places", [10, 200])
def test_a_guess_is_near_where_names_count_in_something(names: list[str], places: int) -> None:
    tries = range(200, len(names) - places * 3, len(names) // 20)
    near = 0
    for at in tries:
        guess = name_ahead(names[at - 200 : at], 199, places)
        found = bisect_left(names, guess) - (at - 1) if guess is not None else 0
        near += places // 2 <= found <= places * 2
    # A minute ends at 59, a "z" before the next letter's "a": many a guess of dates is off.
    assert near >= len(tries) / 2


@pytest.mark.parametrize(
    ("names", "apart", "places", "guess"),
    [
        (["file0000000.dat", "file0000999.dat"], 999, 999_000, "file0999999"),
        (["file0000990.dat", "file0000999.dat"], 9, 9, "file0001008"),
        (["a1", "a8", "a9"], 8, 9, "b8"),  # what did not differ yet may be a digit, too
        (["9", "9a", "9f"], 15, 7, "a6"),
        (["a-1", "a_1"], 1, 1, "b-"),
        (["a.", "aé"], 1, 1, "b."),
        (["x", "z"], 2, 2, None),  # nothing is behind z
        (["same", "same"], 1, 1, None),
        (["a\x01", "a\x02"], 1, 1, None),  # no server is to be asked for that
    ],
)
def test_guesses(names: list[str], apart: int, places: int, guess: str | None) -> None:
    assert name_ahead(names, apart, places) == guess


@given(
    st.lists(st.text("019afzAZ-._~é\x01", max_size=8), min_size=1, max_size=30, unique=True),
    st.integers(1, 50),
    st.integers(1, 10_000),
)
def test_a_guess_is_behind_all_that_was_seen(names: list[str], apart: int, places: int) -> None:
    names.sort(key=lambda name: name + "/")
    guess = name_ahead(names, apart, places)
    if guess is not None:
        assert guess > names[-1]
        assert guess.isprintable()
        assert "/" not in guess

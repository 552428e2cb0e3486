"""The filter of keys: what was added is never called absent."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from s3mount.cache.key_filter import KeyFilter, KnownKeys

digests = st.lists(st.binary(min_size=16, max_size=16), max_size=50)


@given(added=digests)
def test_what_was_added_is_in(added: list[bytes]) -> None:
    keys = KeyFilter(10)
    keys.add_all(b"".join(added))
    assert all(digest in keys for digest in added)


def test_few_absent_keys_look_present_when_full() -> None:
    numbers = random.Random(1)
    keys = KeyFilter(100_000)
    keys.add_all(numbers.randbytes(16 * keys.capacity))
    wrong = sum(numbers.randbytes(16) in keys for _ in range(20_000))
    assert wrong < 200  # 1 %


def test_an_empty_filter_holds_nothing() -> None:
    assert bytes(16) not in KeyFilter(1)


@given(before=digests, scanned=digests, after=digests)
def test_nothing_that_was_added_is_lacking(
    before: list[bytes], scanned: list[bytes], after: list[bytes]
) -> None:
    known = KnownKeys()
    assert not known.lacks(bytes(16))  # nothing is known yet
    assert known.capacity == 0
    known.add(b"".join(before))
    keys = KeyFilter(10)
    keys.add_all(b"".join(scanned))
    known.learn(keys)
    known.add(b"".join(after))
    assert known.capacity == 10
    assert not any(known.lacks(digest) for digest in before + scanned + after)


def test_what_was_never_added_is_lacking() -> None:
    known = KnownKeys()
    known.learn(KeyFilter(10))
    assert known.lacks(bytes(16))

"""Headers of answers: which are good, and what they tell."""

from __future__ import annotations

from email.utils import formatdate
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import BadReply
from s3mount.s3.replies import (
    Asked,
    check_head,
    check_range,
    decoded,
    mtime_of_http_date,
    object_of,
)

HEADERS = {"etag": '"x"', "content-length": "5", "last-modified": "Sat, 21 Nov 2026 07:56:42 GMT"}


@given(st.integers(0, 30), st.integers(1, 30), st.integers(1, 40), st.data())
def test_only_the_range_that_was_asked_for_is_good(
    start: int, size: int, total: int, data: st.DataObject
) -> None:
    good = start, min(start + size, total) - 1, total
    first, last, of = data.draw(st.just(good) | st.tuples(*[st.integers(0, 40)] * 3))
    headers = HEADERS | {
        "content-range": f"bytes {first}-{last}/{of}",
        "content-length": str(last - first + 1),
    }
    if first == start and last == min(start + size, of) - 1:
        info, length = check_range(206, headers, Asked("k", start, size))
        assert (info.size, length) == (of, last - first + 1)
    else:
        with pytest.raises(BadReply):
            check_range(206, headers, Asked("k", start, size))


@given(st.integers(0, 4_102_444_800))
def test_dates(seconds: int) -> None:
    assert mtime_of_http_date(formatdate(seconds, usegmt=True)) == seconds * 10**9


def test_odd_dates() -> None:
    assert mtime_of_http_date("") == 0
    assert mtime_of_http_date("Saturday, 21-Nov-26 07:56:42 GMT") == 1795247802 * 10**9
    with pytest.raises(BadReply, match="'nonsense' is no date"):
        mtime_of_http_date("nonsense")


def test_versions_and_classes() -> None:
    headers = HEADERS | {"x-amz-version-id": "v1", "x-amz-storage-class": "GLACIER"}
    info = object_of(headers, "k", 5)
    assert (info.version_id, info.storage_class) == ("v1", "GLACIER")
    assert object_of(HEADERS | {"x-amz-version-id": "null"}, "k", 5).version_id is None


@pytest.mark.parametrize(
    ("status", "changes"), [(206, {}), (200, {"content-length": ""}), (200, {"etag": ""})]
)
def test_bad_heads(status: int, changes: dict[str, str]) -> None:
    with pytest.raises(BadReply):
        check_head(status, HEADERS | changes, "k")
    assert check_head(200, HEADERS, "k").size == 5


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_decoding(key: str) -> None:
    assert decoded(quote(key)) == key
    assert decoded(quote(key).replace("%20", "+")) == key


def test_a_named_version_cannot_be_shorter_than_it_was() -> None:
    headers = {"content-range": "bytes 0-2/3", "content-length": "3", "etag": '"x"'}
    assert check_range(206, headers, Asked("a", 0, 5))[1] == 3
    with pytest.raises(BadReply, match="asked for bytes=0-4"):
        check_range(206, headers, Asked("a", 0, 5, etag='"x"'))

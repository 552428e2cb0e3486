"""The quick way through a listing gives what the thorough one gives."""

from __future__ import annotations

from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import BadReply
from s3mount.model import ListPage, ObjectInfo
from s3mount.s3.xml import error_fields, page_of

NAMESPACE = " xmlns='http://s3.amazonaws.com/doc/2006-03-01/'"
WHEN = "2026-11-21T07:56:42.000Z"
WHEN_NS = 1795247802 * 10**9

keys = st.text(
    st.characters(exclude_categories=["Cs"], include_characters="+ %/&<\n"), min_size=1, max_size=20
)


def contents(key: str, size: int = 1, etag: str = "&quot;x&quot;", more: str = "") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{WHEN}</LastModified><ETag>{etag}</ETag>{more}"
        f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def listing(
    inner: str,
    rest: str = "<IsTruncated>false</IsTruncated>",
    *,
    namespace: str = NAMESPACE,
    encoded: bool = True,
) -> bytes:
    encoding = "<EncodingType>url</EncodingType>" if encoded else ""
    return f"<ListBucketResult{namespace}>{encoding}{inner}{rest}</ListBucketResult>".encode()


@given(
    st.lists(st.tuples(keys, st.integers(0, 5 * 2**40)), max_size=6),
    st.lists(keys, max_size=3),
    st.sampled_from([NAMESPACE, ""]),
    st.sampled_from(["", "<ChecksumType>FULL_OBJECT</ChecksumType>", "<Odd>&lt;</Odd>"]),
    st.sampled_from([None, "tok&en"]),
)
def test_both_ways_agree(
    found: list[tuple[str, int]],
    prefixes: list[str],
    namespace: str,
    more: str,
    token: str | None,
) -> None:
    objects = [contents(quote_plus(key), size, more=more) for key, size in found]
    common = "".join(
        f"<CommonPrefixes><Prefix>{quote_plus(each)}</Prefix></CommonPrefixes>" for each in prefixes
    )
    rest = f"<IsTruncated>{'true' if token else 'false'}</IsTruncated>" + (
        f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
    )
    page = ListPage([ObjectInfo(key, size, '"x"', WHEN_NS) for key, size in found], prefixes, token)
    orders = [
        "".join(objects) + common + rest,
        rest + common + "\n  ".join(objects),
        common.join([*objects[:1], "".join(objects[1:])]) + rest,
    ]
    for inner in orders[:2]:
        assert page_of(listing(inner, "", namespace=namespace), "it") == page
    if found:
        # Prefixes between the objects: the quick way must not overlook them.
        assert page_of(listing(orders[2], "", namespace=namespace), "it") == page


def test_a_listing_without_encoding_is_taken_as_it_is() -> None:
    inner = contents("a%20b+c", etag='"y"') + contents("x&amp;y")
    inner += "<CommonPrefixes><Prefix>p%2F/</Prefix></CommonPrefixes>"
    page = page_of(listing(inner, encoded=False), "it")
    assert [found.key for found in page.objects] == ["a%20b+c", "x&y"]
    assert [found.etag for found in page.objects] == ['"y"', '"x"']
    assert page.prefixes == ["p%2F/"]


def test_keys_that_are_no_utf8_are_left_out() -> None:
    inner = contents("a") + contents("b%FF") + contents("c")
    inner += "<CommonPrefixes><Prefix>%FE/</Prefix></CommonPrefixes>"
    page = page_of(listing(inner), "it")
    assert [found.key for found in page.objects] == ["a", "c"]
    assert page.prefixes == []


def test_a_storage_class_may_be_another_or_missing() -> None:
    inner = contents("a").replace("STANDARD", "GLACIER") + contents("b").replace("STANDARD", "")
    inner += contents("c").replace("<StorageClass>STANDARD</StorageClass>", "")
    classes = [found.storage_class for found in page_of(listing(inner), "it").objects]
    assert classes == ["GLACIER", "STANDARD", "STANDARD"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"text",
        b"\xff\xfe",
        b"<html/>",
        b"<Error><Code>InternalError</Code></Error>",
        listing("", ""),
        listing("", "<IsTruncated>perhaps</IsTruncated>"),
        listing("", "<IsTruncated>true</IsTruncated>"),
        listing("<CommonPrefixes/>"),
        listing(contents("a"))[:-20],
        listing(contents("a"))[:100],
        listing(contents("a").replace(WHEN, "yesterday")),
        listing(contents("a").replace("<Size>1<", "<Size>much<")),
        listing(contents("a").replace("<Key>a</Key>", "")),
    ],
)
def test_what_is_no_listing(body: bytes) -> None:
    with pytest.raises(BadReply, match="the answer to it is no listing"):
        page_of(body, "it")


def test_errors() -> None:
    body = f"<Error{NAMESPACE}><Code>NoSuchKey</Code><Message/></Error>".encode()
    assert error_fields(body) == {"Code": "NoSuchKey", "Message": ""}
    assert error_fields(b"<html/>") == {}
    assert error_fields(b"") == {}
    assert error_fields(b"\x00") == {}

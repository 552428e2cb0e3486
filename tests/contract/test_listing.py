"""`list_page`, the same for every way to a bucket."""

from __future__ import annotations

import pytest

from s3mount.model import ListPage
from s3mount.s3.bucket import Bucket
from tests.contract.conftest import Subject
from tests.contract.test_reading import ODD_KEYS

TREE = ["a", "a-", "a/", "a/1", "a/2", "a/b/3", "a0", "b/c/d", "z", "é", "日本/語"]


def keys_of(page: ListPage) -> list[str]:
    return [found.key for found in page.objects]


async def pages_of(bucket: Bucket, prefix: str, delimiter: str, max_keys: int) -> list[ListPage]:
    pages = [await bucket.list_page(prefix, delimiter=delimiter, max_keys=max_keys)]
    while (token := pages[-1].next_token) is not None:
        pages.append(
            await bucket.list_page(prefix, delimiter=delimiter, token=token, max_keys=max_keys)
        )
    return pages


async def test_an_empty_bucket(subject: Subject) -> None:
    page = await subject.bucket.list_page("", delimiter="/")
    assert (list(page.objects), list(page.prefixes), page.next_token) == ([], [], None)
    assert subject.metrics["requests.list"] == 1


async def test_keys_in_order(subject: Subject) -> None:
    subject.put(dict.fromkeys(TREE, b"x"))
    page = await subject.bucket.list_page("")
    assert keys_of(page) == sorted(TREE)
    assert (list(page.prefixes), page.next_token) == ([], None)


async def test_what_a_listing_tells_is_what_a_head_tells(subject: Subject) -> None:
    subject.put({"a": b"1", "b": b"22"})
    page = await subject.bucket.list_page("")
    assert list(page.objects) == [await subject.bucket.head("a"), await subject.bucket.head("b")]


@pytest.mark.parametrize(
    ("prefix", "keys", "prefixes"),
    [
        ("", ["a", "a-", "a0", "z", "é"], ["a/", "b/", "日本/"]),
        ("a", ["a", "a-", "a0"], ["a/"]),
        ("a/", ["a/", "a/1", "a/2"], ["a/b/"]),
        ("a/b", [], ["a/b/"]),
        ("a/b/", ["a/b/3"], []),
        ("日", [], ["日本/"]),
        ("nothing", [], []),
    ],
)
async def test_a_delimiter_rolls_up(
    subject: Subject, prefix: str, keys: list[str], prefixes: list[str]
) -> None:
    subject.put(dict.fromkeys(TREE, b"x"))
    page = await subject.bucket.list_page(prefix, delimiter="/")
    assert (keys_of(page), list(page.prefixes)) == (keys, prefixes)


@pytest.mark.parametrize("max_keys", [1, 2, 3, 1000])
@pytest.mark.parametrize(("prefix", "delimiter"), [("", ""), ("", "/"), ("a", ""), ("a/", "/")])
async def test_pages_make_the_whole(
    subject: Subject, prefix: str, delimiter: str, max_keys: int
) -> None:
    subject.put(dict.fromkeys(TREE, b"x"))
    whole = await subject.bucket.list_page(prefix, delimiter=delimiter)
    pages = await pages_of(subject.bucket, prefix, delimiter, max_keys)
    assert [found for page in pages for found in page.objects] == list(whole.objects)
    assert [found for page in pages for found in page.prefixes] == list(whole.prefixes)
    assert all(len(page.objects) + len(page.prefixes) <= max_keys for page in pages)
    lasts = [page.last for page in pages if page.last]
    assert lasts == sorted(set(lasts))


@pytest.mark.parametrize("start_after", ["", "a", "a-", "a/1", "a0", "b", "zz", "\U0010ffff"])
async def test_start_after_is_exclusive(subject: Subject, start_after: str) -> None:
    subject.put(dict.fromkeys(TREE, b"x"))
    page = await subject.bucket.list_page("", start_after=start_after)
    assert keys_of(page) == [key for key in sorted(TREE) if key > start_after]


@pytest.mark.parametrize(("start_after", "prefixes"), [("a", ["a/", "b/"]), ("a0", ["b/"])])
async def test_start_after_with_a_delimiter(
    subject: Subject, start_after: str, prefixes: list[str]
) -> None:
    subject.put(dict.fromkeys(TREE[:-1], b"x"))
    page = await subject.bucket.list_page("", delimiter="/", start_after=start_after)
    shown = ["a", "a-", "a0", "z", "é"]
    assert keys_of(page) == [key for key in shown if key > start_after]
    assert list(page.prefixes) == prefixes


async def test_start_after_within_a_prefix(subject: Subject) -> None:
    subject.put(dict.fromkeys(TREE, b"x"))
    page = await subject.bucket.list_page("a/", delimiter="/", start_after="a/1")
    assert (keys_of(page), list(page.prefixes)) == (["a/2"], ["a/b/"])


async def test_keys_of_any_kind_over_pages(subject: Subject) -> None:
    subject.put(dict.fromkeys(ODD_KEYS, b"x"))
    pages = await pages_of(subject.bucket, "", "", 3)
    assert [key for page in pages for key in keys_of(page)] == sorted(ODD_KEYS)
    for key in ODD_KEYS:
        page = await subject.bucket.list_page(key, max_keys=1)
        assert keys_of(page) == [key]
        if not key.isprintable():
            continue  # moto puts it into its XML as it is, and then cannot answer
        first = await subject.bucket.list_page("", start_after=key, max_keys=1)
        assert keys_of(first) == sorted(other for other in ODD_KEYS if other > key)[:1]
    rolled = await subject.bucket.list_page("", delimiter="/")
    assert list(rolled.prefixes) == ["/", "a/", "double/", "trailing/", "ünïcode/"]


@pytest.mark.long
async def test_more_than_a_thousand_keys(subject: Subject) -> None:
    keys = [f"k{n:04}" for n in range(1005)]
    subject.put(dict.fromkeys(keys, b""))
    pages = await pages_of(subject.bucket, "", "", 1000)
    assert [len(page.objects) for page in pages] == [1000, 5]
    assert [key for page in pages for key in keys_of(page)] == keys

"""`head` and `get_range`, the same for every way to a bucket."""

from __future__ import annotations

import hashlib

import pytest
import trio

from s3mount.errors import BucketNotFound, NotFound, VersionChanged
from s3mount.metrics import Metrics
from s3mount.model import ObjectInfo
from s3mount.s3.connect import build
from tests.contract.conftest import Filler, Subject, config_for

BODY = bytes(range(256)) * 40  # 10,240 bytes

ODD_KEYS = [
    "plain.txt",
    "with space",
    "-leading-dash",
    "plus+plus",
    "per%cent %41%2F",
    "und_er.dot~tilde",
    "a&b=c;d?e#f:g@h,i$j!k*l'm(n)o[p]q",
    'quote"<xml>&amp;',
    "back\\slash|pipe^caret`tick{brace}",
    "ünïcode/日本語",
    "emoji 🎉",
    "e\u0301 decomposed",
    "new\nline",
    "tab\tand\x01control\x7f",
    "/leading slash",
    "double//slash",
    "trailing/",
    "a/b/c/deep",
    "k" * 1024,
    "é" * 512,
]


def views(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(b"." * size)) for size in sizes]


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
async def test_keys_of_any_kind(subject: Subject, key: str) -> None:
    subject.put({key: BODY})
    info = await subject.bucket.head(key)
    assert info.key == key
    into = views(len(BODY))
    reply = await subject.bucket.get_range(key, 0, into, etag=info.etag)
    assert bytes(into[0]) == BODY
    assert reply.info == info
    page = await subject.bucket.list_page("")
    assert list(page.objects) == [info]


async def test_head_tells_what_the_object_is(subject: Subject) -> None:
    subject.put({"a": BODY})
    info = await subject.bucket.head("a")
    etag = f'"{hashlib.md5(BODY, usedforsecurity=False).hexdigest()}"'
    assert info == ObjectInfo("a", len(BODY), etag, info.mtime_ns)
    assert info.mtime_ns % 10**9 == 0
    assert info.mtime_ns > 1_700_000_000 * 10**9


@pytest.mark.parametrize(
    ("start", "sizes"),
    [
        (0, (len(BODY),)),
        (0, (1,)),
        (0, (4096, 4096, 4096)),
        (0, (len(BODY) - 1, 1, 1)),
        (1, (1, 1, 1)),
        (5000, (100, 5000)),
        (len(BODY) - 1, (1,)),
        (len(BODY) - 1, (10, 10)),
        (8192, (2048,)),
        (8192, (1024, 1024, 1024)),
    ],
)
async def test_ranges(subject: Subject, start: int, sizes: tuple[int, ...]) -> None:
    subject.put({"a": BODY})
    into, filled = views(*sizes), list[int]()
    reply = await subject.bucket.get_range("a", start, into, etag=None, on_filled=filled.append)
    want = BODY[start : start + sum(sizes)]
    got = b"".join(into)
    assert got == want.ljust(sum(sizes), b".")
    assert reply.received == len(want)
    assert reply.info == await subject.bucket.head("a")
    assert filled == [i for i in range(len(sizes)) if sum(sizes[:i]) < len(want)]
    assert subject.metrics["requests.get"] == 1
    assert subject.metrics["bytes.fetched"] == len(want)


async def test_a_large_body(subject: Subject) -> None:
    body = hashlib.shake_128(b"large").digest(9 * 1024 * 1024 + 17)
    subject.put({"a": body})
    into, filled = views(*[1024 * 1024] * 10), list[int]()
    reply = await subject.bucket.get_range("a", 0, into, etag=None, on_filled=filled.append)
    assert b"".join(into)[: reply.received] == body
    assert filled == list(range(10))


async def test_many_at_once(subject: Subject) -> None:
    subject.put({f"k{n}": bytes([n]) * 5000 for n in range(100)})

    async def read(n: int) -> None:
        into = views(5000)
        await subject.bucket.get_range(f"k{n}", 0, into, etag=None)
        assert bytes(into[0]) == bytes([n]) * 5000

    async with trio.open_nursery() as nursery:
        for n in range(100):
            nursery.start_soon(read, n)


async def test_an_empty_object(subject: Subject) -> None:
    subject.put({"a": b""})
    info = await subject.bucket.head("a")
    assert info.size == 0
    for etag in (None, info.etag):
        into, filled = views(10), list[int]()
        reply = await subject.bucket.get_range("a", 0, into, etag=etag, on_filled=filled.append)
        assert (reply.info, reply.received, filled) == (info, 0, [])
        assert bytes(into[0]) == b"." * 10
    with pytest.raises(VersionChanged):
        await subject.bucket.get_range("a", 0, views(10), etag='"other"')


@pytest.mark.parametrize("start", [len(BODY), len(BODY) + 1, 10**12])
async def test_behind_the_end(subject: Subject, start: int) -> None:
    subject.put({"a": BODY})
    into = views(10)
    with pytest.raises(VersionChanged):
        await subject.bucket.get_range("a", start, into, etag=None)
    assert bytes(into[0]) == b"." * 10


async def test_a_version_is_pinned(subject: Subject) -> None:
    subject.put({"a": BODY})
    info = await subject.bucket.head("a")
    subject.put({"a": b"other"})
    into = views(10)
    for start in (0, 3):
        with pytest.raises(VersionChanged):
            await subject.bucket.get_range("a", start, into, etag=info.etag)
    assert bytes(into[0]) == b"." * 10
    reply = await subject.bucket.get_range("a", 0, into, etag=None)
    assert reply.info.size == 5
    assert bytes(into[0]) == b"other....."
    assert subject.metrics["requests.head"] == 1


async def test_no_such_key(subject: Subject) -> None:
    subject.put({"a": b"a"})
    subject.delete("a")
    with pytest.raises(NotFound):
        await subject.bucket.head("a")
    for etag in (None, '"x"'):
        with pytest.raises(NotFound):
            await subject.bucket.get_range("a", 0, views(10), etag=etag)


@pytest.mark.parametrize("lean", [True, False])
async def test_no_such_bucket(filler: Filler | None, lean: bool) -> None:
    if filler is None:
        return  # the fake is one bucket, which is there
    config = config_for(filler.endpoint_url, "not-there", ca_bundle=filler.ca_path)
    bucket = await build(config, Metrics(), config.region, lean=lean)
    with pytest.raises(BucketNotFound, match="no bucket 'not-there'"):
        await bucket.list_page("", delimiter="/")
    with pytest.raises(BucketNotFound):
        await bucket.get_range("a", 0, views(10), etag=None)
    await bucket.aclose()

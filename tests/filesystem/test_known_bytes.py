"""Small files that are here are answered at once, and as right as any."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import BadHandle, ServerError
from s3mount.s3.fake import FakeBucket, Fault
from tests.filesystem.test_replaced import open_of
from tests.reference.rig import BLOCK, filesystem_of


async def test_a_small_file_that_is_here_is_answered_without_waiting(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=0.1)
    bucket.put_all({"small": b"s" * 100, "block": b"b" * BLOCK, "large": b"l" * (BLOCK + 1)})
    filesystem, _ = filesystem_of(bucket, nursery)
    for name, content in (("small", b"s" * 100), ("block", b"b" * BLOCK)):
        _, fh = await open_of(filesystem, name)
        assert filesystem.known_bytes(fh, 0, 2 * BLOCK) is None
        assert bytes(await filesystem.read(fh, 0, 2 * BLOCK)) == content
        for size in (len(content), 2 * BLOCK):
            known = filesystem.known_bytes(fh, 0, size)
            assert known is not None
            assert bytes(known) == content
        # What is not all of it goes the usual way, which sees what is worth reading ahead.
        assert filesystem.known_bytes(fh, 0, len(content) - 1) is None
        assert filesystem.known_bytes(fh, 1, 2 * BLOCK) is None
        filesystem.release(fh)
        with pytest.raises(BadHandle):
            filesystem.known_bytes(fh, 0, 1)
    _, fh = await open_of(filesystem, "large")
    await filesystem.read(fh, 0, 2 * BLOCK)
    assert filesystem.known_bytes(fh, 0, 2 * BLOCK) is None
    assert bucket.count("get") == 3


async def test_who_was_not_told_of_a_failure_is_told_although_it_is_here_by_now(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=0.1)
    bucket.put("a", b"a" * 100)
    filesystem, _ = filesystem_of(bucket, nursery)
    ino, fh = await open_of(filesystem, "a")
    bucket.inject("get", Fault(error=ServerError("no")))
    with pytest.raises(ServerError):
        await filesystem.read(fh, 0, 4096)
    assert bytes(await filesystem.read(filesystem.open(ino), 0, 4096)) == b"a" * 100
    assert filesystem.known_bytes(fh, 0, 4096) is None
    with pytest.raises(ServerError):
        await filesystem.read(fh, 0, 4096)
    assert filesystem.known_bytes(fh, 0, 4096) is not None


async def test_a_file_that_was_replaced_goes_the_usual_way(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=0.1)
    bucket.put("a", b"o" * 100)
    filesystem, _ = filesystem_of(bucket, nursery)
    _, fh = await open_of(filesystem, "a")
    bucket.put("a", b"n" * 100)
    assert filesystem.known_bytes(fh, 0, 4096) is None
    assert bytes(await filesystem.read(fh, 0, 4096)) == b"n" * 100
    known = filesystem.known_bytes(fh, 0, 4096)
    assert known is not None
    assert bytes(known) == b"n" * 100

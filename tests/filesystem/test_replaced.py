"""Files that are replaced while they are open: an inode is never bytes of two versions."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import BadHandle, IsADirectory, NoSuchFile, NotADirectory, Stale
from s3mount.filesystem import Filesystem
from s3mount.s3.fake import FakeBucket, Fault
from tests.reference.rig import BLOCK, filesystem_of

OLD, NEW = b"o" * (4 * BLOCK), b"n" * (4 * BLOCK)


def holding_a(nursery: trio.Nursery) -> tuple[FakeBucket, Filesystem]:
    """A bucket whose file "a" is the old one, and what it means."""
    bucket = FakeBucket(latency=0.1)
    bucket.put("a", OLD)
    filesystem, _ = filesystem_of(bucket, nursery)
    return bucket, filesystem


async def open_of(filesystem: Filesystem, name: str) -> tuple[int, int]:
    """The inode of a file in the root, and a handle."""
    attr, _ = await filesystem.lookup(1, name)
    assert attr is not None
    return attr.ino, filesystem.open(attr.ino)


async def test_a_file_replaced_before_it_is_read_is_the_new_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket, filesystem = holding_a(nursery)
    changed: list[int] = []

    async def on_changed(ino: int) -> None:
        changed.append(ino)

    filesystem.on_changed = on_changed
    ino, fh = await open_of(filesystem, "a")
    bucket.put("a", NEW)
    assert bytes(await filesystem.read(fh, 0, 10)) == NEW[:10]
    assert changed == [ino]
    assert (await open_of(filesystem, "a"))[0] == ino


async def test_nothing_of_a_longer_file_is_handed_out_before_the_kernel_knows_its_size(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket, filesystem = holding_a(nursery)
    told: list[tuple[int, int, bytes]] = []
    may_know = trio.Event()

    async def on_longer(*grown: Any) -> None:
        told.append(grown)
        await may_know.wait()

    filesystem.on_longer = on_longer
    ino, one = await open_of(filesystem, "a")
    _, other = await open_of(filesystem, "a")
    bucket.put("a", NEW + b"!")
    seen: list[bytes] = []

    async def read(fh: int, offset: int) -> None:
        seen.append(bytes(await filesystem.read(fh, offset, 10)))

    async with trio.open_nursery() as readers:
        readers.start_soon(read, one, 0)
        readers.start_soon(read, other, 2 * BLOCK)
        await trio.sleep(10.0)
        readers.start_soon(read, other, 0)
        await trio.sleep(10.0)
        assert (told, seen) == ([(ino, len(NEW) + 1, b"!")], [])
        may_know.set()
    assert seen == [NEW[:10]] * 3


async def test_a_longer_file_of_which_the_kernel_cannot_be_told_is_stale_and_opens_anew(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket, filesystem = holding_a(nursery)

    async def on_longer(*_: object) -> None:
        raise Stale("the kernel does not listen")

    filesystem.on_longer = on_longer
    ino, fh = await open_of(filesystem, "a")
    bucket.put("a", NEW + b"!")
    for _ in range(2):
        with pytest.raises(Stale):
            await filesystem.read(fh, 0, 10)
    assert not filesystem.is_current(ino)
    new, fh = await open_of(filesystem, "a")
    assert new != ino
    assert bytes(await filesystem.read(fh, len(NEW), 10)) == b"!"


@pytest.mark.parametrize("then", ["replaced", "deleted"])
async def test_a_file_replaced_after_it_was_read_is_stale_and_opens_anew(
    nursery: trio.Nursery, autojump_clock: MockClock, then: str
) -> None:
    bucket, filesystem = holding_a(nursery)
    ino, fh = await open_of(filesystem, "a")
    assert bytes(await filesystem.read(fh, 0, 10)) == OLD[:10]
    bucket.delete("a")
    if then == "replaced":
        bucket.put("a", NEW)
    with pytest.raises(Stale):
        await filesystem.read(fh, 3 * BLOCK, 10)
    assert bytes(await filesystem.read(fh, 0, 10)) == OLD[:10]
    attr, _ = await filesystem.lookup(1, "a")
    assert (attr is None) == (then == "deleted")
    if attr is not None:
        assert attr.ino != ino
        assert bytes(await filesystem.read(filesystem.open(attr.ino), 0, 10)) == NEW[:10]


async def test_a_file_deleted_or_cut_before_it_is_read_is_stale(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=0.1)
    bucket.put_all({"gone": OLD, "cut": OLD, "directory": OLD})
    filesystem, _ = filesystem_of(bucket, nursery)
    handles = [(await open_of(filesystem, name))[1] for name in ("gone", "cut", "directory")]
    bucket.delete("gone")
    bucket.put("cut", b"short")
    bucket.delete("directory")
    bucket.put("directory/file", NEW)
    for fh in handles:
        with pytest.raises(Stale):
            await filesystem.read(fh, 0, 10)


async def test_a_file_that_is_replaced_at_every_try_is_stale(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket, filesystem = holding_a(nursery)
    _, fh = await open_of(filesystem, "a")
    versions = iter(range(100))

    def replace(_request: object) -> Fault | None:
        bucket.put("a", NEW + bytes([next(versions)]))
        return None

    bucket.rule = replace
    with pytest.raises(Stale, match="again and again"):
        await filesystem.read(fh, 0, 10)


@pytest.mark.parametrize("seconds", [0.15, 0.3])  # before, and after, the other took the new one
async def test_readers_that_were_under_way_do_not_mix_versions(
    nursery: trio.Nursery, autojump_clock: MockClock, seconds: float
) -> None:
    """One reader's old bytes arrive while another one's request meets the new version."""
    bucket, filesystem = holding_a(nursery)
    _, slow = await open_of(filesystem, "a")
    _, quick = await open_of(filesystem, "a")
    bucket.bytes_per_second = BLOCK / seconds
    seen: list[bytes] = []

    async def read(fh: int, offset: int) -> None:
        try:
            seen.append(bytes(await filesystem.read(fh, offset, 10)))
        except Stale:
            seen.append(b"")

    async with trio.open_nursery() as readers:
        readers.start_soon(read, slow, 0)
        await trio.sleep(0.11)
        bucket.put("a", NEW)
        readers.start_soon(read, quick, 2 * BLOCK)
    assert len(seen) == 2
    assert len({each[:1] for each in seen if each}) == 1, seen


async def test_a_handle_of_the_old_version_hands_out_nothing_of_it_once_another_took_the_new(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=0.1)
    bucket.put("a", OLD)
    filesystem, tree = filesystem_of(bucket, nursery)
    ino, one = await open_of(filesystem, "a")
    _, other = await open_of(filesystem, "a")
    info = await bucket.head("a")
    content = filesystem._fetcher.content(info)
    filesystem._fetcher.request(content, 0, BLOCK, urgent=False)  # in memory, not handed out
    await trio.sleep(1.0)
    bucket.put("a", NEW)
    assert bytes(await filesystem.read(one, 2 * BLOCK, 10)) == NEW[:10]
    assert bytes(await filesystem.read(other, 0, 10)) == NEW[:10]
    node = tree.inodes.get(ino)
    assert node is not None
    assert node.was_read


async def test_what_does_not_exist_or_is_of_another_kind_is_refused(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    bucket.put_all({"file": b"x", "directory/file": b"y"})
    filesystem, _ = filesystem_of(bucket, nursery)
    ino, fh = await open_of(filesystem, "file")
    with pytest.raises(NotADirectory):
        filesystem.opendir(ino)
    with pytest.raises(NotADirectory):
        await filesystem.lookup(ino, "x")
    attr, _ = await filesystem.lookup(1, "directory")
    assert attr is not None
    with pytest.raises(IsADirectory):
        filesystem.open(attr.ino)
    with pytest.raises(NoSuchFile):
        filesystem.getattr(99)
    filesystem.release(fh)
    with pytest.raises(BadHandle):
        await filesystem.read(fh, 0, 1)
    with pytest.raises(BadHandle):
        await filesystem.entries(99, 0)

"""Names take no more than their share of memory, and are found again when somebody asks."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from s3mount.namespace import forgetting
from s3mount.namespace.forgetting import DIRECTORY, ENTRY, NODE
from s3mount.namespace.inodes import Node
from s3mount.namespace.tree import Tree
from s3mount.s3.fake import FakeBucket

FILES = 20
# A directory with its files, as one that is walked by.
WALKED = DIRECTORY + NODE + FILES * (ENTRY + NODE)


class Kernel:
    """Holds what it is given, and lets go of what it is asked to."""

    def __init__(self, nursery: trio.Nursery, *, directories: int, files: int = FILES) -> None:
        self.bucket = FakeBucket(latency=0.01)
        names = [f"d{d:03}/f{f:05}" for d in range(directories) for f in range(files)]
        self.bucket.put_all(dict.fromkeys(names, b"1"))
        self.tree = Tree(self.bucket, "", nursery, metadata_ttl=3600.0, negative_ttl=3600.0)
        self.tree.forgetting.let_go = self.let_go
        self.told: list[int] = []
        self.pending: list[tuple[int, list[str]]] = []
        self.opened: set[int] = set()

    def limit(self, size: float) -> None:
        self.tree.forgetting.limit(size, self.told.append)

    @property
    def size(self) -> int:
        return self.tree.forgetting.size

    def let_go(self, ino: int, names: list[str]) -> None:
        """It does so later, in a thread of its own."""
        self.pending.append((ino, names))

    def forget(self) -> None:
        """The kernel's FORGETs arrive."""
        while self.pending:
            ino, names = self.pending.pop(0)
            node = self.tree.inodes.get(ino)
            assert node is not None
            assert node.directory is not None
            for name in names:
                child = self.tree.inodes.get(node.directory.ino_of(name))
                if child is not None and child.ino not in self.opened:
                    self.tree.inodes.forget(child.ino, child.nlookup)

    async def find(self, name: str, parent: Node | None = None) -> Node:
        found = (await self.tree.lookup(parent or self.tree.inodes.root, name)).node
        assert found is not None
        self.tree.inodes.remember(found)
        return found

    async def read(self, node: Node) -> list[str]:
        """One pass of readdir, which gives the kernel every entry."""
        listing = self.tree.listing(node)
        while not listing.is_complete:
            await listing.extend()
        shown = list(self.tree.shown(node, listing.names, listing.not_before))
        assert [each.node.name for each in shown] == listing.names
        for each in shown:
            self.tree.inodes.remember(each.node)
        listing.close()
        return listing.names

    async def walk(self) -> dict[str, list[str]]:
        shown = {}
        for name in await self.read(self.tree.inodes.root):
            shown[name] = await self.read(await self.find(name))
            self.forget()
        return shown


async def test_a_walk_through_more_than_fits_shows_the_same_tree(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    kernel = Kernel(nursery, directories=100)
    everything = await kernel.walk()
    assert kernel.size > 100 * WALKED
    kernel = Kernel(nursery, directories=100)
    # Directories are not let go of: they, their rows in the root, and twenty with their files.
    limit = 101 * (DIRECTORY + NODE + ENTRY) + 20 * FILES * (ENTRY + NODE)
    kernel.limit(limit)
    largest = 0
    for _ in range(2):
        assert await kernel.walk() == everything
        largest = max(largest, kernel.size)
    # What is listed ahead of a walk is a page of 1,000 names at a time.
    assert largest < limit + 2 * 1000 * ENTRY
    assert kernel.size <= limit * (1 + forgetting.RESERVE)


async def test_what_was_used_longest_ago_goes_first_and_is_asked_for_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    kernel = Kernel(nursery, directories=10)
    nodes = [await kernel.find(f"d{d:03}") for d in range(10)]
    for node in nodes:
        await kernel.read(node)
    await kernel.read(nodes[0])  # the first one is in use again
    kernel.limit(kernel.size / 0.99)
    await kernel.find("f00001", nodes[9])
    known = kernel.bucket.count("list")
    kernel.limit(kernel.size * 0.9)
    kernel.forget()
    for d in (0, 9, 8, 7):
        await kernel.find("f00002", nodes[d])
    assert kernel.bucket.count("list") == known
    await kernel.find("f00002", nodes[1])
    assert kernel.bucket.count("list") == known + 1


async def test_what_is_in_use_stays_whatever_the_limit(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    kernel = Kernel(nursery, directories=4)
    nodes = [await kernel.find(f"d{d:03}") for d in range(4)]
    listed, looked_up, opened, last = nodes
    listing = kernel.tree.listing(listed)
    await listing.extend()
    file = await kernel.find("f00003", opened)
    kernel.opened.add(file.ino)
    info = file.info
    assert info is not None
    await kernel.read(looked_up)
    await kernel.read(last)
    kernel.limit(0)
    kernel.forget()
    known = kernel.bucket.count("list")
    # Somebody reads on, somebody has a file open, and the last one may well be used again.
    assert len(list(kernel.tree.shown(listed, listing.names, listing.not_before))) == FILES
    assert file.info == info
    assert len(await kernel.read(last)) == FILES
    assert kernel.bucket.count("list") == known
    assert looked_up.directory is not None
    assert len(looked_up.directory) == 0
    listing.close()
    kernel.opened.clear()
    await kernel.read(looked_up)
    kernel.forget()
    assert listed.directory is not None
    assert len(listed.directory) == 0


async def test_a_walk_costs_no_more_beside_a_directory_that_takes_it_all(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What is listed ahead of the walk is still there when the walk comes to it."""
    costs = []
    for limit in (1e9, 1e6):
        kernel = Kernel(nursery, directories=100)
        kernel.bucket.put_all({f"big/{n:06}": b"" for n in range(20_000)})
        kernel.limit(limit)
        big = await kernel.find("big")
        listing = kernel.tree.listing(big)
        while not listing.is_complete:
            await listing.extend()
        before = kernel.bucket.count("list")
        for d in range(100):
            await kernel.read(await kernel.find(f"d{d:03}"))
            kernel.forget()
        costs.append(kernel.bucket.count("list") - before)
    assert costs[1] <= costs[0] + 2


async def test_what_is_listed_ahead_of_a_walk_stays_longer_than_what_was_walked(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the kernel is asked for a few files at a time, and is long in letting go."""
    monkeypatch.setattr(forgetting, "ASKED_MOST", 100)
    costs = []
    for limit in (1e9, 1001 * (DIRECTORY + NODE + ENTRY) + 200 * 5 * (ENTRY + NODE)):
        kernel = Kernel(nursery, directories=1000, files=5)
        kernel.bucket.max_keys = 100
        kernel.limit(limit)
        for number, name in enumerate(await kernel.read(kernel.tree.inodes.root)):
            assert len(await kernel.read(await kernel.find(name))) == 5
            if number % 10 == 9:
                kernel.forget()
        costs.append(kernel.bucket.count("list"))
    # 68 to 73; when pages are forgotten before the walk comes to them, 86 and more.
    assert costs[1] < costs[0] * 1.15


async def test_what_the_kernel_forgot_by_itself_goes_without_asking(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    kernel = Kernel(nursery, directories=30)
    for name in await kernel.read(kernel.tree.inodes.root):
        node = await kernel.find(name)
        await kernel.read(node)
        assert node.directory is not None
        for child in node.directory.entries.names:
            ino = node.directory.ino_of(child)
            kernel.tree.inodes.forget(ino, 1)
        kernel.tree.inodes.forget(node.ino, 2)
    kernel.limit(40 * (DIRECTORY + ENTRY))
    assert kernel.pending == []
    assert kernel.size <= 40 * (DIRECTORY + ENTRY)
    assert len(await kernel.walk()) == 30


async def test_a_large_directory_is_let_go_of_in_parts(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    files = 3 * forgetting.ASKED_MOST
    kernel = Kernel(nursery, directories=2, files=files)
    nodes = [await kernel.find(f"d{d:03}") for d in range(2)]
    await kernel.read(nodes[0])
    await kernel.find("f00000", nodes[1])
    kernel.limit(100_000)
    asked = [len(names) for _, names in kernel.pending]
    assert asked == [forgetting.ASKED_MOST]
    kernel.forget()
    assert nodes[0].directory is not None
    assert len(nodes[0].directory) == 0
    assert len(await kernel.read(nodes[0])) == files


async def test_the_size_is_told(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    kernel = Kernel(nursery, directories=2, files=9000)
    kernel.limit(1e9)
    for d in range(2):
        await kernel.read(await kernel.find(f"d{d:03}"))
    # With what was handed out since the last one was told.
    await kernel.read(kernel.tree.inodes.root)
    assert len(kernel.told) >= 2
    assert abs(kernel.told[-1] - kernel.size) <= forgetting.TOLD

"""Walks through a tree over a bucket in memory: what each costs in requests and round trips."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.errors import ServerError
from s3mount.namespace.ahead import IN_FLIGHT_MOST, LOOKED_INTO_KEPT
from s3mount.namespace.inodes import Node
from s3mount.namespace.tree import Tree
from s3mount.s3.fake import FakeBucket, Fault, Request

LATENCY = 0.025

Visit = Callable[[Node], Awaitable[list[Node]]]


class Walker:
    """Lists directories as a program does, and tells what the bucket was asked."""

    def __init__(
        self,
        keys: Iterable[str],
        nursery: trio.Nursery,
        *,
        ttl: float = 60.0,
        prefix: str = "",
    ) -> None:
        self.bucket = FakeBucket(latency=LATENCY)
        self.bucket.put_all({prefix + key: b"1" for key in keys})
        self.tree = Tree(self.bucket, prefix, nursery, metadata_ttl=ttl, negative_ttl=ttl)
        self.root = self.tree.inodes.root
        self.files: list[str] = []

    @property
    def lists(self) -> int:
        return sum(request.kind == "list" for request in self.bucket.requests)

    async def visit(self, node: Node) -> list[Node]:
        """List one directory; returns its subdirectories."""
        listing = self.tree.listing(node)
        while not listing.is_complete:
            await listing.extend()
        below = []
        assert node.directory is not None
        for shown in self.tree.shown(node, listing.names, listing.not_before):
            self.tree.inodes.remember(shown.node)
            if shown.file is not None:
                self.files.append(node.directory.prefix + shown.node.name)
            else:
                below.append(shown.node)
        assert len(below) + len(self.files) >= len(listing.names)
        return below

    async def depth_first(self, node: Node | None = None) -> None:
        for below in await self.visit(node or self.root):
            await self.depth_first(below)

    async def breadth_first(self) -> None:
        level = [self.root]
        while level:
            level = [below for node in level for below in await self.visit(node)]


# --- any tree, any order ------------------------------------------------------------------


def shown(world: Iterable[str], prefix: str) -> list[str]:
    """What a directory holds, by a look at every key: names as `ls -F` marks them."""
    below = {key[len(prefix) :] for key in world if key.startswith(prefix) and key != prefix}
    directories = {suffix.partition("/")[0] for suffix in below if "/" in suffix}
    files = {suffix for suffix in below if "/" not in suffix} - directories
    return sorted(files | {name + "/" for name in directories}, key=lambda name: name + "/")


programs = st.lists(
    st.tuples(
        st.sampled_from(["depth_first", "breadth_first", "visit", "lookup", "change", "pause"]),
        st.integers(0, 1000),
    ),
    max_size=12,
)
worlds = st.sets(
    st.lists(st.sampled_from(("a", "a-", "a0", "b", "é")), min_size=1, max_size=4).map("/".join),
    max_size=40,
)


async def check(walker: Walker, keys: set[str]) -> None:
    """Every directory holds what the bucket does."""
    for prefix in sorted({key[: key.rfind("/") + 1] for key in keys}):
        node = walker.root
        for name in prefix.split("/")[:-1]:
            found = (await walker.tree.lookup(node, name)).node
            assert found is not None
            walker.tree.inodes.remember(found)
            node = found
        listing = walker.tree.listing(node)
        while not listing.is_complete:
            await listing.extend()
        directory = node.directory
        assert directory is not None
        marked = [name + "/" if directory.is_directory(name) else name for name in listing.names]
        assert marked == shown(keys, prefix)


async def perform(walker: Walker, kind: str, number: int) -> None:
    """One step of a program."""
    below = await walker.visit(walker.root)
    if kind == "visit" and below:
        await walker.visit(below[number % len(below)])
    elif kind == "lookup" and below:
        await walker.tree.lookup(below[number % len(below)], "ab"[number % 2])
    elif kind == "pause":
        await trio.sleep(number / 10)
    elif kind in {"depth_first", "breadth_first"}:
        await getattr(walker, kind)()


def change(walker: Walker, keys: set[str], key: str) -> None:
    """Put what is not there, delete what is."""
    keys ^= {key}
    if key in keys:
        walker.bucket.put(key, b"2")
    else:
        walker.bucket.delete(key)


@given(world=worlds, other=worlds, program=programs, max_keys=st.integers(3, 12))
@settings(max_examples=150)
def test_the_same_tree_is_found_with_all_that_is_listed_ahead(
    world: set[str], other: set[str], program: list[tuple[str, int]], max_keys: int
) -> None:
    """Before any change at every moment; after changes, once the TTL is over."""

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            walker = Walker(world, nursery)
            walker.bucket.max_keys = max_keys
            keys = set(world)
            some = sorted(world | other | {"a"})
            for kind, number in program:
                if kind == "change":
                    change(walker, keys, some[number % len(some)])
                else:
                    await perform(walker, kind, number)
                if all(kind != "change" for kind, _ in program):
                    await check(walker, keys)
            await trio.sleep(61)
            await check(walker, keys)
            await walker.depth_first()
            await check(walker, keys)
            nursery.cancel_scope.cancel()

    trio.run(run, clock=MockClock(autojump_threshold=0))


# --- what walks cost ----------------------------------------------------------------------


def tree_keys(directories: int, files: int) -> list[str]:
    return [f"d{d:05}/f{f:05}" for d in range(directories) for f in range(files)]


def deep_keys(fan: int, depth: int) -> list[str]:
    """A file in every directory of a tree."""
    level, keys = [""], []
    for _ in range(depth):
        level = [f"{prefix}{i:02}/" for prefix in level for i in range(fan)]
        keys += [f"{prefix}file" for prefix in level]
    return keys


async def test_find_over_a_small_tree(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    keys = tree_keys(200, 10)
    walker = Walker(keys, nursery)
    started = trio.current_time()
    await walker.depth_first()
    assert walker.files == keys
    assert walker.lists <= 5
    assert trio.current_time() - started <= 4 * LATENCY + 1e-6


@pytest.mark.parametrize("prefix", ["", "top/", "a/b/"])
async def test_find_over_many_directories(
    nursery: trio.Nursery, autojump_clock: MockClock, prefix: str
) -> None:
    keys = tree_keys(3000, 10)
    walker = Walker(keys, nursery, prefix=prefix)
    started = trio.current_time()
    await walker.depth_first()
    assert walker.files == [prefix + key for key in keys]
    # 30 flat pages tell all, 31 as they overlap a little; 3 delimited ones list the root, and one
    # the first directory. None is sent into a gap, in whatever order the pages land.
    assert walker.lists <= 35
    assert trio.current_time() - started <= 9 * LATENCY + 1e-6


async def test_directories_with_many_files_are_listed_one_by_one_in_parallel(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    keys = tree_keys(40, 1000)
    walker = Walker(keys, nursery)
    started = trio.current_time()
    await walker.depth_first()
    assert walker.files == keys
    assert walker.lists <= 40 + 6
    assert trio.current_time() - started <= 22 * LATENCY


@pytest.mark.parametrize("walk", ["depth_first", "breadth_first"])
@pytest.mark.parametrize(("fan", "depth"), [(6, 4), (40, 2), (2, 9), (1000, 1)])
async def test_deep_trees(
    nursery: trio.Nursery, autojump_clock: MockClock, walk: str, fan: int, depth: int
) -> None:
    keys = deep_keys(fan, depth)
    walker = Walker(keys, nursery)
    started = trio.current_time()
    await getattr(walker, walk)()
    assert sorted(walker.files) == sorted(keys)
    assert walker.lists <= 8 + len(keys) // 300
    assert trio.current_time() - started <= 12 * LATENCY


async def test_a_random_order_costs_a_request_each(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    walker = Walker(tree_keys(600, 3), nursery)
    below = await walker.visit(walker.root)
    before = walker.lists
    random.Random(1).shuffle(below)
    for node in below:
        assert node.directory is not None
        # As if the directory were far from all others: what came by chance is forgotten.
        node.directory.known.forget("", "\U0010ffff")
        await walker.visit(node)
    assert walker.lists - before <= len(below) * 1.05


async def test_one_directory_alone_is_listed_alone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    walker = Walker(tree_keys(50, 3), nursery)
    below = await walker.visit(walker.root)
    for node in below[7], below[30], below[12]:
        before = walker.lists
        await walker.visit(node)
        assert walker.lists == before + 1


async def test_requests_in_flight_are_bounded(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    walker = Walker(tree_keys(5000, 5), nursery)
    in_flight: list[int] = []

    async def sample() -> None:
        while True:
            in_flight.append(len(walker.tree.ahead._flights))
            await trio.sleep(LATENCY / 3)

    nursery.start_soon(sample)
    await walker.depth_first()
    nursery.cancel_scope.cancel()
    assert 2 <= max(in_flight) <= IN_FLIGHT_MOST


async def test_a_walk_that_is_broken_off_lists_no_more(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    walker = Walker(tree_keys(5000, 5), nursery)
    for node in (await walker.visit(walker.root))[:20]:
        await walker.visit(node)
    await trio.sleep(10 * LATENCY)
    before = walker.lists
    await trio.sleep(5)
    assert walker.lists == before
    assert walker.tree.ahead._flights == []


async def test_pages_ahead_that_fail_are_no_harm(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    def flat_fails(request: Request) -> Fault | None:
        if request.kind == "list" and not request.delimiter:
            return Fault(ServerError("broken"))
        return None

    keys = tree_keys(50, 3)
    walker = Walker(keys, nursery)
    walker.bucket.rule = flat_fails
    await walker.depth_first()
    assert walker.files == keys


async def test_a_page_ahead_that_hangs_delays_a_listing_by_a_second_at_most(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    def flat_hangs(request: Request) -> Fault | None:
        if request.kind == "list" and not request.delimiter:
            return Fault(latency=60.0)
        return None

    walker = Walker(tree_keys(5, 3), nursery)
    walker.bucket.rule = flat_hangs
    started = trio.current_time()
    await walker.depth_first()
    assert trio.current_time() - started < 5 * 1.1
    assert len(walker.files) == 15


async def test_with_a_ttl_of_zero_nothing_is_listed_ahead(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    walker = Walker(tree_keys(50, 3), nursery, ttl=0.0)
    await walker.depth_first()
    assert walker.lists == 51


async def test_a_walk_after_the_ttl_is_as_quick_as_the_first(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    keys = tree_keys(200, 10)
    walker = Walker(keys, nursery)
    await walker.depth_first()
    first = walker.lists
    await trio.sleep(1000)
    walker.files.clear()
    await walker.depth_first()
    assert walker.files == keys
    assert walker.lists <= 2 * first + 1


async def test_lookups_in_dark_directories_take_a_small_tree_with_the_second(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    walker = Walker(tree_keys(50, 3), nursery)
    below = await walker.visit(walker.root)
    walker.bucket.requests.clear()
    for node in below[5:50:7]:
        assert (await walker.tree.lookup(node, "f00001")).node is not None
        await trio.sleep(2 * LATENCY)
    assert walker.lists == 3


async def test_lookups_in_a_large_tree_cost_one_page_ahead(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    walker = Walker(tree_keys(1000, 30), nursery)
    below = await walker.visit(walker.root)
    walker.bucket.requests.clear()
    places = random.Random(2).sample(below[100:], 200)
    for node in places:
        assert (await walker.tree.lookup(node, "f00001")).node is not None
    assert walker.lists <= len(places) + 3


async def test_what_was_looked_into_is_remembered_within_bounds(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    walker = Walker([f"{d:03}/x/f" for d in range(2 * LOOKED_INTO_KEPT)], nursery)
    for node in await walker.visit(walker.root):
        inner = (await walker.tree.lookup(node, "x")).node
        assert inner is not None
        await walker.tree.lookup(inner, "f")
    assert len(walker.tree.ahead._looked_into) <= LOOKED_INTO_KEPT


async def test_a_name_behind_thousands_that_sort_just_before_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Requests start behind the ASCII neighbours of a name; other names may stand between."""
    walker = Walker([*(f"d/a\u65e5{n:04}" for n in range(3000)), "d/b"], nursery)
    node = (await walker.tree.lookup(walker.root, "d")).node
    assert node is not None
    assert (await walker.tree.lookup(node, "b")).node is not None
    assert (await walker.tree.lookup(node, "c")).node is None
    assert walker.lists <= 6

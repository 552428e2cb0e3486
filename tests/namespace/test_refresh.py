"""What is in use is listed anew before it is too old, so that nobody waits for it."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import ServerError
from s3mount.namespace import refresh
from s3mount.namespace.inodes import Node
from s3mount.namespace.refresh import IN_FLIGHT_MOST
from s3mount.namespace.tree import Tree
from s3mount.s3.fake import FakeBucket, Fault

LATENCY = 0.025
TTL = 60.0


def rig(
    keys: list[str], nursery: trio.Nursery, *, ttl: float = TTL, negative_ttl: float | None = None
) -> tuple[FakeBucket, Tree]:
    bucket = FakeBucket(latency=LATENCY)
    bucket.put_all(dict.fromkeys(keys, b"1"))
    negative = ttl if negative_ttl is None else negative_ttl
    return bucket, Tree(bucket, "", nursery, metadata_ttl=ttl, negative_ttl=negative)


async def find(tree: Tree, *names: str) -> Node:
    """The node of a path; asks as the kernel would."""
    node = tree.inodes.root
    for name in names:
        found = (await tree.lookup(node, name)).node
        assert found is not None
        tree.inodes.remember(found)
        node = found
    return node


async def names(tree: Tree, node: Node) -> list[str]:
    """One pass of readdir through a directory."""
    listing = tree.listing(node)
    while not listing.is_complete:
        await listing.extend()
    shown = tree.shown(node, listing.names, listing.not_before)
    assert [one.node.name for one in shown] == listing.names
    return listing.names


async def waited(tree: Tree, node: Node) -> float:
    """Seconds that a listing took."""
    started = trio.current_time()
    await names(tree, node)
    return trio.current_time() - started


async def test_what_is_used_never_stops_for_a_listing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket, tree = rig([f"d/{n}" for n in range(10)], nursery)
    node = await find(tree, "d")
    await names(tree, node)
    before = bucket.count("list")
    for _ in range(100):  # ten minutes
        await trio.sleep(6)
        assert await waited(tree, node) == 0
    # One page a use that comes behind 45 s, and so 48.
    assert bucket.count("list") - before == 600 // 48


@pytest.mark.parametrize("keys", [["d/a", "d/c"], [f"d/{n:04}" for n in range(3000)]])
async def test_a_name_that_is_looked_for_in_vain_is_not_waited_for(
    nursery: trio.Nursery, autojump_clock: MockClock, keys: list[str]
) -> None:
    """Whether its directory is known to its end or around the name alone."""
    bucket, tree = rig(keys, nursery, negative_ttl=5.0)
    node = await find(tree, "d")
    assert (await tree.lookup(node, "b")).node is None
    before = bucket.count("list")
    for _ in range(100):
        await trio.sleep(0.6)
        started = trio.current_time()
        assert (await tree.lookup(node, "b")).node is None
        assert trio.current_time() == started
    # One page a use that comes behind 3.75 s, and so 4.2; of answers that took 0.025 s.
    assert bucket.count("list") - before <= 60 // 4
    bucket.put("d/b", b"")
    await trio.sleep(4)
    await tree.lookup(node, "b")
    await trio.sleep(0.1)
    assert (await tree.lookup(node, "b")).node is not None


async def test_what_nobody_uses_expires(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bucket, tree = rig([f"d/{n}" for n in range(10)], nursery)
    node = await find(tree, "d")
    await names(tree, node)
    before = bucket.count("list")
    await trio.sleep(40)
    await names(tree, node)
    await trio.sleep(1000)
    assert bucket.count("list") == before
    assert await waited(tree, node) > 0


async def test_an_open_is_a_use(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bucket, tree = rig([f"d/{n}" for n in range(10)], nursery)
    node = await find(tree, "d", "3")
    await names(tree, await find(tree, "d"))
    await trio.sleep(50)
    before = bucket.count("list")
    tree.used(node)
    tree.used(tree.inodes.root)  # which is nothing's name
    await trio.sleep(1)
    assert bucket.count("list") == before + 1
    assert tree.ttl(node) > 50
    assert node.parent is not None
    assert node.parent.directory is not None
    node.parent.directory.forget("3")
    tree.used(node)  # in doubt: the next lookup asks
    assert bucket.count("list") == before + 1


async def test_what_changed_is_told_and_its_name_lost(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket, tree = rig(["d/a", "d/b", "d/c"], nursery)
    lost: list[tuple[int, list[str]]] = []
    tree.on_lost = lambda ino, names: lost.append((ino, names))
    node = await find(tree, "d")
    old = await find(tree, "d", "b")
    await names(tree, node)
    bucket.put("d/b", b"another")
    bucket.delete("d/c")
    bucket.put("d/new", b"")
    await trio.sleep(50)
    assert await names(tree, node) == ["a", "b", "c"]
    await trio.sleep(1)
    assert [(ino, sorted(names)) for ino, names in lost] == [(node.ino, ["b", "c"])]
    assert await names(tree, node) == ["a", "b", "new"]
    assert (await find(tree, "d", "b")).ino != old.ino


async def test_small_directories_are_listed_with_their_neighbours(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket, tree = rig([f"d{d:03}/f{f}" for d in range(200) for f in range(10)], nursery)
    nodes = [await find(tree, name) for name in await names(tree, tree.inodes.root)]
    for node in nodes:
        await names(tree, node)
    await trio.sleep(50)
    before = bucket.count("list")
    for node in nodes:
        await names(tree, node)
        await trio.sleep(0.02)  # what a program does with ten files
    # The root, and two flat pages of 1,000 keys, one more at an edge.
    assert bucket.count("list") - before <= 4
    await trio.sleep(10)
    assert sum([await waited(tree, node) for node in nodes]) == 0


async def test_a_large_directory_is_listed_page_by_page_as_it_is_used(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket, tree = rig([f"d/{n:05}" for n in range(5000)], nursery)
    node = await find(tree, "d")
    await names(tree, node)
    await trio.sleep(50)
    before = bucket.count("list")
    for n in range(1000, 3000):  # a grep that is in the middle of it
        await tree.lookup(node, f"{n:05}")
        await trio.sleep(0.001)
    assert 2 <= bucket.count("list") - before <= 4
    for request in bucket.requests[before:]:
        assert request.delimiter


async def test_requests_are_bounded(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bucket, tree = rig([f"d{d:02}/x/f{f}" for d in range(50) for f in range(10)], nursery)
    nodes = [await find(tree, f"d{d:02}") for d in range(50)]
    for node in nodes:
        await names(tree, node)
    await trio.sleep(50)
    bucket.max_in_flight = 0
    for node in nodes:
        await names(tree, node)
    await trio.sleep(1)
    assert 1 <= bucket.max_in_flight <= IN_FLIGHT_MOST


@pytest.mark.parametrize("extra", [[], ["d/below/x"]])
async def test_a_refresh_that_fails_is_no_harm_and_not_repeated_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock, extra: list[str]
) -> None:
    bucket, tree = rig([*(f"d/{n}" for n in range(10)), *extra], nursery)
    node = await find(tree, "d")
    await names(tree, node)
    await trio.sleep(50)
    before = bucket.count("list")
    bucket.rule = lambda _request: Fault(ServerError("broken"))
    for _ in range(80):
        assert await waited(tree, node) == 0
        await trio.sleep(0.1)
    assert bucket.count("list") == before + 1
    bucket.rule = None
    await trio.sleep(3)
    assert await waited(tree, node) > 0


async def test_a_bug_in_a_refresh_does_not_end_the_mount(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bucket, tree = rig(["top/a/1", "top/2"], nursery)
    node = await find(tree, "top")
    await names(tree, node)
    await trio.sleep(50)

    def bug(_request: object) -> Fault:
        raise ZeroDivisionError

    bucket.rule = bug
    await names(tree, node)
    await trio.sleep(1)
    assert "this is a bug" in caplog.text


@pytest.mark.parametrize("ttl", [0.0, 0.5, math.inf])
async def test_ttls_that_need_none(
    nursery: trio.Nursery, autojump_clock: MockClock, ttl: float
) -> None:
    bucket, tree = rig(["d/a", "d/b"], nursery, ttl=ttl)
    node = await find(tree, "d")
    await names(tree, node)
    before = bucket.count("list")
    await trio.sleep(0.45)
    asks = ttl == 0.0
    await names(tree, node)
    await trio.sleep(1)
    assert bucket.count("list") - before == asks
    assert tree.refresher.ask_again_in(ttl) == ttl


async def test_the_kernel_asks_again_in_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    _, tree = rig([], nursery)
    assert tree.refresher.ask_again_in(60.0) == 45.0
    assert tree.refresher.ask_again_in(20.0) == 5.0
    assert tree.refresher.ask_again_in(15.0) == 3.75
    assert tree.refresher.ask_again_in(1.0) == 1.0
    _, tree = rig([], nursery, negative_ttl=5.0)
    assert tree.refresher.ask_again_in(5.0, is_absent=True) == 3.75


async def test_what_was_tried_is_remembered_within_bounds(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "TRIED_KEPT", 5)
    _, tree = rig([f"d{d:02}/x/f" for d in range(20)], nursery)
    nodes = [await find(tree, f"d{d:02}") for d in range(20)]
    for node in nodes:
        await names(tree, node)
    await trio.sleep(50)
    for node in nodes:
        await names(tree, node)
        await trio.sleep(1)
    assert len(tree.refresher._tried) == 5

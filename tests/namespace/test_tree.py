"""The tree over a bucket in memory: what each question costs, and how fresh its answer is."""

from __future__ import annotations

import math
import random

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import AccessDenied, BadReply, ServerError
from s3mount.model import ListPage
from s3mount.namespace.inodes import Node
from s3mount.namespace.pages import just_before
from s3mount.namespace.readdir import Listing
from s3mount.namespace.tree import LOOKED_FURTHER, Found, Tree
from s3mount.s3.fake import FakeBucket, Fault

THOUSAND = [f"file-{number:04}" for number in range(1000)]


# Not 0: with a TTL of 0 it counts whether a request was sent before or after the question.
LATENCY = 2**-10


def tree_of(
    bucket: FakeBucket,
    nursery: trio.Nursery,
    *,
    prefix: str = "",
    metadata_ttl: float = 60.0,
    negative_ttl: float = 5.0,
) -> Tree:
    return Tree(bucket, prefix, nursery, metadata_ttl=metadata_ttl, negative_ttl=negative_ttl)


def bucket_of(*keys: str, latency: float = LATENCY, max_keys: int = 1000) -> FakeBucket:
    bucket = FakeBucket(latency=latency, max_keys=max_keys)
    bucket.put_all({key: key.encode() for key in keys})
    return bucket


async def walk(tree: Tree, *names: str) -> Node:
    """The node at the end of a path, remembered on the way as the kernel does."""
    node = tree.inodes.root
    for name in names:
        found = (await tree.lookup(node, name)).node
        assert found is not None, name
        tree.inodes.remember(found)
        node = found
    return node


async def names_of(listing: Listing) -> list[str]:
    while not listing.is_complete:
        await listing.extend()
    return listing.names


# --- what a lookup costs ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("blue", "file"), ("green", "directory"), ("red", None), ("a", None), ("z", None)],
)
async def test_a_lookup_in_the_dark_is_one_list(
    nursery: trio.Nursery, autojump_clock: MockClock, name: str, kind: str | None
) -> None:
    bucket = bucket_of("blue", "green/leaf", "yellow")
    tree = tree_of(bucket, nursery)
    found = await tree.lookup(tree.inodes.root, name)
    assert kind_of(found) == kind
    assert [request.kind for request in bucket.requests] == ["list"]


def kind_of(found: Found) -> str | None:
    if found.node is None:
        return None
    return "file" if found.node.info is not None else "directory"


@pytest.mark.parametrize("order", ["sorted", "reversed", "shuffled"])
async def test_a_thousand_stats_in_any_order_are_two_lists(
    nursery: trio.Nursery, autojump_clock: MockClock, order: str
) -> None:
    bucket = bucket_of(*(f"d/{name}" for name in THOUSAND))
    tree = tree_of(bucket, nursery, prefix="d/")
    names = list(THOUSAND)
    if order == "reversed":
        names.reverse()
    elif order == "shuffled":
        random.Random(3).shuffle(names)
    for name in names:
        assert kind_of(await tree.lookup(tree.inodes.root, name)) == "file"
    assert bucket.count("list") <= 2
    assert bucket.count("head") == 0


async def test_names_in_order_wait_for_the_first_page_alone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    names = [f"file-{number:04}" for number in range(3000)]
    bucket = bucket_of(*(f"d/{name}" for name in names), latency=0.025)
    tree = tree_of(bucket, nursery, prefix="d/")
    started = trio.current_time()
    for name in names:
        assert kind_of(await tree.lookup(tree.inodes.root, name)) == "file"
        await trio.sleep(0.0001)  # the program's own time
    assert trio.current_time() - started == pytest.approx(0.025 + 3000 * 0.0001)
    assert [request.kind for request in bucket.requests] == ["list"] * 3


async def test_who_comes_to_the_end_of_a_page_waits_for_the_one_on_its_way(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    names = [f"file-{number:04}" for number in range(1500)]
    bucket = bucket_of(*(f"d/{name}" for name in names), latency=0.025)
    tree = tree_of(bucket, nursery, prefix="d/")
    for name in names:  # in no time: the second page is asked for, and not there yet
        assert kind_of(await tree.lookup(tree.inodes.root, name)) == "file"
    assert trio.current_time() == pytest.approx(2 * 0.025)
    assert [request.kind for request in bucket.requests] == ["list"] * 2


@pytest.mark.parametrize("order", ["a part of the page", "far apart", "backwards", "shuffled"])
async def test_no_page_is_listed_ahead_of_other_lookups(
    nursery: trio.Nursery, autojump_clock: MockClock, order: str
) -> None:
    names = [f"file-{number:04}" for number in range(3000)]
    bucket = bucket_of(*(f"d/{name}" for name in names))
    tree = tree_of(bucket, nursery, prefix="d/")
    asked = {
        "a part of the page": names[: 999 - LOOKED_FURTHER],
        "far apart": names[:1000:4],
        "backwards": [names[0], *reversed(names[:1000])],
        "shuffled": [names[0], *random.Random(5).sample(names[1:1000], 999)],
    }[order]
    for name in asked:
        assert kind_of(await tree.lookup(tree.inodes.root, name)) == "file"
        await trio.sleep(0.0001)
    # The page that told of the last name does not tell whether it is a directory, too.
    assert bucket.count("list") == (2 if names[999] in asked else 1)


async def test_a_thousand_misses_are_two_lists(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of(*THOUSAND[::2])
    tree = tree_of(bucket, nursery)
    numbers = random.Random(4)
    for name in numbers.sample(THOUSAND[1::2], 500):
        assert (await tree.lookup(tree.inodes.root, name)).node is None
    assert bucket.count("list") <= 2


async def test_a_directory_behind_a_thousand_lookalikes_is_found(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("name/leaf", *(f"name.{number:04}" for number in range(2500)))
    tree = tree_of(bucket, nursery)
    assert kind_of(await tree.lookup(tree.inodes.root, "name")) == "directory"
    assert bucket.count("list") == 2
    probe = bucket.requests[-1]
    assert (probe.key, probe.delimiter) == ("name/", "")


async def test_a_file_before_a_thousand_lookalikes_is_found(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("name", *(f"name.{number:04}" for number in range(2500)))
    tree = tree_of(bucket, nursery)
    assert kind_of(await tree.lookup(tree.inodes.root, "name")) == "file"
    assert bucket.count("list") == 2


async def test_names_that_no_path_can_show_cost_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a")
    tree = tree_of(bucket, nursery, prefix="p/" * 500)
    for name in ("n" * 256, "x\0y", "", "k" * 100):  # the last makes a key of 1,100 bytes
        assert (await tree.lookup(tree.inodes.root, name)).node is None
    assert bucket.requests == []


async def test_known_names_are_answered_without_a_request(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a", "b/c", "d")
    tree = tree_of(bucket, nursery)
    await tree.learn_root()
    for name, kind in (("a", "file"), ("b", "directory"), ("d", "file"), ("c", None)):
        assert kind_of(await tree.lookup(tree.inodes.root, name)) == kind
    assert bucket.count("list") == 1


async def test_a_bucket_below_a_prefix_is_seen_without_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("p/a", "p/q/b", "other", "p", "pq")
    tree = tree_of(bucket, nursery, prefix="p/")
    assert await names_of(tree.listing(tree.inodes.root)) == ["a", "q"]
    assert (await walk(tree, "q", "b")).info == (await bucket.head("p/q/b"))


# --- freshness ----------------------------------------------------------------------------


async def test_what_exists_stays_known_for_the_metadata_ttl(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a", latency=1.0)
    tree = tree_of(bucket, nursery)
    first = await tree.lookup(tree.inodes.root, "a")
    assert first.ttl == 59.0  # counted from when the request was sent
    await trio.sleep(58.9)
    assert (await tree.lookup(tree.inodes.root, "a")).ttl == pytest.approx(0.1)
    assert bucket.count("list") == 1
    await trio.sleep(0.2)
    await tree.lookup(tree.inodes.root, "a")
    assert bucket.count("list") == 2


async def test_what_does_not_exist_stays_known_for_the_negative_ttl(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    bucket = bucket_of("a")
    tree = tree_of(bucket, nursery)
    assert await tree.lookup(tree.inodes.root, "b") == Found(None, 5.0 - LATENCY)
    await trio.sleep(4.9)
    bucket.put("b", b"")
    assert (await tree.lookup(tree.inodes.root, "b")).node is None
    await trio.sleep(0.2)
    assert kind_of(await tree.lookup(tree.inodes.root, "b")) == "file"
    assert bucket.count("list") == 2


async def test_with_a_ttl_of_0_each_lookup_is_asked_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a", "b", latency=1.0)
    tree = tree_of(bucket, nursery, metadata_ttl=0.0, negative_ttl=0.0)
    for number in range(1, 4):
        bucket.put("a", b"x" * number)
        found = await tree.lookup(tree.inodes.root, "a")
        assert found.node is not None
        assert found.node.info is not None
        assert (found.node.info.size, found.ttl) == (number, 0.0)
        assert bucket.count("list") == number


async def test_with_an_endless_ttl_nothing_is_asked_twice(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a")
    tree = tree_of(bucket, nursery, metadata_ttl=math.inf, negative_ttl=math.inf)
    await tree.learn_root()
    bucket.put("b", b"")
    await trio.sleep(86_400)
    assert (await tree.lookup(tree.inodes.root, "a")).ttl == math.inf
    assert await tree.lookup(tree.inodes.root, "b") == Found(None, math.inf)
    assert bucket.count("list") == 1


async def test_an_entry_of_a_listing_is_no_fresher_than_what_it_is_made_of(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    """A file's name and what lies below it may be learned by two requests."""
    bucket = bucket_of("name", *(f"name.{number:04}" for number in range(2500)))
    tree = tree_of(bucket, nursery, negative_ttl=60.0)
    await tree.learn_root()
    await trio.sleep(40.0)
    await tree.lookup(tree.inodes.root, "name")  # learns "name/" now, "name" is 40 s old
    await names_of(tree.listing(tree.inodes.root))
    (found,) = tree.shown(tree.inodes.root, ["name"], 0.0)
    assert found.ttl == pytest.approx(20.0, abs=0.01)


async def test_a_doubted_name_is_asked_again_and_its_neighbours_are_not(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    bucket = bucket_of("a", "b")
    tree = tree_of(bucket, nursery)
    node = await walk(tree, "a")
    assert tree.ttl(node) == 60.0 - LATENCY
    tree.doubt(node)
    assert tree.ttl(node) == 0.0
    await walk(tree, "b")
    assert bucket.count("list") == 1
    bucket.delete("a")
    assert (await tree.lookup(tree.inodes.root, "a")).node is None
    assert bucket.count("list") == 2


async def test_the_root_is_never_doubted(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    tree = tree_of(bucket_of("a"), nursery)
    tree.doubt(tree.inodes.root)
    assert tree.ttl(tree.inodes.root) == 60.0


# --- listings -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 999, 1000, 1001, 3500])
async def test_a_listing_is_a_list_for_each_thousand(
    nursery: trio.Nursery, autojump_clock: MockClock, number: int
) -> None:
    names = [f"{index:05}" for index in range(number)]
    bucket = bucket_of(*names)
    tree = tree_of(bucket, nursery)
    assert await names_of(tree.listing(tree.inodes.root)) == names
    pages = max(1, -(-number // 1000))
    assert bucket.count("list") == pages
    assert await names_of(tree.listing(tree.inodes.root)) == names
    assert bucket.count("list") == pages, "it is known now"


@pytest.mark.parametrize("max_keys", [2, 3, 5])
async def test_names_around_a_slash_are_listed_once_each(
    nursery: trio.Nursery, autojump_clock: MockClock, max_keys: int
) -> None:
    """`a-` sorts before `a/` and `a/` before `a0`; pages may end anywhere between."""
    bucket = bucket_of("a", "a-", "a-/x", "a/", "a/b", "a0", "a0/", "b", "b/c", max_keys=max_keys)
    tree = tree_of(bucket, nursery)
    assert await names_of(tree.listing(tree.inodes.root)) == ["a-", "a", "a0", "b"]
    kinds = {name: kind_of(await tree.lookup(tree.inodes.root, name)) for name in ("a", "a-", "b")}
    assert set(kinds.values()) == {"directory"}


async def test_the_page_after_is_on_its_way_while_the_first_is_handed_out(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    bucket = bucket_of(*(f"{index:05}" for index in range(5000)), latency=1.0)
    tree = tree_of(bucket, nursery)
    listing = tree.listing(tree.inodes.root)
    await listing.extend()
    assert len(listing.names) == 999  # the last name may yet be a directory, too
    await trio.sleep(1.5)
    began = trio.current_time()
    await listing.extend()
    assert (trio.current_time(), len(listing.names)) == (began, 1999)


async def test_pages_go_on_by_their_token(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bucket = bucket_of(*(f"{index:05}" for index in range(2500)))
    tree = tree_of(bucket, nursery)
    await names_of(tree.listing(tree.inodes.root))
    assert [request.token is not None for request in bucket.requests] == [False, True, True]


async def test_a_token_that_is_refused_is_not_sent_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of(*(f"{index:05}" for index in range(1500)))
    tree = tree_of(bucket, nursery)
    bucket.rule = lambda request: Fault(ServerError("bad token")) if request.token else None
    listing = tree.listing(tree.inodes.root)
    with pytest.raises(ServerError):
        await names_of(listing)
    assert len(await names_of(listing)) == 1500


async def test_what_is_too_old_is_listed_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a", "b")
    tree = tree_of(bucket, nursery)
    assert await names_of(tree.listing(tree.inodes.root)) == ["a", "b"]
    bucket.delete("a")
    await trio.sleep(61)
    assert await names_of(tree.listing(tree.inodes.root)) == ["b"]


class Stuck(FakeBucket):
    """Answers every listing with its first entry, and says that more follows."""

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> ListPage:
        page = await super().list_page(prefix, delimiter=delimiter, max_keys=1)
        return ListPage(page.objects, page.prefixes, "again")


async def test_a_listing_that_makes_no_headway_ends_in_an_error(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = Stuck()
    bucket.put_all({"a": b"", "b": b""})
    tree = tree_of(bucket, nursery)
    with pytest.raises(BadReply, match="makes no headway"):
        await names_of(tree.listing(tree.inodes.root))
    with pytest.raises(BadReply, match="never reach 'x'"):
        await tree.lookup(tree.inodes.root, "x")


# --- inodes -------------------------------------------------------------------------------


async def test_inos_are_stable_and_rise_in_listing_order(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a", "b/x", "c")
    tree = tree_of(bucket, nursery)
    names = await names_of(tree.listing(tree.inodes.root))
    inos = [known_node(tree, name).ino for name in names]
    assert inos == sorted(inos)
    assert [(await walk(tree, name)).ino for name in names] == inos
    await trio.sleep(100)
    assert [(await walk(tree, name)).ino for name in names] == inos


def known_node(tree: Tree, name: str) -> Node:
    (found,) = tree.shown(tree.inodes.root, [name], 0.0)
    return found.node


async def test_a_new_etag_is_a_new_ino_and_the_old_one_stands_for_the_old_version(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    bucket = bucket_of("a")
    tree = tree_of(bucket, nursery, metadata_ttl=0.0)
    lost: list[tuple[int, list[str]]] = []
    tree.on_lost = lambda ino, names: lost.append((ino, names))
    old = await walk(tree, "a")
    old_info = old.info
    bucket.put("a", b"another")
    new = await walk(tree, "a")
    assert (new.ino != old.ino, old.info) == (True, old_info)
    assert new.info is not None
    assert new.info.size == 7
    assert lost == [(tree.inodes.root.ino, ["a"])]
    assert tree.ttl(old) == 0.0


async def test_the_same_bytes_with_a_new_time_keep_the_ino(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a")
    tree = tree_of(bucket, nursery, metadata_ttl=0.0)
    old = await walk(tree, "a")
    bucket.put("a", b"a", mtime_ns=5)
    new = await walk(tree, "a")
    assert new is old
    assert new.info is not None
    assert new.info.mtime_ns == 5


async def test_a_file_that_becomes_a_directory_is_another_inode(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a")
    tree = tree_of(bucket, nursery, metadata_ttl=0.0, negative_ttl=0.0)
    file = await walk(tree, "a")
    bucket.put("a/b", b"")
    directory = await walk(tree, "a")
    assert (directory.info, directory.ino != file.ino) == (None, True)
    bucket.delete("a/b")
    again = await walk(tree, "a")
    assert again.info == file.info
    assert again.ino not in {file.ino, directory.ino}


async def test_a_forgotten_inode_is_gone_and_has_its_number_when_it_comes_back(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    tree = tree_of(bucket_of("a"), nursery)
    node = await walk(tree, "a")
    await walk(tree, "a")
    assert node.nlookup == 2
    tree.inodes.forget(node.ino, 1)
    assert tree.inodes.get(node.ino) is node
    tree.inodes.forget(node.ino, 1)
    assert tree.inodes.get(node.ino) is None
    tree.inodes.forget(node.ino, 1)  # a count too many harms nothing
    assert (await walk(tree, "a")).ino == node.ino
    assert len(tree.inodes) == 2
    tree.inodes.forget(tree.inodes.root.ino, 99)
    assert tree.inodes.get(tree.inodes.root.ino) is tree.inodes.root


async def test_two_nodes_of_one_ino_are_counted_together(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """An entry may be made twice before the kernel takes either."""
    tree = tree_of(bucket_of("a"), nursery)
    await tree.learn_root()
    one, other = known_node(tree, "a"), known_node(tree, "a")
    tree.inodes.remember(one)
    tree.inodes.remember(other)
    tree.inodes.forget(one.ino, 1)
    assert tree.inodes.get(one.ino) is not None
    tree.inodes.forget(one.ino, 1)
    assert tree.inodes.get(one.ino) is None


async def test_a_node_tells_what_it_is(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    tree = tree_of(bucket_of("a", "b/c"), nursery)
    assert repr(await walk(tree, "a")) == "<Node 2 file 'a' nlookup=1>"
    assert repr(await walk(tree, "b")) == "<Node 3 directory 'b' nlookup=1>"


# --- single flight ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "missing"])
@pytest.mark.parametrize("ttl", [0.0, 60.0])
async def test_a_hundred_lookups_at_once_are_one_list(
    nursery: trio.Nursery, autojump_clock: MockClock, name: str, ttl: float
) -> None:
    bucket = bucket_of("a", latency=1.0)
    tree = tree_of(bucket, nursery, metadata_ttl=ttl, negative_ttl=ttl)
    found = []

    async def look() -> None:
        found.append(await tree.lookup(tree.inodes.root, name))

    async with trio.open_nursery() as lookers:
        for _ in range(100):
            lookers.start_soon(look)
    assert len(found) == 100
    assert len({one.node and one.node.ino for one in found}) == 1
    assert bucket.count("list") == 1


async def test_an_error_reaches_all_who_wait_and_is_not_kept(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a", latency=1.0)
    bucket.inject("list", AccessDenied("no ListBucket"))
    tree = tree_of(bucket, nursery)
    errors = []

    async def look() -> None:
        with pytest.raises(AccessDenied) as caught:
            await tree.lookup(tree.inodes.root, "a")
        errors.append(caught.value)

    async with trio.open_nursery() as lookers:
        for _ in range(10):
            lookers.start_soon(look)
    assert len(errors) == 10
    assert bucket.count("list") == 1
    assert kind_of(await tree.lookup(tree.inodes.root, "a")) == "file"


async def test_who_gives_up_leaves_the_flight_to_the_others(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a", latency=2.0)
    tree = tree_of(bucket, nursery)
    found = []

    async def look() -> None:
        found.append(await tree.lookup(tree.inodes.root, "a"))

    async with trio.open_nursery() as lookers:
        with trio.move_on_after(1.0) as gave_up:
            lookers.start_soon(look)
            await tree.lookup(tree.inodes.root, "a")
    assert gave_up.cancelled_caught
    assert [kind_of(one) for one in found] == ["file"]
    assert bucket.count("list") == 1


async def test_a_flight_that_left_too_early_is_not_joined(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """With a TTL of 0, an answer must be of a request sent after the question."""
    bucket = bucket_of("a", latency=2.0)
    tree = tree_of(bucket, nursery, metadata_ttl=0.0, negative_ttl=0.0)
    nursery.start_soon(tree.lookup, tree.inodes.root, "a")
    await trio.sleep(1.0)
    bucket.put("a", b"new bytes")
    found = await tree.lookup(tree.inodes.root, "a")
    assert found.node is not None
    assert found.node.info is not None
    assert found.node.info.size == 9
    assert bucket.count("list") == 2


class Overtaken(FakeBucket):
    """The first listing says what was there when it was sent, and arrives late."""

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> ListPage:
        is_first = not self.requests
        page = await super().list_page(prefix, delimiter=delimiter, start_after=start_after)
        if is_first:
            await trio.sleep(10.0)
        return page


async def test_an_older_answer_that_arrives_late_does_not_undo_a_newer_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = Overtaken()
    bucket.put("a", b"old")
    tree = tree_of(bucket, nursery)
    nursery.start_soon(tree.learn_root)
    await trio.sleep(1.0)
    bucket.put("a", b"newer")
    new = await walk(tree, "a")
    await trio.sleep(20.0)
    assert await walk(tree, "a") is new
    assert new.info is not None
    assert new.info.size == 5


# --- odds and ends ------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["a", "b", "0", " ", "!", "é", "\ue000", "a\x01", "aa"])
def test_just_before_is_a_little_less(position: str) -> None:
    before = just_before(position)
    assert before < position
    assert "/" not in before[-1:]
    assert before.isprintable()
    before.encode()


async def test_keys_that_no_path_can_show_are_counted(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of("a", "a//b", "/x", "..", "n" * 256)
    tree = tree_of(bucket, nursery)
    assert await names_of(tree.listing(tree.inodes.root)) == ["a"]
    assert tree.learning.hidden == 3

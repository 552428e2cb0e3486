"""A directory listed in several ranges at once: the same names, for hardly more pages."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from zlib import crc32

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.errors import ServerError
from s3mount.model import ObjectInfo
from s3mount.namespace.directory import Directory
from s3mount.namespace.known import END
from s3mount.namespace.listing import delimited
from s3mount.namespace.pages import start_after
from s3mount.namespace.ranges import AHEAD_MOST, IN_FLIGHT_MOST, PROOF, WASTE, Ranges
from s3mount.namespace.readdir import Listing
from s3mount.namespace.tree import Tree
from s3mount.s3.fake import FakeBucket, Fault
from tests.namespace.worlds import children, info, listed, pages

PAGE = 40
NUMBERS = [f"file{number:07}.dat" for number in range(4000)]
HEX = sorted(hashlib.md5(b"%d" % number).hexdigest() for number in range(4000))
DIRECTORIES = [f"day={number:05}/part" for number in range(4000)]
CLUSTERS = [f"{name}-{number:06}" for name in ("ant", "bee", "yak") for number in range(1333)]


# --- the planner by itself ------------------------------------------------------------------


class Reader:
    """Reads one directory as a listing does, with pages that land in any order."""

    def __init__(self, world: dict[str, ObjectInfo], size: int, prefix: str = "") -> None:
        self.world = world
        self.size = size
        self.directory = Directory(prefix)
        self.ranges = Ranges(size)
        self.in_flight: list[str] = []
        self.names: list[str] = []
        self.position = ""
        self.pages = 0
        self.at_once = 0

    def send(self, lo: str) -> None:
        if lo in self.in_flight:
            return  # as flights are joined
        self.in_flight.append(lo)
        self.pages += 1
        self.at_once = max(self.at_once, len(self.in_flight))

    def land(self, lo: str) -> None:
        self.in_flight.remove(lo)
        prefix = self.directory.prefix
        sizes: Iterator[int] = iter(lambda: self.size, 0)
        start = start_after(prefix, lo)
        if lo in self.directory.tokens and start.endswith("/"):
            start += END  # a token goes on behind all that was rolled up
        chapter = delimited(next(pages(self.world, prefix, "/", start, sizes)), prefix, lo)
        self.directory.tokens.pop(lo, None)
        if chapter.hi != END:
            self.directory.tokens[chapter.hi] = "token"
        self.directory.apply(chapter, 1.0)
        self.ranges.came(chapter)
        self.go_on()

    def lose(self, lo: str) -> None:
        self.in_flight.remove(lo)
        self.directory.tokens.pop(lo, None)
        self.ranges.failed(lo)

    def read(self) -> None:
        """Take what is there, and ask for what is not."""
        reached = self.directory.known.reach(self.position, 0.0)
        self.names += self.directory.shown(self.position, reached)
        self.position = reached
        self.ranges.read(reached, len(self.names), 0.0)
        self.go_on()
        if self.position != END and self.position not in self.in_flight:
            self.send(self.position)

    def go_on(self) -> None:
        directory = self.directory
        wanted = self.ranges.wanted(directory.entries.names, directory.known, directory.tokens)
        for lo in wanted:
            assert directory.known.since(lo) is None
            self.send(lo)


worlds = st.one_of(
    st.builds(lambda n: NUMBERS[:n], st.integers(0, 300)),
    st.builds(lambda n: HEX[::n], st.integers(15, 80)),
    st.builds(lambda n: DIRECTORIES[:n], st.integers(0, 300)),
    st.builds(lambda n: CLUSTERS[::n], st.integers(15, 80)),
    st.lists(st.text("ab-./0\U0001f600", min_size=1, max_size=5), max_size=150, unique=True),
)


@settings(suppress_health_check=list(HealthCheck), max_examples=50)
@given(worlds, st.integers(1, 4), st.builds(random.Random, st.integers()))
def test_pages_in_any_order_give_every_name_once_and_in_order(
    keys: list[str], size: int, chance: random.Random
) -> None:
    world = {key: info(key) for key in keys}
    reader = Reader(world, size)
    while reader.position != END:
        reader.read()
        while reader.in_flight and chance.random() < 0.8:
            lo = chance.choice(reader.in_flight)
            if chance.random() < 0.05:
                reader.lose(lo)
            else:
                reader.land(lo)
    expected = children(world, "")
    names = sorted({*expected.files, *expected.directories}, key=lambda name: name + "/")
    assert reader.names == names


@settings(suppress_health_check=list(HealthCheck), max_examples=50)
@given(worlds, st.integers(2, 4), st.builds(random.Random, st.integers()))
def test_few_pages_are_in_vain(keys: list[str], size: int, chance: random.Random) -> None:
    world = {key: info(key) for key in keys}
    reader = Reader(world, size)
    while reader.position != END:
        reader.read()
        while reader.in_flight and chance.random() < 0.9:
            reader.land(chance.choice(reader.in_flight))
    needed = max(1, -(-len(listed(world, "", "/", "")) // size))
    # What is under way when the last is earned ends as it may: each of its ranges one page.
    assert reader.pages <= needed + 1 + WASTE * reader.pages + IN_FLIGHT_MOST
    assert reader.at_once <= IN_FLIGHT_MOST + 1  # and the one that the reader asks for itself
    if needed <= PROOF:
        assert reader.pages == needed


@settings(max_examples=10)
@given(st.integers(1, 600))
def test_no_more_is_listed_ahead_than_was_read(stop: int) -> None:
    reader = Reader({key: info(key) for key in NUMBERS[:700]}, 4)
    while reader.position != END and len(reader.names) < stop:
        reader.read()
        while reader.in_flight:
            reader.land(reader.in_flight[0])
    ahead = len(reader.directory) - len(reader.names)
    assert ahead <= 4 * (min(AHEAD_MOST, 1 + len(reader.names) // 4) + 1)


@pytest.mark.parametrize(("gap", "starts"), [(8, 0), (24, 0), (40, 1)])
def test_a_gap_is_split_where_two_ranges_fit(gap: int, starts: int) -> None:
    """`LENGTH` pages of 4 names are 32, and half of that is the least worth a range."""
    reader = Reader({key: info(key) for key in NUMBERS[:300]}, 100)
    for first in (0, 100 + gap):
        end = "\0" if first else ""
        reader.send(NUMBERS[first - 1] + end if first else "")
        reader.land(reader.in_flight[-1])
    reader.ranges = Ranges(4)
    reader.ranges.landed = 50
    position = NUMBERS[99] + "\0"
    assert reader.directory.known.reach("", 0.0) == position
    reader.ranges.read(position, 100, 0.0)
    reader.go_on()
    # And what tokens go on from, at two places, and the range beyond all.
    assert len(reader.in_flight) == 3 + starts


# --- listings of a bucket -------------------------------------------------------------------


def tree_of(bucket: FakeBucket, nursery: trio.Nursery) -> Tree:
    return Tree(bucket, "", nursery, metadata_ttl=60.0, negative_ttl=5.0)


def bucket_of(keys: list[str], latency: float = 1 / 64, page: int = PAGE) -> FakeBucket:
    bucket = FakeBucket(latency=latency, max_keys=page)
    bucket.put_all(dict.fromkeys(keys, b""))
    # No two answers at one moment: trio would take them in any order, and counts would vary.
    bucket.rule = lambda request: Fault(
        latency=crc32((request.token or request.start_after).encode()) % 997 * 2**-20
    )
    return bucket


async def read(listing: Listing) -> list[str]:
    while not listing.is_complete:
        await listing.extend()
    return listing.names


@pytest.mark.parametrize(
    ("keys", "lists"),
    [(NUMBERS, 103), (HEX, 104), (DIRECTORIES, 104), (CLUSTERS, 104), (NUMBERS[:320], 8)],
    ids=["numbers", "hex", "directories", "clusters", "few"],
)
async def test_a_hundred_pages_cost_little_more_and_a_fraction_of_the_time(
    nursery: trio.Nursery, autojump_clock: MockClock, keys: list[str], lists: int
) -> None:
    bucket = bucket_of(keys)
    tree = tree_of(bucket, nursery)
    began = trio.current_time()
    names = await read(tree.listing(tree.inodes.root))
    assert names == sorted({key.partition("/")[0] for key in keys})
    assert bucket.count("list") == lists
    assert bucket.max_in_flight <= IN_FLIGHT_MOST
    if lists > 10:
        assert trio.current_time() - began < lists * bucket.latency * 0.7
    assert await read(tree.listing(tree.inodes.root)) == names
    assert bucket.count("list") == lists, "all is known now"


async def test_the_first_names_are_there_after_one_round_trip(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of(NUMBERS)
    tree = tree_of(bucket, nursery)
    began = trio.current_time()
    listing = tree.listing(tree.inodes.root)
    await listing.extend()
    assert listing.names == NUMBERS[: PAGE - 1]
    assert trio.current_time() - began < 1.1 * bucket.latency


async def test_a_thousand_pages_are_listed_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What a directory of 1,000,000 files is, in pages of 10."""
    keys = [f"file{number:07}.dat" for number in range(10_000)]
    bucket = bucket_of(keys, page=10)
    tree = tree_of(bucket, nursery)
    listing = tree.listing(tree.inodes.root)
    await listing.extend()
    assert bucket.count("list") == 1
    assert len(listing.names) == 9  # the last one may be a directory as well
    assert await read(listing) == keys
    assert bucket.count("list") == 1027
    assert trio.current_time() < 1027 * bucket.latency / 3
    await read(tree.listing(tree.inodes.root))
    assert bucket.count("list") == 1027


async def test_who_reads_one_page_has_one_more_listed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of(NUMBERS)
    tree = tree_of(bucket, nursery)
    await tree.listing(tree.inodes.root).extend()
    await trio.sleep(10)
    assert bucket.count("list") == 2


async def test_two_readers_share_what_is_on_its_way(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of(NUMBERS)
    tree = tree_of(bucket, nursery)
    results = []

    async def read_all() -> None:
        results.append(await read(tree.listing(tree.inodes.root)))

    async with trio.open_nursery() as readers:
        readers.start_soon(read_all)
        readers.start_soon(read_all)
    assert results == [NUMBERS, NUMBERS]
    assert bucket.count("list") == 103


async def test_a_listing_that_is_too_old_is_listed_in_ranges_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of(NUMBERS)
    tree = tree_of(bucket, nursery)
    await read(tree.listing(tree.inodes.root))
    await trio.sleep(61)
    bucket.delete(NUMBERS[500])
    lists = bucket.count("list")
    names = await read(tree.listing(tree.inodes.root))
    assert names == NUMBERS[:500] + NUMBERS[501:]
    assert bucket.count("list") - lists <= 105


async def test_a_range_that_fails_is_listed_by_the_reader(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = bucket_of(NUMBERS)
    tree = tree_of(bucket, nursery)
    bucket.rule = lambda request: (
        Fault(ServerError("not now")) if request.start_after and len(bucket.requests) < 60 else None
    )
    assert await read(tree.listing(tree.inodes.root)) == NUMBERS


async def test_what_stays_is_shown_once_while_the_bucket_changes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Names around a slash at the edges of ranges, others put and deleted meanwhile."""
    stay = [f"{number:03}{tail}" for number in range(0, 400, 2) for tail in ("", "-", "/x", "0/y")]
    chance = random.Random(5)
    bucket = bucket_of(stay, latency=0.01)
    tree = tree_of(bucket, nursery)
    there: set[str] = set()

    async def change() -> None:
        for _ in range(2000):
            key = f"{chance.randrange(400):03}{chance.choice(['', '-', '/', '0', '/x', '~'])}"
            if key not in stay:
                if chance.random() < 0.6:
                    bucket.put(key, b"")
                    there.add(key)
                elif key in there:
                    bucket.delete(key)
                    there.discard(key)
            await trio.sleep(0.001)

    nursery.start_soon(change)
    for _ in range(5):
        names = await read(tree.listing(tree.inodes.root))
        assert names == sorted(set(names), key=lambda name: name + "/")
        assert {key.partition("/")[0] for key in stay} <= set(names)
        await trio.sleep(61)

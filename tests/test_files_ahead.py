"""Files fetched before they are opened: what each way to read a tree costs, and how long it takes.

The bucket is in memory and the clock is trio's, so round trips are counted exactly.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.files_ahead import SORTED_KEPT, SORTED_MOST, FilesAhead
from s3mount.filesystem import Filesystem, Look
from s3mount.metrics import Metrics
from s3mount.namespace.order import Place
from s3mount.namespace.tree import Tree
from s3mount.reading.blocks import Geometry
from s3mount.reading.fetcher import Fetcher
from s3mount.reading.memory import Memory
from s3mount.reading.readahead import Readahead
from s3mount.s3.fake import FakeBucket

LATENCY = 0.025
KIB, MIB = 1024, 1024 * 1024
BLOCK = 64 * KIB
CLOCK_TOLERANCE = 1e-6


class Mount:
    """A filesystem over a bucket, used as programs use it through the kernel."""

    def __init__(
        self,
        objects: dict[str, bytes],
        nursery: trio.Nursery,
        *,
        most: int = 64,
        memory: int = 64 * MIB,
        archived: Iterable[str] = (),
    ) -> None:
        self.objects = objects
        self.bucket = FakeBucket(latency=LATENCY)
        self.bucket.put_all(objects)
        for key in archived:
            self.bucket.put(key, objects[key], storage_class="GLACIER")
        self.metrics = Metrics()
        self.tree = Tree(self.bucket, "", nursery, metadata_ttl=3600.0, negative_ttl=3600.0)
        buffers = Memory(BLOCK, memory)
        fetcher = Fetcher(
            self.bucket,
            cache=None,
            memory=buffers,
            geometry=Geometry(BLOCK, BLOCK // 8),
            nursery=nursery,
            scope="test",
            connections=64,
        )
        readahead = Readahead(memory, BLOCK)
        self.ahead = FilesAhead(self.tree, fetcher, readahead, self.metrics, most)
        look = Look(0, 0, 0o644, 0o755, 0)
        self.filesystem = Filesystem(self.tree, fetcher, readahead, look, self.ahead)

    @property
    def gets(self) -> int:
        return self.bucket.count("get")

    async def ino(self, path: str) -> int:
        """Look the path up, name by name."""
        ino = self.tree.inodes.root.ino
        for name in path.split("/") if path else ():
            attr, _ = await self.filesystem.lookup(ino, name)
            assert attr is not None, path
            ino = attr.ino
        return ino

    async def list(self, path: str) -> list[str]:
        """What readdir(3) gives."""
        fh = self.filesystem.opendir(await self.ino(path))
        names: list[str] = []
        cursor = 0
        while True:
            entries = list(await self.filesystem.entries(fh, cursor))
            if not entries:
                break
            for entry in entries:
                self.filesystem.taken(entry)
                cursor = entry.cursor
            names += [entry.name for entry in entries]
        self.filesystem.releasedir(fh)
        return names[2:]

    async def read(self, path: str) -> None:
        """Open, read to the end and close; the bytes must be right."""
        fh = self.filesystem.open(await self.ino(path))
        data = bytearray()
        while part := bytes(await self.filesystem.read(fh, len(data), 128 * KIB)):
            data += part
        self.filesystem.release(fh)
        assert data == self.objects[path]

    async def read_all(self, paths: Iterable[str]) -> float:
        """Read one after the other; returns the seconds that it took."""
        started = trio.current_time()
        for path in paths:
            await self.read(path)
        return trio.current_time() - started


def tree_of(directories: int, files: int, size: int = 100) -> dict[str, bytes]:
    return {
        f"d{d:04}/f{f:05}": f"{d} {f} ".encode() * (size // 8)
        for d in range(directories)
        for f in range(files)
    }


def round_trips(seconds: float) -> int:
    return round(seconds / LATENCY + CLOCK_TOLERANCE)


async def test_a_directory_in_shown_order(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    mount = Mount(tree_of(1, 1000), nursery)
    await mount.list("d0000")
    took = await mount.read_all(mount.objects)
    assert mount.gets == 1000
    # Three before it is proven, then 1, 2, 4 ... up to 64; the fetcher lets 56 fly at once.
    assert round_trips(took) <= 3 + 7 + 1000 // 32
    assert mount.metrics["ahead.files"] == 997
    assert mount.metrics["ahead.wasted"] == 0


async def test_without_it_each_file_is_a_round_trip(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mount = Mount(tree_of(1, 50), nursery, most=0)
    await mount.list("d0000")
    assert round_trips(await mount.read_all(mount.objects)) == 50
    assert mount.gets == 50


async def test_grep_r_over_many_directories(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Each directory is listed when its turn comes, then its files are read."""
    mount = Mount(tree_of(200, 10), nursery)
    started = trio.current_time()
    opened, ahead = 0, []
    for directory in await mount.list(""):
        for name in await mount.list(directory):
            await mount.read(f"{directory}/{name}")
            opened += 1
            ahead.append(mount.metrics["ahead.files"] - opened)
    assert mount.gets == 2000
    assert mount.bucket.count("list") <= 5
    # All the time 64 are ahead, over the ends of directories as well (four were opened before the
    # first was asked for): what is asked for all at once comes back so, and the reader waits.
    assert set(ahead[100:1900]) == {64 - 4}
    assert round_trips(trio.current_time() - started) <= 2000 // 32 + 20


async def test_find_and_then_xargs(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """All directories are listed first: the walk is over when the files are read."""
    mount = Mount(tree_of(200, 10), nursery)
    paths = [f"{d}/{n}" for d in await mount.list("") for n in await mount.list(d)]
    took = await mount.read_all(paths)
    assert mount.gets == 2000
    assert round_trips(took) <= 2000 // 32 + 20


async def test_directories_of_one_file_each(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mount = Mount(tree_of(300, 1), nursery)
    paths = [f"{d}/{n}" for d in await mount.list("") for n in await mount.list(d)]
    took = await mount.read_all(paths)
    assert mount.gets == 300
    assert round_trips(took) <= 300 // 64 + 15


async def test_one_directory_does_not_fetch_the_next(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mount = Mount(tree_of(5, 40), nursery)
    for directory in await mount.list(""):
        await mount.list(directory)
    # Other programs' listings, so that no walk goes on at d0001.
    for directory in ["d0004", "d0000", "d0003", "", "d0002"] * 2:
        await mount.list(directory)
    await mount.read_all(path for path in mount.objects if path.startswith("d0001"))
    await trio.sleep(1)
    assert mount.gets == 40


async def test_files_of_one_extension(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    objects = {
        f"logs/{n:04}.{kind}": b"%d" % n for n in range(200) for kind in ("gz", "idx", "txt")
    }
    mount = Mount(objects, nursery)
    await mount.list("logs")
    took = await mount.read_all(path for path in objects if path.endswith(".gz"))
    await trio.sleep(1)
    assert mount.gets == 200
    assert round_trips(took) <= 3 + 7 + 200 // 64 + 2


async def test_the_order_of_a_locale(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """As `ls` and `*` have it in en_US: punctuation and case count last."""
    names = [f"{stem}{n:03}" for n in range(100) for stem in ("b_", "B-x", ".a", "_A")]
    mount = Mount({f"d/{name}": name.encode() for name in names}, nursery)
    await mount.list("d")
    by_locale = sorted(
        names, key=lambda name: ("".join(filter(str.isalnum, name)).lower(), name.swapcase())
    )
    took = await mount.read_all(f"d/{name}" for name in by_locale)
    assert mount.gets == len(names)
    assert round_trips(took) <= 40


@pytest.mark.parametrize("processes", [1, 8])
async def test_shuffled_by_data_loaders(
    nursery: trio.Nursery, autojump_clock: MockClock, processes: int
) -> None:
    """Nothing (to speak of) is fetched ahead, one request a file, and in parallel."""
    mount = Mount(tree_of(1, 5000, size=16), nursery, memory=2 * MIB)
    await mount.list("d0000")
    paths = list(mount.objects)
    random.Random(4).shuffle(paths)
    started = trio.current_time()
    async with trio.open_nursery() as readers:
        for share in range(processes):
            readers.start_soon(mount.read_all, paths[share::processes])
    took = trio.current_time() - started
    assert mount.gets == 5000
    assert mount.metrics["ahead.files"] <= 25
    assert round_trips(took) <= 5000 / processes * 1.01


async def test_shuffled_opens_are_hardly_compared(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether one may follow another is seen from how few files are between."""
    asked = 0
    files_after = Tree.files_after

    def counted(tree: Tree, place: Place, *, at: str, up: int = 0) -> Iterator[Place]:
        nonlocal asked
        asked += 1
        return files_after(tree, place, at=at, up=up)

    mount = Mount({f"d/{n:03}.parquet": b"x" for n in range(600)}, nursery)
    names = await mount.list("d")
    inos = [await mount.ino(f"d/{name}") for name in names]
    random.Random(1).shuffle(inos)
    monkeypatch.setattr(Tree, "files_after", counted)
    for ino in inos:
        mount.filesystem.release(mount.filesystem.open(ino))
    # By chance 1 in 25 is one of the next three behind one of 8, and 6 orders ask the tree.
    assert 0 < asked <= 600 / 25 * 6 * 1.5


names_of_files = st.lists(
    st.builds("{}.{}".format, st.text("aB-1", min_size=1, max_size=3), st.sampled_from("xyz")),
    min_size=2, max_size=40, unique=True,
)  # fmt: skip


@given(names=names_of_files, subdirectories=st.integers(0, 10), seed=st.integers(0, 999))
@settings(deadline=None)
def test_what_is_too_far_to_be_compared_would_prove_nothing(
    names: list[str], subdirectories: int, seed: int
) -> None:
    """The same is fetched as if all orders were tried at each open."""
    objects = {f"d/{name}": b"x" for name in names}
    objects |= {f"d/{name[:-2]}/sub": b"x" for name in names[:subdirectories]}

    async def check() -> None:
        async with trio.open_nursery() as nursery:
            mounts = [Mount(objects, nursery), Mount(objects, nursery)]
            for mount in mounts:
                for directory in ("d", *(f"d/{name[:-2]}" for name in names[:subdirectories])):
                    await mount.list(directory)
                mount.ahead._at = "d/"
            mounts[1].ahead._streaks._is_near = lambda _place, _other: True
            for name in _steps(names, random.Random(seed)):
                place = Place("d/", name)
                one, other = (mount.ahead._streaks.opened(place) for mount in mounts)
                assert one == other
            nursery.cancel_scope.cancel()

    trio.run(check, clock=MockClock(autojump_threshold=0))


def _steps(names: list[str], source: random.Random) -> Iterator[str]:
    """Small steps in some order of the names, and jumps into another."""
    for _ in range(6):
        order = sorted(names, key=source.choice([None, str.casefold, str.swapcase, len]))
        if source.random() < 0.5:
            order = [name for name in order if name[-1] == order[0][-1]]
        at = source.randrange(len(order))
        while at < len(order):
            yield order[at]
            at += source.choice([1, 1, 1, 2, 3, 4])


async def test_shuffled_over_many_directories(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mount = Mount(tree_of(100, 30, size=16), nursery)
    paths = [f"{d}/{n}" for d in await mount.list("") for n in await mount.list(d)]
    random.Random(5).shuffle(paths)
    await mount.read_all(paths)
    assert mount.gets == 3000
    assert mount.metrics["ahead.files"] <= 30
    assert len(mount.ahead._sorted) <= SORTED_KEPT


@pytest.mark.parametrize("batch", [1, 10, 100])
async def test_xargs_in_parallel(
    nursery: trio.Nursery, autojump_clock: MockClock, batch: int
) -> None:
    mount = Mount(tree_of(1, 2000, size=16), nursery)
    await mount.list("d0000")
    paths = list(mount.objects)
    batches = [paths[i : i + batch] for i in range(0, len(paths), batch)]

    async def process() -> None:
        while batches:
            await mount.read_all(batches.pop(0))

    started = trio.current_time()
    async with trio.open_nursery() as processes:
        for _ in range(4):
            processes.start_soon(process)
    assert mount.gets == 2000
    assert round_trips(trio.current_time() - started) <= 2000 / 4 / 2


async def test_of_large_files_the_first_block_is_fetched(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    objects = {f"d/{n:02}": random.Random(n).randbytes(3 * BLOCK + 5) for n in range(12)}
    mount = Mount(objects, nursery)
    await mount.list("d")
    paths: Sequence[str] = list(objects)
    await mount.read_all(paths[:3])
    await trio.sleep(1)
    ahead = [request for request in mount.bucket.requests if request.key == paths[3]]
    assert [(request.start, request.size) for request in ahead] == [(0, BLOCK)]
    await mount.read_all(paths[3:])
    fetched = sum(r.size for r in mount.bucket.requests if r.kind == "get")
    assert fetched == sum(map(len, objects.values()))


async def test_of_large_files_that_are_read_at_their_end_nothing_is_fetched(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Until they are read from their start again."""
    files = {f"d/{n:02}": bytes(2 * BLOCK + n) for n in range(60)}
    mount = Mount(files, nursery)
    await mount.list("d")
    for path in list(files)[:30]:
        fh = mount.filesystem.open(await mount.ino(path))
        assert len(await mount.filesystem.read(fh, len(files[path]) - 100, 100)) == 100
        mount.filesystem.release(fh)
    assert mount.metrics["ahead.files"] == 1  # by the third, as it is opened
    assert mount.gets == 30 + 1
    await mount.read_all(list(files)[30:])
    assert mount.metrics["ahead.files"] > 25


async def test_empty_and_archived_files_are_not_fetched(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    objects = {f"d/{n:02}": b"" if n % 3 == 1 else b"x" for n in range(60)}
    frozen = [key for i, key in enumerate(objects) if i % 3 == 2]
    mount = Mount(objects, nursery, archived=frozen)
    await mount.list("d")
    await mount.read_all(path for path in objects if path not in frozen)
    await trio.sleep(1)
    asked = {request.key for request in mount.bucket.requests if request.kind == "get"}
    assert asked == {key for i, key in enumerate(objects) if i % 3 == 0}
    assert mount.metrics["ahead.wasted"] == 0


async def test_memory_for_a_few_files_only(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What does not fit is asked for later: every byte right, each file fetched once."""
    objects = {f"d/{n:03}": random.Random(n).randbytes(BLOCK) for n in range(200)}
    mount = Mount(objects, nursery, memory=8 * BLOCK)
    await mount.list("d")
    took = await mount.read_all(objects)
    assert mount.gets == 200
    assert round_trips(took) <= 200 / 3


async def test_what_was_fetched_in_vain_is_counted(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mount = Mount(tree_of(1, 5000), nursery)
    await mount.list("d0000")
    paths = list(mount.objects)
    await mount.read_all(paths[:12])
    await trio.sleep(1)
    in_vain = mount.gets - 12
    assert in_vain == 64
    await mount.read_all(paths[1000:5000:200])
    assert mount.gets == 12 + 64 + 20
    assert mount.metrics["ahead.wasted"] == in_vain


async def test_a_file_that_is_gone_is_not_fetched(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mount = Mount(tree_of(1, 10), nursery)
    await mount.list("d0000")
    assert mount.ahead._fetch(Place("d0000/", "nothing"))
    assert mount.ahead._fetch(Place("nowhere/", "nothing"))
    mount.ahead.opened(mount.tree.inodes.root)
    await trio.sleep(1)
    assert mount.gets == 0


async def test_a_huge_directory_is_not_sorted_by_locale(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mount = Mount({f"d/{n:06}": b"" for n in range(SORTED_MOST + 1)}, nursery)
    await mount.list("d")
    await mount.read_all(["d/000900", "d/000001", "d/005000"])
    assert mount.ahead._sorted.get("d/", []) == []

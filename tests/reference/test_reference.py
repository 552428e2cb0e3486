"""Random lists of operations, while the bucket changes, against everything it ever held.

The kernel is played here: it counts its lookups, keeps a handle's inode, and takes as many
entries of a directory as fit. Operations run at once; changes fall between their requests.
"""

from __future__ import annotations

import math
import stat
from collections import Counter
from dataclasses import dataclass, field

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.errors import IsADirectory, ServerError, Stale
from s3mount.filesystem import Attr
from s3mount.s3.fake import FakeBucket
from tests.reference.history import History, Version
from tests.reference.rig import BLOCK, filesystem_of

NAMES = ("a", "a-", "a0", "b")
KEYS = ("a", "a/", "a/a", "a/b", "a/b/c", "a-", "a0", "b", "b/a", "b/b/a")
SIZES = (0, 1, 1000, BLOCK, BLOCK + 1, 3 * BLOCK - 7)
LATENCY = 0.05

Operation = tuple[str, int, int, int]
numbers = st.integers(0, 50)


def operations(*kinds: str) -> st.SearchStrategy[Operation]:
    return st.tuples(st.sampled_from(kinds), numbers, numbers, numbers)


programs = st.lists(
    st.one_of(
        operations("put", "put", "delete"),
        operations("lookup", "lookup", "walk"),
        operations("readdir", "open", "open", "stat", "release", "forget"),
        operations("read", "read", "read"),
        operations("pause", "settle", "fault"),
    ),
    min_size=20,
    max_size=80,
)


def body_of(number: int, size: int) -> bytes:
    """Bytes that no other version has at the same place."""
    return b"".join((number << 32 | unit).to_bytes(8, "big") for unit in range(-(-size // 8)))[
        :size
    ]


@dataclass
class Inode:
    """What the kernel holds."""

    ino: int
    path: str  # the key, or the directory's prefix
    is_directory: bool
    nlookup: int = 0
    handles: int = 0
    # The versions whose bytes it may have been given: a page cache must not mix two.
    candidates: list[Version] = field(default_factory=list)
    answered: float = 0.0  # when it was first told of
    read: bool = False


@dataclass
class Program:
    """One run: the filesystem, the bucket, and the kernel's books."""

    nursery: trio.Nursery
    metadata_ttl: float
    negative_ttl: float
    names: float  # bytes

    def __post_init__(self) -> None:
        self.bucket = FakeBucket(latency=LATENCY, max_keys=3)
        self.history = History()
        self.filesystem, self.tree = filesystem_of(
            self.bucket,
            self.nursery,
            metadata_ttl=self.metadata_ttl,
            negative_ttl=self.negative_ttl,
            names=self.names,
        )
        self.tree.forgetting.let_go = self.let_go
        self.inodes = {1: Inode(1, "", is_directory=True, nlookup=1)}
        self.handles: dict[int, Inode] = {}
        self.written = 0
        self.faulted = False
        self.busy = 0

    # --- the bucket changes ---------------------------------------------------------------

    def put(self, key: str, size: int) -> None:
        self.written += 1
        body = body_of(self.written, size)
        info = self.bucket.put(key, body)
        self.history.put(key, Version(info.etag, body), trio.current_time())

    def delete(self, key: str) -> None:
        self.bucket.delete(key)
        self.history.delete(key, trio.current_time())

    # --- the kernel asks ------------------------------------------------------------------

    async def run(self, program: list[Operation]) -> None:
        for operation in program:
            await self.step(*operation)
        await self.settle()

    async def step(self, kind: str, one: int, two: int, three: int) -> None:
        match kind:
            case "put":
                self.put(KEYS[one % len(KEYS)], SIZES[two % len(SIZES)])
            case "delete":
                self.delete(KEYS[one % len(KEYS)])
            case "pause":
                await trio.sleep((0.01, 0.04, 0.2, 3.0, 70.0)[one % 5])
            case "settle":
                await self.settle()
            case "fault":
                self.faulted = True
                self.bucket.inject(("list", "get")[one % 2], ServerError("injected"))
            case "stat":
                inode = pick(self.inodes, one)
                assert self.filesystem.getattr(inode.ino).ino == inode.ino
            case "forget":
                self.forget(one, two)
            case "release":
                self.release(one)
            case _:
                self.start(kind, one, two, three)
        await trio.lowlevel.checkpoint()

    def start(self, kind: str, one: int, two: int, three: int) -> None:
        directories = {i: node for i, node in self.inodes.items() if node.is_directory}
        directory = pick(directories, one)
        if kind == "lookup":
            self.spawn(self.lookup, directory, NAMES[two % len(NAMES)])
        elif kind == "walk":
            self.spawn(self.walk, two, three)
        elif kind == "readdir":
            self.spawn(self.readdir, directory, 1 + two % 4, three)
        elif kind == "open":
            inode = pick(self.inodes, one)
            if inode.is_directory:
                try:
                    self.filesystem.open(inode.ino)
                except IsADirectory:
                    return
                raise AssertionError("a directory was opened as a file")
            self.hold(inode)
        elif kind == "read" and self.handles:
            fh = list(self.handles)[one % len(self.handles)]
            offset = (0, 0, 500, BLOCK, BLOCK - 3, 2 * BLOCK)[two % 6]
            self.spawn(self.read, fh, offset, (1, 100, BLOCK, 3 * BLOCK)[three % 4])

    def spawn(self, work: object, *args: object) -> None:
        self.busy += 1
        self.nursery.start_soon(self._guarded, work, args)

    async def _guarded(self, work: object, args: tuple[object, ...]) -> None:
        assert callable(work)
        try:
            await work(*args)
        except ServerError:
            assert self.faulted
        finally:
            self.busy -= 1

    async def settle(self) -> None:
        with trio.fail_after(50):
            while self.busy:  # noqa: ASYNC110  whoever it is that ends last
                await trio.sleep(LATENCY)

    async def lookup(self, parent: Inode, name: str) -> Inode | None:
        began = trio.current_time()
        parent.handles += 1  # the kernel does not forget a directory it looks into
        try:
            attr, ttl = await self.filesystem.lookup(parent.ino, name)
        finally:
            parent.handles -= 1
        maximum = self.metadata_ttl if attr else self.negative_ttl
        now = trio.current_time()
        since = min(began, now + ttl - maximum)
        self.check(parent.path, name, attr, since, now)
        return self.remember(parent.path + name, attr, since) if attr else None

    async def walk(self, one: int, two: int) -> None:
        """Path resolution, and open: what most programs do."""
        inode: Inode | None = self.inodes[1]
        for part in KEYS[one % len(KEYS)].strip("/").split("/"):
            if inode is None or not inode.is_directory:
                return
            inode = await self.lookup(inode, part)
        if inode is not None and not inode.is_directory:
            fh = self.hold(inode)
            if two % 2:
                await self.read(fh, 0, BLOCK)

    def hold(self, inode: Inode) -> int:
        fh = self.filesystem.open(inode.ino)
        inode.handles += 1
        self.handles[fh] = inode
        return fh

    def check(self, prefix: str, name: str, attr: Attr | None, since: float, now: float) -> None:
        """What was answered was true at a moment when it was young enough."""
        said = list(self.history.kinds(prefix, name, since, now))
        if attr is None:
            assert "absent" in said, (prefix, name, since, now, said)
        elif stat.S_ISDIR(attr.mode):
            assert "directory" in said, (prefix, name, since, now, said)
        else:
            sizes = [len(version.body) for version in said if isinstance(version, Version)]
            assert attr.size in sizes, (prefix, name, since, now, said)

    def remember(self, path: str, attr: Attr, since: float) -> Inode:
        is_directory = stat.S_ISDIR(attr.mode)
        inode = self.inodes.get(attr.ino)
        if inode is None:
            path += "/" * is_directory
            inode = self.inodes[attr.ino] = Inode(attr.ino, path, is_directory, answered=since)
            inode.candidates = self.history.versions(path)
        assert inode.is_directory == is_directory
        assert inode.path.rstrip("/") == path.rstrip("/")
        inode.nlookup += 1
        return inode

    async def readdir(self, directory: Inode, chunk: int, rewinds: int) -> None:
        """A pass through a directory, `chunk` entries at a time, after some that began anew."""
        directory.handles += 1
        fh = self.filesystem.opendir(directory.ino)
        try:
            for turn in range(1 + rewinds % 3):
                await self.one_pass(directory, fh, chunk, turn < rewinds % 3)
        finally:
            self.filesystem.releasedir(fh)
            directory.handles -= 1

    async def one_pass(self, directory: Inode, fh: int, chunk: int, gives_up: bool) -> None:
        began = trio.current_time()
        seen: Counter[str] = Counter()
        cursor = 0
        while True:
            taken = 0
            entries = await self.filesystem.entries(fh, cursor)
            for entry in entries:
                if taken == chunk:
                    break
                taken += 1
                cursor = entry.cursor
                self.filesystem.taken(entry)
                seen[entry.name] += 1
                if entry.name in {".", ".."}:
                    continue
                now = trio.current_time()
                since = min(began, now + entry.attr.ttl) - self.metadata_ttl
                if entry.attr.ttl:
                    since = max(since, now + entry.attr.ttl - self.metadata_ttl)
                self.check(directory.path, entry.name, entry.attr, since, now)
                self.remember(directory.path + entry.name, entry.attr, since)
            if not taken:
                break
            if gives_up:
                return
        assert max(seen.values()) == 1, seen
        since, now = began - self.metadata_ttl, trio.current_time()
        names = set(seen) - {".", ".."}
        assert names <= self.history.names_ever(directory.path)
        for name in self.history.names_ever(directory.path):
            if "absent" not in self.history.kinds(directory.path, name, since, now):
                assert name in names, (name, names)

    async def read(self, fh: int, offset: int, size: int) -> None:
        inode = self.handles[fh]
        inode.handles += 1  # a read under way keeps the file open
        try:
            data = bytes(await self.filesystem.read(fh, offset, size))
        except Stale:
            held = self.history.held(inode.path, inode.answered, trio.current_time())
            assert len(set(held)) > 1, "nothing happened to the object"
            return
        finally:
            inode.handles -= 1
        seen = inode.candidates if inode.read else self.history.versions(inode.path)
        inode.candidates = [v for v in seen if v.body[offset : offset + size] == data]
        inode.read = True
        assert inode.candidates, f"bytes of no version, or of two: {inode} {offset} {size}"

    # --- the kernel lets go ---------------------------------------------------------------

    def release(self, one: int) -> None:
        idle = [fh for fh in self.handles if not self.busy]
        if idle:
            fh = idle[one % len(idle)]
            self.filesystem.release(fh)
            self.handles.pop(fh).handles -= 1

    def forget(self, one: int, two: int) -> None:
        idle = {i: node for i, node in self.inodes.items() if not node.handles and i != 1}
        if not idle or self.busy:
            return
        inode = pick(idle, one)
        nlookup = 1 + two % inode.nlookup
        self.filesystem.forget(inode.ino, nlookup)
        inode.nlookup -= nlookup
        if not inode.nlookup:
            del self.inodes[inode.ino]
            assert self.tree.inodes.get(inode.ino) is None

    def let_go(self, ino: int, names: list[str]) -> None:
        """Forget what nobody uses; the kernel is not done with it before the call returns."""
        self.spawn(self.let_go_later, self.inodes[ino].path, names)

    async def let_go_later(self, prefix: str, names: list[str]) -> None:
        await trio.sleep(LATENCY)
        for inode in list(self.inodes.values()):
            if inode.path in {prefix + name for name in names} and not inode.handles:
                del self.inodes[inode.ino]
                self.filesystem.forget(inode.ino, inode.nlookup)

    def check_books(self) -> None:
        """At rest, a directory is needed by what the kernel holds of it, and nothing else."""
        needed: Counter[str] = Counter()
        for inode in self.inodes.values():
            head, slash, _ = inode.path.rstrip("/").rpartition("/")
            needed[head + slash] += inode.ino != 1
            needed[inode.path] += inode.is_directory
        directories = self.tree._directories
        for prefix, directory in directories.items():
            assert (directory.needed, directory.listed) == (needed.pop(prefix, 0), 0), prefix
        assert not +needed, "the kernel holds what is not held here"
        assert directories.rows == sum(map(len, directories.values()))


def pick(table: dict[int, Inode], number: int) -> Inode:
    return list(table.values())[number % len(table)]


async def run(
    program: list[Operation], metadata_ttl: float, negative_ttl: float, names: float
) -> None:
    async with trio.open_nursery() as nursery:
        run = Program(nursery, metadata_ttl, negative_ttl, names)
        await run.run(program)
        run.check_books()
        nursery.cancel_scope.cancel()


@settings(max_examples=300)
@given(
    program=programs,
    ttls=st.sampled_from([(0.0, 0.0), (1.0, 1.0), (60.0, 5.0), (5.0, 60.0), (1e9, 1e9)]),
    names=st.sampled_from([math.inf, 3000.0, 0.0]),
)
def test_every_answer_was_true_and_every_read_is_of_one_version(
    program: list[Operation], ttls: tuple[float, float], names: float
) -> None:
    trio.run(run, program, *ttls, names, clock=MockClock(autojump_threshold=0.0))

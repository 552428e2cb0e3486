"""What a bucket means as files: verbs on inodes and handles. Here, and only here.

An inode is a directory, or one version of one object. A file that is replaced in the
bucket gets a new inode when its name is next looked up, as if it had been renamed over;
whoever has the old one open goes on with the old version, or gets an error. So the
kernel's page cache never holds bytes of two versions under one inode.

INVARIANT: only what was handed to the kernel counts as a lookup, and is counted by
`remember` at the moment the kernel takes it.

Must not know: errno, bytes names, pyfuse3, boto3, diskcache.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from typing import NamedTuple

import trio

from s3mount.errors import (
    BadHandle,
    IsADirectory,
    NameTooLong,
    NoSuchFile,
    NotADirectory,
    NotFound,
    RequestError,
    Stale,
    VersionChanged,
)
from s3mount.files_ahead import FilesAhead
from s3mount.model import ObjectInfo
from s3mount.namespace.inodes import Node
from s3mount.namespace.listing import NAME_MAX
from s3mount.namespace.readdir import Listing
from s3mount.namespace.tree import Found, Tree
from s3mount.reading.failures import Failures
from s3mount.reading.fetcher import Fetcher
from s3mount.reading.handle import Handle
from s3mount.reading.readahead import Readahead

# st_blksize: tools size their buffers by it. 128 KiB is what cp and cat use at least; Python
# allocates a buffer of this size for every open(), so 1 MiB would slow thousands of small files.
BLKSIZE = 128 * 1024

# Answers that are remembered for the sake of a read that fails: those of a second or two.
_ANSWERS_KEPT = 1024
# Versions that a read goes through, each gone when its bytes were asked for, until it gives up.
_MOST_VERSIONS = 4


class Attr(NamedTuple):
    """The attributes of one inode, as stat(2) shows them."""

    ino: int
    mode: int  # type and permissions
    nlink: int
    uid: int
    gid: int
    size: int  # bytes
    mtime_ns: int
    ttl: float  # seconds for which they stay good


class Entry(NamedTuple):
    """One entry of a directory, for an open directory handle."""

    name: str
    node: Node
    attr: Attr
    cursor: int  # where the entry after it is


@dataclass(frozen=True, slots=True)
class Look:
    """What files look like: owner and permissions, which a bucket does not tell."""

    uid: int
    gid: int
    file_mode: int
    dir_mode: int
    # mtime of directories without a marker object: the time of the mount, since it must
    # stay the same for as long as the directory is known
    directory_mtime_ns: int


class _File:
    """One open file."""

    __slots__ = ("failures", "handle", "node")

    def __init__(self, node: Node, handle: Handle) -> None:
        self.node = node
        self.handle = handle
        self.failures = Failures()


class _Directory:
    """One open directory: its pass through the entries, begun anew by rewinddir."""

    __slots__ = ("listing", "node", "was_read")

    def __init__(self, node: Node, listing: Listing) -> None:
        self.node = node
        self.listing = listing
        self.was_read = False


class Filesystem:
    """The verbs. `ino` and `fh` are the kernel's; names are `str`."""

    def __init__(
        self,
        tree: Tree,
        fetcher: Fetcher,
        readahead: Readahead,
        look: Look,
        ahead: FilesAhead,
    ) -> None:
        self._tree = tree
        self._ahead = ahead
        self._fetcher = fetcher
        self._readahead = readahead
        self._look = look
        self._handles = count(1)
        self._files: dict[int, _File] = {}
        self._directories: dict[int, _Directory] = {}
        # What the kernel was given last, of which it has pages: inodes, and bytes [start, stop).
        self._answered: deque[tuple[int, int, int]] = deque(maxlen=_ANSWERS_KEPT)
        # Inodes that are longer than the kernel takes them for, until it was told, or could not be.
        self._untold: dict[int, trio.Event] = {}
        # Called, and waited for, when an inode's attributes changed under the kernel.
        self.on_changed: Callable[[int], Awaitable[None]] = _nothing
        # The same when the file of the inode has grown to so many bytes; with the last of them.
        # Raises `Stale` when the kernel cannot be told.
        self.on_longer: Callable[[int, int, bytes], Awaitable[None]] = _nothing
        # Called when names of the directory `ino` are gone, or stand for another inode now.
        self.on_lost: Callable[[int, list[str]], None] = lambda _ino, _names: None
        tree.on_lost = self._lose
        # The kernel forgets a name that is gone, and one that is not needed, in the same way.
        tree.forgetting.let_go = self._lose

    # --- names --------------------------------------------------------------------

    async def lookup(self, parent: int, name: str) -> tuple[Attr | None, float]:
        """The entry's attributes and the seconds for which the answer is good.

        None instead of attributes: there is no such name. Raises `NotADirectory`,
        `NameTooLong`, and any `RequestError`.
        """
        answer = self.known(parent, name)
        if answer is None:
            answer = self._found(await self._tree.lookup(self._directory_node(parent), name))
        return answer

    def known(self, parent: int, name: str) -> tuple[Attr | None, float] | None:
        """The same without waiting; None when there is something to wait for."""
        node = self._directory_node(parent)
        # The kernel itself refuses names only from 1,025 bytes on (FUSE_NAME_MAX).
        if len(name) > NAME_MAX // 4 and len(name.encode()) > NAME_MAX:
            raise NameTooLong(f"a name of {len(name.encode())} bytes", f"{NAME_MAX} is the limit")
        if name in {".", ".."}:
            return self._found(Found(node if name == "." else node.parent or node, 0.0))
        found = self._tree.known(node, name)
        return None if found is None else self._found(found)

    def _found(self, found: Found) -> tuple[Attr | None, float]:
        node, ttl, file = found
        if node is None:
            return None, self._tree.refresher.ask_again_in(ttl, is_absent=True)
        self._tree.inodes.remember(node)
        ttl = self._tree.refresher.ask_again_in(ttl)
        return self._attr(node, ttl) if file is None else self._file_attr(node, file, ttl), ttl

    def forget(self, ino: int, nlookup: int) -> None:
        """The kernel gives `nlookup` references to the inode back."""
        self._tree.inodes.forget(ino, nlookup)
        if self._untold and self._tree.inodes.get(ino) is None:
            self._untold.pop(ino, None)

    def getattr(self, ino: int) -> Attr:
        """The inode's attributes. Costs no request: they belong to the version it stands for."""
        node = self._node(ino)
        return self._attr(node, self._tree.ttl(node))

    # --- directories --------------------------------------------------------------

    def opendir(self, ino: int) -> int:
        """A directory handle, for one pass through the entries."""
        node = self._directory_node(ino)
        fh = next(self._handles)
        self._directories[fh] = _Directory(node, self._tree.listing(node))
        return fh

    async def entries(self, fh: int, cursor: int) -> Iterator[Entry]:
        """Entries from the cursor on: at least one, unless the directory has no more.

        The cursor is 0 at the start; from there, a handle that was read begins anew. Of
        each entry that the kernel takes, `taken` must be called. Raises any `RequestError`.
        """
        while (entries := self.known_entries(fh, cursor)) is None:
            await self._open_directory(fh).listing.extend()
        return entries

    def directory_of(self, fh: int) -> int:
        """The inode of an open directory."""
        return self._open_directory(fh).node.ino

    def known_entries(self, fh: int, cursor: int) -> Iterator[Entry] | None:
        """The same without waiting; None when there is something to wait for."""
        directory = self._open_directory(fh)
        if cursor == 0 and directory.was_read:
            directory.listing.close()
            directory.listing = self._tree.listing(directory.node)
        listing = directory.listing
        while True:
            entries = self._entries(directory.node, listing, cursor)
            # Cursors 0 and 1 are "." and "..": the names start at 2, and come with those.
            first = next(entries, None) if cursor >= 2 or listing.names else None
            if first is not None or listing.is_complete:
                directory.was_read = True
                return entries if first is None else chain((first,), entries)
            if not listing.take():
                directory.was_read = False
                return None

    def _entries(self, node: Node, listing: Listing, cursor: int) -> Iterator[Entry]:
        if cursor == 0:
            yield Entry(".", node, self._attr(node, 0.0), 1)
        if cursor <= 1:
            parent = node.parent or node
            yield Entry("..", parent, self._attr(parent, 0.0), 2)
        first = max(0, cursor - 2)
        asked = ttl = -1.0
        look, mode = self._look, stat.S_IFREG | self._look.file_mode
        names = map(listing.names.__getitem__, range(first, len(listing.names)))
        for at, child, good, file in self._tree.shown(node, names, listing.not_before):
            if good != asked:
                asked, ttl = good, self._tree.refresher.ask_again_in(good)
            # As `_attr`, and without its call, and the constructors' in Python: of thousands of
            # names these are the most of the work.
            if file is None:
                attr = self._attr(child, ttl)
            else:
                attr = tuple.__new__(Attr, (child.ino, mode, 1, look.uid, look.gid, *file, ttl))
            yield tuple.__new__(Entry, (child.name, child, attr, first + at + 3))

    def taken(self, entry: Entry) -> None:
        """The kernel took the entry: it counts as a lookup, except for "." and ".."."""
        _, node, _, cursor = entry
        if cursor > 2:
            self._tree.inodes.remember(node)

    def releasedir(self, fh: int) -> None:
        """The directory handle was closed."""
        directory = self._directories.pop(fh, None)
        if directory is not None:
            directory.listing.close()

    # --- files --------------------------------------------------------------------

    def is_current(self, ino: int) -> bool:
        """Whether the inode's name still stands for it, as far as is known."""
        return self._tree.is_current(self._node(ino))

    def open(self, ino: int) -> int:
        """A handle on the version that the inode stands for. Costs no request."""
        node = self._node(ino)
        info = node.info
        if info is None:
            raise IsADirectory(f"{node.name!r} is a directory")
        self._tree.used(node)
        self._ahead.opened(node)
        fh = next(self._handles)
        self._files[fh] = _File(node, Handle(info, self._fetcher, self._readahead))
        return fh

    def known_bytes(self, fh: int, offset: int, size: int) -> memoryview | None:
        """The same as `read`, of a whole small file that is here; None when there is more to do."""
        file = self._file(fh)
        if file.failures or self._untold:
            return None
        info = file.node.info
        if info is None or not file.handle.info.is_same_version(info):
            return None
        data = file.handle.whole(offset, size)
        if data is not None:
            file.node.was_read = True
            self._answered.append((file.node.ino, offset, offset + len(data)))
        return data

    async def read(self, fh: int, offset: int, size: int) -> memoryview:
        """The bytes from `offset` on: `size` of them, fewer only at the end of the file.

        The buffer is good until the caller next awaits. Raises `Stale` when the version
        is gone from the bucket, and any `RequestError`.
        """
        file = self._file(fh)
        if (failure := file.failures.recall(offset)) is not None:
            raise failure.with_traceback(None)
        ino = file.node.ino
        try:
            data = await self._read(file.node, file.handle, offset, size)
        except RequestError as error:
            file.failures.remember(offset, size, error)
            raise
        except Stale as error:
            # Behind pages that it has, the kernel reads ahead, and more than it was asked for:
            # what is here of that is still good, page by page.
            if not any(i == ino and start < offset <= stop for i, start, stop in self._answered):
                file.failures.remember(offset, size, error)
            raise
        self._answered.append((ino, offset, offset + len(data)))
        return data

    async def _read(self, node: Node, handle: Handle, offset: int, size: int) -> memoryview:
        """The bytes of the version that the node stands for at the moment of the answer."""
        for _ in range(_MOST_VERSIONS):
            if self._untold:
                await self._until_told(node)
            assert node.info is not None
            if not handle.info.is_same_version(node.info):
                handle.switch(node.info)
            version = handle.info
            try:
                data = await handle.read(offset, size)
            except (VersionChanged, NotFound) as gone:
                await self._take_new_version(node, version, gone)
                continue
            # Another reader may have taken a new version meanwhile: these bytes are of one
            # that the inode no longer stands for, then, or for which the kernel is not ready.
            if version.is_same_version(node.info) and node.ino not in self._untold:
                node.was_read = True
                return data
        raise Stale(f"{node.name!r} is being replaced again and again")

    async def _take_new_version(
        self, node: Node, version: ObjectInfo, gone: VersionChanged | NotFound
    ) -> None:
        """Let the node stand for what replaced `version`, unless any of that was handed out."""
        self._tree.doubt(node)
        assert node.info is not None
        if not node.info.is_same_version(version):
            return  # another reader did it
        if node.was_read:
            raise Stale(f"{node.name!r} was replaced or deleted while it was read") from gone
        now = await self._tree.adopt(node)
        if now is None:
            raise Stale(f"{node.name!r} was deleted before it was read") from gone
        if now.is_same_version(version):
            self._tree.doubt(node)
            raise Stale(f"{node.name!r} was replaced, and cannot go on as the same file") from gone
        if now.size <= version.size:
            await self.on_changed(node.ino)
        elif node.ino not in self._untold:  # else another reader does it
            await self._tell_longer(node, now)

    async def _tell_longer(self, node: Node, now: ObjectInfo) -> None:
        """Have the kernel know that the file is longer, before anything of it is handed out.

        It ends each read(2) where it takes the file to end. When it cannot be told, the inode
        is of no use any more.
        """
        self._untold[node.ino] = over = trio.Event()
        try:
            content = self._fetcher.content(now)
            last = await self._fetcher.read(content, now.size - 1, now.size, goes_on=False)
            await self.on_longer(node.ino, now.size, bytes(last))
            del self._untold[node.ino]
        except (VersionChanged, NotFound) as gone:
            raise Stale(f"{node.name!r} is being replaced again and again") from gone
        finally:
            if node.ino in self._untold:
                self._tree.doubt(node)
            over.set()

    async def _until_told(self, node: Node) -> None:
        over = self._untold.get(node.ino)
        if over is not None:
            await over.wait()
            if node.ino in self._untold:
                raise Stale(f"{node.name!r} was replaced by a longer one")

    def release(self, fh: int) -> None:
        """The file was closed."""
        file = self._files.pop(fh, None)
        if file is not None:
            file.handle.close()

    # --- nodes --------------------------------------------------------------------

    def _lose(self, ino: int, names: list[str]) -> None:
        self.on_lost(ino, names)

    def _node(self, ino: int) -> Node:
        node = self._tree.inodes.get(ino)
        if node is None:
            raise NoSuchFile(f"inode {ino} was forgotten")
        return node

    def _directory_node(self, ino: int) -> Node:
        node = self._node(ino)
        if node.directory is None:
            raise NotADirectory(f"{node.name!r} is a file")
        return node

    def _file(self, fh: int) -> _File:
        file = self._files.get(fh)
        if file is None:
            raise BadHandle(f"no open file has the handle {fh}")
        return file

    def _open_directory(self, fh: int) -> _Directory:
        directory = self._directories.get(fh)
        if directory is None:
            raise BadHandle(f"no open directory has the handle {fh}")
        return directory

    def _attr(self, node: Node, ttl: float) -> Attr:
        info = node.info
        if info is not None:
            return self._file_attr(node, (info.size, info.mtime_ns), ttl)
        look = self._look
        marker = node.directory.marker if node.directory is not None else None
        mtime_ns = look.directory_mtime_ns if marker is None else marker.mtime_ns
        # nlink 1: "the number of subdirectories is unknown", so that find(1) visits them all.
        mode = stat.S_IFDIR | look.dir_mode
        return Attr(node.ino, mode, 1, look.uid, look.gid, 0, mtime_ns, ttl)

    def _file_attr(self, node: Node, size_and_mtime: tuple[int, int], ttl: float) -> Attr:
        look = self._look
        mode = stat.S_IFREG | look.file_mode
        return Attr(node.ino, mode, 1, look.uid, look.gid, *size_and_mtime, ttl)


async def _nothing(*_: object) -> None:
    await trio.lowlevel.checkpoint()

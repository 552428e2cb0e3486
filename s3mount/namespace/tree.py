"""The tree of names: finds and lists entries, asking S3 only for what is not known.

`Tree` joins the inode table, the directories' knowledge and the bucket. A name in a
stretch that is known, and fresh, costs no request. In the dark, one LIST that starts
just before the name says in one round trip whether it is a file, a directory or
nothing, and brings the names that follow.

Freshness: what was learned by a request sent at time t is good until t + TTL, and
always good for whoever asked before t. So with a TTL of 0 every question goes to S3,
once.

Must not know: errno, bytes names, file handles, blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import trio

from s3mount.errors import BadReply
from s3mount.model import ObjectInfo
from s3mount.namespace.ahead import DirectoriesAhead
from s3mount.namespace.directories import Directories
from s3mount.namespace.directory import Directory, Lost
from s3mount.namespace.entries import shown_at
from s3mount.namespace.forgetting import Forgetting
from s3mount.namespace.inodes import Inodes, Node
from s3mount.namespace.known import END, START
from s3mount.namespace.learning import Learning
from s3mount.namespace.listing import is_short, is_showable
from s3mount.namespace.lookahead import InOrder
from s3mount.namespace.order import Place, entries_after, place_of
from s3mount.namespace.pages import from_name
from s3mount.namespace.readdir import Listing
from s3mount.namespace.refresh import Refresher
from s3mount.namespace.remembered import Remembered
from s3mount.s3.bucket import Bucket

OnLost = Callable[[int, list[str]], None]

# A lookup needs at most four pages (the directory's start, the name's surroundings, the
# probe below "name/", and one more when a page ends between), but where more than a thousand
# names stand just before it; very many more mean that the endpoint does not do what was asked.
_MAX_PAGES_A_LOOKUP = 64

# Seconds for which knowledge must be good, or what is listed ahead is too old when it is needed.
_TTL_WORTH_AHEAD = 1.0

# Names behind the one looked up: a page takes as long as some 700 lookups of known names.
LOOKED_FURTHER = 700


class Found(NamedTuple):
    """The answer to a lookup."""

    node: Node | None  # None: no such name
    ttl: float  # seconds for which the answer stays good
    file: tuple[int, int] | None = None  # as of `Shown`


class Shown(NamedTuple):
    """An entry of a listing."""

    at: int  # where its name is among those that were asked for
    node: Node
    ttl: float  # seconds for which it stays good
    file: tuple[int, int] | None  # size in bytes and mtime in nanoseconds; None for a directory


class Tree:
    """Names below one prefix of one bucket."""

    def __init__(
        self,
        bucket: Bucket,
        prefix: str,
        nursery: trio.Nursery,
        *,
        metadata_ttl: float,
        negative_ttl: float,
        remembered: Remembered | None = None,
    ) -> None:
        """`remembered`: what an earlier mount knew."""
        self._prefix = prefix
        self._metadata_ttl = metadata_ttl
        self._negative_ttl = negative_ttl
        # Ages may be off by this much: little beside the TTL that they are compared with.
        self._grain = min(1.0, metadata_ttl / 10, negative_ttl / 10)
        self._directories = Directories(self._grain, remembered)
        self.learning = Learning(bucket, self._directories, nursery, self._learned)
        self.inodes = Inodes(self._directories.have(prefix))
        self._directories[prefix].ino = self.inodes.root.ino
        self.ahead = DirectoriesAhead(
            self._directories,
            top=prefix,
            nursery=nursery,
            oldest=lambda: trio.current_time() - metadata_ttl,
            list_flat=self.learning.list_flat,
            list_one=lambda below: self.learning.learn_ahead(self._directories.have(below), START),
        )
        self.refresher = Refresher(
            ttl=metadata_ttl,
            negative_ttl=negative_ttl,
            top=prefix,
            nursery=nursery,
            list_page=self.learning.learn,
            list_flat=self.learning.list_flat,
        )
        self._in_order: InOrder[str] = InOrder()
        self._further = ("", "")  # directory and position from which on was listed ahead last
        self.on_lost: OnLost = lambda _ino, _names: None
        self.forgetting = Forgetting(self._directories, self.inodes)

    # --- asking -------------------------------------------------------------------

    async def lookup(self, parent: Node, name: str) -> Found:
        """The entry `name` of the directory `parent`.

        Raises any `RequestError` when S3 had to be asked and the answer failed.
        """
        directory = parent.directory
        assert directory is not None
        asked = trio.current_time()
        for _ in range(_MAX_PAGES_A_LOOKUP):
            found = self.known(parent, name, asked)
            if found is not None:
                return found
            directory.needed += 1
            try:
                await self._light(directory, name, asked)
            finally:
                directory.needed -= 1
        raise BadReply(
            f"the endpoint's listings of {directory.prefix!r} never reach {name!r}",
            "use an endpoint that supports ListObjectsV2 with start-after",
        )

    def known(self, parent: Node, name: str, asked: float = math.inf) -> Found | None:
        """The same, where it is known; None: S3 must be asked.

        `asked`: since when somebody has waited for the answer.
        """
        directory = parent.directory
        assert directory is not None
        if not is_showable(name) or not is_short(directory.prefix + name):
            return Found(None, self._negative_ttl)
        self._directories.use(directory)
        now = trio.current_time()
        positive, negative = now - self._metadata_ttl, now - self._negative_ttl
        sighting = directory.find(
            name, positive=min(asked, positive), negative=min(asked, negative)
        )
        if sighting is None:
            return None
        row, learned, hi = sighting
        if row < 0:
            self.refresher.used(directory, name, learned, is_absent=True)
            return Found(None, max(0.0, learned - negative))
        self.refresher.used(directory, name, learned)
        if hi != END:
            self._look_further(directory, row, hi)
        file = directory.entries.size_and_mtime(row)
        return Found(self._node(parent, name, row), max(0.0, learned - positive), file)

    def shown(self, parent: Node, names: Iterable[str], not_before: float) -> Iterator[Shown]:
        """The entries as they stand now, for a listing that learned them since `not_before`.

        Names that are gone meanwhile are left out. To be used up without an await.
        """
        directory = parent.directory
        assert directory is not None
        entries = directory.entries
        now = trio.current_time()
        lo = hi = ""
        ttl = 0.0
        i, rows = -1, entries.names
        for at, name in enumerate(names):
            i += 1  # mostly they are the rows one after the other
            if not (i < len(rows) and rows[i] == name) and (i := entries.find(name)) < 0:
                continue
            position = shown_at(name)
            if not (lo <= name and position < hi):  # else both are as old as the name before
                lo, hi, learned = directory.known.around(position)
                if not lo <= name < hi:
                    # Two requests told of "name" and of "name/": it is as old as the older.
                    known = (directory.known.since(position), directory.known.since(name))
                    times = [time for time in known if time is not None]
                    learned = min(times, default=not_before)
                    lo = hi = ""
                ttl = max(0.0, learned + self._metadata_ttl - now)
                self.refresher.used(directory, name, learned)
            node = self._node(parent, name, i)
            # Its own constructor is a function in Python.
            yield tuple.__new__(Shown, (at, node, ttl, entries.size_and_mtime(i)))

    def listing(self, parent: Node) -> Listing:
        """A fresh walk through the entries of the directory `parent`."""
        directory = parent.directory
        assert directory is not None
        self._directories.use(directory)
        self.forgetting.grown()
        covering = None
        if self._metadata_ttl >= _TTL_WORTH_AHEAD:
            covering = self.ahead.covering(directory.prefix)
            self.ahead.visit(directory.prefix)
        return Listing(self.learning, directory, trio.current_time() - self._metadata_ttl, covering)

    async def learn_root(self) -> None:
        """List the first page of the root: the mount's check, and its first knowledge."""
        directory = self.inodes.root.directory
        assert directory is not None
        await self.learning.learn(directory, START)

    def doubt(self, node: Node) -> None:
        """S3 answered that the file is gone or changed: the next lookup of its name asks again."""
        if node.parent is None or node.parent.directory is None:
            return
        directory = node.parent.directory
        self._directories.doubt(directory, node.name)
        if directory.ino_of(node.name) == node.ino:
            node.pin(node.info)
            directory.set_ino(node.name, 0)
        self.on_lost(directory.ino, [node.name])

    def used(self, node: Node) -> None:
        """The file was opened: its name is in use."""
        if node.parent is not None and node.parent.directory is not None:
            learned = node.parent.directory.known.since(shown_at(node.name))
            if learned is not None:
                self.refresher.used(node.parent.directory, node.name, learned)

    def is_current(self, node: Node) -> bool:
        """Whether the node's name still stands for it, as far as is known."""
        if node.parent is None or node.parent.directory is None:
            return True
        return node.parent.directory.ino_of(node.name) == node.ino

    async def adopt(self, node: Node) -> ObjectInfo | None:
        """Let the file's node stand for the version that is in the bucket now.

        Returns what it stands for then, or None when no file is left there. It stays what
        it is when any byte of it was handed out (the kernel has pages of it), and when the
        new version is shorter: the kernel, which takes the file for longer, would fill what
        is missing with zeros. Raises any `RequestError`.
        """
        assert node.parent is not None
        found = await self.lookup(node.parent, node.name)
        if found.node is None or found.node.info is None:
            return None
        assert node.info is not None
        if node.was_read or found.node.info.size < node.info.size:
            return node.info
        directory = node.parent.directory
        assert directory is not None
        rival = self.inodes.get(directory.ino_of(node.name))
        if rival is not None:  # a lookup came first: that node no longer follows the name
            rival.pin(rival.info)
        directory.set_ino(node.name, node.ino)
        node.pin(None)
        return node.info

    def ttl(self, node: Node) -> float:
        """Seconds for which what is known of the node stays good."""
        if node.parent is None or node.parent.directory is None:
            return self._metadata_ttl
        directory = node.parent.directory
        learned = directory.known.since(shown_at(node.name))
        if learned is None or not self.is_current(node):
            return 0.0
        return max(0.0, learned + self._metadata_ttl - trio.current_time())

    # --- looking ahead --------------------------------------------------------------

    def info(self, place: Place) -> ObjectInfo | None:
        """The file at a place, as far as it is known; None when no file is."""
        directory = self._directories.get(place.prefix)
        if directory is None or directory.is_directory(place.name):
            return None
        return directory.file(place.name)

    def files_after(self, place: Place, *, at: str, up: int = 0) -> Iterator[Place]:
        """The files behind a place in tree order, as far as the tree is known without a gap.

        Across the end of the directory when a walk that is at the directory `at` goes on there,
        as far as that goes; else into other directories below the one so many levels `up`.
        """
        top = self.ahead.top_at(at)
        if top is None or not place.prefix.startswith(top):
            top = place.prefix
            while up and top != self._prefix:
                top = place_of(top).prefix
                up -= 1
        oldest = trio.current_time() - self._metadata_ttl
        for step in entries_after(self._directories, place, top=top, not_before=oldest):
            if step.is_dark:
                return
            if not step.is_directory:
                yield step.place

    def rank(self, place: Place) -> int:
        """How many known names of its directory are shown before a place."""
        directory = self._directories.get(place.prefix)
        return 0 if directory is None else directory.entries.at(shown_at(place.name))

    def names(self, prefix: str) -> Collection[str]:
        """All known names of a directory."""
        directory = self._directories.get(prefix)
        return () if directory is None else directory.entries.names

    def file_names(self, prefix: str, first: int, stop: int) -> Iterator[str]:
        """Of the known names of a directory, as shown, those from `first` to `stop` of files."""
        directory = self._directories.get(prefix)
        if directory is None:
            return iter(())
        entries = directory.entries
        names = entries.names[first:stop]
        if not entries.directories:
            return iter(names)
        return (name for row, name in enumerate(names, first) if not entries.is_directory(row))

    # --- asking S3 ----------------------------------------------------------------

    async def _light(self, directory: Directory, name: str, asked: float) -> None:
        """One request that brings `name` out of the dark, or nearer to the light.

        The first dark lookup lists from just before the name. The second takes the
        directory from its start: the names of one directory are mostly asked for together.
        """
        ttl = min(self._metadata_ttl, self._negative_ttl)
        not_before = min(asked, trio.current_time() - ttl)
        if _is_since(directory, name, not_before):
            # A page ends with the name: what is below "name/", the next one tells.
            hi = directory.known.reach(name, not_before)
            if self._further == (directory.prefix, hi):
                await self.learning.learn(directory, hi, not_before=not_before)
            else:
                await self.learning.probe(directory, name, not_before)
        elif directory.dark_lookups and not _is_since(directory, START, not_before):
            await self.learning.learn(directory, START, not_before=not_before)
            directory.dark_lookups = 0
        else:
            if directory.known.oldest() is None and self._metadata_ttl >= _TTL_WORTH_AHEAD:
                self.ahead.look_into(directory.prefix)
            # Counted when it has landed: many who ask for one name at once join one flight.
            # Thousands of names may stand between the two: from where the page before ended.
            lo = directory.known.reach(from_name(name), not_before)
            await self.learning.learn(directory, lo, not_before=not_before)
            directory.dark_lookups += 1

    def _look_further(self, directory: Directory, row: int, hi: str) -> None:
        """Have listed what is behind the position `hi` when lookups in order come near it."""
        if not self._in_order.looked_up(directory.prefix, row):
            return
        names, far = directory.entries.names, row + LOOKED_FURTHER
        is_near = far >= len(names) or shown_at(names[far]) >= hi
        wanted = directory.prefix, hi
        # Once: whatever comes of it, lookups in the dark ask for themselves.
        if is_near and wanted != self._further and self._metadata_ttl >= _TTL_WORTH_AHEAD:
            self._further = wanted
            if directory.known.since(hi) is None:
                self.learning.learn_ahead(directory, hi)

    def _learned(self, directory: Directory, lost: list[Lost]) -> None:
        """A page told of the directory, and took these entries away."""
        for _, ino, info in lost:
            node = self.inodes.get(ino)
            if node is not None:
                node.pin(info)
        if lost and directory.ino:
            self.on_lost(directory.ino, [name for name, _, _ in lost])
        self.forgetting.grown()

    # --- making answers -----------------------------------------------------------

    def _node(self, parent: Node, name: str, row: int) -> Node:
        """The node of an entry: the one that the kernel holds, or a new one."""
        assert parent.directory is not None
        entries = parent.directory.entries
        ino = entries.ino(row)
        node = self.inodes.get(ino) if ino else None
        if node is None:
            if not ino:
                ino = self.inodes.new_ino()
                entries.set_ino(row, ino)
            node = Node(ino, parent, name)
            if entries.directories and entries.is_directory(row):
                node.directory = self._directories.have(parent.directory.prefix + shown_at(name))
                node.directory.ino = ino
        return node


def _is_since(directory: Directory, position: str, not_before: float) -> bool:
    learned = directory.known.since(position)
    return learned is not None and learned >= not_before

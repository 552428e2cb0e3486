"""The inode table: what the kernel holds, and how often it was handed out.

The kernel counts each entry it was given (by lookup, or by an entry of
readdirplus that it accepted) and gives the counts back with FORGET. A node is
kept while its `nlookup` is not 0.

INVARIANTS
- Inode numbers are handed out in rising order and never again for another thing,
  so `generation` is always 0. Entries that are listed first have smaller numbers:
  tools that sort by inode (fts, `cp -r`, `tar`) then read in listing order.
- The root is never forgotten.
- A directory is needed by its node, and by those of its entries, for as long as they are held.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from s3mount.model import ObjectInfo
from s3mount.namespace.directory import Directory

ROOT_INO = 1  # FUSE_ROOT_ID


class Node:
    """One inode: a directory, or one version of one object.

    While a file's name stands for it, its metadata is its directory's row; only a node
    whose name was replaced or deleted keeps its own (`pin`).
    """

    __slots__ = ("_pinned", "directory", "ino", "name", "nlookup", "parent", "was_read")

    def __init__(
        self, ino: int, parent: Node | None, name: str, *, directory: Directory | None = None
    ) -> None:
        self.ino = ino
        self.parent = parent
        self.name = name
        self.directory = directory  # of a directory
        self.nlookup = 0
        self.was_read = False  # whether any byte of it was ever handed out
        self._pinned: ObjectInfo | None = None

    @property
    def info(self) -> ObjectInfo | None:
        """The version that the node stands for; None for a directory."""
        if self._pinned is not None or self.parent is None or self.directory is not None:
            return self._pinned
        assert self.parent.directory is not None
        return self.parent.directory.file(self.name)

    def pin(self, info: ObjectInfo | None) -> None:
        """Stand for this version, whatever becomes of the name; None: follow the name again."""
        self._pinned = info

    def __repr__(self) -> str:
        kind = "directory" if self.directory is not None else "file"
        return f"<Node {self.ino} {kind} {self.name!r} nlookup={self.nlookup}>"


class Inodes:
    """ino -> Node, with the kernel's lookup counts."""

    def __init__(self, root: Directory) -> None:
        self._numbers = count(ROOT_INO)
        self.root = Node(self.new_ino(), None, "", directory=root)
        self._nodes: dict[int, Node] = {self.root.ino: self.root}
        root.needed += 1
        # Called when an inode is held no longer: of its directory, and of itself if it is one.
        self.on_released: Callable[[Directory], None] = lambda _directory: None

    def new_ino(self) -> int:
        """The next inode number."""
        return next(self._numbers)

    def get(self, ino: int) -> Node | None:
        """The node, or None when the kernel does not (or no longer) hold it."""
        return self._nodes.get(ino)

    def remember(self, node: Node) -> None:
        """The kernel was given the node once more."""
        # An entry may be made twice before the kernel takes it: the table's node counts.
        held = self._nodes.setdefault(node.ino, node)
        if held.nlookup == 0 and held is not self.root:
            parent = node.parent
            if parent is not None and parent.directory is not None:
                parent.directory.needed += 1
            if node.directory is not None:
                node.directory.needed += 1
        held.nlookup += 1

    def forget(self, ino: int, nlookup: int) -> None:
        """The kernel gives `nlookup` of its references back."""
        node = self._nodes.get(ino)
        if node is None:
            return
        node.nlookup = max(0, node.nlookup - nlookup)
        if node.nlookup == 0 and node is not self.root:
            del self._nodes[ino]
            for directory in _directories(node):
                directory.needed -= 1
                self.on_released(directory)

    def __len__(self) -> int:
        return len(self._nodes)


def _directories(node: Node) -> list[Directory]:
    """The directory that the node is an entry of, and the one that it is."""
    parent = node.parent.directory if node.parent is not None else None
    return [directory for directory in (parent, node.directory) if directory is not None]

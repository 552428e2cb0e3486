"""Forgets names when they take more than their share of memory, least recently used first.

What is forgotten is found again when somebody asks. A directory can go once nobody needs it:
no inode of its own or of an entry is held by the kernel, nobody lists it, no lookup is under
way in it. When only the directory itself is held, its names go and it stays.

The kernel holds the inodes of all that it was shown, for as long as it has memory to spare.
So it is asked to let go of the files of directories that nobody used for the longest time;
what is open stays, and directories are left alone: a process may stand in one, and getcwd(2)
would fail there.

INVARIANT: what is in use stays, whatever the limit: a directory that is being listed, however
large, and the one that was used last.

Must not know: requests, how the kernel is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from s3mount.namespace.directories import Directories
from s3mount.namespace.directory import Directory
from s3mount.namespace.inodes import Inodes

# Bytes of resident memory, with names of 16 characters: an entry that is known, what is held
# for the kernel of it, and a directory beside its entries.
ENTRY = 120
NODE = 200
DIRECTORY = 1100

# Of the limit: what is left after forgetting, so that it is done seldom.
FLOOR = 0.75
# Of the limit: what names grow by before the next try, when the last one was not enough.
STEP = 1 / 16
# Of the limit: what is free and was learned last stays, when what is in use takes all of it. Else
# what is listed ahead of a walk would be gone before the walk comes to it.
RESERVE = 0.25
# Names that the kernel is asked to let go of at once: some 5 ms for the thread that serves.
ASKED_MOST = 4000
# A change of the size that is worth telling.
TOLD = 1024 * 1024


class Forgetting:
    """Keeps what the directories and inodes take below a limit."""

    def __init__(self, directories: Directories, inodes: Inodes) -> None:
        self._directories = directories
        self._inodes = inodes
        # Has the kernel let go of names of the directory `ino`.
        self.let_go: Callable[[int, list[str]], None] = lambda _ino, _names: None
        self._limit = self._try_at = math.inf  # `_try_at`: above which something is done
        self._on_size: Callable[[int], None] = lambda _size: None
        self._told = 0
        # Where the kernel was asked to let go of files, and of how many it did not so far.
        self._asked: dict[Directory, int] = {}
        self._rows_asked: dict[Directory, int] = {}  # the row from which on to ask the next time
        inodes.on_released = self.released

    @property
    def size(self) -> int:
        """Bytes of memory that names take, as far as they can be told."""
        directories = self._directories
        return directories.rows * ENTRY + len(directories) * DIRECTORY + len(self._inodes) * NODE

    def limit(self, size: float, on_size: Callable[[int], None]) -> None:
        """Let names take so many bytes; `on_size` is called when they take some more, or less."""
        self._limit = self._try_at = size
        self._on_size = on_size
        self.grown()

    def grown(self) -> None:
        """Something was learned, or handed out."""
        size = self.size
        if size > self._try_at:
            self._forget()
            size = self.size
        if abs(size - self._told) > TOLD:
            self._told = size
            self._on_size(size)

    def released(self, directory: Directory) -> None:
        """The kernel let go of an entry of the directory, or of the directory itself."""
        left = self._asked.get(directory)
        if left is None:
            return
        self._asked[directory] = left - 1
        is_free = self._is_free(directory)
        if is_free or left == 1:
            del self._asked[directory]
            if is_free and directory is not self._directories.latest:
                self._drop(directory)
            if not self._asked and self.size > self._limit:
                self._forget()
        self._try_at = min(self._try_at, self._next_try())

    def _forget(self) -> None:
        """Forget down to the floor, or ask the kernel for what that takes."""
        excess = self.size - self._limit * FLOOR
        free: list[Directory] = []
        wanted = ASKED_MOST
        for directory in self._directories.values():
            if excess <= 0:
                break
            if directory is self._directories.latest or directory.listed:
                continue
            if self._is_free(directory):
                free.append(directory)
                excess -= _weight(directory)
            elif directory in self._asked:
                excess -= self._asked[directory] * (NODE + ENTRY)
            elif wanted <= 0:
                break  # what comes next was used later, or is listed ahead of a walk
            elif self._own(directory):
                names = self._held_files(directory)
                wanted -= len(names)
                excess -= len(names) * (NODE + ENTRY)
                if names:
                    self._asked[directory] = len(names)
                    self.let_go(directory.ino, names)
        kept = 0.0 if excess <= 0 else self._limit * RESERVE
        while free and (kept := kept - _weight(free[-1])) >= 0:
            free.pop()
        for directory in free:
            self._drop(directory)
        self._try_at = self._next_try()

    def _next_try(self) -> float:
        """The size above which to look again: not at each page that is learned."""
        size = self.size
        return self._limit if size <= self._limit else size + self._limit * STEP

    def _own(self, directory: Directory) -> int:
        """1 when the kernel holds the directory itself."""
        node = self._inodes.get(directory.ino)
        return 1 if node is not None and node.directory is directory else 0

    def _is_free(self, directory: Directory) -> bool:
        """Whether nobody needs its names."""
        return directory.needed == self._own(directory) and not directory.listed

    def _held_files(self, directory: Directory) -> list[str]:
        """Names of files of the directory that the kernel holds: of some rows, others each time."""
        entries, inodes = directory.entries, self._inodes
        start = self._rows_asked.pop(directory, 0)
        stop = min(start + ASKED_MOST, len(entries))
        if stop < len(entries):
            self._rows_asked[directory] = stop
        return [
            entries.names[i]
            for i in range(start, stop)
            if not entries.is_directory(i) and inodes.get(entries.ino(i)) is not None
        ]

    def _drop(self, directory: Directory) -> None:
        self._asked.pop(directory, None)
        self._rows_asked.pop(directory, None)
        if not self._own(directory):
            self._directories.drop(directory)
        elif len(directory):
            self._directories.empty(directory)


def _weight(directory: Directory) -> int:
    """Bytes that come free when nobody needs the directory."""
    return DIRECTORY + len(directory) * ENTRY

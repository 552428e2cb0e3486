"""The directories of which something is known, by prefix.

Read from local disk, where names are kept there, when somebody first comes to them.

Must not know: inodes, requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from s3mount.namespace.directory import Directory, Lost
from s3mount.namespace.listing import Chapter
from s3mount.namespace.remembered import Remembered


class Directories(Mapping[str, Directory]):
    """prefix -> `Directory`, least recently used first; what is asked for with [] must be there."""

    def __init__(self, grain: float, remembered: Remembered | None = None) -> None:
        """Ages in the directories may be off by `grain` seconds."""
        self._grain = grain
        self._remembered = remembered
        self._held: dict[str, Directory] = {}
        self.latest: Directory | None = None  # the one that was used last
        self.rows = 0  # entries of all directories

    def __getitem__(self, prefix: str) -> Directory:
        return self._held[prefix]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    # A default other than None has no use here, and Mapping's overloads no need to be repeated.
    def get(self, prefix: str, default: object = None) -> Directory | None:  # type: ignore[override]
        """The directory, as far as anything is known of it."""
        directory = self._held.get(prefix)
        if directory is None and self._remembered is not None:
            directory = Directory(prefix, self._grain)
            if not self._recall(directory):
                return None
            self._held[prefix] = directory
        return directory

    def have(self, prefix: str) -> Directory:
        """The directory, also when nothing is known of it yet."""
        directory = self.get(prefix)
        if directory is None:
            directory = self._held[prefix] = Directory(prefix, self._grain)
        return directory

    def use(self, directory: Directory) -> None:
        """Somebody looks into the directory."""
        if directory is self.latest:
            return
        self.latest = directory
        if self._held.pop(directory.prefix, None) is not None:
            self._held[directory.prefix] = directory
        if directory.known.oldest() is None:
            self._recall(directory)

    # --- learning -----------------------------------------------------------------

    def apply(self, directory: Directory, chapter: Chapter, time: float) -> list[Lost]:
        """The directory is as a page tells, as of `time`. See `Directory.apply`."""
        # It may have been dropped while the page was on its way.
        held = self._held.pop(directory.prefix, directory)
        self._held[directory.prefix] = held  # as one used last: a walk will come for it
        before = len(directory)
        lost = directory.apply(chapter, time)
        if held is directory:
            self.rows += len(directory) - before
            self._note(directory)
        return lost

    def doubt(self, directory: Directory, name: str) -> None:
        """Nothing is known of the name any more."""
        directory.forget(name)
        self._note(directory)

    # --- forgetting ---------------------------------------------------------------

    def drop(self, directory: Directory) -> None:
        """Hold the directory no longer. What is to be kept of it on disk still will be."""
        if self._held.get(directory.prefix) is directory:
            del self._held[directory.prefix]
            self.rows -= len(directory)
            if self._remembered is not None:
                self._remembered.dropped(directory)

    def empty(self, directory: Directory) -> None:
        """Forget all entries of a directory that stays, for now the last one to look at."""
        if self._held.get(directory.prefix) is not directory:
            return
        self._held[directory.prefix] = self._held.pop(directory.prefix)
        self.rows -= len(directory)
        gone = directory.empty()
        if self._remembered is not None:
            self._remembered.emptied(gone)

    def _recall(self, directory: Directory) -> bool:
        before = len(directory)
        if self._remembered is None or not self._remembered.recall(directory):
            return False
        self.rows += len(directory) - before
        return True

    def _note(self, directory: Directory) -> None:
        if self._remembered is not None:
            self._remembered.changed(directory)

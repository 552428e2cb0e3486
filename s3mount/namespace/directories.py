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
    """prefix -> `Directory`; one that is asked for with [] must be there."""

    def __init__(self, grain: float, remembered: Remembered | None = None) -> None:
        """Ages in the directories may be off by `grain` seconds."""
        self._grain = grain
        self._remembered = remembered
        self._held: dict[str, Directory] = {}

    def __getitem__(self, prefix: str) -> Directory:
        return self._held[prefix]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def get(self, prefix: str, default: object = None) -> Directory | None:  # type: ignore[override]
        """The directory, as far as anything is known of it."""
        directory = self._held.get(prefix)
        if directory is None and self._remembered is not None:
            directory = Directory(prefix, self._grain)
            if not self._remembered.recall(directory):
                return None
            self._held[prefix] = directory
        return directory

    def have(self, prefix: str) -> Directory:
        """The directory, also when nothing is known of it yet."""
        directory = self.get(prefix)
        if directory is None:
            directory = self._held[prefix] = Directory(prefix, self._grain)
        return directory

    def apply(self, directory: Directory, chapter: Chapter, time: float) -> list[Lost]:
        """The directory is as a page tells, as of `time`. See `Directory.apply`."""
        lost = directory.apply(chapter, time)
        self._note(directory)
        return lost

    def doubt(self, directory: Directory, name: str) -> None:
        """Nothing is known of the name any more."""
        directory.forget(name)
        self._note(directory)

    def _note(self, directory: Directory) -> None:
        if self._remembered is not None:
            self._remembered.changed(directory)

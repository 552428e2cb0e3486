"""One open file: reads of it, and what they make worth fetching ahead.

A handle reads one version of one object. When that version is gone from the bucket
and nothing of it was handed out yet, `switch` takes the new one; the decision is the
filesystem's.
"""

from __future__ import annotations

from s3mount.model import ObjectInfo
from s3mount.reading.fetcher import Fetcher
from s3mount.reading.window import Window


class Readahead:
    """The share of memory that reading ahead may use, divided among those who do."""

    def __init__(self, budget: int) -> None:
        self._budget = budget  # bytes
        self._streaming = 0

    def join(self) -> None:
        """One more handle reads ahead."""
        self._streaming += 1

    def leave(self) -> None:
        """One handle fewer reads ahead."""
        self._streaming -= 1

    @property
    def limit(self) -> int:
        """Bytes that one handle may have ahead of its position."""
        return self._budget // max(1, self._streaming)


class Handle:
    """One open file of one version."""

    def __init__(self, info: ObjectInfo, fetcher: Fetcher, readahead: Readahead) -> None:
        self._fetcher = fetcher
        self._readahead = readahead
        self._is_streaming = False
        self.switch(info)

    @property
    def info(self) -> ObjectInfo:
        """The version that is read."""
        return self._content.info

    def switch(self, info: ObjectInfo) -> None:
        """Read this version from now on."""
        self._content = self._fetcher.content(info)
        self._window = Window(self._fetcher.geometry.block_size)

    async def read(self, offset: int, size: int) -> memoryview:
        """The bytes from `offset` on, `size` or as many as the object has.

        The buffer is good until the caller next awaits. Raises any `RequestError`.
        """
        end = self.info.size
        if offset >= end:
            return memoryview(b"")
        plan = self._window.read(offset, size, end, self._readahead.limit)
        start, stop = plan.demand
        self._fetcher.request(self._content, start, stop, urgent=True)
        begin, until = plan.ahead
        if plan.stream is not None and until > begin:
            if not self._is_streaming:
                self._is_streaming = True
                self._readahead.join()
            reached = self._fetcher.request(self._content, begin, until, urgent=False)
            plan.stream.ahead = reached
        return await self._fetcher.read(
            self._content, offset, min(offset + size, end), goes_on=plan.stream is not None
        )

    def close(self) -> None:
        """The file was closed: nothing more will be read."""
        if self._is_streaming:
            self._is_streaming = False
            self._readahead.leave()

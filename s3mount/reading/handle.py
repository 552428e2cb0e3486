"""One open file: reads of it, and what they make worth fetching ahead.

A handle reads one version of one object. When that version is gone from the bucket
and nothing of it was handed out yet, `switch` takes the new one; the decision is the
filesystem's.
"""

from __future__ import annotations

from s3mount.model import ObjectInfo
from s3mount.reading.fetcher import Fetcher
from s3mount.reading.readahead import Readahead
from s3mount.reading.window import Plan, Window


class Handle:
    """One open file of one version."""

    _window: Window | None  # from the first read on that has to wait

    def __init__(self, info: ObjectInfo, fetcher: Fetcher, readahead: Readahead) -> None:
        self._fetcher = fetcher
        self._readahead = readahead
        self._is_streaming = False
        self._under_way = 0  # reads that were not answered yet
        self._open(info)

    @property
    def info(self) -> ObjectInfo:
        """The version that is read."""
        return self._content.info

    def switch(self, info: ObjectInfo) -> None:
        """Read this version from now on."""
        self._leave_content()
        self._open(info)

    def whole(self, offset: int, size: int) -> memoryview | None:
        """The answer to a read of a whole small file that is here, without waiting; else None."""
        if offset or size < self._content.info.size:
            return None
        return self._fetcher.whole(self._content)

    async def read(self, offset: int, size: int) -> memoryview:
        """The bytes from `offset` on, `size` or as many as the object has.

        The buffer is good until the caller next awaits. Raises any `RequestError`.
        """
        content = self._content
        end = content.info.size
        if offset >= end:
            return memoryview(b"")
        alone = not self._under_way
        window = self._window
        if window is None:
            geometry = self._fetcher.geometry
            window = self._window = Window(
                geometry.block_size, geometry.sector_size, self._readahead.jumps
            )
            if end > geometry.block_size:
                self._readahead.begin(offset)
        plan = window.read(offset, size, end, self._readahead.limits, alone=alone)
        start, stop = plan.demand
        if plan.ahead or stop > offset + size:
            # Before what is read ahead; otherwise `read` below asks for it.
            self._fetcher.request(content, start, stop, urgent=True)
        self._look_ahead(plan)
        stream = plan.stream
        goes_on = stream is not None and stream.comes_back(self._fetcher.geometry.block_size)
        self._under_way += 1
        if stream is not None:
            stream.pending += 1
        try:
            stop = min(offset + size, end)
            return await self._fetcher.read(content, offset, stop, goes_on=goes_on)
        finally:
            self._under_way -= 1
            if stream is not None:
                stream.pending -= 1

    def close(self) -> None:
        """The file was closed: nothing more will be read."""
        self._leave_content()
        if self._is_streaming:
            self._is_streaming = False
            self._readahead.leave()

    def _look_ahead(self, plan: Plan) -> None:
        """Have fetched what is worth it, as far as memory goes, and dropped what is not."""
        for start, stop in plan.given_up:
            self._disclaim(start, stop)
        if not plan.ahead:
            return
        assert plan.stream is not None
        if not self._is_streaming:
            self._is_streaming = True
            self._readahead.join()
        for start, stop in plan.ahead:
            reached = self._fetcher.request(
                self._content, start, stop, urgent=False, longest=plan.run
            )
            if reached < stop:
                plan.stream.fell_short(start, reached)
                break

    def _open(self, info: ObjectInfo) -> None:
        self._content = self._fetcher.content(info)
        self._content.readers += 1
        self._window = None

    def _leave_content(self) -> None:
        if self._window is not None:
            self._window.leave()
            for start, stop in self._window.wanted:
                self._disclaim(start, stop)
        self._content.readers -= 1

    def _disclaim(self, start: int, stop: int) -> None:
        # Another handle on the same version may be about to read it.
        if self._content.readers == 1:
            self._fetcher.disclaim(self._content, start, stop)

"""Tells when something that happens again and again has stopped for a moment.

Used on the trio thread alone. Times in seconds.
"""

from __future__ import annotations

from collections.abc import Callable

import trio


class Pauses:
    """Calls `on_pause` once nothing was noted for `length`."""

    def __init__(self, length: float, on_pause: Callable[[], None]) -> None:
        self._length = length
        self._on_pause = on_pause
        self._ends = 0.0  # when a pause is one
        self._is_watching = False

    def note(self) -> None:
        """It happened."""
        self._ends = trio.current_time() + self._length
        if not self._is_watching:
            self._is_watching = True
            trio.lowlevel.spawn_system_task(self._watch)

    async def _watch(self) -> None:
        while trio.current_time() < self._ends:  # noqa: ASYNC110  # it moves meanwhile
            await trio.sleep_until(self._ends)
        self._is_watching = False
        self._on_pause()

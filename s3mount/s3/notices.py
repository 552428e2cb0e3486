"""The way from a thread back to the trio thread, and to the task that the thread works for.

INVARIANTS
- What is posted is called on the trio thread, in the order in which it was posted; many calls
  that are posted meanwhile wake that thread once.
- A `Caller` is woken once, by its thread alone: who is cancelled leaves when that has let go.

Knows no connections, and not what is told.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import outcome
import trio


class Notices:
    """Calls that threads want made on the trio thread, where this is made."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_awake = False

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """From any thread. `call` must not raise."""
        self._posted.append((call, args))
        if not self._is_awake:
            self._is_awake = True
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._take)

    def _take(self) -> None:
        # First: whoever appends from here on wakes us again.
        self._is_awake = False
        while self._posted:
            call, args = self._posted.popleft()
            call(*args)


class Caller:
    """The current task, which is about to wait for a thread. Used on the trio thread alone."""

    __slots__ = ("_raise_cancel", "_raised", "_task")

    def __init__(self) -> None:
        self._task = trio.lowlevel.current_task()
        self._raise_cancel: Callable[[], None] | None = None
        self._raised: Exception | None = None

    def cancel(self, raise_cancel: Callable[[], None]) -> None:
        """It is cancelled, and is to be told so when the thread has let go."""
        self._raise_cancel = raise_cancel

    def tell(self, on_told: Callable[[int], None], index: int) -> None:
        """What the thread says meanwhile. What `on_told` raises, the task does in the end."""
        try:
            on_told(index)
        except Exception as error:  # noqa: BLE001  # it is raised in the caller's task
            self._raised = error

    def wake(self, result: outcome.Outcome[Any]) -> None:
        """The thread has let go."""
        if self._raise_cancel is not None:
            result = outcome.capture(self._raise_cancel)
        elif self._raised is not None:
            result = outcome.Error(self._raised)
        trio.lowlevel.reschedule(self._task, result)

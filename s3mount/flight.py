"""Single flight: one task does the work, everyone who wants it waits for that one.

The work runs in a nursery that outlives every caller, so a caller that is
cancelled leaves the others' work alone; its result or its error reaches all.

Knows nothing of what the work is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from s3mount.errors import Unreachable

T = TypeVar("T")


class _Flight(Generic[T]):
    """One piece of work under way; `values` holds its result once it has landed well."""

    __slots__ = ("error", "landed", "started", "values")

    def __init__(self, started: float) -> None:
        self.started = started
        self.landed = trio.Event()
        self.values: list[T] = []
        self.error: Exception = Unreachable("the mount is ending", "mount again")


class Flights(Generic[T]):
    """Work under way, by key."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(
        self, key: Hashable, work: Callable[[], Awaitable[T]], *, not_before: float = 0.0
    ) -> T:
        """The result of `work`, or of the same work when it is under way already.

        A flight that took off before `not_before` (trio's clock) is not joined: its
        answer may be older than what the caller may see. Raises what `work` raises.
        """
        flight = self.start(key, work, not_before=not_before)
        await flight.landed.wait()
        if flight.values:
            return flight.values[0]
        # One error goes to several tasks: without this each would append to its traceback.
        raise flight.error.with_traceback(None)

    def start(
        self, key: Hashable, work: Callable[[], Awaitable[T]], *, not_before: float = 0.0
    ) -> _Flight[T]:
        """Have `work` done without waiting for it; its error, if any, is for those who join."""
        flight = self._flights.get(key)
        if flight is None or flight.started < not_before:
            flight = _Flight(trio.current_time())
            self._flights[key] = flight
            self._nursery.start_soon(self._fly, key, flight, work)
        return flight

    async def _fly(
        self, key: Hashable, flight: _Flight[T], work: Callable[[], Awaitable[T]]
    ) -> None:
        try:
            flight.values.append(await work())
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait get it
            flight.error = error
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.landed.set()

"""One call that may be sent again while it lasts: its first request, and later ones.

Whichever delivers first wins, and the others are cancelled. What is asked for, and where it
goes, is the business of those who derive from it.

INVARIANT: a call that has ended leaves no request behind that writes for it.

Runs on the trio thread alone. Times in seconds. Must not know: GET or LIST, buffers' owners.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

import trio

from s3mount.errors import RequestError, Unreachable
from s3mount.metrics import Metrics
from s3mount.s3.patience import LEAST, LOST_FIRST, Patience

log = logging.getLogger(__name__)

T = TypeVar("T")


class Shared(Protocol):
    """What all calls have in common."""

    metrics: Metrics
    nursery: trio.Nursery
    patience: Patience


class Attempt(Generic[T]):
    """A later request, and how far it has come."""

    def __init__(self, base: int = 0, buffers: Sequence[memoryview] = ()) -> None:
        self.base = base  # of the caller's buffers, the one where it begins
        self.buffers = buffers
        self.filled = 0
        self.began = trio.current_time()
        self.scope = trio.CancelScope()
        self.results: list[T] = []  # one, when it ended well
        self.error: RequestError | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return bool(self.results) or self.error is not None or self.scope.cancel_called

    def held(self, now: float) -> int:
        """Bytes that its buffers take, or may soon take.

        Memory is touched first when bytes arrive: one that has been silent for long holds none,
        and must not keep others from being sent.
        """
        may_fill = not self.is_over and now - self.began < LOST_FIRST
        return sum(map(len, self.buffers)) if self.filled or may_fill else 0

    @property
    def is_useless(self) -> bool:
        """Whether it was cancelled and has nothing to tell."""
        return self.scope.cancel_called and not self.results and self.error is None


class Race(ABC, Generic[T]):
    """One call: its first request, and the later ones."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.scope = trio.CancelScope()  # of the first request
        self.later: list[Attempt[T]] = []
        self.heard = self.sent = trio.current_time()  # the last sign of life; the last request
        self.lost = 0  # how often it was sent again for being silent
        self.took = False  # whether anything of later requests was made use of
        self._is_first_over = False
        self._changed: Callable[[], None] = lambda: None  # wakes who waits for later requests

    kind: Hashable  # of what it waits for
    may_hedge = True
    may_ask = True  # whether a later request may be sent at all

    def has_room(self, now: float) -> bool:
        """Whether there is memory for what a later request brings."""
        return True

    @abstractmethod
    async def first(self) -> T:
        """The first request."""

    @abstractmethod
    async def again(self, attempt: Attempt[T]) -> T:
        """A later one."""

    @abstractmethod
    def new_attempt(self) -> Attempt[T]:
        """What to ask for now."""

    @abstractmethod
    def take(self) -> T | None:
        """Make use of what later requests brought; the result, when it is whole.

        Raises `Interrupted` when they brought what they could, and that is not all.
        """

    @abstractmethod
    def failure(self, error: RequestError) -> RequestError:
        """What to raise when the last request ended in `error`."""

    async def run(self) -> T:
        """The result of whichever request is first. Raises when none is left that may bring it."""
        first_error: RequestError | None = None
        try:
            with self.scope:
                return await self.first()
        except RequestError as error:
            if not error.retryable:
                raise
            first_error = error
        self._is_first_over = True
        while True:
            result = self.take()
            if result is not None:
                return result
            errors = [attempt.error for attempt in self.later if attempt.error is not None]
            fatal = next((error for error in errors if not error.retryable), None)
            if fatal is not None:
                raise fatal.with_traceback(None)
            if not self._alive:
                if first_error is not None and not self.took:
                    raise first_error.with_traceback(None)
                raise self.failure(errors[-1] if errors else Unreachable("nothing was answered"))
            self._changed = (changed := trio.Event()).set
            await changed.wait()

    async def go_again(self, attempt: Attempt[T]) -> None:
        """Send a later request, in a task of its own."""
        try:
            with attempt.scope:
                attempt.results.append(await self.again(attempt))
                self.win(attempt)
        except RequestError as error:
            attempt.error = error
            if not error.retryable:
                self.scope.cancel()  # it would say the same, if it ever said anything
        except Exception as error:
            # The first request goes on; nobody waits for this task: it must not end the mount.
            log.exception("a request sent again failed: this is a bug, please report it")
            attempt.error = Unreachable(f"internal error: {error!r}")
        finally:
            self._changed()

    def hear(self) -> float:
        """Note that a request delivered something: the seconds since the last time."""
        before = self.heard
        self.heard = self.shared.patience.heard = trio.current_time()
        return self.heard - before

    def win(self, attempt: Attempt[T]) -> None:
        """This later request delivered first: cancel the others."""
        self.hear()
        self.scope.cancel()
        for other in self.later:
            if other is not attempt:
                other.scope.cancel()
        self._changed()

    def end(self) -> None:
        """The call is over."""
        for attempt in self.later:
            attempt.scope.cancel()

    def look(self, now: float, patience: Patience) -> None:
        """Send a later request if it is time."""
        silent = now - max(self.heard, self.sent)
        if not self.may_ask or silent < LEAST or not self.has_room(now):  # none is late that soon
            return
        is_lost = silent >= patience.lost_after(self.kind, self.sent, self.lost)
        if (
            self.may_hedge
            and self._alive + (not self._is_first_over) == 1
            and silent >= patience.late_after(self.kind)
            and patience.take()
        ):
            self.shared.metrics.count("requests.hedged")
        elif is_lost and patience.repeat(self.sent, now):
            self.lost += 1
            self.shared.metrics.count("requests.repeated")
            # The first stays, or else the one that took its place.
            running = [attempt for attempt in self.later if not attempt.is_over]
            for attempt in running[self._is_first_over :]:
                attempt.scope.cancel()
        else:
            return
        self.sent = now
        attempt = self.new_attempt()
        self.later = [other for other in self.later if not other.is_useless] + [attempt]
        self.shared.nursery.start_soon(self.go_again, attempt)

    def held(self, now: float) -> int:
        """Bytes that later requests hold."""
        return sum([attempt.held(now) for attempt in self.later])

    @property
    def _alive(self) -> int:
        """Later requests of which something may come."""
        return sum(not attempt.is_over for attempt in self.later)

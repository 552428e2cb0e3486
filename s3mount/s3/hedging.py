"""Second requests for answers that are late, over any `Bucket`.

A GET that delivers nothing for longer than its like (see `patience`) gets a second one, for
the buffers that are not whole yet, into fresh memory. Whichever delivers a buffer first
wins, and the other is cancelled: so a body that stalls, drips, or whose request went into
a black hole costs some tens of milliseconds and not a time-out. These are hedges, and
their share of all requests is bounded.

A request of any kind that stays silent for a second while others are answered is taken for
lost and sent again, whatever the share; while none is answered, one of all is, every two
seconds. The first request stays, up to its own time-out, for the endpoint may just be slow;
of the later ones, the latest.

INVARIANTS
- `on_filled` is called once per buffer, in order; what was delivered is not written again.
- Only the first request writes into the caller's buffers, and it has ended before what a
  later one brought is copied there. So a call that ended leaves no one who writes.
- A body is of one version: one without an ETag to pin it gets no second request once a
  buffer of it was delivered.

Runs on the trio thread alone. Times in seconds. Knows nothing of retries.
"""

from __future__ import annotations

import logging
import mmap
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import trio

from s3mount.errors import Interrupted, RequestError, Unreachable
from s3mount.metrics import Metrics
from s3mount.model import ListPage, ObjectInfo, RangeReply
from s3mount.s3.bucket import Bucket, OnFilled
from s3mount.s3.errors import BodyInterrupted
from s3mount.s3.patience import LEAST, Patience

log = logging.getLogger(__name__)

T = TypeVar("T")

# Requests under way are looked at that often.
TICK = 0.01
# What a later GET brings, at most: it goes through memory that no budget counts. The rest of
# a longer body is asked for by who retries, straight into the caller's buffers.
LONGEST_HEDGE = 1024 * 1024


class _Attempt(Generic[T]):
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

    @property
    def is_useless(self) -> bool:
        """Whether it was cancelled and has nothing to tell."""
        return self.scope.cancel_called and not self.results and self.error is None


class _Race(ABC, Generic[T]):
    """One call: its first request, and the later ones."""

    def __init__(self, hedging: Hedging) -> None:
        self.hedging = hedging
        self.scope = trio.CancelScope()  # of the first request
        self.later: list[_Attempt[T]] = []
        self.heard = self.sent = trio.current_time()  # the last sign of life; the last request
        self.lost = 0  # how often it was sent again for being silent
        self.took = False  # whether anything of later requests was made use of
        self._is_first_over = False
        self._changed: Callable[[], None] = lambda: None  # wakes who waits for later requests

    kind: Hashable  # of what it waits for
    may_hedge = True
    may_ask = True  # whether a later request may be sent at all

    @abstractmethod
    async def first(self) -> T:
        """The first request."""

    @abstractmethod
    async def again(self, attempt: _Attempt[T]) -> T:
        """A later one."""

    @abstractmethod
    def new_attempt(self) -> _Attempt[T]:
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

    async def go_again(self, attempt: _Attempt[T]) -> None:
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
        self.heard = self.hedging.patience.heard = trio.current_time()
        return self.heard - before

    def win(self, attempt: _Attempt[T]) -> None:
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
        if not self.may_ask or silent < LEAST:  # nothing is late that soon
            return
        is_lost = silent >= patience.lost_after(self.kind, self.lost)
        if (
            self.may_hedge
            and self._alive + (not self._is_first_over) == 1
            and silent >= patience.late_after(self.kind)
            and patience.take()
        ):
            self.hedging.metrics.count("requests.hedged")
        elif is_lost and patience.repeat(self.sent, now):
            self.lost += 1
            self.hedging.metrics.count("requests.repeated")
            # The first stays, or else the one that took its place.
            running = [attempt for attempt in self.later if not attempt.is_over]
            for attempt in running[self._is_first_over :]:
                attempt.scope.cancel()
        else:
            return
        self.sent = now
        attempt = self.new_attempt()
        self.later = [other for other in self.later if not other.is_useless] + [attempt]
        self.hedging.nursery.start_soon(self.go_again, attempt)

    @property
    def _alive(self) -> int:
        """Later requests of which something may come."""
        return sum(not attempt.is_over for attempt in self.later)


class _Call(_Race[T]):
    """HEAD or LIST: all or nothing. Sent again when lost, not hedged: a LIST is dear."""

    may_hedge = False

    def __init__(self, hedging: Hedging, kind: str, call: Callable[[], Awaitable[T]]) -> None:
        super().__init__(hedging)
        self.kind = kind
        self._call = call

    async def first(self) -> T:
        result = await self._call()
        self.hedging.patience.observe(self.kind, self.hear())
        return result

    async def again(self, attempt: _Attempt[T]) -> T:
        return await self._call()

    def new_attempt(self) -> _Attempt[T]:
        return _Attempt()

    def take(self) -> T | None:
        return next((attempt.results[0] for attempt in self.later if attempt.results), None)

    def failure(self, error: RequestError) -> RequestError:
        return error.with_traceback(None)


class _Body(_Race[RangeReply]):
    """A ranged GET: whole buffers, in order."""

    def __init__(
        self,
        hedging: Hedging,
        key: str,
        start: int,
        into: Sequence[memoryview],
        *,
        pin: tuple[str | None, str | None],  # ETag and version_id
        on_filled: OnFilled | None,
    ) -> None:
        super().__init__(hedging)
        self._key = key
        self._start = start
        self._into = into
        self._pin = pin
        self._on_filled = on_filled
        self._told = 0
        self.kind = self._kind_of(0)

    def _kind_of(self, index: int) -> Hashable:
        """The first buffer takes a round trip; a larger one takes longer."""
        return index == 0, len(self._into[index]).bit_length()

    async def first(self) -> RangeReply:
        return await self._ask(self._start, self._into, self._filled)

    async def _ask(self, start: int, into: Sequence[memoryview], on_filled: OnFilled) -> RangeReply:
        etag, version_id = self._pin
        return await self.hedging.bucket.get_range(
            self._key, start, into, etag=etag, version_id=version_id, on_filled=on_filled
        )

    def _filled(self, index: int) -> None:
        """The first request delivered a buffer."""
        self.hedging.patience.observe(self.kind, self.hear())
        for attempt in self.later:
            attempt.scope.cancel()
        self._tell(index)

    def _tell(self, index: int) -> None:
        self._told = index + 1
        if self._told < len(self._into):
            self.kind = self._kind_of(self._told)
        # Of which version these bytes are, without a pin only their own request knows.
        self.may_ask = self._told < len(self._into) and self._pin[0] is not None
        if self._on_filled is not None:
            self._on_filled(index)

    # --- later requests -----------------------------------------------------------

    def new_attempt(self) -> _Attempt[RangeReply]:
        buffers, size = list[memoryview](), 0
        for buffer in self._into[self._told :]:
            size += len(buffer)
            if buffers and size > LONGEST_HEDGE:
                break
            buffers.append(memoryview(mmap.mmap(-1, len(buffer))))  # the heap would keep it
        return _Attempt(self._told, buffers)

    async def again(self, attempt: _Attempt[RangeReply]) -> RangeReply:
        def on_filled(index: int) -> None:
            now = trio.current_time()
            if index == 0:
                self.hedging.metrics.count("hedges.won")
                first = True, len(attempt.buffers[0]).bit_length()
                self.hedging.patience.observe(first, now - attempt.began)
            attempt.filled = index + 1
            self.win(attempt)

        start = self._start + sum(len(buffer) for buffer in self._into[: attempt.base])
        return await self._ask(start, attempt.buffers, on_filled)

    def take(self) -> RangeReply | None:
        """Copy the buffers that are whole for certain.

        The last one that was filled may be the object's end, and then holds less than a
        buffer: how much, the reply says.
        """
        for attempt in self.later:
            whole = attempt.base + attempt.filled - 1
            while self._told < whole:
                into = self._into[self._told]
                into[:] = attempt.buffers[self._told - attempt.base]
                self.took = True
                self._tell(self._told)
            if attempt.results and attempt.base <= self._told <= whole:
                reply = attempt.results[0]
                received = reply.received + sum(len(into) for into in self._into[: attempt.base])
                rest = received - sum(len(buffer) for buffer in self._into[: self._told])
                into = self._into[self._told]
                into[:rest] = attempt.buffers[self._told - attempt.base][:rest]
                self.took = True
                self._tell(self._told)
                if rest == len(into) and self._told < len(self._into):
                    cause = f"the rest of a late body of {self._key!r} is missing"
                    raise BodyInterrupted(cause, received=received, info=reply.info)
                return RangeReply(reply.info, received)
        return None

    def failure(self, error: RequestError) -> RequestError:
        # What a later request received beyond whole buffers lies in memory of its own.
        told = sum(len(buffer) for buffer in self._into[: self._told])
        if isinstance(error, BodyInterrupted):
            return BodyInterrupted(error.cause, received=told, info=error.info)
        if told or isinstance(error, Interrupted):
            return Interrupted(error.cause, received=told)
        return error.with_traceback(None)


class Hedging:
    """See the module, and `Bucket` for the methods."""

    def __init__(
        self, bucket: Bucket, *, share: float, metrics: Metrics, nursery: trio.Nursery
    ) -> None:
        """`share`: hedges per request, on average. `nursery` runs them; it outlives all calls."""
        self.bucket = bucket
        self.metrics = metrics
        self.nursery = nursery
        self.patience = Patience(share)
        self._races: dict[_Race[ObjectInfo] | _Race[ListPage] | _Race[RangeReply], None] = {}
        self._is_watching = False

    def __repr__(self) -> str:
        return f"<Hedging {self.bucket!r}>"

    async def head(self, key: str) -> ObjectInfo:
        """See `Bucket.head`."""
        race = _Call(self, "head", lambda: self.bucket.head(key))
        self._begin(race)
        try:
            return await race.run()
        finally:
            self._end(race)

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> ListPage:
        """See `Bucket.list_page`."""
        race = _Call(
            self,
            "list",
            lambda: self.bucket.list_page(
                prefix,
                delimiter=delimiter,
                start_after=start_after,
                token=token,
                max_keys=max_keys,
            ),
        )
        self._begin(race)
        try:
            return await race.run()
        finally:
            self._end(race)

    async def get_range(
        self,
        key: str,
        start: int,
        into: Sequence[memoryview],
        *,
        etag: str | None,
        version_id: str | None = None,
        on_filled: OnFilled | None = None,
    ) -> RangeReply:
        """See `Bucket.get_range`."""
        race = _Body(self, key, start, into, pin=(etag, version_id), on_filled=on_filled)
        self._begin(race)
        try:
            return await race.run()
        finally:
            self._end(race)

    async def aclose(self) -> None:
        """See `Bucket.aclose`."""
        await self.bucket.aclose()

    def _begin(self, race: _Race[ObjectInfo] | _Race[ListPage] | _Race[RangeReply]) -> None:
        self.patience.sent()
        self._races[race] = None
        if not self._is_watching:
            self._is_watching = True
            self.nursery.start_soon(self._watch)

    def _end(self, race: _Race[ObjectInfo] | _Race[ListPage] | _Race[RangeReply]) -> None:
        del self._races[race]
        race.end()

    async def _watch(self) -> None:
        """Look at the calls under way, for as long as there are any."""
        try:
            while self._races:
                await trio.sleep(TICK)
                now = trio.current_time()
                for race in list(self._races):
                    try:
                        race.look(now, self.patience)
                    except Exception:
                        log.exception("no look at a request: this is a bug, please report it")
        finally:
            self._is_watching = False

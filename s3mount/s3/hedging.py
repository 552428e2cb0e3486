"""Second requests for answers that are late, over any `Bucket`.

A GET that delivers nothing for longer than its like (see `patience`) gets a second one, for
the buffers that are not whole yet, into fresh memory. Whichever delivers a buffer first
wins, and the other is cancelled: so a body that stalls, drips, or whose request went into
a black hole costs some tens of milliseconds and not a time-out. These are hedges, and
their share of all requests is bounded.

A request of any kind that stays silent for a second while others are answered is taken for
lost and sent again, whatever the share; while none is answered, one of all is, every
second. The first request stays, up to its own time-out, for the endpoint may just be slow;
of the later ones, the latest.

INVARIANTS
- `on_filled` is called once per buffer, in order; what was delivered is not written again.
- Only the first request writes into the caller's buffers, and it has ended before what a
  later one brought is copied there. So a call that ended leaves no one who writes.
- A body is of one version: one without an ETag to pin it gets no second request once a
  buffer of it was delivered.

What all calls have in common is in `race`. Runs on the trio thread alone. Times in seconds.
Knows nothing of retries.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

import trio

from s3mount.errors import Interrupted, RequestError
from s3mount.metrics import Metrics
from s3mount.model import ListPage, ObjectInfo, RangeReply
from s3mount.s3.bucket import Bucket, OnFilled
from s3mount.s3.errors import BodyInterrupted
from s3mount.s3.patience import LEAST, Patience
from s3mount.s3.race import Attempt, Race

log = logging.getLogger(__name__)

T = TypeVar("T")

# Requests under way are looked at that often.
TICK = 0.01
# What a later GET brings, at most: it goes through memory that no budget counts. The rest of
# a longer body is asked for by who retries, straight into the caller's buffers.
LONGEST_HEDGE = 1024 * 1024
# Bytes of all such memory; one later GET is always sent. When a server that stood still goes on,
# whatever it had not answered is late: 64 requests with a MiB each.
MOST_BESIDE = 4 * LONGEST_HEDGE


class _Call(Race[T]):
    """HEAD or LIST: all or nothing. Sent again when lost, not hedged: a LIST is dear."""

    may_hedge = False

    def __init__(self, hedging: Hedging, kind: str, call: Callable[[], Awaitable[T]]) -> None:
        super().__init__(hedging)
        self.kind = kind
        self._call = call

    async def first(self) -> T:
        result = await self._call()
        self.shared.patience.observe(self.kind, self.hear())
        return result

    async def again(self, attempt: Attempt[T]) -> T:
        return await self._call()

    def new_attempt(self) -> Attempt[T]:
        return Attempt()

    def take(self) -> T | None:
        return next((attempt.results[0] for attempt in self.later if attempt.results), None)

    def failure(self, error: RequestError) -> RequestError:
        return error.with_traceback(None)


class _Body(Race[RangeReply]):
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
        self._hedging = hedging
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
        return await self._hedging.bucket.get_range(
            self._key, start, into, etag=etag, version_id=version_id, on_filled=on_filled
        )

    def _filled(self, index: int) -> None:
        """The first request delivered a buffer."""
        self.shared.patience.observe(self.kind, self.hear())
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

    def has_room(self, now: float) -> bool:
        return self._hedging.has_room_beside(self, now)

    def new_attempt(self) -> Attempt[RangeReply]:
        buffers, size = list[memoryview](), 0
        for buffer in self._into[self._told :]:
            size += len(buffer)
            if buffers and size > LONGEST_HEDGE:
                break
            buffers.append(memoryview(mmap.mmap(-1, len(buffer))))  # the heap would keep it
        return Attempt(self._told, buffers)

    async def again(self, attempt: Attempt[RangeReply]) -> RangeReply:
        def on_filled(index: int) -> None:
            now = trio.current_time()
            if index == 0:
                self.shared.metrics.count("hedges.won")
                first = True, len(attempt.buffers[0]).bit_length()
                self.shared.patience.observe(first, now - attempt.began)
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
        self._races: dict[Race[ObjectInfo] | Race[ListPage] | Race[RangeReply], None] = {}
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

    def has_room_beside(self, race: Race[RangeReply], now: float) -> bool:
        """Whether there is memory for a later GET: beside those of others, in place of its own."""
        held = sum([other.held(now) for other in self._races if other is not race])
        return held + LONGEST_HEDGE <= MOST_BESIDE

    def _begin(self, race: Race[ObjectInfo] | Race[ListPage] | Race[RangeReply]) -> None:
        self.patience.sent()
        self._races[race] = None
        if not self._is_watching:
            self._is_watching = True
            self.nursery.start_soon(self._watch)

    def _end(self, race: Race[ObjectInfo] | Race[ListPage] | Race[RangeReply]) -> None:
        del self._races[race]
        race.end()

    async def _watch(self) -> None:
        """Look at the calls under way, for as long as there are any."""
        try:
            while self._races:
                await trio.sleep(TICK)
                now = trio.current_time()
                for race in list(self._races):
                    if now - race.heard < LEAST:
                        continue  # most of them, 100 times a second
                    try:
                        race.look(now, self.patience)
                    except Exception:
                        log.exception("no look at a request: this is a bug, please report it")
        finally:
            self._is_watching = False

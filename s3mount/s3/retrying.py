"""The one retry policy: tries, pauses and a deadline, over any `Bucket`.

What S3 and the network do for a moment (errors whose class is `retryable`) is tried
again; what they mean (no such key, access denied) is not. A body that broke off goes on
at the byte it reached, pinned to the version it began with.

INVARIANTS: `on_filled` is called once per buffer, however many answers filled it. The
buffers never hold bytes of two versions. No call outlasts the deadline; a body may, as
long as each buffer comes within one deadline of the one before it.

Runs on the trio thread alone. Times in seconds.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TypeVar

import trio

from s3mount.errors import (
    DeadlineExceeded,
    Interrupted,
    RequestError,
    ServerError,
    Throttled,
    VersionChanged,
)
from s3mount.metrics import Metrics
from s3mount.model import ListPage, ObjectInfo, RangeReply
from s3mount.s3.bucket import Bucket, OnFilled
from s3mount.s3.errors import BodyInterrupted, RetryLater

T = TypeVar("T")

log = logging.getLogger(__name__)

# Full jitter between 0 and the ceiling, which doubles from BASE to CAP:
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
BASE = 0.05
CAP = 5.0


def pause(error: RequestError, attempt: int, fraction: float) -> float:
    """How long to wait (seconds) after the failed try number `attempt`, from 1.

    `fraction`, in [0, 1), is the jitter. The first try again is at once, as most of what
    breaks is one connection: but not when it is S3 that failed, or that asks for patience.
    """
    patient = isinstance(error, Throttled | ServerError)
    doublings = attempt - 1 if patient else attempt - 2
    wait = fraction * min(CAP, BASE * 2**doublings) if doublings >= 0 else 0.0
    return max(wait, error.retry_after) if isinstance(error, RetryLater) else wait


class Retrying:
    """See the module, and `Bucket` for the methods: they raise `DeadlineExceeded` besides.

    `retries` is how often a request is sent again before its last error is raised.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        retries: int,
        deadline: float,
        metrics: Metrics,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._bucket = bucket
        self._retries = retries
        self._deadline = deadline
        self._metrics = metrics
        self._jitter = jitter

    def __repr__(self) -> str:
        return f"<Retrying {self._bucket!r}>"

    @contextmanager
    def briefly(self, retries: int) -> Iterator[None]:
        """Try no more than `retries` times again meanwhile: somebody waits for the cause."""
        usual, self._retries = self._retries, min(retries, self._retries)
        try:
            yield
        finally:
            self._retries = usual

    async def head(self, key: str) -> ObjectInfo:
        """See `Bucket.head`."""
        return await self._until_done(f"HEAD of {key!r}", lambda: self._bucket.head(key))

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> ListPage:
        """See `Bucket.list_page`; an empty page is the last one."""
        what = f"the listing of {prefix!r}"
        ask = partial(self._bucket.list_page, prefix, delimiter=delimiter, max_keys=max_keys)
        page = await self._until_done(what, partial(ask, start_after=start_after, token=token))
        while page.next_token is not None and not page.last:
            page = await self._until_done(what, partial(ask, token=page.next_token))
        return page

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
        """See `Bucket.get_range`; `received` counts all the answers together."""
        body = _Body(key, start, into, pin=(etag, version_id), on_filled=on_filled)
        attempt, last_error = 0, None
        with trio.CancelScope(deadline=trio.current_time() + self._deadline) as scope:

            def filled(index: int) -> None:
                if body.tell(index):  # else there is nothing left to wait for
                    scope.deadline = trio.current_time() + self._deadline

            while True:
                progress = body.told
                log.debug("GET of %r from %d", key, start)

                try:
                    return await body.once(self._bucket, filled)
                except VersionChanged:
                    if not body.start_over():
                        raise
                except RequestError as error:
                    body.resume_after(error)
                    # Whoever brings buffers may go on for ever.
                    attempt = 1 if body.told > progress else attempt + 1
                    last_error = error
                    await self._pause(error, attempt, f"GET of {key!r}")
        raise self._deadline_exceeded(f"GET of {key!r}", last_error)

    async def aclose(self) -> None:
        """See `Bucket.aclose`."""
        await self._bucket.aclose()

    async def _until_done(self, what: str, once: Callable[[], Awaitable[T]]) -> T:
        last_error = None
        with trio.move_on_after(self._deadline):
            for attempt in count(1):
                log.debug("%s", what)
                try:
                    return await once()
                except RequestError as error:
                    last_error = error
                    await self._pause(error, attempt, what)
        raise self._deadline_exceeded(what, last_error)

    async def _pause(self, error: RequestError, attempt: int, what: str) -> None:
        """Wait before the next try; raises `error` when there shall be none."""
        if not error.retryable or attempt > self._retries:
            raise error
        self._metrics.count("retries")
        wait = pause(error, attempt, self._jitter())
        log.debug("%s, try %d: %s; again in %.3f s", what, attempt, error.cause, wait)
        await trio.sleep(wait)

    def _deadline_exceeded(self, what: str, last_error: RequestError | None) -> DeadlineExceeded:
        why = last_error.cause if last_error else "no answer came"
        return DeadlineExceeded(f"{what} was not done in {self._deadline:g} s: {why}")


class _Body:
    """How far a ranged GET has come, over all its answers."""

    def __init__(
        self,
        key: str,
        start: int,
        into: Sequence[memoryview],
        *,
        pin: tuple[str | None, str | None],  # ETag and version_id, as the caller asks
        on_filled: OnFilled | None,
    ) -> None:
        self._key = key
        self._start = start
        self._into = into
        self._asked = pin
        self._pinned = pin
        self._on_filled = on_filled
        self._received = 0
        self._info: ObjectInfo | None = None
        self.first = 0  # the buffer where the answer under way begins
        self.told = 0  # buffers that on_filled was called for

    async def once(self, bucket: Bucket, filled: OnFilled) -> RangeReply:
        """Ask for what is missing."""
        etag, version_id = self._pinned
        rest = self._into
        if self._received:
            offset = self._received - sum(len(buffer) for buffer in self._into[: self.first])
            rest = [self._into[self.first][offset:], *self._into[self.first + 1 :]]
        reply = await bucket.get_range(
            self._key,
            self._start + self._received,
            rest,
            etag=etag,
            version_id=version_id,
            on_filled=filled,
        )
        return RangeReply(reply.info, self._received + reply.received)

    def tell(self, index: int) -> bool:
        """A buffer, counted from where the answer began, is whole. Whether others follow."""
        self.told = self.first + index + 1
        if self._on_filled is not None:
            self._on_filled(self.told - 1)
        return self.told < len(self._into)

    def resume_after(self, error: RequestError) -> None:
        """Keep what arrived: it is good, and the rest must be of the same version."""
        if isinstance(error, Interrupted) and error.received:
            if self._pinned[0] is None:
                if not isinstance(error, BodyInterrupted):
                    raise error  # of which version these bytes are, nobody knows
                self._pinned = error.info.etag, error.info.version_id
            self._received += error.received
        self.first = self.told

    def start_over(self) -> bool:
        """Whether another version may be taken, as none was asked for and no byte was shown."""
        if self._pinned == self._asked or self.told:
            return False
        self._pinned = self._asked
        self._received = self.first = 0
        return True

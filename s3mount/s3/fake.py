"""A bucket in memory, for tests of the rooms above: it keeps the contract of `Bucket`.

Time is trio's clock, so that with `trio.testing.MockClock` a latency costs nothing and
is exact. Every request is recorded, in order, before it is answered; faults are injected
one by one (`inject`) or by a rule. tests/contract holds it to what the real ones do.

Knows no HTTP, and nothing of retries: a fault reaches the caller.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import trio

from s3mount.errors import Archived, NotFound, RequestError, VersionChanged
from s3mount.metrics import Metrics
from s3mount.model import ARCHIVED_STORAGE_CLASSES, ListPage, ObjectInfo, RangeReply
from s3mount.s3.bucket import OnFilled
from s3mount.s3.errors import BehindEnd, BodyInterrupted

Kind = Literal["head", "list", "get"]

# A moment long before any test runs, so that "modified now" is recognisable. 2024-01-01T00:00:00Z.
DEFAULT_MTIME_NS = 1_704_067_200 * 10**9


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was asked: `key` is the prefix for a list; `size` in bytes, of a get."""

    kind: Kind
    key: str
    start: int = 0
    size: int = 0
    etag: str | None = None
    delimiter: str = ""
    start_after: str = ""
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request.

    With `error` alone, the request ends in it. With `after`, a body breaks off with
    `Interrupted` when so many bytes (and not all) have arrived; with `stall`, the bytes stop there
    until the caller gives up. `latency` (seconds) is waited first, in addition.
    """

    error: RequestError | None = None
    after: int | None = None
    stall: bool = False
    latency: float = 0.0


Rule = Callable[[Request], Fault | None]


@dataclass(slots=True)
class _Version:
    info: ObjectInfo
    body: bytes


@dataclass
class FakeBucket:
    """A `Bucket` over a dict; see the module for what a test can set.

    `latency` (seconds) passes before every answer; `bytes_per_second` is the pace of
    each body. `max_keys` caps the pages of listings. With `versioned`, replaced objects
    can still be read by their version_id.
    """

    latency: float = 0.0
    bytes_per_second: float = float("inf")
    max_keys: int = 1000
    versioned: bool = False
    metrics: Metrics = field(default_factory=Metrics)
    rule: Rule | None = None
    requests: list[Request] = field(default_factory=list)
    closed: bool = False
    in_flight: int = 0
    max_in_flight: int = 0
    _objects: dict[str, _Version] = field(default_factory=dict)
    _versions: dict[tuple[str, str], _Version] = field(default_factory=dict)
    _faults: dict[Kind, deque[Fault]] = field(default_factory=dict)
    _sorted: list[str] | None = None

    # --- what a test does to the bucket ---------------------------------------------------

    def put(
        self,
        key: str,
        body: bytes,
        *,
        mtime_ns: int = DEFAULT_MTIME_NS,
        storage_class: str = "STANDARD",
    ) -> ObjectInfo:
        """Store an object, at once; its ETag is the MD5 of the body, as S3's is."""
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        version_id = f"v{len(self._versions) + 1}" if self.versioned else None
        info = ObjectInfo(key, len(body), etag, mtime_ns, storage_class, version_id)
        self._objects[key] = _Version(info, body)
        if version_id is not None:
            self._versions[key, version_id] = self._objects[key]
        self._sorted = None
        return info

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        """`put` each."""
        for key, body in objects.items():
            self.put(key, body)

    def delete(self, key: str) -> None:
        """Remove an object, at once; nothing happens when there is none, as in S3."""
        self._objects.pop(key, None)
        self._sorted = None

    def inject(self, kind: Kind, *faults: Fault | RequestError) -> None:
        """Let the next requests of `kind` fail, each with one of `faults`, in order."""
        queue = self._faults.setdefault(kind, deque())
        queue.extend(fault if isinstance(fault, Fault) else Fault(fault) for fault in faults)

    def count(self, kind: Kind) -> int:
        """How many requests of `kind` were asked so far."""
        return sum(request.kind == kind for request in self.requests)

    # --- the contract ---------------------------------------------------------------------

    async def head(self, key: str) -> ObjectInfo:
        """See `Bucket.head`."""
        await self._begin(Request("head", key))
        return self._find(key, None).info

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
        request = Request("list", prefix, delimiter=delimiter, start_after=start_after, token=token)
        await self._begin(request)
        after = token if token is not None else start_after
        limit = min(max_keys, self.max_keys)
        if self._sorted is None:
            self._sorted = sorted(self._objects)
        begin = max(bisect_left(self._sorted, prefix), bisect_right(self._sorted, after))
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        last = ""
        for key in islice(self._sorted, begin, None):
            if not key.startswith(prefix):
                break
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            shown = key[: end + len(delimiter)] if end >= 0 else key
            # A prefix that the page before ended with, or that is there already.
            if end >= 0 and (shown <= after or shown == last):
                continue
            if len(objects) + len(prefixes) == limit:
                return ListPage(objects, prefixes, next_token=last)
            last = shown
            if end >= 0:
                prefixes.append(shown)
            else:
                objects.append(self._objects[key].info._replace(version_id=None))
        return ListPage(objects, prefixes)

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
        size = sum(len(buffer) for buffer in into)
        fault = await self._begin(Request("get", key, start, size, etag))
        version = self._find(key, version_id)
        info = version.info
        if info.storage_class in ARCHIVED_STORAGE_CLASSES:
            raise Archived(f"{key!r} is in the storage class {info.storage_class}")
        if etag is not None and etag != info.etag:
            raise VersionChanged(f"{key!r} is no longer the version {etag}")
        if start >= info.size and (start or info.size):
            raise BehindEnd(f"{key!r} ends at {info.size}, before byte {start}")
        body = version.body[start : start + size]
        received = 0
        for index, buffer in enumerate(into):
            chunk = body[received : received + len(buffer)]
            if not chunk:
                break
            await trio.sleep(len(chunk) / self.bytes_per_second)
            if fault is not None and fault.after is not None:
                chunk = chunk[: fault.after - received]
            buffer[: len(chunk)] = chunk
            received += len(chunk)
            self.metrics.count("bytes.fetched", len(chunk))
            if on_filled is not None and (len(chunk) == len(buffer) or received == len(body)):
                on_filled(index)
            if fault is not None and received == fault.after and received < len(body):
                if fault.stall:
                    await trio.sleep_forever()
                raise BodyInterrupted(
                    f"the body of {key!r} broke off", received=received, info=info
                )
        return RangeReply(info, received)

    async def aclose(self) -> None:
        """See `Bucket.aclose`."""
        self.closed = True
        await trio.lowlevel.checkpoint()

    # --- within ---------------------------------------------------------------------------

    async def _begin(self, request: Request) -> Fault | None:
        """Record the request, wait the latency, and fail as injected."""
        self.requests.append(request)
        self.metrics.count(f"requests.{request.kind}")
        queue = self._faults.get(request.kind)
        fault = queue.popleft() if queue else self.rule(request) if self.rule else None
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await trio.sleep(self.latency + (fault.latency if fault else 0.0))
            if fault is not None and fault.stall and fault.after is None:
                await trio.sleep_forever()
        finally:
            self.in_flight -= 1
        if fault is not None and fault.error is not None:
            raise fault.error
        return fault

    def _find(self, key: str, version_id: str | None) -> _Version:
        found = self._versions.get((key, version_id)) if version_id else self._objects.get(key)
        if found is None:
            raise NotFound(f"no object {key!r}")
        return found

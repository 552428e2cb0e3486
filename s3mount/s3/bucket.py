"""The Bucket protocol: what the rooms above ask of S3, and nothing else.

Every implementation (over boto3, lean, retrying, fake) keeps this contract, and one
test, tests/contract, holds all of them to it:

- Methods are called on the trio thread and do not block it. A body is read
  within the implementation's own thread; only buffers and callbacks cross.
- An error is one of `s3mount.errors.RequestError`, never a library's own.
- Keys are full keys: the mount's prefix is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from s3mount.model import ListPage, ObjectInfo, RangeReply

OnFilled = Callable[[int], None]


class Bucket(Protocol):
    """One bucket, seen through one set of credentials."""

    async def head(self, key: str) -> ObjectInfo:
        """The object's metadata.

        Raises `NotFound`, and any `RequestError`.
        """
        ...

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> ListPage:
        """One page of ListObjectsV2: keys that start with `prefix`, in key order.

        `start_after` (exclusive) and `token` (of the page before) exclude each other.
        With `delimiter`, keys that hold it after `prefix` are rolled up into
        `ListPage.prefixes`. A key that cannot be decoded is left out. S3 may answer with an
        empty page that is followed by others: `Retrying` passes over those.
        """
        ...

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
        """Fill the buffers, one after the other, with the bytes from `start` on.

        One streaming GET. `on_filled(i)` is called on the trio thread, in order, as
        soon as `into[i]` is whole. When the object ends earlier than the buffers,
        the rest stays untouched, `on_filled` is called for the buffer that holds
        the object's last byte, and `RangeReply.received` tells the length.

        With `etag` the request is pinned by If-Match, and the buffers must end within the
        object, whose size the caller knows: an answer that is shorter is a `BadReply`.
        Without it, whatever version is there is read, and the reply's `info` tells which.
        The status (206), the Content-Range and the ETag of the answer are checked before
        a byte is kept.

        Cancellation safe: once this call has returned, raised, or been cancelled,
        nothing writes into the buffers any more.

        Raises:
            NotFound, Archived, AccessDenied: as S3 says.
            VersionChanged: the object is not (or no longer) the one with `etag`, or
                `start` lies behind its end.
            BadReply: the answer is not the range that was asked for; no byte kept.
            Interrupted: the body broke off; its first `received` bytes are good,
                and `on_filled` was called for the buffers that they fill.
            RequestError: anything else.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection. Requests under way end with `Unreachable`."""
        ...

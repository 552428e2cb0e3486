"""Plain values that every room may hold: an object, a page of a listing.

Keys are `str` in the order S3 lists them: UTF-8 byte order, which is also the
order of Python's `str` comparison (code points), so `sorted` agrees with S3.

Knows nothing of files, inodes, requests or time-outs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# The storage classes whose objects answer GET with 403 InvalidObjectState until restored.
# INTELLIGENT_TIERING may do so too, but its listing does not tell which tier holds the object.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html
ARCHIVED_STORAGE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


class ObjectInfo(NamedTuple):
    """One version of one object, as a listing, a HEAD or a GET tells it.

    A NamedTuple and not a dataclass: listings make a thousand per page, and a
    frozen dataclass costs three times as much to make.
    """

    key: str
    size: int  # bytes
    etag: str  # as S3 sends it, with its quotes: what If-Match wants back
    mtime_ns: int  # LastModified, nanoseconds since the epoch
    storage_class: str = "STANDARD"
    version_id: str | None = None  # a GET or HEAD in a versioned bucket tells it, a listing never

    def is_same_version(self, other: ObjectInfo) -> bool:
        """Whether both are the same bytes under the same key."""
        return self.etag == other.etag and self.size == other.size and self.key == other.key


@dataclass(frozen=True, slots=True)
class ListPage:
    """One answer of ListObjectsV2.

    `objects` and `prefixes` are each in key order. The page tells everything
    about the keys after the request's start up to `last` (or to the end of the
    request's prefix, when `next_token` is None).
    """

    objects: tuple[ObjectInfo, ...] | list[ObjectInfo]
    prefixes: tuple[str, ...] | list[str] = ()  # CommonPrefixes, each with its trailing delimiter
    next_token: str | None = None  # NextContinuationToken; None: nothing follows

    @property
    def last(self) -> str:
        """The greatest key or common prefix of the page; "" when it is empty."""
        last_key = self.objects[-1].key if self.objects else ""
        last_prefix = self.prefixes[-1] if self.prefixes else ""
        return max(last_key, last_prefix)


@dataclass(frozen=True, slots=True)
class RangeReply:
    """What a ranged GET tells beside the bytes it wrote into the caller's buffers."""

    info: ObjectInfo  # of the object that the bytes belong to
    received: int  # bytes written

"""What an answer of S3 must be, and what it tells: checked the same for every client.

Pure: headers and texts in, values out; header names are in lower case.
INVARIANT: bytes of an answer that failed `check_range` are never kept.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from s3mount.errors import BadReply
from s3mount.model import ObjectInfo

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_NS = 10**9


class OtherETag(BadReply):
    """206 for an object with another ETag than If-Match asked for.

    S3 answers 412 instead; a server that does not know If-Match answers this. Only a
    HEAD tells whether the object was replaced, or the answer is wrong.
    """


class Asked(NamedTuple):
    """A ranged GET: `size` bytes from `start`, of the version `etag` or of any."""

    key: str
    start: int
    size: int
    etag: str | None = None
    version_id: str | None = None

    @property
    def header(self) -> str:
        """The Range header."""
        return f"bytes={self.start}-{self.start + self.size - 1}"


def check_range(status: int, headers: Mapping[str, str], asked: Asked) -> tuple[ObjectInfo, int]:
    """The object, and the length of the body (bytes), of the answer to a ranged GET.

    Raises `BadReply` when it is not exactly the range that was asked for:
    `size` bytes from `start`, or as many as the object has where no version was named;
    `OtherETag` as said there.
    """
    if status != 206:
        kind = headers.get("content-type", "no type")
        raise BadReply(
            f"the answer to a range of {asked.key!r} is a status {status} of {kind}, not 206"
        )
    content_range = headers.get("content-range", "")
    match = _CONTENT_RANGE.fullmatch(content_range)
    if match is None:
        raise BadReply(
            f"the answer to a range of {asked.key!r} has the Content-Range {content_range!r}"
        )
    first, last, total = int(match[1]), int(match[2]), int(match[3])
    if first != asked.start or last != min(asked.start + asked.size, total) - 1:
        raise BadReply(f"{asked.key!r}: asked for {asked.header}, answered with {content_range!r}")
    length = last - first + 1
    if headers.get("content-length") != str(length):
        told = headers.get("content-length", "none")
        raise BadReply(f"{content_range!r} of {asked.key!r} has the Content-Length {told}")
    info = object_of(headers, asked.key, total)
    if asked.etag not in (None, info.etag):
        raise OtherETag(
            f"{asked.key!r}: asked for the ETag {asked.etag}, answered with {info.etag}"
        )
    if asked.etag is not None and length < asked.size:
        # Whoever names a version knows its size: the same ETag cannot have another one.
        raise BadReply(f"{asked.key!r}: asked for {asked.header}, answered with {content_range!r}")
    return info, length


def check_head(status: int, headers: Mapping[str, str], key: str) -> ObjectInfo:
    """The object of a good answer to HEAD. Raises `BadReply`."""
    size = headers.get("content-length", "")
    if status != 200 or not size.isdigit():
        raise BadReply(f"the answer to HEAD of {key!r} is a status {status} of length {size!r}")
    return object_of(headers, key, int(size))


def object_of(headers: Mapping[str, str], key: str, size: int) -> ObjectInfo:
    """The object that the headers describe. Raises `BadReply` without an ETag."""
    etag = headers.get("etag")
    if not etag:
        raise BadReply(f"the answer for {key!r} has no ETag")
    version_id = headers.get("x-amz-version-id")
    return ObjectInfo(
        key,
        size,
        etag,
        mtime_of_http_date(headers.get("last-modified", "")),
        headers.get("x-amz-storage-class", "STANDARD"),
        # "null" is the version that the next PUT replaces: it pins nothing.
        None if version_id == "null" else version_id,
    )


def mtime_of_http_date(text: str) -> int:
    """Such as "Sat, 21 Nov 2026 07:56:42 GMT" in nanoseconds since the epoch; 0 for no date.

    `email.utils` takes ten times as long: it is asked for what is not of this shape.
    """
    if not text:
        return 0
    try:
        day, month, year = int(text[5:7]), _MONTHS[text[8:11]], int(text[12:16])
        hour, minute, second = int(text[17:19]), int(text[20:22]), int(text[23:25])
    except (KeyError, ValueError):
        try:
            return int(parsedate_to_datetime(text).timestamp()) * _NS
        except ValueError as error:
            raise BadReply(f"{text!r} is no date") from error
    return timegm((year, month, day, hour, minute, second)) * _NS


def decoded(text: str) -> str | None:
    """A key or prefix as `encoding-type=url` sends it; None when it is not UTF-8."""
    if "%" not in text and "+" not in text:
        return text
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        return None

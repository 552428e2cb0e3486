"""S3's XML: a page of a listing, and an error. Pure.

A page of 1,000 keys takes botocore 58 ms, and an XML parser in C with a walk over its tree
6 ms, in which no other Python thread runs. What S3 and its likes send is regular, so one
regular expression takes the objects out (2.5 ms in all), and the parser gets the little
that is left. Whatever is not as expected goes to the parser as a whole.
tests/s3/test_xml.py holds both ways to the same outcome, tests/contract to boto3's.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterable
from xml.etree import ElementTree

from s3mount.errors import BadReply
from s3mount.model import ListPage, ObjectInfo
from s3mount.s3.replies import decoded

# key, time to the second, ETag, size, storage class: as text.
_Found = tuple[str, str, str, str, str]

_OBJECT = re.compile(
    r"<Contents>\s*<Key>([^<&]*)</Key>\s*"
    r"<LastModified>(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)[^<]*</LastModified>\s*"
    r"<ETag>([^<]*)</ETag>\s*"
    r"(?:<Checksum\w+>[^<]*</Checksum\w+>\s*)*"
    r"<Size>(\d+)</Size>\s*"
    r"<StorageClass>(\w*)</StorageClass>\s*"
    r"</Contents>"
)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d).*")
# What must not hide between the objects, where the quick way does not look.
_FIELDS = ("<CommonPrefixes", "<IsTruncated", "<NextContinuationToken", "<EncodingType")


def page_of(body: bytes, what: str) -> ListPage:
    """The page that a ListBucketResult tells. Raises `BadReply` when it is not one."""
    try:
        return _quick_page(body.decode()) or _page(ElementTree.XML(body), None)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise BadReply(f"the answer to {what} is no listing: {error!r}") from error


def _quick_page(text: str) -> ListPage | None:
    begin = text.find("<Contents>")
    end = text.rfind("</Contents>") + len("</Contents>")
    if begin < 0 or any(text.find(name, begin, end) >= 0 for name in _FIELDS):
        return None
    found = _OBJECT.findall(text, begin, end)
    if len(found) != text.count("<Contents>", begin, end):
        return None
    return _page(ElementTree.XML(text[:begin] + text[end:]), found)


def _page(root: ElementTree.Element, found: list[_Found] | None) -> ListPage:
    """The page of `root`, with the objects in `found`, or else those in `root`."""
    skip = root.tag.rfind("}") + 1  # the namespace, which some servers leave out
    if root.tag[skip:] != "ListBucketResult":
        raise ValueError(f"<{root.tag[skip:]}>")
    fields = {child.tag[skip:]: child.text or "" for child in root}
    prefixes = [child[0].text or "" for child in root if child.tag[skip:] == "CommonPrefixes"]
    if found is None:
        found = [_found(child, skip) for child in root if child.tag[skip:] == "Contents"]
    truncated = {"true": True, "false": False}[fields["IsTruncated"]]
    encoded = fields.get("EncodingType") == "url"
    return ListPage(
        list(_objects(found, encoded)),
        [name for prefix in prefixes if (name := decoded(prefix) if encoded else prefix)],
        fields["NextContinuationToken"] if truncated else None,
    )


def _found(contents: ElementTree.Element, skip: int) -> _Found:
    fields = {part.tag[skip:]: part.text or "" for part in contents}
    match = _TIME.fullmatch(fields["LastModified"])
    if match is None:
        raise ValueError(f"LastModified {fields['LastModified']!r}")
    storage_class = fields.get("StorageClass", "")
    return fields["Key"], match[1], fields["ETag"], fields["Size"], storage_class


def _objects(found: list[_Found], encoded: bool) -> Iterable[ObjectInfo]:
    times: dict[str, int] = {}  # many of a page are often of one second
    days: dict[str, int] = {}
    for key_sent, time, etag, size, storage_class in found:
        key = decoded(key_sent) if encoded else key_sent
        if key is None:
            continue
        mtime_ns = times.get(time)
        if mtime_ns is None:
            mtime_ns = times[time] = _mtime_of(time, days)
        yield ObjectInfo(
            key,
            int(size),
            etag.replace("&quot;", '"') if "&" in etag else etag,
            mtime_ns,
            storage_class or "STANDARD",
        )


def _mtime_of(time: str, days: dict[str, int]) -> int:
    """Such as "2026-11-21T07:56:42" in nanoseconds since the epoch; `days` keeps midnights.

    Whole seconds, as HEAD and GET tell: an mtime must not depend on who told it.
    """
    day = time[:10]
    midnight = days.get(day)
    if midnight is None:
        date = int(day[:4]), int(day[5:7]), int(day[8:])
        midnight = days[day] = timegm((*date, 0, 0, 0))
    seconds = int(time[11:13]) * 3600 + int(time[14:16]) * 60 + int(time[17:])
    return (midnight + seconds) * 1_000_000_000


def error_fields(body: bytes) -> dict[str, str]:
    """The fields of an <Error>, such as Code and Message; {} when it is none."""
    try:
        root = ElementTree.XML(body)
    except (ElementTree.ParseError, ValueError):
        return {}
    if root.tag.rpartition("}")[2] != "Error":
        return {}
    return {child.tag.rpartition("}")[2]: child.text or "" for child in root}

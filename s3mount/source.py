"""Pure: what the user calls a bucket -> bucket and prefix.

Accepted: `BUCKET[/PREFIX]`, the same behind `s3://`, an access-point alias, and the ARN of
a bucket, an access point, a multi-region access point, an Outposts or Object Lambda access
point, each with an optional `/PREFIX`.

Must not know: whether it exists. That is found out at the mount.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from s3mount.errors import UsageError

_CURE = "give BUCKET, BUCKET/PREFIX, s3://BUCKET/PREFIX or the ARN of an access point"

# Wider than what AWS lets one create today (3 to 63 of a-z, 0-9, "." and "-"), since
# buckets made before 2018 in us-east-1, and other services, have upper case, "_" and more length.
# It is what botocore accepts.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", re.A)

_ARN = re.compile(
    r"arn:(?P<partition>[a-z-]+):(?P<service>s3[a-z-]*)"
    r":(?P<region>[a-z0-9-]*):(?P<account>[0-9]*):(?P<resource>.*)",
    re.A | re.S,
)
_POINT = r"[A-Za-z0-9][A-Za-z0-9.-]*"
# botocore takes ":" and "/" alike as separators within the resource.
_ACCESS_POINT = re.compile(
    rf"(?P<bucket>(?:outpost[:/]{_POINT}[:/])?accesspoint[:/]{_POINT})(?:/(?P<prefix>.*))?",
    re.A | re.S,
)

# Their listings come in no order, know no start-after, and cut at "/" only: what is known of a
# bucket (intervals of keys in order) would be wrong there.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-express-differences.html
_DIRECTORY_BUCKET = ("--x-s3", "--xa-s3")

_MAX_KEY = 1024  # bytes


class Source(NamedTuple):
    """A bucket (a name, an alias or an ARN) and "" or a prefix that ends with "/"."""

    bucket: str
    prefix: str


def parse_source(text: str) -> Source:
    """What `text` names. Raises `UsageError`."""
    bare = text[5:] if text[:5].lower() == "s3://" else text
    if bare.startswith("arn:"):
        bucket, prefix = _split_arn(bare, text)
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", bare):
        raise UsageError(
            f"{text!r} is a URL, not a bucket", f"{_CURE}; a service goes into --endpoint-url"
        )
    else:
        bucket, _, prefix = bare.partition("/")
    if not bucket.startswith("arn:"):
        _check_name(bucket, text)
    return Source(bucket, _checked_prefix(prefix, text))


def _split_arn(arn: str, text: str) -> tuple[str, str]:
    match = _ARN.fullmatch(arn)
    if match is None:
        raise UsageError(f"{text!r} is not an ARN of S3", _CURE)
    if match["service"] == "s3" and not match["region"] and not match["account"]:
        bucket, _, prefix = match["resource"].partition("/")
        return bucket, prefix
    resource = _ACCESS_POINT.fullmatch(match["resource"])
    if resource is None or not match["account"]:
        raise UsageError(f"{text!r} is not the ARN of a bucket or an access point", _CURE)
    return arn[: match.start("resource")] + resource["bucket"], resource["prefix"] or ""


def _check_name(bucket: str, text: str) -> None:
    if not bucket:
        raise UsageError(f"{text!r} names no bucket", _CURE)
    if not _NAME.fullmatch(bucket) or ".." in bucket:
        raise UsageError(
            f"{bucket!r} is not a bucket name",
            "a name has 3 to 63 letters, digits, dots and dashes, and starts and ends with a"
            " letter or digit",
        )
    if bucket.endswith(_DIRECTORY_BUCKET):
        raise UsageError(
            f"{bucket!r} is a directory bucket (S3 Express One Zone), which is not supported",
            "mount a general purpose bucket: directory buckets list their keys in no order",
        )


def _checked_prefix(prefix: str, text: str) -> str:
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    try:
        length = len(prefix.encode())
    except UnicodeEncodeError:
        raise UsageError(
            f"the prefix in {text!r} is not UTF-8", "S3 keys are UTF-8: check the locale"
        ) from None
    if length >= _MAX_KEY:
        raise UsageError(
            f"the prefix is {length} bytes long", f"a key of S3 has at most {_MAX_KEY}"
        )
    if "\0" in prefix:
        raise UsageError(f"the prefix in {text!r} holds a NUL", _CURE)
    return prefix

"""What people call a bucket."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3mount.errors import UsageError
from s3mount.source import parse_source

POINT = "arn:aws:s3:us-east-1:123456789012:accesspoint/logs"
OUTPOST = "arn:aws:s3-outposts:us-east-1:123456789012:outpost/op-01ac5d28a6a232904/accesspoint/logs"
MULTI = "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap"
LAMBDA = "arn:aws:s3-object-lambda:us-east-1:123456789012:accesspoint/redact"
ALIAS = "logs-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias"


@pytest.mark.parametrize("scheme", ["", "s3://", "S3://"])
@pytest.mark.parametrize(
    "bucket",
    [
        "logs",
        "my.bucket",
        "my_old-Bucket",
        "a" * 63,
        ALIAS,
        POINT,
        POINT.replace("accesspoint/", "accesspoint:"),
        POINT.replace("arn:aws:", "arn:aws-cn:"),
        OUTPOST,
        OUTPOST.replace("/", ":"),
        MULTI,
        LAMBDA,
    ],
)
@pytest.mark.parametrize(
    ("behind", "prefix"),
    [
        ("", ""),
        ("/", ""),
        ("/2026", "2026/"),
        ("/2026/", "2026/"),
        ("/2026/11", "2026/11/"),
        ("//a", "/a/"),
        ("/http://a", "http://a/"),
        ("/a//", "a//"),
        ("/with space, comma:colon", "with space, comma:colon/"),
        ("/ünï\n", "ünï\n/"),
    ],
)
def test_accepted(scheme: str, bucket: str, behind: str, prefix: str) -> None:
    assert parse_source(f"{scheme}{bucket}{behind}") == (bucket, prefix)


def test_arn_of_a_bucket_is_the_bucket() -> None:
    assert parse_source("arn:aws:s3:::logs/2026") == ("logs", "2026/")
    assert parse_source("arn:aws:s3:::logs") == ("logs", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no bucket"),
        ("/", "names no bucket"),
        ("s3://", "names no bucket"),
        ("s3:///logs", "names no bucket"),
        ("ab", "'ab' is not a bucket name"),
        ("-logs", "is not a bucket name"),
        ("logs-", "is not a bucket name"),
        ("lo..gs", "is not a bucket name"),
        ("lo gs", "is not a bucket name"),
        ("lo:gs/x", "'lo:gs' is not a bucket name"),
        ("lögs", "is not a bucket name"),
        ("logs\n", "is not a bucket name"),
        ("a" * 256, "is not a bucket name"),
        ("https://logs.s3.amazonaws.com/x", "is a URL.*--endpoint-url"),
        ("http://minio:9000/logs", "is a URL.*--endpoint-url"),
        ("arn:aws:ec2:us-east-1:1:instance/i-1", "is not an ARN of S3"),
        ("arn:aws:s3", "is not an ARN of S3"),
        ("arn:aws:s3:::", "names no bucket"),
        ("arn:aws:s3:us-east-1:123456789012:job/1", "is not the ARN of a bucket or an access"),
        ("arn:aws:s3:us-east-1::accesspoint/logs", "is not the ARN of a bucket or an access"),
        ("arn:aws:s3:us-east-1:123456789012:accesspoint/", "is not the ARN of a bucket or an acc"),
        ("logs--usw2-az1--x-s3", "directory bucket.*not supported"),
        ("logs--usw2-az1--xa-s3/x", "directory bucket.*not supported"),
        ("logs/\udcff", "is not UTF-8"),
        ("logs/a\0b", "holds a NUL"),
        ("logs/" + "ü" * 512, "1025 bytes"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_source(text)
    assert caught.value.cure


# 255 characters of UTF-8 are less than the 1,024 bytes of a key.
@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=255))
@example("://")
def test_prefix_is_kept_but_for_its_last_slash(prefix: str) -> None:
    expected = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
    assert parse_source(f"logs/{prefix}") == ("logs", expected)


@given(st.text())
def test_any_text_is_a_source_or_a_usage_error(text: str) -> None:
    try:
        source = parse_source(text)
    except UsageError:
        return
    assert source.bucket
    assert source.prefix == "" or source.prefix.endswith("/")

"""Objects of the modelled S3: ranges, conditions, errors, writes, TLS."""

# as in tests/: a test's name says what it shows

from __future__ import annotations

import hashlib
import os
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError

from benchmarks.modelled_s3 import ModelledS3
from benchmarks.tests.asking import Answer, make_client

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BODY = bytes(range(256)) * 1024  # 256 KiB


@pytest.mark.parametrize("key", ["a", "a b", "ü/é", "a+b", "%2F", "x&<y>", "a//b", "a/", "\x01"])
def test_any_key_is_served(server: ModelledS3, client: S3Client, key: str) -> None:
    server.put("bucket", key, key.encode())
    answer = client.get_object(Bucket="bucket", Key=key)
    assert answer["Body"].read() == key.encode()
    assert answer["ETag"] == f'"{hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}"'


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-0", 206, 0, 0),
        ("bytes=10-99", 206, 10, 99),
        ("bytes=262100-", 206, 262100, 262143),
        ("bytes=262143-999999", 206, 262143, 262143),
        ("bytes=-5", 206, 262139, 262143),
        ("bytes=-999999", 206, 0, 262143),
        ("bytes=9-3", 200, 0, 262143),
        ("bytes=a-b", 200, 0, 262143),
    ],
)
def test_ranges(server: ModelledS3, asked: str, status: int, first: int, last: int) -> None:
    server.put("bucket", "object", BODY)
    answer = Answer(server, "/bucket/object", Range=asked)
    assert answer.error is None
    assert answer.status == status
    assert answer.body == BODY[first : last + 1]
    assert answer.headers is not None
    shown = f"bytes {first}-{last}/{len(BODY)}" if status == 206 else None
    assert answer.headers["Content-Range"] == shown


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"Key": "none"}, 404, "NoSuchKey"),
        ({"Bucket": "none"}, 404, "NoSuchBucket"),
        ({"IfMatch": '"other"'}, 412, "PreconditionFailed"),
        ({"Range": "bytes=262144-"}, 416, "InvalidRange"),
        ({"Range": "bytes=-0"}, 416, "InvalidRange"),
    ],
)
def test_errors(
    server: ModelledS3, client: S3Client, parameters: dict[str, str], status: int, code: str
) -> None:
    server.put("bucket", "object", BODY)
    with pytest.raises(ClientError) as caught:
        client.get_object(**{"Bucket": "bucket", "Key": "object", **parameters})  # type: ignore[arg-type]  # a dict of keyword arguments
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert caught.value.response["Error"]["Code"] == code


def test_conditions_that_hold(server: ModelledS3, client: S3Client) -> None:
    etag = server.put("bucket", "object", BODY)
    answer = client.get_object(Bucket="bucket", Key="object", IfMatch=etag, Range="bytes=0-3")
    assert answer["Body"].read() == BODY[:4]
    with pytest.raises(ClientError, match="304"):
        client.get_object(Bucket="bucket", Key="object", IfNoneMatch=f'"{etag}"')


def test_bucket_requests(client: S3Client) -> None:
    assert "bucket" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    head = client.head_bucket(Bucket="bucket")
    assert head["BucketRegion"] == "us-east-1"
    assert client.get_bucket_location(Bucket="bucket")["LocationConstraint"] is None
    with pytest.raises(ClientError, match="404"):
        client.head_bucket(Bucket="none")


def test_an_object_replaced_while_read_is_one_version(server: ModelledS3) -> None:
    versions = [bytes([number]) * 200_000 for number in range(4)]
    etags = {hashlib.md5(v, usedforsecurity=False).hexdigest(): v for v in versions}
    server.put("bucket", "changing", versions[0])
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(Answer, server, "/bucket/changing") for _ in range(200)]
        for number in range(100):
            server.replace("bucket", "changing", versions[number % 4])
        for read in reads:
            answer = read.result()
            assert answer.headers is not None
            assert answer.body == etags[answer.headers["ETag"].strip('"')]


def test_puts_copies_and_deletes(server: ModelledS3, client: S3Client) -> None:
    client.put_object(Bucket="bucket", Key="w/1", Body=b"one", Metadata={"mtime": "7"})
    head = client.head_object(Bucket="bucket", Key="w/1")
    assert (head["ContentLength"], head["Metadata"]) == (3, {"mtime": "7"})
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="bucket", Key="w/1", Body=b"two", IfNoneMatch="*")
    client.copy_object(Bucket="bucket", Key="w/2", CopySource={"Bucket": "bucket", "Key": "w/1"})
    assert client.get_object(Bucket="bucket", Key="w/2")["Body"].read() == b"one"
    client.delete_object(Bucket="bucket", Key="w/1")
    deleted = client.delete_objects(
        Bucket="bucket", Delete={"Objects": [{"Key": "w/2"}, {"Key": "w/&"}]}
    )
    assert [entry["Key"] for entry in deleted["Deleted"]] == ["w/2", "w/&"]
    assert client.list_objects_v2(Bucket="bucket", Prefix="w/")["KeyCount"] == 0


def test_multipart_upload(client: S3Client) -> None:
    upload = client.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
    where = {"Bucket": "bucket", "Key": "parts", "UploadId": upload}
    parts = [os.urandom(300_000), os.urandom(200_000), b"end"]
    with ThreadPoolExecutor(3) as pool:
        answers = list(
            pool.map(
                lambda number: client.upload_part(
                    **where,  # type: ignore[arg-type]  # a dict of keyword arguments
                    PartNumber=number,
                    Body=parts[number - 1],
                ),
                [3, 1, 2],
            )
        )
    etags = dict(zip([3, 1, 2], (answer["ETag"] for answer in answers), strict=True))
    whole = client.complete_multipart_upload(
        **where,  # type: ignore[arg-type]  # a dict of keyword arguments
        MultipartUpload={"Parts": [{"PartNumber": n, "ETag": etags[n]} for n in (1, 2, 3)]},
    )
    assert whole["ETag"].endswith('-3"')
    assert client.get_object(Bucket="bucket", Key="parts")["Body"].read() == b"".join(parts)
    aborted = client.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
    client.abort_multipart_upload(Bucket="bucket", Key="parts", UploadId=aborted)
    with pytest.raises(ClientError, match="NoSuchUpload"):
        client.upload_part(Bucket="bucket", Key="parts", UploadId=aborted, PartNumber=1, Body=b"")


def test_tls_and_chunked_uploads(server: ModelledS3, tmp_path: Path) -> None:
    """Over TLS boto3 sends a file aws-chunked, with its checksum behind it."""
    path = tmp_path / "file"
    path.write_bytes(BODY)
    client = make_client(server.tls_endpoint_url, server.ca_path)
    with path.open("rb") as file:
        client.put_object(Bucket="bucket", Key="chunked", Body=file)
    assert client.get_object(Bucket="bucket", Key="chunked")["Body"].read() == BODY
    client.close()
    with pytest.raises(OSError, match="certificate verify failed"):
        urlopen(server.tls_endpoint_url, context=ssl.create_default_context())

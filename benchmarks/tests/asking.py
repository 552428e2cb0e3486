"""Clients that ask the modelled S3: boto3, and bare HTTP for what boto3 would mend or hide."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from benchmarks.modelled_s3 import ModelledS3

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def make_client(url: str, verify: Path | None = None) -> S3Client:
    """A path-style client that tries once; `verify` is a CA's certificate."""
    client: S3Client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        verify=str(verify) if verify else None,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    return client


class Answer:
    """One answer, read to its end or to where it broke."""

    def __init__(self, server: ModelledS3, path: str, timeout: float = 5, **headers: str) -> None:
        self.error: Exception | None = None
        self.status, self.body = 0, b""
        self.headers: http.client.HTTPMessage | None = None
        connection = http.client.HTTPConnection(
            urlsplit(server.endpoint_url).netloc, timeout=timeout
        )
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers=fields)
            response = connection.getresponse()
            self.status, self.headers = response.status, response.headers
            while piece := response.read1(65536):
                self.body += piece
            if response.length:  # read1 takes an early end for an end
                raise http.client.IncompleteRead(b"", response.length)
        except (OSError, http.client.HTTPException) as error:
            self.error = error
        finally:
            connection.close()

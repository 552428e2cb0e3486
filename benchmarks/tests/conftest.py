"""One server for all tests of a module, calm before each."""

# as in tests/: a test's name says what it shows

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from benchmarks.modelled_s3 import ModelledS3
from benchmarks.tests.asking import make_client

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@pytest.fixture(scope="module")
def server() -> Iterator[ModelledS3]:
    with ModelledS3(ttfb=0, rate=0, tls=True) as server:
        yield server


@pytest.fixture(autouse=True)
def calm(request: pytest.FixtureRequest) -> None:
    """Every test starts without faults, counts and latency."""
    if "server" in request.fixturenames:
        server: ModelledS3 = request.getfixturevalue("server")
        server.clear_faults()
        server.set_model(ttfb=0, rate=0)
        server.reset_counts()


@pytest.fixture(scope="module")
def client(server: ModelledS3) -> Iterator[S3Client]:
    client = make_client(server.endpoint_url)
    yield client
    client.close()

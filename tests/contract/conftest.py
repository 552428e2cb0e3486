"""The ways to a bucket that are held to one contract, and the servers behind them.

A server is added by one line of `WAYS` and one branch of `_servers`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from s3mount.config import Config
from s3mount.metrics import Metrics
from s3mount.s3.bucket import Bucket
from s3mount.s3.connect import build
from s3mount.s3.fake import FakeBucket
from tests.s3.scripted import ScriptedServer, scripted_server
from tests.servers import Certificate, Server, make_certificate, moto_server

# client-server; "long" needs nginx with Lua.
WAYS = [
    "fake",
    "boto3-moto",
    "lean-moto",
    pytest.param("boto3-nginx", marks=pytest.mark.long),
    pytest.param("lean-nginx", marks=pytest.mark.long),
    pytest.param("lean-nginx_tls", marks=pytest.mark.long),
]

_numbers = count(1)


class Subject(NamedTuple):
    """A bucket to ask, and the way to fill it behind its back."""

    bucket: Bucket
    put: Callable[[Mapping[str, bytes]], None]
    delete: Callable[[str], None]
    metrics: Metrics


def config_for(endpoint_url: object = None, bucket: str = "bucket", **options: object) -> Config:
    settings: dict[str, object] = {"endpoint_url": endpoint_url, "region": "us-east-1"}
    return Config(bucket, bucket, "", Path("/mnt"), **(settings | options))  # type: ignore[arg-type]  # of any field


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials of the tests, and none of the user's."""
    for name, value in Server("").environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def tls_moto(certificate: Certificate) -> Iterator[Server]:
    with moto_server(certificate) as server:
        yield server


class Filler(NamedTuple):
    """One kind of server: where it is, and how a bucket on it is filled."""

    endpoint_url: str
    ca_path: Path | None
    create: Callable[[str], object]
    put: Callable[[str, Mapping[str, bytes]], object]
    delete: Callable[[str, str], object]


def _moto_filler(server: Server) -> Filler:
    return Filler(
        server.endpoint_url,
        server.ca_path,
        lambda bucket: server.put(bucket, {}),
        server.put,
        lambda bucket, key: server.client.delete_object(Bucket=bucket, Key=key),
    )


@pytest.fixture(scope="module")
def nginx() -> Iterator[Callable[[bool], Filler]]:
    """The modelled S3 of the benchmarks, without its latency and rate."""
    from benchmarks.modelled_s3 import ModelledS3

    with ModelledS3(ttfb=0, rate=0, tls=True) as server:

        def filler(tls: bool) -> Filler:
            return Filler(
                server.tls_endpoint_url if tls else server.endpoint_url,
                server.ca_path if tls else None,
                server.create_bucket,
                server.put_many,
                server.delete,
            )

        yield filler


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def filler(way: str, request: pytest.FixtureRequest) -> Filler | None:
    """The server of `way`; None for the fake."""
    _, _, server = way.partition("-")
    if server == "moto":
        return _moto_filler(request.getfixturevalue("module_server"))
    if server.startswith("nginx"):
        make: Callable[[bool], Filler] = request.getfixturevalue("nginx")
        return make(server == "nginx_tls")
    return None


@pytest.fixture
async def subject(way: str, filler: Filler | None) -> AsyncIterator[Subject]:
    """An empty bucket, asked by one of the ways."""
    metrics = Metrics()
    if filler is None:
        fake = FakeBucket(metrics=metrics)
        yield Subject(fake, fake.put_all, fake.delete, metrics)
        await fake.aclose()
        return
    name = f"contract-{next(_numbers)}"
    filler.create(name)
    config = config_for(filler.endpoint_url, name, ca_bundle=filler.ca_path)
    bucket = await build(config, metrics, config.region, lean=way.startswith("lean"))
    yield Subject(
        bucket,
        lambda objects: void(filler.put(name, objects)),
        lambda key: void(filler.delete(name, key)),
        metrics,
    )
    await bucket.aclose()


def void(_: object) -> None:
    """Nothing."""


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def read_timeout() -> float:
    """Seconds that `liar` waits for more. Tests in which nothing comes have it shorter."""
    return 10.0


@pytest.fixture(params=["boto3", "lean"])
async def liar(
    request: pytest.FixtureRequest, scripted: ScriptedServer, read_timeout: float
) -> AsyncIterator[Bucket]:
    """A bucket on the scripted server."""
    config = config_for(scripted.endpoint_url, read_timeout=read_timeout)
    bucket = await build(config, Metrics(), config.region, lean=request.param == "lean")
    yield bucket
    await bucket.aclose()

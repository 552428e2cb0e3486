"""From options and the environment to a bucket: endpoints, credentials, regions, TLS, proxies."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from botocore.exceptions import MissingDependencyException
from trio.testing import MockClock, wait_all_tasks_blocked

from s3mount.errors import CredentialsError, TlsError, Unreachable, WrongRegion
from s3mount.metrics import Metrics
from s3mount.s3.bucket import Bucket
from s3mount.s3.client import common_parameters, make_client, make_session
from s3mount.s3.connect import Reconnecting, build, connect
from s3mount.s3.endpoint import Endpoint, find_endpoint
from tests.contract.conftest import config_for
from tests.s3.scripted import Answer, ScriptedServer, error, head, part, text
from tests.servers import Server

EMPTY = (
    "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount>"
    "<IsTruncated>false</IsTruncated></ListBucketResult>"
)


@asynccontextmanager
async def connected(endpoint_url: str, **options: object) -> AsyncIterator[Bucket]:
    """What the daemon uses, without the retries on top."""
    settings: dict[str, object] = {"read_timeout": 1.0} | options
    config = config_for(endpoint_url, "bucket", **settings)
    bucket = Reconnecting(config, Metrics(), await build(config, Metrics(), config.region))
    try:
        yield bucket
    finally:
        await bucket.aclose()


def endpoint(bucket: str = "photos", **options: object) -> Endpoint | None:
    config = config_for(bucket=bucket, **options)
    session = make_session(config)
    client = make_client(config, session, config.region)
    try:
        return find_endpoint(client, session, config, common_parameters(config))
    finally:
        client.close()


ARN = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"


@pytest.mark.parametrize(
    ("bucket", "options", "host", "path"),
    [
        ("photos", {}, "photos.s3.amazonaws.com", ""),
        ("photos", {"region": "eu-west-1"}, "photos.s3.eu-west-1.amazonaws.com", ""),
        ("photos", {"region": None}, "photos.s3.amazonaws.com", ""),
        ("photos", {"path_style": True}, "s3.amazonaws.com", "/photos"),
        ("with.dots", {}, "s3.amazonaws.com", "/with.dots"),
        ("photos", {"dualstack": True}, "photos.s3.dualstack.us-east-1.amazonaws.com", ""),
        ("photos", {"fips": True}, "photos.s3-fips.us-east-1.amazonaws.com", ""),
        ("photos", {"accelerate": True}, "photos.s3-accelerate.amazonaws.com", ""),
        (ARN, {"region": "eu-west-1"},
         "mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com", ""),
        ("photos", {"endpoint_url": "http://minio:9000"}, "minio:9000", "/photos"),
        ("photos", {"endpoint_url": "http://minio:9000/under"}, "minio:9000", "/under/photos"),
    ],
)  # fmt: skip
def test_endpoints_are_botocores(
    bucket: str, options: dict[str, object], host: str, path: str
) -> None:
    found = endpoint(bucket, **options)
    assert found is not None
    assert (found.host, found.path, found.service, found.signed) == (host, path, "s3", True)
    if "minio" in host:
        assert (found.address.host, found.address.port, found.address.tls) == ("minio", 9000, None)
    else:
        assert found.address.port == 443
        assert found.address.tls is not None


@pytest.mark.parametrize(
    ("bucket", "options"),
    [("photos--use1-az4--x-s3", {}), ("arn:aws:s3::123456789012:accesspoint/m.mrap", {})],
)
def test_what_is_left_to_boto3(bucket: str, options: dict[str, object]) -> None:
    # Multi-region access points want another signature, and botocore a package for it.
    with contextlib.suppress(MissingDependencyException):
        assert endpoint(bucket, **options) is None


async def test_what_requests_carry(scripted: ScriptedServer) -> None:
    scripted.script(text("200 OK", EMPTY), head("200 OK", "ETag: x", "Content-Length: 0"))
    async with connected(
        scripted.endpoint_url, requester_pays=True, expected_bucket_owner="123456789012"
    ) as bucket:
        await bucket.list_page("a b/", delimiter="/")
        await bucket.head("a b/ü")
    for request in scripted.requests:
        assert b"x-amz-request-payer: requester" in request
        assert b"x-amz-expected-bucket-owner: 123456789012" in request
        assert re.search(
            rb"authorization: AWS4-HMAC-SHA256 Credential=test/\d{8}/us-east-1/s3/aws4_request, "
            rb"SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-expected-bucket-owner;"
            rb"x-amz-request-payer, Signature=[0-9a-f]{64}",
            request,
        )
        assert b"user-agent: Boto3" in request
        assert b"s3mount" in request
    assert scripted.requests[0].startswith(
        b"GET /bucket?delimiter=%2F&encoding-type=url&list-type=2&max-keys=1000&prefix=a%20b%2F "
    )
    assert scripted.requests[1].startswith(b"HEAD /bucket/a%20b/%C3%BC HTTP/1.1\r\n")


async def test_without_signing(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    scripted.script(text("200 OK", EMPTY))
    async with connected(scripted.endpoint_url, no_sign_request=True) as bucket:
        await bucket.list_page("")
    assert b"authorization" not in scripted.requests[0].lower()


async def test_no_credentials(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(CredentialsError, match=r"no credentials were found; .*--no-sign-request"):
        async with connected(scripted.endpoint_url):
            pass
    assert scripted.requests == []


async def test_no_such_profile(scripted: ScriptedServer) -> None:
    with pytest.raises(CredentialsError, match=r"\(nobody\) could not be found; check --profile"):
        async with connected(scripted.endpoint_url, profile="nobody"):
            pass


async def test_the_region_is_found(scripted: ScriptedServer) -> None:
    """Without --region, the bucket's is used, for what comes later too."""
    moved = error("301 Moved Permanently", "PermanentRedirect", "x-amz-bucket-region: eu-central-1")
    scripted.script(moved, text("200 OK", EMPTY), text("200 OK", EMPTY))
    async with connected(scripted.endpoint_url, region=None) as bucket:
        await bucket.list_page("")
        await bucket.list_page("")
    regions = [re.findall(rb"/([a-z0-9-]+)/s3/aws4", each) for each in scripted.requests]
    assert regions == [[b"us-east-1"], [b"eu-central-1"], [b"eu-central-1"]]


@pytest.mark.parametrize(
    "answer",
    [
        error("301 Moved Permanently", "PermanentRedirect", "x-amz-bucket-region: eu-central-1"),
        error("400 Bad Request", "AuthorizationHeaderMalformed",
              fields="<Region>eu-central-1</Region>"),
    ],
)  # fmt: skip
async def test_a_region_that_was_given_is_not_overruled(
    scripted: ScriptedServer, answer: bytes
) -> None:
    scripted.script(answer)
    async with connected(scripted.endpoint_url, region="us-west-2") as bucket:
        with pytest.raises(WrongRegion, match="not in region us-west-2 but in eu-central-1; use"):
            await bucket.list_page("")
    assert len(scripted.requests) == 1


async def test_a_temporary_redirect_is_left_to_boto3(scripted: ScriptedServer) -> None:
    away = error("307 Temporary Redirect", "TemporaryRedirect", "x-amz-bucket-region: us-east-1")
    scripted.script(away, part(b"hello"))
    into = [memoryview(bytearray(5))]
    async with connected(scripted.endpoint_url) as bucket:
        reply = await bucket.get_range("a", 0, into, etag=None)
    assert (reply.received, bytes(into[0])) == (5, b"hello")
    assert [b"amz-sdk-invocation-id" in each for each in scripted.requests] == [False, True]


def write_credentials(key: str) -> None:
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(
        f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n"
    )


async def test_credentials_written_since_are_found(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """Those of a file are static to botocore; a tool that renews it must not need a remount."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    write_credentials("OLD")
    expired = error("400 Bad Request", "ExpiredToken")
    good = text("200 OK", EMPTY)
    scripted.script(good, expired, expired, good)
    async with connected(scripted.endpoint_url) as bucket:
        await bucket.list_page("")
        write_credentials("NEW")
        # Not looked for again within seconds of the last time.
        with pytest.raises(CredentialsError, match=r"expired \(ExpiredToken\); sign in again"):
            await bucket.list_page("")
        await trio.sleep(11)
        await bucket.list_page("")
    keys = [re.findall(rb"Credential=(\w+)/", each) for each in scripted.requests]
    assert keys == [[b"OLD"], [b"OLD"], [b"OLD"], [b"NEW"]]


@pytest.mark.parametrize("lean", [True, False])
async def test_nobody_listens(lean: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    bucket = await build(config_for(f"http://127.0.0.1:{port}"), Metrics(), None, lean=lean)
    with pytest.raises(Unreachable, match=rf"127.0.0.1:{port} refuses the connection; check"):
        await bucket.list_page("")
    await bucket.aclose()


@pytest.mark.parametrize("lean", [True, False])
async def test_no_such_host(lean: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    bucket = await build(config_for("http://s3.nowhere"), Metrics(), None, lean=lean)
    with pytest.raises(Unreachable, match=r"the host of http://s3\.nowhere is unknown to DNS"):
        await bucket.list_page("")
    await bucket.aclose()


@pytest.mark.parametrize(("share", "sent"), [(0.0, 1), (0.1, 2)])
async def test_without_a_share_no_request_is_sent_beside_another(
    scripted: ScriptedServer, nursery: trio.Nursery, mock_clock: MockClock, share: float, sent: int
) -> None:
    """Neither one that is late nor one that seems lost."""
    silent = Answer(b"", then="hold", rest=text("200 OK", EMPTY))
    scripted.script(silent, text("200 OK", EMPTY))
    metrics = Metrics()
    config = config_for(scripted.endpoint_url, hedge_share=share)
    bucket = (await connect(config, metrics, nursery)).bucket
    async with trio.open_nursery() as calls:
        calls.start_soon(bucket.list_page, "")
        await trio.to_thread.run_sync(silent.begun.wait)
        mock_clock.jump(5.0)
        await wait_all_tasks_blocked()
        if metrics["requests.repeated"] == 0:
            silent.more.set()  # nothing else will bring the answer
    assert metrics["requests.repeated"] == sent - 1
    assert len(scripted.requests) == sent
    await bucket.aclose()


def write_profile(line: str) -> None:
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(f"[default]\n{line}\n")


# --- TLS ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("way", ["option", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "profile"])
async def test_tls(tls_moto: Server, lean: bool, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = os.urandom(300_000)
    tls_moto.put("bucket", {"a": body})
    if way.isupper():
        monkeypatch.setenv(way, str(tls_moto.ca_path))
    if way == "profile":
        write_profile(f"ca_bundle = {tls_moto.ca_path}")
    config = config_for(
        tls_moto.endpoint_url, ca_bundle=tls_moto.ca_path if way == "option" else None
    )
    bucket = await build(config, Metrics(), config.region, lean=lean)
    into = [memoryview(bytearray(100_000)) for _ in range(4)]
    for _ in range(2):
        reply = await bucket.get_range("a", 0, into, etag=None)
        assert b"".join(into)[: reply.received] == body
    assert [found.key for found in (await bucket.list_page("")).objects] == ["a"]
    await bucket.aclose()


@pytest.mark.parametrize("lean", [True, False])
async def test_an_unknown_ca(tls_moto: Server, lean: bool) -> None:
    bucket = await build(config_for(tls_moto.endpoint_url), Metrics(), None, lean=lean)
    with pytest.raises(TlsError, match=r"TLS with https://127.*certificate.*; check --ca-bundle"):
        await bucket.list_page("")
    await bucket.aclose()


@pytest.mark.parametrize("lean", [True, False])
async def test_another_host_name(
    tls_moto: Server, lean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1", *rest, **more)
    )
    url = tls_moto.endpoint_url.replace("127.0.0.1", "elsewhere")
    bucket = await build(config_for(url, ca_bundle=tls_moto.ca_path), Metrics(), None, lean=lean)
    with pytest.raises(TlsError, match=r"(?i)host ?name .*match"):
        await bucket.list_page("")
    await bucket.aclose()


async def test_tls_to_who_speaks_none(scripted: ScriptedServer) -> None:
    scripted.script(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    url = scripted.endpoint_url.replace("http:", "https:")
    async with connected(url) as bucket:
        with pytest.raises((TlsError, Unreachable)):
            await bucket.list_page("")


# --- proxies ------------------------------------------------------------------------------


async def test_a_proxy_is_used(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", scripted.endpoint_url)
    monkeypatch.delenv("NO_PROXY")
    scripted.script(text("200 OK", EMPTY))
    async with connected("http://s3.elsewhere") as bucket:
        assert "Boto3Bucket" in repr(bucket)
        await bucket.list_page("")
    assert scripted.requests[0].startswith(b"GET http://s3.elsewhere/bucket?")


async def test_no_proxy_is_obeyed(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    scripted.script(text("200 OK", EMPTY))
    async with connected(scripted.endpoint_url) as bucket:
        assert "LeanBucket" in repr(bucket)
        await bucket.list_page("")
    assert scripted.requests[0].startswith(b"GET /bucket?")

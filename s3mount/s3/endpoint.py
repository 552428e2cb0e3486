"""Where and how to send requests, as botocore decides it: asked once, by a trial.

botocore's endpoint rules know virtual hosts and path style, dual stack, FIPS, accelerate,
access points and their ARNs, and custom endpoints. Here it prepares one GET and, at the
last moment, does not send it: its URL, headers and signature tell all of that.

What the lean path does not do (proxies, signatures other than SigV4, sessions of
directory buckets) is found here too: then there is no `Endpoint`.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import botocore.session
from botocore.httpsession import create_urllib3_context, get_cert_path
from botocore.utils import get_environ_proxies

from s3mount.config import Config
from s3mount.s3.signing import Headers
from s3mount.s3.wire import Address

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from types_boto3_s3 import S3Client

_KEY = "s3mount-never-sends-this"
_EVENT = "before-send.s3.GetObject"
# Made anew for each request, or of no use to S3.
_OWN_HEADERS = frozenset({"x-amz-date", "x-amz-content-sha256", "x-amz-security-token"})


class Endpoint(NamedTuple):
    """What every request to one bucket has in common."""

    address: Address
    host: str  # the Host header
    path: str  # before "/" and the key, percent-encoded: "" or "/bucket"
    headers: Headers  # to be signed: who pays, whose bucket it is
    user_agent: str
    region: str  # of the signature
    service: str
    signed: bool


class _CaughtError(Exception):
    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__()
        self.request = request


def find_endpoint(
    client: S3Client,
    session: botocore.session.Session,
    config: Config,
    parameters: dict[str, Any],
) -> Endpoint | None:
    """The endpoint for the bucket and options in `parameters`; None: use boto3.

    Fetches credentials, and raises what botocore raises when there are none.
    """
    if config.bucket.endswith("--x-s3"):
        return None
    request = _prepared(client, parameters)
    url = urlsplit(request.url)
    if get_environ_proxies(request.url).get(url.scheme) or not url.hostname:
        return None
    sent = {name.lower(): _text(value) for name, value in request.headers.items()}
    authorization = sent.get("authorization", "")
    region = service = ""
    if authorization:
        algorithm, _, rest = authorization.partition(" Credential=")
        if algorithm != "AWS4-HMAC-SHA256" or "x-amz-s3session-token" in sent:
            return None
        _, _, region, service, _ = rest.partition(",")[0].rsplit("/", 4)
    headers = [
        (name, value)
        for name, value in sent.items()
        if name.startswith("x-amz-") and name not in _OWN_HEADERS
    ]
    tls = _tls_context(session, config.ca_bundle) if url.scheme == "https" else None
    return Endpoint(
        Address(url.hostname, url.port or (443 if tls else 80), tls),
        url.netloc,
        url.path.removesuffix(f"/{_KEY}"),
        headers,
        sent.get("user-agent", "s3mount"),
        region,
        service,
        bool(authorization),
    )


def _prepared(client: S3Client, parameters: dict[str, Any]) -> AWSPreparedRequest:
    """The request for an object, as botocore would send it."""

    def catch(request: AWSPreparedRequest, **_: object) -> None:
        raise _CaughtError(request)

    client.meta.events.register_first(_EVENT, catch)
    try:
        client.get_object(Key=_KEY, **parameters)
    except _CaughtError as caught:
        return caught.request
    finally:
        client.meta.events.unregister(_EVENT, catch)
    raise AssertionError("botocore sent a request without saying so before")


def _tls_context(session: botocore.session.Session, ca_bundle: Path | None) -> ssl.SSLContext:
    """As botocore makes it: the same ciphers, and the same choice of who is trusted."""
    trusted = str(
        (str(ca_bundle) if ca_bundle else None)
        or session.get_config_variable("ca_bundle")  # AWS_CA_BUNDLE, and the profile's
        # botocore reads this one too, without telling its session: part of its chain, so here.
        or os.environ.get("REQUESTS_CA_BUNDLE")  # noqa: TID251  # as the comment says
        or get_cert_path(True)
    )
    context: ssl.SSLContext = create_urllib3_context()
    # urllib3 compares the host name itself, and so botocore leaves it out of the context.
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    if Path(trusted).is_dir():
        context.load_verify_locations(capath=trusted)
    else:
        context.load_verify_locations(cafile=trusted)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value

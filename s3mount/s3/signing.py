"""AWS Signature Version 4 for the few requests that the lean path sends.

botocore's S3SigV4Auth takes a third of a millisecond a request, most of it to derive the
signing key, which stays the same for a day, and to build general structures. This keeps
the key, and signs what the lean path sends and nothing else; tests/s3/test_signing.py
holds it to botocore's own signature. Credentials are botocore's, and refreshed by it.

Called in several threads at once: what it keeps is replaced, never changed.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from botocore.credentials import Credentials

EMPTY_SHA256 = sha256(b"").hexdigest()

Headers = list[tuple[str, str]]


class _Key(NamedTuple):
    """A signing key, and what it is good for."""

    secret: str
    date: str
    key: bytes


class Signer:
    """Adds what makes a request authentic: nothing, when `credentials` is None."""

    def __init__(
        self,
        credentials: Credentials | None,
        region: str,
        service: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._region = region
        self._service = service
        self._now = now
        self._key = _Key("", "", b"")
        self._second = (0, "19700101T000000Z")  # the last one, and how it is written

    def may_block(self) -> bool:
        """Whether credentials are to be refreshed now, over the network perhaps."""
        refresh_needed = getattr(self._credentials, "refresh_needed", None)
        return refresh_needed is not None and bool(refresh_needed())

    def sign(self, method: str, path: str, query: str, headers: Headers) -> Headers:
        """`headers` and those that sign the request, which has no body.

        `path` and `query` are as they are sent: percent-encoded, the query sorted. All of
        `headers` (lower-case names, and among them "host") are signed.

        Raises what botocore raises when credentials cannot be refreshed; may block then.
        """
        if self._credentials is None:
            return headers
        frozen = self._credentials.get_frozen_credentials()
        second, timestamp = self._second
        now = int(self._now())
        if second != now:
            timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            self._second = now, timestamp
        date = timestamp[:8]
        signed = [*headers, ("x-amz-content-sha256", EMPTY_SHA256), ("x-amz-date", timestamp)]
        if frozen.token:
            signed.append(("x-amz-security-token", frozen.token))
        signed.sort()
        names = ";".join([name for name, _ in signed])
        lines = "".join([f"{name}:{value}\n" for name, value in signed])
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{EMPTY_SHA256}"
        scope = f"{date}/{self._region}/{self._service}/aws4_request"
        digest = sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{digest}"
        signature = hmac.digest(
            self._signing_key(frozen.secret_key or "", date), text.encode(), "sha256"
        ).hex()
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={frozen.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        signed.append(("authorization", authorization))
        return signed

    def _signing_key(self, secret: str, date: str) -> bytes:
        known = self._key
        if known.date == date and known.secret == secret:
            return known.key
        key = f"AWS4{secret}".encode()
        for part in (date, self._region, self._service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = _Key(secret, date, key)
        return key

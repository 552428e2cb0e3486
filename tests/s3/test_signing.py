"""The lean signature is botocore's."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from s3mount.s3.signing import Signer

WHEN = datetime(2026, 11, 21, 7, 56, 42, tzinfo=UTC)

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
values = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


def signed_by_botocore(
    credentials: Credentials, url: str, headers: list[tuple[str, str]]
) -> dict[str, str]:
    request = AWSRequest("GET", url, headers=dict(headers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: WHEN.replace(tzinfo=None))
        S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(keys, values, values, st.sampled_from([None, "token"]), st.booleans())
def test_it_is_botocores(
    key: str, prefix: str, after: str, token: str | None, listing: bool
) -> None:
    credentials = Credentials("AKID", "secret/with+odd=characters", token)
    signer = Signer(credentials, "eu-west-1", "s3", WHEN.timestamp)
    path, query = f"/bucket/{quote(key, safe='/')}", ""
    headers = [
        ("host", "s3.eu-west-1.amazonaws.com"),
        ("range", "bytes=0-99"),
        ("if-match", '"abc"'),
        ("x-amz-request-payer", "requester"),
    ]
    if listing:
        path = "/bucket"
        query = f"list-type=2&prefix={quote(prefix, safe='')}&start-after={quote(after, safe='')}"
    url = f"https://s3.eu-west-1.amazonaws.com{path}" + (f"?{query}" if query else "")
    assert dict(signer.sign("GET", path, query, headers)) == signed_by_botocore(
        credentials, url, headers
    )


def test_the_key_is_kept_for_a_day_and_a_secret() -> None:
    now = WHEN.timestamp()
    credentials = Credentials("AKID", "one")
    signer = Signer(credentials, "eu-west-1", "s3", lambda: now)
    headers = [("host", "h")]

    def signature() -> str:
        return dict(signer.sign("GET", "/", "", headers))["authorization"]

    first = signature()
    assert signature() == first
    credentials.secret_key = "two"
    assert signature() != first
    credentials.secret_key = "one"
    assert signature() == first
    now += 86_400
    assert "/20261122/" in signature()
    now -= 86_400
    assert signature() == first


def test_without_credentials_nothing_is_added() -> None:
    assert Signer(None, "", "").sign("GET", "/", "", [("host", "h")]) == [("host", "h")]

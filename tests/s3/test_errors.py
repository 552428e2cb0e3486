"""Each row of the tables: what S3, botocore or the network says, and what the user reads."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import botocore.exceptions as boto
import pytest
import urllib3.exceptions as u3

from s3mount import errors
from s3mount.s3.errors import (
    CODES,
    EXCEPTIONS,
    STATUSES,
    BehindEnd,
    OtherRegion,
    Place,
    Refusal,
    RetryLater,
    bucket_missing,
    from_exception,
    from_refusal,
    skew_in_words,
)

PLACE = Place("photos", "https://s3.example", "eu-west-1", "work")

# code -> class, and words that the message must hold
CODE_ROWS: dict[str, tuple[type[errors.RequestError], tuple[str, ...]]] = {
    "NoSuchKey": (errors.NotFound, ("GET of 'k'",)),
    "NoSuchVersion": (errors.VersionChanged, ("GET of 'k'",)),
    "NoSuchBucket": (errors.BucketNotFound, ("'photos'", "https://s3.example", "name")),
    "AccessDenied": (errors.AccessDenied, ("said", "s3:ListBucket", "--requester-pays")),
    "AccountProblem": (errors.AccessDenied, ("said",)),
    "AllAccessDisabled": (errors.AccessDenied, ("said",)),
    "Forbidden": (errors.AccessDenied, ("said",)),
    "NotSignedUp": (errors.AccessDenied, ("said",)),
    "InvalidPayer": (errors.AccessDenied, ("said",)),
    "InvalidObjectState": (errors.Archived, ("GLACIER", "restore-object")),
    "InvalidAccessKeyId": (errors.CredentialsError, ("InvalidAccessKeyId", "--profile")),
    "SignatureDoesNotMatch": (errors.CredentialsError, ("secret key", "--profile")),
    "InvalidSecurity": (errors.CredentialsError, ("InvalidSecurity",)),
    "InvalidToken": (errors.CredentialsError, ("session token", "sso login --profile work")),
    "InvalidClientTokenId": (errors.CredentialsError, ("InvalidClientTokenId",)),
    "UnrecognizedClientException": (errors.CredentialsError, ("--profile",)),
    "ExpiredToken": (errors.CredentialsError, ("expired", "aws sso login --profile work")),
    "ExpiredTokenException": (errors.CredentialsError, ("expired", "aws sso login")),
    "RequestExpired": (errors.CredentialsError, ("expired",)),
    "TokenRefreshRequired": (errors.CredentialsError, ("expired",)),
    "AuthorizationHeaderMalformed": (errors.WrongRegion, ("eu-west-1", "--region us-west-2")),
    "IllegalLocationConstraintException": (errors.WrongRegion, ("--region us-west-2",)),
    "PermanentRedirect": (errors.WrongRegion, ("--region us-west-2",)),
    "Redirect": (errors.WrongRegion, ("--region us-west-2",)),
    "TemporaryRedirect": (errors.ServerError, ("just created",)),
    "RequestTimeTooSkewed": (errors.ClockSkewed, ("s behind S3's", "NTP")),
    "PreconditionFailed": (errors.VersionChanged, ("replaced",)),
    "InvalidRange": (errors.VersionChanged, ("shorter",)),
    "BandwidthLimitExceeded": (errors.Throttled, ("fewer requests",)),
    "RequestLimitExceeded": (errors.Throttled, ("fewer requests",)),
    "ServiceUnavailable": (errors.Throttled, ("fewer requests",)),
    "SlowDown": (errors.Throttled, ("fewer requests", "SlowDown")),
    "Throttling": (errors.Throttled, ("fewer requests",)),
    "ThrottlingException": (errors.Throttled, ("fewer requests",)),
    "TooManyRequests": (errors.Throttled, ("fewer requests",)),
    "InternalError": (errors.ServerError, ("InternalError", "said")),
    "OperationAborted": (errors.ServerError, ("OperationAborted",)),
    "RequestTimeout": (errors.ServerError, ("RequestTimeout",)),
    "InvalidArgument": (errors.InvalidRequest, ("said", "--path-style")),
    "InvalidBucketName": (errors.InvalidRequest, ("'photos' cannot be the name",)),
    "InvalidRequest": (errors.InvalidRequest, ("said",)),
    "KeyTooLongError": (errors.InvalidRequest, ("said",)),
    "MethodNotAllowed": (errors.InvalidRequest, ("said",)),
    "NotImplemented": (errors.InvalidRequest, ("said",)),
    "KMS.DisabledException": (errors.AccessDenied, ("kms:Decrypt",)),
    "KMS.InvalidStateException": (errors.AccessDenied, ("kms:Decrypt",)),
    "KMS.KMSInvalidStateException": (errors.AccessDenied, ("kms:Decrypt",)),
    "KMS.NotFoundException": (errors.AccessDenied, ("kms:Decrypt",)),
}

STATUS_ROWS: dict[int, tuple[type[errors.RequestError], str]] = {
    301: (errors.WrongRegion, "--region us-west-2"),
    307: (errors.ServerError, "redirects"),
    308: (errors.WrongRegion, "--region us-west-2"),
    400: (errors.InvalidRequest, "--region"),
    401: (errors.CredentialsError, "does not know the credentials"),
    403: (errors.AccessDenied, "denies HEAD of 'k'"),
    404: (errors.NotFound, "HEAD of 'k'"),
    405: (errors.InvalidRequest, "rejects"),
    412: (errors.VersionChanged, "replaced"),
    416: (errors.VersionChanged, "shorter"),
    429: (errors.Throttled, "fewer"),
    501: (errors.InvalidRequest, "rejects"),
    503: (errors.Throttled, "fewer"),
}

SSO = "aws sso login --profile work"
URL = {"endpoint_url": "https://s3.example"}

EXCEPTION_ROWS: list[tuple[BaseException, type[errors.RequestError], str]] = [
    (socket.gaierror(-2, "Name or service not known"), errors.Unreachable, "unknown to DNS"),
    (
        boto.EndpointConnectionError(
            **URL,
            error=u3.NameResolutionError("s3.example", None, socket.gaierror(-2, "x")),  # type: ignore[arg-type]  # the pool is not looked at
        ),
        errors.Unreachable,
        "unknown to DNS",
    ),
    (
        u3.NameResolutionError("s3.example", None, socket.gaierror(-2, "x")),  # type: ignore[arg-type]  # as above
        errors.Unreachable,
        "unknown to DNS",
    ),
    (
        ssl.SSLCertVerificationError("certificate verify failed: self-signed certificate"),
        errors.TlsError,
        "self-signed certificate",
    ),
    (u3.SSLError("bad handshake"), errors.TlsError, "bad handshake"),
    (
        boto.SSLError(**URL, error=ssl.SSLCertVerificationError("Hostname mismatch")),
        errors.TlsError,
        "--ca-bundle",
    ),
    (boto.SSLError(**URL, error=ValueError("other")), errors.TlsError, "--ca-bundle"),
    (ConnectionRefusedError("x"), errors.Unreachable, "s3.example refuses"),
    (boto.ConnectTimeoutError(**URL), errors.Unreachable, "does not answer in time"),
    (boto.ReadTimeoutError(**URL), errors.Unreachable, "does not answer in time"),
    (TimeoutError("timed out"), errors.Unreachable, "does not answer in time"),
    (u3.TimeoutError("timed out"), errors.Unreachable, "does not answer in time"),
    (
        boto.ProxyConnectionError(proxy_url="http://proxy:1"),
        errors.Unreachable,
        "HTTPS_PROXY and NO_PROXY",
    ),
    (boto.NoCredentialsError(), errors.CredentialsError, "--no-sign-request"),
    (
        boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        errors.CredentialsError,
        "AWS_SECRET_ACCESS_KEY",
    ),
    (boto.UnauthorizedSSOTokenError(), errors.CredentialsError, SSO),
    (boto.SSOTokenLoadError(error_msg="no file"), errors.CredentialsError, SSO),
    (boto.TokenRetrievalError(provider="sso", error_msg="x"), errors.CredentialsError, SSO),
    (boto.NoAuthTokenError(), errors.CredentialsError, SSO),
    (boto.SSOError(), errors.CredentialsError, SSO),
    (boto.LoginRefreshRequired(), errors.CredentialsError, SSO),
    (
        boto.CredentialRetrievalError(provider="assume-role", error_msg="no way"),
        errors.CredentialsError,
        "no way",
    ),
    (boto.MetadataRetrievalError(error_msg="gone"), errors.CredentialsError, "gone"),
    (boto.UnknownCredentialError(name="x"), errors.CredentialsError, "--profile"),
    (boto.RefreshWithMFAUnsupportedError(), errors.CredentialsError, "MFA"),
    (boto.InfiniteLoopConfigError(source_profile="a", visited_profiles="a"),
     errors.CredentialsError, "--profile"),
    (boto.ProfileNotFound(profile="work"), errors.CredentialsError, "list-profiles"),
    (boto.ConfigParseError(path="/etc/aws"), errors.CredentialsError, "AWS_CONFIG_FILE"),
    (boto.NoRegionError(), errors.WrongRegion, "--region"),
    (boto.MissingDependencyException(msg="needs awscrt"), errors.InvalidRequest, "awscrt"),
    (boto.InvalidRegionError(region_name="no where"), errors.InvalidRequest, "no where"),
    (boto.ParamValidationError(report="bad name"), errors.InvalidRequest, "bad name"),
    (boto.EndpointProviderError(msg="FIPS and accelerate"), errors.InvalidRequest, "FIPS"),
    (
        boto.UnsupportedS3ConfigurationError(msg="no dualstack here"),
        errors.InvalidRequest,
        "dualstack",
    ),
    (
        boto.UnsupportedS3AccesspointConfigurationError(msg="no accelerate"),
        errors.InvalidRequest,
        "accelerate",
    ),
    (boto.InvalidHostLabelError(label="a b"), errors.InvalidRequest, "a b"),
    (boto.ConnectionClosedError(**URL), errors.Unreachable, "broke"),
    (boto.EndpointConnectionError(**URL, error="?"), errors.Unreachable, "broke"),
    (boto.HTTPClientError(error="?"), errors.Unreachable, "broke"),
    (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), errors.Unreachable, "broke"),
    (u3.ProtocolError("reset"), errors.Unreachable, "broke (reset)"),
    (ConnectionResetError("reset by peer"), errors.Unreachable, "broke (reset by peer)"),
    (OSError("No route to host"), errors.Unreachable, "No route to host"),
    (boto.UnknownServiceError(service_name="s4", known_service_names="s3"),
     errors.InvalidRequest, "s4"),
]  # fmt: skip


def refusal(
    status: int, code: str = "", what: str = "GET of 'k'", *, date: datetime | None = None
) -> Refusal:
    headers = {"x-amz-bucket-region": "us-west-2"}
    if date is not None:
        headers["date"] = format_datetime(date, usegmt=True)
    return Refusal(what, status, code, "said", {"StorageClass": "GLACIER"}, headers)


@pytest.mark.parametrize("code", sorted(CODES | CODE_ROWS))
def test_each_code(code: str) -> None:
    kind, words = CODE_ROWS[code]
    date = datetime.now(UTC) + timedelta(minutes=7)
    error = from_refusal(refusal(400, code, date=date), PLACE)
    assert type(error) in {kind, OtherRegion, BehindEnd}
    assert isinstance(error, kind)
    for word in words:
        assert word in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("status", sorted(STATUSES | STATUS_ROWS))
def test_each_status_without_a_code(status: int) -> None:
    kind, word = STATUS_ROWS[status]
    error = from_refusal(refusal(status, what="HEAD of 'k'"), PLACE)
    assert isinstance(error, kind)
    assert word in str(error)


@pytest.mark.parametrize(
    ("status", "kind"), [(418, errors.InvalidRequest), (599, errors.ServerError)]
)
def test_what_is_in_no_table(status: int, kind: type[errors.RequestError]) -> None:
    error = from_refusal(refusal(status, "SomethingNew"), PLACE)
    assert isinstance(error, kind)
    assert "SomethingNew: said" in str(error)


@pytest.mark.parametrize(
    ("raised", "kind", "word"), EXCEPTION_ROWS, ids=lambda value: type(value).__name__
)
def test_each_exception(raised: BaseException, kind: type[errors.RequestError], word: str) -> None:
    error = from_exception(raised, "GET of 'k'", PLACE)
    assert type(error) is kind
    assert word in str(error)
    assert "\n" not in str(error)


def test_each_row_of_exceptions_was_shown() -> None:
    for row, (kind, _) in enumerate(EXCEPTIONS):
        earlier = tuple(kind for kind, _ in EXCEPTIONS[:row])
        assert any(
            isinstance(raised, kind) and not isinstance(raised, earlier)
            for raised, _, _ in EXCEPTION_ROWS
        ), kind


def test_what_nobody_foresaw_is_no_traceback() -> None:
    error = from_exception(KeyError("x"), "GET of 'k'", PLACE)
    assert type(error) is errors.BadReply
    assert str(error) == "GET of 'k' failed: KeyError: 'x'"


def test_an_exception_in_a_circle_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    assert type(from_exception(first, "GET of 'k'", PLACE)) is errors.BadReply


def client_error(
    operation: str, code: str, status: int = 400, headers: Mapping[str, str] | None = None
) -> boto.ClientError:
    return boto.ClientError(
        {
            "Error": {"Code": code, "Message": "said", "Region": "us-west-2"},  # type: ignore[typeddict-unknown-key]  # as S3 sends it
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": dict(headers or {})},  # type: ignore[typeddict-item]  # the same
        },
        operation,
    )


def test_what_botocore_parsed_is_the_same() -> None:
    error = from_exception(client_error("GetObject", "AccessDenied", 403), "GET of 'k'", PLACE)
    assert type(error) is errors.AccessDenied
    error = from_exception(client_error("ListObjectsV2", "PermanentRedirect", 301), "it", PLACE)
    assert isinstance(error, OtherRegion)
    assert error.region == "us-west-2"


def test_botocores_stand_in_for_a_missing_code_is_none() -> None:
    error = from_exception(client_error("HeadObject", "403", 403), "HEAD of 'k'", PLACE)
    assert str(error).startswith("S3 denies HEAD of 'k': no reason given; ")


def test_other_services_are_about_credentials() -> None:
    error = from_exception(client_error("AssumeRole", "AccessDenied", 403), "GET of 'k'", PLACE)
    assert type(error) is errors.CredentialsError
    assert "AssumeRole says AccessDenied: said" in str(error)
    for code in ("ExpiredTokenException", "UnauthorizedException"):
        error = from_exception(client_error("GetRoleCredentials", code), "GET of 'k'", PLACE)
        assert type(error) is errors.CredentialsError
        assert SSO in str(error)


def test_without_a_profile_none_is_named() -> None:
    error = from_refusal(refusal(400, "ExpiredToken"), Place("photos"))
    assert "`aws sso login`" in str(error)


def test_a_redirect_to_nowhere_says_what_it_knows() -> None:
    error = from_refusal(Refusal("the listing of ''", 301, "PermanentRedirect", "said"), PLACE)
    assert type(error) is errors.WrongRegion
    assert "elsewhere (said)" in str(error)


def test_the_right_region_may_be_in_the_body() -> None:
    fields = {"Region": "ap-south-1"}
    error = from_refusal(Refusal("it", 400, "AuthorizationHeaderMalformed", "", fields), PLACE)
    assert isinstance(error, OtherRegion)
    assert error.region == "ap-south-1"
    assert "not in region eu-west-1 but in ap-south-1; use --region ap-south-1" in str(error)


@pytest.mark.parametrize(
    ("date", "words"),
    [
        ("Sat, 21 Nov 2026 11:39:55 GMT", "20 min 5 s ahead of S3's"),
        ("Sat, 21 Nov 2026 14:00:00 GMT", "120 min 0 s behind S3's"),
        ("yesterday", "too far from S3's"),
        (None, "too far from S3's"),
    ],
)
def test_how_far_the_clock_is_off(date: str | None, words: str) -> None:
    assert skew_in_words(date, datetime(2026, 11, 21, 12, tzinfo=UTC)) == words


def test_retry_after() -> None:
    error = from_refusal(Refusal("it", 503, "SlowDown", headers={"retry-after": "7"}), PLACE)
    assert isinstance(error, RetryLater)
    assert error.retry_after == 7
    assert error.retryable
    date = {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert (
        type(from_refusal(Refusal("it", 503, "SlowDown", headers=date), PLACE)) is errors.Throttled
    )


def test_no_such_key_of_a_listing_is_no_such_bucket() -> None:
    missing = bucket_missing(errors.NotFound("x"), PLACE)
    assert type(missing) is errors.BucketNotFound
    denied = errors.AccessDenied("x")
    assert bucket_missing(denied, PLACE) is denied

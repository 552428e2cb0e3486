"""From what S3, boto3 and the network say to the project's own errors: one table each.

Three ways lead here: an answer of S3 with an error code (`CODES`), one with nothing but a
status, as to HEAD (`STATUSES`), and no answer at all (`EXCEPTIONS`). Each row names the
class, the cause and the cure, in plain words; tests/s3/test_errors.py has a test per row.

The codes are those of
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList and the
ones that Ceph RGW, MinIO and STS add. Knows no errno, and sends nothing.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import botocore.exceptions as boto
import urllib3.exceptions

from s3mount.errors import (
    AccessDenied,
    Archived,
    BadReply,
    BucketNotFound,
    ClockSkewed,
    CredentialsError,
    Interrupted,
    InvalidRequest,
    NotFound,
    RequestError,
    ServerError,
    Throttled,
    TlsError,
    Unreachable,
    VersionChanged,
    WrongRegion,
)
from s3mount.model import ObjectInfo


class OtherRegion(WrongRegion):
    """WrongRegion, when the answer names the right one: `region`."""

    def __init__(self, cause: str, cure: str = "", *, region: str) -> None:
        super().__init__(cause, cure)
        self.region = region


class RetryLater(Throttled):
    """Throttled, when the answer says how long to wait: `retry_after`, seconds."""

    def __init__(self, cause: str, cure: str = "", *, retry_after: float) -> None:
        super().__init__(cause, cure)
        self.retry_after = retry_after


class BodyInterrupted(Interrupted):
    """Interrupted, and `info` tells of which version the bytes that did arrive are."""

    def __init__(self, cause: str, *, received: int, info: ObjectInfo) -> None:
        super().__init__(cause, received=received)
        self.info = info


class BehindEnd(VersionChanged):
    """416: the object ends before the range begins; an empty one always does."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whom we talk to, for the messages; what the user did not give is None."""

    bucket: str
    endpoint: str = ""
    region: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of S3 that is an error: the status, the XML's fields, the headers.

    `what` says what was asked, such as "GET of 'a/b'"; header names are in lower case.
    """

    what: str
    status: int
    code: str = ""
    message: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class Row(NamedTuple):
    """One line of a table; cause and cure are format strings, see `_words`."""

    error: type[RequestError]
    cause: str
    cure: str = ""


_CREDENTIALS = "give working credentials: set AWS_PROFILE or --profile, or run `aws configure`"
_SIGN_IN = "sign in again: `aws sso login{profile_option}`, or renew the credentials"
_LATER = "wait; s3mount asks again by itself"
_ENDPOINT = "check --endpoint-url, --region and the network"
_MAY_NOT = (
    "let the policy allow s3:GetObject and s3:ListBucket on bucket {bucket!r}; "
    "see also --profile, --requester-pays and --no-sign-request"
)
_RESTORE = (
    "run `aws s3api restore-object` for the key and wait, or copy it to another storage class"
)

_DENIED = Row(AccessDenied, "S3 denies {what}: {message}", _MAY_NOT)
_NO_KEY = Row(NotFound, "{what}: there is no such object")
_NO_BUCKET = Row(BucketNotFound, "there is no bucket {bucket!r} at {endpoint}", "check the name")
_REGION = Row(WrongRegion, "bucket {bucket!r} is not in region {region}", "use --region {right}")
_EXPIRED = Row(CredentialsError, "the credentials have expired ({code})", _SIGN_IN)
_UNKNOWN_KEY = Row(CredentialsError, "S3 does not know the credentials ({code})", _CREDENTIALS)
_CHANGED = Row(VersionChanged, "{what}: the object was replaced")
_BEHIND = Row(BehindEnd, "{what}: the object is shorter than that")
_SLOW = Row(Throttled, "S3 asks for fewer requests ({code})", _LATER)
_FAILED = Row(ServerError, "S3 failed at {what} ({code}: {message})", _LATER)
_INVALID = Row(
    InvalidRequest,
    "S3 rejects {what} ({code}: {message})",
    "check --endpoint-url, --path-style and the other options of the S3 service",
)
_KMS = Row(
    AccessDenied,
    "{what}: its KMS key cannot be used ({code}: {message})",
    "let the policy of the KMS key allow kms:Decrypt, and the key be enabled",
)

CODES: dict[str, Row] = {
    "NoSuchKey": _NO_KEY,
    "NoSuchVersion": _CHANGED,
    "NoSuchBucket": _NO_BUCKET,
    "AccessDenied": _DENIED,
    "AccountProblem": _DENIED,
    "AllAccessDisabled": _DENIED,
    "Forbidden": _DENIED,
    "NotSignedUp": _DENIED,
    "InvalidPayer": _DENIED,
    "InvalidObjectState": Row(
        Archived, "{what}: the object is archived ({storage_class})", _RESTORE
    ),
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": Row(
        CredentialsError,
        "S3 says the signature is wrong: the secret key does not fit the access key",
        _CREDENTIALS,
    ),
    "InvalidSecurity": _UNKNOWN_KEY,
    "InvalidToken": Row(CredentialsError, "S3 rejects the session token ({code})", _SIGN_IN),
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "UnrecognizedClientException": _UNKNOWN_KEY,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": _REGION,
    "Redirect": _REGION,
    "TemporaryRedirect": Row(
        ServerError,
        "S3 redirects {what} for a while, as it does for a bucket just created",
        _LATER,
    ),
    "RequestTimeTooSkewed": Row(
        ClockSkewed, "this machine's clock is {skew}", "set the clock, for instance with NTP"
    ),
    "PreconditionFailed": _CHANGED,
    "InvalidRange": _BEHIND,
    "BandwidthLimitExceeded": _SLOW,
    "RequestLimitExceeded": _SLOW,
    "ServiceUnavailable": _SLOW,
    "SlowDown": _SLOW,
    "Throttling": _SLOW,
    "ThrottlingException": _SLOW,
    "TooManyRequests": _SLOW,
    "InternalError": _FAILED,
    "OperationAborted": _FAILED,
    "RequestTimeout": _FAILED,
    "InvalidArgument": _INVALID,
    "InvalidBucketName": Row(
        InvalidRequest, "{bucket!r} cannot be the name of a bucket", "check the name"
    ),
    "InvalidRequest": _INVALID,
    "KeyTooLongError": _INVALID,
    "MethodNotAllowed": _INVALID,
    "NotImplemented": _INVALID,
    "KMS.DisabledException": _KMS,
    "KMS.InvalidStateException": _KMS,
    "KMS.KMSInvalidStateException": _KMS,
    "KMS.NotFoundException": _KMS,
}

# For answers without a code that is known: those to HEAD have no body.
STATUSES: dict[int, Row] = {
    301: _REGION,
    307: CODES["TemporaryRedirect"],
    308: _REGION,
    400: Row(
        InvalidRequest,
        "S3 rejects {what} (status 400 {code})",
        "check --region and that the credentials have not expired",
    ),
    401: _UNKNOWN_KEY,
    403: _DENIED,
    404: _NO_KEY,
    405: _INVALID,
    412: _CHANGED,
    416: _BEHIND,
    429: _SLOW,
    501: _INVALID,
    503: _SLOW,
}

_BROKEN = Row(Unreachable, "the connection to {endpoint} broke ({detail})", _LATER)
_REFUSED = Row(Unreachable, "{endpoint} refuses the connection", _ENDPOINT)
_NO_HOST = Row(Unreachable, "the host of {endpoint} is unknown to DNS", _ENDPOINT)
_SILENT = Row(Unreachable, "{endpoint} does not answer in time", _ENDPOINT)
_TLS = Row(
    TlsError,
    "TLS with {endpoint} failed: {detail}",
    "check --ca-bundle and --endpoint-url (http or https?)",
)
_SSO = Row(CredentialsError, "the sign-in has expired or is missing ({detail})", _SIGN_IN)
_BAD_CREDENTIALS = Row(CredentialsError, "credentials cannot be had: {detail}", _CREDENTIALS)
_BAD_OPTION = Row(InvalidRequest, "{detail}", "check the options of the S3 service")

# The first row with a class that is anywhere in the chain of causes counts: what is
# precise comes before what wraps it.
EXCEPTIONS: tuple[tuple[type[BaseException], Row], ...] = (
    (socket.gaierror, _NO_HOST),
    (urllib3.exceptions.NameResolutionError, _NO_HOST),
    (ssl.SSLError, _TLS),
    (urllib3.exceptions.SSLError, _TLS),
    (boto.SSLError, _TLS),
    (ConnectionRefusedError, _REFUSED),
    (boto.ConnectTimeoutError, _SILENT),
    (boto.ReadTimeoutError, _SILENT),
    (TimeoutError, _SILENT),
    (urllib3.exceptions.TimeoutError, _SILENT),
    (
        boto.ProxyConnectionError,
        Row(Unreachable, "the proxy cannot be reached: {detail}", "check HTTPS_PROXY and NO_PROXY"),
    ),
    (
        boto.NoCredentialsError,
        Row(
            CredentialsError,
            "no credentials were found",
            _CREDENTIALS + ", or --no-sign-request for a public bucket",
        ),
    ),
    (boto.PartialCredentialsError, _BAD_CREDENTIALS),
    (boto.UnauthorizedSSOTokenError, _SSO),
    (boto.SSOTokenLoadError, _SSO),
    (boto.TokenRetrievalError, _SSO),
    (boto.NoAuthTokenError, _SSO),
    (boto.SSOError, _SSO),
    (boto.LoginError, _SSO),
    (boto.CredentialRetrievalError, _BAD_CREDENTIALS),
    (boto.MetadataRetrievalError, _BAD_CREDENTIALS),
    (boto.UnknownCredentialError, _BAD_CREDENTIALS),
    (boto.RefreshWithMFAUnsupportedError, _BAD_CREDENTIALS),
    (boto.InvalidConfigError, _BAD_CREDENTIALS),
    (
        boto.ProfileNotFound,
        Row(CredentialsError, "{detail}", "check --profile and `aws configure list-profiles`"),
    ),
    (
        boto.ConfigParseError,
        Row(CredentialsError, "{detail}", "correct that file, or point AWS_CONFIG_FILE elsewhere"),
    ),
    (boto.NoRegionError, Row(WrongRegion, "no region is known", "use --region")),
    (boto.MissingDependencyException, _BAD_OPTION),
    (boto.InvalidRegionError, _BAD_OPTION),
    (boto.ParamValidationError, _BAD_OPTION),
    (boto.EndpointProviderError, _BAD_OPTION),
    (boto.UnsupportedS3ConfigurationError, _BAD_OPTION),
    (boto.UnsupportedS3AccesspointConfigurationError, _BAD_OPTION),
    (boto.InvalidHostLabelError, _BAD_OPTION),
    (boto.ConnectionClosedError, _BROKEN),
    (boto.ConnectionError, _BROKEN),
    (boto.HTTPClientError, _BROKEN),
    (boto.IncompleteReadError, _BROKEN),
    (urllib3.exceptions.HTTPError, _BROKEN),
    (OSError, _BROKEN),
    (boto.BotoCoreError, _BAD_OPTION),
)


def from_refusal(refusal: Refusal, place: Place) -> RequestError:
    """The error that an answer of S3 means."""
    row = _row_of(refusal)
    words = _words(place) | {
        "what": refusal.what,
        "code": refusal.code or str(refusal.status),
        "message": refusal.message or "no reason given",
        "storage_class": refusal.fields.get("StorageClass", "an archive tier"),
    }
    if row.error is ClockSkewed:
        words["skew"] = skew_in_words(refusal.headers.get("date"), datetime.now(UTC))
    if row.error is WrongRegion:
        return _wrong_region(row, refusal, place, words)
    cause, cure = row.cause.format(**words), row.cure.format(**words)
    if row.error is Throttled:
        seconds = refusal.headers.get("retry-after", "")
        if seconds.isdigit():
            return RetryLater(cause, cure, retry_after=float(seconds))
    return row.error(cause, cure)


def from_exception(error: BaseException, what: str, place: Place) -> RequestError:
    """The error that a failure without an answer means: the network's, or boto3's own."""
    if isinstance(error, boto.ClientError):
        return from_client_error(error, what, place)
    chain = list(_chain(error))
    for kind, row in EXCEPTIONS:
        for link in chain:
            if isinstance(link, kind):
                words = _words(place) | {"what": what, "detail": _one_line(link)}
                return row.error(row.cause.format(**words), row.cure.format(**words))
    return BadReply(f"{what} failed: {type(error).__name__}: {_one_line(error)}")


def from_client_error(error: boto.ClientError, what: str, place: Place) -> RequestError:
    """What botocore makes of an answer that is an error.

    One to another service (STS, SSO) came while credentials were fetched.
    """
    fields: dict[str, str] = {key: str(value) for key, value in error.response["Error"].items()}
    code, message = fields.get("Code", ""), fields.get("Message", "")
    if error.operation_name not in OPERATIONS:
        words = _words(place) | {"code": code}
        if CODES.get(code) is _EXPIRED or code == "UnauthorizedException":
            return CredentialsError(_EXPIRED.cause.format(**words), _EXPIRED.cure.format(**words))
        return CredentialsError(
            f"credentials cannot be had: {error.operation_name} says {code}: {message}",
            _CREDENTIALS,
        )
    metadata = error.response["ResponseMetadata"]
    if code.isdigit():  # botocore's stand-in where an answer has no body
        code, message = "", ""
    headers = metadata.get("HTTPHeaders", {})
    status = metadata.get("HTTPStatusCode", 0)
    return from_refusal(Refusal(what, status, code, message, fields, headers), place)


OPERATIONS = frozenset({"GetObject", "HeadObject", "ListObjectsV2"})


def bucket_missing(error: RequestError, place: Place) -> RequestError:
    """A 404 without a code to a request on the bucket itself: it is the bucket that is missing."""
    if isinstance(error, NotFound):
        words = _words(place)
        return _NO_BUCKET.error(_NO_BUCKET.cause.format(**words), _NO_BUCKET.cure)
    return error


def _row_of(refusal: Refusal) -> Row:
    row = CODES.get(refusal.code) or STATUSES.get(refusal.status)
    if row is not None:
        return row
    return _FAILED if refusal.status >= 500 else _INVALID


def _wrong_region(
    row: Row, refusal: Refusal, place: Place, words: Mapping[str, str]
) -> RequestError:
    """Names the right region where the answer does; where not, says what it does say."""
    right = refusal.headers.get("x-amz-bucket-region") or refusal.fields.get("Region", "")
    if not right or right == place.region:
        cure = "check --region, --endpoint-url and --path-style"
        return WrongRegion(f"S3 sends {refusal.what} elsewhere ({words['message']})", cure)
    cause, cure = row.cause.format(**words), row.cure.format(**words, right=right)
    return OtherRegion(f"{cause} but in {right}", cure, region=right)


def _words(place: Place) -> dict[str, str]:
    return {
        "bucket": place.bucket,
        "endpoint": place.endpoint or "the S3 endpoint",
        "region": place.region or "us-east-1",
        "profile_option": f" --profile {place.profile}" if place.profile else "",
    }


def skew_in_words(date: str | None, now: datetime) -> str:
    """How far this clock, which says `now`, is from the server's, as its Date header says it."""
    try:
        seconds = round((now - parsedate_to_datetime(date or "")).total_seconds())
    except ValueError:
        return "too far from S3's"
    minutes, seconds_left = divmod(abs(seconds), 60)
    direction = "ahead of" if seconds > 0 else "behind"
    return f"{minutes} min {seconds_left} s {direction} S3's"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it wraps, by any of the ways that botocore and urllib3 wrap."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        link = pending.pop(0)
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending += [getattr(link, "kwargs", {}).get("error"), getattr(link, "reason", None)]
        pending += [link.__cause__, link.__context__, *link.args]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__

"""What can go wrong, in the project's own words.

Every failure is one of these classes. Each carries a cause (what happened, to
what) and a cure (what the user can do), and `str` gives both in one line. The
rooms above `s3/` see no other error of a request.

INVARIANT: a class here never knows an errno, an HTTP status or a boto3 class.
`kernel/errnos.py` has the one table from class to errno, `s3/errors.py` the one
from S3's error codes to class.
"""

from __future__ import annotations

from typing import ClassVar


class S3MountError(Exception):
    """Base of all; `cause` and `cure` are clauses without a full stop."""

    # Whether the same request may succeed when sent again soon.
    retryable: ClassVar[bool] = False
    default_cure: ClassVar[str] = ""

    def __init__(self, cause: str, cure: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.cure = cure or self.default_cure

    def __str__(self) -> str:
        return f"{self.cause}; {self.cure}" if self.cure else self.cause


class UsageError(S3MountError):
    """A wrong option, value or combination: the command line or the config file."""


class MountError(S3MountError):
    """The mountpoint or the kernel refuses: not a directory, busy, no /dev/fuse..."""


# --- what an S3 request can end in ------------------------------------------------


class RequestError(S3MountError):
    """A request to S3 failed."""


class NotFound(RequestError):
    """No such key (404 NoSuchKey)."""


class BucketNotFound(RequestError):
    """No such bucket, or it was deleted."""


class AccessDenied(RequestError):
    """403: the credentials in use may not do this."""


class Archived(RequestError):
    """The object is in an archive tier and must be restored first (InvalidObjectState)."""


class CredentialsError(RequestError):
    """No credentials were found, or they are expired, incomplete or unknown to S3."""


class ClockSkewed(RequestError):
    """This machine's clock is too far from S3's (RequestTimeTooSkewed)."""


class WrongRegion(RequestError):
    """The bucket is in another region than the one in use."""


class InvalidRequest(RequestError):
    """S3 says the request itself is wrong (400, 405, 501...): an option does not fit."""


class VersionChanged(RequestError):
    """412 on If-Match, or 416: the object is no longer the version that was asked for."""


class Unreachable(RequestError):
    """The endpoint cannot be reached: DNS, refused, reset, no route, timed out."""

    retryable = True


class Closed(Unreachable):
    """The connections to S3 are closed: the mount is ending."""

    def __init__(self, cause: str = "the connections to S3 are closed", cure: str = "") -> None:
        super().__init__(cause, cure)


class TlsError(RequestError):
    """The TLS handshake failed: an unknown CA, a wrong host name, an expired certificate."""


class Throttled(RequestError):
    """503 SlowDown, 429: S3 asks for fewer requests."""

    retryable = True


class ServerError(RequestError):
    """500 and the like: S3 failed."""

    retryable = True


class BadReply(RequestError):
    """The answer is not what was asked for: wrong status, range, ETag, length or XML."""

    retryable = True


class Interrupted(RequestError):
    """A body ended, stalled or was reset before it was whole.

    `received` is the number of bytes that did arrive, and are good.
    """

    retryable = True

    def __init__(self, cause: str, *, received: int, cure: str = "") -> None:
        super().__init__(cause, cure)
        self.received = received


class DeadlineExceeded(RequestError):
    """Every try took longer, together, than `--deadline` allows."""

    default_cure = "raise --deadline, or look at the network and the endpoint"


# --- what a file operation can end in ---------------------------------------------


class FileError(S3MountError):
    """An operation on a file or directory cannot be carried out."""


class NoSuchFile(FileError):
    """No file or directory of that name."""


class IsADirectory(FileError):
    """A file was asked for, and this is a directory."""


class NotADirectory(FileError):
    """A directory was asked for, and this is a file."""


class ReadOnly(FileError):
    """Writing is not possible here."""


class Stale(FileError):
    """The object was replaced or removed in the bucket while it was being read.

    Reading on would mix two versions; opening the file again gives the new one.
    """

    default_cure = "open the file again to read the new version"


class NameTooLong(FileError):
    """A name of more than 255 bytes, or a key of more than 1,024."""


class BadHandle(FileError):
    """A file handle that is not open."""


class NotSupported(FileError):
    """This filesystem has no such operation."""

"""Each row of the one table from our errors to errno; test_errors shows them through the kernel."""

from __future__ import annotations

import errno
import inspect

import pytest

from s3mount import errors
from s3mount.errors import S3MountError
from s3mount.kernel.errnos import ERRNOS, errno_of

TABLE = {
    errors.AccessDenied: "EACCES",
    errors.Archived: "EACCES",
    errors.BadHandle: "EBADF",
    errors.BadReply: "EIO",
    errors.BucketNotFound: "ENXIO",
    errors.ClockSkewed: "EACCES",
    errors.Closed: "EHOSTUNREACH",
    errors.CredentialsError: "EACCES",
    errors.DeadlineExceeded: "ETIMEDOUT",
    errors.FileError: "EIO",
    errors.Interrupted: "EIO",
    errors.InvalidRequest: "EINVAL",
    errors.IsADirectory: "EISDIR",
    errors.MountError: "EIO",
    errors.NameTooLong: "ENAMETOOLONG",
    errors.NoSuchFile: "ENOENT",
    errors.NotADirectory: "ENOTDIR",
    errors.NotFound: "ENOENT",
    errors.NotSupported: "ENOSYS",
    errors.ReadOnly: "EROFS",
    errors.RequestError: "EIO",
    errors.S3MountError: "EIO",
    errors.ServerError: "EREMOTEIO",
    errors.Stale: "ESTALE",
    errors.Throttled: "EBUSY",
    errors.TlsError: "EPROTO",
    errors.Unreachable: "EHOSTUNREACH",
    errors.UsageError: "EIO",
    errors.VersionChanged: "ESTALE",
    errors.WrongRegion: "ENXIO",
}


def instance(kind: type[S3MountError]) -> S3MountError:
    if issubclass(kind, errors.Interrupted):
        return kind("cause", received=0)
    return kind("cause")


@pytest.mark.parametrize(
    ("kind", "name"), TABLE.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_row(kind: type[S3MountError], name: str) -> None:
    assert errno.errorcode[errno_of(instance(kind))] == name


def test_every_error_has_its_row_here() -> None:
    kinds = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, S3MountError)
    }
    assert kinds == set(TABLE)
    assert set(ERRNOS) <= kinds


def test_no_error_looks_like_a_file_that_has_nothing_yet() -> None:
    """EAGAIN means that to Python: read() would return what it has so far, as if it were all."""
    assert not {errno.EAGAIN, errno.EINTR, errno.EWOULDBLOCK} & set(ERRNOS.values())


def test_the_nearest_class_counts() -> None:
    class Special(errors.Throttled):
        pass

    assert errno_of(Special("cause")) == errno.EBUSY
    assert errno_of(ValueError()) == errno.EIO

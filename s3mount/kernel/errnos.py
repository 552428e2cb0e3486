"""The one table from our errors to errno: what read(2), open(2), stat(2) answer.

A class not named here has the errno of the nearest class above it.
"""

from __future__ import annotations

import errno

from s3mount import errors

ERRNOS: dict[type[Exception], int] = {
    errors.S3MountError: errno.EIO,
    # requests
    errors.NotFound: errno.ENOENT,
    errors.BucketNotFound: errno.ENXIO,  # the device behind the files is gone
    errors.AccessDenied: errno.EACCES,
    errors.Archived: errno.EACCES,
    errors.CredentialsError: errno.EACCES,
    errors.ClockSkewed: errno.EACCES,
    errors.WrongRegion: errno.ENXIO,
    errors.InvalidRequest: errno.EINVAL,
    errors.VersionChanged: errno.ESTALE,
    errors.Unreachable: errno.EHOSTUNREACH,
    errors.TlsError: errno.EPROTO,
    # Not EAGAIN: to Python's io that is a file with nothing to read yet, so that read() returns
    # what it has so far as if it were all.
    errors.Throttled: errno.EBUSY,
    errors.ServerError: errno.EREMOTEIO,  # "Remote I/O error": theirs, not this machine's
    errors.BadReply: errno.EIO,
    errors.Interrupted: errno.EIO,
    errors.DeadlineExceeded: errno.ETIMEDOUT,
    # files
    errors.NoSuchFile: errno.ENOENT,
    errors.IsADirectory: errno.EISDIR,
    errors.NotADirectory: errno.ENOTDIR,
    errors.ReadOnly: errno.EROFS,
    errors.Stale: errno.ESTALE,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.BadHandle: errno.EBADF,
    errors.NotSupported: errno.ENOSYS,
}

EACCES = errno.EACCES
EIO = errno.EIO
ENOSYS = errno.ENOSYS
EROFS = errno.EROFS
ESTALE = errno.ESTALE


def errno_of(error: Exception) -> int:
    """The errno for an error of ours; EIO for any other."""
    for kind in type(error).__mro__:
        number = ERRNOS.get(kind)
        if number is not None:
            return number
    return errno.EIO

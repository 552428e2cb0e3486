"""The cache directory itself: made, ours, private.

Knows nothing of what is kept in it.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from s3mount.errors import UsageError

# The databases with their companions, the directories of the values, and what mkfs leaves.
_OURS = re.compile(r"(cache|names)\.db.*|[0-9a-f]{2}|lost\+found")

_CURE = "give --cache-dir a directory that this user owns, or may make"


def prepare(directory: Path) -> str:
    """Make `directory` (mode 0700) if it is missing, and see that it can be used.

    Returns "" or, when the machine rather than the choice of the directory is at
    fault (a read-only or full filesystem), what is wrong: the cache may come to
    life later.

    Raises:
        UsageError: it cannot be made, is no directory, belongs to somebody else, may
            not be written, or holds something else than a cache.
    """
    if os.path.expandvars(os.path.expanduser(directory)) != str(directory):
        # diskcache expands both, and would use another directory than the one that is shown.
        raise UsageError(f"the cache directory {directory} begins with ~ or has a $NAME", _CURE)
    try:
        directory.mkdir(0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"the cache directory {directory} cannot be made: {error.strerror}", _CURE
        ) from error
    except OSError as error:
        return f"the cache directory {directory} cannot be made: {error.strerror}"
    if found.st_uid != os.geteuid():
        raise UsageError(f"the cache directory {directory} belongs to uid {found.st_uid}", _CURE)
    try:
        _refuse_other_use(directory)
        if stat.S_IMODE(found.st_mode) & 0o077:
            # Others could plant files, or read what they may not read in the bucket.
            directory.chmod(0o700)
    except PermissionError as error:
        raise UsageError(
            f"the cache directory {directory} cannot be used: {error.strerror}", _CURE
        ) from error
    except OSError as error:
        return f"the cache directory {directory} cannot be made private: {error.strerror}"
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return f"the cache directory {directory} is on a filesystem that is mounted read-only"
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise UsageError(f"the cache directory {directory} may not be written", _CURE)
    return ""


def _refuse_other_use(directory: Path) -> None:
    """Raise UsageError for a directory that holds anything but a cache.

    It is made private and filled with files: nothing to do to somebody's home or /srv.
    """
    for name in os.listdir(directory):
        if not _OURS.fullmatch(name):
            raise UsageError(
                f"the cache directory {directory} holds other files, such as {name!r}",
                "give --cache-dir a directory of its own, new or empty",
            )

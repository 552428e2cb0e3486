"""The kernel's control filesystem for FUSE connections, reached without mounting it anywhere.

/sys/fs/fuse/connections is often empty: nobody mounted fusectl there. fsopen(2) and
fsmount(2) (Linux 5.2) give a descriptor of a mount that is in no directory tree, and that
vanishes when it is closed. Needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

CONNECTIONS = Path("/sys/fs/fuse/connections")

# The same on every architecture: include/uapi/asm-generic/unistd.h.
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6


@contextlib.contextmanager
def connection(number: str, connections: Path = CONNECTIONS) -> Iterator[int]:
    """A descriptor of the directory of the connection `number`, while the block lasts.

    Raises OSError when there is none, or this process may not have it.
    """
    try:
        fd = os.open(connections / number, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        root = _mounted_nowhere()
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            fd = os.open(number, flags, dir_fd=root)
        finally:
            os.close(root)
    try:
        yield fd
    finally:
        os.close(fd)


def _mounted_nowhere() -> int:
    context = _call(_SYS_FSOPEN, b"fusectl", _FSOPEN_CLOEXEC)
    try:
        _call(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result

"""One mount: from the kernel's acceptance to its end.

pyfuse3 keeps its state in its module, so a process has one session at a time.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyfuse3
import trio

from s3mount.errors import MountError
from s3mount.kernel import mountpoint as mountpoints
from s3mount.kernel import turns
from s3mount.kernel.mountpoint import Mounted
from s3mount.kernel.operations import Operations

log = logging.getLogger(__name__)

# Seconds that handlers under way are given to finish once the mount is to end.
GRACE = 2.0
# Seconds between looks at whether the kernel is still there.
WATCH_EVERY = 1.0


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of pyfuse3's is worth a log.

    A reader that was killed has taken its request back: the kernel answers the reply with
    ENOENT, and pyfuse3 logs that as an error.
    """
    message = record.getMessage()
    return "fuse_reply_* failed" not in message or os.strerror(errno.ENOENT) not in message


class Session:
    """The connection between the kernel and the handlers."""

    def __init__(self, mountpoint: Path) -> None:
        self.mountpoint = mountpoint
        self._scope = trio.CancelScope()
        logging.getLogger("pyfuse3").addFilter(_is_news)

    def open(self, operations: Operations, *, source: str, options: Sequence[str]) -> Mounted:
        """Mount. Accesses wait until `serve` runs. Raises `MountError`."""
        words = {
            f"fsname={_fsname(source)}",
            "subtype=s3mount",
            "default_permissions",  # the kernel checks access by mode, owner and group
            "ro",
            *options,
        }
        with _stderr_kept() as said:
            try:
                pyfuse3.init(operations, str(self.mountpoint), words)
            except RuntimeError as error:
                raise _refusal(self.mountpoint, said()) from error
        mounted = mountpoints.find(self.mountpoint)
        if mounted is None:
            pyfuse3.close()
            raise MountError(
                f"the mount at {str(self.mountpoint)!r} vanished at once", "see the kernel's log"
            )
        return mounted

    async def serve(self, operations: Operations) -> None:
        """Answer the kernel by `operations`, until it is unmounted or `end` is called."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(operations.letting_go.run)
            with self._scope:
                await turns.main()
            nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        """End the handlers that still wait for S3 when the kernel has gone.

        pyfuse3 returns once all of them have ended by themselves, which may take as long
        as `--deadline`; nobody is left to hear their answers.
        """
        connection = select.poll()
        connection.register(_fuse_fd(), 0)  # POLLERR, which is always told: unmounted, or aborted
        while not connection.poll(0):  # noqa: ASYNC110  # trio has no wait for POLLERR alone
            await trio.sleep(WATCH_EVERY)
        await trio.sleep(GRACE)
        self._scope.cancel()

    async def end(self) -> None:
        """Answer no new requests; those under way have `GRACE` seconds to finish."""
        pyfuse3.terminate()
        await trio.sleep(GRACE)
        self._scope.cancel()

    def close(self) -> None:
        """Unmount, if nobody else did, and let the kernel go."""
        pyfuse3.close()


def _fuse_fd() -> int:
    """The descriptor that the kernel's requests come from; pyfuse3 keeps it to itself."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own descriptor is closed by now
            if os.readlink(f"/proc/self/fd/{name}") == str(mountpoints.FUSE_DEVICE):
                return int(name)
    raise MountError("libfuse has opened no /dev/fuse", "report this, with the system's name")


def _fsname(source: str) -> str:
    """`source` as the value of a mount option: commas and backslashes escaped, ASCII."""
    escaped = source.replace("\\", "\\\\").replace(",", "\\,")
    return escaped.encode("ascii", "replace").decode()


def _refusal(mountpoint: Path, said: str) -> MountError:
    """Why the mount failed, from what libfuse and fusermount3 wrote to stderr."""
    reason = " ".join(said.split()) or "the kernel refused"
    cures = {
        "user_allow_other": "add the line user_allow_other to /etc/fuse.conf, or mount as root",
        "/dev/fuse: Permission denied": "let users in: chmod 666 /dev/fuse",
        "no write access": "mount over a directory that you own, or as root",
        "ermission denied": "mount over a directory that you own, or as root",
        "not permitted": "mount as root, or in a container with --cap-add SYS_ADMIN",
        "exec fusermount3": "install the package fuse3",
    }
    cure = next((cure for word, cure in cures.items() if word in reason), "see the kernel's log")
    return MountError(f"mounting at {str(mountpoint)!r} failed: {reason}", cure)


@contextmanager
def _stderr_kept() -> Iterator[_Said]:
    """Keep what C code writes to file descriptor 2 meanwhile: libfuse has no other error report."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield _Said(kept.fileno())
        finally:
            os.dup2(saved, 2)
            os.close(saved)


class _Said:
    """What was written to a file so far, as text."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self) -> str:
        size = os.fstat(self._fd).st_size
        return os.pread(self._fd, size, 0).decode(errors="replace")

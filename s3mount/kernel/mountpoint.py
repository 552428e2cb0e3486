"""The place where the bucket is mounted: checked before, cleared when dead, looked up after.

A daemon that was killed leaves a dead mountpoint: every access answers ENOTCONN until
somebody unmounts it. It is found and cleared here. (libfuse's auto_unmount would clear it at
once, and leave an empty directory in its place: `rsync --delete` takes that for an emptied
bucket, and mirrors it. A dead mountpoint is the safer thing to leave behind.)

Must not know: the filesystem, trio, Config.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from s3mount.errors import MountError

FUSE_DEVICE = Path("/dev/fuse")
FILESYSTEM_TYPE = "fuse.s3mount"

# What statvfs(3) says of a mountpoint whose daemon is gone.
_DEAD = {errno.ENOTCONN, errno.ECONNABORTED}


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of /proc/self/mountinfo."""

    device: str  # "major:minor" of st_dev
    path: str
    kind: str  # "ext4", "fuse.s3mount"
    source: str


def prepare(mountpoint: Path) -> None:
    """Make sure that something can be mounted there; a dead mount is cleared first.

    Raises `MountError`.
    """
    for _ in range(8):  # several dead mounts may lie on top of each other
        if not _is_dead(mountpoint):
            break
        unmount_lazily(mountpoint)
    else:
        raise MountError(
            f"a dead mount at {str(mountpoint)!r} could not be cleared",
            f"run: umount -l {mountpoint}",
        )
    try:
        is_directory = mountpoint.is_dir()
    except OSError as error:
        raise MountError(
            f"the mountpoint {str(mountpoint)!r} cannot be used: {error.strerror}",
            "choose a directory that you may enter",
        ) from error
    if not is_directory:
        raise MountError(
            f"the mountpoint {str(mountpoint)!r} is not a directory",
            f"run: mkdir -p {mountpoint}" if not mountpoint.exists() else "choose a directory",
        )
    found = find(mountpoint)
    if found is not None and found.kind == FILESYSTEM_TYPE:
        raise MountError(
            f"{found.source!r} is mounted at {str(mountpoint)!r} already",
            f"run: umount {mountpoint}",
        )
    if not FUSE_DEVICE.exists():
        raise MountError(
            f"there is no {FUSE_DEVICE}",
            "run: modprobe fuse (in a container: --device /dev/fuse --cap-add SYS_ADMIN)",
        )


def find(mountpoint: Path) -> Mounted | None:
    """The topmost mount at exactly this path, or None. Asks the mounted filesystem nothing."""
    path = os.path.realpath(mountpoint.parent) + "/" + mountpoint.name
    path = os.path.normpath(path)
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        mounted = _parse(os.fsdecode(line))
        if mounted is not None and mounted.path == path:
            found = mounted
    return found


def unmount_lazily(mountpoint: Path) -> None:
    """Detach whatever is mounted there, whoever still uses it.

    Raises `MountError` when that is not permitted.
    """
    if os.geteuid() == 0:
        command = ["umount", "-l", "--", str(mountpoint)]
    else:
        command = [shutil.which("fusermount3") or "fusermount", "-uz", "--", str(mountpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MountError(
            f"a dead mount at {str(mountpoint)!r} could not be cleared: {done.stderr.strip()}",
            f"run as its owner or as root: umount -l {mountpoint}",
        )


def _is_dead(mountpoint: Path) -> bool:
    try:
        # Not stat(2): the kernel answers that from its cache for a while, even of a dead mount.
        os.statvfs(mountpoint)
    except OSError as error:
        return error.errno in _DEAD
    return False


def _parse(line: str) -> Mounted | None:
    """proc_pid_mountinfo(5): id parent major:minor root path options... - type source options."""
    left, separator, right = line.partition(" - ")
    fields, tail = left.split(" "), right.split(" ")
    if not separator or len(fields) < 5 or len(tail) < 2:
        return None
    return Mounted(fields[2], _unescaped(fields[4]), tail[0], _unescaped(tail[1]))


def _unescaped(text: str) -> str:
    """Spaces, tabs, newlines and backslashes are written as three octal digits."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), os.fsencode(text))
    return os.fsdecode(raw)

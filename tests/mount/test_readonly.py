"""Until there is writing, every attempt is EROFS, and the bucket stays as it is."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.mounting import Mounted, Mounts

_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def mounted(module_bucket: Bucket, module_mount: Mounts) -> Mounted:
    module_bucket.put({"file": b"content", "dir/inner": b"x", "dir/other": b"y"})
    return module_mount(module_bucket.name)


@pytest.fixture(autouse=True)
def _unchanged(mounted: Mounted, module_bucket: Bucket) -> Iterator[None]:
    """The bucket holds the same before and after, and was only read."""
    before = module_bucket.contents()
    module_bucket.server.reset()
    yield
    assert set(module_bucket.server.counts()) <= {"LIST", "GET"}
    assert module_bucket.contents() == before
    assert (mounted.path / "file").read_bytes() == b"content"


def _open(flags: int, name: str = "file") -> Callable[[Path], None]:
    def attempt(path: Path) -> None:
        os.close(os.open(path / name, flags))

    return attempt


def _mksocket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path / "socket"))


def _write_through_a_mapping(path: Path) -> None:
    with (path / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[0] = 0


def _exchange(path: Path) -> None:
    """renameat2(2) with RENAME_EXCHANGE."""
    names = os.fsencode(path / "file"), os.fsencode(path / "dir/inner")
    if _libc.renameat2(-100, names[0], -100, names[1], 2):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "open O_WRONLY": _open(os.O_WRONLY),
    "open O_RDWR": _open(os.O_RDWR),
    "open O_APPEND": _open(os.O_WRONLY | os.O_APPEND),
    "open O_TRUNC": _open(os.O_RDONLY | os.O_TRUNC),
    "create": _open(os.O_RDWR | os.O_CREAT, "new"),
    "create exclusively": _open(os.O_RDWR | os.O_CREAT | os.O_EXCL, "new"),
    "create in a directory": _open(os.O_WRONLY | os.O_CREAT, "dir/new"),
    "tmpfile": _open(os.O_TMPFILE | os.O_RDWR, "dir"),
    "truncate": lambda path: os.truncate(path / "file", 0),
    "extend": lambda path: os.truncate(path / "file", 100),
    "mkdir": lambda path: (path / "new").mkdir(),
    "rmdir": lambda path: (path / "dir").rmdir(),
    "unlink": lambda path: (path / "file").unlink(),
    "rename": lambda path: (path / "file").rename(path / "renamed"),
    "rename over": lambda path: (path / "file").rename(path / "dir/inner"),
    "rename a directory": lambda path: (path / "dir").rename(path / "renamed"),
    "exchange": _exchange,
    "link": lambda path: os.link(path / "file", path / "link"),
    "symlink": lambda path: os.symlink("file", path / "link"),
    "mkfifo": lambda path: os.mkfifo(path / "fifo"),
    "socket": _mksocket,
    "chmod": lambda path: (path / "file").chmod(0o600),
    "chmod a directory": lambda path: (path / "dir").chmod(0o700),
    "chown": lambda path: os.chown(path / "file", 1, 1),
    "utime": lambda path: os.utime(path / "file"),
    "utime to a time": lambda path: os.utime(path / "dir", (1, 1)),
    "setxattr": lambda path: os.setxattr(path / "file", "user.a", b"1"),
    "removexattr": lambda path: os.removexattr(path / "file", "user.a"),
    "mapping": _write_through_a_mapping,
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_system_call(attempt: Callable[[Path], object], mounted: Mounted) -> None:
    with pytest.raises(OSError, match="Read-only file system"):
        attempt(mounted.path)


@pytest.mark.parametrize(
    "command",
    [
        "touch new",
        "touch file",
        "mkdir new",
        "rmdir dir",
        "rm -f file",
        "rm -rf dir",
        "mv file renamed",
        "ln file link",
        "ln -s file link",
        "truncate -s 0 file",
        "chmod 600 file",
        "chown 1:1 file",
        "cp /etc/hostname new",
        "echo more >> file",
        "dd if=/dev/zero of=file bs=1 count=1 status=none conv=notrunc",
        "sed -i s/c/d/ file",
        "rsync -a /etc/hostname ./dir/",
        "tar -C / -cf - etc/hostname | tar -xf -",
        "install -m 600 /etc/hostname new",
    ],
)
def test_command(command: str, mounted: Mounted) -> None:
    done = subprocess.run(
        ["bash", "-c", command], cwd=mounted.path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_a_remount_for_writing_is_refused_or_of_no_use(mounted: Mounted) -> None:
    subprocess.run(
        ["mount", "-i", "-o", "remount,rw", mounted.path], capture_output=True, check=False
    )
    for attempt in ("create", "unlink", "mkdir", "truncate", "open O_RDWR", "rename", "chmod"):
        test_system_call(ATTEMPTS[attempt], mounted)


def test_reading_attributes_is_no_write(mounted: Mounted, tmp_path: Path) -> None:
    """No extended attributes are offered: tools take that for "there are none"."""
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        os.listxattr(mounted.path / "file")
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        os.getxattr(mounted.path / "file", "user.a")
    subprocess.run(["cp", "-a", mounted.path / "file", tmp_path], check=True)

"""What stat(2), df and mount(8) show, and whom the modes let in."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.mounting import Mounted, Mounts, mounts_at

NOBODY = 65534

for_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


def output(*command: str | Path) -> str:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True
    ).stdout


def as_nobody(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as another user."""
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.run(
        [*become, *map(str, command)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def filled(module_bucket: Bucket) -> Bucket:
    module_bucket.put(
        {"dir/a.txt": b"a" * 1000, "dir/sub/b": b"", "marked/": b"", "marked/c": b"c", "top": b"1"}
    )
    return module_bucket


@pytest.fixture(scope="module")
def mounted(filled: Bucket, module_mount: Mounts) -> Mounted:
    return module_mount(filled.name)


def last_modified(bucket: Bucket, key: str) -> float:
    head = bucket.server.client.head_object(Bucket=bucket.name, Key=key)
    seconds: float = head["LastModified"].timestamp()
    return seconds


# --- stat -------------------------------------------------------------------------------


def test_file(mounted: Mounted, filled: Bucket) -> None:
    found = (mounted.path / "dir/a.txt").stat()
    assert stat.S_ISREG(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o644
    assert (found.st_uid, found.st_gid, found.st_nlink) == (os.getuid(), os.getgid(), 1)
    assert (found.st_size, found.st_blocks) == (1000, 2)
    assert found.st_mtime == last_modified(filled, "dir/a.txt")
    assert found.st_mtime == found.st_ctime == found.st_atime


def test_directory(mounted: Mounted) -> None:
    found = (mounted.path / "dir").stat()
    assert stat.S_ISDIR(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o755
    assert (found.st_uid, found.st_gid, found.st_size) == (os.getuid(), os.getgid(), 0)
    # 1 tells find(1) that the number of subdirectories is unknown.
    assert found.st_nlink == 1


def test_directory_with_a_marker_has_the_markers_time(mounted: Mounted, filled: Bucket) -> None:
    os.listdir(mounted.path / "marked")
    output("find", mounted.path / "marked")
    found = os.stat(mounted.path / "marked")
    assert abs(found.st_mtime - last_modified(filled, "marked/")) < 60


def test_ls_l(mounted: Mounted) -> None:
    line = output("ls", "-ln", "--time-style=+%s", mounted.path / "dir/a.txt").split()
    assert line[:5] == ["-rw-r--r--", "1", str(os.getuid()), str(os.getgid()), "1000"]
    names = output("ls", "-a", mounted.path / "dir").splitlines()
    assert names == [".", "..", "a.txt", "sub"]


def test_inode_numbers_are_stable_and_distinct(mounted: Mounted) -> None:
    def numbers() -> dict[str, int]:
        lines = output("find", mounted.path, "-printf", "%i %P\n").splitlines()
        return {path: int(ino) for ino, path in (line.split(" ", 1) for line in lines)}

    first = numbers()
    assert len(set(first.values())) == len(first) == 8
    Path("/proc/sys/vm/drop_caches").write_text("2")  # dentries and inodes: the kernel forgets
    assert numbers() == first
    with os.scandir(mounted.path / "dir") as entries:
        for entry in entries:
            assert entry.inode() == first[f"dir/{entry.name}"] == entry.stat().st_ino


def test_du(bucket: Bucket, mount: Mounts) -> None:
    sizes = {"a": 0, "b": 1, "c": 512, "d": 513, "e/f": 100_000}
    bucket.put({name: b"x" * size for name, size in sizes.items()})
    mounted = mount(bucket.name)
    assert output("du", "-s", "--apparent-size", "-B1", mounted.path).split()[0] == str(
        sum(sizes.values())
    )
    blocks = sum(-(-size // 512) for size in sizes.values())
    assert output("du", "-s", "-B512", mounted.path).split()[0] == str(blocks)


def test_times_are_those_of_the_bucket(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"a": b"", "d/b": b""})
    mounted = mount(bucket.name)
    for key in ("a", "d/b"):
        assert (mounted.path / key).stat().st_mtime == last_modified(bucket, key)


# --- options ----------------------------------------------------------------------------


@for_root
@pytest.mark.parametrize(
    ("options", "owner", "modes"),
    [
        (["--uid", "1234", "--gid", "5678"], (1234, 5678), (0o644, 0o755)),
        (["--uid", "nobody"], (NOBODY, 0), (0o644, 0o755)),
        (["--file-mode", "0600", "--dir-mode", "0700"], (0, 0), (0o600, 0o700)),
        (["--umask", "0077"], (0, 0), (0o600, 0o700)),
        (["--umask", "027"], (0, 0), (0o640, 0o750)),
        (["-o", "uid=7,umask=007"], (7, 0), (0o660, 0o770)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_owner_and_modes(
    options: list[str],
    owner: tuple[int, int],
    modes: tuple[int, int],
    filled: Bucket,
    mount: Mounts,
) -> None:
    mounted = mount(filled.name, *options)
    for name, mode in zip(("top", "dir/a.txt", "", "dir"), sorted(modes * 2), strict=True):
        found = (mounted.path / name).stat()
        assert (found.st_uid, found.st_gid) == owner
        assert oct(stat.S_IMODE(found.st_mode)) == oct(mode)


# --- the mount ----------------------------------------------------------------------------


def test_mount_shows_it(mounted: Mounted, filled: Bucket) -> None:
    [line] = [line for line in output("mount").splitlines() if str(mounted.path) in line]
    assert line.startswith(f"{filled.name} on {mounted.path} type fuse.s3mount (ro,")
    [[source, _, kind, options, *_]] = mounts_at(mounted.path)
    assert (source, kind) == (filled.name, "fuse.s3mount")
    assert {"ro", "nosuid", "nodev", "default_permissions"} <= set(options.split(","))


@pytest.mark.parametrize("source", ["{}/dir", "s3://{}/dir", "s3://{}", "{}/dir/"])
def test_mount_shows_the_source_as_it_was_written(
    source: str, filled: Bucket, mount: Mounts
) -> None:
    source = source.format(filled.name)
    mounted = mount(source)
    assert [line[0] for line in mounts_at(mounted.path)] == [source]
    assert "sub" in output("find", mounted.path)


def test_df(mounted: Mounted, filled: Bucket) -> None:
    source, size, used, available, percent, target = (
        output("df", "-P", "-B1", mounted.path).splitlines()[1].split()
    )
    assert (source, target) == (filled.name, str(mounted.path))
    assert int(size) == int(available) >= 1 << 50
    assert (used, percent) == ("0", "0%")
    found = os.statvfs(mounted.path)
    assert found.f_namemax == 255
    assert found.f_flag & os.ST_RDONLY
    assert int(output("df", "-P", "-i", mounted.path).splitlines()[1].split()[1]) >= 1 << 32
    assert output("stat", "-f", "-c", "%T", mounted.path) == "fuseblk\n"


# --- access -------------------------------------------------------------------------------


@for_root
def test_another_user_without_allow_other(mounted: Mounted) -> None:
    done = as_nobody("ls", mounted.path)
    assert done.returncode != 0
    assert os.strerror(errno.EACCES) in done.stderr


@for_root
def test_another_user_with_allow_other(filled: Bucket, open_path: Path, mount: Mounts) -> None:
    mounted = mount(filled.name, "--allow-other", at=open_path)
    assert as_nobody("cat", mounted.path / "dir/a.txt").stdout == "a" * 1000
    assert as_nobody("test", "-r", mounted.path / "top").returncode == 0
    assert as_nobody("test", "-w", mounted.path / "top").returncode == 1
    assert as_nobody("test", "-x", mounted.path / "top").returncode == 1


@for_root
def test_modes_keep_another_user_out(filled: Bucket, open_path: Path, mount: Mounts) -> None:
    mounted = mount(filled.name, "--allow-other", "--file-mode", "0640", at=open_path)
    done = as_nobody("cat", mounted.path / "top")
    assert (done.returncode, os.strerror(errno.EACCES) in done.stderr) == (1, True)
    assert as_nobody("ls", mounted.path).stdout.split() == ["dir", "marked", "top"]


@for_root
def test_directory_modes_keep_another_user_out(
    filled: Bucket, open_path: Path, mount: Mounts
) -> None:
    mounted = mount(filled.name, "--allow-other", "--dir-mode", "0711", at=open_path)
    assert as_nobody("ls", mounted.path).returncode == 2
    assert as_nobody("cat", mounted.path / "top").stdout == "1"


@for_root
def test_the_owner_by_uid_gets_in(filled: Bucket, open_path: Path, mount: Mounts) -> None:
    options = ("--allow-other", "--uid", str(NOBODY), "--umask", "077")
    mounted = mount(filled.name, *options, at=open_path)
    assert as_nobody("cat", mounted.path / "top").stdout == "1"
    # root passes every mode, as on any filesystem.
    assert output("cat", mounted.path / "top") == "1"


def test_nothing_can_be_executed_by_default(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"run": b"#!/bin/sh\necho ran\n"})
    plain = mount(bucket.name)
    with pytest.raises(PermissionError):
        subprocess.run([plain.path / "run"], check=True)
    executable = mount(bucket.name, "--file-mode", "0555")
    assert output(executable.path / "run") == "ran\n"
    barred = mount(bucket.name, "--file-mode", "0555", "-o", "noexec")
    with pytest.raises(PermissionError):
        subprocess.run([barred.path / "run"], check=True)

"""From the command to the end of the mount: exit statuses, messages, every way to end it."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.fault_proxy import FaultProxy, refuse
from tests.mounting import ROOT, SECONDS, SENT_ONCE, Mounts, has_ended, mounts_at, processes_with

for_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, or uses mount(8)")


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    bucket.put({"file": b"content", "dir/a": b"a"})
    return bucket


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    path.mkdir()
    return path


# --- what cannot be mounted -----------------------------------------------------------------


def test_no_such_bucket(filled: Bucket, mount: Mounts, path: Path) -> None:
    done = mount.run(*mount.arguments("no-such-bucket", path))
    assert done.returncode == 1
    assert done.stderr.startswith("s3mount: there is no bucket 'no-such-bucket' at http://")
    assert done.stderr.count("\n") == 1
    assert mounts_at(path) == []
    assert processes_with(str(path)) == []


def test_endpoint_that_refuses(filled: Bucket, mount: Mounts, path: Path) -> None:
    arguments = mount.arguments(filled.name, path, endpoint_url="http://127.0.0.1:9")
    done = mount.run(*arguments, "--retries", "1")
    assert done.returncode == 1
    assert "http://127.0.0.1:9" in done.stderr
    assert "--endpoint-url" in done.stderr
    assert done.stderr.count("\n") == 1


def test_access_denied(filled: Bucket, mount: Mounts, path: Path) -> None:
    with FaultProxy(filled.server.endpoint_url) as proxy:
        proxy.on("*", refuse(403, "AccessDenied"))
        done = mount.run(*mount.arguments(filled.name, path, endpoint_url=proxy.endpoint_url))
    assert done.returncode == 1
    assert "denies" in done.stderr
    assert "s3:ListBucket" in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_credentials(filled: Bucket, mount: Mounts, path: Path) -> None:
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
    files = dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), "/dev/null")
    done = mount.run(*mount.arguments(filled.name, path), **keys, **files)
    assert done.returncode == 1
    assert done.stderr.startswith("s3mount: no credentials were found; ")
    done = mount.run(*mount.arguments(filled.name, path), "--profile", "nobody", **keys, **files)
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_mountpoints(filled: Bucket, mount: Mounts, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    done = mount.run(*mount.arguments(filled.name, missing))
    assert done.returncode == 1
    assert done.stderr == (
        f"s3mount: the mountpoint '{missing}' is not a directory; run: mkdir -p {missing}\n"
    )
    file = tmp_path / "file"
    file.write_text("")
    done = mount.run(*mount.arguments(filled.name, file))
    assert (done.returncode, "not a directory" in done.stderr) == (1, True)
    assert filled.server.counts() == {}  # found out before S3 was asked


def test_mounted_already(filled: Bucket, mount: Mounts) -> None:
    mounted = mount(filled.name)
    done = mount.run(*mount.arguments(filled.name, mounted.path))
    assert done.returncode == 1
    assert done.stderr == (
        f"s3mount: '{filled.name}' is mounted at '{mounted.path}' already;"
        f" run: umount {mounted.path}\n"
    )
    assert (mounted.path / "file").read_bytes() == b"content"


def test_wrong_usage(mount: Mounts, path: Path) -> None:
    done = mount.run("bucket", str(path), "--cach-dir", "/x")
    assert done.returncode == 2
    assert "--cache-dir" in done.stderr
    assert done.stderr.count("\n") == 1


# --- the ways to end --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_in_the_foreground(
    number: signal.Signals, filled: Bucket, mount: Mounts, path: Path
) -> None:
    with mount.foreground(*mount.arguments(filled.name, path)) as process:
        assert (path / "file").read_bytes() == b"content"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
    assert mounts_at(path) == []
    assert number.name in stderr
    assert "Traceback" not in stderr
    assert "WARNING" not in stderr


def test_sigterm_to_the_daemon(filled: Bucket, mount: Mounts) -> None:
    mounted = mount(filled.name)
    os.kill(mounted.pid, signal.SIGTERM)
    assert has_ended(mounted.pid, SECONDS)
    assert mounts_at(mounted.path) == []
    assert os.listdir(mounted.path) == []


def test_sighup_leaves_the_daemon_alone(filled: Bucket, mount: Mounts) -> None:
    mounted = mount(filled.name)
    os.kill(mounted.pid, signal.SIGHUP)
    assert (mounted.path / "file").read_bytes() == b"content"
    assert not has_ended(mounted.pid)


@pytest.mark.parametrize(
    "command", ["umount", "fusermount3 -u", "umount -l", "fusermount3 -uz", "umount -f"]
)
def test_unmount(command: str, filled: Bucket, mount: Mounts) -> None:
    mounted = mount(filled.name)
    assert (mounted.path / "file").read_bytes() == b"content"
    subprocess.run([*command.split(), mounted.path], check=True)
    assert has_ended(mounted.pid, SECONDS)
    assert mounts_at(mounted.path) == []
    assert "unmounted" in mounted.log()


def test_a_busy_mount(filled: Bucket, mount: Mounts) -> None:
    mounted = mount(filled.name)
    with (mounted.path / "file").open("rb"):
        done = subprocess.run(["umount", mounted.path], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "busy" in done.stderr
        assert (mounted.path / "dir/a").read_bytes() == b"a"
    mounted.unmount()


def test_lazy_unmount_serves_who_is_there(filled: Bucket, mount: Mounts) -> None:
    mounted = mount(filled.name)
    with (mounted.path / "file").open("rb", buffering=0) as file:
        subprocess.run(["umount", "-l", mounted.path], check=True)
        assert not os.path.exists(mounted.path / "file")
        assert file.read() == b"content"
        assert not has_ended(mounted.pid)
    assert has_ended(mounted.pid, SECONDS)


def test_a_killed_daemon_leaves_a_dead_mountpoint_that_is_cleared(
    filled: Bucket, mount: Mounts
) -> None:
    mounted = mount(filled.name)
    os.kill(mounted.pid, signal.SIGKILL)
    assert has_ended(mounted.pid, SECONDS)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.listdir(mounted.path)
    again = mount(filled.name, at=mounted.path)
    assert len(mounts_at(mounted.path)) == 1
    assert (again.path / "file").read_bytes() == b"content"


def test_five_rounds_leave_nothing(filled: Bucket, mount: Mounts) -> None:
    path = None
    for _ in range(5):
        mounted = mount(filled.name, at=path)
        path = mounted.path
        assert (path / "file").read_bytes() == b"content"
        mounted.unmount()
    assert path is not None
    assert mounts_at(path) == []
    assert processes_with(str(path)) == []


def test_the_daemon_is_detached(filled: Bucket, mount: Mounts) -> None:
    mounted = mount(filled.name)
    process = Path(f"/proc/{mounted.pid}")
    assert os.readlink(process / "cwd") == "/"
    assert {os.readlink(process / f"fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    assert os.getsid(mounted.pid) == mounted.pid
    # No descriptor of ours went along.
    ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)} - {"/dev/null"}
    theirs = {os.readlink(fd) for fd in (process / "fd").iterdir()}
    assert not ours & theirs


def test_an_endpoint_that_is_slow_to_answer(filled: Bucket, mount: Mounts) -> None:
    """The command returns once the mount is usable, and not before."""
    filled.server.set_latency(0.5)
    mounted = mount(filled.name)
    filled.server.set_latency(0)
    assert os.listdir(mounted.path) == ["dir", "file"]


def test_two_mounts_share_a_cache(filled: Bucket, mount: Mounts) -> None:
    data = os.urandom(3 * 1024 * 1024)
    filled.put({"big": data})
    first, second = mount(filled.name), mount(filled.name)
    for mounted in (first, second):
        assert (mounted.path / "big").read_bytes() == data
        assert (mounted.path / "file").read_bytes() == b"content"
    # And after both have written, either serves the other's.
    first.unmount()
    second.unmount()
    filled.server.reset()
    third = mount(filled.name, *SENT_ONCE)
    assert (third.path / "big").read_bytes() == data
    assert filled.server.counts()["GET"] == 0


def test_one_bucket_twice_and_another(filled: Bucket, mount: Mounts) -> None:
    other = Bucket(filled.server)
    other.put({"file": b"another"})
    paths = [mount(name).path for name in (filled.name, other.name, f"{filled.name}/dir")]
    assert [sorted(os.listdir(path)) for path in paths] == [["dir", "file"], ["file"], ["a"]]
    assert (paths[0] / "file").read_bytes() == b"content"
    assert (paths[1] / "file").read_bytes() == b"another"


def test_a_mountpoint_with_an_odd_name(filled: Bucket, mount: Mounts, tmp_path: Path) -> None:
    for name in ("with space", "new\nline", "back\\slash", "ünï, cöde"):
        mounted = mount(filled.name, at=tmp_path / name)
        assert (mounted.path / "file").read_bytes() == b"content"
        assert len(mounts_at(mounted.path)) == 1
        mounted.unmount()


# --- mount(8) and fstab -----------------------------------------------------------------------


@pytest.fixture
def program(mount: Mounts, tmp_path: Path) -> Path:
    """An executable named s3mount: mount(8) passes no environment on."""
    path = tmp_path / "bin" / "s3mount"
    path.parent.mkdir()
    variables = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)} | {
        name: value for name, value in mount.environment().items() if name.startswith("AWS_")
    }
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    path.write_text(f'#!/bin/sh\n{exports}exec {sys.executable} -W default -m s3mount "$@"\n')
    path.chmod(0o755)
    return path


@contextmanager
def unmounted_at_the_end(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        pids = processes_with(str(path))
        if mounts_at(path):
            subprocess.run(["umount", "-l", path], check=True)
        assert all(has_ended(pid, SECONDS) for pid in pids)


def mount8_options(bucket: Bucket, tmp_path: Path) -> str:
    return (
        f"endpoint_url={bucket.server.endpoint_url},path_style,cache_dir={tmp_path}/cache,"
        f"log_file={tmp_path}/log"
    )


@for_root
def test_mount8(filled: Bucket, program: Path, path: Path, tmp_path: Path) -> None:
    options = f"ro,allow_other,umask=027,uid=7,{mount8_options(filled, tmp_path)}"
    with unmounted_at_the_end(path):
        # `fuse.s3mount` has mount.fuse3 run s3mount from PATH; `fuse` and PROGRAM# names it.
        command = ["mount", "-t", "fuse", f"{program}#{filled.name}", str(path), "-o", options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert (path / "file").read_bytes() == b"content"
        found = (path / "file").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o640, 7)
        [[source, _, kind, flags, *_]] = mounts_at(path)
        assert kind.startswith("fuse")
        assert {"ro", "allow_other"} <= set(flags.split(","))
        assert filled.name in source
        assert "WARNING" not in (tmp_path / "log").read_text()


@for_root
def test_mount_fuse_s3mount_finds_the_program_in_path(
    filled: Bucket, program: Path, path: Path, tmp_path: Path
) -> None:
    mount_fuse = shutil.which("mount.fuse3", path="/sbin:/usr/sbin")
    assert mount_fuse is not None
    with unmounted_at_the_end(path):
        done = subprocess.run(
            [mount_fuse, filled.name, path, "-t", "fuse.s3mount", "-o",
             f"ro,noexec,{mount8_options(filled, tmp_path)}"],
            capture_output=True, text=True, check=False,
            env=os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert (path / "file").read_bytes() == b"content"
        [[source, _, kind, flags, *_]] = mounts_at(path)
        assert (source, kind) == (filled.name, "fuse.s3mount")
        assert "noexec" in flags.split(",")


@for_root
def test_fstab(filled: Bucket, program: Path, path: Path, tmp_path: Path) -> None:
    fstab = tmp_path / "fstab"
    options = (
        f"ro,_netdev,nofail,noauto,user,defaults,x-systemd.automount,x-systemd.mount-timeout=30,"
        f"allow_other,{mount8_options(filled, tmp_path)}"
    )
    fstab.write_text(f"{program}#{filled.name} {path} fuse {options} 0 0\n")
    with unmounted_at_the_end(path):
        done = subprocess.run(
            ["mount", "-T", fstab, path], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert (path / "dir/a").read_bytes() == b"a"
        [[_, _, _, flags, *_]] = mounts_at(path)
        assert {"ro", "noexec", "nosuid", "nodev", "allow_other"} <= set(flags.split(","))
        subprocess.run(["umount", path], check=True)
        assert mounts_at(path) == []


@for_root
def test_fstab_failure_comes_through(
    filled: Bucket, program: Path, path: Path, tmp_path: Path
) -> None:
    fstab = tmp_path / "fstab"
    options = f"ro,noauto,{mount8_options(filled, tmp_path)}"
    fstab.write_text(f"{program}#no-such-bucket {path} fuse {options} 0 0\n")
    done = subprocess.run(["mount", "-T", fstab, path], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "there is no bucket 'no-such-bucket'" in done.stderr
    assert mounts_at(path) == []

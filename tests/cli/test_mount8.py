"""Through the real mount(8) and mount.fuse3, with a daemon that mounts nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command

# util-linux mounts what is not in /etc/fstab for root alone.
for_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount(8) wants root")

MOUNT_FUSE = shutil.which("mount.fuse3", path="/sbin:/usr/sbin")


@pytest.fixture
def program(tmp_path: Path, command: Command) -> Path:
    """An executable s3mount. mount(8) empties the environment: all it needs is within."""
    path = tmp_path / "bin" / "s3mount"
    path.parent.mkdir()
    path.write_text(
        f"""#!/bin/sh
export FAKE_DAEMON=${{FAKE_DAEMON-return}} PYTHONPATH={shlex.quote(str(ROOT))}
export FAKE_DAEMON_STARTED={shlex.quote(str(command.started))}
exec {shlex.quote(sys.executable)} -m tests.cli.fake_daemon "$@"
"""
    )
    path.chmod(0o755)
    return path


def run(*argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, argv)),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=os.environ | environment,
    )


def test_mount_fuse3(program: Path, command: Command, tmp_path: Path) -> None:
    assert MOUNT_FUSE is not None
    path = f"{program.parent}:{os.environ['PATH']}"
    options = r"ro,noexec,noatime,allow_other,uid=7,cache_dir=/var/a\,b,metadata_ttl=5m"
    done = run(MOUNT_FUSE, "logs/2026 11", tmp_path, "-t", "fuse.s3mount", "-o", options, PATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    config = command.report()["config"]
    for part in (
        "source='logs/2026 11', bucket='logs', prefix='2026 11/'",
        f"mountpoint=PosixPath('{tmp_path}')",
        "uid=7",
        "allow_other=True",
        "mount_options=('noexec', 'noatime')",
        "cache_dir=PosixPath('/var/a,b')",
        "metadata_ttl=300.0",
    ):
        assert part in config


def test_failure_comes_through_mount_fuse3(program: Path, tmp_path: Path) -> None:
    assert MOUNT_FUSE is not None
    path = f"{program.parent}:{os.environ['PATH']}"
    argv = (MOUNT_FUSE, "logs", tmp_path, "-t", "fuse.s3mount", "-o")
    done = run(*argv, "ro", PATH=path, FAKE_DAEMON="fail")
    assert (done.returncode, done.stderr) == (1, "s3mount: /mnt is not a directory; make it one\n")
    done = run(*argv, "cach_dir=/x", PATH=path)
    assert done.returncode == 2
    assert "did you mean cache_dir?" in done.stderr


@for_root
def test_mount(program: Path, command: Command, tmp_path: Path) -> None:
    done = run("mount", "-t", "fuse", f"{program}#logs", tmp_path, "-o", "nofail,noatime")
    assert done.returncode == 0
    # mount(8) said rw, as nobody said ro.
    assert done.stderr.startswith("s3mount: WARNING: the bucket is mounted read-only;")
    assert "mount_options=('noatime',)" in command.report()["config"]


@for_root
def test_fstab(program: Path, command: Command, tmp_path: Path) -> None:
    fstab = tmp_path / "fstab"
    arn = "arn:aws:s3:us-east-1:123456789012:accesspoint/logs"
    options = (
        r"ro,_netdev,nofail,noauto,user,x-systemd.automount,x-systemd.mount-timeout=30,"
        r"defaults,allow_other,uid=7,gid=8,umask=027,comment=hello,cache_dir=/var/a\,b"
    )
    fstab.write_text(f"{program}#{arn}/my\\040prefix {tmp_path} fuse {options} 0 0\n")
    done = run("mount", "-T", fstab, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    config = command.report()["config"]
    for part in (
        f"bucket='{arn}', prefix='my prefix/'",
        "uid=7, gid=8",
        "umask=23",
        "allow_other=True",
        "mount_options=('noexec', 'nosuid', 'nodev')",  # what `user` means
        "cache_dir=PosixPath('/var/a,b')",
    ):
        assert part in config

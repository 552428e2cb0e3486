"""Without root, through fusermount3: mounted by another user, for that user alone."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.mounting import Mounted, Mounts, has_ended, mounts_at, processes_with, until

RULES = Path(__file__).parents[2] / "systemd" / "90-s3mount.rules"
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

for_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    bucket.put({"file": b"content", "dir/a": b"a"})
    return bucket


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of nobody's, that nobody can reach; /dev/fuse as on any normal machine."""
    device = Path("/dev/fuse")
    mode = stat.S_IMODE(device.stat().st_mode)
    if mode & 0o666 != 0o666:
        device.chmod(0o666)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        home = Path(directory, "home")
        home.mkdir()
        (home / "mnt").mkdir()
        for each in (home, home / "mnt"):
            os.chown(each, NOBODY, NOBODY)
        yield home
    device.chmod(mode)


@contextmanager
def mounted_by_nobody(mount: Mounts, bucket: str, home: Path, *options: str) -> Iterator[Mounted]:
    path = home / "mnt"
    done = run_as_nobody(mount, bucket, home, *options)
    [pid] = processes_with(str(path))
    mounted = Mounted(path, home / "log", pid)
    try:
        assert (done.returncode, done.stderr) == (0, "")
        yield mounted
    finally:
        mounted.close()
    assert mounted.complaints() == []


def run_as_nobody(
    mount: Mounts, bucket: str, home: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    arguments = [
        word if word != "none" else str(home / "cache")
        for word in mount.arguments(bucket, home / "mnt", cache=None)
    ]
    log = ("--log-file", str(home / "log"))
    return mount.run(*arguments, *log, *options, prefix=AS_NOBODY, HOME=str(home))


def as_nobody(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AS_NOBODY, *map(str, command)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def reachable_python(home: Path) -> None:
    """Skips nothing: says early when another user cannot run this very Python."""
    done = as_nobody(sys.executable, "-c", "import sys; sys.path.insert(0, '.')")
    assert done.returncode == 0, f"another user cannot run {sys.executable}: {done.stderr}"


@for_root
@pytest.mark.usefixtures("reachable_python")
def test_unprivileged(filled: Bucket, mount: Mounts, home: Path) -> None:
    with mounted_by_nobody(mount, filled.name, home) as mounted:
        assert as_nobody("cat", mounted.path / "file").stdout == "content"
        owner = as_nobody("stat", "-c", "%u %g %a", mounted.path / "file").stdout
        assert owner == f"{NOBODY} {NOBODY} 644\n"
        # Nobody else gets in, not even root.
        with pytest.raises(PermissionError):
            os.listdir(mounted.path)
        [[source, _, kind, flags, *_]] = mounts_at(mounted.path)
        assert (source, kind) == (filled.name, "fuse.s3mount")
        assert f"user_id={NOBODY}" in flags.split(",")
        assert as_nobody("fusermount3", "-u", mounted.path).returncode == 0
        assert has_ended(mounted.pid, 10)
        assert mounts_at(mounted.path) == []


def udev_command(device: str) -> str:
    """What systemd/90-s3mount.rules has udev run for the device of a mount, as udev(7) reads it."""
    [rule] = [line for line in RULES.read_text().splitlines() if line.startswith("ACTION")]
    match, _, run = rule.partition(', RUN+="')
    assert match == 'ACTION=="add", SUBSYSTEM=="bdi", KERNEL=="0:*"'
    assert "$" not in run
    command = run.removesuffix('"').replace('\\"', '"').replace("%k", device)
    assert "%" not in command
    return command


@for_root
@pytest.mark.usefixtures("reachable_python")
def test_the_udev_rule_raises_the_readahead(filled: Bucket, mount: Mounts, home: Path) -> None:
    with mounted_by_nobody(mount, filled.name, home) as mounted:
        [device] = [
            line.split()[2]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4] == str(mounted.path)
        ]
        setting = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
        assert setting.read_text() == "128\n"
        assert "90-s3mount.rules" in mounted.log()
        assert subprocess.run(shlex.split(udev_command(device)), check=True).returncode == 0
        assert setting.read_text() == "1024\n"


@for_root
def test_the_udev_rule_leaves_other_devices_alone(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        device = os.stat(tmp_path).st_dev
        command = udev_command(f"{os.major(device)}:{os.minor(device)}")
        # It finds nothing to write to, and would complain about a file that is not there.
        done = subprocess.run(shlex.split(command), capture_output=True, check=False)
        assert done.stderr == b""
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@for_root
@pytest.mark.usefixtures("reachable_python")
def test_unprivileged_sigterm(filled: Bucket, mount: Mounts, home: Path) -> None:
    with mounted_by_nobody(mount, filled.name, home) as mounted:
        os.kill(mounted.pid, signal.SIGTERM)
        assert has_ended(mounted.pid, 10)
        assert mounts_at(mounted.path) == []


@for_root
@pytest.mark.usefixtures("reachable_python")
def test_unprivileged_clears_its_own_dead_mountpoint(
    filled: Bucket, mount: Mounts, home: Path
) -> None:
    with mounted_by_nobody(mount, filled.name, home) as mounted:
        os.kill(mounted.pid, signal.SIGKILL)
        until(lambda: has_ended(mounted.pid), "it is killed")
        with mounted_by_nobody(mount, filled.name, home) as again:
            assert as_nobody("cat", again.path / "file").stdout == "content"
            assert len(mounts_at(again.path)) == 1


@for_root
@pytest.mark.usefixtures("reachable_python")
def test_unprivileged_allow_other_is_refused(filled: Bucket, mount: Mounts, home: Path) -> None:
    configuration = Path("/etc/fuse.conf")
    lines = configuration.read_text().splitlines() if configuration.exists() else []
    assert "user_allow_other" not in lines, "this test needs a machine that has it off"
    done = run_as_nobody(mount, filled.name, home, "--allow-other")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "add the line user_allow_other to /etc/fuse.conf" in done.stderr
    assert mounts_at(home / "mnt") == []


@for_root
@pytest.mark.usefixtures("reachable_python")
def test_unprivileged_over_a_directory_of_another_user(
    filled: Bucket, mount: Mounts, home: Path
) -> None:
    os.chown(home / "mnt", 0, 0)
    done = run_as_nobody(mount, filled.name, home)
    assert done.returncode == 1
    assert "mount over a directory that you own" in done.stderr
    assert done.stderr.count("\n") == 1

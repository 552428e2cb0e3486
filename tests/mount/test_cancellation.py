"""Readers that go away, and ends that come while requests are under way: all in bounded time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.fault_proxy import Action, FaultProxy, hang, stall
from tests.mounting import SECONDS, SENT_ONCE, Mounted, Mounts, has_ended, mounts_at, until
from tests.stopwatch import Stopwatch

MIB = 1024 * 1024


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultProxy]:
    with FaultProxy(bucket.server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def mounted(bucket: Bucket, proxy: FaultProxy, mount: Mounts) -> Mounted:
    """A mount of a bucket with a file that hangs, and others that do not."""
    bucket.put(
        {"slow": b"s" * 100_000, "fast": b"f" * 1000, "d/slow": b"", "e/f": b"x", "many/0": b""}
    )
    mounted = mount(
        bucket.name, "--deadline", "60s", "--read-timeout", "60s", *SENT_ONCE,
        endpoint_url=proxy.endpoint_url, cache=None,
    )  # fmt: skip
    mounted.expect("the mount is ending", "connections to S3 are closed")
    return mounted


def reader(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes], number: int) -> float:
    """Seconds that it takes to go. What it waits for hangs still: nothing else lets it go."""
    with Stopwatch() as watch:
        process.send_signal(number)
        process.communicate(timeout=SECONDS)
        return watch.seconds


STUCK: dict[str, Action] = {"no answer": hang, "stalled body": stall(1000)}


@pytest.mark.parametrize("action", STUCK.values(), ids=STUCK.keys())
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stuck_reader_that_goes(
    number: int, action: Action, proxy: FaultProxy, mounted: Mounted
) -> None:
    """^C is obeyed at once, others are served meanwhile, and the file is readable later."""
    proxy.on("GET", action, key="slow")
    stuck = reader(mounted.path / "slow")
    proxy.wait_until_hanging()
    assert (mounted.path / "fast").read_bytes() == b"f" * 1000
    assert os.listdir(mounted.path / "e") == ["f"]
    # SIGINT and SIGTERM too: a fuse request that waits is killable by what would kill.
    assert end(stuck, number) < 2
    assert (mounted.path / "e/f").read_bytes() == b"x"
    proxy.clear()
    assert (mounted.path / "slow").read_bytes() == b"s" * 100_000


def test_one_reader_goes_and_the_other_gets_its_bytes(
    proxy: FaultProxy, mounted: Mounted, bucket: Bucket
) -> None:
    """A GET belongs to nobody: it goes on for those who still wait, and is not sent again."""
    proxy.on("GET", hang, key="slow")
    first, second = reader(mounted.path / "slow"), reader(mounted.path / "slow")
    proxy.wait_until_hanging()
    bucket.server.reset()
    end(first, signal.SIGINT)
    proxy.clear()
    out, err = second.communicate(timeout=SECONDS)
    assert (out, err) == (b"s" * 100_000, b"")
    assert bucket.server.counts() == {"GET": 1}


def test_many_stuck_readers_leave_room(bucket: Bucket, proxy: FaultProxy, mounted: Mounted) -> None:
    """More than pyfuse3 has tasks to start with; fewer than --max-connections."""
    keys = [f"many/{number}" for number in range(20)]
    bucket.put(dict.fromkeys(keys, b"s" * 10))
    for key in keys:
        proxy.on("GET", hang, key=key)
    stuck = [reader(mounted.path / key) for key in keys]
    for _ in stuck:
        proxy.wait_until_hanging()
    assert (mounted.path / "fast").read_bytes() == b"f" * 1000
    assert sorted(os.listdir(mounted.path / "d")) == ["slow"]
    for process in stuck:
        process.send_signal(signal.SIGKILL)
    # Above the kernel's congestion threshold there is no readahead, and a read of one page
    # that the daemon has is not taken back, not even by SIGKILL.
    proxy.clear()
    for process in stuck:
        process.communicate(timeout=SECONDS)
    assert (mounted.path / "many/7").read_bytes() == b"s" * 10


def test_a_stuck_listing_ends_with_its_deadline(
    bucket: Bucket, proxy: FaultProxy, mount: Mounts
) -> None:
    """The kernel takes no request back that the daemon has: ^C is obeyed once it is answered."""
    bucket.put({"d/file": b"", "fast": b"f"})
    mounted = mount(bucket.name, "--deadline", "3s", endpoint_url=proxy.endpoint_url)
    mounted.expect("readdir: the listing of 'd/' was not done in 2.4 s")
    proxy.on("LIST", hang)
    stuck = subprocess.Popen(["ls", mounted.path / "d"], stdout=subprocess.PIPE)
    proxy.wait_until_hanging()
    assert (mounted.path / "fast").read_bytes() == b"f"
    assert end(stuck, signal.SIGINT) < 3
    assert "was not done in 2.4 s" in mounted.log()
    proxy.clear()

    def shown() -> list[str]:
        # Who asks at once is given a fifth of a second, and then told the same.
        try:
            return os.listdir(mounted.path / "d")
        except TimeoutError:
            return []

    until(lambda: shown() == ["file"], "it is noticed that the server is back")


@pytest.mark.parametrize("what", ["GET", "LIST"])
def test_sigterm_with_requests_under_way(what: str, proxy: FaultProxy, mounted: Mounted) -> None:
    """The end does not wait for S3: a few seconds of grace, and all is gone."""
    proxy.on(what, hang)
    stuck = reader(mounted.path / ("slow" if what == "GET" else "d/slow"))
    proxy.wait_until_hanging()
    with Stopwatch() as watch:
        os.kill(mounted.pid, signal.SIGTERM)
        assert has_ended(mounted.pid, SECONDS), "the daemon waits for S3"
        assert watch.seconds < 8
    assert mounts_at(mounted.path) == []
    _, err = stuck.communicate(timeout=SECONDS)
    assert stuck.returncode == 1
    assert err != b""


def test_umount_with_stuck_readers(proxy: FaultProxy, mounted: Mounted) -> None:
    proxy.on("GET", hang, key="slow")
    stuck = reader(mounted.path / "slow")
    proxy.wait_until_hanging()
    done = subprocess.run(["umount", mounted.path], capture_output=True, text=True, check=False)
    assert "busy" in done.stderr
    subprocess.run(
        ["umount", "-f", mounted.path], capture_output=True, check=False, timeout=SECONDS
    )
    subprocess.run(
        ["umount", "-l", mounted.path], capture_output=True, check=False, timeout=SECONDS
    )
    assert has_ended(mounted.pid, SECONDS)
    stuck.communicate(timeout=SECONDS)
    assert stuck.returncode == 1
    assert mounts_at(mounted.path) == []


def test_lazy_umount_with_a_stuck_reader_ends_with_it(proxy: FaultProxy, mounted: Mounted) -> None:
    proxy.on("GET", hang, key="slow")
    stuck = reader(mounted.path / "slow")
    proxy.wait_until_hanging()
    subprocess.run(["umount", "-l", mounted.path], check=True)
    assert mounts_at(mounted.path) == []
    proxy.clear()
    assert stuck.communicate(timeout=SECONDS)[0] == b"s" * 100_000
    assert has_ended(mounted.pid, SECONDS)


def test_a_daemon_killed_under_a_stuck_reader(proxy: FaultProxy, mounted: Mounted) -> None:
    proxy.on("GET", hang, key="slow")
    stuck = reader(mounted.path / "slow")
    proxy.wait_until_hanging()
    os.kill(mounted.pid, signal.SIGKILL)
    stuck.communicate(timeout=SECONDS)
    assert stuck.returncode == 1
    assert has_ended(mounted.pid, SECONDS)


def test_interrupted_while_mounting(bucket: Bucket, mount: Mounts, tmp_path: Path) -> None:
    """^C on the command, while S3 does not answer: no daemon and no mount is left."""
    path = tmp_path / "here"
    path.mkdir()
    with FaultProxy(bucket.server.endpoint_url) as proxy:
        proxy.on("*", hang)
        arguments = mount.arguments(bucket.name, path, endpoint_url=proxy.endpoint_url)
        command = subprocess.Popen(
            [sys.executable, "-m", "s3mount", *arguments],
            env=mount.environment(),
            stderr=subprocess.PIPE,
        )
        proxy.wait_until_hanging()
        with Stopwatch() as watch:
            command.send_signal(signal.SIGINT)
            _, err = command.communicate(timeout=SECONDS)  # while S3 hangs still
            assert watch.seconds < 5
    assert command.returncode == 130
    assert b"Traceback" not in err
    assert mounts_at(path) == []


def test_writers_of_many_requests_that_all_go(bucket: Bucket, mount: Mounts) -> None:
    """A hundred readers killed at any moment leave nothing wrong behind."""
    data = os.urandom(4 * MIB)
    bucket.put({"file": data})
    mounted = mount(bucket.name, cache=None)
    bucket.server.set_latency(0.05)
    for round_number in range(20):
        readers = [reader(mounted.path / "file") for _ in range(5)]
        began = time.monotonic()
        while time.monotonic() < began + round_number * 0.01:
            readers[0].poll()
        for each in readers:
            each.kill()
        for each in readers:
            out, _ = each.communicate(timeout=SECONDS)
            assert data.startswith(out)
    bucket.server.set_latency(0)
    assert (mounted.path / "file").read_bytes() == data

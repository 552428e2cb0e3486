"""What is in use stays fresh, and the kernel forgets what changed."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import Bucket
from tests.fault_proxy import FaultProxy, hang
from tests.mounting import SENT_ONCE, Mounts, until
from tests.servers import Server

# What is used is listed anew at an age of 12 s, and believed for 4 s more: longer than the machine
# stands still. Then it is asked for again.
TTL = ("--metadata-ttl", "16s", "--negative-ttl", "16s")

USES: dict[str, Callable[[Path], object]] = {
    "a directory": os.listdir,
    # The kernel asks in time, though it might answer by itself.
    "a name": lambda directory: (directory / "7").stat(),
}


class User(threading.Thread):
    """Uses a directory again and again."""

    def __init__(self, use: Callable[[Path], object], directory: Path) -> None:
        super().__init__()
        self._use = use
        self._directory = directory
        self.times = 0
        self.stop = False

    def run(self) -> None:
        while not self.stop:
            self._use(self._directory)
            self.times += 1


def test_what_is_in_use_is_listed_anew_and_nobody_waits_for_it(
    bucket: Bucket, mount: Mounts, server: Server
) -> None:
    """While the answer is held up, all is as before; then changes are seen."""
    bucket.put({f"d/{n}": b"1" for n in range(20)})
    with ExitStack() as ending:
        proxies = [ending.enter_context(FaultProxy(server.endpoint_url)) for _ in USES]
        mounts = [
            mount(bucket.name, *TTL, *SENT_ONCE, endpoint_url=proxy.endpoint_url)
            for proxy in proxies
        ]
        directories = [mounted.path / "d" for mounted in mounts]
        for directory, proxy in zip(directories, proxies, strict=True):
            assert len(os.listdir(directory)) == 20
            assert (directory / "7").stat().st_size == 1
            proxy.on("LIST", hang)
        bucket.put({"d/7": b"another", "d/new": b""})
        bucket.delete("d/3")
        users = [User(*each) for each in zip(USES.values(), directories, strict=True)]
        for user in users:
            user.start()
        try:
            for user, proxy in zip(users, proxies, strict=True):
                proxy.wait_until_hanging()
                before = user.times
                until(lambda: user.times >= before + 3, "it is used meanwhile")  # noqa: B023 - at once
                assert not proxy.hanging.acquire(blocking=False), "it is asked for once"
                proxy.clear()
        finally:
            for user, proxy in zip(users, proxies, strict=True):
                user.stop = True
                proxy.clear()
                user.join()
        for directory in directories:
            until(lambda: (directory / "7").stat().st_size == len(b"another"), "7 is seen")  # noqa: B023 - at once
            until(lambda: "new" in os.listdir(directory), "the new one is seen")  # noqa: B023 - at once
            assert "3" not in os.listdir(directory)
            assert (directory / "7").read_bytes() == b"another"


def test_walks_during_changes_and_invalidations_never_hang(
    bucket: Bucket, mount: Mounts, server: Server
) -> None:
    keys = [f"d{d}/f{f}" for d in range(5) for f in range(20)]
    bucket.put({key: key.encode() for key in keys})
    mounted = mount(bucket.name, "--metadata-ttl", "1s", "--negative-ttl", "1s")
    mounted.expect("read: .* was (replaced|deleted)", "replaced again and again")
    stop = threading.Event()
    walks = [0] * 4

    def walk(i: int, path: Path) -> None:
        commands = ["ls -lR .", "find . -type f", "cat */*", "stat */* d0 d1 d2"]
        while not stop.is_set():
            # Files come and go meanwhile, so that the tools may well complain.
            subprocess.run(commands[i], shell=True, cwd=path, capture_output=True, check=False)
            walks[i] += 1

    threads = [threading.Thread(target=walk, args=(i, mounted.path)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 5
        number = 0
        while time.monotonic() < end or min(walks) < 2:
            number += 1
            key = keys[number * 7 % len(keys)]
            if number % 3:
                bucket.put({key: b"%d " % number * (number % 50 + 1)})
            else:
                bucket.delete(key)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    left = {key: size for key, (size, _, _) in bucket.contents().items()}

    def shows_all() -> bool:
        found = {
            str(path.relative_to(mounted.path)): path.stat().st_size
            for path in mounted.path.glob("*/*")
        }
        return found == left

    until(shows_all, "the tree is shown as it is")

"""What is in use stays fresh, and the kernel forgets what changed."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

from tests.conftest import Bucket
from tests.mounting import Mounts, until
from tests.servers import Server

TTL = 2.0


def test_a_directory_in_use_is_listed_anew_before_it_expires(
    bucket: Bucket, mount: Mounts, server: Server
) -> None:
    """With 0.3 s for each answer, nobody waits for one; and changes are seen."""
    bucket.put({f"d/{n}": b"1" for n in range(20)})
    mounted = mount(bucket.name, "--metadata-ttl", f"{TTL}s", "--negative-ttl", f"{TTL}s")
    directory = mounted.path / "d"
    os.listdir(directory)
    bucket.put({"d/7": b"another", "d/new": b""})
    server.client.delete_object(Bucket=bucket.name, Key="d/3")
    server.set_latency(0.3)
    longest = 0.0
    names: list[str] = []

    def look() -> bool:
        nonlocal longest, names
        started = time.monotonic()
        names = os.listdir(directory)
        size = (directory / "7").stat().st_size
        longest = max(longest, time.monotonic() - started)
        return size == len(b"another") and "new" in names

    until(look, "the change is seen")
    assert "3" not in names
    assert longest < 0.15
    assert (directory / "7").read_bytes() == b"another"


def test_a_name_that_is_used_again_and_again_is_not_waited_for(
    bucket: Bucket, mount: Mounts, server: Server
) -> None:
    """The kernel asks in time, though it might answer by itself."""
    bucket.put({"d/a": b"1"})
    mounted = mount(bucket.name, "--metadata-ttl", f"{TTL}s")
    path = mounted.path / "d/a"
    path.stat()
    os.listdir(mounted.path / "d")
    os.listdir(mounted.path)
    server.reset()
    server.set_latency(0.3)
    longest = 0.0
    end = time.monotonic() + 2.5 * TTL
    while time.monotonic() < end:
        started = time.monotonic()
        path.stat()
        longest = max(longest, time.monotonic() - started)
    assert longest < 0.15
    assert 2 <= server.counts().total() <= 10


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
        while time.monotonic() < end:
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
    assert min(walks) >= 2
    left = {key: size for key, (size, _, _) in bucket.contents().items()}

    def shows_all() -> bool:
        found = {
            str(path.relative_to(mounted.path)): path.stat().st_size
            for path in mounted.path.glob("*/*")
        }
        return found == left

    until(shows_all, "the tree is shown as it is")

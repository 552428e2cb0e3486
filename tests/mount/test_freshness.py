"""What is in use stays fresh, and the kernel forgets what changed."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from tests.conftest import Bucket
from tests.fault_proxy import Exchange, FaultProxy, forward, hang
from tests.mounting import SENT_ONCE, Mounts, until
from tests.servers import Server

# What is used is listed anew at an age of 6 s, and believed for 2 s more.
TTL = ("--metadata-ttl", "8s", "--negative-ttl", "8s")

USES: dict[str, Callable[[Path], object]] = {
    "a directory": os.listdir,
    # The kernel asks in time, though it might answer by itself.
    "a name": lambda directory: (directory / "7").stat(),
}


def has_delimiter(path: str) -> bool:
    return "delimiter=" in path


def is_flat(path: str) -> bool:
    return "delimiter=" not in path


# The directory's, being small, is asked for with its neighbours'.
LISTINGS: dict[str, Callable[[str], bool]] = {"the root": has_delimiter, "the directory": is_flat}


class Case:
    """A mount whose directory is used again and again, while one of its two listings hangs."""

    def __init__(
        self,
        use: Callable[[Path], object],
        is_held_up: Callable[[str], bool],
        proxy: FaultProxy,
        directory: Path,
    ) -> None:
        self._use = use
        self._is_held_up = is_held_up
        self.proxy = proxy
        self.directory = directory
        self.listed: list[str] = []  # what was asked for, held up or not
        self.times = 0
        self.stop = threading.Event()
        self.user = threading.Thread(target=self._run)

    def list_anew(self, exchange: Exchange) -> None:
        """What the proxy does to a LIST."""
        self.listed.append(exchange.path)
        (hang if self._is_held_up(exchange.path) else forward)(exchange)

    def _run(self) -> None:
        while not self.stop.wait(0.01):
            self._use(self.directory)
            self.times += 1

    def check(self) -> None:
        """All is as before while the listing hangs, and no listing is asked for twice."""
        self.proxy.wait_until_hanging()
        before = self.times
        until(lambda: self.times >= before + 3, "it is used meanwhile")
        assert not self.proxy.hanging.acquire(blocking=False), "it is asked for once"
        assert len(self.listed) == len(set(self.listed)), "each is asked for once"


def test_what_is_in_use_is_listed_anew_and_nobody_waits_for_it(
    bucket: Bucket, mount: Mounts, server: Server
) -> None:
    """While an answer is held up, all is as before; then changes are seen.

    The root is in use as well: that the directory is there is known by its listing.
    """
    bucket.put({f"d/{n}": b"1" for n in range(20)})
    with ExitStack() as ending:
        cases = []
        for use, is_held_up in product(USES.values(), LISTINGS.values()):
            proxy = ending.enter_context(FaultProxy(server.endpoint_url))
            mounted = mount(bucket.name, *TTL, *SENT_ONCE, endpoint_url=proxy.endpoint_url)
            cases.append(Case(use, is_held_up, proxy, mounted.path / "d"))
        for case in cases:
            assert len(os.listdir(case.directory)) == 20
            assert (case.directory / "7").stat().st_size == 1
            case.proxy.on("LIST", case.list_anew)
        bucket.put({"d/7": b"another", "d/new": b""})
        bucket.delete("d/3")
        for case in cases:
            case.user.start()
        try:
            # Side by side, as what hangs is believed for a moment only.
            with ThreadPoolExecutor(len(cases)) as pool:
                list(pool.map(Case.check, cases))
        finally:
            for case in cases:
                case.stop.set()
                case.proxy.clear()
                case.user.join()
        for directory in (case.directory for case in cases):
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

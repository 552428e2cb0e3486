"""Random operations through the real kernel, while a real S3 server's bucket changes.

The same judge as for the rooms below the kernel: what stat(2), readdir(3) and read(2) say
must have been true at a moment when it was young enough, and each open file is one version.
"""

from __future__ import annotations

import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.mounting import Mounts
from tests.reference.history import History, Version

KEYS = ("a", "a/a", "a/b", "a/b/c", "a-", "a0", "b", "b/a", "b/b/a")
SIZES = (0, 1, 1000, 4097, 200_000, 1_500_000)
STEPS = 600
# The kernel counts the age of an answer from when it has it, in ticks of its own.
TICKS = 0.02


class Run:
    """One mount, the history of its bucket, and the files that are open."""

    def __init__(self, bucket: Bucket, root: Path, ttl: float, seed: int) -> None:
        self.bucket = bucket
        self.root = root
        self.ttl = ttl
        self.numbers = random.Random(seed)
        self.history = History()
        # fd, path, the versions that it may be, whether any byte was read
        self.open: list[tuple[int, str, list[Version], bool]] = []
        self.opened: dict[int, float] = {}  # when, by fd
        self.done: dict[str, int] = {}
        # What the longest call took: for so long an answer may have been on its way to the kernel,
        # which believes it for the rest of the time-to-live that it had when it was given.
        self.longest = 0.0

    def oldest(self, began: float) -> float:
        """From when on what was true may be the answer to a call that began then."""
        self.longest = max(self.longest, time.monotonic() - began)
        return began - self.ttl - self.longest - TICKS

    def step(self) -> None:
        steps: list[tuple[int, Callable[[], str]]] = [
            (4, self.put),
            (2, self.delete),
            (6, self.stat),
            (3, self.listdir),
            (1, self.walk),
            (5, self.open_file),
            (10, self.read),
            (3, self.close),
        ]
        [act] = self.numbers.choices([s for _, s in steps], [weight for weight, _ in steps])
        said = act()
        self.done[said] = self.done.get(said, 0) + 1

    # --- the bucket -----------------------------------------------------------------------

    def put(self) -> str:
        key = self.numbers.choice(KEYS)
        body = self.numbers.randbytes(self.numbers.choice(SIZES))
        client = self.bucket.server.client
        # It counts from before the request: the server may show it at once.
        self.history.put(key, Version("", body), time.monotonic())
        client.put_object(Bucket=self.bucket.name, Key=key, Body=body)
        self._settle(key)
        return "put"

    def delete(self) -> str:
        key = self.numbers.choice(KEYS)
        if not self.history.versions(key):
            return "nothing"
        self.history.delete(key, time.monotonic())
        self.bucket.server.client.delete_object(Bucket=self.bucket.name, Key=key)
        self._settle(key)
        return "delete"

    def _settle(self, key: str) -> None:
        """The change took until now: say it once more, so that `held` counts both as true."""
        at, version = self.history.changes[key][-1]
        assert at <= time.monotonic()
        self.history.changes[key].append((time.monotonic(), version))

    # --- what programs do -----------------------------------------------------------------

    def kinds(self, path: str, began: float) -> list[str | Version]:
        """What the path may be said to be, by all that it is made of."""
        since, now = self.oldest(began), time.monotonic()
        prefix, _, name = path.rpartition("/")
        prefix += "/" * bool(prefix)
        said = list(self.history.kinds(prefix, name, since, now))
        if prefix and "directory" not in self.kinds(prefix[:-1], began):
            return ["absent"]
        if prefix and set(self.kinds(prefix[:-1], began)) != {"directory"}:
            said.append("absent")
        return said

    def stat(self) -> str:
        path = self.numbers.choice(KEYS)
        began = time.monotonic()
        try:
            found = os.stat(self.root / path)
        except (FileNotFoundError, NotADirectoryError):
            assert "absent" in self.kinds(path, began), path
            return "stat: absent"
        said = self.kinds(path, began)
        if stat.S_ISDIR(found.st_mode):
            assert "directory" in said, path
            return "stat: directory"
        sizes = [len(version.body) for version in said if isinstance(version, Version)]
        assert found.st_size in sizes, (path, found.st_size, sizes)
        return "stat: file"

    def listdir(self) -> str:
        path = self.numbers.choice(["", "a", "b", "a/b"])
        began = time.monotonic()
        try:
            names = os.listdir(self.root / path)
        except (FileNotFoundError, NotADirectoryError):
            assert path
            assert set(self.kinds(path, began)) != {"directory"}, path
            return "listdir: absent"
        assert len(set(names)) == len(names)
        prefix = path + "/" * bool(path)
        since, now = self.oldest(began), time.monotonic()
        for name in self.history.names_ever(prefix) | set(names):
            said = list(self.history.kinds(prefix, name, since, now))
            if name in names:
                assert set(said) != {"absent"}, (path, name)
            else:
                assert "absent" in said or (path and "absent" in self.kinds(path, began))
        return "listdir"

    def walk(self) -> str:
        began = time.monotonic()
        for directory, _, files in os.walk(self.root):
            self.oldest(began)
            for name in files:
                path = str(Path(directory, name).relative_to(self.root))
                assert self.history.versions(path), path
            began = time.monotonic()
        return "walk"

    def open_file(self) -> str:
        path = self.numbers.choice(KEYS)
        began = time.monotonic()
        try:
            fd = os.open(self.root / path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            assert "absent" in self.kinds(path, began), path
            return "open: absent"
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            return "open: directory"
        self.opened[fd] = began
        self.open.append((fd, path, [], False))
        return "open"

    def read(self) -> str:
        if not self.open:
            return self.open_file()
        number = self.numbers.randrange(len(self.open))
        fd, path, candidates, was_read = self.open[number]
        offset = self.numbers.choice((0, 0, 1, 999, 4096, 131_072, 1_400_000))
        size = self.numbers.choice((1, 4096, 100_000, 2_000_000))
        began = time.monotonic()
        try:
            data = os.pread(fd, size, offset)
        except OSError as error:
            since = self.opened[fd] - (began - self.oldest(began))
            if len(set(self.history.held(path, since, time.monotonic()))) > 1:
                return f"read: {os.strerror(error.errno or 0)}"
            raise  # nothing happened to it
        # Until the first byte, an open file may still become the version that replaced it.
        versions = candidates if was_read else self.history.versions(path)
        fits = [v for v in versions if v.body[offset : offset + size] == data]
        # read(2) gives what came before an error, which the next one tells.
        if not fits and data and fails(fd, offset + len(data)):
            fits = [version for version in versions if version.body.startswith(data, offset)]
        assert fits, f"{path}: {len(data)} bytes from {offset} are of no version, or of two"
        if data:
            self.open[number] = (fd, path, fits, True)
        return "read"

    def close(self) -> str:
        if not self.open:
            return "nothing"
        fd, *_ = self.open.pop(self.numbers.randrange(len(self.open)))
        os.close(fd)
        return "close"


def fails(fd: int, offset: int) -> bool:
    """Whether a read from there is an error."""
    try:
        os.pread(fd, 1, offset)
    except OSError:
        return True
    return False


@pytest.mark.parametrize(("ttl", "seed"), [(0.0, 1), (0.5, 2)])
def test_what_the_kernel_says_was_true(
    bucket: Bucket, mount: Mounts, ttl: float, seed: int
) -> None:
    mounted = mount(
        bucket.name, "--metadata-ttl", str(ttl), "--negative-ttl", str(ttl), "--region", "us-east-1"
    )
    mounted.expect("was replaced", "was deleted", "being replaced")
    run = Run(bucket, mounted.path, ttl, seed)
    try:
        taken = 0
        # How many names are taken for absent goes by the clock: some runs find little to read.
        while taken < STEPS or (run.done.get("read", 0) <= 20 and taken < 5 * STEPS):
            run.step()
            taken += 1
    finally:
        for fd, *_ in run.open:
            os.close(fd)
    assert run.done["read"] > 20, run.done
    assert {"stat: file", "stat: absent", "open", "listdir", "put", "delete"} <= set(run.done)

"""Mounts a bucket as a user would, with the real command, and ends it whatever happens.

    with Mounts(directory, server) as mount:
        mounted = mount("bucket", "--metadata-ttl", "0")
        os.listdir(mounted.path)

The daemon's log is looked through at the end: a warning, an error or a traceback in it that
the test did not announce (`Mounted.expect`) fails the test. Python's own warnings, unclosed
files among them, are logged and so fail it, too.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import Server

ROOT = Path(__file__).parent.parent
SECONDS = 20.0  # what anything may take that should be done at once
# An option for mounts whose requests are counted, or held up: none is sent beside another, as is
# right where an answer is late, be it because the machine stands still for a second.
SENT_ONCE = ("--hedge-share", "0")


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait until `condition()` is true; fail, saying `what` did not happen, after `seconds`."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"in {seconds} s: {what}"
        time.sleep(0.005)


def mounts_at(path: Path) -> list[list[str]]:
    """The lines of /proc/self/mounts for `path`, each as its fields; asks no filesystem."""
    return [line for line in _mounts() if line[1] == str(path)]


def _mounts() -> list[list[str]]:
    return [
        [
            re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)
            for word in line.split()
        ]
        for line in Path("/proc/self/mounts").read_text().splitlines()
    ]


def clear_dead_mounts(below: Path, but: Path) -> None:
    """Unmount what no daemon serves any more, below `below` and not below `but`."""
    for _, name, kind, *_ in _mounts():
        path = Path(name)
        if kind == "fuse.s3mount" and path.is_relative_to(below) and not path.is_relative_to(but):
            try:
                path.stat()
            except OSError as error:
                if error.errno == errno.ENOTCONN:
                    # Fails when another process of the run was quicker.
                    subprocess.run(["umount", "-l", path], check=False, capture_output=True)


def processes_with(argument: str) -> list[int]:
    """The pids of our own s3mount processes that have `argument` on their command line."""
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if argument.encode() in words and b"s3mount" in b" ".join(words):
            pids.append(int(entry.name))
    return pids


def has_ended(pid: int, seconds: float = 0.0) -> bool:
    """Whether the process is gone, or goes within `seconds`."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


def is_held_elsewhere(path: Path) -> bool:
    """Whether a mount namespace other than ours has a copy of what was mounted there.

    Whoever made one (a container, unshare(1)) took all mounts along: ours lives on in it.
    """
    for mountinfo in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            if f" {path} " in mountinfo.read_text():
                return True
        except OSError:  # the process ended meanwhile
            continue
    return False


class Mounted:
    """One bucket, mounted by a daemon of its own."""

    def __init__(self, path: Path, log_file: Path, pid: int) -> None:
        self.path = path
        self.log_file = log_file
        self.pid = pid
        self._expected: list[str] = []

    def expect(self, *patterns: str) -> None:
        """The log may hold warnings and errors that match one of these regular expressions."""
        self._expected.extend(patterns)

    def log(self) -> str:
        """What the daemon logged so far."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def complaints(self) -> list[str]:
        """The warnings and errors of the log, and lines that are no log lines, unless expected."""
        return [
            line
            for line in self.log().splitlines()
            if not re.match(r"\S+ \S+ (DEBUG|INFO) ", line)
            and not any(re.search(pattern, line) for pattern in self._expected)
        ]

    def memory(self, field: str = "VmHWM") -> int:
        """Bytes of a memory field of the daemon's /proc/PID/status: the peak of its RSS."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def unmount(self) -> None:
        """Unmount as a user would, and wait for the daemon to end."""
        subprocess.run(["umount", self.path], check=True)
        assert has_ended(self.pid, SECONDS), "the daemon outlives its mount"

    def close(self) -> None:
        """Leave no mount and no daemon behind; fail when that took force."""
        if mounts_at(self.path):
            subprocess.run(["umount", "-l", self.path], check=True)
        if is_held_elsewhere(self.path):
            os.kill(self.pid, signal.SIGTERM)
        if not has_ended(self.pid, SECONDS):
            os.kill(self.pid, signal.SIGKILL)
            assert has_ended(self.pid, SECONDS)
            raise AssertionError(f"the daemon did not end after umount; its log:\n{self.log()}")


class Mounts:
    """Makes mounts below `directory`; a context manager that ends them all."""

    def __init__(self, directory: Path, server: Server) -> None:
        self._directory = directory
        self._server = server
        self._made: list[Mounted] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        failures = []
        for mounted in self._made:
            try:
                mounted.close()
            except (AssertionError, subprocess.CalledProcessError) as error:
                failures.append(str(error))
        complaints = [line for mounted in self._made for line in mounted.complaints()]
        assert failures == []
        assert complaints == []

    def __call__(
        self,
        source: str,
        *options: str,
        at: Path | None = None,
        endpoint_url: str | None = None,
        cache: str | None = "cache",
        prefix: Iterable[str] = (),
        program: Iterable[str] | None = None,
        covered: bool = True,
        says: str = "",
    ) -> Mounted:
        """Run s3mount, which detaches, and return what it mounted.

        `prefix` is put before the command (setpriv, env...). Without `at` the mountpoint
        is a new directory; `cache` is the name of its cache directory, None for no cache;
        `program` is run instead of s3mount. Coverage is measured unless another user runs
        it, who cannot write its data, or `covered` is False, as it takes memory and time. `says` is
        what the command prints, and the log may hold: a regular expression.
        """
        path = at or self._directory / f"mnt{len(self._made)}"
        path.mkdir(exist_ok=True)
        log_file = self._directory / f"{path.name}.{len(self._made)}.log"
        arguments = self.arguments(source, path, endpoint_url=endpoint_url, cache=cache)
        command = [
            *prefix,
            *(program or python()),
            *arguments,
            "--log-file",
            str(log_file),
            *options,
        ]
        before = set(processes_with(str(path)))
        done = subprocess.run(
            command,
            env=self.environment(covered=covered and not prefix),
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        pids = set(processes_with(str(path))) - before
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert re.fullmatch(says, done.stderr.strip(), re.DOTALL), done.stderr
        [pid] = pids
        mounted = Mounted(path, log_file, pid)
        mounted.expect(*([says] if says else []))
        self._made.append(mounted)
        return mounted

    def arguments(
        self,
        source: str,
        path: Path,
        *,
        endpoint_url: str | None = None,
        cache: str | None = "cache",
    ) -> list[str]:
        """What to call s3mount with to mount `source` from the server at `path`."""
        cache_dir = "none" if cache is None else str(self._directory / cache)
        endpoint_url = endpoint_url or self._server.endpoint_url
        where = ["--endpoint-url", endpoint_url, "--path-style", "--cache-dir", cache_dir]
        return [source, str(path), *where]

    def environment(self, *, covered: bool = True) -> dict[str, str]:
        """The variables that s3mount is run with; without the coverage's if not `covered`."""
        environment = os.environ | self._server.environment() | {"PYTHONPATH": str(ROOT)}
        del environment["AWS_ENDPOINT_URL_S3"]
        if covered:
            return environment
        return {name: text for name, text in environment.items() if name[:9] != "COVERAGE_"}

    def run(
        self, *arguments: str, prefix: Iterable[str] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run s3mount for what it says: it is not expected to leave a mount."""
        prefix = list(prefix)
        return subprocess.run(
            [*prefix, *python(), *arguments],
            env=self.environment(covered=not prefix) | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    @contextmanager
    def foreground(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`s3mount -f`, from the moment that the mount answers; killed at the end if need be."""
        path = Path(arguments[1])
        process = subprocess.Popen(
            [*python(), *arguments, "-f"], env=self.environment(), stderr=subprocess.PIPE, text=True
        )
        try:
            until(lambda: mounts_at(path) or process.poll() is not None, "it mounts")
            assert process.poll() is None, process.communicate()
            os.stat(path)
            yield process
        finally:
            process.kill()
            process.communicate()
            if mounts_at(path):
                subprocess.run(["umount", "-l", path], check=True)


def python() -> list[str]:
    """The command s3mount, with every warning of Python's shown."""
    return [sys.executable, "-W", "default", "-m", "s3mount"]

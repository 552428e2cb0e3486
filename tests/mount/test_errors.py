"""Each row of the errno table: what read(2) and its like answer when S3 or the network fails."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.fault_proxy import (
    Action,
    FaultProxy,
    after,
    cut,
    edited,
    forward,
    hang,
    refuse,
    reset,
    stall,
    whole,
)
from tests.mounting import SENT_ONCE, Mounted, Mounts, until
from tests.stopwatch import Stopwatch

BLOCK = 1024 * 1024
# No tries again, so that the first failure is the answer; what is tried again is shown below.
# A machine that stands still for a second or two is no failure.
ONCE = ("--retries", "0", "--read-timeout", "4s", *SENT_ONCE)


# --- through the kernel ---------------------------------------------------------------------


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultProxy]:
    with FaultProxy(bucket.server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shared_proxy(module_bucket: Bucket) -> Iterator[FaultProxy]:
    with FaultProxy(module_bucket.server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shared(module_bucket: Bucket, shared_proxy: FaultProxy, module_mount: Mounts) -> Mounted:
    mounted = module_mount(
        module_bucket.name, *ONCE, "--metadata-ttl", "0", "--negative-ttl", "0",
        endpoint_url=shared_proxy.endpoint_url, cache=None,
    )  # fmt: skip
    mounted.expect(r"operations: (read|lookup|readdir|opendir): ")
    return mounted


def errno_of_call(call: Callable[[], object]) -> str:
    """The name of the errno that the call raises."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "none"


def read(path: Path) -> bytes:
    return path.read_bytes()


FAULTS: dict[str, tuple[Action, str]] = {
    "access denied": (refuse(403, "AccessDenied"), "EACCES"),
    "credentials expired": (refuse(400, "ExpiredToken"), "EACCES"),
    "credentials unknown": (refuse(403, "InvalidAccessKeyId"), "EACCES"),
    "signature": (refuse(403, "SignatureDoesNotMatch"), "EACCES"),
    "clock": (refuse(403, "RequestTimeTooSkewed"), "EACCES"),
    "no bucket": (refuse(404, "NoSuchBucket"), "ENXIO"),
    "invalid request": (refuse(400, "InvalidRequest"), "EINVAL"),
    "not implemented": (refuse(501, "NotImplemented"), "EINVAL"),
    "slow down": (refuse(503, "SlowDown"), "EBUSY"),
    "too many requests": (refuse(429, "TooManyRequests"), "EBUSY"),
    "internal error": (refuse(500, "InternalError"), "EREMOTEIO"),
    "bad gateway": (refuse(502, "BadGateway"), "EREMOTEIO"),
    "reset": (reset, "EHOSTUNREACH"),
    "read timeout": (hang, "EHOSTUNREACH"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_read_fails_with(
    name: str, module_bucket: Bucket, shared_proxy: FaultProxy, shared: Mounted
) -> None:
    action, expected = FAULTS[name]
    shared_proxy.released.clear()
    module_bucket.put({name: name.encode()})
    (shared.path / name).stat()
    shared_proxy.on("GET", action, key=name)
    assert errno_of_call(lambda: read(shared.path / name)) == expected
    shared_proxy.clear()
    # Whoever opens it anew is not told of the old failure.
    assert read(shared.path / name) == name.encode()


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "read timeout"])
def test_a_lookup_and_a_listing_fail_with(
    name: str, module_bucket: Bucket, shared_proxy: FaultProxy, shared: Mounted
) -> None:
    action, expected = FAULTS[name]
    module_bucket.put({"dir/file": b"content"})
    shared_proxy.on("LIST", action)
    assert errno_of_call((shared.path / "dir/file").stat) == expected
    shared_proxy.clear()
    fd = os.open(shared.path / "dir", os.O_RDONLY)
    try:
        shared_proxy.on("LIST", action)
        assert errno_of_call(lambda: os.listdir(fd)) == expected
        shared_proxy.clear()
        os.lseek(fd, 0, os.SEEK_SET)
        assert os.listdir(fd) == ["file"]
    finally:
        os.close(fd)
    assert (shared.path / "dir/file").stat().st_size == 7


WRONG: dict[str, Action] = {
    "the whole object instead of a range": whole,
    "an XML error with status 206": edited(lambda _: b"<Error><Code>InternalError</Code></Error>"),
    "a body cut off": cut(5000),
    "a longer body": edited(lambda body: body + b"more"),
    "a shorter body that says so": edited(lambda body: body[:-1]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_an_error_and_never_data(
    name: str, module_bucket: Bucket, shared_proxy: FaultProxy, shared: Mounted
) -> None:
    data = os.urandom(50_000)
    module_bucket.put({"wrong": data, "wrong-too": b"x"})
    shared_proxy.on("GET", WRONG[name], key="wrong")
    with (shared.path / "wrong").open("rb", buffering=0) as file:
        got = []
        failure = errno_of_call(lambda: got.append(os.pread(file.fileno(), 20_000, 4096)))
        assert got == ([data[4096:24096]] if failure == "none" else [])
        assert failure in {"none", "EIO", "EREMOTEIO", "EHOSTUNREACH"}
    shared_proxy.clear()
    assert read(shared.path / "wrong") == data


def test_a_file_that_is_not_there(shared: Mounted) -> None:
    assert errno_of_call((shared.path / "nothing").stat) == "ENOENT"
    assert errno_of_call(lambda: read(shared.path / "no/thing")) == "ENOENT"


def test_archived(bucket: Bucket, mount: Mounts) -> None:
    for storage_class in ("GLACIER", "DEEP_ARCHIVE"):
        bucket.server.client.put_object(
            Bucket=bucket.name, Key=storage_class, Body=b"cold", StorageClass=storage_class
        )
    mounted = mount(bucket.name, *ONCE)
    mounted.expect("is archived .*restore-object")
    for name in ("GLACIER", "DEEP_ARCHIVE"):
        assert (mounted.path / name).stat().st_size == 4
        assert errno_of_call((mounted.path / name).read_bytes) == "EACCES"
    assert "restore-object" in mounted.log()


# --- changes behind our back ----------------------------------------------------------------

HOUR = ("--metadata-ttl", "1h", "--negative-ttl", "1h")


def test_deleted_behind_our_back_before_the_open(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"gone": b"x", "stays": b"y"})
    mounted = mount(bucket.name, *HOUR)
    mounted.expect("'gone' was deleted")
    os.listdir(mounted.path)
    bucket.delete("gone")
    assert errno_of_call(lambda: read(mounted.path / "gone")) == "ESTALE"
    # And from now on it is known; the kernel is told a moment later.
    until(lambda: errno_of_call((mounted.path / "gone").stat) == "ENOENT", "it is known")
    assert errno_of_call(lambda: read(mounted.path / "gone")) == "ENOENT"
    assert os.listdir(mounted.path) == ["stays"]


def test_deleted_while_open(bucket: Bucket, mount: Mounts) -> None:
    data = os.urandom(6 * BLOCK)
    bucket.put({"file": data})
    mounted = mount(bucket.name, *HOUR, cache=None)
    mounted.expect("was replaced or deleted while it was read")
    with (mounted.path / "file").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 4096, 0) == data[:4096]
        bucket.delete("file")
        assert errno_of_call(lambda: os.pread(file.fileno(), 4096, 5 * BLOCK)) == "ESTALE"
        # What is here already stays good: it is of that very version.
        assert os.pread(file.fileno(), 4096, 0) == data[:4096]
    until(lambda: errno_of_call((mounted.path / "file").stat) == "ENOENT", "it is known")


def read_at_once(path: Path, size: int) -> bytes:
    """What the first read(2) of a new handle gives."""
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, 0)


def output_of(*command: str | Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout


READERS: dict[str, Callable[[Path, int], bytes]] = {
    "one read": lambda path, size: read_at_once(path, size + 1),
    "a part of it": read_at_once,
    "cat": lambda path, _: output_of("cat", path),
    "dd": lambda path, size: output_of("dd", f"if={path}", f"bs={size}", "count=1", "status=none"),
    "cp": lambda path, _: output_of("cp", path, "/dev/stdout"),
}


# Bytes, and how many more it has when it is read: in the page of the old end, and behind it.
GROWN = [
    (100, 0), (100, 1), (100, 3995), (100, 3997), (100, 5000), (100, 5 * BLOCK), (4096, 1),
    (8000, 1), (3 * BLOCK, 1), (3 * BLOCK + 1, 0), (3 * BLOCK + 1, 1), (3 * BLOCK + 1, 5 * BLOCK),
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_replaced_before_the_first_byte(reader: str, bucket: Bucket, mount: Mounts) -> None:
    """The new version is read as if it had been there all the time, by the first read already."""
    bucket.put({f"{old}+{more}": b"o" * old for old, more in GROWN})
    mounted = mount(bucket.name, *HOUR, "--readahead-files", "0", cache=None)
    for old, more in GROWN:
        assert (mounted.path / f"{old}+{more}").stat().st_size == old
    for old, more in GROWN:
        file, data = mounted.path / f"{old}+{more}", os.urandom(old + more)
        bucket.put({file.name: data})
        assert READERS[reader](file, len(data)) == data, file.name
        assert read(file) == data
        until(lambda: file.stat().st_size == len(data), "stat shows it")  # noqa: B023 - at once


@pytest.mark.parametrize(("old", "new"), [(100, 10), (100, 0), (3 * BLOCK, 10), (9 * BLOCK, BLOCK)])
def test_replaced_by_a_shorter_one_before_the_first_byte(
    old: int, new: int, bucket: Bucket, mount: Mounts
) -> None:
    """The kernel would show zeros behind its end: so it is an error, once."""
    bucket.put({"file": os.urandom(old)})
    mounted = mount(bucket.name, *HOUR, cache=None)
    mounted.expect("was replaced")
    assert (mounted.path / "file").stat().st_size == old
    data = os.urandom(new)
    bucket.put({"file": data})
    assert errno_of_call(lambda: read(mounted.path / "file")) == "ESTALE"
    assert read(mounted.path / "file") == data
    until(lambda: (mounted.path / "file").stat().st_size == new, "stat shows it")


@pytest.mark.parametrize("length", [6 * BLOCK, 3 * BLOCK, 9 * BLOCK])
def test_replaced_after_the_first_bytes(length: int, bucket: Bucket, mount: Mounts) -> None:
    """Never bytes of two versions: an error, and a new open gives the new version."""
    old, new = os.urandom(6 * BLOCK), os.urandom(length)
    bucket.put({"file": old})
    mounted = mount(bucket.name, *HOUR, cache=None)
    mounted.expect("was replaced or deleted while it was read")
    with (mounted.path / "file").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 4096, 0) == old[:4096]
        bucket.put({"file": new})
        assert errno_of_call(lambda: os.pread(file.fileno(), 4096, 5 * BLOCK)) == "ESTALE"
        assert read(mounted.path / "file") == new
        assert errno_of_call(lambda: os.pread(file.fileno(), 4096, 5 * BLOCK)) == "ESTALE"


def mounted_to_be_replaced(bucket: Bucket, mount: Mounts) -> tuple[Mounted, bytes]:
    """A mount of a file that will be replaced while it is read, and the file's bytes."""
    old = os.urandom(6 * BLOCK)
    bucket.put({"file": old})
    mounted = mount(bucket.name, *HOUR, cache=None)
    mounted.expect("was replaced or deleted while it was read")
    return mounted, old


def test_of_a_read_that_fails_at_its_end_no_part_is_handed_out(
    bucket: Bucket, mount: Mounts
) -> None:
    """One sector of two is here: the kernel would take its pages one by one, and end there."""
    mounted, old = mounted_to_be_replaced(bucket, mount)
    with (mounted.path / "file").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 4096, 4 * BLOCK) == old[4 * BLOCK :][:4096]
        bucket.put({"file": os.urandom(6 * BLOCK)})
        start, size = 4 * BLOCK + 64 * 1024, 128 * 1024
        assert errno_of_call(lambda: os.pread(file.fileno(), size, start)) == "ESTALE"
        assert os.pread(file.fileno(), 4096, start) == old[start:][:4096]


def test_what_is_here_stays_readable_when_the_kernel_wants_more_than_was_asked_for(
    bucket: Bucket, mount: Mounts
) -> None:
    mounted, old = mounted_to_be_replaced(bucket, mount)
    start, half = 4 * BLOCK, 64 * 1024
    with (mounted.path / "file").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), half, start) == old[start:][:half]
        bucket.put({"file": os.urandom(6 * BLOCK)})
        assert os.pread(file.fileno(), half // 2, start + half) == old[start + half :][: half // 2]
    assert "was replaced" in mounted.log(), "the kernel asked for no more than that"


def test_replaced_under_a_running_reader(bucket: Bucket, proxy: FaultProxy, mount: Mounts) -> None:
    """cat(1) gives the old bytes up to some place, and then fails; it never mixes."""
    old, new = os.urandom(8 * BLOCK), os.urandom(8 * BLOCK)
    bucket.put({"file": old})
    mounted = mount(bucket.name, *HOUR, *SENT_ONCE, cache=None, endpoint_url=proxy.endpoint_url)
    mounted.expect("was replaced or deleted while it was read")

    proxy.on("GET", after(lambda: bucket.put({"file": new})), times=1)
    proxy.on("GET", forward, times=1)
    done = subprocess.run(["cat", mounted.path / "file"], capture_output=True, check=False)
    if done.returncode == 0:
        assert done.stdout in (old, new)
    else:
        assert os.strerror(errno.ESTALE) in done.stderr.decode()
        assert old.startswith(done.stdout)
    assert read(mounted.path / "file") == new


def test_a_versioned_bucket_goes_on_with_the_old_version(bucket: Bucket, mount: Mounts) -> None:
    old, new = os.urandom(6 * BLOCK), os.urandom(6 * BLOCK)
    bucket.server.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    bucket.put({"file": old})
    mounted = mount(bucket.name, *HOUR, cache=None)
    with (mounted.path / "file").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 4096, 0) == old[:4096]
        bucket.put({"file": new})
        assert os.pread(file.fileno(), 4096, 5 * BLOCK) == old[5 * BLOCK :][:4096]


# --- a server that is gone, or hangs ----------------------------------------------------------


def timed(call: Callable[[], object]) -> tuple[str, float]:
    """The errno of the call, and its seconds."""
    with Stopwatch() as watch:
        return errno_of_call(call), watch.seconds


def test_a_server_that_is_gone(bucket: Bucket, proxy: FaultProxy, mount: Mounts) -> None:
    bucket.put({"file": b"content", "known": b"x", "dir/file": b""})
    mounted = mount(bucket.name, "--retries", "3", endpoint_url=proxy.endpoint_url, cache=None)
    mounted.expect(r"operations: (read|lookup): .*127.0.0.1:\d+ refuses the connection")
    assert read(mounted.path / "known") == b"x"
    proxy.go()
    for call in (lambda: read(mounted.path / "file"), (mounted.path / "dir/file").stat):
        name, seconds = timed(call)
        assert name == "EHOSTUNREACH"
        assert seconds < 2 + 1.5
    # What is known needs no server.
    assert read(mounted.path / "known") == b"x"
    assert "file" in os.listdir(mounted.path)


@pytest.mark.parametrize("action", [hang, stall(10)], ids=["no answer", "stalled body"])
def test_a_server_that_hangs(
    action: Action, bucket: Bucket, proxy: FaultProxy, mount: Mounts
) -> None:
    bucket.put({"file": b"content" * 100})
    mounted = mount(bucket.name, "--deadline", "3s", endpoint_url=proxy.endpoint_url)
    said = r"operations: read: .*not done in 2.4 s.*raise --deadline"
    mounted.expect(said)
    proxy.on("GET", action)
    name, seconds = timed(lambda: read(mounted.path / "file"))
    assert name == "ETIMEDOUT"
    assert 2.4 <= seconds < 3
    # The server hangs still: nothing but the deadline has ended it.
    assert re.search(said, mounted.log())
    proxy.clear()
    assert read(mounted.path / "file") == b"content" * 100


def test_what_passes_is_tried_again(bucket: Bucket, proxy: FaultProxy, mount: Mounts) -> None:
    """No reader notices a server that fails for a moment."""
    data = os.urandom(5 * BLOCK)
    bucket.put({"file": data, "dir/a": b""})
    mounted = mount(bucket.name, endpoint_url=proxy.endpoint_url, cache=None)
    faults = (refuse(503, "SlowDown"), refuse(500, "InternalError"), reset, cut(300_000), whole)
    for fault in faults:
        proxy.on("GET", fault, times=1)
        proxy.on("LIST", fault if fault is not whole else reset, times=1)
    assert os.listdir(mounted.path / "dir") == ["a"]
    assert read(mounted.path / "file") == data


# --- an exception in a handler ------------------------------------------------------------------

BROKEN = """
import sys
from s3mount.filesystem import Filesystem
from pathlib import Path

for name in {names!r}:
    def once(*args, original=getattr(Filesystem, name), trigger=Path({triggers!r}, name)):
        if trigger.exists():
            left = trigger.read_text()[1:]
            trigger.write_text(left) if left else trigger.unlink()
            raise {error}
        return original(*args)
    setattr(Filesystem, name, once)
from s3mount.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "error",
    [
        "ZeroDivisionError('bug')",
        "ExceptionGroup('bugs', [KeyError('bug'), OSError(2, 'bug')])",
        "AssertionError('bug')",
        "RecursionError('bug')",
    ],
)
def test_the_daemon_survives_any_exception(
    error: str, bucket: Bucket, mount: Mounts, tmp_path: Path
) -> None:
    """Every handler fails once: EIO for that call, a traceback in the log, and on it goes."""
    bucket.put({"dir/file": b"content", "other": b"x"})
    names = ["lookup", "getattr", "opendir", "entries", "open", "read", "release", "forget"]
    code = BROKEN.format(error=error, names=names, triggers=str(tmp_path / "triggers"))
    (tmp_path / "triggers").mkdir()
    mounted = mount(
        bucket.name, "--metadata-ttl", "0", program=[sys.executable, "-c", code], cache=None
    )
    mounted.expect("")

    def outcome(name: str) -> str:
        # The kernel itself tries again to read what could not be read ahead.
        (tmp_path / "triggers" / name).write_text("11" if name == "read" else "1")
        calls: list[Callable[[], object]] = [
            (mounted.path / "dir/file").stat,
            lambda: os.listdir(mounted.path / "dir"),
            (mounted.path / "other").read_bytes,
            (mounted.path / "dir/file").read_bytes,
        ]
        return max((errno_of_call(call) for call in calls), key="EIO".__eq__)

    for name in names[:-2]:
        if name == "read":
            bucket.put({"dir/file": b"another content"})
        assert (name, outcome(name)) == (name, "EIO")
        assert (name, outcome("none")) == (name, "none")
    for name in names[-2:]:  # nobody waits for an answer to these
        (tmp_path / "triggers" / name).write_text("1")
        read(mounted.path / "other")
        Path("/proc/sys/vm/drop_caches").write_text("2")
        until(lambda: os.listdir(tmp_path / "triggers") == ["none"], f"{name} is called")
    assert read(mounted.path / "dir/file") == b"another content"
    assert sorted(os.listdir(mounted.path)) == ["dir", "other"]
    assert mounted.log().count("this is a bug, please report it") == len(names) + 1
    assert mounted.log().count("Traceback (most recent call last)") >= len(names)

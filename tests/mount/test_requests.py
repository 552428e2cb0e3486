"""What a use of the mount costs: every request, as the server counted it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.modelled import Modelled, modelled
from tests.mounting import SENT_ONCE, Mounted, Mounts
from tests.servers import Server

HOUR = ("--metadata-ttl", "1h", "--negative-ttl", "1h", *SENT_ONCE)
DIRECTORIES, FILES = 3, 1000
KIB = 1024
MIB = 1024 * KIB
HANDFUL = 5  # of LISTs beside those that must be: some are sent on the chance that they help


def run(*command: str | Path, cwd: Path | None = None, status: int = 0) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def settle(server: Server, mounted: Mounted) -> None:
    """Wait until no request has come for a while, and forget those that came.

    The while is counted in answers of the daemon and the server: either may stand still.
    """
    counts, looks = server.counts(), 0
    while looks < 50:
        os.listdir(mounted.path)
        looks += 1
        if (new := server.counts()) != counts:
            counts, looks = new, 0
    server.reset()


def exists(path: Path) -> bool:
    return os.access(path, os.F_OK)


@pytest.fixture(scope="module")
def wide() -> Iterator[Modelled]:
    """3,000 files in 3 directories."""
    names = [f"dir{directory}/file{n:04}" for directory in range(DIRECTORIES) for n in range(FILES)]
    with modelled({name: b"%d\n" % n for n, name in enumerate(names)}) as server:
        yield server


@pytest.fixture
def wide_mounted(wide: Modelled, tmp_path: Path) -> Iterator[Mounted]:
    """A mount of it, whose own requests are counted."""
    wide.reset()
    with Mounts(tmp_path, wide) as mounts:
        yield mounts(wide.bucket, *HOUR, covered=False)


@pytest.fixture
def mounted(bucket: Bucket, mount: Mounts) -> Mounted:
    """A mount of a bucket with a few files, that knows its root and was asked nothing yet."""
    bucket.put({f"d/{name}": name.encode() * 10 for name in ("a", "b", "c", "m/x", "n/y")})
    mounted = mount(bucket.name, *HOUR)
    bucket.server.reset()
    return mounted


# --- listing ----------------------------------------------------------------------------


def test_mounting_costs_one_list(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"a": b"a"})
    mount(bucket.name, *SENT_ONCE)
    assert bucket.server.counts() == {"LIST": 1}


def test_ls_of_3000_files(wide_mounted: Mounted, wide: Modelled) -> None:
    lines = run("ls", "-lR", wide_mounted.path).splitlines()
    assert sum(line.startswith("-rw") for line in lines) == DIRECTORIES * FILES
    counts = wide.counts()
    assert set(counts) == {"LIST"}
    assert DIRECTORIES < counts["LIST"] <= DIRECTORIES + HANDFUL  # the mount's own among them
    settle(wide, wide_mounted)
    assert run("ls", "-lR", wide_mounted.path).splitlines() == lines
    assert wide.counts() == {}


@pytest.mark.parametrize(
    "command",
    [
        ["du", "-s"],
        ["find", ".", "-name", "*7"],
        ["find", ".", "-size", "+1M"],
        ["find", ".", "-newermt", "2001-01-01", "-printf", "%p %s %m"],
        ["ls", "-U", "dir0", "dir1", "dir2"],
        ["stat", *(f"dir{n}/file0999" for n in range(DIRECTORIES))],
    ],
    ids=" ".join,
)
def test_a_walk_costs_a_list_a_directory(
    command: list[str], wide_mounted: Mounted, wide: Modelled
) -> None:
    wide.reset()
    assert run(*command, cwd=wide_mounted.path) != "" or "+1M" in command
    counts = wide.counts()
    assert set(counts) == {"LIST"}
    assert counts["LIST"] <= DIRECTORIES + HANDFUL
    settle(wide, wide_mounted)
    run(*command, cwd=wide_mounted.path)
    assert wide.counts() == {}


def test_ls_of_an_empty_bucket(bucket: Bucket, mount: Mounts) -> None:
    mounted = mount(bucket.name, *SENT_ONCE)
    assert run("ls", "-la", mounted.path).count("\n") == 3  # total, "." and ".."
    assert run("ls", "-A", mounted.path) == ""
    assert bucket.server.counts() == {"LIST": 1}


def test_pages_of_a_long_directory(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({f"long/{number:05}": b"" for number in range(1_001)})
    mounted = mount(bucket.name, *HOUR)
    bucket.server.reset()
    assert len(os.listdir(mounted.path / "long")) == 1_001
    assert bucket.server.counts() == {"LIST": 2}


# --- names ------------------------------------------------------------------------------


def test_stat_of_one_name(mounted: Mounted, server: Server) -> None:
    assert (mounted.path / "d/b").stat().st_size == 10
    assert set(server.counts()) == {"LIST"}
    assert server.counts()["LIST"] <= 2
    server.reset()
    for name in ("a", "b", "c", "m", "n"):  # of those behind "b", the page told, too
        (mounted.path / "d" / name).stat()
    assert server.counts().total() <= 1


def test_a_thousand_stats(wide_mounted: Mounted, wide: Modelled) -> None:
    wide.reset()
    for number in range(FILES):
        (wide_mounted.path / f"dir1/file{number:04}").stat()
    assert set(wide.counts()) == {"LIST"}
    assert wide.counts()["LIST"] <= 3


def test_missing_names_of_a_known_directory(mounted: Mounted, server: Server) -> None:
    os.listdir(mounted.path / "d")
    server.reset()
    assert not any(exists(mounted.path / "d" / f"no{n}") for n in range(100))
    assert server.counts() == {}


def test_missing_names_in_the_dark(wide_mounted: Mounted, wide: Modelled) -> None:
    wide.reset()
    assert not exists(wide_mounted.path / "dir2/file0500.bak")
    assert 1 <= wide.counts().total() <= 2
    wide.reset()
    assert not exists(wide_mounted.path / "dir2/file0500.bak")
    assert wide.counts() == {}


def test_a_missing_directory(mounted: Mounted, server: Server) -> None:
    assert not exists(mounted.path / "nowhere/near/here")
    assert server.counts() == {}  # the mount's own LIST told that the root has no such name


def test_a_python_import(bucket: Bucket, mount: Mounts) -> None:
    bucket.put(
        {
            "lib/package/__init__.py": b"from package import part\n",
            "lib/package/part.py": b"print('imported')\n",
            "lib/other.py": b"",
        }
    )
    mounted = mount(bucket.name, *HOUR)
    code = "import sys; sys.path.insert(0, 'lib'); import package"
    python = (sys.executable, "-I", "-B", "-c", code)
    bucket.server.reset()
    assert run(*python, cwd=mounted.path) == "imported\n"
    counts = bucket.server.counts()
    assert counts["GET"] == 2
    assert counts["HEAD"] == 0
    assert counts["LIST"] <= 4
    bucket.server.reset()
    assert run(*python, cwd=mounted.path) == "imported\n"
    assert bucket.server.counts() == {}


# --- freshness ----------------------------------------------------------------------------


def test_ttl_of_zero_asks_always(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"d/a": b"1"})
    mounted = mount(bucket.name, "--metadata-ttl", "0", "--negative-ttl", "0")
    for _ in range(3):
        bucket.server.reset()
        assert os.listdir(mounted.path / "d") == ["a"]
        assert (mounted.path / "d/a").stat().st_size == 1
        assert not exists(mounted.path / "d/b")
        assert bucket.server.counts()["LIST"] >= 3
        assert bucket.server.counts()["HEAD"] == 0
    bucket.put({"d/a": b"123", "d/b": b""})
    assert (mounted.path / "d/a").stat().st_size == 3
    assert exists(mounted.path / "d/b")
    bucket.delete("d/a")
    assert not exists(mounted.path / "d/a")
    assert os.listdir(mounted.path / "d") == ["b"]


def test_within_the_ttl_a_change_is_not_seen(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"d/a": b"1"})
    mounted = mount(bucket.name, *HOUR)
    os.listdir(mounted.path / "d")
    bucket.put({"d/a": b"123", "d/b": b""})
    assert (mounted.path / "d/a").stat().st_size == 1
    assert not exists(mounted.path / "d/b")
    assert os.listdir(mounted.path / "d") == ["a"]
    assert bucket.server.counts() == {}


def test_negative_ttl_alone(bucket: Bucket, mount: Mounts) -> None:
    """What is there is believed for an hour; what is not there is asked for each time."""
    bucket.put({"d/a": b"1"})
    mounted = mount(bucket.name, "--metadata-ttl", "1h", "--negative-ttl", "0", *SENT_ONCE)
    assert os.listdir(mounted.path / "d") == ["a"]
    bucket.server.reset()
    assert not exists(mounted.path / "d/b")
    assert bucket.server.counts()["LIST"] >= 1
    bucket.put({"d/b": b"22"})
    assert (mounted.path / "d/b").stat().st_size == 2
    bucket.server.reset()
    assert (mounted.path / "d/a").stat().st_size == 1
    assert bucket.server.counts() == {}


def test_after_the_ttl_a_change_is_seen(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"d/a": b"1"})
    mounted = mount(bucket.name, "--metadata-ttl", "100ms", "--negative-ttl", "100ms")
    os.listdir(mounted.path / "d")
    bucket.put({"d/a": b"123", "d/b": b""})
    limit = 100
    while not exists(mounted.path / "d/b"):
        limit -= 1
        assert limit, "the new file does not show"
        # Not a wait for something to happen: this is the time-to-live that the test is about.
        subprocess.run(["sleep", "0.05"], check=True)
    assert (mounted.path / "d/a").stat().st_size == 3


# --- reading ------------------------------------------------------------------------------


def test_cat_after_ls_costs_one_get_and_then_none(
    bucket: Bucket, mount: Mounts, server: Server
) -> None:
    data = os.urandom(1024 * 1024)  # a whole block
    bucket.put({"d/block": data, "d/small": b"small"})
    mounted = mount(bucket.name, *HOUR)
    run("ls", "-l", mounted.path / "d")
    for name, expected in (("block", data), ("small", b"small")):
        server.reset()
        assert (mounted.path / "d" / name).read_bytes() == expected
        assert server.counts() == {"GET": 1}
        server.reset()
        assert (mounted.path / "d" / name).read_bytes() == expected
        run("cat", mounted.path / "d" / name, status=0) if name == "small" else None
        assert server.counts() == {}


def test_a_file_in_two_blocks_costs_two_gets_at_most(bucket: Bucket, mount: Mounts) -> None:
    data = os.urandom(2 * 1024 * 1024)
    bucket.put({"two": data})
    mounted = mount(bucket.name, *SENT_ONCE)
    bucket.server.reset()
    assert (mounted.path / "two").read_bytes() == data
    assert set(bucket.server.counts()) == {"GET"}
    assert bucket.server.counts()["GET"] <= 2


def test_each_byte_is_fetched_once(bucket: Bucket, mount: Mounts) -> None:
    size = 12 * 1024 * 1024 + 5
    data = os.urandom(size)
    bucket.put({"big": data})
    mounted = mount(bucket.name, *SENT_ONCE)
    bucket.server.reset()
    assert (mounted.path / "big").read_bytes() == data
    ranges = sorted(
        tuple(map(int, request["range"].removeprefix("bytes=").split("-")))
        for request in bucket.server.requests()
    )
    assert sum(stop - start + 1 for start, stop in ranges) == size
    assert [start for start, _ in ranges] == [0, *(stop + 1 for _, stop in ranges[:-1])]


def test_an_empty_file_costs_nothing(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"empty": b""})
    mounted = mount(bucket.name, *SENT_ONCE)
    bucket.server.reset()
    assert (mounted.path / "empty").read_bytes() == b""
    assert bucket.server.counts() == {}


def test_a_random_read_fetches_one_sector(bucket: Bucket, mount: Mounts) -> None:
    data = os.urandom(6 * 1024 * 1024)
    bucket.put({"big": data})
    mounted = mount(bucket.name, *SENT_ONCE)
    bucket.server.reset()
    with (mounted.path / "big").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 4096, 3_333_333) == data[3_333_333:][:4096]
    [request] = bucket.server.requests()
    start, stop = map(int, request["range"].removeprefix("bytes=").split("-"))
    assert stop - start + 1 == 128 * 1024


def test_the_ends_of_large_files_cost_two_gets_each_once_that_is_known(
    bucket: Bucket, mount: Mounts
) -> None:
    """One for what is waited for, and one for the rest; of the starts next to none."""
    size = 3 * MIB
    files = {f"d/{n}": os.urandom(size) for n in range(6)}
    bucket.put(files)
    mounted = mount(bucket.name, *HOUR)
    assert run("ls", mounted.path / "d").split() == [str(n) for n in range(6)]
    bucket.server.reset()
    for key, data in files.items():
        end = subprocess.run(
            ["tail", "-c", "1M", mounted.path / key], capture_output=True, check=True
        )
        assert end.stdout == data[-MIB:]
    ranges: dict[str, list[tuple[int, int]]] = {key: [] for key in files}
    for request in bucket.server.requests():
        start, stop = map(int, request["range"].removeprefix("bytes=").split("-"))
        key = request["path"].removeprefix(f"/{bucket.name}/")
        ranges[key].append((start, stop + 1))
    assert sum(start == 0 for starts in ranges.values() for start, _ in starts) <= 1
    for key in list(files)[2:]:
        later = sorted(each for each in ranges[key] if each[0])
        assert later == [(2 * MIB, 2 * MIB + 128 * KIB), (2 * MIB + 128 * KIB, size)]


def test_after_a_remount_the_disk_cache_answers(bucket: Bucket, mount: Mounts) -> None:
    files = {f"d/{size}": os.urandom(size) for size in (1, 4096, 300_000, 2_500_000)}
    bucket.put(files)
    mounted = mount(bucket.name, *SENT_ONCE)
    for key, data in files.items():
        assert (mounted.path / key).read_bytes() == data
    mounted.unmount()
    again = mount(bucket.name, *SENT_ONCE, at=mounted.path)
    bucket.server.reset()
    for key, data in files.items():
        assert (again.path / key).read_bytes() == data
    assert bucket.server.counts()["GET"] == 0
    assert bucket.server.counts()["LIST"] <= 2


def test_random_reads_of_what_was_streamed_are_answered_by_the_disk_cache(
    bucket: Bucket, mount: Mounts
) -> None:
    data = os.urandom(3_500_000)
    bucket.put({"a": data})
    mounted = mount(bucket.name)
    assert (mounted.path / "a").read_bytes() == data
    mounted.unmount()
    again = mount(bucket.name, at=mounted.path)
    bucket.server.reset()
    with (again.path / "a").open("rb", buffering=0) as file:
        for offset in (2_000_000, 700_000, 3_499_000):
            assert os.pread(file.fileno(), 4096, offset) == data[offset : offset + 4096]
    assert bucket.server.counts()["GET"] == 0


def test_after_a_remount_without_a_cache_s3_answers(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"a": b"abc"})
    mount(bucket.name, *SENT_ONCE, cache=None).path.joinpath("a").read_bytes()
    again = mount(bucket.name, *SENT_ONCE, cache=None)
    bucket.server.reset()
    assert (again.path / "a").read_bytes() == b"abc"
    assert bucket.server.counts() == {"GET": 1}


def test_a_replaced_file_is_not_taken_from_the_cache(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"a": b"old"})
    mounted = mount(bucket.name, *SENT_ONCE)
    assert (mounted.path / "a").read_bytes() == b"old"
    mounted.unmount()
    bucket.put({"a": b"new"})
    again = mount(bucket.name, *SENT_ONCE, at=mounted.path)
    bucket.server.reset()
    assert (again.path / "a").read_bytes() == b"new"
    assert bucket.server.counts() == {"GET": 1}


def test_ten_readers_of_one_file_cost_one_get(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"a": b"x" * 100_000})
    mounted = mount(bucket.name, *SENT_ONCE)
    bucket.server.reset()
    bucket.server.set_latency(0.3)
    readers = [
        subprocess.Popen(["sha1sum", mounted.path / "a"], stdout=subprocess.PIPE) for _ in range(10)
    ]
    assert len({reader.communicate()[0] for reader in readers}) == 1
    assert bucket.server.counts() == {"GET": 1}

"""What walks through a mounted tree cost, by real tools through the real kernel: exact requests.

The server is the modelled S3, which answers thousands of requests in the time that moto takes
for hundreds. Each test mounts anew, so that nothing is known and nothing cached.
"""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.modelled_s3.server import ModelledS3
from tests.mounting import SENT_ONCE, Mounted, Mounts
from tests.servers import Server

BUCKET = "walks"
# Long enough for whatever the test does.
OPTIONS = ("--metadata-ttl", "1h", "--negative-ttl", "1h", *SENT_ONCE)
KIB = 1024


def contents() -> dict[str, bytes]:
    """All trees of this module, in one bucket."""
    rng = random.Random(7)
    objects = {f"flat/f{n:04}": rng.randbytes(16 * KIB) for n in range(1000)}
    # Several times what is fetched ahead at most.
    objects |= {f"some/f{n:04}": rng.randbytes(16 * KIB) for n in range(250)}
    objects |= {f"nested/d{d:03}/f{f}": b"%d %d\n" % (d, f) for d in range(200) for f in range(10)}
    objects |= {f"long/{n:05}": b"" for n in range(5000)}
    objects |= {f"logs/{n:03}.gz": gzip.compress(b"%d\n" % n, mtime=0) for n in range(300)}
    objects |= {f"logs/{n:03}.idx": b"not read" for n in range(300)}
    objects |= {f"lib/package{n}/__init__.py": b"" for n in range(30)}
    objects |= {f"lib/package7/{name}.py": b"x = 1\n" for name in ("a", "b", "c")}
    objects |= {"lib/package7/__init__.py": b"from package7 import a, b, c\n"}
    objects |= {f"work/src/{n:02}.c": b"int x;\n" for n in range(20)}
    return objects


@pytest.fixture(scope="module")
def s3() -> Iterator[ModelledS3]:
    with ModelledS3(ttfb=0.005, rate=0, buckets=(BUCKET,)) as s3:
        s3.put_many(BUCKET, contents())
        yield s3


@pytest.fixture
def mounted(s3: ModelledS3, tmp_path: Path) -> Iterator[Mounted]:
    """A mount that knows its root, and whose requests are counted from now on."""
    with Mounts(tmp_path, Server(s3.endpoint_url)) as mounts:
        mounted = mounts(BUCKET, *OPTIONS, covered=False)
        s3.reset_counts()
        yield mounted


def requests(s3: ModelledS3) -> dict[str, int]:
    """What was asked since the last look, by kind."""
    counts = {kind: count for kind, count in s3.counts().requests.items() if count}
    s3.reset_counts()
    return counts


def run(command: str, cwd: Path, status: int = 0) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
    return done.stdout


# --- files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "tar cf - . | wc -c",
        "md5sum *",
        "cat * | wc -c",
        "find . -type f | xargs -n 1 -P 8 md5sum",
        "find . -type f | xargs -n 50 -P 4 md5sum",
        "find . -type f -exec md5sum {} +",
        "cp -r . $OUT",
        "rsync -a ./ $OUT",
        "ls -U | xargs cat | wc -c",
        "python3 -c 'import os\nfor name in os.listdir(): open(name, \"rb\").read()'",
    ],
)
def test_reading_a_directory_costs_one_get_a_file(
    mounted: Mounted, s3: ModelledS3, tmp_path: Path, command: str
) -> None:
    run(f"OUT={tmp_path}/out; {command}", mounted.path / "some")
    counts = requests(s3)
    assert counts["GET"] == 250
    assert counts["LIST"] <= 4
    run(f"OUT={tmp_path}/out2; {command}", mounted.path / "some")
    assert requests(s3) == {}


def test_grep_r_over_1000_files(mounted: Mounted, s3: ModelledS3) -> None:
    run("grep -r NOTHING .", mounted.path / "flat", status=1)
    counts = requests(s3)
    assert counts["GET"] == 1000
    assert counts["LIST"] <= 4
    run("grep -r NOTHING .", mounted.path / "flat", status=1)
    assert requests(s3) == {}


def test_reading_in_order_is_reading_in_parallel(mounted: Mounted, s3: ModelledS3) -> None:
    s3.set_model(ttfb=0.05, rate=0)
    try:
        started = time.monotonic()
        run("md5sum *", mounted.path / "flat")
        took = time.monotonic() - started
    finally:
        s3.set_model(ttfb=0.005, rate=0)
    assert s3.counts().peak_in_flight >= 16
    assert took < 1000 * 0.05 / 4


def test_grep_r_over_many_small_directories(mounted: Mounted, s3: ModelledS3) -> None:
    assert len(run("grep -rc . .", mounted.path / "nested").splitlines()) == 2000
    counts = requests(s3)
    assert counts["GET"] == 2000
    assert counts["LIST"] <= 15


def test_one_extension_among_others(mounted: Mounted, s3: ModelledS3) -> None:
    numbers = run("zcat *.gz", mounted.path / "logs").split()
    assert numbers == [str(n) for n in range(300)]
    counts = requests(s3)
    # Before the second file shows that the others are passed over, one of them may be fetched.
    assert 300 <= counts["GET"] <= 302
    assert counts["LIST"] <= 3


def test_shuffled_by_eight_processes(mounted: Mounted, s3: ModelledS3) -> None:
    run("ls -U | shuf --random-source=/bin/bash | xargs -n 125 -P 8 md5sum", mounted.path / "flat")
    assert requests(s3)["GET"] == 1000


# --- directories --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["find . -type f", "du -a .", "ls -lR", "find . -name '*3'", "rsync -n -a -v ./ x/"]
)
def test_walking_many_small_directories(mounted: Mounted, s3: ModelledS3, command: str) -> None:
    lines = run(command, mounted.path / "nested").splitlines()
    assert len(lines) >= 200
    assert requests(s3)["LIST"] <= 5
    assert run(command, mounted.path / "nested").splitlines()[:-3] == lines[:-3]
    assert requests(s3) == {}


def test_breadth_first(mounted: Mounted, s3: ModelledS3) -> None:
    code = (
        "import os\nlevel = ['.']\n"
        "while level:\n"
        "    level = [e.path for d in level for e in os.scandir(d) if e.is_dir()]\n"
    )
    run(f'python3 -c "{code}"', mounted.path / "nested")
    assert requests(s3)["LIST"] <= 6


def test_ls_of_5000_files(mounted: Mounted, s3: ModelledS3) -> None:
    assert len(run("ls -l", mounted.path / "long").splitlines()) == 5001
    assert requests(s3)["LIST"] <= 6


# --- names --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_a_thousand_stats_in_the_dark(mounted: Mounted, s3: ModelledS3, order: str) -> None:
    names = [f"f{n:04}" for n in range(1000)]
    if order == "shuffled":
        random.Random(1).shuffle(names)
    for name in names:
        assert (mounted.path / "flat" / name).stat().st_size == 16 * KIB
    # "flat" itself is known from the mount's own request.
    assert requests(s3) == {"LIST": 2 if order == "shuffled" else 1}


def test_a_thousand_names_that_are_not_there(mounted: Mounted, s3: ModelledS3) -> None:
    for n in range(1000):
        assert not os.path.exists(mounted.path / "flat" / f"g{n:04}")
    assert requests(s3)["LIST"] <= 2


@pytest.mark.parametrize(
    ("command", "status", "most"),
    [
        ("ls --color=always", 0, (2, 0)),
        ("ls --color=always lib", 0, (3, 0)),
        ("test -e lib/package9/setup.py", 1, (3, 0)),
        ("test -e nothing", 1, (0, 0)),
        ("compgen -f nested/d01", 0, (2, 0)),
        (f"PYTHONPATH=lib {sys.executable} -B -c 'import package7'", 0, (6, 4)),
        # Looks for .git in every directory up to the mountpoint, which is a border.
        ("git -C work/src status 2>/dev/null", 128, (3, 0)),
    ],
)
def test_everyday_commands_ask_once(
    mounted: Mounted, s3: ModelledS3, command: str, status: int, most: tuple[int, int]
) -> None:
    lists, gets = most
    first = run(command, mounted.path, status)
    counts = requests(s3)
    assert counts.get("LIST", 0) <= lists
    assert counts.get("GET", 0) <= gets
    assert set(counts) <= {"LIST", "GET"}
    assert run(command, mounted.path, status) == first
    assert requests(s3) == {}
